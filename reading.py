"""Read one recording from the files people have: WFDB, .mat, EDF, CSV or text.

python reading.py FILE...                say what was read from each
"""

import io
import re
import warnings
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import scipy.io

from shell import UserError, parser, run_script

# signal: float64 (samples,) in µV; sampling_rate in Hz; notes: sentences about what was assumed or changed.
Recording = namedtuple("Recording", "signal sampling_rate notes")
# rate in Hz and unit as the file gives them, else None; load() returns the numbers (samples,) in that unit.
Channel = namedtuple("Channel", "name rate unit load")

RATES = 50, 5000  # Hz
LEAST_SECONDS = 5
GAP_SECONDS, GAP_SHARE = 1, 0.1  # the longest gap, and the share of all samples, that are interpolated
CONSTANT_SECONDS = 0.2  # from here on, a constant end is padding or a loose electrode, and seen by the model
# µV between the 1st and 99th percentile: the challenge's recordings have 187 to 9,795. Unlike the extremes, the
# percentiles do not follow one electrode pop; a QRS complex every second still fills more than a hundredth.
AMPLITUDES = 20, 20_000

GAPS = {"", "na", "n/a", "#n/a", "null", "none", "-", "--"}  # besides NaN and inf, which float() knows
HERTZ = r"(?:h(?:z|ert|erc)|г(?:ц|ерц)|χερτζ|ヘルツ|赫|헤르츠|هرتز|הרץ)"
RATE = re.compile(rf"(\d+(?:[.,]\d+)?)\s*{HERTZ}|{HERTZ}\W+(\d+(?:[.,]\d+)?)", re.I)
PIECES = re.compile(r'[,;\t:=()\[\]"]+|[\s_/]+(?=[muµμ]v\b)', re.I)  # what stands around a unit
TIMES = {"s": 1, "sec": 1, "second": 1, "seconds": 1, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "us": 1e-6}
TIME_NAMES = {*TIMES, "time", "timestamp", "t", "zeit", "temps", "tiempo"}
NOT_ECG = re.compile(
    r"(?<![a-z])(?:acc|gyr|resp|sp?[ao]o?2|pleth|ppg|abp|cvp|pap|art\b|bp\b|eeg|emg|eog|eda|gsr|temp|pulse|hr\b"
    r"|event|annot|status|trigger|marker|battery)",
    re.I,
)


def read(path, lead=None, fs=None, unit=None):
    """The `Recording` in a file of any of the formats, cleaned but not resampled.

    lead: name or number from 1 (None: lead I, else II, else the first that may be an ECG); fs: Hz; unit: mV, uV or
    raw (the stored numbers as they are). fs and unit win over what the file says. Raises `UserError`.
    """
    path = Path(path)
    channels, notes = _open(path, unit)
    index, choice = _choose([channel.name for channel in channels], lead, path)
    _, own_rate, own_unit, load = channels[index]
    notes = [*choice, *notes]

    rate = own_rate if fs is None else fs
    scale = _microvolts(own_unit or "")
    if fs is not None and own_rate not in (None, fs):
        notes.append(f"the file says {own_rate:g} Hz but --fs {fs:g} was taken")
    if unit == "raw":
        scale = 1
        notes.append("the stored numbers were taken as they are, as 1000 per mV")
    elif unit:
        if scale not in (None, _microvolts(unit)):
            notes.append(f"the file says {own_unit} but --unit {unit} was taken")
        own_unit, scale = unit, _microvolts(unit)
    lacking = [("sampling rate", "--fs HZ")] if rate is None else []
    if scale is None:
        lacking.append((f"voltage ({own_unit!r} is none)" if own_unit else "unit", "--unit mV, uV or raw"))
    if lacking:
        things, flags = zip(*lacking, strict=True)
        raise UserError(f"{path} does not tell its {' or '.join(things)}; pass {' and '.join(flags)}")

    signal, changes = _clean(scale * np.asarray(load(), np.float64), rate, path)
    if unit != "raw":
        _check_amplitude(signal, own_unit, scale, path)
    return Recording(signal, float(rate), notes + changes)


