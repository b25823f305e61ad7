"""One reader for each format: (bytes, path, unit) to (list of `leads.Channel`, notes).

`read` finds the reader by the first bytes; a format that is not read is refused by its name. unit: what the user says,
of which only raw matters here, the numbers as they are stored.
"""

import contextlib
import io
import json
import re
import shutil
import struct
import tempfile
import warnings
import zipfile
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import scipy.io

import bounds
import columns
import headers
import matlab
import texts
from leads import MOST_LEADS, Channel, kind, listed, microvolts
from shell import UserError, are_texts

EXPORT = "export the recording as EDF, WFDB or CSV"
PICTURE = "export the samples, for a picture of them is not enough"
CELL_BYTES = 20  # of a table, reckoned generously: as many cells as fit into what is read
XML_MAKERS = {
    "RestingECG": "GE's MUSE XML",
    "CardiologyXML": "GE's XML",
    "sapphire": "GE's XML",
    "restingecgdata": "Philips's XML",
}
DEFLATED = b"1.2.840.10008.1.2.1.99"
MATLAB_UNIT = "the file has no header, so its unit was taken to be 1000 per mV"
LEAST_SAMPLES = 250  # 5 s at the slowest rate; shorter arrays are settings
FHIR_LEADS = dict(zip(range(131329, 131337), ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), strict=True))
# AliveCor's blocks, from "ecg" and "ecg2" to "ecgc".
KARDIA_LEADS = dict(
    zip(
        [b"ecg", *(b"ecg" + digit.encode() for digit in "23456789abc")],
        ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
        strict=True,
    )
)


def read(path, content, unit):
    """(list of `Channel`, notes) of a file's `content`, whose first bytes tell the format. Raises `UserError`."""
    name, reader = _format(path, content)
    if isinstance(reader, str):
        raise UserError(f"{path} is {name}, which is not read; {reader}")
    if name in ("JSON", "XML"):
        bounds.check_size(len(content), path, most=bounds.MOST_TEXT)
    try:
        return reader(content, path, unit)
    except UserError:
        raise
    except Exception as error:  # libraries raise whatever their parsers stumble on
        raise UserError(f"{path} is a damaged {name} file ({one_line(error)}); export it again") from error


def _format(path, content):
    """(name, reader or advice) of the format that a file's first bytes tell, else, if it is no text, its suffix."""
    binary = b"\0" in content[:4096]
    for start, suffixes, name, reader in READERS:
        if (start and re.match(start, content, re.DOTALL)) or (binary and path.suffix.lower() in suffixes.split()):
            return name, reader
    return "text", texts.read


def one_line(error):
    """An exception's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__


# --- WFDB ---


def read_wfdb(path, unit):
    """Channels of the WFDB record whose header is `path`, each at its own rate. Raises `UserError`."""
    header, notes = _check_parts(path)
    try:
        with tempfile.TemporaryDirectory() as folder:
            import wfdb  # slow to import

            # An absolute path, for wfdb takes "s3://…" as an order to fetch.
            readable = path if _readable(path) else _copy(path, Path(folder), "record")
            name = str(readable.absolute().with_suffix(""))
            record = wfdb.rdrecord(name, physical=unit != "raw", smooth_frames=False)
        return _wfdb_channels(record, header.rate, unit, path), notes
    except UserError:
        raise
    except Exception as error:  # wfdb raises whatever its parser stumbles on, or returns a part of a record
        raise UserError(f"{path} is not a WFDB record ({one_line(error)}); export or fetch it again") from error


def _wfdb_channels(record, rate, unit, path):
    signals = record.e_d_signal if unit == "raw" else record.e_p_signal
    if signals is None:
        raise UserError(f"{path} is not a WFDB record (it has no signals); export or fetch it again")
    names, frames = record.sig_name or [], record.samps_per_frame
    if rate * max(frames) < 5 and not any(kind(name) == "ecg" for name in names):
        raise UserError(
            f"{path} holds numerics ({listed(names)}, one each {1 / rate:g} s) and no ECG; name the record of waveforms"
        )
    return [
        Channel(name or f"lead {i + 1}", rate * frames[i], record.units[i], partial(_get, signals, i))
        for i, name in enumerate(names)
    ]


def _get(signals, i):
    return signals[i]


def _header(path):
    return headers.parse(bounds.read_file(path), path)


def segments(path):
    """The names of the segments of the record whose header is `path`; none where it has none or cannot be read."""
    try:
        header = _check_parts(path)[0]
    except UserError:
        return []
    # Of a record with gaps, which may be too long, the segments can be read alone.
    return [part for part in header.parts if header.segmented and ("~" not in header.parts or part.endswith("_layout"))]


def is_of(header, path):
    """Whether the WFDB header in the file `header` is one of the signals in `path`, or cannot be read."""
    try:
        return path.name.casefold() in [part.casefold() for part in _header(header).parts]
    except UserError:
        return True


def _check_parts(path):
    """(`Header`, notes on it) of a header; refuse one that is missing, holds no signals, or whose files are not beside
    it.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; a WFDB record needs its header beside its signals")
    header = _header(path)
    if header.parts == ["~"] and not header.segmented:
        raise UserError(
            f"{path} is the layout of a record in several parts and holds no signals; name that record's own header"
        )
    notes = [] if header.rate_told else [headers.NO_RATE]
    notes += [] if all(signal.gain_told for signal in header.signals) else [headers.NO_GAIN]
    for name in header.parts:
        if name == "~":
            continue
        part = f"{name}.hea" if header.segmented else name
        found = _beside(path.with_name(part)) if Path(part).name == part else None
        if not found:
            raise UserError(f"{path} names {part}, which is not beside it; put both into one folder")
        if header.segmented and _header(found).segmented:
            raise UserError(f"{path} is not a WFDB record (its segment {name} has some too); export or fetch it again")
        if header.segmented and not name.lower().endswith("_layout"):
            notes += _check_parts(found)[1]
    return header, list(dict.fromkeys(notes))


