"""Grad-CAM: where in the image of a recording a saved model looked.

    python gc_implementation.py                               the first test recording of each class
    python gc_implementation.py --run mine --record A00002 A00003

Writes figures/RUN/gradcam_{A,N,O,noise}.png (gradcam_RECORD.png for named records) and gradcam.csv, and prints the
share of heat that lies on the padding.
"""

import numpy as np

import preprocessing
import runs
from recipes import CLASSES
from shell import UserError, make_folders, parser, run_script, say, writing


def main():
    flags = parser(__doc__)
    runs.add_flags(flags, models=None)
    flags.add_argument(
        "--record", nargs="+", metavar="NAME", help="test records to explain (default: one of each class)"
    )
    arguments = flags.parse_args()

    import pandas as pd

    run, models, table, _ = runs.open_run(arguments.run, arguments.model, arguments.data, arguments.labels)
    make_folders(run.figures)
    rows = []
    for title, recording in choose(table, arguments.record).items():
        rows.append(explain(models[0], recording, run.figures / f"gradcam_{title}.png"))
    with writing(run.figures / "gradcam.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.4f")
    print(
        f"wrote {run.figures}/gradcam.csv; on average {np.mean([row['heat_on_padding'] for row in rows]):.1%} "
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
        raise UserError(f"{unknown[0]} is not among the recordings that the model has not seen")
    return {record: rows.loc[record] for record in records}


def explain(saved, recording, path):
    """Draw into `path` where a model looked in a `recording`, a row of the table; return a row of gradcam.csv.

    saved: a `runs.Saved`. Of several images, the one that speaks most for the class that the vote gave is drawn.
    """
    import beats
    import inference
    import members
    import model
    import plotting
    import reasons
    import trees

    network, recipe = saved.network, saved.card.recipe
    images = preprocessing.Images([recording.signal], [recording.sampling_rate], recipe)
    pixels = images[:]
    probabilities = inference.predict(network, pixels, batch_size=1)  # filling a batch up would take as long as sixteen
    measured = beats.measure_all([recording.signal], [recording.sampling_rate], keep=False)
    said = {"network": preprocessing.vote(probabilities, images.owners)}
    if saved.trees:
        said["trees"] = trees.classify(saved.trees, measured)
    voted = members.joined(said, saved.card.calibration)[0]
    predicted = int(voted.argmax())
    why = reasons.explain(voted, measured[0], [saved])["sentence"]
    plain = [place for place, piece in enumerate(images.pieces) if piece.rate == recording.sampling_rate]
    best = max(plain, key=lambda place: probabilities[place, predicted])
    begin = images.pieces[best].start / recipe.sampling_rate
    heat = gradcam(network, pixels[best], predicted, model.BACKBONES[recipe.backbone].column)
    seconds = len(recording.signal) / recording.sampling_rate
    padding = share_on_padding(heat, seconds - begin, recipe)
    if not heat.any():
        say(f"{recording.record}: the map is empty: nothing in the last maps speaks for {CLASSES[predicted]}")
    part = f"; part of {seconds:.0f} s" if len(plain) > 1 else ""
    end = begin + min(recipe.seconds, seconds - begin)
    times = np.arange(len(recording.signal)) / recording.sampling_rate
    shown = (times >= begin) & (times < end)
    peaks = beats.find(recording.signal, recording.sampling_rate)["sleepecg"]
    plotting.gradcam(
        preprocessing.picture(pixels[best], recipe, begin),
        heat,
        (times[shown], recording.signal[shown], peaks[(peaks >= begin) & (peaks < end)]),
        seconds if recipe.padding != "wrap" else np.inf,
        f"{recording.record}: true class {recording.label}, predicted {CLASSES[predicted]} ({voted.max():.0%}), "
        f"{padding:.0%} of the heat on padding{part}",
        why,
        path,
    )
    print(f"{path}: true {recording.label}, {padding:.1%} of the heat on padding; {why}")
    return {
        "record": recording.record,
        "label": recording.label,
        "predicted": CLASSES[predicted],
        "seconds": seconds,
        "heat_on_padding": padding,
        "reasons": why,
    }


def gradcam(network, image, predicted, column=None):
    """The heat of one `image` (frequencies, frames) for the class of index `predicted`: float32 of its shape, 0 to 1,
    or all 0.

    column: frames between the columns of the last maps, the first at the first frame; None: the maps cover the image
    evenly, as those of a resized picture do.

    Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", equations 1 and 2) on the last maps before they are pooled, for the report's base conv_7b_ac. The
    logit is differentiated, since the gradient of a saturated softmax is zero.
    """
    from keras_setup import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError("Grad-CAM needs the TensorFlow backend: unset KERAS_BACKEND")
    import cv2
    import tensorflow as tf

    outputs = [network.get_layer(name).output for name in ("maps", "logits")]
    with tf.GradientTape() as tape:
        inputs = tf.convert_to_tensor(image[np.newaxis])
        tape.watch(inputs)  # a network without trainable weights is not watched otherwise
        maps, logits = keras.Model(network.input, outputs)(inputs)
        chosen = logits[0, predicted]
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps).numpy().sum(-1)[0], 0)
    if column:
        frames = np.arange(image.shape[1])
        heat = np.array([np.interp(frames, column * np.arange(len(row)), row) for row in heat], np.float32)
    heat = cv2.resize(heat, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    heat[image == preprocessing.PADDED] = 0  # which the last, coarse maps overlap but the network does not see
    return heat / heat.max() if heat.max() > 0 else heat


def share_on_padding(heat, duration, recipe):
    """Share of `heat` (frequencies, frames) on frames that begin after the `duration` (s) recorded.

    0 if the heat is empty, or the recording was repeated and not padded.
    """
    if recipe.padding == "wrap" or not heat.any():
        return 0.0
    begins = preprocessing.frame_starts(recipe) / recipe.sampling_rate
    return float(heat[:, begins >= duration].sum() / heat.sum())


if __name__ == "__main__":
    run_script(main)
