"""Heat maps and their checks, on networks whose reasons are known."""

import dataclasses

import numpy as np
import pytest

import checks
import heatmaps
import model
import plotting
import preprocessing
from keras_setup import keras
from recipes import RECIPES, Recipe

SHAPE = (8, 40)


def network(shape, height):
    """A network whose first logit is `height` times the mean of the image, which its maps are; the others are 0."""
    given = keras.Input(shape)
    maps = keras.layers.Reshape((*shape, 1))(given)
    maps = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="maps")(maps)
    features = keras.layers.GlobalAveragePooling2D(name="features")(maps)
    weights = keras.initializers.Constant([[height, 0, 0, 0]])
    logits = keras.layers.Dense(4, name="logits", use_bias=False, kernel_initializer=weights)(features)
    return keras.Model(given, keras.layers.Softmax(name="probabilities")(logits))


def test_gradcam_finds_the_pixels_that_decide():
    image = np.zeros(SHAPE, np.float32)
    image[2:4, 5:7] = 10
    one = network(SHAPE, 50_000.0)  # which saturates the softmax, whose gradient is then exactly zero
    assert one.predict(image[None], verbose=0)[0, 0] == 1
    found = heatmaps.heat(one, np.stack([image, 0 * image]), [0, 0], Recipe())
    np.testing.assert_allclose(found[0], image / 10, atol=1e-6)
    assert not found[1].any() and np.isfinite(found).all()


