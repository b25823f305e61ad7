"""Find, download, verify and read the recordings; split them as the report did.

python dataset.py [ZIP_OR_FOLDER]        read and check a set, print its counts per class
"""

import mmap
import queue
import re
import tempfile
import threading
import time
import zipfile
from collections import Counter
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

import bounds
import headers
import matlab
from leads import microvolts
from recipes import CLASSES
from shell import UserError, parser, progress, run_script, say, shortened, writing

DEFAULT_DATA = Path("data/training2017.zip")
SPLIT_FILE = Path("data/split.csv")
ADDRESSES = (
    "https://physionet.org/files/challenge-2017/1.0.0/",
    "https://physionet-open.s3.amazonaws.com/challenge-2017/1.0.0/",
)
ZIP_BYTES, ZIP_RECORDS = 99_226_822, 8528
PATIENCE, LEAST_RATE = 30, 1000  # s, and bytes a second, of a download
V3_HASH = "ae517e474b0bc89a7517ad876b5b4dadc6c94f680d0665c04746db9432df855b"


def read_recordings(source=DEFAULT_DATA, labels="reference"):
    """Read a zip or an unpacked folder laid out as `training2017` into a DataFrame sorted by record.

    labels: `reference` or `original` (in the set), `v3` (beside it, else in data/, else downloaded), or a CSV file.

    Columns: record, label (A, N, O or ~), signal (int16 array (samples,) as recorded, 1000 units per mV),
    sampling_rate (Hz, from the header). Raises `UserError` for anything missing, damaged or contradictory.
    """
    source = Path(source)
    if not source.exists():
        if source != DEFAULT_DATA:
            raise UserError(f"{source} does not exist; pass --data the path of training2017.zip or its folder")
        download("training2017.zip", check=_check_download)
    files, read = _open(source)
    table = _read_labels(source, labels, files, read)

    unread = [name for name in table.record if f"{name}.mat" not in files or f"{name}.hea" not in files]
    if unread:
        raise UserError(
            f"{source} lacks {unread[0]}.mat or {unread[0]}.hea, which the labels name "
            f"({len(unread)} such records); use the labels that belong to the set"
        )
    unlabelled = sum(name.endswith(".mat") for name in files) - len(table)
    if unlabelled:
        say(f"warning: {unlabelled} records of {source} have no label and are left out")

    signals, rates, notes = Signals(), [], Counter()
    for name in table.record:
        where = f"{name}.mat in {source}"
        signal = parse_signal(read(files[f"{name}.mat"]), where)
        header = headers.parse(read(files[f"{name}.hea"]), f"{name}.hea in {source}")
        gain, baseline, assumed = scale(header, f"{name}.hea in {source}")
        if (gain, baseline) != (1000, 0):  # the challenge's stay integers
            signal = ((signal.astype(np.float32) - baseline) * 1000 / gain).astype(np.float32)
        if header.samples not in (None, len(signal)):
            raise UserError(
                f"{where} holds {len(signal)} samples but its header says {header.samples}; fetch the set again"
            )
        signals.add(signal)
        rates.append(header.rate)
        notes.update(assumed)
    table["signal"], table["sampling_rate"] = signals.all(), rates
    for note, count in notes.items():
        say(f"note: of {count} recordings {note}")
    other = sorted({rate for rate in rates if rate != 300})
    if other:
        say(
            f"note: {sum(rate != 300 for rate in rates)} recordings were not sampled at 300 Hz "
            f"({', '.join(f'{rate:g}' for rate in other[:5])} Hz); they are resampled to 300 Hz"
        )
    return table