def _open(path, unit):
    """(list of `Channel`, notes) of a file, whose format its name and first bytes tell."""
    header = Path(f"{path}.hea")
    suffix = path.suffix.lower()
    if suffix in (".hea", ".dat", ".mat") and not header.is_file():
        header = path.with_suffix(".hea")
    if header.is_file() or suffix in (".hea", ".dat"):
        return _read_wfdb(header, unit)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a recording")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name a recording") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if suffix == ".mat":
        return _read_mat(content, unit, path)
    if content.startswith((b"0       ", b"\xffBIOSEMI")):
        return _read_edf(content, unit, path)
    return _read_text(content, path)


def _choose(names, lead, path):
    """(index of the lead to take, notes) among the names of all channels."""
    if not names:
        raise UserError(f"{path} holds no signal; name another recording")
    if lead is not None:
        found = [i for i, name in enumerate(names) if name.casefold() == lead.casefold()]
        found = found or [i for i, name in enumerate(names) if _plain(name) == _plain(lead)]
        if not found and lead.isdecimal() and 1 <= int(lead) <= len(names):
            found = [int(lead) - 1]
        if not found:
            raise UserError(f"{path} has no lead {lead}; pass --lead one of {', '.join(names)}, or its number from 1")
    else:
        likely = [i for i, name in enumerate(names) if not NOT_ECG.search(name)]
        if not likely:
            raise UserError(f"{path} holds {', '.join(names)}, none of which may be an ECG; pass --lead if one is")
        found = [i for wanted in ("i", "ii") for i in likely if _plain(names[i]) == wanted] or likely
    index = found[0]
    others = ", ".join(names[:index] + names[index + 1 :])
    return index, [f"of {len(names)} leads {names[index]} was taken; the others are {others}"] if others else []


def _plain(name):
    """What tells leads apart: i for "I", "Lead I" and "ECG_I"; ii also for "MLII", the modified lead II."""
    return re.sub(r"^ml(?=i)", "", re.sub(r"ecg|ekg|lead|\W|_", "", name.casefold()))


def _microvolts(unit):
    """µV in one unit such as "mV", "µV", "V" or "microvolts"; None for what is no voltage."""
    # Case folding makes one of the two code points that are written µ.
    match = re.fullmatch(r"(m|milli|м|u|μ|micro|mikro|мк|n|nano)?(?:v|volt\w*|в)", unit.strip().casefold())
    return match and {None: 1e6, "m": 1e3, "milli": 1e3, "м": 1e3, "n": 1e-3, "nano": 1e-3}.get(match[1], 1)


def _read_wfdb(header, unit):
    try:
        _check_parts(header)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about how wfdb uses it
            import wfdb  # slow to import

            # An absolute path, for wfdb takes "s3://…" as an order to fetch.
            record = wfdb.rdrecord(str(header.absolute().with_suffix("")), physical=unit != "raw")
    except UserError:
        raise
    except Exception as error:  # wfdb raises whatever its parser stumbles on
        raise UserError(f"{header} is not a WFDB record ({_one_line(error)}); export or fetch it again") from error
    signals = record.d_signal if unit == "raw" else record.p_signal
    return [
        Channel(name or f"lead {i + 1}", record.fs, record.units[i], lambda i=i: signals[:, i])
        for i, name in enumerate(record.sig_name or [])
    ], []


def _check_parts(header):
    """Refuse a header that is missing, or that names files which are not beside it."""
    if not header.is_file():
        raise UserError(f"{header} does not exist; a WFDB record needs its header beside its signals")
    lines = [line for line in header.read_text("latin-1").splitlines() if line.strip() and line[0] != "#"]
    segmented = "/" in lines[0].split()[0]
    for name in {line.split()[0] for line in lines[1:]} - {"~"}:
        part = f"{name}.hea" if segmented else name
        if Path(part).name != part or not header.with_name(part).is_file():
            raise UserError(f"{header} names {part}, which is not beside it; put both into one folder")
        if segmented:
            _check_parts(header.with_name(part))


def _one_line(error):
    return " ".join(str(error).split())


