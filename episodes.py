"""A recording → windows of 30 s → the class of each → the episodes of fibrillation among them."""

from collections import namedtuple

import numpy as np
import scipy.ndimage

import beats
import members
import preprocessing
import quality
from recipes import CLASSES

WINDOW = 30  # s: as long as most of the challenge's recordings, which members have learned from
LEAST = 10  # s: a shorter rest at the end belongs to the window before it
CHUNK = 64  # windows that are in memory, with their images, at a time
LEAST_SHARE = 0.8  # of the windows, that one class must have to be that of a recording of more than two
LONG = 300  # s from which on the episodes of a recording are told without asking: a mean over hours hides minutes

# What counts as an episode: chosen by benchmarks/episodes.py. A probability of 0.2 is little, but a normal rhythm has
# it hardly in two of three windows, and fibrillation nearly always.
NEIGHBOURS, PROBABILITY = 3, 0.2
SHORTEST, GAP = 60, 60  # s
ROUNDED = 0.05  # s by which a window may last longer or shorter, for it begins and ends with a sample
RULE = (
    f"an episode is where the median, over {NEIGHBOURS} windows of {WINDOW} s, of the probability of fibrillation is "
    f"above {PROBABILITY}; those up to {GAP} s apart are one, and those below {SHORTEST} s are left out"
)
TOLD = ("share", "seconds", "readable", "episodes", "longest")  # of them, besides their list

# begins, ends: s (windows,); probabilities: (windows, 4); rows: measurements of the heartbeats (windows, measurements);
# usable: s of each window that hold no faults (windows,).
Windows = namedtuple("Windows", "begins ends probabilities rows usable")
NOISE = np.array([name == "~" for name in CLASSES], np.float64)


def cut(samples, sampling_rate):
    """The first and the end sample, (windows, 2), of the windows that a recording of `samples` falls into."""
    edges = np.round(np.arange(0, samples, WINDOW * sampling_rate)).astype(int)
    if len(edges) > 1 and samples - edges[-1] < LEAST * sampling_rate:
        edges = edges[:-1]
    return np.column_stack([edges, [*edges[1:], samples]])


def is_long(recording):
    """Whether a `reading.Recording` is `LONG`, and classified by its windows."""
    return len(recording.signal) >= LONG * recording.sampling_rate


def classify(models, signal, sampling_rate, bar=None):
    """The `Windows` of a recording `signal` (samples,), each answered as a recording of its own.

    models: [`runs.Saved`]; sampling_rate: Hz; bar: a progress bar that counts windows. The challenge's recordings are
    pieces of longer ones too, so the edges of a window are like those that the members know. A window without a stretch
    that can be classified is noise.
    """
    places = cut(len(signal), sampling_rate)
    usable = _usable(places, quality.stretches(signal, sampling_rate)) / sampling_rate
    probabilities, rows, whole = [], [], []
    for start in range(0, len(places), CHUNK):
        pieces = [signal[first:end] - np.median(signal[first:end]) for first, end in places[start : start + CHUNK]]
        whole += [bool(quality.stretches(piece, sampling_rate)) for piece in pieces]
        rates = [sampling_rate] * len(pieces)
        measured = members.measure(pieces, rates, keep=False)
        probabilities.append(members.classify(models, pieces, rates, False, measured))
        rows += [beats.middle(measured.rows[measured.owners == place]) for place in range(len(pieces))]
        if bar is not None:
            bar.update(len(pieces))
    begins, ends = (places / sampling_rate).T
    usable = np.where(whole, usable, 0)  # parts below 5 s are not classified, however many there are
    said = np.where((usable < quality.LEAST_SECONDS)[:, None], NOISE, np.concatenate(probabilities))
    return Windows(begins, ends, said, np.array(rows), usable)


def _usable(places, stretches):
    """How many samples of each window, from and to `places` (windows, 2), lie in `stretches`, [(start, stop)]."""
    samples = np.zeros(len(places))
    for start, stop in stretches:
        samples += np.maximum(np.minimum(places[:, 1], stop) - np.maximum(places[:, 0], start), 0)
    return samples


def overall(windows):
    """(probabilities (4,), measurements (windows, measurements)) of a whole recording: those of the mean logits of the
    `Windows` that can be classified.
    """
    good = windows.usable >= quality.LEAST_SECONDS
    if not good.any():
        return NOISE, windows.rows
    said = preprocessing.vote(windows.probabilities[good], np.zeros(good.sum(), int))[0]
    return said, windows.rows[good]


