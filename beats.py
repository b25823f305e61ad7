"""One recording → R peaks → named measurements of its rhythm, its beats and its quality.

python beats.py FILE...                  print the measurements of each recording

None of them depends on which way round the electrodes were held, on the gain, or on the sampling rate beyond what it
leaves of the waves: the larger side of the QRS complexes is brought upward and their usual height to 1.
"""

import functools
import itertools
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.signal

import preprocessing
from shell import parser, run_script

PACKAGES = ("sleepecg",)  # that find the R peaks, beside our own code
RATE = 300  # Hz, of everything below: that of the challenge's recordings
BEFORE, AFTER = 0.3, 0.5  # s of a beat before and after its R peak
TOGETHER = 0.06  # s within which two detectors mean the same beat
LEAST = 4  # intervals, or beats, below which nothing is said about them
MOST = 400  # beats, above which only the first are compared pair by pair: a day has 100,000
BANDS = ((1, 3), (3, 5), (5, 8), (8, 12), (12, 20), (20, 35))  # Hz

# What `measure` measures, by family: name, unit, meaning. Heights are in usual QRS complexes (qrs), shares of 1 have no
# unit; "10 %" is the 10th percentile. An interval is early below 0.88 of the median of the seven around it, late above
# 1.1; where early beats are odd or not, early is below 0.88 of the recording's median. Unless a source is named, the
# measurement is plain statistics.
PLAIN = [
    ("heart rate", "1/min", "60 s over the median interval between beats"),
    ("variation of intervals", "%", "standard deviation of the intervals over their mean"),
    ("irregularity", "%", "median change from one interval to the next, of the median interval"),
    ("early beats", "%", "share of beats that come early"),
    ("P waves", "", "mean correlation of two beats before their QRS complexes: 1 the same wave in each, 0 none"),
    ("P height", "%", "height of the P wave of the median beat, of its R wave"),
    ("QRS width", "ms", "how long the median beat is steeper than a seventh of its steepest slope"),
    ("agreement", "%", "F1 of one detector's beats against the other's (bSQI of Li et al. 2008): quality"),
]
RHYTHM = [
    ("beats", "", "number of beats"),
    ("mean", "s", "mean interval"),
    ("median", "s", "median interval"),
    ("shortest", "s", "shortest interval"),
    ("longest", "s", "longest interval"),
    ("variation", "", "standard deviation of the intervals over their mean"),
    ("skewness", "", "skewness of the intervals"),
    ("kurtosis", "", "kurtosis of the intervals"),
    ("SD1/SD2", "", "short over long axis of the Poincaré plot"),
    *((f"lag {lag}", "", f"autocorrelation of the intervals at lag {lag}") for lag in (1, 2, 3)),
    *((f"interval {at} %", "", "quantile of the intervals over their median") for at in (5, 10, 25, 75, 90, 95)),
    *((f"change {at} %", "", "quantile of the successive changes over the median") for at in (25, 50, 75, 90, 95, 100)),
    *((f"changes above {at} %", "", "share of changes above so much of the median") for at in (10, 20)),
    ("rise", "", "largest ratio of an interval to the one before"),
    ("fall", "", "smallest ratio of an interval to the one before"),
    ("turns", "", "share of changes that undo the direction of the one before"),
    ("steady run", "", "longest run of changes below 10 %, of all changes"),
    ("steady changes", "", "length of that run"),
    ("short", "", "share of intervals below 0.8 of the median"),
    ("very short", "", "share of intervals below 0.6 of the median"),
    ("long", "", "share of intervals above 1.2 of the median"),
    ("local variation", "", "standard deviation of the intervals over the median of the seven around each"),
    ("early", "", "share of early intervals"),
    ("early, late", "", "share of early intervals that a late one follows: a pause that makes up"),
    ("early, late count", "", "number of such pairs"),
    ("early, not late", "", "share of early intervals that no late one follows"),
    ("late alone", "", "share of late intervals that no early one precedes"),
    ("inner change", "", "median change between intervals that are neither early nor late"),
    ("multiples", "", "how far the intervals are from multiples of the best base of 180 to 300 ms, as in flutter"),
    *(
        (f"entropy {length} {near}", "", "sample entropy: length, tolerance over the median (Richman & Moorman 2000)")
        for length in (1, 2)
        for near in (0.05, 0.1, 0.2)
    ),
    ("entropy per time", "", "coefficient of sample entropy, 30 ms (Lake & Moorman 2011), but for a constant"),
    ("Lorenz evidence", "", "those, less the points in the middle, less twice the repeated ones (Sarkar et al. 2008)"),
]
DETECTORS = {"sleepecg": "Pan & Tompkins 1985, as SleepECG has it", "neurokit": "Makowski et al. 2021, NeuroKit2"}
BEATS = [
    *((f"likeness {at} %", "", "quantile of the beats' correlation with the median beat") for at in (0, 5, 50)),
    ("likeness", "", "mean of that correlation"),
    *((f"unlike {at}", "", "share of beats whose correlation is below") for at in (0.7, 0.9)),
    *((f"QRS likeness {at} %", "", "the same of the QRS complex alone") for at in (0, 10, 50)),
    ("QRS unlike 0.9", "", "share of beats whose QRS correlation is below"),
    *((f"P likeness {at} %", "", "the same of the P window, 260 to 60 ms before R") for at in (25, 50)),
    ("P unlike 0.7", "", "share of beats whose P correlation is below"),
    ("P likeness", "", "mean P correlation of the beats that resemble the median beat"),
    ("P place", "s", "time from the peak of the P window to R"),
    ("P range", "qrs", "range of the P window, a line through its ends taken off"),
    ("P depth", "qrs", "its lowest point"),
    ("P area", "qrs", "its mean"),
    ("P over noise", "", "its height over the standard error of the median beat"),
    ("P over beats", "", "its height over the standard deviation of single beats there"),
    ("P place spread", "s", "standard deviation of the place of single beats' peaks"),
    ("P place deviation", "s", "median absolute deviation of that place"),
    ("R", "qrs", "height of the median beat"),
    ("R lowest", "", "lowest R wave over that of the median beat"),
    ("QRS area", "s", "area of the median QRS complex over its height"),
    ("T place", "s", "time from R to the largest deviation after it"),
    ("T lowest", "qrs", "lowest point there"),
    *((f"beat at {at} ms", "qrs", "the median beat") for at in range(-300, 500, 20)),
    *(
        (f"width {at} %", "", "quantile of the beats' QRS areas over that of the median beat")
        for at in (5, 50, 90, 100)
    ),
    ("odd, not early", "", "share of beats that are odd but not early"),
    ("early, odd", "", "share of beats that are early and odd, as ventricular extrasystoles are"),
    ("early, not odd", "", "share of beats that are early but not odd, as atrial ones are"),
    ("earliest", "", "shortest interval before a beat over the median"),
    ("early pause", "", "mean interval after early beats over the median"),
    ("early sum", "", "mean of the intervals before and after early beats over the median: 2 in ventricular ones"),
    ("early QRS likeness", "", "mean QRS correlation of early beats"),
    ("early P likeness", "", "mean P correlation of early beats"),
    ("early spread", "", "standard deviation of the intervals before early beats over the median: their coupling"),
    ("early unity", "", "mean QRS correlation of early beats with their own median"),
    ("early against usual", "", "QRS correlation of their median with the median beat"),
]
REST = [
    ("rest deviation", "qrs", "median over the beats of the standard deviation between T and P"),
    *((f"rest {low}-{high} Hz", "", "log share of the power between T and P; f-waves: 4 to 9") for low, high in BANDS),
]
QUALITY = [
    ("found by both, first", "", "share of the first detector's beats that the second found"),
    ("found by both, second", "", "share of the second detector's beats that the first found"),
    ("agreeing windows", "", "share of 4 s windows in which the agreement is 0.9 or more"),
    ("longest without", "s", "longest time without a beat that both found"),
    ("lean", "", "log of how far the QRS complexes reach upward over how far downward"),
    ("QRS peakedness", "", "kurtosis from 5 to 25 Hz"),
    *(
        (f"reach {at} %", "qrs", "quantile over 2 s windows of the largest excursion, 5-25 Hz")
        for at in (0, 10, 90, 100)
    ),
    *((f"level {at} %", "qrs", "the same of the median excursion") for at in (10, 50, 90, 100)),
    *((f"deviation {at} %", "qrs", "the same of the standard deviation of the signal") for at in (10, 50, 90, 100)),
    *((f"peakedness {at} %", "", "the same of the kurtosis, 5-25 Hz") for at in (0, 10, 25, 50)),
    *((f"power {low}-{high} Hz", "", "log share of the power (pSQI of Li et al. 2008)") for low, high in BANDS),
]
MEASUREMENTS = (
    PLAIN
    + [(f"{by}: {name}", unit, f"{what}; {source}") for by, source in DETECTORS.items() for name, unit, what in RHYTHM]
    + BEATS
    + REST
    + QUALITY
)

