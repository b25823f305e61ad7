"""What the members of a saved model say of recordings, its networks and its trees, and their one answer.

Those that err elsewhere know more together than each alone: their logits are averaged, and the mean is calibrated. The
two that see the same heartbeats count together as much as the network of images.
"""

import numpy as np
import scipy.special

import inference
import preprocessing
import quality
from recipes import MEMBERS
from shell import progress


def names(saved):
    """The members of a `runs.Saved` that can answer: until its training is finished, the network alone."""
    return saved.card.recipe.members.split(",") if saved.card.measured else ["network"]


def answers(saved, signals, sampling_rates, keep=True, measured=None):
    """{member: probabilities (recordings, 4)}, not calibrated, of recordings, each of shape (samples,).

    saved: a `runs.Saved`; sampling_rates: Hz. keep: keep on disk what takes long, as training does, and draw progress
    bars. measured: what `measure` makes of the recordings, where it is known.
    """
    said = {}
    for member in names(saved):
        if member == "network":
            said[member] = by_network(saved.network, saved.card.recipe, signals, sampling_rates, keep)
        else:
            measured = measured or measure(signals, sampling_rates, keep)
            said[member] = by_heartbeats(saved, member, measured)
    return said


def by_heartbeats(saved, member, measured):
    """Probabilities (recordings, 4) by the `member` rhythm or trees of a `runs.Saved` for what `measure` returns."""
    if member == "rhythm":
        import rhythm

        return rhythm.classify(saved.rhythm, measured)
    import trees  # slow to import, and many models have none

    return trees.classify(saved.trees, measured)


def by_network(network, recipe, signals, sampling_rates, keep=True):
    """Probabilities (recordings, 4) that a network made by `recipe`, of Keras or an `inference.Onnx`, gives.

    keep: keep the features of a frozen base, so that scoring again costs seconds; the rest as `answers` takes it.
    """
    parts, rates, owners = quality.cut(signals, sampling_rates)
    images = preprocessing.Images(parts, rates, recipe)
    if keep and not recipe.trains_base:
        import model  # and with it Keras

        probabilities = model.from_frozen(network, images)
    else:
        with progress(len(images), "predicting", "image", disable=not keep) as bar:
            probabilities = inference.predict(network, images, bar=bar)
    return preprocessing.vote(probabilities, owners[images.owners])


def measure(signals, sampling_rates, keep=True):
    """The `measuring.Measured` form of the parts of recordings that hold an ECG, with the recording of each window."""
    import measuring

    parts, rates, owners = quality.cut(signals, sampling_rates)
    measured = measuring.measure_all(parts, rates, keep)
    return measured._replace(owners=owners[measured.owners])


def joined(said, calibrations):
    """Probabilities (recordings, 4) of the members whose answers are `said`, {member: probabilities (recordings, 4)}.

    calibrations: {members: (factor, shifts (4,))}, of which that of these members is used; or None.
    """
    logits = [np.log(np.maximum(p, 1e-7, dtype=np.float64)) for p in said.values()]
    weights = [max(len(said) - 1, 1) if member == "network" else 1 for member in said]
    logits = np.average(logits, axis=0, weights=weights)
    if calibrations:
        factor, shifts = calibrations[",".join(said)]
        logits = logits * factor + np.asarray(shifts)
    return scipy.special.softmax(logits, axis=1)


def voices(models, signals, sampling_rates, keep=True, measured=None):
    """{members: probabilities (recordings, 4)}: what all say together, first, and where there are several, each alone.

    models: [`runs.Saved`], whose probabilities are averaged; the rest as `answers` takes it.
    """
    if measured is None and any(len(names(saved)) > 1 for saved in models):
        measured = measure(signals, sampling_rates, keep)
    said = [answers(saved, signals, sampling_rates, keep, measured) for saved in models]
    every = [name for name in MEMBERS if any(name in each for each in said)]  # as calibrations name them
    heard = {}
    for some in [every, *([name] for name in every if len(every) > 1)]:
        heard[",".join(some)] = np.mean(
            [
                joined({name: each[name] for name in some if name in each}, saved.card.calibration)
                for each, saved in zip(said, models, strict=True)
                if set(some) & set(each)
            ],
            axis=0,
        )
    return heard


def classify(models, signals, sampling_rates, keep=True, measured=None):
    """Probabilities (recordings, 4) of recordings by `models`; all as `voices` takes it."""
    return next(iter(voices(models, signals, sampling_rates, keep, measured).values()))
