"""Columns of numbers, from texts, spreadsheets and arrays: which are times, what rate they tell, what is left."""

import re

import numpy as np

from leads import MOST_LEADS, RISING, Channel, kind, lead_of, microvolts, no_signal
from shell import UserError

SENSIBLE = 50, 5000  # Hz, of an ECG; between s and ms lies a factor of 1000, so at most one of them makes such a rate
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
    **dict.fromkeys(("us", "usec", "µs", "μs", "micros", "microsecond", "microseconds"), 1e-6),
}
TIME_NAMES = {*TIMES, "time", "timestamp", "timestamps", "t", "zeit", "temps", "tiempo"}


def read(names, values, rate, unit, path, doubt=""):
    """(list of `Channel`, notes) of `values` (samples, columns), NaN where there is none.

    names: one a column, "" for none, with its unit where it has one; rate (Hz) and unit: what is told for all columns,
    else None; doubt: why they are not told. Columns of times are left out, and tell the rate by name or plain seconds.
    Raises `UserError` for more columns than an ECG has leads.
    """
    if values.shape[1] > MOST_LEADS:
        raise UserError(
            f"{path} has {values.shape[1]} columns, more than an ECG has leads; "
            "if each row is a recording, save one of them as a single column"
        )
    times = [i for i in range(values.shape[1]) if values.shape[1] > 1 and _is_time(names[i], values[:, i])]
    kept = [i for i in range(values.shape[1]) if i not in times and np.isfinite(values[:, i]).any()]
    notes, width = [], 1
    if continues([names[i] for i in kept], values[:, kept]):
        width = len(kept)
        notes.append(f"the {width} numbers of each row continue those of the row before and were read as one signal")
    told = [found for i in times for found in [rate_of_times(i, names[i], values[:, i], width)] if found]
    rates = [(f"its times say {each:g} Hz", each) for _, each in told]
    rates = [("its header says " + f"{rate:g} Hz", rate), *rates] if rate else rates
    if rates and max(each for _, each in rates) > 1.01 * min(each for _, each in rates):
        doubt, rate = ", but ".join(text for text, _ in rates), None
    elif not rate and told:
        label, rate = told[0]
        notes.append(f"{label} tells the sampling rate, {rate:g} Hz")
    for i in times:
        if step(values[:, i]) is None:
            note, why = _uneven(names[i] or i + 1, values[:, i])
            notes.append(note)
            doubt = doubt or why
    if width > 1:
        return [Channel("lead 1", rate, unit, lambda: values[:, kept].ravel(), doubt)], notes
    return [_channel(names[i], n + 1, rate, unit, values[:, i], doubt) for n, i in enumerate(kept)], notes


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
    found = no_signal(numbers) or ""
    return found == RISING or bool(found and TIME_NAMES.intersection(_words(name)))


def _uneven(name, numbers):
    """(note, doubt) about a column (samples,) of times, or of numbers that only rise, with uneven steps."""
    if not TIME_NAMES.intersection(_words(str(name))):
        return f"the column {name} was left out, for its numbers only rise", ""
    steps = np.abs(np.diff(numbers[np.isfinite(numbers)]))
    gap = steps.max() / (np.median(steps) or np.inf)
    jump = f", with a step of {gap:.0f} times the usual one" if gap > JUMP else ""
    return f"the times in the column {name} are uneven{jump} and were left out", (
        f"the times in the column {name} are uneven{jump}"
    )


def _words(name):
    return re.findall(r"[a-zµμ]+", name.casefold())


def rate_of_times(place, name, numbers, width=1):
    """(what tells it, rate in Hz) by a column (samples,) of even times in the given place, or None.

    width: samples in each row. Without a name, only the first column tells, and only by what are plainly seconds.
    """
    words, even = _words(name), step(numbers)
    if even is None:
        return None
    second = next((TIMES[word] for word in reversed(words) if word in TIMES), None)
    if not second and even != 1 and TIME_NAMES.intersection(words):  # steps of 1 may count samples
        second = next((each for each in (1, 1e-3) if SENSIBLE[0] <= width / (even * each) <= SENSIBLE[1]), None)
    if not name and place == 0 and even < 1 and SENSIBLE[0] <= width / even <= SENSIBLE[1]:
        second = 1
    if not second:
        return None
    rate = width / (even * second)
    # Rounded times blur the rate by up to a sample in the whole recording.
    rate = float(round(rate)) if abs(rate - round(rate)) * len(numbers) < rate else rate
    return f"the column {name}" if name else "the first column, taken for seconds,", rate


def step(column):
    """The step of a column (samples,) that rises evenly, rounding and gaps aside, as times do; else None."""
    at = np.flatnonzero(np.isfinite(column))
    if len(at) < max(3, 0.9 * len(column)) or not (np.diff(column[at]) > 0).all():
        return None
    even = (column[at[-1]] - column[at[0]]) / (at[-1] - at[0])
    return even if np.abs(column[at] - column[at[0]] - even * (at - at[0])).max() <= even else None


def continues(names, values):
    """Whether each row of `values` (rows, columns) goes on where the row before ended, one signal in lines of text.

    Then the last number of a row is nearer to the first of the next than the numbers of a column are to each other,
    as are neighbours in a row. Columns that are called after leads are believed.
    """
    if values.shape[1] < 3 or len(values) < 20 or any(lead_of(name) for name in names):
        return False
    down = np.nanmean(np.abs(np.diff(values, axis=0)))
    across = np.nanmean(np.abs(np.diff(values, axis=1)))
    over = np.nanmean(np.abs(values[1:, 0] - values[:-1, -1]))
    return bool(max(across, over) < 0.7 * down)
