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
import inference
import members
import model
import preprocessing
import runs
import training
from f1_sweeping_callback import PhysioNetF1SweepCallback
from keras_setup import keras
from recipes import Recipe
from shell import UserError

REPORT = Recipe(weights="random", epochs=2, batch_size=4, num_neurons=8, learning_rate=0.001)
RECIPE = dataclasses.replace(REPORT, backbone="vgg16")  # here a small network in place of VGG16


def small_features(recipe, pixels, mask):
    """A base of one convolution, which stands for the large ones."""
    x = keras.layers.Reshape((*pixels.shape[1:], 1))(pixels)
    x = keras.layers.Conv2D(32, 9, strides=8, activation="relu", name="maps")(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.GlobalAveragePooling2D(name="features")(x)


@pytest.fixture(scope="module", autouse=True)
def small_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.BACKBONES, "vgg16", model.Backbone(small_features, None))
        yield


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


def test_the_network_is_the_reports(images):
    """Its layers, and that what stands before the backbone does what the report's program did."""
    import tensorflow as tf

    network = model.build(REPORT)
    assert network.complete.input_shape == (None, 76, 239)
    assert network.complete.output_shape == (None, 4)
    backbone = network.complete.get_layer("inception_resnet_v2")
    assert not backbone.trainable and backbone.count_params() == 54_336_736
    assert backbone.layers[-1].name == "conv_7b_ac" and backbone.output_shape == (None, 8, 8, 1536)
    assert {variable.path.split("/")[-2] for variable in network.complete.trainable_variables} == {
        "dense",
        "logits",
    }
    fed = keras.Model(network.complete.input, network.complete.get_layer("rescaling").output)(images[:2])
    resized = tf.image.resize(images[:2][..., np.newaxis], (299, 299))
    expected = keras.applications.inception_resnet_v2.preprocess_input(np.repeat(resized.numpy(), 3, axis=-1))
    np.testing.assert_allclose(fed, expected, atol=1e-6)
    assert fed.shape[1:] == backbone.input_shape[1:]


@pytest.mark.slow
def test_the_reports_network_saved_and_by_its_features(table, tmp_path):
    images = preprocessing.Images(table.signal[:8], table.sampling_rate[:8], REPORT)
    network = model.build(REPORT, images[:])
    features = model.frozen_features(network.base, images, folder=tmp_path)
    check_saved_model(network, images, features, tmp_path / "saved.keras")
    check_both_ways(network, table, images, features)


def test_the_saved_model_equals_the_head_on_cached_features(network, images, features, tmp_path):
    check_saved_model(network, images, features, tmp_path / "saved.keras")


