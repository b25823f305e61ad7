"""Columns of numbers, from texts, spreadsheets and arrays: which are times, what rate they tell, what is left."""

import itertools
import re

import numpy as np

from leads import MOST_LEADS, RISING, Channel, kind, lead_of, microvolts, no_signal
from shell import UserError

SENSIBLE = 50, 5000  # Hz, of an ECG; between s and ms lies a factor of 1000, so at most one of them makes such a rate
# Rows that may continue each other, and those that do not do so by chance. Of 400 tables of 12 rows taken from
# different recordings of the challenge, at most 3 pass for one signal; of tables of one signal, 92 of 100 and more do.
LEAST_ROWS, SURE_ROWS = 9, 20
JUMP = 20  # steps: what is more than jitter
PIECES = re.compile(r'[,;\t:=()\[\]"]+|[\s_/]+(?=[muµμ]v\b)', re.I)  # what stands around a unit
# Voltages of another thing than the numbers: of a scale, of what the device can measure.
SCALES = re.compile(
    r"(?:mm|adu|lsb|counts?|units?|bits?|nu)\s*/|/\s*(?:div|lsb|bit|count|adu)|\b(?:mm|adu|counts?|bit) per|gain|lsb"
    r"|resolution|range|scale|vref|reference|threshold|sensitiv|calib|supply|batter|offset",
    re.I,
)
TIMES = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sekunden"), 1),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "usec", "µs", "μs", "micros", "microsecond", "microseconds"), 1e-6),
}
# A time since 1970, in s, ms, µs or ns, tells its unit by its size: these are the years 2001 to 2103.
EPOCHS = {unit: (1e9 / unit, 4.2e9 / unit) for unit in (1, 1e-3, 1e-6, 1e-9)}
# Units that other things have too, as beats/min: of "Time (min)", and where nothing else is said.
LONG_TIMES = {
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
}
TIME_WORDS = {"time", "timestamp", "timestamps", "t", "zeit", "temps", "tiempo"}
TIME_NAMES = {*TIMES, *TIME_WORDS}


def read(names, values, rate, unit, path, doubt="", clocks=()):
    """(list of `Channel`, notes) of `values` (samples, columns), NaN where there is none.

    names: one a column, "" for none, with its unit where it has one; rate (Hz) and unit: what is told for all columns,
    else None; doubt: why they are not told; clocks: the columns that are known to be times in seconds. Columns of
    times are left out, and tell the rate by name or plain seconds. Raises `UserError` for more columns than an ECG has
    leads, unless their rows continue each other.
    """
    times = [i for i in _may_be_times(values) if i in clocks or _is_time(names[i], values[:, i])]
    kept = [i for i in range(values.shape[1]) if i not in times and np.isfinite(values[:, i]).any()]
    notes, width = [], 1
    if continues([names[i] for i in kept], values[:, kept]):
        width = len(kept)
        notes.append(f"the {width} numbers of each row continue those of the row before and were read as one signal")
    elif values.shape[1] > MOST_LEADS:
        raise UserError(
            f"{path} has {values.shape[1]} columns, more than an ECG has leads, and its rows do not continue each "
            "other; if each row is a recording, save one of them as a single column"
        )
    paired = _paired(names, values, times, kept, clocks) if width == 1 else {}
    if rate and all(abs(each / rate - 1) > 0.01 for _, each in paired.values()):  # else it is that of one of them
        paired = {}
    if paired:
        notes += [
            f"the column {names[time]} tells the sampling rate of {names[i]}, {each:g} Hz"
            for i, (time, each) in paired.items()
        ]
    else:
        rate, doubt, told = _told_rate(names, values, times, clocks, width, rate, doubt)
        notes += told
    for i in times:
        if step(values[:, i]) is None:
            note, why = _uneven(names[i] or i + 1, values[:, i], i in clocks)
            notes.append(note)
            doubt = doubt or why
    if width > 1:
        signal = values[:, kept].ravel()
        whole = signal[: len(signal) - width + int(np.isfinite(signal[-width:]).sum())]  # the last row may be shorter
        return [Channel("lead 1", rate, unit, lambda: whole, doubt)], notes
    rates = {i: each for i, (_, each) in paired.items()}
    return [_channel(names[i], n + 1, rates.get(i, rate), unit, values[:, i], doubt) for n, i in enumerate(kept)], notes