def _beside(path):
    """The file of this name in whatever case, or None."""
    if path.is_file():
        return path
    alike = (each for each in path.parent.iterdir() if each.name.lower() == path.name.lower())
    return next((each for each in alike if each.is_file()), None)


def _readable(path):
    """Whether wfdb finds a header's files and takes its name, letters, digits, "-" and "_", and its rate, digits."""
    header = _header(path)
    files = [path.with_name(f"{part}.hea" if header.segmented else part) for part in header.parts if part != "~"]
    plain = r"[-\w]+(?:/\d+)?\s+\d+(?:\s+\d+(?:\.\d*)?(?:[/(\s].*)?)?"
    if path.suffix != ".hea" or not re.fullmatch(plain, header.lines[0]):
        return False
    if not all(file.is_file() for file in files):
        return False
    if header.segmented:
        return all(map(_readable, files))
    return not any(_is_strange(file, file.name, header) for file in files)


def _is_strange(file, part, header):
    """Whether the samples of a MATLAB file are not from byte 24 on, as the `Header` says, in which it is called `part`.

    That is where those of `val` are in version 4 and 16 bits, in which the challenge has them.
    """
    if not any(line.split()[:2] == [part, "16+24"] for line in header.lines[1:]):
        return False
    with open(file, "rb") as opened:
        start = opened.read(24)
    return start[:6] == b"MATLAB" or (start[16:] == b"\4\0\0\0val\0" and start[:4] != b"\x1e\0\0\0")


def _copy(path, folder, name):
    """Copy a header and its files into `folder`, each named and written as wfdb wants it; the copied header."""
    header = _header(path)
    fields = header.lines[0].split()
    fields[0] = re.sub(r"^[^/]+", re.sub(r"\W", "_", name), fields[0])
    fields[2:3] = [np.format_float_positional(header.rate, trim="-")]
    for part in header.parts:
        if part == "~":
            continue
        file = _beside(path.with_name(f"{part}.hea" if header.segmented else part))
        if header.segmented:
            _copy(file, folder, part)
        elif _is_strange(file, part, header):
            channels, _ = read(file, bounds.read_file(file), "raw")
            numbers = np.stack([channel.load() for channel in channels])
            whole = numbers.astype(np.int16)
            if not (whole == numbers).all():
                raise UserError(
                    f"{path} names {part}, which does not hold whole numbers of 16 bits, as it says; move the header "
                    "away to read that file alone"
                )
            scipy.io.savemat(folder / part, {"val": whole}, format="4")
        else:
            shutil.copy(file, folder / part)
    copied = folder / f"{name}.hea"
    copied.write_text("\n".join([" ".join(fields), *header.lines[1:]]) + "\n", "latin-1")
    return copied


# --- EDF, MATLAB, AliveCor ---


