"""Recordings in text: header lines, of which any may tell rate and unit, then columns of numbers.

`read` goes from `split` (header and body) over `separator`, `parse` and `trim` (the numbers) to `rate`, `voltage` and
`names` (what the header tells).
"""

import csv
import io
import json
import re
from collections import Counter
from datetime import date

import numpy as np

import bounds
import columns
from leads import ECG, kind, lead_of, microvolts
from shell import UserError

GAPS = {"", "na", "n/a", "#n/a", "null", "none", "-", "--"}  # besides NaN and inf, which float() knows
RUN = 20  # lines of numbers that make a body
FIRST_BYTES = 2_000_000  # of a text, which tell how to read the rest
MOST_LEADING = 5  # rows of numbers above the samples
CLOCK = re.compile(r"'?\[?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)\]?'?")
DAY = 86400  # s
DATE = r"\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4}"
TIME = r"(\d\d?):(\d\d)(?::(\d\d(?:[.{}]\d{{1,9}})?))?(?:\s*([AaPp])\.?[Mm]\.?)?(?:\s*(?:Z|UTC)\b|[+-]\d\d:?\d\d)?"
# A date with a time after it, or before it as PhysioNet's rdsamp writes; with decimal commas where no commas separate.
STAMPS = {
    mark: re.compile(rf"'?\[?(?:({DATE})[T\s]\s*{TIME.format(mark)}|{TIME.format(mark)}\s+({DATE}))\]?'?")
    for mark in ("", ",")
}

HERTZ = r"(?:h(?:z\b|ert\w*|erc\w*)|г(?:ц|ерц)|χερτζ|ヘルツ|赫兹?|赫茲|헤르츠|هرتز|הרץ)"
NUMBER = r"(?P<number>\d+(?:[.,]\d+)*(?:e[+-]?\d+)?)"
GAP = r"[\s\"'=:,;()\[\]_-]*(?:is|of|at|in)?[\s\"'=:,;()\[\]_-]*"
CALLED = r"(?:channel|signal|sensor|lead)s?(?:[\s_]*(?:name|type|label|title|\d+))?[\s,:;=\t]+(.+)"
SECONDS = r"(?:µs|μs|us(?:ec\w*)?|micros\w*|ms(?:ec\w*)?|millis\w*|s(?:ec\w*)?)\b"
# Words of sampling. "Rate" alone begins a line; a heart, a filter and a clock have rates and frequencies too.
RATE_WORDS = (
    r"(?:sampl\w*?[\s_.-]*(?:rate|freq\w*)|\bs_?rate"
    r"|\bsfreq|\bfs|^\W*sps|^\W*samples?\s*(?:/|per)\s*s(?:ec(?:ond)?)?\b|abtast(?:rate|freq\w*)|messrate"
    r"|[ée]chantillonnage|muestreo|campionamento|amostragem|дискретизации"
    r"|采样频?率|採樣頻?率|サンプリング周波数|サンプル(?:レート|周波数)|샘플링)"
)
SHORT_WORDS = (
    r"(?:^[\"'{\s]*rate\b|[,;\t{]\s*[\"']?rate\b|(?:data|acqui\w+|adc|digiti\w+|record\w*)[\s_]*(?:rate|freq\w*))"
)
STEP_WORDS = r"(?:sampl\w*[\s_-]*(?:interval|period|step|spacing)|^\W*(?:interval|period|dt|time[\s_]?step)\b)"
# After these, a frequency is a filter's, another sensor's, or what it was before.
SENSORS = r"\b(?:acc|gyr|mag|ppg|pleth|emg|eda|gsr|eeg|resp|temp|spo2|imu)"
ANOTHER = (
    r"\b(?:acc|accel\w*|gyr\w*|mag|magnet\w*|ppg|pleth\w*|emg|eda|gsr|eeg|resp|respiration|respiratory|temp|temperature|spo2|imu)"
    r"(?![^\W_])"
)
NOT_ITS = rf"filt|notch|pass|cut|band|\bfrom|{SENSORS}"
NUMBER_FIRST = [
    rf"{NUMBER}\s*(?:samples?|values?|points?|s)\s*(?:/|per)\s*s(?:ec(?:onds?)?)?\b",
    rf"{NUMBER}\s*sps\b",
    rf"{NUMBER}\s*(?P<step_after>{SECONDS})\s*(?:/|per)\s*(?:sample|value|point)",
    # Not of "low-pass 100 Hz, sampling rate 256 Hz", where another number with its unit follows.
    rf"{NUMBER}\s*(?P<after>k)?{HERTZ}\W{{0,3}}sampl(?!\w*[\s_-]*(?:rate|freq\w*|interval|period|step)?"
    rf"(?:{GAP}(?:k?{HERTZ}|{SECONDS}){GAP}\d|{GAP}\d[\d.,]*\s*(?:k?{HERTZ}|{SECONDS})))",
    rf"sampl(?:e|ed|ing)\s+from\s+[\d.,]+\s*k?{HERTZ}\s*(?:down\s*)?to\s+{NUMBER}\s*(?P<after>k)?{HERTZ}",
]
WORDS_FIRST = [
    rf"{RATE_WORDS}{GAP}(?P<before>k?hz\b|sps|1/s\b|samples?\s*(?:/|per)\s*s\w*)?{GAP}"
    rf"{NUMBER}\s*(?P<after>k(?=hz|sps\b|s/s)|{SECONDS})?",
    rf"{STEP_WORDS}{GAP}(?P<step_before>{SECONDS})?{GAP}{NUMBER}\s*(?P<step_after>{SECONDS})?",
    rf"{SHORT_WORDS}{GAP}{NUMBER}\s*(?P<after>k)?{HERTZ}",
    rf"sampl(?:(?!{NOT_ITS})[^\d\n]){{0,25}}?{NUMBER}\s*(?P<after>k)?{HERTZ}",
]
NUMBER_FIRST, WORDS_FIRST = ([re.compile(each, re.I) for each in part] for part in (NUMBER_FIRST, WORDS_FIRST))
USUAL_RATES = {100, 125, 128, 200, 250, 256, 300, 360, 400, 500, 512, 1000, 1024, 2000}  # Hz


