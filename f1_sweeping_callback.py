"""The callback of the sweep: the challenge's F1 on the validation split after every epoch."""

import numpy as np

from inference import predict
from keras_setup import keras
from preprocessing import vote
from scoring import confusion_matrix, epoch_scores, log_loss


class PhysioNetF1SweepCallback(keras.callbacks.Callback):
    """Predict the validation split in chunks after each epoch and log its F1 scores.

    Adds `val_loss` (mean categorical cross-entropy), `F1_0` … `F1_3` (A, N, O, ~), `avg_F1_score` and `challenge_F1`
    to the epoch's logs, where later callbacks and the history find them, and to a Weights & Biases run.

    inputs: anything with a length that a slice turns into a batch, as an array or `preprocessing.Images`;
    labels: indices of classes (n,); chunk_size: inputs predicted at a time, which bounds the memory and changes no
    score; tracker: a Weights & Biases run, or None; owners: the recording of each input, where a recording has several
    that vote, or None.
    """

    def __init__(self, inputs, labels, chunk_size=256, tracker=None, owners=None):
        super().__init__()
        owners = np.arange(len(inputs)) if owners is None else owners
        if len(inputs) != len(owners) or len(labels) != len(np.unique(owners)) or len(labels) == 0 or chunk_size < 1:
            raise ValueError(
                f"{len(inputs)} inputs, {len(labels)} labels and chunks of {chunk_size} do not go together"
            )
        self.inputs, self.labels, self.chunk_size = inputs, np.asarray(labels), chunk_size
        self.tracker, self.owners = tracker, owners

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        probabilities = vote(predict(self.model, self.inputs, self.chunk_size), self.owners)
        logs["val_loss"] = log_loss(self.labels, probabilities)
        self.matrix = confusion_matrix(self.labels, probabilities.argmax(1))
        logs.update(epoch_scores(self.matrix))
        if self.tracker:
            self.tracker.log({"epoch": epoch + 1, **logs}, step=epoch + 1)