def check_saved_model(network, images, features, path):
    card = runs.Card(RECIPE, frozenset(["A00001"]), "mine", "data.zip", {"network": [2, [0, 1, 2, 3]]}, [{"epoch": 1}])
    runs.save(network.complete, card, path)
    saved = runs.load(path)
    loaded = saved.network
    assert saved.card == card == runs.read_card(path) and saved.trees == [] and saved.rhythm is None
    from_features = network.head.predict(features, verbose=0)
    np.testing.assert_allclose(inference.predict(loaded, images), from_features, atol=1e-4)
    assert np.ptp(from_features, axis=0).max() > 1e-3  # else any two models would agree
    assert [entry.name for entry in path.parent.glob(".*")] == []
    runs.finish(path, card._replace(calibration=None))
    again = runs.load(path)
    assert again.card == card._replace(calibration=None)
    for one, other in zip(again.network.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_head_trained_either_way_ends_with_the_same_weights(network, table, images, features):
    check_both_ways(network, table, images, features)


def check_both_ways(network, table, images, features):
    labels = table.label.map("ANO~".index).to_numpy()[:8]
    start = network.head.get_weights()
    ends = []
    for trained, inputs in ((network.head, features[:8]), (network.complete, images[:8])):
        network.head.set_weights(start)
        scorer = PhysioNetF1SweepCallback(inputs, labels, 8)
        training.fit(trained, inputs, labels, RECIPE, scorer, bar=False)
        ends.append(network.head.get_weights())
    network.head.set_weights(start)
    for before, by_features, by_images in zip(start, *ends, strict=True):
        np.testing.assert_allclose(by_features, by_images, atol=1e-3)
        assert np.abs(before - by_features).max() > 3e-3  # they moved farther than they differ


def test_classify_keeps_features_of_a_frozen_base(network, table, features, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "FEATURES", tmp_path)
    few = table.signal[:5], table.sampling_rate[:5]
    expected = network.head.predict(features[:5], verbose=0)
    np.testing.assert_allclose(members.by_network(network.complete, RECIPE, *few), expected, atol=1e-4)
    assert len(list(tmp_path.glob("*/*.npz"))) == 1
    monkeypatch.setattr(model, "FEATURES", tmp_path / "other")
    tuned = dataclasses.replace(RECIPE, fine_tune=True)
    np.testing.assert_allclose(members.by_network(network.complete, tuned, *few), expected, atol=1e-4)
    np.testing.assert_allclose(members.by_network(network.complete, RECIPE, *few, keep=False), expected, atol=1e-4)
    assert not (tmp_path / "other").exists()


class Counting:
    """A base that counts its forward passes, by a fingerprint that is made once."""

    def __init__(self, base, monkeypatch):
        self.base, self.output_shape, self.calls = base, base.output_shape, 0
        key = model.fingerprint(base)
        monkeypatch.setattr(model, "fingerprint", lambda network: key.copy())

    def predict_on_batch(self, batch):
        self.calls += 1
        return self.base.predict_on_batch(batch)


def test_features_are_read_back_and_never_stale(network, table, features, tmp_path, monkeypatch):
    base = Counting(network.base, monkeypatch)
    few = preprocessing.Images(table.signal[:3], table.sampling_rate[:3], RECIPE)
    first = model.frozen_features(base, few, folder=tmp_path)
    np.testing.assert_allclose(first, features[:3], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.frozen_features(base, few, folder=tmp_path), first)
    assert base.calls == 1
    halved = preprocessing.Images(table.signal[:3] // 2, table.sampling_rate[:3], RECIPE)
    wrapped = dataclasses.replace(RECIPE, padding="wrap")
    wrapped = preprocessing.Images(table.signal[:3], table.sampling_rate[:3], wrapped)
    for place, other in enumerate((halved, wrapped)):
        assert np.abs(model.frozen_features(base, other, folder=tmp_path) - first).max() > 1e-3
        assert base.calls == 2 + place
    # Another way of making the image, which no setting tells, must not bring back the old features.
    monkeypatch.setattr(preprocessing, "image", lambda *_, image=preprocessing.image: image(*_)[::-1].copy())
    assert np.abs(model.frozen_features(base, few, folder=tmp_path) - first).max() > 1e-3
    assert base.calls == 4


def small(scale=1 / 127.5, activation="relu", units=4, weight=1.0):
    given = keras.Input((3,))
    x = keras.layers.Rescaling(scale)(given)
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, activation, kernel_initializer="ones")])
    network = keras.Model(given, keras.ops.mean(inner(x), axis=1, keepdims=True))
    network.set_weights([weight * value for value in network.get_weights()])
    return network