class Signals:
    """Collects arrays (samples,). Those beyond `bounds.HELD` go to a file without a name, which the system reads as it
    is wanted and drops when memory is: a set may be larger than memory.
    """

    def __init__(self):
        self.arrays, self.bytes, self.file, self.places = [], 0, None, []

    def add(self, signal):
        self.bytes += signal.nbytes
        if self.bytes <= bounds.HELD:
            self.arrays.append(signal)
            return
        self.file = self.file or tempfile.TemporaryFile()  # noqa: SIM115  # as long as its arrays
        self.places.append((signal.dtype, len(signal), self.file.tell()))
        self.file.write(signal)

    def all(self):
        """The arrays in the order in which they came; those of the file can only be read."""
        if not self.file:
            return self.arrays
        self.file.flush()
        # No `np.memmap`, which joblib would have its processes open by the name that the file does not have.
        content = memoryview(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
        return self.arrays + [np.frombuffer(content, *place) for place in self.places]


def _open(source):
    """({file name: handle}, function that reads a handle's bytes) of a zip or a folder."""
    if source.is_dir():
        inner = source / "training2017"
        folder = inner if inner.is_dir() and not any(source.glob("*.mat")) else source
        return {path.name: path for path in folder.iterdir() if path.is_file()}, bounds.read_file
    try:
        archive = zipfile.ZipFile(source)
    except Exception as error:  # zipfile raises whatever its parser stumbles on
        raise UserError(
            f"{source} is not a whole zip file ({error}); name another, or delete a broken download and run again"
        ) from error
    files = {}
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", entry.filename):
            raise UserError(f"{source} holds the path {entry.filename!r}, which leaves its folder; do not trust it")
        if entry.filename.endswith("/") or "__MACOSX" in path.parts:
            continue
        if path.name in files:
            raise UserError(f"{source} holds {path.name} twice; keep one of them")
        files[path.name] = entry

    def read(entry):
        bounds.check_members([entry], f"{entry.filename} in {source}")
        try:
            return archive.read(entry)
        except Exception as error:  # so do the decompressors
            raise UserError(f"{source} is damaged at {entry.filename} ({error}); delete it and run again") from error

    return files, read


def parse_signal(content, where):
    """The signal, int16 of shape (samples,), in the bytes of a `.mat` file; `where` names it in errors."""
    signal = matlab.load(content, where)
    if signal.dtype.kind not in "iuf" or signal.ndim != 2 or signal.shape[0] > 1:
        raise UserError(f"{where} holds {signal.dtype} of shape {signal.shape}; expected one row of integers")
    if signal.size == 0:
        raise UserError(f"{where} is empty; leave the record out of the labels")
    if not np.isfinite(signal).all():
        raise UserError(f"{where} holds NaN or infinite samples; repair the recording or leave it out of the labels")
    if (signal == -32768).any():
        raise UserError(
            f"{where} holds -32768, by which WFDB marks missing samples; repair the recording or leave it out of the "
            "labels"
        )
    if np.abs(signal.astype(np.float64)).max() > 32767 or (signal != np.round(signal)).any():
        raise UserError(f"{where} holds values that are not 16-bit integers; the set's unit is 1/1000 mV")
    return signal[0].astype(np.int16)


def scale(header, where):
    """(numbers per mV, the number of 0 mV, notes on what was assumed) of the first signal of a `headers.Header`."""
    default = headers.Signal(headers.DEFAULT_GAIN, False, 0, headers.DEFAULT_UNIT)
    signal = next(iter(header.signals), default)
    if not microvolts(signal.unit):
        raise UserError(
            f"{where} gives the signal in {signal.unit[:40]!r}, no voltage; write the gain as numbers per mV"
        )
    notes = [headers.NO_RATE] if not header.rate_told else []
    notes += [headers.NO_GAIN] if not signal.gain_told else []
    return signal.gain * 1000 / microvolts(signal.unit), signal.baseline, notes


def _read_labels(source, labels, files, read):
    """DataFrame of record and label, sorted by record, from the label version or file that `labels` names."""
    inside = {"reference": "REFERENCE.csv", "original": "REFERENCE-original.csv"}
    if labels in inside:
        name = inside[labels]
        if name not in files:
            raise UserError(f"{source} holds no {name}; pass --labels a CSV file of record,label")
        content, name = read(files[name]), f"{name} in {source}"
    elif labels == "v3":
        candidates = [source.parent / "REFERENCE-v3.csv", DEFAULT_DATA.parent / "REFERENCE-v3.csv"]
        path = next((path for path in candidates if path.exists()), None)
        path = path or download("REFERENCE-v3.csv", known_hash=V3_HASH)
        content, name = bounds.read_file(path), str(path)
    else:
        if not Path(labels).is_file():
            raise UserError(f"--labels {labels} is neither reference, original, v3 nor a CSV file of record,label")
        content, name = bounds.read_file(Path(labels)), labels
    try:
        rows = [line.split(",") for line in content.decode("utf-8-sig").split()]
    except UnicodeDecodeError:
        raise UserError(f"{name} is not a text file; expected lines of record,label") from None
    if rows and rows[0] == ["record", "label"]:
        rows = rows[1:]
    bad = next((row for row in rows if len(row) != 2 or row[1] not in CLASSES), None)
    if bad or not rows:
        raise UserError(
            f"{name}: {','.join(bad) if bad else 'nothing'} is not record,label with a label of {', '.join(CLASSES)}"
        )
    table = pd.DataFrame(rows, columns=["record", "label"]).sort_values("record", ignore_index=True)
    repeated = table.record[table.record.duplicated()]
    if len(repeated):
        raise UserError(f"{name} names {repeated.iloc[0]} twice ({len(repeated)} repeated records); keep one line each")
    return table


def download(name, known_hash=None, check=lambda path: None):
    """Fetch `name` of the challenge's files into data/, from its address or the mirror, and return its path.

    The file appears under its name only after it arrived whole, its SHA-256 is `known_hash` if one is known, and
    `check(path)` passed.
    """
    target = DEFAULT_DATA.parent / name
    say(f"{target} is missing: downloading it from PhysioNet")
    reasons = []
    for address in ADDRESSES:
        try:
            with writing(target) as temporary:
                digest = _fetch(address + name, temporary)
                if known_hash not in (None, digest):
                    raise UserError(f"its SHA-256 is {digest[:12]}… instead of {known_hash[:12]}…")
                check(temporary)
            return target
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f"cannot download {name} ({'; '.join(reasons)}); fetch {ADDRESSES[0]}{name} yourself and save it as {target}"
    )