def read(content, path, unit=None, whole=False):
    """(list of `Channel`, notes) of a text, bytes in any common encoding; `unit` plays no part. Raises `UserError`.

    whole: read all of it line by line; else its first lines tell how to read a long one quickly.
    """
    content, rest = (content, b"") if whole else divide(content)
    bounds.check_size(len(content), path, most=bounds.MOST_TEXT)
    lines = decode(content.rstrip(b"\x1a"), path)
    if not content.strip():
        raise UserError(f"{path} is empty; export it again")
    first = split(lines, path)
    lines = [*lines[:first], *_day_first(lines[first:])]
    header = [line.lstrip("#%/ \t") for line in lines[:first] if line.strip("#%/ \t,;")]
    body = [seconds(line) for line in lines[first:] if not line.lstrip().startswith("#")]
    body = [re.split(r"\t#(?!n/a)", line, maxsplit=1, flags=re.I)[0] for line in body]  # LabChart's comments
    # In quotes, a comma parts thousands or is a decimal one.
    comma = "" if _thousands(body) else "."
    body = [re.sub(r'"([^"]*)"', lambda match: match[1].replace(",", comma), line) for line in body]
    between, notes = separator(body[MOST_LEADING:] if len(body) > RUN else body, header[-1] if header else "")
    if len(body) == 1:  # a signal laid down
        body, between = body[0].rstrip(f" {between or ''}").split(between), None
    values = parse(body, between, first, path, header)
    leading = trim(values, body, between)
    above = [line for line in header if is_numeric(line)] + body[:leading]
    if above:
        notes.append(f"above the samples, {'; '.join(line.strip() for line in above)[:80]} was taken for a header")
    values = values[leading:]
    if rest:
        more = quickly(rest, between, values.shape[1])
        if more is None:
            return read(content + rest, path, unit, whole=True)
        values = np.concatenate([values, more])
    clocks = _clocks(lines[first:], between, values.shape[1])
    for i in clocks:  # midnight
        values[1:, i] += DAY * np.cumsum(np.diff(values[:, i]) < -DAY / 2)

    stamp = STAMPS["," if ";" in lines[first] or "\t" in lines[first] else ""].search(lines[first]) if clocks else None
    joined = clocks[0] if stamp and re.search(re.escape(between) if between else r"\s", stamp[0]) else None
    told, rest = names(header, between, values.shape[1], joined)
    own_rate, doubt = rate(rest, values.shape[1] == 1)
    own_unit, unit_doubt = voltage(rest)
    doubt = "; ".join(each for each in (doubt, unit_doubt) if each)
    channels, changes = columns.read(told, values, own_rate, own_unit, path, doubt, clocks)
    return channels, notes + changes