@pytest.mark.parametrize("trace", [True, False])
def test_maps_after_a_block_are_those_that_the_next_one_reads(trace):
    one = model.build(dataclasses.replace(RECIPES["improved"], seconds=10, trace=trace)).complete
    for block, channels in enumerate(model.CHANNELS, 1):
        layer = heatmaps.after(one, block)
        normal = layer.input._keras_history.operation
        assert isinstance(normal.input._keras_history.operation, keras.layers.Add)
        assert layer.output.shape[1:] == (1, -(-123 // 2**block), channels)


def test_ways_to_weigh_maps():
    rng = np.random.default_rng(0)
    maps, gradients = rng.random((2, 1, 6, 3)), rng.normal(size=(2, 1, 6, 3))
    np.testing.assert_allclose(heatmaps.hirescam(maps, gradients), np.maximum((maps * gradients).sum(-1), 0))
    # Where the gradient is the same everywhere, both are Grad-CAM.
    even = np.broadcast_to(gradients[:, :, :1], gradients.shape)
    np.testing.assert_allclose(heatmaps.hirescam(maps, even), heatmaps.gradcam(maps, even))
    # Grad-CAM++ of one channel is a positive multiple of its map where it speaks for the class, else empty.
    for sign in (1, -1):
        found = heatmaps.gradcam_plus(maps[..., :1], sign * np.abs(gradients[..., :1]))
        ratio = found / maps[..., 0]
        assert (ratio > 0).all() == (sign > 0) and np.ptp(ratio, axis=2) == pytest.approx(0)


def test_columns_of_maps_are_put_where_they_belong():
    found = heatmaps.spread(np.array([[[0, 1, 0]]], np.float32), (2, 12), 4)
    np.testing.assert_allclose(found[0, 0], [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0])


def test_occlusion_finds_the_beat_that_decides():
    recipe = dataclasses.replace(RECIPES["improved"], seconds=6)
    shape, times = preprocessing.image_shape(recipe), preprocessing.image_axes(recipe)[1]
    image = np.full(shape, 20, np.float32)
    image[:, np.abs(times - 3) < 0.1] = 100
    image[:, times > 5] = preprocessing.PADDED
    (found,) = heatmaps.heat(network(shape, 1.0), image[None], [0], recipe, "occlusion", [np.array([1.0, 3.0, 4.9])])
    assert found.max() == 1 and set(np.flatnonzero(found[0])) == set(
        np.flatnonzero(np.abs(times - 3) <= heatmaps.AROUND)
    )


@pytest.fixture
def given():
    """Images with a few bright frames, of which a part is padding."""
    rng = np.random.default_rng(0)
    images = rng.random((12, *SHAPE)).astype(np.float32)
    for image in images:
        image[:, rng.choice(30, 6, replace=False)] += 10
    recorded = np.arange(SHAPE[1]) < np.full((12, 1), 36)
    images[:, :, 36:] = preprocessing.PADDED
    beats = np.cumsum([0.8] * 5 + [0.5, 1.1] + [0.8] * 5)
    return checks.Subjects(images, np.full(12, 2), recorded, np.arange(SHAPE[1]) * 0.3, [beats] * 12)


def test_shares_of_even_heat_are_those_of_chance(given):
    even = np.ones_like(given.images) * given.recorded[:, None]
    found = checks.shares(even, given, given.recorded)
    assert found["padding"]["share"] == 0 and found["padding"]["chance"] == pytest.approx(4 / 40)
    # The first and last 2 s: 7 frames of 0.3 s each, of 36.
    assert [found["edges"][key] for key in ("share", "chance")] == pytest.approx([14 / 36] * 2)
    # The early beat comes at 4.5 s: 0.4 s around it lie the frames at 4.2, 4.5 and 4.8 s.
    assert found["early beats"]["chance"] == pytest.approx(3 / 36) and found["early beats"]["ratio"] == pytest.approx(1)
    assert "early beats" not in checks.shares(even, given._replace(classes=np.zeros(12, int)), given.recorded)
    # Where only beats can be hot, even heat on all of them is what chance would lay.
    reached = checks.reach(given, "occlusion")
    assert reached.sum(1).max() < 20 and not reached[:, 36:].any()
    found = checks.shares(even * reached[:, None], given, reached)
    assert found["early beats"]["ratio"] == pytest.approx(1) and found["early beats"]["chance"] < 3 / 36
    at_beat = np.zeros_like(even)
    at_beat[:, :, 15] = 1
    assert checks.shares(at_beat, given, given.recorded)["early beats"]["share"] == pytest.approx(1)


def test_a_map_of_what_decides_passes(given, monkeypatch):
    one = network(SHAPE, 1.0)
    given = given._replace(classes=np.zeros(12, int))
    before = one.get_weights()
    ((_, found),) = checks.check(one, Recipe(), given, ["gradcam"], np.random.default_rng(0))
    assert all(passed for name, passed in found["passed"].items() if "," in name)
    assert found["shares"]["padding"]["share"] == 0
    assert all((old == new).all() for old, new in zip(before, one.get_weights(), strict=True))
    assert "agreement" not in found
    ((_, same),) = checks.check(one, Recipe(), given, ["gradcam"], np.random.default_rng(0), network(SHAPE, 1.0))
    ((_, other),) = checks.check(one, Recipe(), given, ["gradcam"], np.random.default_rng(0), network(SHAPE, -1.0))
    assert same["agreement"] == {"correlation": 1, "interval": [1, 1]} and same["passed"]["agreement"]
    assert other["agreement"]["correlation"] == 0 and not other["passed"]["agreement"]  # nothing speaks for the class
    assert any("the other model's map" in line and "FAILED" in line for line in checks.lines("gradcam", other))
    figures = []
    monkeypatch.setattr(plotting, "save", lambda drawing, path: figures.append(drawing))
    plotting.gradcam_checks({"gradcam": found}, {"gradcam": "Grad-CAM"}, checks.DRAWN, "x.png")
    assert list(figures[0].axes[1].lines[0].get_ydata()) == found["curves"]["deletion"]["map"]["curve"]


@pytest.mark.slow
def test_maps_that_do_not_ask_the_network_or_look_elsewhere_fail(given, monkeypatch):
    one = network(SHAPE, 1.0)
    given = given._replace(classes=np.zeros(12, int))
    # The map is the image itself, whatever the weights: it passes what looks at the answer, and not the other test.
    monkeypatch.setattr(heatmaps, "heat", lambda network, images, *rest: np.maximum(images, 0))
    ((_, edges),) = checks.check(one, Recipe(), given, ["gradcam"], np.random.default_rng(0))
    assert (
        edges["randomisation"]["empty"][-1] == 0
        and not edges["passed"]["randomisation"]
        and edges["passed"]["deletion, shifted"]
    )
    monkeypatch.setattr(heatmaps, "heat", lambda network, images, *rest: np.where(images > 9, 0, images > 0) * 1.0)
    ((_, beside),) = checks.check(one, Recipe(), given, ["gradcam"], np.random.default_rng(0))
    assert not any(passed for name, passed in beside["passed"].items() if name.endswith(("shifted", "random")))
    assert checks.best({"beside": beside, "edges": edges}) == "edges"
    assert any("FAILED" in line for line in checks.lines("gradcam", beside))