def _read_mat(content, unit, path):
    try:
        leads = np.atleast_2d(scipy.io.loadmat(io.BytesIO(content), variable_names=["val"])["val"])
    except KeyError:
        raise UserError(f"{path} has no variable 'val'; save the signal under that name") from None
    except Exception as error:  # loadmat raises whatever its parser stumbles on
        raise UserError(f"{path} is not a MATLAB file ({_one_line(error)}); save it as version 4 to 7.2") from error
    if leads.dtype.kind not in "iuf" or leads.ndim != 2:
        raise UserError(f"{path} holds {leads.dtype} of shape {leads.shape}; expected a row of numbers per lead")
    leads = leads if leads.shape[0] <= leads.shape[1] else leads.T
    notes = [] if unit else ["the file has no header, so its unit was taken to be 1000 per mV"]
    own = None if unit else "uV"
    return [Channel(f"lead {i + 1}", None, own, lambda i=i: leads[i]) for i in range(len(leads))], notes


def _read_edf(content, unit, path):
    import edfio

    opened = edfio.read_bdf if content[0] == 0xFF else edfio.read_edf
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            edf = opened(content, header_encoding="latin-1")  # µ, though the format is ASCII
            continuous = edf.is_continuous
            channels = [
                Channel(
                    signal.label or f"lead {i + 1}",
                    signal.sampling_frequency,
                    signal.physical_dimension,
                    lambda signal=signal: signal.digital if unit == "raw" else signal.data,
                )
                for i, signal in enumerate(edf.signals)
            ]
    except Exception as error:  # edfio raises whatever its parser stumbles on
        raise UserError(f"{path} is a damaged EDF file ({_one_line(error)}); export it again") from error
    if not continuous:
        raise UserError(f"{path} is an EDF+ recording with interruptions; export one stretch of it")
    return channels, [f"the file is damaged: {_one_line(warning.message)}" for warning in caught]


def _read_text(content, path):
    """Channels of a text: header lines, of which any may tell rate and unit, then columns of numbers."""
    lines = _decode(content, path)
    first = next((i for i, line in enumerate(lines) if _is_numeric(line)), None)
    if first is None and not content.strip():
        raise UserError(f"{path} is empty; export it again")
    if first is None:
        raise UserError(
            f"{path} holds no lines of numbers alone; remove columns of dates or words, or export it as CSV"
        )
    header = [line.lstrip("# \t") for line in lines[:first] if line.strip("# \t,;")]
    body = [line for line in lines[first:] if not line.lstrip().startswith("#")]
    # In quotes, a comma can only be a decimal one.
    body = [re.sub(r'"([^"]*)"', lambda match: match[1].replace(",", "."), line) for line in body]
    separator, notes = _separator(body)
    values = _parse(body, separator, first, path)
    values = values.T if len(values) == 1 else values  # a single line is a signal laid down
    width = values.shape[1]

    names = _columns(header[-1], separator, width) if header else []
    other = header[:-1] if names else header
    rate, unit = _declared(other)
    if not names and width == 1:  # the Apple Watch's last lines are "Lead,Lead I" and "Unit,µV", or their translation
        fields = [field.strip(' "') for line in other for field in re.split(r"[,;\t]", line)]
        names = [field for field in fields if re.fullmatch(r"(?:\w+ )?(?:I{1,3}|aV[RLF]|V\d)", field)][-1:]

    channels = []
    for i in range(width):
        name = names[i] if names else ""
        timed = TIME_NAMES.intersection(re.findall(r"[a-z]+", name.casefold()))
        step = _step(values[:, i]) if width > 1 else None
        if width > 1 and (step or timed):
            told = _rate_of_times(name, step, len(values)) if step and rate is None else None
            if told:
                rate = told
                notes.append(f"the column {name} tells the sampling rate, {rate:g} Hz")
            elif not step:
                notes.append(f"the times in the column {name} are uneven and were left out")
        elif np.isfinite(values[:, i]).any():
            own = _units(name)[-1:]  # of "V (mV)", a lead V, the last
            pieces = [piece.strip(" _") for piece in PIECES.split(name)]
            name = " ".join(piece for piece in pieces if piece and piece not in own) or name
            channels.append((name or f"lead {len(channels) + 1}", own[0] if own else unit, values[:, i]))
    return [Channel(name, rate, own, lambda column=column: column) for name, own, column in channels], notes