def _thousands(body):
    """Whether the commas in quotes part thousands: all may, and other numbers of their column are below a thousand and
    whole.
    """
    try:  # a line of no more than one field may be a whole signal
        rows = list(csv.reader(line for line in body if '"' in line and "," in line))
    except csv.Error:
        return False
    places = {i for row in rows for i, field in enumerate(row) if "," in field}
    if not places:
        return False
    fields = [row[i].strip() for row in rows for i in places if i < len(row)]
    if not all(re.fullmatch(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", each) for each in fields if "," in each):
        return False
    others = (row[i].strip() for row in csv.reader(body) for i in places if i < len(row))
    return any(re.fullmatch(r"[-+]?\d{1,3}(?:\.\d+)?", each) for each in others)


def divide(content):
    """(the first lines, the rest) of a text, bytes; the rest is empty where it is short or in UTF-16."""
    end = content.find(b"\n", FIRST_BYTES) + 1
    return (content[:end], content[end:]) if end and b"\0" not in content[:4] else (content, b"")


def quickly(rest, between, width):
    """Numbers (lines, columns) of the `rest` of a text, NaN where there is none, by pandas: a day in seconds.

    None where it holds anything but numbers in so many columns, which only `parse` understands or refuses.
    """
    import pandas as pd

    decimal = "," if between != "," and b"," in rest else "."
    try:
        table = pd.read_csv(
            io.BytesIO(rest.rstrip()),
            sep=between or r"\s+",
            decimal=decimal,
            header=None,
            dtype=np.float64,
            na_values=[*GAPS],
            skip_blank_lines=False,
            float_precision="round_trip",
            encoding="latin-1",
        )
    except (ValueError, OverflowError):
        return None
    return table.to_numpy() if table.shape[1] == width else None


def decode(content, path):
    """The lines of a text in UTF-8, UTF-16 or Latin-1, which Windows code page 1252 resembles."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content[:2]:
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        raise UserError(f"{path} is in a format that is not read here; export the recording as EDF, WFDB or CSV")
    # Copying between systems may double the carriage return; some locales write a minus of their own.
    return re.sub(r"\r+\n?", "\n", text).replace("\N{MINUS SIGN}", "-").rstrip().split("\n")


def split(lines, path):
    """The index of the first line of the body, the first that begins a long run of lines of numbers alone."""
    first = start = None
    length = 0
    for i, line in enumerate(lines):
        if is_numeric(seconds(line)) and _without_dates(line, "").strip(" \t,;"):
            start, length = (i, 1) if not length else (start, length + 1)
            first = start if first is None else first
            if length == RUN:
                return start
        elif line.strip(" \t,;"):  # empty lines may be gaps
            length = 0
    if first is None:
        raise UserError(
            f"{path} holds no lines of numbers and times alone; remove the columns of words, or export it as CSV"
        )
    return first


def _day_first(lines):
    """The lines, with the month before the day exchanged where that is their order, as across a midnight it shows."""
    pattern = re.compile(r"\b(\d\d?)([-/.])(\d\d?)\2(?=\d{4}\b)")
    found = {match for line in lines if ":" in line for match in pattern.findall(line)}
    ones, others = {int(one) for one, _, _ in found}, {int(other) for _, _, other in found}
    if not found or max(ones) > 12 or not (max(others) > 12 or len(ones) == 1 < len(others)):
        return lines
    return [pattern.sub(r"\3\2\1\2", line) for line in lines]


def seconds(line):
    """A line with each date that has a time beside it as seconds, "2026-01-02 10:00:00.5" as "63902124000.500000"."""
    if ":" not in line:
        return line
    return _without_dates(line, _seconds_of)


def _seconds_of(match):
    day, *time, after = [match[1], *match.groups()[1:5], None] if match[1] else [None, *match.groups()[5:]]
    hour, minute, second, half = time
    days = _days(day or after)
    if days is None:
        return match[0]
    hour = int(hour) % 12 + 12 * (half in ("p", "P")) if half else int(hour)
    return f"{DAY * days + 3600 * hour + 60 * int(minute) + float((second or '0').replace(',', '.')):.6f}"


def _days(text):
    """The number of a day, year or day first unless that makes no date; None where there is none."""
    first, middle, last = (int(part) for part in re.split(r"[-/.]", text))
    year, month, day = (first, middle, last) if first > 31 else (last, middle, first)
    try:
        return date(year, month, day).toordinal() if month <= 12 else date(year, day, month).toordinal()
    except ValueError:
        return None


def _clocks(lines, between, width):
    """The columns of times of day, with or without dates, in the lines of a body; their numbers are seconds."""
    for line in lines[:RUN]:
        fields = re.split(re.escape(between) if between else r"\s+", _without_dates(line, "0:00").strip())
        if len(fields) >= width and any(":" in field for field in fields):
            return [i for i, field in enumerate(fields[:width]) if ":" in field]
    return []


def _without_dates(line, instead):
    """A line with something instead of each date that has a time beside it."""
    return STAMPS["," if ";" in line or "\t" in line else ""].sub(instead, line)


def is_numeric(line):
    """Whether a line holds numbers and gaps alone, and not dates alone."""
    fields = [field for field in re.split(r'[\s;,"|]+', line) if field]
    if not fields or any(number(field) is None for field in fields):
        return False
    return not all(re.fullmatch(DATE, field) for field in fields)


def number(field):
    """The number in a field, seconds of a clock, NaN for a gap or a date, None for other text."""
    try:
        return float(field)
    except ValueError:
        pass
    field = field.strip()
    clock = CLOCK.fullmatch(field)
    if clock:
        return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
    return np.nan if field.casefold() in GAPS or re.fullmatch(DATE, field) else None


def separator(body, above=""):
    """(what separates the columns, None for blanks; notes) of lines in which a comma may be a decimal one.

    above: the header's last line, which may name two columns.
    """
    text = "\n".join(body)
    for between in ";\t|":
        if between in text:
            return between, []
    if "," not in text:
        return None, []
    rows = [line.rstrip(", ").split(",") for line in body if line.strip(", ")]
    if "." in text or not all(len(row) == 1 or (len(row) == 2 and row[1].isdigit()) for row in rows):
        return ",", []
    # Left are lines such as 12,34: decimals, or two columns of integers, which have no "-0" and no leading zeros. A
    # number without decimals among them speaks for decimals too, and, where no titles of columns are above, a sign
    # that only the first part ever has.
    titles = above.split(",")
    named = len(titles) == 2 and all(kind(title) for title in titles)
    parts = np.array([number(row[0]) for row in rows], np.float64)
    sure = any(len(row) == 1 or row[0] == "-0" or re.match("0.", row[1]) for row in rows)
    signed = not named and any(row[0].startswith("-") for row in rows)
    if (sure or signed) and not columns.step(parts):
        return None, ["commas were taken as decimal commas"]
    return ",", []


def _name_columns(line, between):
    """How many columns a line of a header names, 0 where it seems to say something else."""
    fields = line.rstrip(" ,;\t").split(between)
    named = any(kind(field) == "ecg" or columns.units(field) for field in fields)
    return (
        len(fields)
        if named or any(columns.TIME_NAMES.intersection(columns.plain_words(each)) for each in fields)
        else 0
    )


def parse(body, between, first, path, header=()):
    """Numbers (lines, columns) of a text's lines, NaN where there is none; the first is line `first`, from 0.

    header: its lines, of which the last may name columns that are mostly empty.
    """
    rows = []
    for line in body:
        line = line if between == "," else line.replace(",", ".")
        rows.append(line.rstrip(f" {between}").split(between) if between else line.split())
    width = Counter(len(row) for row, line in zip(rows, body, strict=True) if line.strip()).most_common(1)[0][0]
    named = [_name_columns(line, between) for line in header] if between else []
    told = named[-1] if named and width not in named else 0
    if told > max(width, 2) and told <= Counter(len(line.split(between)) for line in body).most_common(1)[0][0]:
        width = told  # the last columns are mostly empty
    values, wrong = np.full((len(rows), width), np.nan), []
    for i, row in enumerate(rows):
        numbers = [number(field) for field in row]
        if None in numbers or (len(row) > width and i >= MOST_LEADING):
            wrong.append(i)
        else:
            values[i, : min(len(row), width)] = numbers[:width]
    if wrong:
        where = f"{body[wrong[0]][:40]!r} among its numbers (line {first + wrong[0] + 1}, comments apart)"
        what = (
            f"each line should hold {width}, so mend that one or delete it"
            if len(wrong) == 1
            else f"{len(wrong)} lines are not {width} numbers, so export the columns of numbers alone"
        )
        raise UserError(f"{path} has {where}; {what}")
    return values


def trim(values, body, between):
    """How many of the first lines of a body, parsed as `values` (lines, columns), do not belong to the rest.

    They hold another number of fields, far larger numbers than the rest ever has, no decimals where all others have
    as many, or the number of lines that follow.
    """
    if len(values) < RUN + MOST_LEADING or len(body) != len(values) or not np.isfinite(values).any():
        return 0
    rest = values[MOST_LEADING:]
    known = np.where(np.isfinite(rest), rest, np.nanmedian(rest))
    low, high = known.min(axis=0), known.max(axis=0)
    span = 10 * (high - low)
    decimals = re.compile(r"\d[.](\d+)" if between == "," else r"\d[.,](\d+)")
    pointed = not all(decimals.search(line) for line in body[:MOST_LEADING]) and _printed_alike(body, decimals)
    leading = 0
    for i in range(MOST_LEADING):
        stray = ((values[i] < low - span) | (values[i] > high + span)).any()
        bare = pointed and not decimals.search(body[i]) and body[i].strip(" 0;,\t")
        if _another_width(body[i], between, values.shape[1]) or stray or bare or _is_count(values, i):
            leading = i + 1
    return leading + (leading < MOST_LEADING and values.shape[1] == 1 and _is_rate(values[leading:, 0], leading))


def _is_rate(numbers, leading):
    """Whether the first of some numbers (samples,) is a sampling rate: a usual one, below others or far off."""
    steps = np.abs(np.diff(numbers))
    return numbers[0] in USUAL_RATES and (leading > 0 or steps[0] > np.nanpercentile(steps, 95))


def _printed_alike(body, decimals):
    """Whether the lines of a body after the first have decimals, and the same number of them."""
    written = {tuple(map(len, decimals.findall(line))) for line in body[MOST_LEADING:]}
    return len(written) == 1 and written != {()}


def _another_width(line, between, width):
    fields = line.split(between)
    told = line.rstrip(f" {between or ''}").split(between)
    return bool(line.strip()) and (len(fields) < width or len(told) > width)


def _is_count(values, i):
    """Whether line i begins with the number of the lines that follow, and is no falling index."""
    if values.shape[1] > 2 or values[i, 0] - values[i + 1, 0] == 1:
        return False
    return 0 <= len(values) - 1 - i - values[i, 0] < MOST_LEADING


def names(header, between, width, joined=None):
    """(a name for each column, "" for none; the other header lines) where a header line gives them, units and all.

    They stand in the last line that has as many fields as there are columns, above a line of units where there is one;
    in LabChart's ChannelTitle; or in the JSON header of OpenSignals. joined: the column of dates with a time beside
    them, which may have a name each.
    """
    special = _labchart(header, width) or _opensignals(header, width)
    if special:
        return special, header
    rows = [_fields(line, between, width, joined) for line in header]
    if not header or not rows[-1] or _is_setting(rows[-1]):
        return _lead_line(header, width), header
    last = len(rows) - 1
    own = [""] * width
    bare = [[field.strip("()[]") for field in row] for row in rows]
    rows = [plain if _are_units(plain) else row for row, plain in zip(rows, bare, strict=True)]
    while last and rows[last - 1] and _are_units(rows[last]) and not _is_setting(rows[last - 1]):
        own = [new if microvolts(new) is not None or new in columns.TIMES else old
               for old, new in zip(own, rows[last], strict=True)]  # fmt: skip
        last -= 1
    told = [f"{name} ({each})" if each else name for name, each in zip(rows[last], own, strict=True)]
    return told, header[:last]


def _fields(line, between, width, joined=None):
    line = line.rstrip(" ,;\t")
    if width == 1:
        setting = re.search(rf"[,;\t:=]|\d\s*k?{HERTZ}", line, re.I) or _rates(line)
        return [] if setting else [line.strip("\"'")]
    fields = [field.strip(" \"'") for field in line.split(between)]
    if joined is not None and len(fields) == width + 1:  # a date and its time, which are one number
        fields[joined : joined + 2] = [" ".join(fields[joined : joined + 2])]
    return fields if len(fields) == width else []


def _is_setting(fields):
    """Whether a line tells a unit, a rate or another number, and no names."""
    numbers = any(re.match(r"[-+]?\d[\d.,]*\b", field) for field in fields)
    return len(fields) == 2 and (numbers or bool(re.match(r"(?:unit|einheit|unidad)", fields[0], re.I)))


def _are_units(fields):
    """Whether a line gives units or kinds of numbers, such as "ms, kOhms, mV" or "CAL, RAW", and no names."""
    if any(kind(field) == "ecg" for field in fields):
        return False
    known = any(microvolts(field) is not None or field in columns.TIMES for field in fields)
    return known or all(field.casefold() in ("cal", "raw", "uncal", "") for field in fields)


def _lead_line(header, width):
    """What a header calls a single column, as "Signal: EMG" or the Apple Watch's "Lead,Lead I" or its translation."""
    if width > 1:
        return [""] * width
    said = [re.fullmatch(CALLED, line.strip(" ,;\t"), re.I) for line in header]
    said = [match[1].strip(' "') for match in said if match and kind(match[1])]
    fields = [field.strip(' "') for line in header for field in re.split(r"[,;\t]", line)]
    leads = [field for field in fields if re.fullmatch(r"(?:\w+ )?(?:I{1,3}|aV[RLF]|V\d)", field)]
    return leads[-1:] or said[-1:] or [""]


def _labchart(header, width):
    """The names of LabChart's columns: a time, then its channels, whose units its ranges tell."""
    rows = {line.split("=")[0]: line.rstrip().split("\t")[1:] for line in header if "=\t" in line}
    titles = rows.get("ChannelTitle", [])
    if not titles or len(titles) not in (width, width - 1):
        return None
    found = rows.get("UnitName") or [each.split()[-1] if each.split() else "" for each in rows.get("Range", [])]
    found += [""] * (len(titles) - len(found))
    told = [f"{title} ({each})" if each else title for title, each in zip(titles, found, strict=False)]
    return ["Time (s)"] * (width - len(titles)) + told


def _opensignals(header, width):
    """The names in OpenSignals' JSON header: its columns, the last of which are its sensors'."""
    for line in header:
        try:
            devices = json.loads(line)
        except ValueError:
            continue
        for device in devices.values() if isinstance(devices, dict) else ():
            told = device.get("column") if isinstance(device, dict) else None
            if isinstance(told, list) and len(told) == width:
                sensors = [str(each) for each in device.get("sensor") or []]
                kinds = [""] * (width - len(sensors)) + sensors
                return [f"{name} {each}".strip() for name, each in zip(told, kinds, strict=True)]
    return None


def rate(header, single=False):
    """(rate in Hz, doubt) that words of sampling in header lines tell; None and why where they tell none or several.

    single: there is one column, so this may be an Apple Watch's export, whose words may be in any language.
    """
    found = {each for line in header for each in _rates(line)}
    if (
        not found
        and single
        and voltage(header)[0]
        and any(lead_of(re.split(r"[,;\t]", line)[-1]) for line in header[-4:])
    ):
        hertz = rf'[^,;\t]*[,;\t]\s*"?(\d+(?:[.,]\d+)?)\s*{HERTZ}\W*'
        found = {_float(match[1]) for line in header for match in [re.fullmatch(hertz, line, re.I)] if match}
    if len(found) > 1:
        return None, "its header says " + " and ".join(f"{each:g}" for each in sorted(found)) + " Hz"
    return (found.pop() if found else None), ""


def _rates(line):
    """The rates (Hz) in a header line. A number before "samples/s" is one, so that after it ("12 bit") is not."""
    if re.search(r"original|native|before", line, re.I):  # what it was before it was resampled
        return set()
    for patterns in (NUMBER_FIRST, WORDS_FIRST):
        found = {
            _hertz(match)
            for pattern in patterns
            for match in pattern.finditer(line)
            if not _of_another(line[: match.start()])
        } - {None}
        if found:
            return found
    return set()


def _of_another(before):
    """Whether the text before a rate, back to what parts clauses, is of another sensor, as "Acc"."""
    clause = re.split(r"[,;{}\[\]\t|]|\.\s", before)[-1]
    # Since the number before, which is of what stands before it.
    since = re.split(r"(?<![\w.,])\d[\d.,]*(?!\w)|[{}]", before)[-1]
    return bool(re.search(ANOTHER, clause, re.I)) and not ECG.search(since.casefold())


def _float(text, thousand=False):
    """The number in a text, in which a comma may be a decimal one or part thousands; thousand: it is one of kHz."""
    decimal = float(text.replace(",", ".")) if text.count(",") + text.count(".") < 2 else 0
    sensible = decimal * (1000 if thousand else 1) >= columns.SENSIBLE[0]
    return decimal if sensible or "," not in text else float(text.replace(",", ""))


def _hertz(match):
    """The rate (Hz) that a match of one of the patterns tells, None where its number is none."""
    groups = match.groupdict()
    seconds = groups.get("step_before") or groups.get("step_after")
    after = (groups.get("after") or "").casefold()
    if after not in ("", "k"):
        seconds = after
    if seconds or "step_after" in groups:
        value = float(groups["number"].replace(",", "."))
        return float(f"{1 / (value * _second(seconds)):.9g}") if seconds and value else None
    thousand = after == "k" or (groups.get("before") or "").casefold() == "khz"
    value = float(groups["number"]) if "e" in groups["number"].casefold() else _float(groups["number"], thousand)
    return value * (1000 if thousand else 1) or None


def _second(word):
    word = word.casefold()
    return 1 if word.startswith("s") else 1e-3 if word.startswith(("ms", "milli")) else 1e-6


def voltage(header):
    """(unit, doubt) that header lines tell; None and why where they tell none or several."""
    found = {each for line in header for each in columns.units(line)}
    if len({microvolts(each) for each in found}) > 1:
        return None, "its header says " + " and ".join(sorted(found))
    return (found.pop() if found else None), ""
