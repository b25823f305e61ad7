"""Headers of WFDB records: which files hold the signals, at which rate and gain.

Source: WFDB header(5). A record's line has its name[/segments], the number of signals, rate[/counter[(base)]] and
samples, of which the last two may be missing; a signal's line its file, format, gain[(baseline)][/unit], resolution,
zero and more, of which all after the format may be missing; a segment's line its name and samples.
"""

import re
from collections import namedtuple

import bounds
from shell import UserError

# rate in Hz, told: whether the header tells it; samples: None where it tells none; parts: the names of the segments
# or, of a record that is not segmented, of the signals' files, once each; lines: without comments.
Header = namedtuple("Header", "name segmented rate rate_told samples parts signals lines")
Signal = namedtuple("Signal", "gain gain_told baseline unit")  # gain: numbers per unit; baseline: the number of 0

DEFAULT_RATE, DEFAULT_GAIN, DEFAULT_UNIT = 250.0, 200.0, "mV"  # by the standard, where the header tells none
NO_GAIN = "the header tells no gain, so WFDB's 200 per mV was assumed"
NO_RATE = "the header tells no rate, so WFDB's 250 Hz was assumed"
LONGEST_LINE = 1000  # characters; the standard allows 255
MOST_LINES = 10_000  # of signals or segments
MOST_BYTES = 4_000_000  # comments and all
FASTEST = 1_000_000  # Hz

NUMBER = r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?"
RATE = re.compile(rf"({NUMBER})(?:/{NUMBER})?(?:\({NUMBER}\))?")
GAIN = re.compile(rf"({NUMBER})?(?:\(([+-]?\d{{1,12}})\))?(?:/(\S+))?")
FORMAT = re.compile(r"\d{1,4}(?:x\d{1,6})?(?::\d{1,12})?(?:\+\d{1,12})?")


def parse(content, where):
    """The `Header` in the bytes of a header file, which `where` names in a `UserError`."""
    lines = [line.strip() for line in re.split(r"\r\n?|\n", content[: MOST_BYTES + 1].decode("latin-1"))]
    lines = [line for line in lines if line and line[0] != "#"]
    if len(content) > MOST_BYTES:
        raise _broken(where, f"it has more than {MOST_BYTES:,} bytes")
    if len(lines) > MOST_LINES + 1 or max(map(len, lines), default=0) > LONGEST_LINE:
        raise _broken(where, f"it has more than {MOST_LINES:,} lines or {LONGEST_LINE:,} characters in one")
    fields = lines[0].split() if lines else []
    if len(fields) < 2:
        raise _broken(where, "its first line is no name and number of signals" if fields else "it is empty")
    name, slash, _ = fields[0].partition("/")
    signals, samples = (_count(field, where) for field in (fields[1], *fields[3:4], "0")[:2])
    bounds.check_size(2 * signals * samples, where, "describes")  # of 16-bit samples
    return Header(
        name,
        bool(slash),
        _rate(fields[2], where) if len(fields) > 2 else DEFAULT_RATE,
        len(fields) > 2,
        samples or None,
        list(dict.fromkeys(line.split()[0] for line in lines[1:])),
        [] if slash else [_signal(line.split(), where) for line in lines[1:]],
        lines,
    )


def _broken(where, why):
    return UserError(f"{where} is not a WFDB record ({why}); export or fetch it again")


def _count(field, where):
    if not re.fullmatch(r"[0-9]{1,15}", field):
        raise _broken(where, f"{field[:40]!r} is no number of signals or samples")
    return int(field)


def _rate(field, where):
    match = RATE.fullmatch(field)
    if not match or not 0 < float(match[1]) <= FASTEST:
        raise _broken(where, f"its sampling rate is {field[:40]!r}")
    return float(match[1])


def _signal(fields, where):
    """The `Signal` of a line's fields."""
    if len(fields) < 2 or not FORMAT.fullmatch(fields[1]):
        raise _broken(where, f"{' '.join(fields)[:40]!r} is no signal's file and format")
    match = GAIN.fullmatch(fields[2] if len(fields) > 2 else "")
    if not match:
        raise _broken(where, f"the gain of a signal is {fields[2][:40]!r}")
    gain = float(match[1] or 0)
    zero = fields[4] if len(fields) > 4 else "0"
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", zero):
        raise _broken(where, f"the zero of a signal is {zero[:40]!r}")
    return Signal(gain or DEFAULT_GAIN, bool(gain), int(match[2] or zero), match[3] or DEFAULT_UNIT)