def read_edf(content, path, unit):
    """Channels of an EDF or BDF file without interruptions."""
    import edfio

    opened = edfio.read_bdf if content[0] == 0xFF else edfio.read_edf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        edf = opened(content, header_encoding="latin-1")  # µ, though the format is ASCII
        if not edf.is_continuous:
            raise UserError(
                f"{path} is an EDF+ recording with interruptions; export it without, as EDF+C, or each stretch alone"
            )
        channels = [
            Channel(
                signal.label or f"lead {i + 1}",
                signal.sampling_frequency,
                signal.physical_dimension,
                lambda signal=signal: signal.digital if unit == "raw" else signal.data,
            )
            for i, signal in enumerate(edf.signals)
        ]
    return channels, [f"the file is damaged: {one_line(warning.message)}" for warning in caught]


def read_mat(content, path, unit):
    """Channels of the variable `val` in a MATLAB file up to version 7.2."""
    return _val(matlab.load(content, path), path, unit)


def _val(numbers, path, unit):
    return matrix("", np.atleast_2d(numbers), None, None if unit else "uV", path), [] if unit else [MATLAB_UNIT]


def matrix(name, numbers, rate, unit, path, names=()):
    """A `Channel` for each lead of an array (leads, samples) or (samples, leads), the samples being more."""
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 2:
        raise UserError(f"{path} holds {numbers.dtype} of shape {numbers.shape}; expected a row of numbers per lead")
    numbers = numbers if numbers.shape[0] <= numbers.shape[1] else numbers.T
    if len(numbers) > MOST_LEADS:
        raise UserError(f"{path} has {len(numbers)} rows, more than an ECG has leads; save one recording alone")
    if len(names) != len(numbers):
        names = [name] if name and len(numbers) == 1 else [f"{name or 'lead'} {i + 1}" for i in range(len(numbers))]
    return [Channel(each, rate, unit, partial(_get, numbers, i)) for i, each in enumerate(names)]