def test_a_fingerprint_tells_structure_and_weights_and_not_the_order_of_making():
    first = model.fingerprint(small()).hexdigest()
    keras.layers.Dense(3)  # layers are numbered in the order in which a process makes them
    assert model.fingerprint(small()).hexdigest() == first
    for change in ({"scale": 1 / 255}, {"activation": "tanh"}, {"units": 5}, {"weight": 1.0001}):
        assert model.fingerprint(small(**change)).hexdigest() != first, change


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-200],
        lambda content: b"",
        lambda content: b"text",
        lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
    ],
)
def test_a_damaged_feature_file_is_made_again_and_said(network, table, tmp_path, monkeypatch, capsys, damage):
    base = Counting(network.base, monkeypatch)
    few = preprocessing.Images(table.signal[:3], table.sampling_rate[:3], RECIPE)
    first = model.frozen_features(base, few, folder=tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_allclose(model.frozen_features(base, few, folder=tmp_path), first, rtol=1e-6)
    assert base.calls == 2 and f"{path} is damaged" in capsys.readouterr().err
    model.frozen_features(base, few, folder=tmp_path)
    assert base.calls == 2


@pytest.mark.parametrize("wrong", [lambda kept: kept[:2], lambda kept: np.where(kept > 0, np.nan, kept)])
def test_a_feature_file_with_fewer_rows_or_nan_is_made_again(network, table, tmp_path, monkeypatch, wrong):
    base = Counting(network.base, monkeypatch)
    few = preprocessing.Images(table.signal[:3], table.sampling_rate[:3], RECIPE)
    first = model.frozen_features(base, few, folder=tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    np.savez(path, features=wrong(first))
    np.testing.assert_allclose(model.frozen_features(base, few, folder=tmp_path), first, rtol=1e-6)
    assert base.calls == 2


INTERRUPTED = """
import sys, pathlib, time, dataset, model, preprocessing, test_model
model.BACKBONES["vgg16"] = model.Backbone(test_model.small_features, None)
table = dataset.read_recordings(pathlib.Path(sys.argv[1])).iloc[:20].reset_index(drop=True)
images = preprocessing.Images(table.signal, table.sampling_rate, test_model.RECIPE)
model.PART = 4
predict = model.predict
model.predict = lambda *given, **more: time.sleep(0.3) or predict(*given, **more)
model.frozen_features(model.build(test_model.RECIPE, images[:16]).base, images, folder=pathlib.Path(sys.argv[2]))
"""


def test_a_killed_extraction_continues_and_ends_with_the_same_features(
    network, folder, images, features, tmp_path, monkeypatch
):
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}"}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, folder, tmp_path], cwd=PROJECT, stderr=subprocess.DEVNULL, env=environment
    )
    while not (written := list(tmp_path.glob("*/[0-9a-f]*.npz"))) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= len(written) < 5
    ages = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/[0-9a-f]*.npz")}
    monkeypatch.setattr(model, "PART", 4)
    continued = model.frozen_features(network.base, images, folder=tmp_path)
    np.testing.assert_allclose(continued, features, rtol=1e-4, atol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in ages} == ages
    assert len(list(tmp_path.glob("*/[0-9a-f]*.npz"))) == 5


def test_the_same_base_made_in_another_process_order_finds_its_features(images):
    first = model.fingerprint(model.build(RECIPE, images[:16]).base).hexdigest()
    keras.layers.Conv2D(3, 3)
    assert model.fingerprint(model.build(RECIPE, images[:16]).base).hexdigest() == first


def test_weights_from_a_file(tmp_path, monkeypatch):
    path = tmp_path / "mine.weights.h5"
    mine = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    mine.save_weights(path)
    ours = model._application("VGG16", 224, str(path))
    for one, other in zip(ours.get_weights(), mine.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("weights", ["nowhere.h5", "text.h5", "other.weights.h5"])
def test_a_wrong_weights_file_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("text")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights("other.weights.h5")
    with pytest.raises(UserError, match=weights):
        model._application("VGG16", 224, weights)


def test_what_fails_is_named_by_its_true_reason(monkeypatch):
    def fail(**_):
        raise ValueError("a layer is too large")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(ValueError, match="too large"):  # and not "cannot be obtained": random weights are not fetched
        model._application("VGG16", 224, "random")
    with pytest.raises(UserError, match=r"cannot be obtained \(a layer is too large\)"):
        model._application("VGG16", 224, "imagenet")
    with pytest.raises(UserError, match=r"nowhere.h5 does not exist"):  # before anything is built
        model._application("VGG16", 224, "nowhere.h5")


def test_models_that_are_not_ours_are_refused(network, tmp_path):
    with pytest.raises(UserError, match=r"none.keras does not exist"):
        runs.read_card(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("text")
    network.head.save(tmp_path / "foreign.keras")
    runs.save(network.head, runs.Card(RECIPE, [], "", ""), tmp_path / "newer.keras")
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
    runs.save(network.head, runs.Card(RECIPE, [], "", ""), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot write .*saved.keras: No space left"):
        runs.save(network.head, runs.Card(RECIPE, ["A00002"], "", ""), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved.keras"]