# signal, quick (samples,): all that is measured and its QRS complexes at RATE, R waves upward, 1 being their usual
# height; lean: log of how far the QRS complexes reach upward over how far downward, 0 or more.
Conditioned = namedtuple("Conditioned", "signal quick lean")


@functools.cache
def _filters():
    """Second-order sections at RATE: for all that is measured, and for QRS complexes alone."""
    parts = [scipy.signal.butter(2, 1, "highpass", fs=RATE, output="sos")]
    parts += [scipy.signal.tf2sos(*scipy.signal.iirnotch(hum, 25, RATE)) for hum in (50, 60)]
    parts += [scipy.signal.butter(4, 40, fs=RATE, output="sos")]  # above lie the device and its noise
    return np.vstack(parts), scipy.signal.butter(2, (5, 25), "bandpass", fs=RATE, output="sos")


def condition(signal, sampling_rate):
    """The `Conditioned` form of `signal` (samples,) at `sampling_rate` in Hz; zeros where it is constant or < 1 s."""
    signal = np.asarray(signal, np.float64)
    if len(signal) < sampling_rate or np.ptp(signal) == 0:
        zeros = np.zeros(max(int(len(signal) * RATE / sampling_rate), 1))
        return Conditioned(zeros, zeros, 0.0)
    signal = preprocessing.resample(signal - np.median(signal), sampling_rate, RATE)
    pad = min(len(signal) - 1, RATE)
    wide, narrow = _filters()
    signal = scipy.signal.sosfiltfilt(wide, signal, padlen=pad)
    quick = scipy.signal.sosfiltfilt(narrow, signal, padlen=pad)
    # The middle of what windows of a beat or two reach: a few pops or extrasystoles do not move it.
    blocks = _blocks(quick, 1.5)
    up, down = blocks.max(1), -blocks.min(1)
    reach = np.maximum(up, down)
    up, down, size = (np.median(each[reach > 1e-3 * reach.max()]) for each in (up, down, reach))
    lean = np.log(max(up, 1e-3 * size) / max(down, 1e-3 * size))
    unit = size if lean >= 0 else -size
    return Conditioned(np.clip(signal / unit, -5, 5), np.clip(quick / unit, -5, 5), abs(lean))