def read_atc(content, path, unit):
    """Leads of AliveCor's own format: blocks of an id, a length, data and the sum of all these bytes."""
    at, blocks = 12, {}
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            raise UserError(f"{path} is a damaged AliveCor file (it ends within a block); fetch it again")
        total = int(np.frombuffer(content[at:end], np.uint8).sum(dtype=np.uint64)) % 2**32
        if total != struct.unpack_from("<I", content, end)[0]:
            why = f"the checksum of its block {name.decode('latin-1').strip()!r} is wrong"
            raise UserError(f"{path} is a damaged AliveCor file ({why}); fetch it again")
        blocks.setdefault(name.strip(b" \0"), content[at + 8 : end])
        at = end + 4
    if len(blocks.get(b"fmt", b"")) < 5 or b"ecg" not in blocks:
        raise UserError(f"{path} is a damaged AliveCor file (it lacks its format or its lead I); fetch it again")
    coding, rate, nanovolts = struct.unpack_from("<BHH", blocks[b"fmt"])
    if coding != 1 or not nanovolts:
        raise UserError(f"{path} is an AliveCor file of the unknown coding {coding}, {nanovolts} nV; {EXPORT}")
    scale = 1 if unit == "raw" else nanovolts / 1000
    channels = []
    for block, name in KARDIA_LEADS.items():
        numbers = np.frombuffer(blocks.get(block, b"")[: len(blocks.get(block, b"")) // 2 * 2], "<i2")
        if numbers.size:
            channels.append(Channel(name, float(rate), "uV", partial(np.multiply, numbers, scale)))
    return channels, []


# --- arrays by name: NumPy, HDF5, JSON ---


def arrays(found, path, unit=None):
    """(channels, notes) of a dict of arrays and single values by name ("group/array"), from whatever container.

    A value whose name is of sampling tells the rate, one called unit the unit, unless `unit` is given: the nearest to
    an array counts. Arrays of one length, rate and unit are columns, in which times tell the rate too.
    """
    if not all(are_texts(value) for value in found.values()):
        raise ValueError("a text in it is none")
    found = dict(_as_times(*pair) for pair in found.items())
    numbers = {name: np.squeeze(value) for name, value in found.items() if np.asarray(value).dtype.kind in "iuf"}
    numbers = {k: v for k, v in numbers.items() if v.ndim in (1, 2) and v.size >= LEAST_SAMPLES}
    numbers = {k: v for k, v in numbers.items() if max(v.shape) >= LEAST_SAMPLES or _are_packets(v)}
    called = _short_names(numbers)
    if not numbers:
        shapes = listed([f"{k or 'an array'} of shape {np.shape(v)}" for k, v in found.items() if np.ndim(v)])
        raise UserError(f"{path} holds {shapes or 'no arrays'}; expected an array of the samples of each lead")
    channels, notes, groups = [], [], {}
    for name, array in numbers.items():
        rate, own, doubt = _settings(found, name, numbers)
        if array.ndim == 1:
            groups.setdefault((len(array), rate, unit or own, doubt), {})[called[name]] = array
        else:
            told, width = _names(found, array), array.shape[1]
            if not told and _are_packets(array):
                groups.setdefault((array.size, rate, unit or own, doubt), {})[called[name]] = array.ravel()
                notes.append(
                    f"the {width} numbers of each row of {called[name] or 'the array'} continue those of the row before"
                )
            else:
                channels += matrix(called[name], array, rate, unit or own, path, told)
    for (_, rate, own, doubt), group in groups.items():
        values = np.column_stack(list(group.values())).astype(np.float64)
        more, changes = columns.read(list(group), values, rate, own, path, doubt)
        channels, notes = channels + more, notes + changes
    return channels, notes


def _are_packets(array):
    """Whether the rows of an array (rows, columns) are packets of one signal, and none that rest at their ends."""
    rows, width = array.shape
    if rows < columns.SURE_ROWS or not columns.continues([""] * width, array.astype(np.float64)):
        return False
    joins = np.stack([array[:-1, -1], array[1:, 0]])
    joins = joins[:, np.isfinite(joins).all(0)]
    return bool(np.ptp(joins, 1).all() and np.corrcoef(joins)[0, 1] > 0.5)


def _as_times(name, value):
    """(name, value), or, of dates with times, texts or NumPy's, "name (s)" and seconds since 1970, and of spans."""
    given = np.asarray(value)
    if given.dtype.kind in "mM" and given.size > 1:
        seconds = given.astype(f"{given.dtype.kind}8[ns]").astype(np.float64) / 1e9
        return f"{name} (s)", np.where(np.isnat(given), np.nan, seconds)
    if given.dtype.kind != "U" or given.size < LEAST_SAMPLES or texts.seconds(given.flat[0]) == given.flat[0]:
        return name, value
    try:
        return f"{name} (s)", np.array([float(texts.seconds(each)) - 719163 * texts.DAY for each in given.ravel()])
    except ValueError:
        return name, value


def _short_names(names):
    """{name: as many of its last parts as tell it from the other `names`}."""
    parts, short = {name: name.split("/") for name in names}, {}
    for name, own in parts.items():
        others = [other for each, other in parts.items() if each != name]
        least = next((n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)), len(own))
        short[name] = "/".join(own[-least:])
    return short


def _settings(found, name, arrays):
    """(rate in Hz, unit, doubt) of the array of that name, told beside it, else in a group above, else anywhere but
    with those of the `arrays` that are other signals.
    """
    theirs = {group for each in arrays if kind(each) == "other" for group in [each, *_groups(each)]}
    theirs -= {name, *_groups(name)}
    single = {
        key: np.unique(value)[0]
        for key, value in found.items()
        if key != name and _is_single(value) and theirs.isdisjoint(_groups(key)) and kind(key.split("/")[-1]) != "other"
    }
    parts, rate, unit, doubt = name.split("/"), None, None, ""
    for above in [*("/".join(parts[:i]) for i in range(len(parts), -1, -1)), None]:
        near = [(key.split("/")[-1], v) for key, v in single.items() if above in (None, "/".join(key.split("/")[:-1]))]
        if not rate and not doubt:
            rate, doubt = texts.rate([f"{key}: {value}" for key, value in near])
        if not unit:
            told = {str(value) for key, value in near if re.search(r"(?:^|_)units?$", key, re.I)}
            unit = told.pop() if len(told) == 1 else None
    return rate, unit, doubt


def _groups(name):
    """The groups that the array or value of that name lies in."""
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _is_single(value):
    return np.size(value) == 1 or (np.asarray(value).dtype.kind == "U" and len(np.unique(value)) == 1)


def _names(found, array):
    """Names of an array's leads, where a list of as many texts is called so."""
    lists = [np.ravel(value) for key, value in found.items() if re.search(r"(?:lead|channel|sig|ch)\w*$", key, re.I)]
    return next(([str(each) for each in told] for told in lists
                 if told.dtype.kind == "U" and len(told) == min(array.shape)), ())  # fmt: skip


def read_npy(content, path, unit):
    """Channels of a NumPy array, without unpickling."""
    array = _load(content, path)
    return arrays({name: array[name] for name in array.dtype.names} if array.dtype.names else {"": array}, path)


def _load(content, path):
    try:
        file = np.load(io.BytesIO(content), allow_pickle=False)
        return file if isinstance(file, np.ndarray) else dict(file)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path} holds Python objects, which are not read; save arrays of numbers") from None
        raise


