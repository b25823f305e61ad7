"""The one training function that main.py and sweeping.py share."""

import keras
import numpy as np
import pandas as pd

from recipes import CLASSES
from shell import progress, writing


class Batches(keras.utils.PyDataset):
    """Batches of `inputs` and one-hot labels, in an order that the seed and the epoch alone decide.

    inputs: anything that an index array turns into a batch, as an array or `preprocessing.Images`; labels: class
    numbers (n,). Features and images are thus served in one order, on every backend.
    """

    def __init__(self, inputs, labels, batch_size, seed):
        super().__init__()
        self.inputs, self.batch_size, self.seed = inputs, batch_size, seed
        self.targets = np.eye(len(CLASSES), dtype=np.float32)[labels]
        self.start_epoch(0)

    def start_epoch(self, epoch):
        """Draw the order of epoch number `epoch`."""
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.targets))

    def on_epoch_end(self):
        self.start_epoch(self.epoch + 1)

    def __len__(self):
        return -(-len(self.targets) // self.batch_size)

    def __getitem__(self, number):
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        return self.inputs[chosen], self.targets[chosen]


class Table(keras.callbacks.Callback):
    """Keeps the logs of all epochs in `rows` and, given a path, in a CSV file rewritten whole after each."""

    def __init__(self, path=None):
        super().__init__()
        self.path, self.rows = path, []

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **logs})
        if self.path:
            with writing(self.path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)


class Bar(keras.callbacks.Callback):
    """A progress bar over all batches of all epochs, with the last epoch's F1."""

    def on_train_begin(self, logs=None):
        self.bar = progress(self.params["epochs"] * self.params["steps"], "training", "batch")

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(batch + 1 - self.bar.n % self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix(epoch=epoch + 1, F1=f"{logs['avg_F1_score']:.3f}", refresh=False)

    def on_train_end(self, logs=None):
        self.bar.close()


def train(model, inputs, labels, recipe, scorer, path=None, bar=True):
    """Train `model` by `recipe` and return a DataFrame with one row of logs per epoch.

    inputs, labels: the training part, as `Batches` takes them; scorer: a `PhysioNetF1SweepCallback`, whose scores enter
    the rows; path: where the rows are also written as CSV, or None.
    """
    keras.utils.set_random_seed(recipe.seed)
    model.compile(
        optimizer=keras.optimizers.get(
            {"class_name": recipe.optimizer, "config": {"learning_rate": recipe.learning_rate}}
        ),
        loss="categorical_crossentropy",
        # A head's steps are so small that starting them takes longer than they do: run many per call.
        steps_per_execution=16 if model.count_params() < 5_000_000 else 1,
    )
    table = Table(path)
    model.fit(
        Batches(inputs, labels, recipe.batch_size, recipe.seed),
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[scorer, table, *([Bar()] if bar else [])],
    )
    return pd.DataFrame(table.rows)
