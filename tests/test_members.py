"""The trees, their place in a saved model's file, and how members are joined."""

import dataclasses

import numpy as np
import pytest
import scipy.special

import beats
import measuring
import members
import model
import runs
import scoring
import trees
from recipes import MEMBERS, RECIPES, Recipe
from shell import UserError
from synthetic import recording

RECIPE = dataclasses.replace(RECIPES["improved"], seconds=10, vote_stretch=0, members="network,trees")


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    return [recording("ANO~"[number % 4], 12, rng) for number in range(60)]


@pytest.fixture(scope="module")
def boosters(signals):
    return trees.fit(measuring.measure_all(signals, [300] * 60, keep=False), np.arange(60) % 4, Recipe(seed=1))


def test_trees_tell_the_rhythms_of_fresh_recordings(boosters):
    rng = np.random.default_rng(5)
    fresh = [recording("ANO~"[number % 4], 12, rng) for number in range(32)]
    probabilities = trees.classify(boosters, measuring.measure_all(fresh, [300] * 32, keep=False))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert np.mean(probabilities.argmax(1) == np.arange(32) % 4) > 0.6


def test_a_recording_is_measured_once(signals, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "KEPT", tmp_path)
    made = measuring.measure_all(signals[:6], [300] * 6)
    np.testing.assert_equal(made, measuring.measure_all(signals[:6], [300] * 6, keep=False))
    real, asked = measuring.measure, []
    monkeypatch.setattr(measuring, "measure", lambda *pair: asked.append(pair) or real(*pair))
    np.testing.assert_equal(measuring.measure_all(signals[2:8], [300] * 6).sequences[:4], made.sequences[2:])
    assert len(asked) == 2
    assert np.abs(measuring.measure_all(signals[:1], [250]).rows - made.rows[:1])[0, 0] > 1 and len(asked) == 3
    next(tmp_path.glob("*/*.npz")).write_bytes(b"damaged")
    np.testing.assert_equal(measuring.measure_all(signals[:6], [300] * 6), made)


def test_long_recordings_are_cut_into_windows_that_cover_them():
    long = np.arange(150 * 250)
    pairs, owners = measuring.windows([long, long[:100], long[: 61 * 250]], [250, 250, 250])
    cut, rates = zip(*pairs, strict=True)
    assert owners.tolist() == [0, 0, 0, 1, 2] and rates == (250,) * 5
    assert [len(one) for one in cut] == [61 * 250] * 3 + [100, 61 * 250]
    assert cut[0][0] == 0 and cut[2][-1] == long[-1] and cut[1][0] < cut[0][-1] and cut[2][0] < cut[1][-1]


def test_models_with_different_members_answer_in_any_order(monkeypatch):
    neutral = [1.0, [0.0] * 4]
    said = {
        "network,trees": {name: np.full((2, 4), 0.25) for name in ("network", "trees")},
        "network,rhythm,trees": {name: np.full((2, 4), 0.25) for name in MEMBERS},
    }
    saved = []
    for some, each in said.items():
        card = runs.Card(
            dataclasses.replace(RECIPE, members=some), (), "", "", {some: neutral} | dict.fromkeys(each, neutral)
        )
        saved.append(runs.Saved(each, [], card))
    monkeypatch.setattr(members, "answers", lambda saved, *_: saved.network)
    for models in (saved, saved[::-1]):
        heard = members.voices(models, [], [], measured=())
        assert list(heard) == ["network,rhythm,trees", *MEMBERS]
        np.testing.assert_allclose(list(heard.values()), 0.25)


def test_a_model_file_holds_its_trees(signals, boosters, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    network = model.build(RECIPE).complete
    neutral = [1.0, [0.0] * 4]
    calibration = {"network,trees": [2.0, [0, 1.0, 0, 0]], "network": neutral, "trees": neutral}
    card = runs.Card(RECIPE, frozenset(["A1"]), "mine", "data.zip", calibration)
    runs.save(network, card, path)
    runs.finish(path, card._replace(measured=trees.provenance()), boosters)
    runs.finish(path, card._replace(measured=trees.provenance()), boosters)  # trained again
    saved = runs.load(path)
    few = signals[:5], [300] * 5
    said = members.answers(saved, *few, keep=False)
    np.testing.assert_array_equal(said["trees"], trees.classify(boosters, measuring.measure_all(*few, keep=False)))
    np.testing.assert_allclose(said["network"], members.by_network(network, RECIPE, *few, keep=False), atol=1e-5)
    logits = 2 * (np.log(said["network"]) + np.log(said["trees"])) / 2 + [0, 1, 0, 0]
    expected = scipy.special.softmax(logits, axis=1)
    np.testing.assert_allclose(members.classify([saved], *few, keep=False), expected, atol=1e-6)

    alone = saved._replace(card=card._replace(recipe=dataclasses.replace(RECIPE, members="network"), calibration=None))
    voices = members.voices([saved, alone], *few, keep=False)
    assert list(voices) == ["network,trees", "network", "trees"]
    np.testing.assert_allclose(voices["network,trees"], (expected + said["network"]) / 2, atol=1e-5)
    assert list(members.voices([alone], *few, keep=False)) == ["network"]

    monkeypatch.setattr(beats, "MEASUREMENTS", beats.MEASUREMENTS[1:])
    with pytest.raises(UserError, match="other measurements"):
        runs.load(path)


def test_gain_is_that_of_recordings_drawn_in_pairs():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 400)
    other = np.where(rng.random(400) < 0.7, true, rng.integers(0, 4, 400))
    ours = np.where(rng.random(400) < 0.1, true, other)

    def score(who, where=slice(None)):
        return scoring.challenge_f1(scoring.confusion_matrix(true[where], who[where]))

    gain, (low, high) = scoring.gain(true, ours, other, scoring.challenge_f1)
    assert gain == pytest.approx(score(ours) - score(other))
    draws = [rng.integers(0, 400, 400) for _ in range(2000)]
    expected = np.quantile([score(ours, where) - score(other, where) for where in draws], (0.025, 0.975))
    assert [low, high] == pytest.approx(expected, abs=0.004)
    unpaired = np.quantile([score(ours, where) for where in draws], (0.025, 0.975))
    assert high - low < 0.7 * np.ptp(unpaired) and scoring.gain(true, other, other, scoring.challenge_f1) == (0, [0, 0])


def test_what_sees_heartbeats_counts_together_as_much_as_the_network_of_images():
    said = {name: np.random.default_rng(place).dirichlet([1] * 4, 5) for place, name in enumerate(MEMBERS)}
    network, rhythm, trees = said.values()
    for names, means in (
        ("network,rhythm,trees", network ** (1 / 2) * rhythm ** (1 / 4) * trees ** (1 / 4)),
        ("network,trees", network ** (1 / 2) * trees ** (1 / 2)),
        ("rhythm", rhythm),
    ):
        heard = members.joined({name: said[name] for name in names.split(",")}, None)
        np.testing.assert_allclose(heard, means / means.sum(1, keepdims=True))
