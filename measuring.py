"""Many recordings → what `beats` measures of each and what `rhythm` sees of its beats, kept on disk."""

import inspect
from collections import defaultdict, namedtuple
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np

import beats
import preprocessing
import rhythm
from shell import progress, read_arrays, write_arrays

KEPT = Path("data/beats")
LONGEST = 61  # s, of what is measured as one: no recording of the challenge is longer

# rows: the `beats.MEASUREMENTS` of windows of recordings, float32 (windows, measurements); sequences: what
# `rhythm.describe` makes of each window, [(beats, features)]; owners: the recording of each window, (windows,).
Measured = namedtuple("Measured", "rows sequences owners")


def measure(signal, sampling_rate):
    """(`beats.MEASUREMENTS`, what `rhythm.describe` makes) of `signal` (samples,) at `sampling_rate` in Hz."""
    conditioned = beats.condition(signal, sampling_rate)
    peaks = beats.detect(conditioned)
    return beats.measured(conditioned, peaks), rhythm.describe(conditioned, peaks)


def windows(signals, sampling_rates):
    """Recordings cut into as few windows of at most `LONGEST` seconds as cover them, evenly spaced.

    Returns [((samples,), sampling rate)] and the recording of each, (windows,).
    """
    cut, owners = [], []
    for owner, (signal, rate) in enumerate(zip(signals, sampling_rates, strict=True)):
        size = round(LONGEST * rate)
        for start in np.linspace(0, max(len(signal) - size, 0), max(-(-len(signal) // size), 1)).astype(int):
            cut.append((signal[start : start + size], rate))
            owners.append(owner)
    return cut, np.array(owners, int)


def measure_all(signals, sampling_rates, keep=True):
    """The `Measured` form of many recordings.

    signals: [(samples,)]; sampling_rates: Hz. keep: draw a progress bar, use all cores, and keep what is measured in
    `KEPT`, in 16 files, so that an interrupted call continues and no recording is measured twice.
    """
    pairs, owners = windows(signals, sampling_rates)
    if not keep:
        return _together([measure(*pair) for pair in pairs], owners)
    import joblib

    made_by = sha256(b"".join(Path(module.__file__).read_bytes() for module in (beats, rhythm)))
    for needed in (preprocessing.resample, preprocessing.small_ratio):
        made_by.update(inspect.getsource(needed).encode())
    made_by.update(" ".join(map(version, beats.PACKAGES)).encode())
    keys = [sha256(f"{signal.dtype} {rate} ".encode() + signal.tobytes()).hexdigest() for signal, rate in pairs]
    files = defaultdict(list)
    for place, key in enumerate(keys):
        files[KEPT / made_by.hexdigest()[:16] / f"{key[0]}.npz"].append(place)
    found = {}
    with progress(len(keys), "measuring heartbeats", "recording") as bar:
        for path, places in files.items():
            known = _read(path)
            new = [place for place in places if keys[place] not in known]
            if new:
                cores = -1 if len(new) > 20 else 1  # other processes take seconds to start
                made = joblib.Parallel(cores)(joblib.delayed(measure)(*pairs[place]) for place in new)
                known |= zip([keys[place] for place in new], made, strict=True)
                _write(path, known)
            found |= {place: known[keys[place]] for place in places}
            bar.update(len(places))
    return _together([found[place] for place in range(len(keys))], owners)


def _together(made, owners):
    rows, sequences = zip(*made, strict=True) if made else ((), ())
    return Measured(np.reshape(np.array(rows, np.float32), (-1, len(beats.MEASUREMENTS))), list(sequences), owners)


def _write(path, known):
    """Keep `known`, {key: (row, sequence)}, in the file `path`."""
    rows, sequences = zip(*known.values(), strict=True)
    lengths = [len(sequence) for sequence in sequences]
    write_arrays(path, keys=list(known), rows=np.array(rows), lengths=lengths, sequences=np.concatenate(sequences))


def _read(path):
    """{key: (row, sequence)} of the file `path`, empty where there is none that `_write` wrote."""
    kept = read_arrays(path, _are_measurements)
    if not kept:
        return {}
    sequences = np.split(kept["sequences"], np.cumsum(kept["lengths"])[:-1])
    return dict(zip(kept["keys"].tolist(), zip(kept["rows"], sequences, strict=True), strict=True))


def _are_measurements(arrays):
    keys, rows, lengths, sequences = (arrays[name] for name in ("keys", "rows", "lengths", "sequences"))
    return (
        keys.dtype.kind == "U"
        and rows.dtype == np.float32
        and rows.shape == (len(keys), len(beats.MEASUREMENTS))
        and lengths.shape == (len(keys),)
        and (lengths >= 0).all()
        and sequences.dtype == np.float16
        and sequences.shape == (lengths.sum(), len(rhythm.FEATURES))
    )
