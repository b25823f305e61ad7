"""The one training function that main.py and sweeping.py share."""

import dataclasses
import json
import math
import zipfile
import zlib

import keras
import numpy as np
import pandas as pd

from recipes import CLASSES
from shell import progress, say, writing


class Batches(keras.utils.PyDataset):
    """Batches of `inputs`, one-hot labels and weights, in an order that the seed and the epoch alone decide.

    inputs: anything that an index array turns into a batch, as an array, `preprocessing.Images` or
    `augmentation.AugmentedImages`, whose `epoch` is set; labels: class numbers (n,). Features and images are thus
    served in one order, on every backend.
    """

    def __init__(self, inputs, labels, recipe):
        super().__init__()
        self.inputs, self.batch_size, self.seed = inputs, recipe.batch_size, recipe.seed
        self.targets = np.eye(len(CLASSES), dtype=np.float32)[labels]
        self.weights = class_weights(labels, recipe.class_weights)[labels]
        self.start_epoch(0)

    def start_epoch(self, epoch):
        """Draw the order of epoch number `epoch`."""
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.targets))
        if hasattr(self.inputs, "epoch"):
            self.inputs.epoch = epoch

    def on_epoch_end(self):
        self.start_epoch(self.epoch + 1)

    def __len__(self):
        return -(-len(self.targets) // self.batch_size)

    def __getitem__(self, number):
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        return self.inputs[chosen], self.targets[chosen], self.weights[chosen]


def class_weights(labels, kind):
    """Weight of each class, float32 (4,), of mean 1 over the recordings with class numbers `labels` (n,).

    kind: none, all alike; sqrt, or balanced: inverse to the (square root of the) class's share.
    """
    counts = np.maximum(np.bincount(labels, minlength=len(CLASSES)), 1)
    weights = (1 / counts) ** {"none": 0, "sqrt": 0.5, "balanced": 1}[kind]
    return (weights / weights[labels].mean()).astype(np.float32)


class Checkpoint(keras.callbacks.Callback):
    """Keeps the logs of all epochs in `rows` and, given paths, in a CSV file and in a checkpoint, after each epoch.

    The checkpoint holds all that training needs to go on as if it had never stopped: every variable of the model and
    its optimizer, the rows, and `identity`, a text that tells this training from another.
    """

    def __init__(self, scorer, identity, table_path=None, path=None):
        super().__init__()
        self.scorer, self.identity, self.table_path, self.path, self.rows = scorer, identity, table_path, path, []

    def variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def on_train_begin(self, logs=None):
        self.scorer.best = max((row["avg_F1_score"] for row in self.rows), default=-math.inf)

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **logs})
        if self.table_path:
            with writing(self.table_path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)
        if self.path:
            left = {"identity": self.identity, "rows": self.rows}
            arrays = {f"variable_{n}": keras.ops.convert_to_numpy(v) for n, v in enumerate(self.variables())}
            with writing(self.path) as temporary:
                np.savez(temporary, progress=json.dumps(left), **arrays)

    def restore(self):
        """Take up the training that an earlier process left in the checkpoint, unless it was another."""
        if not (self.path and self.path.exists()):
            return
        for part in self.path.parent.glob(f".{self.path.stem}.*{self.path.suffix}"):
            part.unlink()  # of a checkpoint that was being written when the process was killed
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                left = json.loads(str(kept["progress"]))
                arrays = [kept[f"variable_{n}"] for n in range(len(self.variables()))]
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
            say(f"{self.path} is damaged; training starts anew")
            return
        if left["identity"] != self.identity:
            say(f"{self.path} belongs to a training on other recordings or settings; this one starts anew")
            return
        for variable, array in zip(self.variables(), arrays, strict=True):
            variable.assign(array)
        self.rows = left["rows"]
        say(f"going on after epoch {len(self.rows)} of an interrupted training")


class Averaged(keras.callbacks.Callback):
    """Shows `scorer` the moving average of the weights after each epoch; training goes on from the weights."""

    def __init__(self, scorer):
        super().__init__()
        self.scorer = scorer

    def on_epoch_end(self, epoch, logs=None):
        trained = [keras.ops.convert_to_numpy(variable) for variable in self.model.trainable_variables]
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.scorer.on_epoch_end(epoch, logs)
        for variable, value in zip(self.model.trainable_variables, trained, strict=True):
            variable.assign(value)


class Bar(keras.callbacks.Callback):
    """A progress bar over all batches of all epochs, with the last epoch's F1."""

    def __init__(self, done):
        super().__init__()
        self.done = done  # epochs of an earlier process

    def on_train_begin(self, logs=None):
        self.bar = progress(self.params["epochs"] * self.params["steps"], "training", "batch")
        self.bar.initial = self.bar.n = self.done * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(batch + 1 - self.bar.n % self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix(epoch=epoch + 1, F1=f"{logs['avg_F1_score']:.3f}", refresh=False)

    def on_train_end(self, logs=None):
        self.bar.close()


def train(model, inputs, labels, recipe, scorer, table_path=None, checkpoint=None, identity="", bar=True):
    """Train `model` by `recipe` and return a DataFrame with one row of logs per epoch.

    inputs, labels: the training part, as `Batches` takes them; scorer: a `PhysioNetF1SweepCallback`, whose scores
    enter the rows; table_path: where the rows are also written as CSV; checkpoint: a file that is written after each
    epoch, from which the same training goes on after an interruption, and which is the caller's to delete; identity: a
    text that tells the recordings from others.
    """
    keras.utils.set_random_seed(recipe.seed)
    batches = Batches(inputs, labels, recipe)
    model.compile(
        optimizer=_optimizer(recipe, len(batches)),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        # A head's steps are so small that starting them takes longer than they do: run many per call.
        steps_per_execution=16 if len(model.input_shape) == 2 else 1,
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",  # XLA makes a CPU slower
    )
    scorer.set_model(model)
    model.optimizer.build(model.trainable_variables)
    kept = Checkpoint(scorer, f"{dataclasses.asdict(recipe)} {identity}", table_path, checkpoint)
    kept.set_model(model)
    kept.restore()
    batches.start_epoch(len(kept.rows))
    model.fit(
        batches,
        initial_epoch=len(kept.rows),
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            Averaged(scorer) if recipe.weight_average else scorer,
            kept,
            *([Bar(len(kept.rows))] if bar else []),
        ],
    )
    return pd.DataFrame(kept.rows)


def _optimizer(recipe, steps):
    """The recipe's optimizer for epochs of `steps` batches."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        total = recipe.epochs * steps
        warm_up = max(total // 20, 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(total - warm_up, 1), warmup_target=rate, warmup_steps=warm_up
        )
    settings = {"learning_rate": rate, "use_ema": recipe.weight_average > 0}
    if recipe.weight_average:
        settings["ema_momentum"] = max(1 - 1 / (recipe.weight_average * steps), 0)
    if recipe.optimizer == "adamw":
        return keras.optimizers.AdamW(weight_decay=0.01, **settings)
    return {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}[
        recipe.optimizer
    ](**settings)