def _fetch(address, path):
    """Write what `address` has to `path` and return its SHA-256. Raises `UserError` where the server does not give it.

    A server that sends less than `LEAST_RATE` bytes a second for `PATIENCE` seconds is given up. Another thread
    listens to it: one that dribbles headers, say, keeps its listener waiting for ever. What is given up is left to
    that thread, which ends with the process.
    """
    import requests  # noqa: F401  # only a first run needs it; here, where its lack is told

    host, digest, arrived, pieces = address.split("/")[2], sha256(), 0, queue.Queue(16)
    threading.Thread(target=_receive, args=[address, pieces], daemon=True).start()

    def following(patience):
        try:
            piece = pieces.get(timeout=patience)
        except queue.Empty:
            raise UserError(f"{host} sends less than {LEAST_RATE:,} bytes a second") from None
        if isinstance(piece, Exception):
            raise piece
        return piece

    told = following(3 * PATIENCE)  # of a host's several addresses, some may not answer
    with open(path, "wb") as file, progress(told, f"downloading {address.split('/')[-1]}", "byte") as bar:
        began, before = time.monotonic(), 0
        while content := following(PATIENCE):
            file.write(content)
            digest.update(content)
            bar.update(len(content))
            arrived += len(content)
            if arrived > bounds.MOST_BYTES:
                raise UserError(f"{host} sends more than {bounds.MOST_BYTES / 1e9:g} GB")
            if time.monotonic() > began + PATIENCE:
                if arrived < before + PATIENCE * LEAST_RATE:
                    raise UserError(f"{host} sends less than {LEAST_RATE:,} bytes a second")
                began, before = time.monotonic(), arrived
    return digest.hexdigest()


def _receive(address, pieces):
    """Put into a queue how many bytes `address` says it will send, or None, then these, then b""; or a `UserError`."""
    import requests
    from urllib3.exceptions import HTTPError

    def drop_redirect(response, **_):
        if response.is_redirect:  # whose body, which may have no end, would be read
            response.close()

    host = address.split("/")[2]
    try:
        with requests.get(address, stream=True, timeout=PATIENCE, hooks={"response": drop_redirect}) as response:
            response.raise_for_status()
            if response.status_code != 200:
                raise UserError(f"{host} answers {response.status_code} and no file")
            pieces.put(_told_bytes(response))
            while content := response.raw.read1(1 << 16, decode_content=True):  # as it comes, be it a byte
                pieces.put(content)
        pieces.put(b"")
    except UserError as error:
        pieces.put(error)
    except (requests.ConnectionError, requests.Timeout):
        pieces.put(UserError(f"no connection to {host}"))
    except (requests.RequestException, HTTPError, ValueError) as error:  # the last of an address that is none
        pieces.put(UserError(f"{host}: {shortened(str(error), 160)}"))
    except Exception as error:  # not told by the thread, for which the download would wait
        pieces.put(error)


def _told_bytes(response):
    """How many bytes the server says it will send, or None."""
    told = response.headers.get("Content-Length", "")
    return int(told) if re.fullmatch("[0-9]{1,12}", told) else None


