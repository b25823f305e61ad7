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
import scipy.optimize
import scipy.special

import preprocessing
from recipes import CLASSES, add_flags, from_flags
from shell import UserError, parser, progress, quiet, run, say, writing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow uses these kernels by itself only on processors with AVX512; others are faster with them too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
with quiet():  # TensorFlow's start-up chatter, some of which no setting silences, tells a user nothing
    import keras

FEATURES = Path("data/features")
PART = 256  # recordings per feature file, which a killed extraction loses at most
CHANNELS = (64, 96, 128, 160, 160)  # of the compact base's blocks, each of which halves the time
COLUMN = 2 ** len(CHANNELS)  # frames between the columns of its last maps, the first of which is at the first frame
BATCH = 16  # images per forward pass; 32 is no faster on a CPU and takes 0.3 GB more

Network = namedtuple("Network", "complete base head")
Network.__doc__ = """Three Keras models that share their layers.

complete: image (frequencies, frames) → probabilities (4,); base: image → features, 1536 for the report's;
head: features → probabilities.
"""


def build(recipe, images=None):
    """The network of `recipe`, as a `Network`: the image, a backbone, pooling over what is not padding, a dense head.

    images: some images (n, frequencies, frames) of training recordings, to which random weights are settled, or None.
    Raises `UserError` when the weights cannot be had.
    """
    keras.utils.set_random_seed(recipe.seed)
    pixels = keras.Input(preprocessing.image_shape(recipe), name="spectrogram")
    mask = None
    if recipe.padding == "mask":
        mask = keras.ops.cast(pixels[:, :1] != preprocessing.PADDED, "float32")  # (n, 1, frames)
    base = (_compact_base if recipe.backbone == "compact" else _imagenet_base)(recipe, pixels, mask)
    if recipe.weights == "random" and images is not None:
        _settle(base, images)
    base.trainable = recipe.trains_base

    dense_head = head(recipe, base.output_shape[1])
    probabilities = base.output
    for layer in dense_head.layers:
        probabilities = layer(probabilities)
    return Network(keras.Model(pixels, probabilities, name="ecg"), base, dense_head)


def head(recipe, size):
    """The part above the features (size,) → probabilities (4,). Its first weights depend on the seed alone."""
    keras.utils.set_random_seed(recipe.seed)
    return keras.Sequential(
        [
            keras.Input((size,), name="given_features"),
            *([keras.layers.Dropout(recipe.dropout, name="dropout")] if recipe.dropout else []),
            keras.layers.Dense(recipe.num_neurons, activation=recipe.activation, name="dense"),
            keras.layers.Dense(len(CLASSES), name="logits"),
            keras.layers.Softmax(name="probabilities"),
        ],
        name="head",
    )


def _imagenet_base(recipe, pixels, mask):
    """`pixels` (frequencies, frames) as a picture of three equal channels → backbone → features, a Keras model.

    mask: 1 where a frame is recorded, 0 where it is padding, (1, frames); or None. Each column of the backbone's maps
    counts by its share of recorded frames.
    """
    backbone = _backbone(recipe)
    x = pixels if mask is None else pixels * mask
    x = keras.layers.Reshape((*x.shape[1:], 1))(x)
    x = keras.layers.Resizing(*backbone.input_shape[1:3], interpolation="bilinear")(x)
    x = keras.layers.Concatenate()([x, x, x])
    if recipe.backbone == "vgg16":
        x = keras.layers.Normalization(mean=[103.939, 116.779, 123.68], variance=[1, 1, 1])(x)  # as it was trained
    else:
        x = keras.layers.Rescaling(1 / 127.5, -1, name="rescaling")(x)
    maps = keras.layers.Identity(name="maps")(backbone(x))
    if mask is None:
        features = keras.layers.GlobalAveragePooling2D(name="features")(maps)
    else:
        frames, columns = mask.shape[2], maps.shape[2]
        share = keras.ops.reshape(keras.ops.repeat(mask[:, 0], columns, axis=1), (-1, columns, frames))
        share = keras.ops.mean(share, axis=2)
        features = keras.ops.sum(keras.ops.mean(maps, 1) * share[..., None], 1) / keras.ops.sum(share, 1)[..., None]
        features = keras.layers.Identity(name="features")(features)
    return keras.Model(pixels, features, name="base")


