"""Heat maps: where in an image a network looked, by several methods.

Images are float32 (n, rows, frames); classes are indices (n,); heat is float32 (n, frequencies, frames), 0 to 1, or all
0.
"""

from collections import namedtuple

import cv2
import numpy as np

import beats
import model
import preprocessing
import quality
from keras_setup import keras
from shell import UserError

# title; block: after which of the compact base's blocks the maps are taken, None: the last ones before they are pooled;
# weigh: (maps, gradients) → heat, both (n, rows, columns, channels).
Method = namedtuple("Method", "title block weigh")


# ── Methods ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def gradcam(maps, gradients):
    """Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks", equations 1 and 2."""
    return np.maximum((gradients.mean((1, 2), keepdims=True) * maps).sum(-1), 0)


def gradcam_plus(maps, gradients):
    """Chattopadhay et al. 2018, "Grad-CAM++", equations 5 and 19, for an exponential of the logit."""
    squares = gradients**2
    below = 2 * squares + maps.sum((1, 2), keepdims=True) * gradients**3
    share = np.divide(squares, below, out=np.zeros_like(below), where=np.abs(below) > 1e-12)
    weights = (share * np.maximum(gradients, 0)).sum((1, 2), keepdims=True)
    return np.maximum((weights * maps).sum(-1), 0)


def hirescam(maps, gradients):
    """Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations", equation 6."""
    return np.maximum((gradients * maps).sum(-1), 0)


AROUND = 0.2  # s before and after a beat that are occluded

METHODS = {
    "gradcam": Method("Grad-CAM", None, gradcam),
    "gradcam++": Method("Grad-CAM++, block 2", 2, gradcam_plus),
    "hirescam": Method("HiResCAM, block 2", 2, hirescam),
    "occlusion": Method("Occlusion of beats", None, None),
}
USED = {"compact": "occlusion"}  # for figures, by backbone: what passes most checks on the shipped model; else Grad-CAM


def methods(recipe):
    """The names of the `METHODS` that suit the network of `recipe`, the report's own first."""
    return list(METHODS) if recipe.backbone == "compact" else ["gradcam"]


def used(recipe):
    """The name of the method of `METHODS` by which figures of the network of `recipe` are made."""
    return USED.get(recipe.backbone, "gradcam")


def maps_and_gradients(network, block):
    """A function (images (16, …), classes (16,)) → (maps, the gradients of the logits of the classes by them).

    The logit is differentiated, since the gradient of a saturated softmax is zero. Weights that change later count.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError("heat maps need the TensorFlow backend: unset KERAS_BACKEND")
    import tensorflow as tf

    layer = after(network, block) if block else network.get_layer("maps")
    tapped = keras.Model(network.input, [layer.output, network.get_layer("logits").output])

    @tf.function
    def call(images, classes):
        with tf.GradientTape() as tape:
            tape.watch(images)  # a network without trainable weights is not watched otherwise
            maps, logits = tapped(images)
            chosen = tf.reduce_sum(tf.gather(logits, classes, batch_dims=1))
        return maps, tape.gradient(chosen, maps)

    return lambda images, classes: call(tf.constant(images), tf.constant(classes))


def after(network, block):
    """The layer of a compact `network` whose maps are those after its `block`, counted from 1: the next one's first."""
    adds = [place for place, layer in enumerate(network.layers) if isinstance(layer, keras.layers.Add)]
    return next(each for each in network.layers[adds[block - 1] :] if isinstance(each, keras.layers.Activation))


def heat(network, images, classes, recipe, name="gradcam", peaks=None, tapped=None):
    """The heat of `images` for `classes` by the method `name` of `METHODS`.

    peaks: times of the R peaks in each image in s, for occlusion. tapped: of `maps_and_gradients`, where it is at hand.
    """
    method = METHODS[name]
    if not method.weigh:
        hot = occlusion(network, images, classes, recipe, peaks)
    else:
        tapped = tapped or maps_and_gradients(network, method.block)
        column = 2**method.block if method.block else model.BACKBONES[recipe.backbone].column
        hot = np.concatenate(
            [spread(coarse, images[0].shape, column) for coarse in _coarse(tapped, method, images, classes)]
        )
    hot[images == preprocessing.PADDED] = 0  # which coarse maps overlap but the network does not see
    highest = hot.max((1, 2), keepdims=True)
    hot = np.divide(hot, highest, out=np.zeros_like(hot), where=highest > 0)
    return hot[:, : len(preprocessing.image_axes(recipe)[0])]  # which the trace below them shares


def _coarse(tapped, method, images, classes):
    """Yield the heat of each batch of images on the grid of the maps; a short batch is filled up."""
    size = min(model.BATCH, len(images))
    for start in range(0, len(images), size):
        batch, wanted = images[start : start + size], np.asarray(classes[start : start + size])
        fill = size - len(batch)
        batch = np.concatenate([batch, np.zeros((fill, *batch.shape[1:]), batch.dtype)])
        maps, gradients = (each.numpy() for each in tapped(batch, np.append(wanted, np.zeros(fill, int))))
        yield method.weigh(maps, gradients)[: len(wanted)]


