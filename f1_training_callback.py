"""The callback of a training that is scored: on a new best epoch, save the model and log its confusion matrix."""

import plotting
from f1_sweeping_callback import PhysioNetF1SweepCallback
from scoring import merit


class PhysioNetF1Callback(PhysioNetF1SweepCallback):
    """`PhysioNetF1SweepCallback` that also calls `save()` whenever an epoch is the best so far.

    save: a function without arguments that writes the model as it is now; best_epoch: what makes an epoch the best, as
    in the recipe. A Weights & Biases run also gets the validation split's confusion matrix then, as the image
    `confusion_matrix`.
    """

    def __init__(self, inputs, labels, save, chunk_size=256, tracker=None, owners=None, best_epoch="f1"):
        super().__init__(inputs, labels, chunk_size, tracker, owners)
        self.save, self.best_epoch, self.best = save, best_epoch, None

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        super().on_epoch_end(epoch, logs)
        reached = merit(logs, self.best_epoch)
        if self.best is not None and reached <= self.best:
            return
        self.best = reached
        self.save()
        if self.tracker:
            import wandb

            title = f"Validation, epoch {epoch + 1}, F1 {logs['avg_F1_score']:.4f}"
            drawing = plotting.confusion_matrix(self.matrix, title)
            self.tracker.log({"confusion_matrix": wandb.Image(drawing)}, step=epoch + 1)