def _compact_base(recipe, pixels, mask):
    """A residual network of 0.6 million weights on `pixels` (frequencies, frames) → features (384,), a Keras model.

    The frequencies are the channels of convolutions along time, so that the first layer already sees them all; each
    block halves the time. Padding enters every convolution as zeros, as what lies outside the image does, and strides
    start at the first frame, so its amount does not change a trained network's features. mask:
    1 where a frame is recorded, 0 where it is padding, (1, frames); or None. The blocks are those of He et al. 2016,
    "Identity mappings in deep residual networks"; the mean over the true length is that of Zihlmann et al. 2017.
    """
    layers = keras.layers

    def convolution(channels, width, strides=1, padding="same"):
        return layers.Conv2D(channels, (1, width), strides=(1, strides), padding=padding, use_bias=False)

    def active(x):
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.97)(x))
        return x if mask is None else layers.Multiply()([x, here])

    x = layers.Permute((2, 1))(layers.Rescaling(1 / 127.5, -1)(pixels))
    x = layers.Reshape((1, *x.shape[1:]))(x)  # a picture of one row, as Grad-CAM expects maps of two dimensions
    if mask is not None:
        here = keras.ops.expand_dims(mask, -1)
        x = layers.Multiply()([x, here])
    x = convolution(CHANNELS[0], 5)(x)
    for channels in CHANNELS:
        before = active(x)
        shortcut = convolution(channels, 1, strides=2)(before)
        x = convolution(channels, 3, strides=2, padding="valid")(layers.ZeroPadding2D((0, 1))(before))
        if mask is not None:
            here = here[:, :, ::2]
        x = layers.SpatialDropout2D(0.1)(active(x))
        x = layers.Add()([shortcut, convolution(channels, 3)(x)])
    x = convolution(192, 1)(active(x))
    maps = layers.Identity(name="maps")(active(x))
    recorded = maps.shape[2] if mask is None else keras.ops.sum(here, (1, 2))
    mean = keras.ops.sum(maps, (1, 2)) / recorded
    features = layers.Concatenate(name="features")([mean, keras.ops.max(maps, (1, 2))])
    return keras.Model(pixels, features, name="base")


def _backbone(recipe):
    """InceptionResNetV2 without its top, 299×299×3 → 8×8×1536, or VGG16, 224×224×3 → 7×7×512."""
    weights, given = recipe.weights, None if recipe.weights in ("imagenet", "random") else recipe.weights
    application, size, file = {
        "inception_resnet_v2": (keras.applications.InceptionResNetV2, 299, "inception_resnet_v2"),
        "vgg16": (keras.applications.VGG16, 224, "vgg16"),
    }[recipe.backbone]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # Keras's download has none of its own
    try:
        backbone = application(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=(size, size, 3),
        )
    except Exception as error:
        raise UserError(
            f"the ImageNet weights cannot be downloaded; pass --weights a file of {application.__name__} weights "
            f"without top ({file}_weights_tf_dim_ordering_tf_kernels_notop.h5), or --weights random"
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
                f"{given} does not hold {application.__name__} weights without top; "
                "pass a file saved by its save_weights, or --weights imagenet"
            ) from error
    return backbone


def _settle(base, images):
    """Set a random base's batch normalisation to the statistics of `images`, (n, frequencies, frames).

    Untouched random weights shrink the signal layer by layer: features differ between recordings by a millionth,
    and no head can learn from them; and a base that is trained takes hundreds of steps to forget the initial variance.
    One forward pass in training mode measures each layer's mean and variance.
    """
    layers = [layer for part in base.layers for layer in getattr(part, "layers", [part])]
    normalisations = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
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


def frozen_features(base, images, what="features of the frozen base", folder=None):
    """The base's features of `preprocessing.Images`, float32 (images, features), computed once and kept.

    They are kept in files of 256 images, each named by the hash of all that decides it (signals, preprocessing,
    weights), so an interrupted extraction continues, several processes can share the folder, and nothing stale is
    ever read. what: the progress bar's text.
    """
    folder = folder or FEATURES
    recipe = images.recipe
    names = ("samples", "image", "nperseg", "noverlap", "max_frequency", "padding", "sampling_rate")
    key = sha256(json.dumps([getattr(recipe, name) for name in names]).encode())
    for variable in base.variables:
        key.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    features = []
    with progress(len(images), what, "image") as bar:
        for start in range(0, len(images), PART):
            rows = np.arange(start, min(start + PART, len(images)))
            part = key.copy()
            for recording, rate, sample in (images.pieces[row] for row in rows):
                part.update(f"{rate} {len(images.signals[recording])} {sample} ".encode())
                part.update(np.ascontiguousarray(images.signals[recording]))
            path = folder / key.hexdigest()[:16] / f"{part.hexdigest()[:32]}.npy"
            features.append(_part(base, images, rows, path, bar))
    return np.concatenate(features)


