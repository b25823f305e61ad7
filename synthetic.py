"""Write synthetic recordings in the layout of training2017, for demonstrations and tests without real data.

    python synthetic.py data/synthetic --count 40

Each wave of a beat is a Gaussian, after McSharry et al. 2003, "A dynamical model for generating synthetic
electrocardiogram signals", IEEE TBME 50(3). Noise, filter and sizes were set by eye and by spectrum against
the recordings of the PhysioNet/CinC Challenge 2017. Scores on these recordings say nothing about real ones.
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from shell import UserError, make_folders, parser, run_script

FS = 300  # samples per second
UNITS = 1000  # integer units per mV
# More A and ~ than in the real set, so that a small set still has a few of each.
SHARES = {"N": 0.45, "O": 0.25, "A": 0.18, "~": 0.12}
# Beats per minute of each kind of heart.
USUAL = {"N": ("sinus", 55, 95), "A": ("fibrillation", 80, 130), "~": ("sinus", 55, 95)}
OTHER = [
    ("ventricular", 60, 90),
    ("atrial", 60, 90),
    ("bradycardia", 38, 48),
    ("tachycardia", 113, 140),
    ("block", 55, 90),
]
P, Q, R, S, ST, T = range(6)


def rhythm(kind, mean, seconds, rng):
    """Times of the R peaks (beats,) in s, intervals before them (beats,) in s, which are ectopic (beats,).

    mean is the mean interval in s. Sinus intervals follow breathing at 0.2 to 0.33 Hz and a slower wave near
    0.1 Hz; those of fibrillation are independent and log-normal, at least 0.3 s.
    """
    count = int(1.5 * seconds / mean) + 6
    ectopic = np.zeros(count, bool)
    if kind == "fibrillation":
        rr = np.maximum(mean * rng.lognormal(0, rng.uniform(0.18, 0.3), count), 0.3)
    else:
        breath = 2 * np.pi * rng.uniform(0.2, 0.33) * mean * np.arange(count)
        deep, slow = rng.uniform(0.005, 0.05, 2)
        rr = 1 + deep * np.sin(breath) + slow * np.sin(breath / 3) + 0.008 * rng.standard_normal(count)
        rr *= mean
    if kind in ("ventricular", "atrial"):
        at = np.cumsum(rng.integers(3, 8, count))
        at = at[at < count - 1]
        early = rng.uniform(0.55, 0.7)
        ectopic[at] = True
        rr[at] *= early
        # A ventricular beat leaves the sinus clock running, so the pause makes up; an atrial one resets it.
        rr[at + 1] *= 2 - early if kind == "ventricular" else 1.1
    return np.cumsum(rr) - rng.uniform(0, 1), rr, ectopic


def heart(kind, rate, samples, rng):
    """Clean signal (samples,) in mV of a random patient with a kind of heart beating rate times a minute."""
    times, rr, ectopic = rhythm(kind, 60 / rate, samples / FS, rng)
    size = rng.uniform(0.45, 1.25)
    amp = size * np.array([0.11, -0.08, 1, -0.18, 0, 0.25]) * rng.lognormal(0, [0.25, 0.6, 0.1, 0.6, 0, 0.4])
    amp[ST] = 0.05 * size * rng.standard_normal()
    width = np.array([0.022, 0.008, 0.0115, 0.009, 0.045, 0.04]) * rng.uniform(0.75, 1.15, 6)
    centre = np.array([-0.15, -0.026, 0, 0.027, 0.11, 0.27]) * rng.uniform(0.9, 1.1)
    if kind == "block":  # of a bundle branch, often with a long PR interval
        width[Q:ST] *= rng.uniform(1.8, 2.3)
        centre[Q:ST] *= 2
        centre[P] = -rng.uniform(0.17, 0.28)
        amp[S:] *= [2, 1, -1]
    elif kind == "fibrillation":
        amp[P] = 0
        amp[T] *= 0.6
    amp, width, centre = (np.tile(a, (len(times), 1)) for a in (amp, width, centre))
    centre[:, T] *= np.sqrt(np.clip(rr, 0.4, 1.2))  # QT follows the root of the interval (Bazett 1920)
    if kind == "ventricular":
        amp[ectopic] = size * rng.choice([-1, 1]) * np.array([0, 0, 1.3, -0.4, 0, -0.5])
        width[ectopic] *= [1, 1, 2.7, 3.5, 1, 1.5]
        centre[ectopic] *= [1, 1, 1, 3, 1, 1.2]
    elif kind == "atrial":
        amp[ectopic, P] *= rng.choice([-1, 0.5])
        centre[ectopic, P] *= 0.75
    amp *= 1 + 0.08 * np.sin(1.6 * times)[:, None] + 0.05 * rng.standard_normal(amp.shape)
    # A third of a second either side is enough: beyond it every wave is below one unit.
    middle = times[:, None] + centre
    at = np.rint(middle * FS).astype(int)[..., None] + np.arange(-100, 101)
    away = at / FS - middle[..., None]
    lean = np.where((away < 0) & (np.arange(6) == T)[:, None], 1.4, 1)  # T rises slower than it falls
    wave = amp[..., None] * np.exp(-0.5 * (away / (lean * width[..., None])) ** 2)
    inside = (at >= 0) & (at < samples)
    signal = np.bincount(at[inside], wave[inside], samples)
    if kind == "fibrillation":
        hertz = np.clip(rng.uniform(4.5, 8.5) + 0.7 * drift(samples, rng), 4, 9)
        phase = 2 * np.pi * np.cumsum(hertz) / FS
        level = rng.uniform(0.02, 0.05) * np.exp(0.5 * drift(samples, rng))
        signal += level * (np.sin(phase) + 0.3 * np.sin(2 * phase))
    return signal * rng.choice([1, -1], p=[0.7, 0.3])


def drift(samples, rng):
    """Slow random curve (samples,), without unit: one standard normal value a second, joined by lines."""
    knots = samples // FS + 2
    return np.interp(np.arange(samples) / FS, np.arange(knots), rng.standard_normal(knots))


def noise(samples, low, slope, burst, rng):
    """Noise (samples,) of about unit deviation, its amplitude falling as frequency**-slope from low, in Hz.

    burst is the deviation of the logarithm of its loudness, which drifts.
    """
    f = np.fft.rfftfreq(samples, 1 / FS)
    gain = np.where(f >= low, np.maximum(f, low) ** -slope, 0)
    x = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * gain, samples)
    return x / x.std() * np.exp(burst * drift(samples, rng))


def spoil(signal, rng):
    """A signal (samples,) in mV drowned in motion, muscle noise and electrode pops, and saturated."""
    n = len(signal)
    signal = rng.uniform(0, 0.5) * signal
    signal += rng.uniform(0.1, 0.35) * noise(n, 0.6, 1.5, 0.8, rng)
    signal += rng.uniform(0.02, 0.12) * noise(n, 4, 1, 0.8, rng)
    steps = np.zeros(n)
    for first in rng.integers(0, n, rng.poisson(n / FS / 8)):
        steps[first : first + rng.integers(FS // 20, FS)] += rng.normal(0, 1.5)
    return np.clip(signal + steps, -rng.uniform(1, 4), rng.uniform(1, 4))


def recording(label, seconds, rng):
    """Synthetic recording of class N, A, O or ~: int16 (samples,), 1000 units per mV, 300 Hz."""
    if label not in SHARES:
        raise ValueError(f"unknown label {label!r}, expected one of {', '.join(SHARES)}")
    if not seconds * FS >= 1:
        raise ValueError(f"a recording needs at least one sample, got {seconds} s")
    samples = round(seconds * FS)
    n = samples + 3 * FS  # the filter below joins the ends, so both are made too long and cut off
    kind, slowest, fastest = OTHER[rng.integers(len(OTHER))] if label == "O" else USUAL[label]
    signal = heart(kind, rng.uniform(slowest, fastest), n, rng)
    if label == "~":
        signal = spoil(signal, rng)
    else:
        signal += rng.lognormal(np.log(0.07), 0.7) * noise(n, 0.2, 1.5, 0.8, rng)
        signal += rng.lognormal(np.log(0.014), 0.5) * noise(n, 4, 1.3, 0.7, rng)
    # The recorder passes about 0.4 to 40 Hz; with one pole below, jumps decay as they do in real recordings.
    f = np.fft.rfftfreq(n, 1 / FS)
    gain = 1j * f / (1j * f + 0.4) / np.sqrt(1 + (f / 36) ** 7)
    signal = np.fft.irfft(np.fft.rfft(signal) * gain, n)[2 * FS :][:samples]
    if label == "~" and rng.random() < 0.3:
        first = rng.integers(0, samples)
        signal[first : first + rng.integers(FS // 2, 3 * FS)] = 0  # electrode off
    signal += 0.001 * rng.standard_normal(samples)
    return np.clip(np.rint(signal * UNITS), -32768, 32767).astype(np.int16)


def write_dataset(folder, count=200, seed=42):
    """Write count recordings, their headers, RECORDS and REFERENCE.csv into folder, fixed by seed."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    rng = np.random.default_rng(seed)
    least = 5 if count >= 20 else 0
    labels = [c for c in "OA~" for _ in range(max(least, round(SHARES[c] * count)))]
    labels = rng.permutation(labels + ["N"] * (count - len(labels))).tolist()
    names = [f"A{i:05d}" for i in range(1, count + 1)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in zip(names, labels, strict=True):
        # As in the real set: mostly 30 s, and half of ~ cut short.
        share = [0.48, 0.45, 0.07] if label == "~" else [0.1, 0.7, 0.2]
        seconds = rng.choice([rng.uniform(9.05, 29.9), 30, rng.uniform(31, 60.95)], p=share)
        write_recording(folder, name, recording(label, seconds, rng))
    (folder / "RECORDS").write_text("".join(f"{name}\n" for name in names))
    rows = (f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    (folder / "REFERENCE.csv").write_text("".join(rows))


def write_recording(folder, name, signal):
    """Write `signal`, int16 (samples,), 1000 units per mV at 300 Hz, and its header into a folder."""
    # Version 4 has the 24 header bytes that "16+24" announces, and no date, which would differ each time.
    savemat(folder / f"{name}.mat", {"val": signal[None]}, format="4")
    described = f"{name}.mat 16+24 {UNITS}/mV 16 0 {signal[0]} {signal.sum(dtype=np.int16)} 0 ECG"
    (folder / f"{name}.hea").write_text(f"{name} 1 {FS} {len(signal)}\n{described}\n")


def main():
    flags = parser(__doc__)
    flags.add_argument("folder", type=Path, help="where to write, created if missing")
    flags.add_argument("--count", type=int, default=200, metavar="N", help="number of recordings")
    flags.add_argument("--seed", type=int, default=42, metavar="N", help="seed of the random draws")
    arguments = flags.parse_args()
    if arguments.count < 1:
        flags.error("--count must be at least 1")
    if (arguments.folder / "RECORDS").exists():
        raise UserError(f"{arguments.folder} has recordings already; name another folder, or delete it")
    make_folders(arguments.folder)
    write_dataset(arguments.folder, arguments.count, arguments.seed)
    print(f"wrote {arguments.count} recordings, RECORDS and REFERENCE.csv to {arguments.folder}")


if __name__ == "__main__":
    run_script(main)
