"""The small network: padding, checkpoints, calibration."""

import dataclasses
import functools
import gc

import numpy as np
import pandas as pd
import pytest
import scipy.special

import bounds
import dataset
import main
import members
import model
import preprocessing
import runs
import scoring
import sweeping
import training
import trees
from f1_training_callback import PhysioNetF1Callback
from keras_setup import keras
from recipes import RECIPES, Recipe
from synthetic import recording

RECIPE = dataclasses.replace(RECIPES["improved"], seconds=10, vote_stretch=0, epochs=3, batch_size=8)


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    return [recording("ANO~"[number % 4], seconds, rng) for number, seconds in enumerate([6, 10, 10, 8, 7.3, 10] * 4)]


@pytest.mark.parametrize("seconds", [10, 13.1, 31.37])
def test_probabilities_do_not_depend_on_the_padded_length_or_the_batch(signals, seconds):
    images = preprocessing.Images(signals[:8], [300] * 8, RECIPE)[:]
    trained = model.build(RECIPE, images).complete
    longer = dataclasses.replace(RECIPE, seconds=seconds, vote=False)
    other = model.build(longer).complete
    other.set_weights(trained.get_weights())
    expected = trained.predict(images, verbose=0)
    got = other.predict(preprocessing.Images(signals[:8], [300] * 8, longer)[:], verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.05  # else any two would agree
    np.testing.assert_allclose(got, expected, atol=1e-3)
    alone = other.predict(preprocessing.Images(signals[3:4], [300], longer)[:], verbose=0)
    np.testing.assert_allclose(alone[0], expected[3], atol=1e-3)


def test_a_masked_image_network_leaves_padding_out(signals):
    recipe = dataclasses.replace(RECIPE, backbone="vgg16", weights="random", fine_tune=True, trace=False)
    network = model.build(recipe)
    images = preprocessing.Images(signals[:2], [300, 300], recipe)[:]
    maps = keras.Model(network.complete.input, network.complete.get_layer("maps").output)(images).numpy()
    features = network.base(images).numpy()
    recorded = (images[:, 0] != preprocessing.PADDED).mean(1)
    assert recorded[0] < 0.62 and recorded[1] == 1
    np.testing.assert_allclose(features[1], maps[1].mean((0, 1)), rtol=1e-4, atol=1e-7)
    columns = maps[0].mean(0)
    share = np.clip(7 * recorded[0] - np.arange(7), 0, 1)  # of each column
    np.testing.assert_allclose(features[0], share @ columns / share.sum(), rtol=1e-4, atol=1e-7)


def train(signals, name, stop_after=None):
    """(history, network) of the run `name` in this folder, killed at the best model, by F1, `stop_after`."""
    labels = np.arange(len(signals)) % 4
    rates, run = [300] * len(signals), runs.Run(name)
    recipe = dataclasses.replace(RECIPE, best_epoch="f1")
    network = model.build(recipe).complete
    validation = preprocessing.Images(signals[:8], rates[:8], recipe)
    card = runs.Card(recipe, [], f"{len(signals)} recordings", "")
    saved = []

    def save():
        runs.save(network, card, run.model)
        saved.append(run.model)
        if len(saved) == stop_after:
            raise KeyboardInterrupt

    scorer = PhysioNetF1Callback(validation, labels[:8], save, owners=validation.owners)
    inputs = preprocessing.AugmentedImages(signals, rates, recipe)
    return training.fit(network, inputs, labels, recipe, scorer, run, card.fingerprint, bar=False), network


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_an_interrupted_training_continues_as_if_it_had_not_stopped(signals, here, monkeypatch, capsys):
    scores = {"challenge_F1": 0.5}
    rising = iter([0.1, 0.2, 0.3, 0.1, 0.2, 0.2, 0.3])
    monkeypatch.setattr("f1_sweeping_callback.epoch_scores", lambda matrix: scores | {"avg_F1_score": next(rising)})
    straight, network = train(signals, "straight")
    with pytest.raises(KeyboardInterrupt):  # in the second epoch, after its scores and before its checkpoint
        train(signals, "cut", stop_after=2)
    resumed, continued = train(signals, "cut")
    assert "continuing after epoch 1 of an interrupted training" in capsys.readouterr().err
    pd.testing.assert_frame_equal(resumed, straight, rtol=1e-5)
    for one, other in zip(network.get_weights(), continued.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("kind", "power"), [("none", 0), ("sqrt", 0.5), ("balanced", 1)])
def test_class_weights(kind, power):
    labels = np.repeat([0, 1, 2, 3], [10, 40, 20, 5])
    weights = training.class_weights(labels, kind)
    np.testing.assert_allclose(weights[1] / weights[0], (10 / 40) ** power, rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)


def probabilities(logits, calibration):
    return members.joined({"network": scipy.special.softmax(logits, axis=1)}, {"network": calibration})


def test_calibration_undoes_a_factor_and_chooses_for_f1():
    """Against the posterior that the labels were drawn from, and the best shifts found by trying all."""
    rng = np.random.default_rng(0)
    logits = rng.normal((-1, 2, 0.5, -2), 1.2, (12000, 4))
    posterior = scipy.special.softmax(logits, axis=1)
    labels = (posterior.cumsum(1) > rng.random((12000, 1))).argmax(1)
    seen, fresh = slice(0, 6000), slice(6000, None)
    given = 3 * logits + [0, 0.5, 1, -0.5]
    calibration = training.calibrate(scipy.special.softmax(given[seen], axis=1), labels[seen])
    assert calibration[0] == pytest.approx(1 / 3, rel=0.1)

    def score(values):
        return scoring.average_f1(scoring.confusion_matrix(labels[fresh], values.argmax(1)))

    steps = np.arange(0, 2, 0.25)
    best = max(score(logits[fresh] + [a, 0, o, n]) for a in steps for o in steps for n in steps)
    ours = score(probabilities(given[fresh], calibration))
    assert score(posterior[fresh]) + 0.02 < ours <= best + 0.005 and ours > best - 0.01


def test_calibration_of_what_has_no_optimum():
    """A class that is absent, and others told apart without an error."""
    labels = np.arange(30) % 3
    factor, shifts = training.calibrate(scipy.special.softmax(5 * np.eye(4)[labels], axis=1), labels)
    assert np.isfinite([factor, *shifts]).all()
    assert (probabilities(5 * np.eye(4)[:3], (factor, shifts)).argmax(1) == [0, 1, 2]).all()


def test_test_recordings_take_no_part_in_a_training(signals, monkeypatch, tmp_path):
    """Neither in what is trained on and validated, nor in the fingerprint: other test labels change nothing."""
    table = pd.DataFrame({"record": [f"A{place}" for place in range(24)], "signal": signals, "sampling_rate": 300})
    table["label"] = [*"ANO~"] * 6
    table["split"] = ["train", "train", "validation", "test"] * 6
    other = table.assign(label=table.label.where(table.split != "test", "N"))
    recipe = dataclasses.replace(RECIPE, seed=1)
    assert training.fingerprint(table, recipe) == training.fingerprint(other, recipe)
    assert training.fingerprint(table, recipe) != training.fingerprint(table.assign(label="N"), recipe)
    assert training.fingerprint(table, recipe) != training.fingerprint(table, RECIPE)
    told = []
    for content, name in (
        ("a", "x.h5"),
        ("a", "y.h5"),
        ("b", "x.h5"),
    ):  # what the weights are, not what they are called
        (tmp_path / name).write_text(content)
        weights = Recipe(weights=str(tmp_path / name))
        told.append(training.fingerprint(table, weights))
    assert told[0] == told[1] != told[2]
    prepared = training.prepare(table, recipe)
    learned = {id(signal) for signal in prepared.inputs.signals}
    assert learned == {id(signal) for signal in table.signal[table.split == "train"]}
    validation = table[table.split == "validation"]
    shown = preprocessing.Images(validation.signal, validation.sampling_rate, recipe)
    np.testing.assert_array_equal(prepared.validation, shown[:])
    np.testing.assert_array_equal(prepared.validation_labels, [2] * 6)
    monkeypatch.setattr(bounds, "HELD", 0)  # a set so large that its images are made again after every epoch
    np.testing.assert_array_equal(training.prepare(table, recipe).validation[:], shown[:])


def test_finished_runs_keep_their_fingerprints_though_there_are_settings_now_that_they_had_not(folder):
    table = dataset.read_recordings(folder)
    table["split"] = dataset.split(table)
    then = {"gain": 0.3, "noise": 0.3, "class_weights": "sqrt", "label_smoothing": 0.05, "weight_decay": 0.01}
    then |= {"learning_rate": 0.003, "epochs": 30, "members": "network,trees", "best_epoch": "f1"}
    then |= {"trace": False, "flip": 0.0, "refit": False}
    finished = dataclasses.replace(RECIPES["improved"], **then)  # as it was
    known = {"cd4b2c40df52eae5": RECIPES["paper"], "7f08814c06ae28f8": finished}
    assert [training.fingerprint(table, recipe)[:16] for recipe in known.values()] == list(known)
    assert training.fingerprint(table, dataclasses.replace(finished, trees_leaves=31))[:16] not in known


@pytest.mark.parametrize("stops", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_trial_that_has_ended_leaves_none_of_its_recordings_in_memory(signals, stops):
    """TensorFlow keeps the source of its batches, of which a search has one for each trial."""
    table = pd.DataFrame({"record": [f"A{place}" for place in range(24)], "signal": signals, "sampling_rate": 300})
    table["label"], table["split"] = [*"ANO~"] * 6, ["train", "train", "validation"] * 8

    def held():
        gc.collect()
        return sum(isinstance(each, preprocessing.AugmentedImages) for each in gc.get_objects())

    before = held()
    task = sweeping.Task("network", functools.partial(sweeping.learn_network, table), RECIPE, "challenge_F1", 1)
    result = sweeping.train("one", task, {"epochs": 2}, None, report=lambda epoch, score: stops)
    assert result.get("stopped_at") == (1 if stops else None)
    assert held() == before


def test_a_refit_learns_from_all_but_the_test_split_and_is_calibrated_by_the_first_training(
    signals, here, monkeypatch, capsys
):
    table = pd.DataFrame({"record": [f"A{place}" for place in range(24)], "signal": signals, "sampling_rate": 300})
    table["label"], table["split"] = [*"ANO~"] * 6, np.repeat(["train", "validation", "test"], 8)
    recipe = dataclasses.replace(RECIPE, members="network,trees", epochs=4, trees_rounds=3)
    learned, fit, grow = [], training.fit, trees.fit

    def spied(trained, inputs, labels, *given, **more):
        rows = fit(trained, inputs, labels, *given, **more)
        learned.append((list(map(id, inputs.signals)), list(labels), len(rows)))
        return rows

    monkeypatch.setattr(training, "fit", spied)
    monkeypatch.setattr(
        trees, "fit", lambda measured, labels, recipe: grow(measured, learned.append(list(labels)) or labels, recipe)
    )
    main.train(table, recipe, runs.Run("mine"), "here", "disabled")
    first, card = (runs.read_card(f"models/{name}.keras") for name in ("mine-first", "mine"))
    best = min(first.history, key=lambda row: row["val_loss"])["epoch"]
    every, labels = list(map(id, table.signal)), list(table.label.map("ANO~".index))
    assert learned == [(every[:8], labels[:8], 4), labels[:8], (every[:16], labels[:16], best), labels[:16]]
    assert card.seen == first.seen == set(table.record[:16])
    assert card == first._replace(recipe=recipe, fingerprint=card.fingerprint) and card.fingerprint != first.fingerprint
    assert first.thresholds.keys() == {"balanced", "sensitivity 95%"}
    runs.Run("mine-first").model.unlink()
    main.train(table, recipe, runs.Run("mine"), "here", "disabled")
    assert len(learned) == 4  # nothing is trained again
    assert "mine.keras has learned from the validation split too" in capsys.readouterr().out.splitlines()[-1]
