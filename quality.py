"""What of a recording can be trusted: parts that hold no ECG are left out, and doubts about the rest have a name."""

from collections import namedtuple

import numpy as np
import scipy.ndimage

from recipes import CLASSES

BLOCK = 0.1  # s, of what is found to be flat or off the scale
FLAT_SECONDS = 2  # the shortest flat part that is left out: a heart may pause, but its recording moves
FLAT = 0.002  # of the usual range, below which a block is flat
QUIET_SECONDS, QUIET = 6, 0.05  # the same of noise without beats, as of a lead that fell off: no heart pauses so long
OFF = 10  # usual ranges from the baseline, beyond which no heart reaches
MARGIN = 0.3  # s around a part that is left out, where the recorder settles
LEAST_SECONDS = 5  # the shortest part that is classified
CONFIDENCE = 0.5  # the probability below which no class is sure
SHORT_SECONDS, SHORT_CONFIDENCE = 15, 0.6  # the same of recordings that are shorter
# What heartbeats show for any class but noise: measurement of `beats.py`, the least of it, what is said of less. No
# recording of the challenge's other classes has less of the last two, and one in two hundred of the first.
SIGNS = (
    ("agreement", 60, "two detectors agree on only {:.0f} % of the beats"),
    ("QRS peakedness", 5, "no sharp beats stand out"),
    ("power 20-35 Hz", -7, "hardly anything is left of it above 20 Hz, where sharp beats show"),
)

# start and stop: samples; what: flat or off the scale.
Fault = namedtuple("Fault", "start stop what")


def faults(signal, sampling_rate):
    """The `Fault`s of `signal` (samples,) at `sampling_rate` in Hz, in order: where it holds no ECG.

    A lead that fell off leaves a flat line, a little noise, a rail of the amplifier or a jump; what moves less than a
    five-hundredth of what the recording usually does, or for long less than a twentieth, or lies ten times its range
    from the baseline, is none of the heart.
    """
    size = max(round(BLOCK * sampling_rate), 1)
    count = len(signal) // size
    if count < LEAST_SECONDS / BLOCK:
        return []
    blocks = np.asarray(signal[: count * size]).reshape(count, size)
    high, low = blocks.max(1).astype(np.float64), blocks.min(1).astype(np.float64)
    levels = np.concatenate([np.median(some, axis=1) for some in np.array_split(blocks, count // 10_000 + 1)])
    usual = _usual_range(high, low)
    baseline = scipy.ndimage.median_filter(levels, round(8 / BLOCK) + 1, mode="nearest")
    off = np.abs(levels - baseline) > OFF * usual
    jumps = np.abs(np.diff(levels)) > OFF * usual
    off[1:] |= jumps
    off[:-1] |= jumps
    flat = _long(high - low <= FLAT * usual, FLAT_SECONDS) | _long(_reach(high, low) <= QUIET * usual, QUIET_SECONDS)
    found = [Fault(start * size, stop * size, "off the scale") for start, stop in runs(off)]
    for start, stop in runs(flat & ~off):
        found.append(Fault(start * size, len(signal) if stop == count else stop * size, "flat"))
    return sorted(found)


def _reach(high, low):
    """The range over a second around each of some blocks, of which the highs and lows (blocks,) are known."""
    around = round(1 / BLOCK)
    highest = scipy.ndimage.maximum_filter1d(high, around, mode="nearest")
    return highest - scipy.ndimage.minimum_filter1d(low, around, mode="nearest")


def _long(where, seconds):
    """`where` (blocks,), of which only runs of so many seconds are left."""
    left = np.zeros(len(where), bool)
    for start, stop in runs(where):
        left[start:stop] = stop - start >= seconds / BLOCK
    return left


def _usual_range(high, low):
    """The usual range of a recording over a beat or two, of which the highs and lows of its blocks (blocks,) are known.

    The median of what moves; so a lead that was off for up to two thirds of the time does not change it.
    """
    beats = round(1.5 / BLOCK)
    whole = len(high) // beats * beats
    ranges = high[:whole].reshape(-1, beats).max(1) - low[:whole].reshape(-1, beats).min(1)
    moving = ranges[ranges > 0]
    if not len(moving):
        return 0.0
    return np.median(moving[moving > 0.02 * np.quantile(moving, 0.75)])


def runs(where):
    """[(start, stop)] of the runs of True in `where` (n,)."""
    edges = np.flatnonzero(np.diff(np.r_[False, where, False]))
    return list(zip(edges[::2], edges[1::2], strict=True))


def stretches(signal, sampling_rate):
    """[(start, stop)] in samples of what lies between the `faults` of `signal` (samples,) and lasts long enough."""
    return between(faults(signal, sampling_rate), len(signal), sampling_rate)


def between(known, samples, sampling_rate):
    """The `stretches` of a recording of so many samples, of which the `Fault`s are `known`."""
    margin, least = round(MARGIN * sampling_rate), LEAST_SECONDS * sampling_rate
    begin, found = 0, []
    for fault in known:
        found.append((begin, fault.start - margin))
        begin = max(begin, fault.stop + margin)
    if not found:
        return [(0, samples)]
    return [(start, stop) for start, stop in [*found, (begin, samples)] if stop - start >= least]


def parts(signal, sampling_rate):
    """The `stretches` of `signal` (samples,) at `sampling_rate` in Hz, or all of it where there is none."""
    return stretches(signal, sampling_rate) or [(0, len(signal))]


def cut(signals, sampling_rates):
    """Recordings, [(samples,)], cut into their `parts`: [(samples,)], their rates in Hz, and the recording of each.

    sampling_rates: Hz.
    """
    pieces, rates, owners = [], [], []
    for owner, (signal, rate) in enumerate(zip(signals, sampling_rates, strict=True)):
        for start, stop in parts(signal, rate):
            pieces.append(signal[start:stop])
            rates.append(rate)
            owners.append(owner)
    return pieces, rates, np.array(owners, int)


def seconds(signal, sampling_rate):
    """How long the `stretches` of `signal` (samples,) at `sampling_rate` in Hz last, in s."""
    return sum(stop - start for start, stop in stretches(signal, sampling_rate)) / sampling_rate


def doubts(probabilities, values, usable, confidence=CONFIDENCE):
    """Why an answer cannot be trusted, a list of parts of a sentence; empty where it can.

    probabilities: (4,) of the answer; values: what `beats.typical` says of the recording; usable: `seconds` of it.
    """
    found, highest = [], probabilities.max()
    if highest < confidence:
        found.append(f"no class reaches {confidence:g}")
    elif usable < SHORT_SECONDS and highest < SHORT_CONFIDENCE:
        found.append(f"no class reaches {SHORT_CONFIDENCE:g}, with only {usable:.0f} s to go by")
    if CLASSES[probabilities.argmax()] != "~":
        found += [words.format(values.get(name, 0)) for name, least, words in SIGNS if values.get(name, -99) < least]
    return found