def _declared(lines):
    """(rate in Hz, unit) that header `lines` tell, each None where they tell none or several."""
    rates = {float((match[1] or match[2]).replace(",", ".")) for line in lines for match in RATE.finditer(line)}
    rates = {rate for rate in rates if RATES[0] <= rate <= RATES[1]} or rates  # a filter's 0.5 Hz is none
    units = {unit for line in lines for unit in _units(line)}
    scales = {_microvolts(unit) for unit in units}
    return rates.pop() if len(rates) == 1 else None, units.pop() if len(scales) == 1 else None


def _rate_of_times(name, step, samples):
    """The sampling rate (Hz) that a column of times tells by its name and its even `step`, or None."""
    words = re.findall(r"[a-z]+", name.casefold())
    second = next((TIMES[word] for word in reversed(words) if word in TIMES), None)
    if not second and step != 1 and TIME_NAMES.intersection(words):  # steps of 1 may count samples
        # Between s and ms lies a factor of 1000, so at most one of them makes a sampling rate of an ECG.
        second = next((each for each in (1, 1e-3) if RATES[0] <= 1 / (step * each) <= RATES[1]), None)
    if not second:
        return None
    rate = 1 / (step * second)
    # Rounded times blur the rate by up to a sample in the whole recording.
    return float(round(rate)) if abs(rate - round(rate)) * samples < rate else rate


def _decode(content, path):
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
        raise UserError(f"{path} is neither WFDB, .mat, EDF nor text; export the recording as one of them")
    # Copying between systems may double the carriage return.
    return re.sub(r"\r+\n?", "\n", text).rstrip().split("\n")


def _is_numeric(line):
    fields = [field for field in re.split(r'[\s;,"]+', line) if field]
    return bool(fields) and not any(_number(field) is None for field in fields)


def _number(field):
    """The number in a field, NaN for a gap, None for other text."""
    try:
        return float(field)
    except ValueError:
        return np.nan if field.strip().casefold() in GAPS else None


def _separator(body):
    """(what separates the columns, None for blanks; notes) of lines in which a comma may be a decimal one."""
    text = "\n".join(body)
    for separator in ";\t":
        if separator in text:
            return separator, []
    if "," not in text:
        return None, []
    rows = [line.rstrip(", ").split(",") for line in body if line.strip(", ")]
    if "." in text or not all(len(row) == 1 or (len(row) == 2 and row[1].isdigit()) for row in rows):
        return ",", []
    # Left are lines such as 12,34: decimals, or two columns of integers, which have no "-0" and no leading zeros.
    # A number without decimals among them, or a sign that only the first part ever has, speaks for decimals too.
    parts = np.array([_number(row[0]) for row in rows], np.float64)
    if any(len(row) == 1 or row[0].startswith("-") or re.match("0.", row[1]) for row in rows) and not _step(parts):
        return None, ["commas were taken as decimal commas"]
    return ",", []


def _parse(body, separator, first, path):
    """Numbers (lines, columns) of a text's lines, NaN where there is none; the first is line `first`, from 0."""
    rows = []
    for line in body:
        line = line if separator == "," else line.replace(",", ".")
        rows.append(line.rstrip(f" {separator}").split(separator) if separator else line.split())
    width = Counter(len(row) for row, line in zip(rows, body, strict=True) if line.strip()).most_common(1)[0][0]
    values = np.full((len(rows), width), np.nan)
    for i, row in enumerate(rows):
        numbers = [_number(field) for field in row]
        if None in numbers or len(row) > width:
            raise UserError(
                f"{path} has {body[i][:40]!r} among its numbers (line {first + i + 1}, comments apart); "
                f"each line should hold {width}, so mend that one or delete it"
            )
        values[i, : len(row)] = numbers
    return values


def _columns(line, separator, width):
    """The names of all columns where a header line gives them, else []."""
    line = line.rstrip(" ,;\t")
    if width == 1:
        return [line.strip('"')] if not re.search(r"[,;\t:=]", line) else []
    names = [name.strip(' "') for name in line.split(separator)]
    return names if len(names) == width else []


