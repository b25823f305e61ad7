"""Which parts of a recording are left out, and what becomes of its answer."""

import numpy as np
import pytest
import scipy.signal

import beats
import quality
from synthetic import FS, recording

HEART = recording("N", 60, np.random.default_rng(0)).astype(float)


def damaged(start, stop, change):
    """HEART changed between two times in s."""
    signal = HEART.copy()
    where = slice(round(start * FS), round(stop * FS))
    signal[where] = change(signal[where])
    return signal


FAULTS = {
    "zeros": (lambda part: 0 * part, "flat"),
    "a flat line that trembles": (lambda part: np.arange(len(part)) % 2, "flat"),
    "a lead off with a little noise": (lambda part: np.random.default_rng(0).normal(0, 3, len(part)), "flat"),
    "a constant rail": (lambda part: 0 * part + 300_000, "off the scale"),
    "a lead that is off but still moves": (lambda part: 300_000 + part, "off the scale"),
    "a pop that decays": (lambda part: part + 50_000 * np.exp(-np.arange(len(part)) / 400), "off the scale"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("factor", [0.001, 1, -3])
def test_faults_are_found_at_any_gain(name, factor):
    change, what = FAULTS[name]
    long = 8 if "noise" in name else 3
    signal = factor * damaged(20, 20 + long, change)
    (fault,) = quality.faults(signal, FS)
    assert fault.what == what
    end = 6000 + long * FS
    assert 5900 <= fault.start <= 6200 and end - 600 <= fault.stop <= end + 60
    stretches = quality.stretches(signal, FS)
    assert [start for start, _ in stretches] == [0, pytest.approx(fault.stop, abs=0.4 * FS)]
    assert stretches[-1][1] == len(signal)


@pytest.mark.parametrize("rate", [100, 250, 1000])
def test_half_a_recording_of_zeros_is_left_out_at_any_rate(rate):
    signal = np.interp(np.arange(60 * rate) / rate, np.arange(len(HEART)) / FS, HEART)
    signal[20 * rate : 50 * rate] = 0
    assert quality.stretches(signal, rate) == [
        (0, pytest.approx(19.7 * rate, abs=0.2 * rate)),
        (pytest.approx(50.3 * rate, abs=0.2 * rate), 60 * rate),
    ]


def test_what_belongs_to_recordings_is_no_fault():
    seconds = np.arange(len(HEART)) / FS
    pause = damaged(30, 31.5, lambda part: 0 * part)
    others = {
        "untouched": HEART,
        "wander": HEART + 3000 * np.sin(2 * np.pi * 0.2 * seconds),
        "drift of an electrode": HEART + 300_000 * seconds / 60,
        "hum": HEART + 500 * np.sin(2 * np.pi * 50 * seconds),
        "coarse": np.round(HEART / 50) * 50,
        "pause": pause,
        "pause of 4 s": damaged(30, 34, lambda part: np.random.default_rng(0).normal(0, 3, len(part))),
        "noise": recording("~", 60, np.random.default_rng(1)),
    }
    assert {name: quality.faults(signal, FS) for name, signal in others.items()} == {name: [] for name in others}


def test_a_recording_without_a_clean_stretch_stays_whole():
    signal = HEART[: 9 * FS].copy()
    signal[4 * FS : 5 * FS] += 1e6
    assert quality.stretches(signal, FS) == []
    parts, rates, owners = quality.cut([HEART, signal, damaged(20, 26, lambda part: 0 * part)], [FS, FS, 2 * FS])
    assert owners.tolist() == [0, 1, 2, 2] and rates == [FS, FS, 2 * FS, 2 * FS]
    assert len(parts[0]) == len(HEART) and len(parts[1]) == len(signal) and len(parts[2]) < 6000 < len(parts[3])


def test_zeros_of_a_constant_recording_have_no_faults():
    assert quality.faults(np.zeros(9000), FS) in ([], [(0, 9000, "flat")])


def test_answers_are_doubted_for_what_is_wrong_with_them():
    good = {"agreement": 98.0, "QRS peakedness": 15.0, "power 20-35 Hz": -3.0}
    sure, unsure = np.array([0.1, 0.7, 0.15, 0.05]), np.array([0.1, 0.55, 0.3, 0.05])
    noise = np.array([0.05, 0.1, 0.15, 0.7])
    assert quality.doubts(sure, good, 30) == quality.doubts(unsure, good, 30) == quality.doubts(sure, good, 10) == []
    assert quality.doubts(unsure, good, 10) == ["no class reaches 0.6, with only 10 s to go by"]
    assert quality.doubts(unsure, good, 30, confidence=0.6) == ["no class reaches 0.6"]
    (few,) = quality.doubts(sure, good | {"agreement": 41.7}, 30)
    assert few == "two detectors agree on only 42 % of the beats"
    assert len(quality.doubts(sure, {}, 30)) == 3  # nothing could be measured
    assert quality.doubts(noise, {}, 30) == []


def test_what_is_no_heart_has_no_signs_of_one():
    rng = np.random.default_rng(0)
    seconds = np.arange(len(HEART)) / FS
    others = {
        "a sine": np.sin(2 * np.pi * 1.2 * seconds),
        "white noise": rng.normal(0, 1, len(HEART)),
        "a pulse wave": np.sin(2 * np.pi * 1.2 * seconds) + 0.4 * np.sin(2 * np.pi * 2.4 * seconds + 1),
        "low-passed": scipy.signal.sosfiltfilt(scipy.signal.butter(10, 12, fs=FS, output="sos"), HEART),
    }
    sure = np.array([0.0, 1.0, 0.0, 0.0])
    for name, signal in {"heart": HEART, "at 100 Hz": HEART[::3], **others}.items():
        rate = 100 if name == "at 100 Hz" else FS
        found = quality.doubts(sure, beats.typical(beats.measure(signal, rate)[None]), 60)
        assert bool(found) == (name in others), (name, found)
