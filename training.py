"""Recipe and split recordings → inputs, training, calibration: what main.py, the sweep and the benchmark share."""

import dataclasses
import json
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special

import bounds
import dataset
import model
import preprocessing
import recipes
from keras_setup import keras
from recipes import CLASSES
from scoring import merit
from shell import UserError, progress, read_arrays, reason, say, write_arrays, writing

Prepared = namedtuple("Prepared", "network trained inputs labels validation validation_labels owners")
Prepared.__doc__ = """All that training by a recipe takes.

network: a `model.Network`; trained: the Keras model that is fitted, whole or its head; inputs, labels: the training
split as `Batches` takes them; validation, validation_labels, owners: the validation split, as the callbacks take it.
"""


def prepare(table, recipe):
    """`Prepared` for the recordings of `table`, whose column split says train or validation (test is left alone).

    The features of a frozen base are computed, or read where they are kept. There may be no validation split. Epochs
    are scored without the vote over stretched recordings, which would take three times as long.
    """
    train, validation = (table[table.split == split] for split in ("train", "validation"))
    plain = dataclasses.replace(recipe, vote_stretch=0)
    images, shown = (preprocessing.Images(rows.signal, rows.sampling_rate, plain) for rows in (train, validation))
    network = model.build(recipe, images[: model.BATCH])
    labels, validation_labels = (rows.label.map(CLASSES.index).to_numpy() for rows in (train, validation))
    rest = validation_labels, shown.owners
    if recipe.streams and 0 < len(shown) * images[:1].nbytes <= bounds.HELD:
        shown = shown[:]  # made once, and shown after every epoch
    # A twin is compiled, so that the model is saved without the optimizer, which is several times its size.
    twin = keras.Model(network.complete.input, network.complete.output) if recipe.streams else network.head
    if recipe.augments:
        inputs = preprocessing.AugmentedImages(train.signal, train.sampling_rate, recipe)
        return Prepared(network, twin, inputs, labels, shown, *rest)
    if recipe.streams:
        return Prepared(network, twin, images, labels[images.owners], shown, *rest)
    inputs = model.frozen_features(network.base, images, "features, training split")
    features = model.frozen_features(network.base, shown, "features, validation split") if len(shown) else None
    return Prepared(network, twin, inputs, labels[images.owners], features, *rest)


def fingerprint(table, recipe):
    """A hash (hexadecimal) of a training: its recipe, and the recordings it learns from in their order."""
    learned = table.loc[table.split != "test", ["record", "label", "split", "sampling_rate", "signal"]]
    told = dataclasses.asdict(recipe)
    if Path(recipe.weights).is_file():  # what it holds, whatever it is called
        told["weights"] = sha256(Path(recipe.weights).read_bytes()).hexdigest()
    # Younger than finished runs, whose fingerprints are without them.
    for name in (*recipes.settings("trees"), "best_epoch", "trace", "flip", "refit"):
        if told[name] == getattr(recipes.Recipe, name):
            del told[name]
    return sha256(f"{told} {dataset.fingerprint(learned)}".encode()).hexdigest()


