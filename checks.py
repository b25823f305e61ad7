"""Checks of heat maps: whether they depend on what the network learned, and show what its answer rests on."""

import dataclasses
from collections import namedtuple

import numpy as np
import scipy.stats

import beats
import heatmaps
import model
import preprocessing
from recipes import CLASSES

# What the checks are made of: images of recordings, the classes that the network names, (n, frames) where something is
# recorded, the frames' centres in s, and the R peaks of each image, times in s.
Subjects = namedtuple("Subjects", "images classes recorded times peaks")
EDGE, NEAR = 2.0, 0.4  # s: what counts as an edge, and as near an early beat
DRAWN = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # shares of the frames that are deleted or inserted
STAGES = 8  # steps in which the weights are made random, from the top
ORDERS = {"random": "frames at random", "shifted": "the map shifted in time", "centre": "the centre first"}
# The rank correlation that maps of one network and of random weights must stay below, lest they show no learning, and
# that maps of two seeds must exceed, lest they show the seed.
RANDOM = 0.3


def subjects(network, recipe, signals, sampling_rates):
    """The `Subjects` of recordings: of each the piece, not stretched, of which the network is surest."""
    plain = preprocessing.Images(signals, sampling_rates, dataclasses.replace(recipe, vote_stretch=0))
    probabilities = model.predict(network, plain)
    surest = {}
    for place in np.argsort(probabilities.max(1)):
        surest[plain.owners[place]] = place
    best = np.array([surest[owner] for owner in range(len(plain.signals))])
    peaks, lasts = [], []
    for piece in (plain.pieces[place] for place in best):
        signal, rate = plain.signals[piece.recording], plain.sampling_rates[piece.recording]
        begin = piece.start / recipe.sampling_rate
        found = beats.find(signal, rate)["sleepecg"] - begin
        peaks.append(found[(found >= 0) & (found < recipe.seconds)])
        lasts.append(np.inf if recipe.padding == "wrap" else len(signal) / rate - begin)
    images, times = plain[best], preprocessing.image_axes(recipe)[1]
    recorded = preprocessing.frame_starts(recipe) / recipe.sampling_rate < np.array(lasts)[:, None]
    recorded &= images[:, 0] != preprocessing.PADDED
    return Subjects(images, probabilities[best].argmax(1), recorded, times, peaks)


def check(network, recipe, given, names, rng, other=None):
    """Yield (the name of a method, all that the checks find of it, ready for JSON) for each of `names`.

    given: `Subjects`; rng: a NumPy generator; other: a network of the same recipe from another seed, or None.
    """
    controls = {
        "random": rng.random(given.recorded.shape),
        "centre": -np.abs(given.times - _middles(given)[:, None]),
    }
    still = np.stack([heatmaps.still_frame(image) for image in given.images])[:, :, None]
    nothing = np.where(given.recorded[:, None], still, given.images)
    ends = [model.predict(network, images)[np.arange(len(images)), given.classes] for images in (given.images, nothing)]
    drawn = {name: _curves(network, given, scores, nothing, ends) for name, scores in controls.items()}
    for name in names:
        tapped = (
            heatmaps.maps_and_gradients(network, heatmaps.METHODS[name].block) if heatmaps.METHODS[name].weigh else None
        )
        hot = heatmaps.heat(network, given.images, given.classes, recipe, name, given.peaks, tapped)
        found = {"empty": float(np.mean(~hot.any((1, 2)))), "shares": shares(hot, given, reach(given, name))}
        by_frame = hot.mean(1)
        by_frame = by_frame + 1e-6 * rng.random(by_frame.shape)  # equal frames in a random order
        curves = {
            name: _curves(network, given, scores, nothing, ends)
            for name, scores in (("map", by_frame), ("shifted", _shifted(by_frame, given, rng)))
        }
        found["curves"] = compare_curves(curves | drawn, rng)
        found["randomisation"] = randomise(network, recipe, given, name, hot, tapped, rng)
        if other:
            maps = heatmaps.heat(other, given.images, given.classes, recipe, name, given.peaks)
            found["agreement"] = agreement(hot, maps, reach(given, name))
        found["passed"] = verdict(found)
        yield name, found


def _middles(given):
    """The middle of what is recorded of each image, in s."""
    return np.array([given.times[seen].mean() for seen in given.recorded])


def reach(given, name):
    """The frames (n, frames) that are recorded and that a method may heat: those around beats alone, by occlusion."""
    if heatmaps.METHODS[name].weigh:
        return given.recorded
    return given.recorded & [(np.abs(given.times[:, None] - at) <= heatmaps.AROUND).any(1) for at in given.peaks]


