"""The changes that other devices make, against what they are said to be."""

import numpy as np
import pytest

import robustness

RATE = 300.0  # as WFDB headers give it
SECONDS = np.arange(9000) / RATE
SIGNAL = np.random.default_rng(0).normal(0, 100, 9000).astype(np.int16)


def changed(name, signal=SIGNAL):
    (after,), (rate,) = robustness.change(name, [signal], [RATE])
    (again,), _ = robustness.change(name, [signal], [RATE])
    np.testing.assert_array_equal(after, again)
    return after, rate


@pytest.mark.parametrize(
    ("name", "hertz", "steep"),
    [
        *((f"low-pass {at} Hz", at, 2) for at in (30, 40, 60)),
        *((f"steep low-pass {at} Hz", at, 1.2) for at in (25, 40)),
    ],
)
def test_low_pass(name, hertz, steep):
    tones = {at: np.sin(2 * np.pi * at * SECONDS) for at in (hertz / steep, steep * hertz)}
    left = {at: np.std(changed(name, tone)[0]) / np.std(tone) for at, tone in tones.items()}
    assert left[hertz / steep] > 0.95 and left[steep * hertz] < 0.05


@pytest.mark.parametrize("rate", [50, 64, 100, 125, 200, 500, 1000, 2000])
def test_sampling(rate):
    tone = np.sin(2 * np.pi * 5 * SECONDS)
    after, other = changed(f"sampled at {rate} Hz", tone)
    assert other == rate and len(after) == 30 * rate
    np.testing.assert_allclose(
        after[rate:-rate], np.sin(2 * np.pi * 5 * np.arange(len(after)) / rate)[rate:-rate], atol=0.01
    )


@pytest.mark.parametrize(
    ("name", "hertz", "height"),
    [("hum 50 Hz", 50, 100), ("hum 60 Hz", 60, 100)]
    + [(f"hum {mv} mV", 50, 1000 * mv) for mv in (0.02, 0.05, 0.2, 0.5)]
    + [(f"wander {mv} mV", 0.25, 1000 * mv) for mv in (1, 2)],
)
def test_waves(name, hertz, height):
    added = changed(name)[0] - SIGNAL
    assert np.std(added) == pytest.approx(height / np.sqrt(2), rel=0.1)
    assert np.abs(np.fft.rfft(added)).argmax() / 30 == pytest.approx(hertz, abs=0.11)


@pytest.mark.parametrize("rate", [50, 100, 120])
def test_what_a_slow_recording_cannot_have_leaves_it_as_it_is(rate):
    signal = SIGNAL[: 10 * rate].astype(float)
    for name in robustness.CHANGES:
        (after,), (after_rate,) = robustness.change(name, [signal], [rate])
        assert np.isfinite(after).all() and len(after) > 0, name
        number = float(name.split()[-2]) if name.endswith("Hz") and "pass" in name else 50 if "hum" in name else 0
        if number >= rate / 2 and "sampled" not in name:
            assert after_rate == rate and np.array_equal(after, signal), name


def test_the_rest_is_what_its_name_says():
    pop = changed("pop")[0] - SIGNAL
    assert np.sum(pop == 20000) == 300 and np.sum(pop == 0) == 8700
    off = changed("lead off")[0] - SIGNAL
    assert np.sum(off == 300_000) == 600 and np.sum(off == 0) == 8400
    assert np.sum(changed("half silent")[0] == 0) == pytest.approx(4500, abs=50)
    beats = 1000 * (SECONDS % 1 < 0.02)
    assert changed("rails", beats)[0].max() == pytest.approx(500)
    motion = changed("motion")[0] - SIGNAL
    assert 500 < np.count_nonzero(motion) <= 600 and 1500 < np.abs(motion).max() <= 3000
    assert np.std(changed("white noise")[0] - SIGNAL) == pytest.approx(50, rel=0.05)
    assert set(changed("quantised")[0] % 50) == {0}
    clipped = changed("clipped")[0]
    assert np.mean(clipped == clipped.max()) == pytest.approx(0.01, abs=0.005)
    np.testing.assert_array_equal(changed("middle 10 s")[0], SIGNAL[3000:6000])
    for name, factor in {"inverted": -1, "halved": 0.5, "doubled": 2, "untouched": 1}.items():
        np.testing.assert_allclose(changed(name)[0], factor * SIGNAL.astype(float))
    assert np.std(changed("high-pass 1 Hz", np.sin(2 * np.pi * 0.2 * SECONDS))[0]) < 0.05
