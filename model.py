"""The network: spectrogram → image layers → backbone → dense head; its frozen features; save and load.

python model.py [--weights imagenet|random|FILE]        print the architecture and its parameter counts
"""

import json
import os
import socket
import zipfile
from collections import namedtuple
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np

import preprocessing
from recipes import CLASSES, add_flags, from_flags
from shell import UserError, parser, progress, quiet, run, say, writing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with quiet():  # TensorFlow's start-up chatter, some of which no setting silences, tells a user nothing
    import keras

FEATURES = Path("data/features")
PART = 256  # recordings per feature file, which a killed extraction loses at most
BATCH = 16  # images per forward pass; 32 is no faster on a CPU and takes 0.3 GB more

Network = namedtuple("Network", "complete base head")
Network.__doc__ = """Three Keras models that share their layers.

complete: spectrogram (frequencies, frames) → probabilities (4,); base: spectrogram → features (1536,);
head: features → probabilities.
"""


def build(recipe, images=None):
    """The report's network for `recipe`, as a `Network`.

    images: some spectrograms (n, frequencies, frames) of training recordings; random weights need them.
    Raises `UserError` when the weights cannot be had.
    """
    keras.utils.set_random_seed(recipe.seed)
    backbone = _backbone(recipe.weights)
    spectrogram = keras.Input(preprocessing.image_shape(recipe), name="spectrogram")
    x = keras.layers.Reshape((*spectrogram.shape[1:], 1))(spectrogram)
    x = keras.layers.Resizing(299, 299, interpolation="bilinear")(x)
    x = keras.layers.Concatenate()([x, x, x])
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(x))
    base = keras.Model(spectrogram, features, name="base")
    if recipe.weights == "random":
        _settle(base, backbone, images)
    backbone.trainable = recipe.fine_tune

    dense_head = head(recipe, features.shape[1])
    probabilities = features
    for layer in dense_head.layers:
        probabilities = layer(probabilities)
    return Network(keras.Model(spectrogram, probabilities, name="ecg"), base, dense_head)


def head(recipe, size):
    """The trained part alone: features (size,) → probabilities (4,). Its first weights depend on the seed alone."""
    keras.utils.set_random_seed(recipe.seed)
    return keras.Sequential(
        [
            keras.Input((size,), name="given_features"),
            keras.layers.Dense(recipe.num_neurons, activation=recipe.activation, name="dense"),
            keras.layers.Dense(len(CLASSES), name="logits"),
            keras.layers.Softmax(name="probabilities"),
        ],
        name="head",
    )


