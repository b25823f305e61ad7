"""Recordings as other devices, electrodes and people would have made them, and what a model makes of them.

Signals are in 1/1000 mV, as the challenge's recordings are.
"""

import functools

import numpy as np
import scipy.signal

import dataset
import preprocessing


def _filtered(signal, rate, rng, kind, hertz, order):
    if hertz >= rate / 2:  # what is slower has nothing there
        return signal, rate
    return scipy.signal.sosfiltfilt(scipy.signal.butter(order, hertz, kind, fs=rate, output="sos"), signal), rate


def _sampled(signal, rate, rng, to):
    return preprocessing.resample(signal - signal.mean(), rate, to), to


def _wave(signal, rate, rng, hertz, height):
    """`signal` with a sine of a frequency between those of `hertz`, if it has such ones, and a random phase."""
    if hertz[1] >= rate / 2:
        return signal, rate
    turns = rng.uniform(*hertz) * np.arange(len(signal)) / rate + rng.uniform()
    return signal + height * np.sin(2 * np.pi * turns), rate


def _offset(signal, rate, rng, seconds, height):
    """`signal` with `height` added for so many seconds."""
    begin, length = _stretch(signal, rate, rng, seconds)
    moved = signal.copy()
    moved[begin : begin + length] += height
    return moved, rate


def _silent(signal, rate, rng, share):
    """`signal` with zeros for a share of its time."""
    begin, length = _stretch(signal, rate, rng, share * len(signal) / rate)
    silent = signal.copy()
    silent[begin : begin + length] = 0
    return silent, rate


def _railed(signal, rate, rng):
    """`signal` between rails that its R waves reach half over."""
    middle = np.median(signal)
    rail = np.quantile(np.abs(signal - middle), 0.995) / 2
    return np.clip(signal, middle - rail, middle + rail), rate


def _motion(signal, rate, rng):
    begin, length = _stretch(signal, rate, rng, 2)
    moved = signal.copy()
    moved[begin : begin + length] += _wave(np.zeros(length), rate, rng, (0.5, 3), 3000)[0] * np.hanning(length)
    return moved, rate


def _stretch(signal, rate, rng, seconds):
    """First sample and length of a random stretch of so many seconds, shorter where the signal ends."""
    length = min(round(seconds * rate), len(signal))
    return rng.integers(len(signal) - length + 1), length


def _middle(signal, rate, rng):
    length = min(round(10 * rate), len(signal))
    begin = (len(signal) - length) // 2
    return signal[begin : begin + length], rate


# Each: (signal (samples,), rate in Hz, generator) → (signal, rate).
CHANGES = {
    "untouched": lambda signal, rate, rng: (signal, rate),
    **{
        f"low-pass {hertz} Hz": functools.partial(_filtered, kind="lowpass", hertz=hertz, order=4)
        for hertz in (60, 40, 30)
    },
    **{
        f"steep low-pass {hertz} Hz": functools.partial(_filtered, kind="lowpass", hertz=hertz, order=10)
        for hertz in (40, 25)
    },
    **{
        f"sampled at {hertz} Hz": functools.partial(_sampled, to=hertz)
        for hertz in (50, 64, 100, 125, 200, 500, 1000, 2000)
    },
    **{f"hum {hertz} Hz": functools.partial(_wave, hertz=(hertz, hertz), height=100) for hertz in (50, 60)},
    **{f"hum {mv} mV": functools.partial(_wave, hertz=(50, 50), height=1000 * mv) for mv in (0.02, 0.05, 0.2, 0.5)},
    "pop": functools.partial(_offset, seconds=1, height=20_000),
    "lead off": functools.partial(_offset, seconds=2, height=300_000),
    "motion": _motion,  # 3 mV for 2 s
    "half silent": functools.partial(_silent, share=0.5),
    "rails": _railed,
    **{f"wander {mv} mV": functools.partial(_wave, hertz=(0.15, 0.35), height=1000 * mv) for mv in (1, 2)},
    "white noise": lambda signal, rate, rng: (signal + rng.normal(0, 50, len(signal)), rate),
    "quantised": lambda signal, rate, rng: (np.round(signal / 50) * 50, rate),
    "clipped": lambda signal, rate, rng: (np.clip(signal, *np.quantile(signal, (0.01, 0.99))), rate),
    "middle 10 s": _middle,
    "inverted": lambda signal, rate, rng: (-signal, rate),
    "halved": lambda signal, rate, rng: (signal / 2, rate),
    "doubled": lambda signal, rate, rng: (signal * 2, rate),
    "high-pass 1 Hz": functools.partial(_filtered, kind="highpass", hertz=1, order=2),
}


def change(name, signals, sampling_rates):
    """Recordings changed as `CHANGES` has it under `name`: [(samples,)], [Hz]; their places decide what is drawn."""
    changed = [
        CHANGES[name](np.asarray(signal, np.float64), rate, np.random.default_rng((7, place)))
        for place, (signal, rate) in enumerate(zip(signals, sampling_rates, strict=True))
    ]
    return [signal for signal, _ in changed], [rate for _, rate in changed]


def measure(models, table):
    """Yield, for each of the `CHANGES`, (its name, {members: scores} of `models` on the changed recordings of `table`).

    scores: both averages of F1, accuracy, mean confidence, the share of recordings whose class has changed, the share
    that is marked as uncertain, and the share of wrong classes among the others.
    """
    import beats
    import members
    import quality
    import scoring

    true, before = dataset.labels(table), {}
    for name in CHANGES:
        row, changed = {}, change(name, table.signal, table.sampling_rate)
        measured = members.measure(*changed)
        values = [beats.typical(measured.rows[measured.owners == place]) for place in range(len(table))]
        usable = [quality.seconds(*pair) for pair in zip(*changed, strict=True)]
        for some, probabilities in members.voices(models, *changed, measured=measured).items():
            sure = [not quality.doubts(*answer) for answer in zip(probabilities, values, usable, strict=True)]
            chosen = probabilities.argmax(1)
            matrix = scoring.confusion_matrix(true, chosen)
            row[some] = {
                "avg_F1_score": float(scoring.average_f1(matrix)),
                "challenge_F1": float(scoring.challenge_f1(matrix)),
                "accuracy": float(np.mean(chosen == true)),
                "confidence": float(probabilities.max(1).mean()),
                "changed_decisions": float(np.mean(chosen != before.setdefault(some, chosen))),
                "uncertain": float(1 - np.mean(sure)),
                "wrong_of_certain": float(np.mean((chosen != true)[sure])) if any(sure) else None,
            }
        yield name, row
