"""Why: what the heartbeats of a recording look like, and which of it drove the trees, in one sentence."""

import re

import beats
from recipes import CLASSES

# What a measurement is about, by the first pattern that its name, without its detector, matches.
FAMILIES = {
    "P waves": "P ",
    "early beats": "earl|odd|late|short$|very short|long$",
    "signal quality": "agree|found by|longest without|lean|QRS peaked|reach|level|deviation|peaked|power",
    "what lies between the beats": "rest ",
    "shape of the beats": "likeness|unlike|QRS|R$|R |T |beat at|width",
    "rate": "heart rate|beats$|mean$|median$|shortest|longest$|multiples",
    "regularity": "",
}
MOST = 100  # windows, of more of which some between are left out: those of a day would take minutes
NAMES = [name for name, _, _ in beats.MEASUREMENTS]
PLAIN = [name for name, _, _ in beats.PLAIN]


def family(name):
    """The key of `FAMILIES` that the measurement `name` belongs to."""
    own = name.split(": ")[-1]
    return next(title for title, pattern in FAMILIES.items() if re.match(pattern, own))


def explain(probabilities, rows, models):
    """{sentence, measurements, drivers} for the answer `probabilities` (4,) to a recording.

    rows: its measurements (windows, measurements); models: [`runs.Saved`] that gave the answer. measurements: {plain
    one: its median over the windows, or None}; drivers: {family: what it adds to the logit of the class named}, the
    largest first, empty where no model has trees.
    """
    chosen = int(probabilities.argmax())
    values = {name: value for name, value in beats.typical(rows).items() if name in PLAIN}
    drivers = {}
    boosters = [booster for saved in models for booster in saved.trees]
    if boosters:
        import trees

        added = trees.contributions(boosters, rows[:: -(-len(rows) // MOST)], chosen)
        drivers = {title: float(sum(added[[family(name) == title for name in NAMES]])) for title in FAMILIES}
        drivers = dict(sorted(drivers.items(), key=lambda driver: -driver[1]))
    return {
        "sentence": sentence(CLASSES[chosen], values, drivers),
        "measurements": {name: round(values[name], 3) if name in values else None for name in PLAIN},
        "drivers": {title: round(value, 3) for title, value in drivers.items()},
    }


def sentence(chosen, values, drivers):
    """One sentence on a recording of the class `chosen`; values, drivers: the measurements and drivers of `explain`.

    The bounds are between the middle halves of what normal recordings and atrial fibrillation have in the challenge's
    set.
    """
    parts = []
    if "heart rate" in values:
        change, variation = values["irregularity"], values["variation of intervals"]
        steady = "regular" if variation < 12 else "regular but for some beats"
        evenness = steady if change < 5 else "a little irregular" if change < 10 else "irregular"
        parts.append(f"{values['heart rate']:.0f}/min")
        parts.append(f"{evenness} (intervals vary by {variation:.0f} %)")
    else:
        parts.append("too few beats to measure")
    if "P waves" in values:
        alike, height = values["P waves"], values["P height"]
        parts.append(
            "no regular P wave"
            if alike < 0.2
            else "regular P waves"
            if alike > 0.4 and height > 3
            else "unclear P waves"
        )
    if values.get("early beats", 0) >= 1:
        parts.append(f"{values['early beats']:.0f} % early beats")
    if values.get("QRS width", 0) > 110:
        parts.append(f"wide QRS complexes ({values['QRS width']:.0f} ms)")
    if values.get("agreement", 100) < 80:
        parts.append(f"poor signal: two detectors agree on {values['agreement']:.0f} % of the beats")
    speaking = [title for title, added in drivers.items() if added > 0.1][:2]
    return f"{chosen}: {', '.join(parts)}" + (f"; the trees went by {' and '.join(speaking)}" if speaking else "")