def read_zip(content, path, unit):
    """Channels of .npz and .xlsx, which are zip files; another is refused."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    inside = archive.namelist()
    document = next((told for name, told in DOCUMENTS.items() if name in inside), None)
    if document:
        raise UserError(f"{path} is {document[0]}, which is not read; {document[1]}")
    excel = "xl/workbook.xml" in inside
    if not excel and (not inside or not all(name.endswith(".npy") for name in inside)):
        raise UserError(f"{path} is a zip archive; unpack it and name the recordings in it")
    bounds.check_zip(archive, path)
    if excel:
        return read_excel(content, path)
    return arrays(_load(content, path), path)


def read_hdf5(content, path, unit):
    """Channels of the datasets of an HDF5 file, or of `val` in MATLAB's 7.3."""
    import h5py

    found, sizes = {}, []

    def keep(name, item):
        found.update({f"{name}/{key}".lstrip("/"): _plain(value) for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise UserError(f"{path} keeps {name} in other files, which are not read; save all as one file")
            sizes.append(item.nbytes)
            bounds.check_size(sum(sizes), path, "unpacks to")
            found[name] = _plain(item[()])

    _check_heaps(content)
    with h5py.File(io.BytesIO(content), "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its lengths do not have 64 bits")
        keep("", file)
        file.visititems(keep)
    if content.startswith(b"MATLAB") and np.size(found.get("val", 0)) > 1:
        return _val(found["val"], path, unit)
    hidden = re.compile(r"(?:^|/)(?:#|MATLAB_|H5PATH)")
    return arrays({name: value for name, value in found.items() if not hidden.search(name)}, path)


def _check_heaps(content):
    """Raise `ValueError` where a heap of an HDF5 file, of texts of any length, holds free space of no length: the
    library would stay at that place for ever.
    """
    steps = len(content) // 16 + 1  # as many as all heaps of a file can take, unless they overlap
    for heap in re.finditer(rb"GCOL\x01...", content, re.DOTALL):
        at, end = heap.end() + 8, heap.start() + int.from_bytes(content[heap.end() : heap.end() + 8], "little")
        while at + 16 <= min(end, len(content)):
            number, length = struct.unpack_from("<H6xQ", content, at)
            steps -= 1
            if steps < 0 or not (number or length):
                raise ValueError("a heap of it holds nothing of no length")
            at += 16 + -(-length // 8) * 8 if number else length


def _plain(value):
    """An array of HDF5, with its bytes as text."""
    value = np.asarray(value)
    if value.dtype.kind not in "SO":
        return value
    return np.array([each.decode() if isinstance(each, bytes) else str(each) for each in value.ravel()])


def read_json(content, path, unit):
    """Channels of JSON: FHIR's observations, Fitbit's and Withings's recordings, or arrays by name."""
    try:
        told = json.loads(content)
    except ValueError:
        if content.lstrip()[:1] == b"[":  # a text may begin so
            return texts.read(content, path, unit)
        raise
    sampled = list(_sampled_data(told))
    if sampled:
        sampled = _joined(sampled)
        called = [name for _, name in sampled]
        if several := next((name for name in called if name and called.count(name) > 1), None):
            raise UserError(f"{path} holds {called.count(several)} recordings of {several}; save each alone")
        if any(data.get("dimensions", 1) != 1 for data, _ in sampled):
            raise UserError(f"{path} has samples of several dimensions, which are not read; save each lead alone")
        return [_fhir_channel(data, name, unit) for data, name in sampled], []
    readings = told.get("ecgReadings") if isinstance(told, dict) else None
    if readings:
        return [_fitbit_channel(each, unit, len(readings) > 1) for each in readings], []
    found = dict(_flat(told))
    keys = {key.split("/")[-1] for key in found}
    withings = not unit and {"signal", "sampling_frequency"} <= keys and not any("unit" in key for key in keys)
    channels, notes = arrays(found, path, "uV" if withings else None)
    return channels, [*notes, "the numbers were taken to be µV, as Withings writes them"] if withings else notes


def _flat(told, name=""):
    """(name, array or value) of the lists of numbers and the values in nested JSON."""
    inside = {}
    if isinstance(told, dict):
        inside = told
    elif isinstance(told, list) and told and all(isinstance(each, dict) for each in told):
        keys = dict.fromkeys(key for each in told for key in each)
        inside = told[0] if len(told) == 1 else {key: [each.get(key) for each in told] for key in keys}
    elif isinstance(told, list):
        try:
            yield name, np.array(told, np.float64)
        except (ValueError, TypeError):
            yield name, np.array([str(each) for each in told])
    elif told is not None and not isinstance(told, bool):
        yield name, told
    for key, value in inside.items():
        yield from _flat(value, f"{name}/{key}" if name else key)


def _sampled_data(told, name="", within=None):
    """(SampledData, name of what it is of, the Observation that it is in) of all in nested FHIR resources."""
    if isinstance(told, dict):
        code = told.get("code")
        name = (_fhir_name(code) if isinstance(code, dict) else "") or name
        within = told if told.get("resourceType") == "Observation" else within
        for key, value in told.items():
            yield from [(value, name, within)] if key == "valueSampledData" else _sampled_data(value, name, within)
    elif isinstance(told, list):
        for each in told:
            yield from _sampled_data(each, name, within)


def _joined(sampled):
    """[(SampledData, name)] of what `_sampled_data` found: pieces of one lead in one Observation follow each other."""
    joined = {}
    for data, name, within in sampled:
        how = tuple((key, str(value)) for key, value in sorted(data.items()) if key != "data")
        joined.setdefault((id(within) if within else None, name, how), (data, name, []))[2].append(data.get("data", ""))
    return [(data | {"data": " ".join(pieces)}, name) for data, name, pieces in joined.values()]


def _fhir_name(code):
    for coding in code.get("coding", []):
        number = str(coding.get("code", ""))
        if number.isdecimal() and int(number) in FHIR_LEADS:
            return f"Lead {FHIR_LEADS[int(number)]}"
        if number.startswith("MDC_ECG"):
            return number
    return str(code.get("text") or next((c["display"] for c in code.get("coding", []) if c.get("display")), ""))


def _fhir_channel(data, name, unit):
    """A `Channel` of FHIR's SampledData, in which E is no sample, L and U are below and above what can be measured."""
    period = data.get("period")  # ms
    if period is None and data.get("intervalUnit") in ("ms", "s", "us"):
        period = data["interval"] * {"ms": 1, "s": 1000, "us": 1e-3}[data["intervalUnit"]]
    lost = {"E": np.nan, "L": data.get("lowerLimit", np.nan), "U": data.get("upperLimit", np.nan)}
    numbers = np.array([lost[each] if each in lost else float(each) for each in data.get("data", "").split()], float)
    origin = data.get("origin", {})
    if unit != "raw":
        numbers = origin.get("value", 0) + data.get("factor", 1) * numbers
    rate = float(f"{1000 / period:.9g}") if period else None
    own = origin.get("code") or origin.get("unit")
    return Channel(name or "lead 1", rate, own and str(own), lambda: numbers)


def _fitbit_channel(reading, unit, many):
    samples = np.array(reading["waveformSamples"], np.float64)
    if samples.ndim != 1:
        raise ValueError("its samples are no list of numbers")
    scale = 1 if unit == "raw" else float(reading["scalingFactor"])
    name = f"recording of {reading.get('startTime', 'unknown time')}" if many else "Lead I"
    return Channel(name, float(reading["samplingFrequencyHz"]), "mV", lambda: samples / scale)


# --- tables, XML, DICOM ---


def read_parquet(content, path, unit):
    """Channels of the columns of numbers in a Parquet file."""
    _optional("pyarrow", path)
    import pandas as pd
    from pyarrow import parquet

    told = parquet.ParquetFile(io.BytesIO(content)).metadata
    packed = sum(told.row_group(i).total_byte_size for i in range(told.num_row_groups))
    bounds.check_size(max(packed, 8 * told.num_rows * told.num_columns), path, "unpacks to")
    table = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    if not isinstance(table.index, pd.RangeIndex):
        own = table.index.is_monotonic_increasing and set(table.index.names).isdisjoint(table)  # as times do
        table = table.reset_index(drop=not own)
    found = {str(name): table[name].to_numpy() for name in table if table[name].dtype.kind in "iufm"}
    times = [name for name in table if table[name].dtype.kind == "M"]
    found |= {f"{name} (s)": table[name].to_numpy("datetime64[ns]").astype(float) / 1e9 for name in times}
    left = [str(name) for name in table if str(name) not in found and name not in times]
    channels, notes = arrays(found, path)
    return channels, [*notes, f"columns without numbers were left out: {listed(left)}"] if left else notes


def read_excel(content, path):
    """Channels of the first sheet of an Excel file, read as a text of its cells."""
    openpyxl = _optional("openpyxl", path)
    with contextlib.redirect_stdout(io.StringIO()):  # where it prints what is out of range
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    rows = book.worksheets[0].iter_rows(values_only=True)
    lines, cells = [], 0
    for row in rows:
        cells += len(row)
        bounds.check_size(CELL_BYTES * cells, path, "unpacks to")
        lines.append("\t".join("" if cell is None else str(cell).replace("\t", " ") for cell in row))
    channels, notes = texts.read("\n".join(lines).encode(), path)
    others = [sheet.title for sheet in book.worksheets[1:]]
    return channels, [*notes, f"the first sheet was read; the others are {listed(others)}"] if others else notes


def read_xml(content, path, unit):
    """Leads of HL7's annotated ECG; XML of another kind is refused by its name."""
    if b"<html" in content[:2000].lower():
        raise UserError(f"{path} is a page of the web; export the recording again")
    root = ElementTree.fromstring(content)
    name = root.tag.split("}")[-1]
    if name.lower() != "annotatedecg":
        if name == "HealthData":
            raise UserError(f"{path} holds no ECG; Apple's export has them as CSV, in the folder electrocardiograms")
        maker = XML_MAKERS.get(name, "XML")
        raise UserError(f"{path} is {maker} of the kind {name[:40]}, which is not read; {EXPORT}, or as HL7 aECG")
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
    channels = []
    for series in root.iterfind("component/series"):
        for sequences in series.iterfind("component/sequenceSet"):
            channels += _aecg_channels(sequences, unit == "raw")
    return channels, []


def _aecg_channels(sequences, raw):
    rate, channels = None, []
    for sequence in sequences.iterfind("component/sequence"):
        code, value = sequence.find("code").get("code", ""), sequence.find("value")
        if code.startswith("TIME"):
            increment = value.find("increment")
            second = {"s": 1, "ms": 1e-3, "us": 1e-6}.get(increment.get("unit"))
            rate = second and float(f"{1 / (float(increment.get('value')) * second):.9g}")
        elif value.find("digits") is not None:
            numbers = np.array(value.findtext("digits").split(), np.float64)
            origin, scale = (value.find(tag) for tag in ("origin", "scale"))
            start, factor, unit = float(origin.get("value")), float(scale.get("value")), scale.get("unit")
            offset = start * (microvolts(origin.get("unit") or unit) or 1) / (microvolts(unit or "") or 1)
            channels.append((code, unit, numbers if raw else offset + factor * numbers))
    return [Channel(code, rate, unit, partial(np.asarray, numbers)) for code, unit, numbers in channels]


def read_dicom(content, path, unit):
    """Channels of the waveforms in a DICOM file."""
    pydicom = _optional("pydicom", path)
    if DEFLATED in content[:2000]:
        raise UserError(f"{path} is a compressed DICOM file, which is not read; save it as explicit little endian")
    file = pydicom.dcmread(io.BytesIO(content))
    groups = list(file.get("WaveformSequence", []))
    if not groups:
        raise UserError(f"{path} is a DICOM file without waveforms; export the ECG itself, not its picture")
    return [
        channel
        for i, group in enumerate(groups)
        for channel in _dicom_channels(pydicom.waveforms.multiplex_array(file, i, as_raw=unit == "raw"), group)
    ], []


def _dicom_channels(array, group):
    for i, told in enumerate(group.ChannelDefinitionSequence):
        source = told.ChannelSourceSequence[0] if told.get("ChannelSourceSequence") else None
        name = (source and source.get("CodeMeaning")) or told.get("ChannelLabel") or f"lead {i + 1}"
        own = told.get("ChannelSensitivityUnitsSequence")
        unit = str(own[0].CodeValue) if own and told.get("ChannelSensitivity") else None
        yield Channel(str(name), float(group.SamplingFrequency), unit, partial(_get, array.T, i))


def _optional(name, path):
    """A library that only some formats need."""
    try:
        return __import__(name, fromlist=["*"])
    except ImportError:
        raise UserError(f"{path} needs the library {name}; pip install {name}") from None


# What lies in zip files that are documents.
DOCUMENTS = {
    "word/document.xml": ("a Word document", "copy its numbers into a text file"),
    "ppt/presentation.xml": ("a PowerPoint file", PICTURE),
    "content.xml": ("an OpenDocument file", "save it as .xlsx or CSV"),
}
# Formats: first bytes as a pattern and suffixes of files that are no texts, either of which may be empty; what it is
# called; what reads it, or the advice where it is not read. The first row that fits counts.
READERS = [
    (rb"0 {7}|\xffBIOSEMI", "", "EDF", read_edf),
    (rb"ALIVE\0\0\0", "", "AliveCor", read_atc),
    (rb"\x93NUMPY", "", "NumPy", read_npy),
    (rb"\x89HDF|MATLAB 7\.3", "", "HDF5", read_hdf5),
    # Version 4 begins with a variable: its kind, rows, columns, whether it is complex, its name's length, its name.
    (rb"MATLAB 5|..\0\0.{8}[\0\x01]\0{3}\x04\0{3}val\0", ".mat", "MATLAB", read_mat),
    (rb"PK[\3\5]", "", "zip", read_zip),
    (rb"PAR1", "", "Parquet", read_parquet),
    (rb".{128}DICM", "", "DICOM", read_dicom),
    (rb"\{\\rtf", "", "an RTF document", "save its numbers as plain text"),
    (rb"(?:\xef\xbb\xbf)?\s*[{\[]|\xff\xfe[{\[]\0", "", "JSON", read_json),
    (rb"(?:\xef\xbb\xbf)?\s*<[?!\w]|\xff\xfe<\0", "", "XML", read_xml),
    (rb".{16}SCPECG", ".scp", "an SCP-ECG file", EXPORT),
    (rb"ISHNE|ANN  1", "", "an ISHNE Holter file", EXPORT),
    (rb"GDF ", ".gdf", "a GDF file", EXPORT),
    (rb"CFWB", ".adicht .adidat", "a binary LabChart file", EXPORT),
    (rb"EEG-[12]\d00|.{129}EEG-[12]\d00", ".nk", "a Nihon Kohden file", EXPORT),
    (rb"CEDFILE", ".cfs", "a CFS file", EXPORT),
    (rb"..\(C\) CED", ".smr .smrx", "a Spike2 file", EXPORT),
    (rb"ABF[ 2]", "", "an Axon file", EXPORT),
    (rb"TDSm", "", "a LabVIEW TDMS file", EXPORT),
    (rb"XDF:", "", "an XDF file", EXPORT),
    (rb"Brain ?Vision", "", "a BrainVision header", EXPORT),
    (rb"Obj\x01", "", "an Avro file", EXPORT),
    (rb"MSH\|", "", "an HL7 message", EXPORT),
    (rb"ARROW1|FEA1", "", "an Arrow file", "save it as Parquet"),
    (rb"SQLite format", "", "an SQLite database", EXPORT),
    (rb"\x80[\2-\5]", "", "a pickle of Python objects", "save the samples as .npy"),
    (rb"\xd0\xcf\x11\xe0", "", "an old Excel or Office file", "save it as .xlsx or CSV"),
    (rb"version https://git-lfs", "", "a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    (rb"%PDF", "", "a PDF", PICTURE),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|BM.{4}\0{4}|RIFF.{4}WEBP", "", "an image", PICTURE),
    (rb"RIFF|ID3|OggS|fLaC|\xff[\xfb\xf3]|.{4}ftyp", "", "sound or film", EXPORT),
    (rb"\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ|Rar!|\x28\xb5\x2f\xfd|.{257}ustar", "", "compressed", "unpack it first"),
    (rb"", ".atr .qrs .wqrs .ann .ari .ecgr", "the annotations of a record", "name the header of its signals (.hea)"),
    (rb"", ".acq", "a Biopac file", EXPORT),
]