def _paired(names, values, times, kept, clocks):
    """{column: (its times, rate in Hz)} where several sensors stand side by side, each after times of its own, which
    tell different rates; else empty.
    """
    found = {t: rate_of_times(t, names[t], values[:, t], 1, t in clocks) for t in times}
    own = {i: max((t for t in times if t < i), default=None) for i in kept}
    if len(times) < 2 or None in own.values() or set(own.values()) != set(times) or not all(found.values()):
        return {}
    rates = [each for _, each in found.values()]
    return {i: (t, found[t][1]) for i, t in own.items()} if max(rates) > 1.01 * min(rates) else {}


def _may_be_times(values):
    """The columns that may be times: in rows of many samples only the first, for those of the others rise by chance."""
    width = values.shape[1]
    return range(0 if width == 1 else 1 if width > MOST_LEADS else width)


def _told_rate(names, values, times, clocks, width, rate, doubt):
    """(rate in Hz or None, doubt, notes) from what is told for all columns and from the columns of times."""
    whole = [i for i in times if np.isfinite(values[:, i]).sum() >= 0.9 * len(values)]  # others are of something else
    found = [rate_of_times(i, names[i], values[:, i], width, i in clocks) for i in whole]
    told = [each for each in found if each]
    rates = [(f"its times say {each:g} Hz", each) for _, each in told]
    rates = [("its header says " + f"{rate:g} Hz", rate), *rates] if rate else rates
    if rates and max(each for _, each in rates) > 1.01 * min(each for _, each in rates):
        return None, ", but ".join(text for text, _ in rates), []
    if rate or not told:
        return rate, doubt, []
    label, rate = told[0]
    return rate, doubt, [f"{label} tells the sampling rate, {rate:g} Hz"]


def _channel(name, number, rate, unit, numbers, doubt):
    own = units(name)[-1:]  # of "V (mV)", a lead V, the last
    pieces = [piece.strip(" _") for piece in PIECES.split(name)] if own else [name]
    name = " ".join(piece for piece in pieces if piece and piece not in own) or name
    return Channel(name or f"lead {number}", rate, own[0] if own else unit, lambda: numbers, doubt)


def units(text):
    """The voltages among the fields, bracketed parts and last words of a text, but for those of a scale or a range."""
    text = re.sub(r"\d[\d.,]*\s*[munµμ]?v\b", " ", text, flags=re.I)  # 5 V is a voltage, and no unit of others
    return [] if SCALES.search(text) else [p.strip() for p in PIECES.split(text) if microvolts(p) is not None]


def _is_time(name, numbers):
    """Whether a column (samples,) is one of times or an index: numbers that only rise, or times that start again."""
    if not np.isfinite(numbers).any() or (kind(name) == "ecg" and not re.fullmatch(r"\W*i\W*", name)):
        return False
    if (_epoch(numbers) or 1) < 1:  # no ECG has such numbers; in s they might be those of 32 bits
        return True
    found = no_signal(numbers) or ""
    return found == RISING or bool(found and TIME_NAMES.intersection(plain_words(name)))


def _uneven(name, numbers, clock=False):
    """(note, doubt) about a column (samples,) of times, or of numbers that only rise, with uneven steps."""
    if not clock and not _epoch(numbers) and not TIME_NAMES.intersection(plain_words(str(name))):
        return f"the column {name} was left out, for its numbers only rise", ""
    steps = np.abs(np.diff(numbers[np.isfinite(numbers)]))
    gap = steps.max(initial=0) / ((np.median(steps) if steps.size else 0) or np.inf)
    jump = f", with a step of {gap:.0f} times the usual one" if gap > JUMP else ""
    return f"the times in the column {name} are uneven{jump} and were left out", (
        f"the times in the column {name} are uneven{jump}"
    )


