"""The callback of the final training: on a new best F1, save the model and log its confusion matrix."""

import math

import plotting
from f1_sweeping_callback import PhysioNetF1SweepCallback


class PhysioNetF1Callback(PhysioNetF1SweepCallback):
    """`PhysioNetF1SweepCallback` that also calls `save()` whenever `avg_F1_score` is a new best.

    save: a function without arguments that writes the model as it is now. A Weights & Biases run also gets the
    validation split's confusion matrix then, as the image `confusion_matrix`.
    """

    def __init__(self, inputs, labels, save, chunk_size=256, tracker=None, owners=None):
        super().__init__(inputs, labels, chunk_size, tracker, owners)
        self.save, self.best = save, -math.inf

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        super().on_epoch_end(epoch, logs)
        if logs["avg_F1_score"] <= self.best:
            return
        self.best = logs["avg_F1_score"]
        self.save()
        if self.tracker:
            import wandb

            title = f"Validation, epoch {epoch + 1}, F1 {self.best:.4f}"
            drawing = plotting.confusion_matrix(self.matrix, title)
            self.tracker.log({"confusion_matrix": wandb.Image(drawing)}, step=epoch + 1)