def _check_download(path):
    """Refuse a zip of the wrong size, with a damaged member or without its 8,528 records."""
    if path.stat().st_size != ZIP_BYTES:
        raise UserError(f"it has {path.stat().st_size:,} bytes instead of {ZIP_BYTES:,}")
    files, read = _open(path)
    records = sum(name.endswith(".mat") for name in files)
    if records != ZIP_RECORDS:
        raise UserError(f"it holds {records:,} records instead of {ZIP_RECORDS:,}")
    bounds.check_size(sum(entry.file_size for entry in files.values()), "it", "unpacks to")
    for entry in files.values():
        read(entry)


def split(table, test_seed=42, validation_seed=42):
    """A split of a table sorted by record, by default the report's: a Series of train, validation or test, index as
    `table`.

    A stratified fifth is the test split, which `test_seed` alone decides; a stratified quarter of the rest is the
    validation split.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    counts = table.label.value_counts()
    if len(counts) < 2 or counts.min() < 5:
        raise UserError(
            f"class {counts.index[-1]} has {counts.min()} records and there are {len(counts)} classes; "
            "splits into three need two classes with at least 5 records each"
        )
    rest, test = train_test_split(table.index, test_size=0.2, stratify=table.label, random_state=test_seed)
    _, validation = train_test_split(rest, test_size=0.25, stratify=table.label[rest], random_state=validation_seed)
    column = pd.Series("train", index=table.index, name="split")
    column[test], column[validation] = "test", "validation"
    return column


def folds(table, path=None, seed=42):
    """Splits of cross-validation: a DataFrame of train, validation or test, a column per fold, index as `table`.

    path: a CSV file of record, fold0, fold1 … with train, valid or test; None: five stratified folds of our own, each
    once the test split and once, for the fold before it, the validation split. Raises `UserError` for a file that does
    not say in which split a record of `table` is, or has no record for a split.
    """
    if path is None:
        from sklearn.model_selection import StratifiedKFold

        if table.label.value_counts().min() < 5:
            raise UserError("five folds need at least 5 records of each class")
        parts = StratifiedKFold(5, shuffle=True, random_state=seed).split(table.record, table.label)
        number = pd.Series(0, index=table.index)
        for fold, (_, test) in enumerate(parts):
            number.iloc[test] = fold
        columns = {
            f"fold{fold}": number.map(lambda n, fold=fold: {fold: "test", (fold + 1) % 5: "validation"}.get(n, "train"))
            for fold in range(5)
        }
        return pd.DataFrame(columns)
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("record")
        if not rows.index.is_unique:
            raise ValueError("a record has two lines")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a CSV file of record,fold0,fold1,… ({error})") from None
    missing = table.record[~table.record.isin(rows.index)]
    if len(missing):
        raise UserError(f"{path} does not name {missing.iloc[0]} ({len(missing)} such records)")
    columns = rows.loc[table.record].set_index(table.index).replace("valid", "validation")
    if columns.empty:
        raise UserError(f"{path} has no column of a fold beside record")
    for name, column in columns.items():
        if not re.fullmatch(r"\w+", name) or set(column) != {"train", "validation", "test"}:
            found = ", ".join(sorted(set(column))[:4])
            raise UserError(f"{path}: column {name!r} has {found}; expected a fold's train, valid and test")
    return columns


def fingerprint(table):
    """A hash (hexadecimal) of all that `table` holds, by which a result can tell the recordings it belongs to."""
    key = sha256()
    for row in table.itertuples(index=False):
        values = row._asdict()
        key.update(f"{[value for name, value in values.items() if name != 'signal']} ".encode())
        key.update(np.ascontiguousarray(values["signal"]))
    return key.hexdigest()


def labels(table):
    """The indices of the classes of `table`'s recordings, (n,)."""
    return table.label.map(CLASSES.index).to_numpy(int)


def seconds(table):
    """How long each recording of `table` lasts, in s: a Series."""
    return table.signal.map(len) / table.sampling_rate


def write_split(table, path=SPLIT_FILE):
    """Write the columns record, label and split of `table` to a CSV file."""
    with writing(path) as temporary:
        table[["record", "label", "split"]].to_csv(temporary, index=False)


def main():
    flags = parser(__doc__)
    flags.add_argument("data", nargs="?", type=Path, default=DEFAULT_DATA, help="zip or folder of recordings")
    table = read_recordings(flags.parse_args().data)
    print(table.label.value_counts().reindex(CLASSES, fill_value=0).to_string())
    print(f"{len(table):,} recordings, {seconds(table).sum() / 3600:.1f} hours")


if __name__ == "__main__":
    run_script(main)