def _units(text):
    """The voltages among the fields, bracketed parts and last words of a header line."""
    return [piece.strip() for piece in PIECES.split(text) if _microvolts(piece) is not None]


def _step(column):
    """The step of a column (samples,) that rises evenly, rounding and gaps aside, as times do; else None."""
    at = np.flatnonzero(np.isfinite(column))
    if len(at) < max(3, 0.9 * len(column)) or not (np.diff(column[at]) > 0).all():
        return None
    step = (column[at[-1]] - column[at[0]]) / (at[-1] - at[0])
    return step if np.abs(column[at] - column[at[0]] - step * (at - at[0])).max() <= step else None


def _clean(signal, rate, path):
    """(signal, notes) without gaps and constant ends, of a signal (samples,) at a rate in Hz."""
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{path} has a sampling rate of {rate:g} Hz; pass --fs between {RATES[0]} and {RATES[1]}")
    known = np.flatnonzero(np.isfinite(signal))
    if not known.size:
        raise UserError(f"{path} holds no samples; export the recording again")
    notes = []
    ends = len(signal) - (known[-1] + 1 - known[0])
    if ends:
        notes.append(f"at the ends {ends} samples were missing and were cut off")
    signal, known = signal[known[0] : known[-1] + 1], known - known[0]
    missing = len(signal) - len(known)
    if missing:
        longest = (np.diff(known).max() - 1) / rate
        if longest > GAP_SECONDS or missing > GAP_SHARE * len(signal):
            raise UserError(
                f"{path} lacks {missing / len(signal):.0%} of its samples, up to {longest:.1f} s at a stretch; at most "
                f"{GAP_SHARE:.0%} and {GAP_SECONDS} s can be interpolated, so cut out a whole stretch"
            )
        signal = np.interp(np.arange(len(signal)), known, signal[known])
        notes.append(f"{missing} sample{'s were' if missing > 1 else ' was'} missing and interpolated")

    changes = np.flatnonzero(np.diff(signal))
    if not changes.size:
        raise UserError(f"{path} is constant throughout; name another recording or --lead")
    first, last = changes[0] + 1, changes[-1] + 1  # of what lies between the constant ends
    stop = len(signal)
    if (stop - last) / rate >= CONSTANT_SECONDS:
        notes.append(f"the last {(stop - last) / rate:.1f} s were constant and were cut off")
        stop = last
    if first / rate >= CONSTANT_SECONDS:
        notes.append(f"the first {first / rate:.1f} s were constant and were cut off")
        signal, stop = signal[first:], stop - first
    signal = signal[:stop]
    if len(signal) / rate < LEAST_SECONDS:
        rest = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"{path} lasts {len(signal) / rate:.1f} s{rest}; at least {LEAST_SECONDS} s are needed")
    return signal, notes


def _check_amplitude(signal, unit, scale, path):
    """Refuse a signal (samples,) in µV whose amplitude shows that its numbers, scale µV each, were in another unit."""
    amplitude = np.subtract(*np.percentile(signal, [99, 1])) / scale
    if AMPLITUDES[0] <= amplitude * scale <= AMPLITUDES[1]:
        return
    fitting = [
        f"{other}, or " for other in ("mV", "uV") if AMPLITUDES[0] <= amplitude * _microvolts(other) <= AMPLITUDES[1]
    ]
    size = f"{amplitude:,.0f}" if amplitude >= 10 else f"{amplitude:.2g}"
    raise UserError(
        f"{path}: its amplitude of {size} {unit} is not that of an ECG in {unit}; "
        f"pass --unit {''.join(fitting)}raw to take its numbers as they are"
    )


def main():
    flags = parser(__doc__)
    flags.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings; rate and unit must be in them")
    for path in flags.parse_args().files:
        signal, rate, notes = read(path)
        print("; ".join([f"{path}: {len(signal) / rate:.1f} s at {rate:g} Hz", *notes]))


if __name__ == "__main__":
    run_script(main)