def shares(hot, given, reached):
    """{where: share of the heat there, its share by chance, their ratio with a 95 % interval, and the recordings}.

    Where: on padding; within `EDGE` s of the begin and end of what is recorded; and, of recordings called O, within
    `NEAR` s of early beats. By chance: the share of the frames that are `reached`, of `reach`. Each is a mean over
    recordings that have the place.
    """
    by_frame = hot.mean(1)
    seen = given.recorded
    places = {"padding": ~seen, "edges": np.zeros_like(seen), "early beats": np.zeros_like(seen)}
    for place, peaks in enumerate(given.peaks):
        times = given.times[seen[place]]
        near = np.minimum(given.times - times[0], times[-1] - given.times) < EDGE
        places["edges"][place] = near & seen[place]
        early = peaks[1:][beats.timing(np.diff(peaks))[0]] if len(peaks) > beats.LEAST else peaks[:0]
        # Where every third beat is early, which beat is the odd one is not clear.
        if given.classes[place] == CLASSES.index("O") and len(early) < 0.3 * len(peaks):
            close = (np.abs(given.times[:, None] - early) <= NEAR).any(1)
            places["early beats"][place] = close & seen[place]
    found = {}
    for name, there in places.items():
        among = np.ones_like(seen) if name == "padding" else reached
        some = (there & among).any(1) & (by_frame.sum(1) > 0)
        if some.any():
            share = (by_frame * there).sum(1)[some] / by_frame.sum(1)[some]
            found[name] = _against_chance(share, ((there & among).sum(1)[some] / among.sum(1)[some]))
    return found


def _against_chance(share, chance):
    drawn = np.random.default_rng(0).integers(len(share), size=(2000, len(share)))
    ratios = share[drawn].mean(1) / chance[drawn].mean(1)
    return {
        "share": float(share.mean()),
        "chance": float(chance.mean()),
        "ratio": float(share.mean() / chance.mean()),
        "ratio_interval": np.quantile(ratios, (0.025, 0.975)).tolist(),
        "recordings": len(share),
    }


def _shifted(by_frame, given, rng):
    """The heat of each frame (n, frames), moved round by a random time within what is recorded: as smooth as before."""
    moved = by_frame.copy()
    for row, seen in zip(moved, given.recorded, strict=True):
        row[seen] = np.roll(row[seen], rng.integers(seen.sum()))
    return moved


def _curves(network, given, scores, nothing, ends):
    """{deletion, insertion: probability of the class (n, shares) when the frames of the highest `scores` (n, frames), a
    share `DRAWN` of those recorded, are replaced by the median frame, or all others are}.

    nothing: the images with all frames replaced; ends: the probabilities (n,) of the whole images, and of these.
    Source: Petsiuk et al. 2018, "RISE: randomized input sampling for explanation of black-box models", section 4.1.
    """
    scores = np.where(given.recorded, scores, -np.inf)
    ranks = np.argsort(np.argsort(-scores, axis=1), axis=1)
    curves = {"deletion": [ends[0]], "insertion": [ends[1]]}
    for share in DRAWN[1:-1]:
        first = (ranks < np.round(share * given.recorded.sum(1))[:, None])[:, None]
        for name, gone in (("deletion", first), ("insertion", ~first)):
            images = np.where(gone, nothing, given.images)
            curves[name].append(model.predict(network, images)[np.arange(len(images)), given.classes])
    return {name: np.stack([*curve, end], 1) for (name, curve), end in zip(curves.items(), ends[::-1], strict=True)}


def compare_curves(curves, rng):
    """{deletion, insertion: {order: mean curve, area under it, area of the map's less it with a 95 % interval}}.

    curves: {order: what `_curves` returns}, of which the first is the map's.
    """
    found = {}
    for kind in ("deletion", "insertion"):
        areas = {name: np.trapezoid(each[kind], DRAWN, axis=1) for name, each in curves.items()}
        drawn = rng.integers(len(areas["map"]), size=(2000, len(areas["map"])))
        found[kind] = {
            name: {
                "curve": curves[name][kind].mean(0).tolist(),
                "area": float(area.mean()),
                "map_less": float((areas["map"] - area).mean()),
                "map_less_interval": np.quantile((areas["map"] - area)[drawn].mean(1), (0.025, 0.975)).tolist(),
            }
            for name, area in areas.items()
        }
    return found


def randomise(network, recipe, given, name, hot, tapped, rng):
    """By stages, {randomised: share of the layers, correlation: mean Spearman rank correlation of the maps with `hot`,
    empty: share of the maps that are}.

    The weights of each layer are made random, from the top of the network down, and stay so: the cascading test of
    Adebayo et al. 2018, "Sanity checks for saliency maps". An empty map counts 0, and occlusion is compared at the
    beats: between them it has no heat, whatever the weights. The network is left as it was.
    """
    compared = reach(given, name)
    stages = STAGES if heatmaps.METHODS[name].weigh else STAGES // 2  # occlusion takes an image for every beat
    layers = [layer for outer in network.layers for layer in getattr(outer, "layers", [outer]) if layer.weights][::-1]
    kept, correlations, empty = network.get_weights(), [1.0], [float(np.mean(~hot.any((1, 2))))]
    try:
        for some in np.array_split(np.arange(len(layers)), min(stages, len(layers))):
            for layer in (layers[place] for place in some):
                layer.set_weights([_random_like(each, rng) for each in layer.get_weights()])
            other = heatmaps.heat(network, given.images, given.classes, recipe, name, given.peaks, tapped)
            each = [_correlation(*maps) for maps in zip(hot, other, compared, strict=True)]
            correlations.append(float(np.mean(each)))
            empty.append(float(np.mean(~other.any((1, 2)))))
    finally:
        network.set_weights(kept)
    randomised = np.linspace(0, 1, len(correlations)).tolist()
    return {"randomised": randomised, "correlation": correlations, "empty": empty}


