"""The sentence that says why, on hearts whose rhythm is known."""

import numpy as np
import pytest
from test_beats import heart

import measuring
import reasons
import runs
import trees
from recipes import Recipe
from synthetic import FS

CLASS = {name: np.eye(4)["ANO~".index(name)] for name in "ANO~"}


def explained(signal, name, models=()):
    rows = measuring.measure_all([signal], [FS], keep=False).rows
    return reasons.explain(CLASS[name], rows, models)


def test_each_heart_is_described_as_what_it_is():
    fibrillation, times = heart("fibrillation", 100, seed=5)
    sentence = explained(fibrillation, "A")["sentence"]
    assert sentence.startswith(f"A: {60 / np.median(np.diff(times)):.0f}/min, irregular (intervals vary by ")
    assert "no regular P wave" in sentence
    sentence = explained(heart("sinus", 72, seed=1)[0], "N")["sentence"]
    assert ", regular (intervals vary by " in sentence and "regular P waves" in sentence
    assert "early" not in sentence and "poor signal" not in sentence and "wide" not in sentence
    ventricular = explained(heart("ventricular", 70, seed=4)[0], "O")["sentence"]
    assert "% early beats" in ventricular
    assert "poor signal" in explained(np.random.default_rng(0).normal(0, 200, 30 * FS), "~")["sentence"]


@pytest.mark.parametrize("signal", [np.zeros(3000), np.random.default_rng(0).normal(0, 100, 400)])
def test_what_cannot_be_measured_is_said_and_null(signal):
    why = explained(signal, "~")
    assert why["sentence"] == "~: too few beats to measure" or "poor signal" in why["sentence"]
    assert why["measurements"]["heart rate"] is None and list(why["measurements"]) == reasons.PLAIN


def test_what_drove_the_trees_is_named():
    """Trees that can only tell hearts by their P waves, and then by their rate, say so."""
    rng = np.random.default_rng(0)
    signals = [heart("sinus" if place % 2 else "fibrillation", 90, seed=place)[0] for place in range(8)]
    rows = measuring.measure_all(signals, [FS] * 8, keep=False).rows
    for family in ("P waves", "rate"):
        told = rows[rng.integers(0, 8, 400)].copy()
        labels = rng.integers(0, 2, 400)
        names = np.array([reasons.family(name) == family for name in reasons.NAMES])
        told[:, names] += 100 * labels[:, None]
        boosters = trees.fit(measuring.Measured(told, [], np.arange(400)), labels, Recipe(seed=0))
        saved = runs.Saved(None, boosters, None)
        why = reasons.explain(CLASS["N"], told[labels == 1][:1], [saved])
        assert next(iter(why["drivers"])) == family
        assert f"; the trees went by {family}" in why["sentence"]
        assert reasons.explain(CLASS["A"], told[labels == 1][:1], [saved])["drivers"][family] < 0


def test_every_measurement_is_about_one_thing():
    families = [reasons.family(name) for name in reasons.NAMES]
    assert set(families) == set(reasons.FAMILIES)
    about = dict(zip(reasons.NAMES, families, strict=True))
    assert about["P waves"] == about["P over noise"] == "P waves" != about["early P likeness"] == "early beats"
    assert about["heart rate"] == about["neurokit: mean"] == "rate" and about["power 3-5 Hz"] == "signal quality"
