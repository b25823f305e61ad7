import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from conftest import PROJECT

import dataset
import model
import preprocessing
import runs
import training
from f1_sweeping_callback import PhysioNetF1SweepCallback
from recipes import Recipe
from shell import UserError

pytestmark = pytest.mark.xdist_group("model")  # which share one network
keras = model.keras
RECIPE = Recipe(weights="random", epochs=2, batch_size=4, num_neurons=8, learning_rate=0.001)


@pytest.fixture(scope="module")
def table(folder):
    return dataset.read_recordings(folder).iloc[:20].reset_index(drop=True)


@pytest.fixture(scope="module")
def images(table):
    return preprocessing.Images(table.signal, table.sampling_rate, RECIPE)


@pytest.fixture(scope="module")
def network(images):
    return model.build(RECIPE, images[:16])


@pytest.fixture(scope="module")
def features(network, images, tmp_path_factory):
    return model.frozen_features(network.base, images, folder=tmp_path_factory.mktemp("features"))


def test_the_network_is_the_reports(network):
    assert network.complete.input_shape == (None, 76, 239)
    assert network.complete.output_shape == (None, 4)
    backbone = network.complete.get_layer("inception_resnet_v2")
    assert not backbone.trainable and backbone.count_params() == 54_336_736
    assert backbone.layers[-1].name == "conv_7b_ac" and backbone.output_shape == (None, 8, 8, 1536)
    assert {variable.path.split("/")[-2] for variable in network.complete.trainable_variables} == {
        "dense",
        "logits",
    }


def test_image_layers_do_what_the_report_did(network, images):
    import tensorflow as tf

    backbone = network.complete.get_layer("inception_resnet_v2")
    fed = keras.Model(network.complete.input, network.complete.get_layer("rescaling").output)(images[:2])
    resized = tf.image.resize(images[:2][..., np.newaxis], (299, 299))
    expected = keras.applications.inception_resnet_v2.preprocess_input(np.repeat(resized.numpy(), 3, axis=-1))
    np.testing.assert_allclose(fed, expected, atol=1e-6)
    assert fed.shape[1:] == backbone.input_shape[1:]


def test_the_saved_model_equals_the_head_on_cached_features(network, images, features, tmp_path):
    model.save(network.complete, RECIPE, ["A00001"], tmp_path / "saved.keras", "mine")
    assert runs.read_card(tmp_path / "saved.keras") == (RECIPE, {"A00001"}, "mine")
    loaded = model.load(tmp_path / "saved.keras")
    from_features = network.head.predict(features, verbose=0)
    np.testing.assert_allclose(loaded.predict(images[:], verbose=0), from_features, atol=1e-4)
    assert np.ptp(from_features, axis=0).max() > 1e-3  # else any two models would agree
    assert [path.name for path in tmp_path.iterdir()] == ["saved.keras"]


def test_a_head_trained_either_way_ends_with_the_same_weights(network, table, images, features):
    labels = table.label.map("ANO~".index).to_numpy()[:8]
    start = network.head.get_weights()
    ends = []
    for trained, inputs in ((network.head, features[:8]), (network.complete, images[:8])):
        network.head.set_weights(start)
        scorer = PhysioNetF1SweepCallback(inputs, labels, 8)
        training.train(trained, inputs, labels, RECIPE, scorer, bar=False)
        ends.append(network.head.get_weights())
    network.head.set_weights(start)
    for before, by_features, by_images in zip(start, *ends, strict=True):
        np.testing.assert_allclose(by_features, by_images, atol=1e-3)
        assert np.abs(before - by_features).max() > 3e-3  # they moved farther than they differ


def test_prediction_keeps_features_and_streams_a_fine_tuned_network(network, table, features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "FEATURES", tmp_path)
    expected = network.head.predict(features[:5], verbose=0)
    for fine_tune in (False, True):
        recipe = dataclasses.replace(RECIPE, fine_tune=fine_tune)
        few = preprocessing.Images(table.signal[:5], table.sampling_rate[:5], recipe)
        np.testing.assert_allclose(model.predict(network.complete, few), expected, atol=1e-4)