class Batches(keras.utils.PyDataset):
    """Batches of `inputs`, one-hot labels and weights, in an order that the seed and the epoch alone decide.

    inputs: anything that an index array turns into a batch, as an array, `preprocessing.Images` or
    `preprocessing.AugmentedImages`, whose `epoch` is set; labels: indices of classes (n,). Features and images are thus
    served in one order, on every backend.
    """

    def __init__(self, inputs, labels, recipe):
        super().__init__()
        self.inputs, self.batch_size, self.seed = inputs, recipe.batch_size, recipe.seed
        self.targets = np.eye(len(CLASSES), dtype=np.float32)[labels]
        self.weights = class_weights(labels, recipe.class_weights)[labels]
        self.start_epoch(0)

    def start_epoch(self, epoch):
        """Draw the order of `epoch`, counted from 0."""
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.targets))
        if hasattr(self.inputs, "epoch"):
            self.inputs.epoch = epoch

    def on_epoch_end(self):
        self.start_epoch(self.epoch + 1)

    def __len__(self):
        return -(-len(self.targets) // self.batch_size)

    def __getitem__(self, place):
        chosen = self.order[place * self.batch_size : (place + 1) * self.batch_size]
        return self.inputs[chosen], self.targets[chosen], self.weights[chosen]


def class_weights(labels, kind):
    """Weight of each class, float32 (4,), of mean 1 over the recordings with indices of classes `labels` (n,).

    kind: none, all alike; sqrt, or balanced: inverse to the (square root of the) class's share.
    """
    counts = np.maximum(np.bincount(labels, minlength=len(CLASSES)), 1)
    weights = (1 / counts) ** {"none": 0, "sqrt": 0.5, "balanced": 1}[kind]
    return (weights / weights[labels].mean()).astype(np.float32)


OTHER = "belongs to a training on other recordings or settings"


class Checkpoint(keras.callbacks.Callback):
    """Keeps the logs of all epochs in `rows` and, of a run, in its history and its checkpoint, after each epoch.

    The checkpoint holds all that training needs to go on as if it had never stopped: every variable of the model and
    its optimizer, the rows, and the training's `fingerprint`.
    """

    def __init__(self, scorer, recipe, epochs, run, fingerprint):
        super().__init__()
        self.scorer, self.recipe, self.epochs, self.run, self.fingerprint = scorer, recipe, epochs, run, fingerprint
        self.rows = []
        self.scored = () if isinstance(scorer, Kept) else ("avg_F1_score", "val_loss")

    def variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def on_train_begin(self, logs=None):
        if self.scored:
            self.scorer.best = max((merit(row, self.recipe.best_epoch) for row in self.rows), default=None)

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **logs})
        if self.run is None:
            return
        with writing(self.run.history) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        left = json.dumps({"fingerprint": self.fingerprint, "rows": self.rows})
        arrays = {f"variable_{place}": keras.ops.convert_to_numpy(v) for place, v in enumerate(self.variables())}
        write_arrays(self.run.checkpoint, progress=left, **arrays)

    def restore(self):
        """Continue the training that an earlier process left in the run's checkpoint, unless it was another."""
        kept = self.run and read_arrays(self.run.checkpoint)
        if not kept:
            return
        obstacle = self._obstacle(kept)
        if obstacle:
            say(f"{self.run.checkpoint} {obstacle}; training starts anew")
            if obstacle != OTHER:  # after a kill, it would go on with a model that this training began to write
                self._forget()
            return
        for place, variable in enumerate(self.variables()):
            variable.assign(kept[f"variable_{place}"])
        self.rows = json.loads(str(kept["progress"]))["rows"]
        say(f"continuing after epoch {len(self.rows)} of an interrupted training")

    def _forget(self):
        try:
            self.run.checkpoint.unlink()
        except OSError as error:
            raise UserError(f"{self.run.checkpoint} cannot be deleted ({reason(error)}); delete it") from error

    def _obstacle(self, kept):
        """Why the arrays `kept` in a checkpoint cannot be continued from, or None."""
        try:
            left = json.loads(str(kept["progress"]))
            told = [(row["epoch"], {type(row[name]) for name in ("loss", *self.scored)}) for row in left["rows"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return "does not hold what a checkpoint should"
        if left.get("fingerprint") != self.fingerprint:
            return OTHER
        if told != [(place + 1, {float}) for place in range(len(told))] or not 0 < len(told) <= self.epochs:
            return "does not tell of the epochs from the first on, each once"
        expected = {f"variable_{place}": _form(variable) for place, variable in enumerate(self.variables())}
        if {name: _form(kept[name]) for name in kept if name != "progress"} != expected:
            return "was made by another version of this program"
        card = self.run.card()
        if not card or card.fingerprint != self.fingerprint:
            return f"has lost its model, {self.run.model}"
        return None


def _form(array):
    return tuple(array.shape), keras.backend.standardize_dtype(array.dtype)


class Averaged(keras.callbacks.Callback):
    """Shows `scorer` the moving average of the weights after each epoch; training goes on from the weights."""

    def __init__(self, scorer):
        super().__init__()
        self.scorer = scorer

    def on_epoch_end(self, epoch, logs=None):
        trained = [keras.ops.convert_to_numpy(variable) for variable in self.model.trainable_variables]
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        for variable in self.model.trainable_variables:  # JAX gives a model's arrays away as it predicts: not these
            variable.assign(keras.ops.copy(variable))
        self.scorer.on_epoch_end(epoch, logs)
        for variable, value in zip(self.model.trainable_variables, trained, strict=True):
            variable.assign(value)


class Kept(keras.callbacks.Callback):
    """Calls `save()` after each epoch: the scorer where no recordings are left to choose an epoch by.

    tracker: a Weights & Biases run, which is told the loss; or None.
    """

    def __init__(self, save, tracker=None):
        super().__init__()
        self.save, self.tracker = save, tracker

    def on_epoch_end(self, epoch, logs=None):
        self.save()
        if self.tracker:
            self.tracker.log({"epoch": epoch + 1, **logs}, step=epoch + 1)


class Bar(keras.callbacks.Callback):
    """A progress bar over all batches of all epochs, with the last epoch's F1, or its loss where it has none."""

    def __init__(self, done):
        super().__init__()
        self.done = done  # epochs of an earlier process

    def on_train_begin(self, logs=None):
        self.bar = progress(self.params["epochs"] * self.params["steps"], "training", "batch")
        self.bar.initial = self.bar.n = self.done * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(batch + 1 - self.bar.n % self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        score = {"F1": logs["avg_F1_score"]} if "avg_F1_score" in logs else {"loss": logs["loss"]}
        self.bar.set_postfix(
            {"epoch": epoch + 1} | {name: f"{value:.3f}" for name, value in score.items()}, refresh=False
        )

    def on_train_end(self, logs=None):
        self.bar.close()


def fit(trained, inputs, labels, recipe, scorer, run=None, fingerprint="", bar=True, epochs=None):
    """Train the Keras model `trained` by `recipe` and return a DataFrame with one row of logs per epoch.

    inputs, labels: the training split, as `Batches` takes them; scorer: a `PhysioNetF1SweepCallback`, whose scores
    enter the rows, or a `Kept`; run: a `runs.Run` whose history and checkpoint are written after each epoch, and from
    which the training with the same `fingerprint` continues after an interruption; or None. epochs: after how many to
    stop, before the schedule ends; or None.
    """
    keras.utils.set_random_seed(recipe.seed)
    epochs = epochs or recipe.epochs
    batches = Batches(inputs, labels, recipe)
    trained.compile(
        optimizer=_optimizer(recipe, len(batches)),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        # A head's steps are so small that starting them takes longer than they do: run many per call.
        steps_per_execution=16 if len(trained.input_shape) == 2 else 1,
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",  # XLA makes a CPU slower
    )
    scorer.set_model(trained)
    trained.optimizer.build(trained.trainable_variables)
    checkpoint = Checkpoint(scorer, recipe, epochs, run, fingerprint)
    checkpoint.set_model(trained)
    checkpoint.restore()
    done = len(checkpoint.rows)
    batches.start_epoch(done)
    callbacks = [Averaged(scorer) if recipe.weight_average else scorer, checkpoint, *([Bar(done)] if bar else [])]
    try:
        trained.fit(batches, initial_epoch=done, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    finally:
        batches.inputs = None  # TensorFlow keeps the batches of each training as long as the process lives
    return pd.DataFrame(checkpoint.rows)


OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}


def _optimizer(recipe, steps):
    """The recipe's optimizer for epochs of `steps` batches."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        total = recipe.epochs * steps
        warm_up = max(int(total * recipe.warm_up), 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(total - warm_up, 1), warmup_target=rate, warmup_steps=warm_up
        )
    settings = {"learning_rate": rate, "use_ema": recipe.weight_average > 0}
    if recipe.weight_average:
        settings["ema_momentum"] = max(1 - 1 / (recipe.weight_average * steps), 0)
    if recipe.weight_decay:
        settings["weight_decay"] = recipe.weight_decay
    return OPTIMIZERS[recipe.optimizer](**settings)


def calibrate(probabilities, labels):
    """The factor and the shifts [4] of the logits of `probabilities` (n, 4) that calibrate them, for the highest F1.

    probabilities: of recordings that nothing was trained on; labels: their indices of classes (n,). First come the
    factor and shifts of the highest likelihood (Guo et al. 2017, "On calibration of modern neural networks", section
    4.2). Weighted classes are thus predicted as rarely as they are. Then follow further shifts, for the highest average
    F1 that the probabilities let expect: F1 wants a class chosen before it is the likeliest (Lipton et al. 2014,
    "Optimal thresholding of classifiers to maximize F1 measure").
    """
    logits = np.log(np.maximum(probabilities, 1e-7, dtype=np.float64))

    def changed(parameters):
        return logits * np.exp(parameters[0]) + np.append(0, parameters[1:])

    def unlikelihood(parameters):
        return -scipy.special.log_softmax(changed(parameters), axis=1)[np.arange(len(labels)), labels].mean()

    bounds = [(-2, 2)] * len(CLASSES)  # classes that are absent, or told apart without an error, have no optimum
    likeliest = scipy.optimize.minimize(unlikelihood, np.zeros(len(CLASSES)), bounds=bounds).x
    probabilities = scipy.special.softmax(changed(likeliest), axis=1)

    def loss(shifts):
        chosen = scipy.special.softmax(8 * changed(likeliest + np.append(0, shifts)), axis=1)  # nearly one class each
        return -(2 * (chosen * probabilities).sum(0) / (chosen.sum(0) + probabilities.sum(0))).mean()

    shifts = scipy.optimize.minimize(loss, np.zeros(len(CLASSES) - 1), bounds=bounds[1:]).x
    return float(np.exp(likeliest[0])), np.append(0, likeliest[1:] + shifts).tolist()
