"""The callback of the sweep: the challenge's F1 on the validation part after every epoch."""

import keras
import numpy as np

from scoring import confusion_matrix, epoch_scores


class PhysioNetF1SweepCallback(keras.callbacks.Callback):
    """Predict the validation part in chunks after each epoch and log its F1 scores.

    Adds `val_loss` (mean categorical cross-entropy), `F1_0` … `F1_3` (A, N, O, ~), `avg_F1_score` and `challenge_F1`
    to the epoch's logs, where later callbacks and the history find them, and to a Weights & Biases run.

    inputs: anything with a length that a slice turns into a batch, as an array or `preprocessing.Images`;
    labels: class numbers (n,); chunk_size: recordings predicted at a time, which bounds the memory and changes no
    score; run: a Weights & Biases run, or None.
    """

    def __init__(self, inputs, labels, chunk_size=256, run=None):
        super().__init__()
        if len(inputs) != len(labels) or len(labels) == 0 or chunk_size < 1:
            raise ValueError(
                f"{len(inputs)} inputs, {len(labels)} labels and chunks of {chunk_size} do not go together"
            )
        self.inputs, self.labels, self.chunk_size, self.run = inputs, np.asarray(labels), chunk_size, run

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        probabilities = np.concatenate(
            [
                self.model.predict_on_batch(self.inputs[start : start + self.chunk_size])
                for start in range(0, len(self.labels), self.chunk_size)
            ]
        )
        chosen = probabilities[np.arange(len(self.labels)), self.labels]
        logs["val_loss"] = float(-np.log(np.maximum(chosen, keras.config.epsilon())).mean())
        self.matrix = confusion_matrix(self.labels, probabilities.argmax(1))
        logs.update(epoch_scores(self.matrix))
        if self.run:
            self.run.log({"epoch": epoch + 1, **logs}, step=epoch + 1)