def find(windows):
    """The episodes of fibrillation among some `Windows`, [(begin, end)] in s, by the `RULE`."""
    likely = scipy.ndimage.median_filter(windows.probabilities[:, 0], NEIGHBOURS, mode="nearest") > PROBABILITY
    found = []
    for first, end in quality.runs(likely):
        begin, end = windows.begins[first], windows.ends[end - 1]
        if found and begin - found[-1][1] <= GAP + ROUNDED:
            begin = found.pop()[0]
        found.append((float(begin), float(end)))
    return [(begin, end) for begin, end in found if end - begin >= SHORTEST - ROUNDED]


def summary(windows):
    """How much of a recording, given as its `Windows`, is fibrillation: all times in s.

    share: that of the episodes in the time that can be read, `readable`, which is all but windows of noise outside
    episodes; None where none can. All are None where a recording is shorter than an episode.
    """
    if windows.ends[-1] - windows.begins[0] < SHORTEST - ROUNDED:
        return dict.fromkeys(TOLD) | {"list": [], "rule": RULE}
    found = find(windows)
    inside = np.any([(windows.begins >= begin) & (windows.ends <= end) for begin, end in found], axis=0)
    noise = (windows.probabilities.argmax(1) == CLASSES.index("~")) & ~inside
    lengths = [end - begin for begin, end in found]
    readable = float((windows.ends - windows.begins)[~noise].sum())
    return {
        "share": round(sum(lengths) / readable, 4) if readable else None,
        "seconds": round(sum(lengths), 2),
        "readable": round(readable, 2),
        "episodes": len(found),
        "longest": round(max(lengths, default=0.0), 2),
        "list": [{"begin": round(begin, 2), "end": round(end, 2)} for begin, end in found],
        "rule": RULE,
    }


def table(windows, confidence):
    """A dict for each of some `Windows`: its time, class, probabilities, heart rate (1/min) and quality.

    quality: how far two detectors agree on its beats, in %; confidence: the probability below which a class is called
    uncertain. None is what could not be measured.
    """
    names = [name for name, _, _ in beats.MEASUREMENTS]
    rates, agreements = (windows.rows[:, names.index(name)] for name in ("heart rate", "agreement"))
    return [
        {
            "start": round(float(begin), 2),
            "seconds": round(float(end - begin), 2),
            "class": CLASSES[probabilities.argmax()],
            "uncertain": bool(quality.doubts(probabilities, beats.typical(row[None]), usable, confidence)),
            "probabilities": {name: round(float(p), 4) for name, p in zip(CLASSES, probabilities, strict=True)},
            "heart_rate": None if np.isnan(rate) else round(float(rate), 1),
            "quality": None if np.isnan(agreement) else round(float(agreement), 1),
        }
        for begin, end, probabilities, row, usable, rate, agreement in zip(*windows, rates, agreements, strict=True)
    ]


def disagreement(windows):
    """A sentence on `Windows` of several classes, "windows of 30 s disagree: 5 N (first at 0:00) …"; else None."""
    classes = windows.probabilities.argmax(1)
    counts = np.bincount(classes, minlength=len(CLASSES))
    if np.count_nonzero(counts) < 2:
        return None
    order = sorted(np.flatnonzero(counts), key=lambda place: -counts[place])
    parts = [f"{counts[o]} {CLASSES[o]} (first at {clock(windows.begins[classes == o][0])})" for o in order]
    return f"windows of {WINDOW} s disagree: {', '.join(parts)}"


def doubts(windows, name):
    """Why the class `name` is not that of a whole recording of several `Windows`: parts of a sentence.

    The longest of the challenge's recordings have two windows, which a rhythm that is irregular may well divide.
    """
    if len(windows.begins) <= 2:
        return []
    classes = windows.probabilities.argmax(1)
    readable = classes != CLASSES.index("~")
    share = np.mean(classes[readable] == CLASSES.index(name)) if readable.any() and name != "~" else 1.0
    found = [f"only {share:.0%} of the windows that can be read are {name}"] if share < LEAST_SHARE else []
    return found + ["it has episodes of fibrillation"] * bool(name != "A" and find(windows))


def clock(seconds):
    """A time of so many seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def told(summary):
    """A `summary` in words."""
    if summary["episodes"] is None:
        return f"too short for an episode of fibrillation, which lasts {SHORTEST} s or more"
    if summary["share"] is None:
        return "all windows are noise"
    if not summary["episodes"]:
        return "no episode of fibrillation"
    episodes = f"{summary['episodes']} episode{'s' * (summary['episodes'] > 1)}"
    return (
        f"fibrillation for {clock(summary['seconds'])}, {summary['share']:.1%} of the time that can be read, in "
        f"{episodes}, the longest {clock(summary['longest'])}"
    )
