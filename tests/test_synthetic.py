"""Synthetic recordings: the files follow the training2017 layout and each class has its physiology.

Everything is measured on the signal alone, with scipy, never read back from the generator.
"""

import csv
import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat
from scipy.signal import butter, detrend, find_peaks, sosfiltfilt

import synthetic

ROOT = Path(__file__).resolve().parent.parent

QRS_BAND = butter(3, [5, 30], "band", fs=300, output="sos")
NO_WANDER = butter(2, [0.7, 40], "band", fs=300, output="sos")


def r_peaks(x):
    """Samples of the R peaks (beats,) in a signal (samples,)."""
    energy = np.convolve(sosfiltfilt(QRS_BAND, x.astype(float)) ** 2, np.ones(30) / 30, "same") ** 0.5
    top = np.median([part.max() for part in np.array_split(energy, len(energy) // 400)])
    return find_peaks(energy, height=0.4 * top, distance=75)[0]


def beats(x):
    """Upright beats (beats, 255) of a signal (samples,) in units, R peak at column 105."""
    y = sosfiltfilt(NO_WANDER, x.astype(float))
    b = np.array([y[i - 105 : i + 150] for i in r_peaks(x) if 105 <= i < len(y) - 150])
    middle = np.median(b, 0)[75:135]
    return b * (1 if middle.max() > -middle.min() else -1)


def irregularity(x):
    """Median change from one RR interval to the next, over the median interval."""
    rr = np.diff(r_peaks(x))
    return np.median(np.abs(np.diff(rr))) / np.median(rr)


def qrs_width(x):
    """Samples of the average beat near R above 30 % of its largest deflection."""
    qrs = np.abs(np.median(beats(x), 0)[75:135])
    return np.sum(qrs > 0.3 * qrs.max())


@pytest.fixture(scope="module")
def signals():
    """Twelve recordings of 30 s for each class."""
    rng = np.random.default_rng(7)
    return {c: [synthetic.recording(c, 30, rng) for _ in range(12)] for c in "NAO~"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "deep" / "training"
    synthetic.write_dataset(path, count=40, seed=3)
    return path


def test_files_follow_the_layout(folder):
    names = (folder / "RECORDS").read_text().splitlines()
    assert names == [f"A{i:05d}" for i in range(1, 41)]
    rows = list(csv.reader((folder / "REFERENCE.csv").open()))
    assert [name for name, _ in rows] == names
    kinds = Counter(p.suffix for p in folder.iterdir())
    assert kinds == {".mat": 40, ".hea": 40, "": 1, ".csv": 1}
    for name in names:
        contents = {k: v for k, v in loadmat(folder / f"{name}.mat").items() if not k.startswith("__")}
        assert list(contents) == ["val"]
        x = contents["val"]
        assert x.dtype == np.int16
        assert x.shape[0] == 1
        first, second = (folder / f"{name}.hea").read_text().splitlines()
        assert first == f"{name} 1 300 {x.shape[1]}"
        assert second.startswith(f"{name}.mat 16+24 1000/mV 16 0 ")
        value, checksum, block, description = second.split()[5:]
        assert int(value) == x[0, 0]
        assert -32768 <= int(checksum) <= 32767
        assert (int(checksum) - int(x.sum(dtype=np.int64))) % 65536 == 0
        assert (block, description) == ("0", "ECG")
        # What "16+24" means to a WFDB reader: little-endian samples from byte 24 to the end.
        raw = np.frombuffer((folder / f"{name}.mat").read_bytes()[24:], "<i2")
        np.testing.assert_array_equal(raw, x[0])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (40, {"N": 18, "O": 10, "A": 7, "~": 5}),
        (100, {"N": 45, "O": 25, "A": 18, "~": 12}),
        (20, {"N": 5, "O": 5, "A": 5, "~": 5}),
        (1, {"N": 1}),
    ],
)
def test_class_counts(tmp_path, monkeypatch, count, expected):
    monkeypatch.setattr(synthetic, "recording", lambda label, seconds, rng: np.zeros(3, np.int16))
    synthetic.write_dataset(tmp_path, count)
    labels = [label for _, label in csv.reader((tmp_path / "REFERENCE.csv").open())]
    assert Counter(labels) == expected
    assert count == 1 or labels != sorted(labels, key="OA~N".index)


def test_lengths_are_those_of_the_real_set(tmp_path, monkeypatch):
    lengths = {c: [] for c in "NAO~"}

    def note(label, seconds, rng):
        lengths[label].append(round(seconds * 300))
        return np.zeros(3, np.int16)

    monkeypatch.setattr(synthetic, "recording", note)
    synthetic.write_dataset(tmp_path, 600)
    noisy = np.array(lengths["~"])
    other = np.array(lengths["N"] + lengths["A"] + lengths["O"])
    assert other.min() >= 2714
    assert other.max() <= 18286
    assert 0.62 < np.mean(other == 9000) < 0.78
    assert 0.05 < np.mean(other < 9000) < 0.16
    assert 0.3 < np.mean(noisy < 9000) < 0.65


def test_a_seed_fixes_every_byte(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic.write_dataset(tmp_path / name, 6, seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "abc")
    assert a == b
    assert a["A00001.mat"] != c["A00001.mat"]


@pytest.mark.parametrize("label", "NAO~")
@pytest.mark.parametrize("seconds", [1 / 300, 9.05, 60.95])
def test_recording_has_the_length_asked_for(label, seconds):
    x = synthetic.recording(label, seconds, np.random.default_rng(0))
    assert x.dtype == np.int16
    assert x.shape == (round(seconds * 300),)


@pytest.mark.parametrize(("label", "seconds"), [("X", 30), ("", 30), ("N", 0), ("N", -1), ("A", 0.001), ("O", np.nan)])
def test_bad_arguments_are_refused(label, seconds):
    with pytest.raises(ValueError, match=r"unknown label|at least one sample"):
        synthetic.recording(label, seconds, np.random.default_rng(0))


def test_bad_count_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="count"):
        synthetic.write_dataset(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_sizes_are_those_of_real_recordings(signals):
    size = np.array([np.ptp(np.median(beats(x), 0)) for c in "NAO" for x in signals[c]]) / 1000
    assert 0.6 < np.median(size) < 1.5
    assert size.min() > 0.2
    assert size.max() < 3


def test_about_a_third_is_inverted():
    rng = np.random.default_rng(1)
    middles = []
    for _ in range(60):
        y = sosfiltfilt(NO_WANDER, synthetic.recording("N", 10, rng).astype(float))
        middles.append(np.percentile(y, 99.8) + np.percentile(y, 0.2))
    assert 0.15 < np.mean(np.array(middles) < 0) < 0.5


def test_normal_rhythm_is_regular_and_of_normal_rate(signals):
    assert np.quantile([irregularity(x) for x in signals["N"]], 0.9) < 0.08
    rates = [60 * 300 / np.median(np.diff(r_peaks(x))) for x in signals["N"]]
    assert np.quantile(rates, 0.1) > 50
    assert np.quantile(rates, 0.8) < 100


def test_fibrillation_is_irregular_and_fast(signals):
    assert np.quantile([irregularity(x) for x in signals["A"]], 0.1) > 0.1
    rates = [60 * len(r_peaks(x)) / 30 for x in signals["A"]]
    assert 80 < np.median(rates) < 130


def test_p_wave_before_normal_beats_only(signals):
    def p_wave(x):
        b = np.median(beats(x), 0)
        # Height above the line between the two ends of the window in which a P wave lies.
        return detrend(b[45:85])[8:32].max() / np.ptp(b)

    normal, fibrillation = ([p_wave(x) for x in signals[c]] for c in "NA")
    assert np.median(normal) > 0.04
    assert np.median(normal) > 2 * np.median(fibrillation)


@pytest.mark.parametrize(("kind", "present"), [("fibrillation", True), ("sinus", False)])
def test_fibrillatory_waves_lie_at_4_to_9_hz(kind, present):
    spectra, peaks = [], []
    for seed in range(12):
        # A beat every two seconds leaves long stretches without P, QRS or T.
        x = synthetic.heart(kind, 30, 9000, np.random.default_rng(seed)) * 1000
        gaps = [(i, j) for i, j in zip(r_peaks(x)[:-1], r_peaks(x)[1:], strict=True) if j - i > 450]
        rest = np.array([detrend(x[j - 250 : j - 90]) for _, j in gaps])
        spectra.append(np.mean(np.abs(np.fft.rfft(rest * np.hanning(160), 600)) ** 2, 0) ** 0.5)
        peaks.append(np.argmax(spectra[-1]) / 2)
    if present:
        assert np.mean([3.5 <= p <= 9.5 for p in peaks]) > 0.9
        assert np.ptp(peaks) > 1  # patients differ
        assert np.min(np.max(spectra, 1)) > 200
    else:
        assert np.max(spectra) < 200


def test_waves_between_beats_are_stronger_in_fibrillation(signals):
    def rest(x):
        y, r = sosfiltfilt(NO_WANDER, x.astype(float)), r_peaks(x)
        parts = [y[j - 125 : j - 75] for i, j in itertools.pairwise(r) if j - i > 230]
        return [detrend(p).std() for p in parts]

    fibrillation, normal = (np.concatenate([rest(x) for x in signals[c]]) for c in "AN")
    assert min(len(fibrillation), len(normal)) > 30
    assert np.median(fibrillation) > 1.2 * np.median(normal)


def test_other_rhythms_are_abnormal_and_normal_ones_are_not(signals):
    def abnormal(x):
        rr = np.diff(r_peaks(x))
        rate = 60 * 300 / np.median(rr)
        premature = np.mean(rr < 0.8 * np.median(rr))
        return rate < 50 or rate > 110 or premature > 0.08 or qrs_width(x) > 18

    assert np.mean([abnormal(x) for x in signals["O"]]) > 0.9
    assert np.mean([abnormal(x) for x in signals["N"]]) < 0.1


@pytest.mark.parametrize("kind", [k for k, _, _ in synthetic.OTHER])
def test_each_other_rhythm_has_its_sign(kind, monkeypatch):
    monkeypatch.setattr(synthetic, "OTHER", [o for o in synthetic.OTHER if o[0] == kind])
    rng = np.random.default_rng(5)
    found = []
    for _ in range(6):
        x = synthetic.recording("O", 30, rng)
        rr = np.diff(r_peaks(x))
        rr = rr / np.median(rr)
        pause = rr[1:][rr[:-1] < 0.8]  # after a premature beat
        signs = {
            "bradycardia": 60 * len(r_peaks(x)) / 30 < 52,
            "tachycardia": 60 * len(r_peaks(x)) / 30 > 108,
            "block": qrs_width(x) > 18,
            "ventricular": len(pause) >= 2 and np.median(pause) > 1.2,
            "atrial": len(pause) >= 2 and np.median(pause) < 1.2,
        }
        found.append(signs[kind])
    assert np.mean(found) > 0.8


def test_ventricular_beats_are_wide_and_unlike_the_others(monkeypatch):
    monkeypatch.setattr(synthetic, "OTHER", [o for o in synthetic.OTHER if o[0] == "ventricular"])
    x = synthetic.recording("O", 60, np.random.default_rng(2))
    likeness = np.corrcoef(beats(x))  # (beats, beats)
    assert np.mean(np.median(likeness, 1) < 0.6) > 0.08
    assert np.mean(np.median(likeness, 1) > 0.8) > 0.6


def test_noise_hides_the_heartbeat(signals):
    def likeness(x):
        b = beats(x)
        return np.median([np.corrcoef(one, np.median(b, 0))[0, 1] for one in b])

    assert np.median([likeness(x) for x in signals["N"]]) > 0.85
    assert np.quantile([likeness(x) for x in signals["~"]], 0.9) < 0.7
    assert np.median([x.std() for x in signals["~"]]) > 1.4 * np.median([x.std() for x in signals["N"]])


def test_some_noise_has_flat_stretches(signals):
    def flat(x):
        return (np.ptp(x[: len(x) // 75 * 75].reshape(-1, 75), 1) < 12).any()

    assert 0 < sum(flat(x) for x in signals["~"]) < 12


def test_recorder_passes_little_below_half_a_hertz_or_above_60(signals):
    power = np.mean([np.abs(np.fft.rfft(x)) ** 2 for c in "NAO~" for x in signals[c]], 0)  # 30 bins a Hz
    assert power[60 * 30 :].sum() < 0.0006 * power.sum()
    assert power[:6].sum() < 0.2 * power[15:30].sum()


def test_command_line(tmp_path):
    command = [sys.executable, str(ROOT / "synthetic.py"), str(tmp_path / "x"), "--count", "3", "--seed", "9"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"wrote 3 recordings, RECORDS and REFERENCE.csv to {tmp_path / 'x'}\n"
    synthetic.write_dataset(tmp_path / "y", 3, 9)
    for name in ("A00003.mat", "REFERENCE.csv"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
