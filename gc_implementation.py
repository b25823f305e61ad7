"""Grad-CAM: where in the spectrogram a saved model looked.

    python gc_implementation.py                               the first test recording of each class
    python gc_implementation.py --run mine --record A00002 A00003

Writes figures/RUN/gradcam_{A,N,O,noise}.png (gradcam_RECORD.png for named records) and gradcam.csv, and prints the
share of heat that lies on the padding.
"""

import cv2
import numpy as np

import preprocessing
import runs
from recipes import CLASSES
from shell import UserError, make_folders, parser, run, say, writing


def main():
    flags = parser(__doc__)
    runs.add_flags(flags, models=None)
    flags.add_argument(
        "--record", nargs="+", metavar="NAME", help="test records to explain (default: one of each class)"
    )
    arguments = flags.parse_args()

    import pandas as pd

    import plotting

    name, [(network, recipe)], table = runs.open_run(arguments)
    make_folders(f"figures/{name}")
    rows = []
    for title, recording in choose(table, arguments.record).items():
        image = preprocessing.image(recording.signal, recording.sampling_rate, recipe)
        heat, probabilities = explain(network, image)
        duration = len(recording.signal) / recording.sampling_rate
        predicted = CLASSES[probabilities.argmax()]
        padding = share_on_padding(heat, duration, recipe)
        if not heat.any():
            say(f"{recording.record}: the map is empty: nothing in the last convolution speaks for class {predicted}")
        path = plotting.gradcam(
            image,
            heat,
            *preprocessing.image_axes(recipe),
            duration,
            f"{recording.record}: true class {recording.label}, predicted {predicted} ({probabilities.max():.0%}), "
            f"{padding:.0%} of the heat on padding",
            f"figures/{name}/gradcam_{title}.png",
        )
        print(f"{path}: true {recording.label}, predicted {predicted}, {padding:.1%} of the heat on padding")
        rows.append(
            {
                "record": recording.record,
                "label": recording.label,
                "predicted": predicted,
                "seconds": duration,
                "heat_on_padding": padding,
            }
        )
    with writing(f"figures/{name}/gradcam.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.4f")
    print(
        f"wrote figures/{name}/gradcam.csv; on average {np.mean([row['heat_on_padding'] for row in rows]):.1%} "
        "of the heat lies on padding"
    )


def choose(table, records):
    """{part of the file name: row of `table`} for the named `records`, or else the first of each class."""
    if not records:
        first = table.drop_duplicates("label").set_index("label", drop=False)
        return {"noise" if label == "~" else label: first.loc[label] for label in CLASSES if label in first.index}
    rows = table.set_index("record", drop=False)
    unknown = [record for record in records if record not in rows.index]
    if unknown:
        raise UserError(f"{unknown[0]} is not a record of the test part; data/split.csv lists them")
    return {record: rows.loc[record] for record in records}


def explain(network, image):
    """(heat, probabilities) of one `image` (frequencies, frames) for the class that `network` predicts.

    heat: float32 of the image's shape, 0 to 1, or all 0 where nothing speaks for the class; probabilities: (4,).

    Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", equations 1 and 2) on the backbone's last convolution, conv_7b_ac. The logit is differentiated,
    since the gradient of a saturated softmax is zero.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError("Grad-CAM needs the TensorFlow backend: unset KERAS_BACKEND")
    import tensorflow as tf

    features = network.get_layer("features").input
    to_features = keras.Model(network.input, features)
    to_logits = keras.Model(features, [network.get_layer("logits").output, network.output])
    maps = to_features(image[np.newaxis])
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits, probabilities = to_logits(maps)
        chosen = logits[0, int(np.argmax(logits[0]))]
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps).numpy().sum(-1)[0], 0)
    heat = cv2.resize(heat, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return heat / heat.max() if heat.max() > 0 else heat, probabilities[0].numpy()


def share_on_padding(heat, duration, recipe):
    """Share of `heat` (frequencies, frames) on frames that begin after the `duration` (s) recorded; 0 if empty."""
    _, times = preprocessing.image_axes(recipe)
    begins = times - recipe.nperseg / 2 / recipe.sampling_rate
    return float(heat[:, begins >= duration].sum() / heat.sum()) if heat.any() else 0.0


if __name__ == "__main__":
    run(main)