def spread(coarse, shape, column):
    """Heat (n, rows, columns) on the grid of some maps, interpolated to images of `shape` (frequencies, frames).

    column: frames between the columns, the first at the first frame; None: the maps cover the image evenly.
    """
    if column:
        places = np.arange(shape[1]) / column
        near = np.clip(1 - np.abs(np.minimum(places, coarse.shape[2] - 1) - np.arange(coarse.shape[2])[:, None]), 0, 1)
        coarse = coarse @ near.astype(np.float32)
    return np.stack(
        [cv2.resize(each, shape[::-1], interpolation=cv2.INTER_LINEAR) for each in coarse.astype(np.float32)]
    )


def occlusion(network, images, classes, recipe, peaks):
    """How much the logit of the class falls when `AROUND` a beat all looks like the median frame: heat of its frames.

    peaks: as in `heat`. Source: Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks".
    """
    centres = preprocessing.image_axes(recipe)[1]
    logits = keras.Model(network.input, network.get_layer("logits").output)
    hot = np.zeros_like(images)
    for start in range(0, len(images), 16):  # some thousand images at once would take a GB
        batch, windows, owners = images[start : start + 16], [], []
        for place, times in enumerate(peaks[start : start + 16]):
            windows += list(np.abs(centres - times[:, None]) <= AROUND)
            owners += [place] * len(times)
        if not owners:
            continue
        owners, windows = np.array(owners), np.array(windows)[:, None]
        windows = windows & (batch[owners, :1] != preprocessing.PADDED)
        still = np.stack([still_frame(image) for image in batch])[:, :, None]
        wanted = np.asarray(classes)[start : start + 16]
        whole = model.predict(logits, batch)[np.arange(len(batch)), wanted]
        without = model.predict(logits, np.where(windows, still[owners], batch[owners]))
        falls = whole[owners] - without[np.arange(len(owners)), wanted[owners]]
        np.maximum.at(hot[start : start + 16], owners, windows * np.maximum(falls, 0)[:, None, None])
    return hot


def still_frame(image):
    """The median over the recorded frames of an image (frequencies, frames): as if nothing happened."""
    return np.median(image[:, image[0] != preprocessing.PADDED], axis=1)


# ── Of recordings ───────────────────────────────────────────────────────────────────────────────────────────────────


def share_on_padding(heat, duration, recipe):
    """Share of `heat` (frequencies, frames) on frames that begin after the `duration` (s) recorded.

    0 if the heat is empty, or the recording was repeated and not padded.
    """
    if recipe.padding == "wrap" or not heat.any():
        return 0.0
    begins = preprocessing.frame_starts(recipe) / recipe.sampling_rate
    return float(heat[:, begins >= duration].sum() / heat.sum())


def views(signal, sampling_rate, recipe):
    """(`preprocessing.Images`, begins, ends) of what a network made by `recipe` sees of a recording, as it answers.

    signal: (samples,) at `sampling_rate` in Hz, whose parts without a heart are left out; begins, ends: s into it at
    which each image begins, and the part that it is of ends, (images,), NaN where it is of a stretched reading.
    """
    parts = quality.parts(signal, sampling_rate)
    images = preprocessing.Images([signal[start:stop] for start, stop in parts], [sampling_rate] * len(parts), recipe)
    starts, stops = np.array(parts)[images.owners].T / sampling_rate
    plain = np.array([piece.rate == sampling_rate for piece in images.pieces])
    begins = starts + [piece.start / recipe.sampling_rate for piece in images.pieces]
    return images, np.where(plain, begins, np.nan), np.where(plain, stops, np.nan)


def along(saved, signal, sampling_rate, chosen, step):
    """The heat for the class of index `chosen` along a recording, one value 0 to 1 for each `step` seconds, (steps,).

    saved: a `runs.Saved`, its network by Keras; signal: (samples,) at `sampling_rate` in Hz. It is the mean over the
    frequencies, which the method that is `used` does not tell apart; where images overlap, the larger counts.
    """
    recipe = saved.card.recipe
    images, begins, ends = views(signal, sampling_rate, recipe)
    plain = np.flatnonzero(np.isfinite(begins))
    peaks = beats.find(signal, sampling_rate)["sleepecg"]
    lasts = np.minimum(begins + recipe.seconds, ends)
    inside = [peaks[(peaks >= begins[place]) & (peaks < lasts[place])] - begins[place] for place in plain]
    found = heat(saved.network, images[plain], [chosen] * len(plain), recipe, used(recipe), inside)
    warmth = np.zeros(int(np.ceil(len(signal) / (step * sampling_rate))))
    middles = (np.arange(len(warmth)) + 0.5) * step
    for place, each in zip(plain, found, strict=True):
        times = begins[place] + preprocessing.image_axes(recipe)[1]
        here = np.interp(middles, times, each.mean(0), left=0, right=0)
        warmth = np.maximum(warmth, np.where(middles < ends[place], here, 0))  # and none of its padding
    return warmth / warmth.max() if warmth.max() > 0 else warmth
