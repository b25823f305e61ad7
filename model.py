"""The network: spectrogram → image layers → backbone → dense head; its frozen features, and its copy as ONNX.

python model.py [--weights imagenet|random|FILE]        print the architecture and its parameter counts
"""

import functools
import re
import socket
import tempfile
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import numpy as np

import preprocessing
from inference import BATCH, predict
from keras_setup import keras
from recipes import CLASSES, add_flags, from_flags
from shell import UserError, parser, progress, quiet, read_arrays, run_script, say, write_arrays

FEATURES = Path("data/features")
PART = 256  # images per feature file, which a killed extraction loses at most
CHANNELS = (64, 96, 128, 160, 160)  # of the compact base's blocks, each of which halves the time

Network = namedtuple("Network", "complete base head")
Network.__doc__ = """Three Keras models that share their layers.

complete: image (frequencies, frames) → probabilities (4,); base: image → features, 1536 for the report's;
head: features → probabilities.
"""


# ── Network ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def build(recipe, images=None):
    """The network of `recipe`, as a `Network`: the image, a backbone, pooling over what is not padding, a dense head.

    images: some images (n, frequencies, frames) of training recordings, to which random weights are settled, or None.
    Raises `UserError` when the weights cannot be obtained.
    """
    keras.utils.set_random_seed(recipe.seed)
    pixels = keras.Input(preprocessing.image_shape(recipe), name="spectrogram")
    mask = None
    if recipe.padding == "mask":
        mask = keras.ops.cast(pixels[:, :1] != preprocessing.PADDED, "float32")  # (n, 1, frames)
    base = keras.Model(pixels, BACKBONES[recipe.backbone].features(recipe, pixels, mask), name="base")
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


def pretrained(recipe, pixels, mask, application, size, rescaling):
    """`pixels` (frequencies, frames) as a picture of three equal channels → a network of Keras → features.

    application: its name in `keras.applications`; size: of the picture it takes, in pixels; rescaling: a function that
    makes the layer it was trained behind. mask: 1 where a frame is recorded, 0 where it is padding, (1, frames); or
    None. Each column of the network's maps counts by its share of recorded frames.
    """
    x = pixels if mask is None else pixels * mask
    x = keras.layers.Reshape((*x.shape[1:], 1))(x)
    x = keras.layers.Resizing(size, size, interpolation="bilinear")(x)
    x = rescaling()(keras.layers.Concatenate()([x, x, x]))
    maps = keras.layers.Identity(name="maps")(_application(application, size, recipe.weights)(x))
    if mask is None:
        return keras.layers.GlobalAveragePooling2D(name="features")(maps)
    frames, columns = mask.shape[2], maps.shape[2]
    share = keras.ops.reshape(keras.ops.repeat(mask[:, 0], columns, axis=1), (-1, columns, frames))
    share = keras.ops.mean(share, axis=2)
    features = keras.ops.sum(keras.ops.mean(maps, 1) * share[..., None], 1) / keras.ops.sum(share, 1)[..., None]
    return keras.layers.Identity(name="features")(features)


def _application(name, size, weights):
    """The network `name` of `keras.applications` without its top, with `weights`: imagenet, random or a file's path."""
    given = None if weights in ("imagenet", "random") else weights
    if given and not Path(given).is_file():
        raise UserError(f"{given} does not exist; pass --weights imagenet, random or a weights file")
    make = functools.partial(getattr(keras.applications, name), include_top=False, input_shape=(size, size, 3))
    if weights == "imagenet":
        return _downloaded(make, name)
    network = make(weights=None)
    if given:
        try:
            network.load_weights(given)
        except Exception as error:
            raise UserError(
                f"{given} does not hold {name} weights without top; "
                "pass a file saved by its save_weights, or --weights imagenet"
            ) from error
    return network