def test_features_are_read_back_and_never_stale(network, table, features, tmp_path):
    calls = []

    class Counting:
        variables, output_shape = network.base.variables, network.base.output_shape

        def predict_on_batch(self, batch):
            calls.append(len(batch))
            return network.base.predict_on_batch(batch)

    few = preprocessing.Images(table.signal[:3], table.sampling_rate[:3], RECIPE)
    first = model.frozen_features(Counting(), few, folder=tmp_path)
    np.testing.assert_allclose(first, features[:3], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.frozen_features(Counting(), few, folder=tmp_path), first)
    assert len(calls) == 1
    halved = preprocessing.Images(table.signal[:3] // 2, table.sampling_rate[:3], RECIPE)
    masked = preprocessing.Images(
        table.signal[:3], table.sampling_rate[:3], dataclasses.replace(RECIPE, padding="wrap")
    )
    for number, other in enumerate((halved, masked)):
        assert np.abs(model.frozen_features(Counting(), other, folder=tmp_path) - first).max() > 1e-3
        assert len(calls) == 2 + number


INTERRUPTED = """
import sys, pathlib, dataset, model, preprocessing
from recipes import Recipe
table = dataset.read_recordings(pathlib.Path(sys.argv[1])).iloc[:20].reset_index(drop=True)
recipe = Recipe(weights="random", num_neurons=8)
images = preprocessing.Images(table.signal, table.sampling_rate, recipe)
model.PART = 4
model.frozen_features(model.build(recipe, images[:16]).base, images, folder=pathlib.Path(sys.argv[2]))
"""


def test_a_killed_extraction_continues_and_ends_with_the_same_features(
    network, folder, images, features, tmp_path, monkeypatch
):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, folder, tmp_path], cwd=PROJECT, stderr=subprocess.DEVNULL
    )
    while not (written := list(tmp_path.glob("*/[0-9a-f]*.npy"))) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= len(written) < 5
    ages = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/[0-9a-f]*.npy")}
    monkeypatch.setattr(model, "PART", 4)
    continued = model.frozen_features(network.base, images, folder=tmp_path)
    np.testing.assert_allclose(continued, features, rtol=1e-4, atol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in ages} == ages
    assert len(list(tmp_path.glob("*/[0-9a-f]*.npy"))) == 5


def test_weights_from_a_file(network, tmp_path):
    backbone = network.complete.get_layer("inception_resnet_v2")
    path = tmp_path / "mine.weights.h5"
    backbone.save_weights(path)
    loaded = model.build(dataclasses.replace(RECIPE, weights=str(path), seed=7))
    for ours, theirs in zip(loaded.base.get_weights(), network.base.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("weights", ["nowhere.h5", "text.h5", "other.weights.h5"])
def test_a_wrong_weights_file_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("text")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights("other.weights.h5")
    with pytest.raises(UserError, match=weights):
        model.build(dataclasses.replace(RECIPE, weights=weights))


def test_models_that_are_not_ours_are_refused(network, tmp_path):
    with pytest.raises(UserError, match=r"none.keras does not exist"):
        runs.read_card(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("text")
    network.head.save(tmp_path / "foreign.keras")
    model.save(network.head, RECIPE, [], tmp_path / "newer.keras")
    with (
        zipfile.ZipFile(tmp_path / "newer.keras") as old,
        zipfile.ZipFile(tmp_path / "other.keras", "w") as new,
    ):
        kept = json.loads(old.read("recipe.json"))
        kept["recipe"]["unknown"] = 1
        new.writestr("recipe.json", json.dumps(kept))
    (tmp_path / "cut.keras").write_bytes((tmp_path / "newer.keras").read_bytes()[:-300])
    for name in ("text.keras", "foreign.keras", "other.keras", "cut.keras"):
        with pytest.raises(UserError, match=f"{name} is not a model that this version"):
            runs.read_card(tmp_path / name)


def test_a_failed_save_leaves_the_old_model(network, tmp_path, monkeypatch):
    path = tmp_path / "saved.keras"
    model.save(network.head, RECIPE, [], path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot write .*saved.keras: No space left"):
        model.save(network.head, RECIPE, ["A00002"], path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved.keras"]