def _blocks(signal, seconds):
    """`signal` (samples,) at RATE cut into rows of so many seconds, the rest left out; at least one row."""
    size = min(round(seconds * RATE), len(signal))
    return signal[: len(signal) // size * size].reshape(-1, size)


def find(signal, sampling_rate):
    """Times of the R peaks in s, (beats,) each, by the name of the detector that found them.

    signal: (samples,) in any unit, without NaN, at `sampling_rate` in Hz.
    """
    return {name: peaks / RATE for name, peaks in detect(condition(signal, sampling_rate)).items()}


def detect(conditioned):
    """Samples of the R peaks in a `Conditioned` signal, (beats,) each, by detector."""
    signal = conditioned.signal
    if len(signal) < 2 * RATE or not signal.any():
        return {name: np.zeros(0, int) for name in DETECTORS}
    from sleepecg import detect_heartbeats  # slow to import

    found = detect_heartbeats(signal, RATE), _steep_peaks(signal)
    return {name: _snap(peaks, conditioned.quick) for name, peaks in zip(DETECTORS, found, strict=True)}


def _steep_peaks(signal):
    """Samples of the R peaks (beats,) in `signal` (samples,) at RATE: each QRS complex's most prominent maximum.

    A complex is where the steepness is above 1.5 times its average. Source: Makowski et al. 2021, "NeuroKit2: a Python
    toolbox for neurophysiological signal processing", version 0.2.13, `ecg_findpeaks` by its own method. It is written
    out here since importing NeuroKit2 takes half of the time in which a recording is classified.
    """
    steepness = scipy.ndimage.uniform_filter1d(np.abs(np.gradient(signal)), round(0.1 * RATE), mode="nearest")
    average = scipy.ndimage.uniform_filter1d(steepness, round(0.75 * RATE), mode="nearest")
    steep = steepness > 1.5 * average
    begins, ends = np.flatnonzero(~steep[:-1] & steep[1:]), np.flatnonzero(steep[:-1] & ~steep[1:])
    ends = ends[ends > begins[0]] if len(begins) else ends[:0]
    count = min(len(begins), len(ends))  # the last complex may have no end
    least = 0.4 * np.mean(ends[:count] - begins[:count]) if count else 0
    peaks = [0]
    for begin, end in zip(begins[:count], ends[:count], strict=True):
        if end - begin < least:
            continue
        found, properties = scipy.signal.find_peaks(signal[begin:end], prominence=(None, None))
        if len(found):
            peak = begin + found[properties["prominences"].argmax()]
            if peak - peaks[-1] > 0.3 * RATE:
                peaks.append(peak)
    return np.array(peaks[1:], int)


def _snap(peaks, quick):
    """Samples `peaks` (beats,) moved to the largest QRS excursion within 60 ms, those that meet there made one."""
    peaks = np.asarray(peaks, int)
    if not len(peaks):
        return peaks
    around = np.clip(peaks[:, None] + np.arange(-18, 19), 0, len(quick) - 1)
    moved = np.unique(np.take_along_axis(around, np.abs(quick[around]).argmax(1)[:, None], 1))
    return moved[np.diff(moved, prepend=-RATE) > 0.15 * RATE]


def measure(signal, sampling_rate):
    """The `MEASUREMENTS` of a recording, float32 (measurements,); NaN where there is nothing to measure.

    signal: (samples,) in any unit, without NaN, at `sampling_rate` in Hz.
    """
    conditioned = condition(signal, sampling_rate)
    return measured(conditioned, detect(conditioned))


def measured(conditioned, peaks):
    """The `MEASUREMENTS` of a `Conditioned` signal whose R peaks `detect` found; float32 (measurements,)."""
    values = _measure(conditioned, peaks)
    row = np.array([values.get(name, np.nan) for name, _, _ in MEASUREMENTS], np.float32)
    return np.where(np.isfinite(row), row, np.float32(np.nan))


def middle(rows):
    """The median of each measurement over `rows` (windows, measurements): (measurements,), NaN where none was made."""
    if len(rows) == 1:
        return rows[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a measurement that no window has
        return np.nanmedian(rows, axis=0)


def typical(rows):
    """{measurement: its `middle`} over the `rows` (windows, measurements) of a recording, of those that were made."""
    names = [name for name, _, _ in MEASUREMENTS]
    return {name: float(value) for name, value in zip(names, middle(rows), strict=True) if np.isfinite(value)}


def _measure(conditioned, peaks):
    """Values of the measurements that can be made, by name; peaks: as `detect` finds them."""
    if not conditioned.signal.any():
        return {}
    signal, values = conditioned.signal, {}
    with np.errstate(all="ignore"):
        for name, at in peaks.items():
            values |= {f"{name}: {key}": value for key, value in _rhythm(np.diff(at) / RATE).items()}
        values |= _beats(signal, peaks["sleepecg"]) | _quality(conditioned)
        values |= _agreement(*(peaks[name] / RATE for name in DETECTORS), len(signal) / RATE)
    plain = {"heart rate": 60 / values.get("sleepecg: median", np.nan)}
    shares = {"variation of intervals": "variation", "irregularity": "change 50 %", "early beats": "early"}
    plain |= {name: 100 * values.get(f"sleepecg: {key}", np.nan) for name, key in shares.items()}
    return values | plain


def _quantiles(name, values, at):
    return {f"{name} {each} %": value for each, value in zip(at, np.percentile(values, at), strict=True)}


def _rhythm(rr):
    """The measurements `RHYTHM` of intervals `rr` (beats - 1,) in s."""
    if len(rr) < LEAST:
        return {}
    usual, mean, steps = np.median(rr), rr.mean(), np.diff(rr)
    changes, centred, ratios = np.abs(steps) / usual, rr - mean, rr[1:] / rr[:-1]
    power = np.mean(centred**2)
    runs = np.diff(np.flatnonzero(np.r_[True, changes >= 0.1, True])) - 1
    bases = np.arange(0.18, 0.3, 0.005)[:, None]
    values = {
        "beats": len(rr) + 1,
        "mean": mean,
        "median": usual,
        "shortest": rr.min(),
        "longest": rr.max(),
        "variation": rr.std() / mean,
        "skewness": np.mean(centred**3) / power**1.5,
        "kurtosis": np.mean(centred**4) / power**2,
        "SD1/SD2": steps.std() / np.std(rr[1:] + rr[:-1]),
        "changes above 10 %": np.mean(changes > 0.1),
        "changes above 20 %": np.mean(changes > 0.2),
        "rise": ratios.max(),
        "fall": ratios.min(),
        "turns": np.mean(steps[1:] * steps[:-1] < 0),
        "steady run": runs.max() / len(changes),
        "steady changes": runs.max(),
        "multiples": np.abs(rr / bases - np.round(rr / bases)).mean(1).min(),
    }
    values |= {f"lag {lag}": np.mean(centred[lag:] * centred[:-lag]) / power for lag in (1, 2, 3)}
    values |= _quantiles("interval", rr / usual, (5, 10, 25, 75, 90, 95))
    values |= _quantiles("change", changes, (25, 50, 75, 90, 95, 100))
    return values | _extrasystoles(rr) | _disorder(rr[:MOST])


def timing(rr):
    """(which are early, which are late, what is usual around each) of the intervals `rr` (intervals,) in s."""
    local = scipy.ndimage.median_filter(rr, 7, mode="nearest") if len(rr) > 7 else np.median(rr)
    return rr < 0.88 * local, rr > 1.1 * local, local


def _extrasystoles(rr):
    """Measurements of the intervals `rr` (intervals,) in s that stand out of their neighbours."""
    usual, changes = np.median(rr), np.abs(np.diff(rr)) / np.median(rr)
    early, late, local = timing(rr)
    middle = np.abs(rr / local - 1) < 0.12
    inner = changes[middle[1:] & middle[:-1]]
    inner = inner if len(inner) > 2 else np.full(1, np.nan)
    return {
        "short": np.mean(rr < 0.8 * usual),
        "very short": np.mean(rr < 0.6 * usual),
        "long": np.mean(rr > 1.2 * usual),
        "local variation": np.std(rr / local),
        "early": early.mean(),
        "early, late": np.mean(early[:-1] & late[1:]),
        "early, late count": np.sum(early[:-1] & late[1:]),
        "early, not late": np.mean(early[:-1] & ~late[1:]),
        "late alone": np.mean(late[1:] & ~early[:-1]),
        "inner change": np.median(inner),
    }


def _disorder(rr):
    """Entropies of intervals `rr` (intervals,) in s, and the evidence of fibrillation in the plot of their changes."""
    usual, steps = np.median(rr), np.diff(rr)
    values = {
        f"entropy {length} {near}": sample_entropy(rr / usual, length, near)
        for length in (1, 2)
        for near in (0.05, 0.1, 0.2)
    }
    points = np.stack([steps[1:], steps[:-1]], 1)
    outside = points[(np.abs(points) >= 0.08).any(1)]  # of the middle, where an even rhythm stays (Sarkar: 80 ms)
    filled = len(np.unique(np.round(outside / 0.025), axis=0))
    return values | {
        "entropy per time": sample_entropy(rr, 1, 0.03) - np.log(2 * 0.03 * rr.mean()),
        "Lorenz evidence": filled - (len(points) - len(outside)) - 2 * (len(outside) - filled),
    }


def sample_entropy(values, length, tolerance):
    """Sample entropy of `values` (n,): -log of the share of pairs alike for `length` values that stay so for one more.

    Alike: no further apart than `tolerance`. One pair is taken to stay where none does; NaN where none is alike.
    Source: Richman & Moorman 2000, "Physiological time-series analysis using approximate entropy and sample entropy".
    """
    count = len(values) - length
    near = np.abs(values[:, None] - values) <= tolerance
    alike = np.logical_and.reduce([near[k : k + count, k : k + count] for k in range(length)])
    pairs, staying = (each.sum() - count for each in (alike, alike & near[length:, length:]))
    return np.log(pairs / max(staying, 2)) if pairs else np.nan


def _span(start, stop):
    """The samples of a beat from `start` to `stop` (s after its R peak)."""
    return slice(round((BEFORE + start) * RATE), round((BEFORE + stop) * RATE))


WHOLE, QRS, WIDE, P, T = (
    _span(*ends) for ends in ((-0.25, 0.4), (-0.08, 0.1), (-0.12, 0.14), (-0.26, -0.06), (0.12, 0.45))
)


def correlation(first, second):
    """Pearson's correlation of the last axes."""
    first, second = (each - each.mean(-1, keepdims=True) for each in (first, second))
    return (first * second).sum(-1) / np.maximum(np.sqrt((first**2).sum(-1) * (second**2).sum(-1)), 1e-9)


def _beats(signal, peaks):
    """The measurements `BEATS`, `REST` and what is plain of them; peaks: samples of the R peaks (beats,)."""
    before, after = round(BEFORE * RATE), round(AFTER * RATE)
    intervals = np.diff(peaks) / RATE
    whole = (peaks >= before) & (peaks < len(signal) - after)
    if whole.sum() < LEAST:
        return {}
    beats = signal[peaks[whole][:, None] + np.arange(-before, after)].astype(np.float32)
    usual = np.median(beats[:MOST], axis=0)
    good = correlation(beats[:, WHOLE], usual[WHOLE]) > 0.8
    good = good if good.sum() >= LEAST else np.full(len(beats), True)
    usual = np.median(beats[good][:MOST], axis=0)
    height = max(usual[before], 0.1)
    beats, usual = beats / height, usual / height
    area = np.abs(beats[:, WIDE]).sum(1) / np.maximum(np.abs(beats[:, WIDE]).max(1), 1e-6)
    area /= np.abs(usual[WIDE]).sum() / np.abs(usual[WIDE]).max()
    likeness = [correlation(beats[:, part], usual[part]) for part in (WHOLE, QRS, P)]
    leading, following = np.r_[np.nan, intervals][whole], np.r_[intervals, np.nan][whole]
    values = _likeness(*likeness, good) | _p_wave(beats[good], usual) | _waves(beats[:, before], usual)
    values |= {"R": height} | _quantiles("width", area, (5, 50, 90, 100))
    values |= _early(beats[:, QRS], usual[QRS], leading, following, area, *likeness[1:])
    return values | _rest(signal / height, peaks[whole][:MOST])


def _likeness(whole, qrs, p, good):
    """How beats resemble the median beat; whole, qrs, p: correlations (beats,); good: which are beats like it."""
    values = _quantiles("likeness", whole, (0, 5, 50)) | _quantiles("QRS likeness", qrs, (0, 10, 50))
    values |= {f"unlike {at}": np.mean(whole < at) for at in (0.7, 0.9)} | _quantiles("P likeness", p, (25, 50))
    values |= {"likeness": whole.mean(), "QRS unlike 0.9": np.mean(qrs < 0.9), "P unlike 0.7": np.mean(p < 0.7)}
    return values | {"P likeness": p[good].mean()}


def _p_wave(beats, usual):
    """What stands before the QRS complexes of `beats` (beats, samples) and of their median `usual` (samples,)."""
    spread = np.std(beats[:, P] - usual[P])
    ramp = np.linspace(0, 1, P.stop - P.start)
    single, wave = (
        each - each[..., :6].mean(-1, keepdims=True) * (1 - ramp) - each[..., -6:].mean(-1, keepdims=True) * ramp
        for each in (beats[:MOST, P], usual[P])
    )
    places = single.argmax(1) / RATE
    unit = single - single.mean(1, keepdims=True)
    unit /= np.maximum(np.sqrt((unit**2).sum(1, keepdims=True)), 1e-9)
    count = len(unit)
    return {
        "P waves": ((unit.sum(0) ** 2).sum() - count) / (count * (count - 1)),  # all pairs at once
        "P height": 100 * wave.max(),
        "P place": 0.26 - wave.argmax() / RATE,
        "P range": np.ptp(wave),
        "P depth": wave.min(),
        "P area": wave.mean(),
        "P over noise": wave.max() / (spread / np.sqrt(len(beats)) + 1e-6),
        "P over beats": wave.max() / (spread + 1e-6),
        "P place spread": places.std(),
        "P place deviation": np.median(np.abs(places - np.median(places))),
    }


def _waves(heights, usual):
    """Waves of the median beat `usual` (samples,), whose R is 1; heights: of the beats' R waves (beats,)."""
    slope = np.abs(np.gradient(usual))[_span(-0.15, 0.2)]
    steep = np.flatnonzero(slope > 0.15 * slope.max())
    t = usual[T] - np.median(usual[_span(-0.3, -0.05)])
    return {
        "QRS width": 1000 * np.ptp(steep) / RATE,
        "QRS area": np.abs(usual[WIDE]).sum() / np.abs(usual[WIDE]).max() / RATE,
        "T place": np.abs(t).argmax() / RATE + 0.12,
        "T lowest": t.min(),
        "R lowest": heights.min(),
    } | {f"beat at {at} ms": usual[round((BEFORE + at / 1000) * RATE)] for at in range(-300, 500, 20)}


def _early(qrs, usual, leading, following, area, likeness, p_likeness):
    """Measurements of early and odd beats.

    qrs: (beats, samples); usual: its median (samples,); the rest (beats,): the interval before and after in s, NaN
    where there is none, the QRS area over the usual, the correlation of QRS and P with the median beat.
    """
    usually = np.nanmedian(leading)
    early, odd = leading < 0.88 * usually, (likeness < 0.8) | (area > 1.3)
    values = {
        "odd, not early": np.mean(odd & ~early),
        "early, odd": np.mean(early & odd),
        "early, not odd": np.mean(early & ~odd),
        "earliest": np.nanmin(leading) / usually,
    }
    if not early.any():
        return values
    paused = early & np.isfinite(following)
    middle = np.median(qrs[early][:MOST], axis=0)
    return values | {
        "early pause": following[paused].sum() / paused.sum() / usually,
        "early sum": (leading + following)[paused].sum() / paused.sum() / usually,
        "early QRS likeness": likeness[early].mean(),
        "early P likeness": p_likeness[early].mean(),
        "early spread": leading[early].std() / usually if early.sum() > 1 else np.nan,
        "early unity": correlation(qrs[early], middle).mean() if early.sum() > 1 else np.nan,
        "early against usual": correlation(middle, usual),
    }


def rests(signal, peaks):
    """What lies between T and P, (samples,) each, before all but the first of the beats at samples `peaks` (beats,)."""
    return [
        signal[peak + round(min(0.42 * RATE, 0.55 * (following - peak))) : following - round(0.05 * RATE)]
        for peak, following in itertools.pairwise(peaks)
    ]


def _rest(signal, peaks):
    """The measurements `REST` of a signal (samples,) whose usual R is 1, with R peaks at samples `peaks` (beats,)."""
    pieces = [piece for piece in rests(signal, peaks) if 0.2 * RATE < len(piece) < 2 * RATE]
    if not pieces:
        return {}
    power = np.zeros(RATE // 2 + 1)
    for piece in pieces:
        level = piece[:RATE] - np.linspace(piece[0], piece[-1], len(piece))[:RATE]
        power += np.abs(np.fft.rfft(level * np.hanning(len(level)), RATE)) ** 2 / len(pieces)
    total = power[1:36].sum() + 1e-9
    return {
        "rest deviation": np.median([np.std(piece) for piece in pieces]),
    } | {f"rest {low}-{high} Hz": np.log((power[low:high].sum() + 1e-9) / total) for low, high in BANDS}


def _quality(conditioned):
    """The measurements `QUALITY` that need no beats."""
    signal, quick = conditioned.signal, conditioned.quick
    windows = _blocks(quick, 2)
    squares, reach = windows**2, np.abs(windows).max(1)
    peaked = (squares**2).mean(1) / np.maximum(squares.mean(1) ** 2, 1e-9)
    power = scipy.signal.welch(signal, RATE, nperseg=min(2 * RATE, len(signal)))[1]
    step = RATE / min(2 * RATE, len(signal))
    bands = [power[int(np.ceil(low / step)) : int(np.ceil(high / step))].sum() + 1e-9 for low, high in BANDS]
    values = {
        f"power {low}-{high} Hz": np.log(band / sum(bands)) for (low, high), band in zip(BANDS, bands, strict=True)
    }
    values |= _quantiles("reach", reach, (0, 10, 90, 100)) | _quantiles("peakedness", peaked, (0, 10, 25, 50))
    values |= _quantiles("level", np.median(np.abs(windows), axis=1), (10, 50, 90, 100))
    values |= _quantiles("deviation", _blocks(signal, 2).std(1), (10, 50, 90, 100))
    return values | {
        "lean": conditioned.lean,
        "QRS peakedness": np.mean(quick**2 * quick**2) / np.mean(quick**2) ** 2,
    }


def _agreement(first, second, seconds):
    """How far two detectors agree on beats at times `first`, `second` (beats,) in s of a recording of `seconds`."""
    if not len(first) or not len(second):
        return {"agreement": 0.0}
    seen, confirmed = (_near(*pair) for pair in ((first, second), (second, first)))
    edges = np.linspace(0, seconds, max(round(seconds / 4), 1) + 1)
    hits, all_beats = (
        sum(np.histogram(times, edges)[0] for times in pair)
        for pair in ((first[seen], second[confirmed]), (first, second))
    )
    shares = hits / np.maximum(all_beats, 1)
    return {
        "agreement": 100 * (seen.sum() + confirmed.sum()) / (len(first) + len(second)),
        "found by both, first": seen.mean(),
        "found by both, second": confirmed.mean(),
        "agreeing windows": np.mean(shares >= 0.9),
        "longest without": np.diff(np.r_[0, second[confirmed], seconds]).max(),
    }


def _near(times, others):
    """Which of `times` (n,) have one of the sorted `others` (m,) no further away than TOGETHER."""
    beside = np.clip(np.searchsorted(others, times)[:, None] + (-1, 0), 0, len(others) - 1)
    return np.abs(times[:, None] - others[beside]).min(1) <= TOGETHER


def main():
    import reading

    flags = parser(__doc__)
    flags.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings; - is standard input")
    reading.add_flags(flags)
    arguments = flags.parse_args()
    for path in arguments.files:
        signal, rate, *_ = reading.read(path, *reading.told(flags, arguments))
        print(f"{path}:")
        for (name, unit, what), value in zip(MEASUREMENTS, measure(signal, rate), strict=True):
            number = "none" if np.isnan(value) else f"{value:.4g} {unit}".rstrip()
            print(f"  {name}: {number}  ({what})")


if __name__ == "__main__":
    run_script(main)