def _part(base, images, rows, path, bar):
    """The features of `rows`, (rows, features), read from `path`, or computed and kept there."""
    if path.exists():
        bar.update(len(rows))
        return np.load(path, allow_pickle=False)
    computed = []
    for start in range(0, len(rows), BATCH):
        computed.append(_forward(base, images[rows[start : start + BATCH]]))
        bar.update(len(computed[-1]))
    with writing(path) as temporary:
        np.save(temporary, np.concatenate(computed))
    return np.concatenate(computed)


def _forward(model, batch):
    """`model` on up to BATCH images; a short batch is filled up, since each new batch size costs a compilation."""
    filled = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), batch.dtype)])
    return model.predict_on_batch(filled)[: len(batch)]


def predict(network, images, quietly=False):
    """Probabilities (recordings, 4) by a complete network, by `preprocessing.vote` over each recording's images.

    images: `preprocessing.Images`. The features of a frozen base are kept as in training, so that scoring again, or
    another head, costs seconds. quietly: keep none, and draw no progress bar.
    """
    if images.recipe.trains_base or quietly:
        probabilities = _stream(network, images, quietly)
    else:
        features = network.get_layer("features").output
        kept = frozen_features(keras.Model(network.input, features), images)
        probabilities = keras.Model(features, network.output).predict(kept, verbose=0)
    return preprocessing.vote(probabilities, images.owners)


def _stream(network, images, quietly=False):
    """Probabilities (images, 4), a batch at a time."""
    probabilities = []
    with progress(len(images), "predicting", "image", disable=quietly) as bar:
        for start in range(0, len(images), BATCH):
            probabilities.append(_forward(network, images[start : start + BATCH]))
            bar.update(len(probabilities[-1]))
    return np.concatenate(probabilities)


def calibrate(network, images, labels):
    """Make the probabilities of `network` those of its classes, then its choices those of the highest F1.

    images: `preprocessing.Images` of recordings that it was not trained on; labels: their class numbers (n,). Returns
    the factor and the shifts (4,) of the logits, which become part of the network. First come the factor and shifts of
    the highest likelihood (Guo et al. 2017, "On calibration of modern neural networks", section 4.2). Weighted classes
    are thus predicted as rarely as they are. Then follow further shifts, for the highest average F1 that the
    probabilities let expect: F1 wants a class chosen before it is the likeliest (Lipton et al. 2014, "Optimal
    thresholding of classifiers to maximize F1 measure").
    """
    voted = preprocessing.vote(_stream(network, images), images.owners)
    logits = np.log(np.maximum(voted.astype(np.float64), 1e-12))

    def changed(parameters):
        return logits * np.exp(parameters[0]) + np.append(0, parameters[1:])

    def unlikelihood(parameters):
        return -scipy.special.log_softmax(changed(parameters), axis=1)[np.arange(len(labels)), labels].mean()

    bounds = [(-2, 2)] * len(CLASSES)  # classes that are absent, or told apart without an error, have no optimum
    likeliest = scipy.optimize.minimize(unlikelihood, np.zeros(len(CLASSES)), bounds=bounds).x
    chances = scipy.special.softmax(changed(likeliest), axis=1)

    def loss(shifts):
        chosen = scipy.special.softmax(8 * changed(likeliest + np.append(0, shifts)), axis=1)  # nearly one class each
        return -(2 * (chosen * chances).sum(0) / (chosen.sum(0) + chances.sum(0))).mean()

    shifts = scipy.optimize.minimize(loss, np.zeros(len(CLASSES) - 1), bounds=bounds[1:]).x
    factor, shifts = np.exp(likeliest[0]), np.append(0, likeliest[1:] + shifts)
    layer = network.get_layer("logits")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * factor, bias * factor + shifts])
    return factor, shifts


def save(model, recipe, seen, path, identity=""):
    """Write `model` whole to `path` (.keras), with its recipe and `seen`, the records it was trained or chosen on.

    identity: a text that tells this training from another. They travel as a member `recipe.json` of the Keras zip file,
    which Keras passes over and `runs.read_card` reads.
    """
    with writing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            card = {"recipe": asdict(recipe), "classes": CLASSES, "seen": list(seen), "identity": identity}
            archive.writestr("recipe.json", json.dumps(card))


def load(path):
    """The Keras model in a file that `save` wrote. Nothing in the file is executed: Keras's safe mode.

    Raises `UserError` for a damaged file; `runs.read_card` has refused a foreign one before.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise UserError(f"{path} is damaged ({str(error)[:120]!r}); train it again") from error


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
