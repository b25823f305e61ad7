"""The callback of the sweep: the challenge's F1 on the validation part after every epoch."""

import keras
import numpy as np

from preprocessing import vote
from scoring import confusion_matrix, epoch_scores


class PhysioNetF1SweepCallback(keras.callbacks.Callback):
    """Predict the validation part in chunks after each epoch and log its F1 scores.

    Adds `val_loss` (mean categorical cross-entropy), `F1_0` … `F1_3` (A, N, O, ~), `avg_F1_score` and `challenge_F1`
    to the epoch's logs, where later callbacks and the history find them, and to a Weights & Biases run.

    inputs: anything with a length that a slice turns into a batch, as an array or `preprocessing.Images`;
    labels: class numbers (n,); chunk_size: inputs predicted at a time, which bounds the memory and changes no
    score; run: a Weights & Biases run, or None; owners: the recording of each input, where a recording has several
    that vote, or None.
    """

    def __init__(self, inputs, labels, chunk_size=256, run=None, owners=None):
        super().__init__()
        owners = np.arange(len(inputs)) if owners is None else owners
        if len(inputs) != len(owners) or len(labels) != len(np.unique(owners)) or len(labels) == 0 or chunk_size < 1:
            raise ValueError(
                f"{len(inputs)} inputs, {len(labels)} labels and chunks of {chunk_size} do not go together"
            )
        self.inputs, self.labels, self.chunk_size, self.run = inputs, np.asarray(labels), chunk_size, run
        self.owners = owners

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        probabilities = np.concatenate(
            [
                self.model.predict_on_batch(self.inputs[start : start + self.chunk_size])
                for start in range(0, len(self.inputs), self.chunk_size)
            ]
        )
        probabilities = vote(probabilities, self.owners)
        chosen = probabilities[np.arange(len(self.labels)), self.labels]
        logs["val_loss"] = float(-np.log(np.maximum(chosen, keras.config.epsilon())).mean())
        self.matrix = confusion_matrix(self.labels, probabilities.argmax(1))
        logs.update(epoch_scores(self.matrix))
        if self.run:
            self.run.log({"epoch": epoch + 1, **logs}, step=epoch + 1)
