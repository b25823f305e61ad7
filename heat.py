"""Grad-CAM: where in the image of a recording a network looked. It needs TensorFlow."""

import functools
from importlib.util import find_spec

import numpy as np

import preprocessing
from shell import UserError


def available():
    """Whether the packages that it takes are installed."""
    return all(find_spec(name) for name in ("tensorflow", "keras", "cv2"))


def gradcam(network, image, predicted, column=None):
    """The heat of one `image` (frequencies, frames) for the class of index `predicted`: float32 of its shape, 0 to 1,
    or all 0.

    column: frames between the columns of the last maps, the first at the first frame; None: the maps cover the image
    evenly, as those of a resized picture do.

    Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", equations 1 and 2) on the last maps before they are pooled, for the report's base conv_7b_ac. The
    logit is differentiated, since the gradient of a saturated softmax is zero.
    """
    import cv2

    from keras_setup import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError("Grad-CAM needs the TensorFlow backend: unset KERAS_BACKEND")
    import tensorflow as tf

    inner = _maps_and_logits(network)
    with tf.GradientTape() as tape:
        inputs = tf.convert_to_tensor(image[np.newaxis])
        tape.watch(inputs)  # a network without trainable weights is not watched otherwise
        maps, logits = inner(inputs)
        chosen = logits[0, predicted]
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps).numpy().sum(-1)[0], 0)
    if column:
        frames = np.arange(image.shape[1])
        heat = np.array([np.interp(frames, column * np.arange(len(row)), row) for row in heat], np.float32)
    heat = cv2.resize(heat, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    heat[image == preprocessing.PADDED] = 0  # which the last, coarse maps overlap but the network does not see
    return heat / heat.max() if heat.max() > 0 else heat


@functools.lru_cache(maxsize=1)
def _maps_and_logits(network):
    from keras_setup import keras

    return keras.Model(network.input, [network.get_layer(name).output for name in ("maps", "logits")])


def share_on_padding(heat, duration, recipe):
    """Share of `heat` (frequencies, frames) on frames that begin after the `duration` (s) recorded.

    0 if the heat is empty, or the recording was repeated and not padded.
    """
    if recipe.padding == "wrap" or not heat.any():
        return 0.0
    begins = preprocessing.frame_starts(recipe) / recipe.sampling_rate
    return float(heat[:, begins >= duration].sum() / heat.sum())


def along(saved, signal, sampling_rate, chosen, step=0.5):
    """The heat for the class of index `chosen` along a recording, one value 0 to 1 for each `step` seconds, (steps,).

    saved: a `runs.Saved`; signal: (samples,) at `sampling_rate` in Hz. It is the mean over the frequencies, for the
    maps are too coarse to tell them apart; where images overlap, the larger counts.
    """
    import model

    recipe = saved.card.recipe
    images = preprocessing.Images([signal], [sampling_rate], recipe)
    heat = np.zeros(-(-len(signal) // round(step * sampling_rate)))
    for place, piece in enumerate(images.pieces):
        if piece.rate != sampling_rate:  # a stretched one
            continue
        found = gradcam(saved.network, images[[place]][0], chosen, model.BACKBONES[recipe.backbone].column)
        times = piece.start / recipe.sampling_rate + preprocessing.image_axes(recipe)[1]
        middles = (np.arange(len(heat)) + 0.5) * step
        values = np.interp(middles, times, found.mean(0), left=0, right=0)
        heat = np.maximum(heat, values)
    return heat / heat.max() if heat.max() > 0 else heat