def _backbone(weights):
    """InceptionResNetV2 without its top, 299×299×3 → 8×8×1536."""
    given = None if weights in ("imagenet", "random") else weights
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # Keras's download has none of its own
    try:
        backbone = keras.applications.InceptionResNetV2(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=(299, 299, 3),
        )
    except Exception as error:
        raise UserError(
            "the ImageNet weights cannot be downloaded; pass --weights a file of InceptionResNetV2 weights "
            "without top (inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5), "
            "or --weights random"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    if given:
        if not Path(given).is_file():
            raise UserError(f"{given} does not exist; pass --weights imagenet, random or a weights file")
        try:
            backbone.load_weights(given)
        except Exception as error:
            raise UserError(
                f"{given} does not hold InceptionResNetV2 weights without top; "
                "pass a file saved by its save_weights, or --weights imagenet"
            ) from error
    return backbone


def _settle(base, backbone, images):
    """Set a random backbone's batch normalisation to the statistics of `images`, (n, frequencies, frames).

    Untouched random weights shrink the signal layer by layer: features differ between recordings by a millionth,
    and no head can learn from them. One forward pass in training mode measures each layer's mean and variance.
    """
    normalisations = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    training = _InTrainingMode(base)
    training.compile(jit_compile=False)
    training.predict_on_batch(images[:BATCH])
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum


class _InTrainingMode(keras.Model):
    """Calls a model as if it were being trained; compiled, this takes a quarter of the eager call's memory."""

    def __init__(self, model):
        super().__init__(name="in_training_mode")
        self.model = model

    def call(self, x):
        return self.model(x, training=True)


def frozen_features(base, table, recipe, wanted=None, folder=None):
    """The base's features of the recordings of `table`, float32 (n, 1536), computed once and kept.

    wanted: boolean (n,), or None for all; the rows of others may be NaN. The features are kept in files of 256
    recordings, each named by the hash of all that decides it (signals, preprocessing, weights), so an interrupted
    extraction continues, several processes can share the folder, and nothing stale is ever read.
    """
    folder = folder or FEATURES
    wanted = np.ones(len(table), bool) if wanted is None else np.asarray(wanted)
    key = sha256(json.dumps([recipe.samples, recipe.nperseg, recipe.noverlap, recipe.sampling_rate]).encode())
    for variable in base.variables:
        key.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    images = preprocessing.Images(table.signal, table.sampling_rate, recipe)
    features = []
    with progress(int(wanted.sum()), "features of the frozen base", "recording") as bar:
        for start in range(0, len(table), PART):
            rows = np.arange(start, min(start + PART, len(table)))
            part = key.copy()
            for row in rows:
                part.update(f"{images.sampling_rates[row]} {len(images.signals[row])} ".encode())
                part.update(images.signals[row])
            path = folder / key.hexdigest()[:16] / f"{part.hexdigest()[:32]}.npy"
            features.append(_part(base, images, rows, wanted[rows], path, bar))
    return np.concatenate(features)


def _part(base, images, rows, wanted, path, bar):
    """The features of `rows`, (rows, 1536); those `wanted` are read from `path`, or computed and added there."""
    if path.exists():
        kept = np.load(path, allow_pickle=False)
    else:
        kept = np.full((len(rows), *base.output_shape[1:]), np.nan, np.float32)
    missing = np.flatnonzero(wanted & np.isnan(kept).any(1))
    bar.update(int(wanted.sum()) - len(missing))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        kept[batch] = _forward(base, images[rows[batch]])
        bar.update(len(batch))
    if len(missing):
        with writing(path) as temporary:
            np.save(temporary, kept)
    return kept


def _forward(model, batch):
    """`model` on up to BATCH images; a short batch is filled up, since each new batch size costs a compilation."""
    filled = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), batch.dtype)])
    return model.predict_on_batch(filled)[: len(batch)]


def predict(network, table, recipe):
    """Probabilities (n, 4) of the recordings of `table` by a complete network.

    The features of a frozen base are kept as in training, so that scoring again, or another head, costs seconds.
    """
    if not recipe.fine_tune:
        features = network.get_layer("features").output
        kept = frozen_features(keras.Model(network.input, features), table, recipe)
        return keras.Model(features, network.output).predict(kept, verbose=0)
    images = preprocessing.Images(table.signal, table.sampling_rate, recipe)
    probabilities = []
    with progress(len(images), "predicting", "recording") as bar:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            probabilities.append(_forward(network, batch))
            bar.update(len(batch))
    return np.concatenate(probabilities)


def save(model, recipe, seen, path):
    """Write `model` whole to `path` (.keras), with its recipe and `seen`, the records it was trained or chosen on.

    They travel as a member `recipe.json` of the Keras zip file, which Keras passes over and `runs.read_card` reads.
    """
    with writing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(
                "recipe.json", json.dumps({"recipe": asdict(recipe), "classes": CLASSES, "seen": list(seen)})
            )


def load(path):
    """The Keras model in a file that `save` wrote. Nothing in the file is executed: Keras's safe mode.

    Raises `UserError` for a damaged file; `runs.read_card` has refused a foreign one before.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0][:120]}); train it again") from error


def main():
    flags = parser(__doc__)
    add_flags(flags, ("weights", "num_neurons", "activation", "seed"))
    recipe = from_flags(flags, flags.parse_args())
    shape = preprocessing.image_shape(recipe)
    network = build(recipe, np.random.default_rng(recipe.seed).random((BATCH, *shape), np.float32))
    network.complete.summary(line_length=100)
    say(f"weights of the base: {recipe.weights}")


if __name__ == "__main__":
    run(main)