def plain_words(name):
    """The lower-case words of letters alone in the name of a column."""
    return re.findall(r"[a-zµμ]+", name.casefold())


def rate_of_times(place, name, numbers, width=1, clock=False):
    """(what tells it, rate in Hz) by a column (samples,) of even times in the given place, or None.

    width: samples in each row; clock: the times are known to be seconds. Without a name, only the first column tells,
    and only by what are plainly seconds or times since 1970.
    """
    even = step(numbers)
    if even is None:
        return None
    second = 1 if clock else _second(plain_words(name), even, width, numbers) if name or place == 0 else None
    if not second:
        return None
    rate = width / (even * second)
    # Rounded times blur the rate by up to a sample in the whole recording.
    rate = float(round(rate)) if abs(rate - round(rate)) * len(numbers) < rate else rate
    unnamed = f"column {place + 1}, of times of day," if clock else "the first column, taken for seconds,"
    unnamed = "the first column, of times since 1970," if second and not clock and _epoch(numbers) else unnamed
    return f"the column {name}" if name else unnamed, rate


def _second(words, even, width, numbers):
    """The unit (s) of times with this step between rows of `width` samples, as their name's words or their size tell
    it, or None.
    """
    second = next((TIMES[word] for word in reversed(words) if word in TIMES), None)
    if words and words[-1] in LONG_TIMES and {*TIME_WORDS, "elapsed", "in"}.issuperset(words[:-1]):
        second = LONG_TIMES[words[-1]]
    if second:
        return second
    may_be = [_epoch(numbers)] if _epoch(numbers) else []
    if even != 1 and TIME_NAMES.intersection(words):  # steps of 1 may count samples or rows
        may_be += [1, 1e-3]
    elif not words and even < 1:
        may_be += [1]
    return next((each for each in may_be if SENSIBLE[0] <= width / (even * each) <= SENSIBLE[1]), None)


def _epoch(numbers):
    """The unit (s) of numbers (samples,) that are times since 1970 by their size, or None."""
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    return next((unit for unit, (first, last) in EPOCHS.items() if first <= low and high <= last), None)


def step(column):
    """The step of a column (samples,) that rises evenly, rounding and gaps aside, as times do; else None."""
    at = np.flatnonzero(np.isfinite(column))
    if len(at) < 3 or len(at) < 0.9 * (at[-1] - at[0] + 1) or not (np.diff(column[at]) > 0).all():
        return None
    even = (column[at[-1]] - column[at[0]]) / (at[-1] - at[0])
    return even if np.abs(column[at] - column[at[0]] - even * (at - at[0])).max() <= even else None


def continues(names, values):
    """Whether each row of `values` (rows, columns) goes on where the row before ended, one signal in lines of text.

    Then the last number of a row is nearer to the first of the next than the numbers of a column are to each other,
    as are neighbours in a row. Few rows, or longer ones than leads are many, may do so by chance, and must do so as
    closely as neighbours do. Columns that are called after leads are believed.
    """
    rows, width = values.shape
    if width < 3 or rows < LEAST_ROWS or any(lead_of(name) for name in names):
        return False
    if width > MOST_LEADS:  # rows that are leads of one ECG beat together
        pairs = [pair for pair in itertools.pairwise(values[:SURE_ROWS]) if np.isfinite(pair).all()]
        if pairs and np.median([abs(np.corrcoef(pair)[0, 1]) for pair in pairs]) > 0.8:
            return False
    down = np.nanmean(np.abs(np.diff(values, axis=0)))
    across = np.abs(np.diff(values, axis=1))
    over = np.abs(values[1:, 0] - values[:-1, -1])
    if not max(np.nanmean(across), np.nanmean(over)) < 0.7 * down:
        return False
    near = np.nanmean(over[np.isfinite(over)] <= np.nanpercentile(across, 99)) >= 0.9
    return bool((rows >= SURE_ROWS and width <= MOST_LEADS) or (near and np.nanmean(over) < 0.35 * down))