def agreement(hot, other, compared):
    """{correlation, interval}: the mean Spearman rank correlation of maps (n, frequencies, frames) with the `other`
    maps of the same images where they are `compared` (n, frames), with a 95 % bootstrap interval.
    """
    each = np.array([_correlation(*maps) for maps in zip(hot, other, compared, strict=True)])
    drawn = np.random.default_rng(0).integers(len(each), size=(2000, len(each)))
    return {
        "correlation": float(each.mean()),
        "interval": np.quantile(each[drawn].mean(1), (0.025, 0.975)).tolist(),
    }


def _random_like(weights, rng):
    """Random weights instead of learned ones: a kernel's of its size and mean 0, which leaves no layer dead; others
    shuffled.
    """
    if weights.ndim > 1:
        return rng.normal(0, np.sqrt(np.mean(weights**2)), weights.shape)
    return rng.permutation(weights)


def _correlation(one, other, seen):
    """Spearman's rank correlation of two maps (frequencies, frames) where something is recorded."""
    same = (one == one[:1]).all() and (other == other[:1]).all()  # rows that are all alike
    one, other = (each[: 1 if same else None, seen].ravel() for each in (one, other))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return scipy.stats.spearmanr(one, other).statistic


def verdict(found):
    """{check: whether it is passed} of what `check` found of a method."""
    passed, chances = {}, found["shares"]
    if "padding" in chances:
        passed["padding"] = chances["padding"]["share"] < 0.05
    if "edges" in chances:
        passed["edges"] = chances["edges"]["ratio_interval"][0] <= 1.1
    if "early beats" in chances:
        passed["early beats"] = chances["early beats"]["ratio_interval"][0] > 1
    course = found["randomisation"]["correlation"]
    passed["randomisation"] = max(course[len(course) // 2 :]) < RANDOM  # at the latest when the upper half is random
    if "agreement" in found:
        passed["agreement"] = found["agreement"]["interval"][0] > RANDOM
    for order in ORDERS:
        deletion, insertion = (found["curves"][kind][order]["map_less_interval"] for kind in ("deletion", "insertion"))
        passed[f"deletion, {order}"] = deletion[1] < 0
        passed[f"insertion, {order}"] = insertion[0] > 0
    return {name: bool(value) for name, value in passed.items()}


def best(results):
    """The method that passes most checks, of equals the one whose deletion and insertion lie farthest apart."""

    def rank(name):
        curves = results[name]["curves"]
        return sum(results[name]["passed"].values()), curves["insertion"]["map"]["area"] - curves["deletion"]["map"][
            "area"
        ]

    return max(results, key=rank)


def lines(name, found):
    """Lines of a table of what `check` found of the method `name`."""
    rows, passed = [], found["passed"]
    for place, row in found["shares"].items():
        low, high = row["ratio_interval"]
        text = f"{row['share']:.1%} of the heat, {row['ratio']:.2f} times chance ({low:.2f} to {high:.2f})"
        rows.append((f"heat on {place}", f"{text}, {row['recordings']} recordings", passed[place]))
    course = " ".join(f"{value:.2f}" for value in found["randomisation"]["correlation"])
    course += f"; {found['randomisation']['empty'][-1]:.0%} empty at last"
    rows.append(("rank correlation, as layers turn random", course, passed["randomisation"]))
    if "agreement" in found:
        low, high = found["agreement"]["interval"]
        text = f"{found['agreement']['correlation']:.2f} ({low:.2f} to {high:.2f})"
        rows.append(("rank correlation with the other model's map", text, passed["agreement"]))
    for check_name in (key for key in passed if ", " in key):
        kind, order = check_name.split(", ")
        row = found["curves"][kind][order]
        low, high = row["map_less_interval"]
        area = found["curves"][kind]["map"]["area"]
        text = f"area {area:.3f}, differs by {row['map_less']:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append((f"{kind} against {ORDERS[order]}", text, passed[check_name]))
    empty = f", {found['empty']:.0%} of the maps empty" if found["empty"] else ""
    return [
        f"{heatmaps.METHODS[name].title}: {sum(passed.values())} of {len(passed)} checks passed{empty}",
        *(f"  {title:<44}{text:<68}{'ok' if ok else 'FAILED'}" for title, text, ok in rows),
        "",
    ]