def _downloaded(make, name):
    """`make(weights="imagenet")`, with one sentence where the weights cannot be obtained."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # Keras's download has none of its own
    try:
        return make(weights="imagenet")
    except Exception as error:  # Keras raises a plain Exception where a download fails
        raise UserError(
            f"the ImageNet weights cannot be obtained ({' '.join(str(error).split())[:160]}); pass --weights a file of "
            f"{name} weights without top, or --weights random"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def compact(recipe, pixels, mask):
    """A residual network of 0.7 million weights on `pixels` (rows, frames) → features (384,).

    The frequencies are the channels of convolutions along time, so that the first layer already sees them all, beside
    what `read_trace` makes of the trace, if it is there; each block halves the time. Padding enters every convolution
    as zeros, as what lies outside the image does, and strides start at the first frame, so its amount does not change a
    trained network's features. mask:
    1 where a frame is recorded, 0 where it is padding, (1, frames); or None. The mean over the true length is that of
    Zihlmann et al. 2017.
    """
    layers = keras.layers
    x = layers.Permute((2, 1))(layers.Rescaling(1 / 127.5, -1)(pixels))
    x = layers.Reshape((1, *x.shape[1:]))(x)  # a picture of one row, as Grad-CAM expects maps of two dimensions
    if mask is not None:
        mask = keras.ops.expand_dims(mask, -1)
        x = layers.Multiply()([x, mask])
    if recipe.trace:
        x, trace = x[..., : -preprocessing.TRACE], x[..., -preprocessing.TRACE :]
        x = layers.Concatenate()([_convolution(CHANNELS[0], 5)(x), read_trace(trace, mask)])
    else:
        x = _convolution(CHANNELS[0], 5)(x)
    for channels in CHANNELS:
        x, mask = residual_block(x, mask, channels)
    x = _convolution(192, 1)(_active(x, mask))
    maps = layers.Identity(name="maps")(_active(x, mask))
    recorded = maps.shape[2] if mask is None else keras.ops.sum(mask, (1, 2))
    mean = keras.ops.sum(maps, (1, 2)) / recorded
    return layers.Concatenate(name="features")([mean, keras.ops.max(maps, (1, 2))])


def read_trace(x, mask):
    """Maps (1, frames, channels) of the trace x (1, frames, `TRACE`), convolved as one row of 12 values a frame.

    mask: (1, frames, 1) or None.
    """
    layers = keras.layers
    x = layers.ZeroPadding2D((0, 6))(layers.Reshape((1, -1, 1))(x))
    x = _convolution(32, 15, strides=3, padding="valid")(x)
    per_frame = preprocessing.TRACE // 3
    x = _active(x, None if mask is None else keras.ops.repeat(mask, per_frame, axis=2))
    return _convolution(CHANNELS[0], 8, strides=per_frame, padding="valid")(layers.ZeroPadding2D((0, 2))(x))


def residual_block(x, mask, channels):
    """(x, mask) with half the frames and `channels` channels: a block of He et al. 2016, "Identity mappings in deep
    residual networks". x: (1, frames, any); mask: (1, frames, 1) or None.
    """
    layers = keras.layers
    before = _active(x, mask)
    shortcut = _convolution(channels, 1, strides=2)(before)
    x = _convolution(channels, 3, strides=2, padding="valid")(layers.ZeroPadding2D((0, 1))(before))
    mask = None if mask is None else mask[:, :, ::2]
    x = layers.SpatialDropout2D(0.1)(_active(x, mask))
    return layers.Add()([shortcut, _convolution(channels, 3)(x)]), mask


def _convolution(channels, width, strides=1, padding="same"):
    return keras.layers.Conv2D(channels, (1, width), strides=(1, strides), padding=padding, use_bias=False)


def _active(x, mask):
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.97)(x))
    return x if mask is None else keras.layers.Multiply()([x, mask])


# features: (recipe, pixels, mask) → features, with a layer called maps before they are pooled; column: frames between
# the columns of these maps, the first of which is at the first frame, or None where they cover the image evenly; small:
# whether a network is also saved as ONNX, which doubles its share of the file.
Backbone = namedtuple("Backbone", "features column small", defaults=[False])
BACKBONES = {
    "inception_resnet_v2": Backbone(
        functools.partial(
            pretrained,
            application="InceptionResNetV2",
            size=299,
            rescaling=lambda: keras.layers.Rescaling(1 / 127.5, -1, name="rescaling"),
        ),
        None,
    ),
    "vgg16": Backbone(
        functools.partial(
            pretrained,
            application="VGG16",
            size=224,
            rescaling=lambda: keras.layers.Normalization(mean=[103.939, 116.779, 123.68], variance=[1, 1, 1]),
        ),
        None,
    ),
    "compact": Backbone(compact, 2 ** len(CHANNELS), small=True),
}


def _settle(base, images):
    """Set a random base's batch normalisation to the statistics of `images`, (n, frequencies, frames).

    Untouched random weights shrink the signal layer by layer: features differ between recordings by a millionth,
    and no head can learn from them; and a base that is trained takes hundreds of steps to forget the initial variance.
    One forward pass in training mode measures each layer's mean and variance.
    """
    layers = [layer for outer in base.layers for layer in getattr(outer, "layers", [outer])]
    normalisations = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not normalisations:
        return
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


# ── Frozen features ─────────────────────────────────────────────────────────────────────────────────────────────────


def frozen_features(base, images, what="features of the frozen base", folder=None):
    """The base's features of `preprocessing.Images`, float32 (images, features), computed once and kept.

    They are kept in files of 256 images, each named by the fingerprint of the base and of the images, so an
    interrupted extraction continues, several processes can share the folder, and nothing stale is ever read.
    what: the progress bar's text.
    """
    key = fingerprint(base)
    folder = (folder or FEATURES) / key.hexdigest()[:16]
    features = []
    with progress(len(images), what, "image") as bar:
        for start in range(0, len(images), PART):
            batch = images[start : start + PART]
            name = key.copy()
            name.update(f"{batch.shape} ".encode() + batch.tobytes())
            path = folder / f"{name.hexdigest()[:32]}.npz"
            shape = (len(batch), *base.output_shape[1:])
            kept = read_arrays(path, functools.partial(_are_features, shape))
            if kept:
                bar.update(len(batch))
            else:
                kept = {"features": predict(base, batch, bar=bar)}
                write_arrays(path, **kept)
            features.append(kept["features"])
    return np.concatenate(features)


def _are_features(shape, arrays):
    features = arrays["features"]
    return features.shape == shape and features.dtype == np.float32 and np.isfinite(features).all()


def fingerprint(network):
    """A hash (of hashlib) of all that decides what a Keras model computes: its structure and its weights.

    Keras numbers the names of layers in the order in which a process makes them, so names give way to their order.
    """
    structure = network.to_json()
    names = [name for name in re.findall(r'"name": "([^"]*)"', structure) if not re.fullmatch(r"\w*float\d+", name)]
    places = {f'"{name}"': f'"name {place}"' for place, name in enumerate(dict.fromkeys(names))}
    key = sha256(re.sub(r'"[^"]*"', lambda text: places.get(text[0], text[0]), structure).encode())
    for variable in network.variables:
        key.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    return key


def from_frozen(network, images):
    """Probabilities (images, 4) of a network whose base is frozen, by features that are computed once and kept."""
    features = network.get_layer("features").output
    inputs = frozen_features(keras.Model(network.input, features), images)
    return predict(keras.Model(features, network.output), inputs, 256)


# ── ONNX ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_onnx(network):
    """A Keras model in the ONNX format, bytes, for any number of images at once."""
    with tempfile.TemporaryDirectory() as folder, quiet():  # of tf2onnx's messages
        path = Path(folder, "network.onnx")
        network.export(path, format="onnx", verbose=False, input_signature=network.inputs)
        return path.read_bytes()


def check_onnx():
    """Raise `UserError` where this backend of Keras lacks what `to_onnx` needs."""
    given = keras.Input((1,))
    try:
        to_onnx(keras.Model(given, keras.layers.ReLU()(given)))
    except ImportError as error:
        raise UserError(
            f"networks on the sequence of heartbeats are kept as ONNX, which cannot be made here ({error}); install "
            "that, or pass --members network,trees"
        ) from error


def main():
    flags = parser(__doc__)
    add_flags(flags, ("weights", "num_neurons", "activation", "seed"))
    recipe = from_flags(flags, flags.parse_args())
    shape = preprocessing.image_shape(recipe)
    network = build(recipe, np.random.default_rng(recipe.seed).random((BATCH, *shape), np.float32))
    network.complete.summary(line_length=100)
    say(f"weights of the base: {recipe.weights}")


if __name__ == "__main__":
    run_script(main)
