"""Coverage-guided fuzzing, by atheris, of every reader of bytes that strangers may have made.

python tests/faults/fuzz.py READER... [--inputs N] [--keep FOLDER]        all: each reader, on a process of its own

A reader answers or raises a `UserError`. It takes no more than 5 s and 1 GB, leaves no file, and prints nothing but
what `shell.say` says. What breaks this is kept in the folder, with the corpus of each reader: the inputs that reached
new code. A corpus that is there is read again first; with --inputs 0 it alone is, as for `coverage run`.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, namedtuple
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import atheris
import numpy as np
import pandas as pd

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
with atheris.instrument_imports(include=[path.stem for path in PROJECT.glob("*.py")] + ["edfio", "wfdb"]):
    import edfio  # noqa: F401
    import seeds
    import wfdb  # noqa: F401
    from seeds import packed, saved, unpacked

    import batches
    import benchmark
    import bounds
    import dataset
    import headers
    import measuring
    import members
    import reading
    import runs
    import shell
    import spaces
    import synthetic
    import trees  # noqa: F401
    from recipes import RECIPES
    from shell import UserError

SECONDS, BYTES = 5, 1_000_000_000
SIGNAL = synthetic.recording("N", 10, np.random.default_rng(0))
RECIPE = RECIPES["improved"]
FOLDED = pd.DataFrame({"record": [f"A{place:05}" for place in range(6)]})
VALUES = [None, True, -1, 0, 1e308, 10**400, float("nan"), "", "9", [], {}, [[1], 2], {"a": []}]
TOKENS = ["nan", "inf", "1e999", "-1", "0", "9" * 25, "\\xff", "\\x00", "\\x0a", "\\x1b[2J", "null", "[]", "{}", "1:00"]


def by_bytes(content, most, seed):
    """Bytes that libFuzzer mutated; of a text mostly one word of it, or a word in place of another."""
    draw = random.Random(seed)
    words = list(re.finditer(rb"[^\s,;:=<>\"\[\]]+", content)) if b"\0" not in content[:200] else ()
    if not words or draw.random() < 0.3:
        return atheris.Mutate(content, most)
    word, other = draw.choices(words, k=2)
    letters = (each for each in atheris.Mutate(word[0], 100 + len(word[0])) if 32 <= each < 127 and each not in b"<&")
    new = bytes(letters) if draw.random() < 0.7 else other[0]
    return (content[: word.start()] + new + content[word.end() :])[:most]


def by_value(content, most, seed):
    """JSON of which one value was mutated, left out or replaced by another of it; now and then any bytes of it."""
    draw = random.Random(seed)
    try:
        told = json.loads(content)
        places = list(inside([told]))
        part, key = draw.choice(places[:: len(places) // 200 + 1])
        match draw.randrange(5):
            case 0 if part is not told:
                del part[key]
            case 1:
                other, name = draw.choice(places)
                part[key] = json.loads(json.dumps(other[name]))
            case 2:
                part[key] = draw.choice(VALUES)
            case 3:
                part[key] = json.loads(atheris.Mutate(json.dumps(part[key]).encode(), most))
        changed = json.dumps(told).encode()
        return changed if len(changed) <= most else by_bytes(content, most, seed)
    except (ValueError, RecursionError):
        return by_bytes(content, most, seed)


def inside(told):
    """(list or dictionary, key) of each value in nested JSON."""
    for key, value in list(told.items() if isinstance(told, dict) else enumerate(told)):
        yield told, key
        if isinstance(value, dict | list):
            yield from inside(value)


def by_member(content, most, seed, mend=lambda parts: parts):
    """A zip file in which one member was mutated, with sums that fit; now and then any bytes of it."""
    draw = random.Random(seed)
    for _ in range(5 if draw.randrange(10) else 0):
        try:
            parts = unpacked(content)
            name = draw.choice(list(parts))
            change = by_value if name.endswith(".json") else by_bytes
            parts[name] = change(parts[name], most, draw.randrange(2**32))
            changed = packed(mend(parts))
            if len(changed) <= most:
                return changed
        except Exception:  # a mutated zip may be anything
            pass
    return by_bytes(content, most, seed)


def checked(parts):
    """Members of a file of `shell.write_arrays`, with the checksum of what they hold."""
    del parts["checksum.npy"]
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(part)) for name, part in parts.items()}
    return parts | {"checksum.npy": saved(np.save, np.array(shell._checksum(arrays)))}


def by_block(content, most, seed):
    """An AliveCor file that was mutated, with the sums of its blocks."""
    content, at = bytearray(atheris.Mutate(content, most)), 12
    while at + 12 < len(content):
        end = at + 8 + min(int.from_bytes(content[at + 4 : at + 8], "little"), len(content) - at - 12)
        content[at + 4 : at + 8] = (end - at - 8).to_bytes(4, "little")
        content[end : end + 4] = (sum(content[at:end]) % 2**32).to_bytes(4, "little")
        at = end + 4
    return bytes(content)


def recording(path):
    odd = path.exists() and path.stat().st_size % 2
    flags = ("1", 50, "raw") if odd else (None, None, None)  # which get to different places
    signal, rate, *_ = reading.read(path, *flags)
    assert np.isfinite(signal).all() and rate > 0


def record(path):
    try:
        parts = {Path(name).name[:60]: content for name, content in unpacked(path.read_bytes()).items()}
    except Exception:  # a zip file only here
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for name, content in parts.items():
            with contextlib.suppress(OSError, ValueError):  # a name that no file can have
                Path(folder, name).write_bytes(content)
        recording(Path(folder, "a.hea"))


def model(path):
    saved = runs.load(path, light=True)
    members.classify([saved], [SIGNAL], [300], keep=False)


def header(path):
    dataset.scale(headers.parse(path.read_bytes(), path), path)


def card(path):
    told = runs.read_card(path)
    json.dumps(told.history), told.recipe.title, sorted(told.seen)  # what scripts do with it


def labels(path):
    dataset._read_labels(Path("set.zip"), str(path), {}, None)


def table(path):
    names = ["file", "class", "error", "fingerprint"]
    files = list(batches.answered(path, names, "f"))
    if files:
        batches.drop(path, set(files[:1]))
        assert files[1:] == list(batches.answered(path, names, "f"))


def predictions(path):
    rows = benchmark.read(path)
    if "label" in rows:
        lines = benchmark.group_lines(benchmark.by_group(rows))
        lines += benchmark.fold_lines(benchmark.by_fold(rows)) if "fold" in rows else []
        assert "".join(lines) == shell.printable("".join(lines))


# seeds: of small whole files, made in the current folder; read: of the path of an input; past: the functions of which
# one returns once an input has passed the first check of its format; mutate: of (content, most bytes, seed).
# start: how many bytes, which tell the format, stay.
Reader = namedtuple("Reader", "suffix seeds read past mutate start", defaults=[by_bytes, 0])
ZIP = by_member
SUMS = functools.partial(by_member, mend=checked)
READERS = {
    "header": Reader(".hea", seeds.header, header, "headers._count"),
    "wfdb": Reader(".zip", seeds.wfdb, record, "headers.parse", ZIP),
    "matlab": Reader(".mat", seeds.matlab, recording, "matlab._describe scipy.io.loadmat", start=128),
    "edf": Reader(".edf", seeds.signals, recording, "edfio.read_edf edfio.read_bdf", start=8),
    "text": Reader(".csv", seeds.text, recording, "texts.split"),
    "json": Reader(".json", seeds.told_json, recording, "json.loads", by_value, start=1),
    "xml": Reader(".xml", seeds.xml, recording, "xml.etree.ElementTree.fromstring", start=5),
    "npy": Reader(".npy", seeds.npy, recording, "formats._load", start=8),
    "npz": Reader(".npz", seeds.npz, recording, "bounds.check_zip", ZIP),
    "hdf5": Reader(".h5", seeds.hdf5, recording, "h5py.File", start=9),
    "parquet": Reader(".parquet", seeds.parquet, recording, "pyarrow.parquet.ParquetFile", start=4),
    "excel": Reader(".xlsx", seeds.excel, recording, "bounds.check_zip", ZIP),
    "dicom": Reader(".dcm", seeds.dicom, recording, "pydicom.dcmread", start=140),
    "alivecor": Reader(".atc", seeds.alivecor, recording, "numpy.frombuffer", by_block, start=12),
    "recordings": Reader(".zip", seeds.recordings, dataset.read_recordings, "dataset._open", ZIP),
    "labels": Reader(".csv", seeds.labels, labels, "dataset._read_labels"),
    "folds": Reader(".csv", seeds.folds, lambda path: dataset.folds(FOLDED, path), "pandas.read_csv"),
    "sweep": Reader(".yaml", seeds.sweep, lambda path: spaces.read(path, RECIPE), "spaces._check_structure"),
    "card": Reader(".keras", seeds.card, card, "json.loads", ZIP),
    "model": Reader(".keras", seeds.model, model, "runs.read_card", ZIP),
    "arrays": Reader(".npz", seeds.arrays, shell.read_arrays, "shell._checksum", SUMS),
    "beats": Reader(".npz", seeds.kept_beats, measuring._read, "shell._checksum", SUMS),
    "predictions": Reader(".csv", seeds.predictions, predictions, "pandas.read_csv"),
    "answered": Reader(".csv", seeds.answered, table, "batches.answered"),
}


class Run:
    """One reader under the fuzzer, and what is counted and found."""

    def __init__(self, name, keep):
        self.name, self.reader, self.keep = name, READERS[name], keep
        self.path, self.output = Path("input" + self.reader.suffix), os.memfd_create("output")
        self.counts, self.found, self.slowest, self.passed = Counter(), {}, 0, False
        for name in self.reader.past.split():
            module, _, function = name.rpartition(".")
            self._watch(import_module(module), function)
        shell.tqdm.write = lambda message, file: None

    def _watch(self, module, function):
        call = getattr(module, function)

        def watched(*given, **named):
            answer = call(*given, **named)
            self.passed = True
            return answer

        setattr(module, function, watched)

    def one(self, content):
        """Give the reader one input and note what it should not have done."""
        self.path.write_bytes(content)
        files, self.passed, began = set(os.listdir()), False, time.process_time()
        kept = [os.dup(stream) for stream in (1, 2)]
        [os.dup2(self.output, stream) for stream in (1, 2)]
        try:
            self.reader.read(self.path)
            self.counts["answered"] += 1
        except UserError as error:
            while error:
                self._check(not isinstance(error, MemoryError), content, "memory", error)
                error = error.__cause__ or error.__context__
        except Exception as error:
            places = [f"{Path(each.filename).name}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)]
            self._check(False, content, f"{type(error).__name__} {' '.join(places[1:4])} … {places[-1]}", error)
        finally:
            for stream, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, stream), os.close(copy)
        seconds = time.process_time() - began
        self.slowest = max(self.slowest, seconds)
        self._check(seconds <= SECONDS, content, "slow", f"{seconds:.1f} s")
        left = set(os.listdir()) - files
        self._check(not left, content, "files left", left)
        [shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink() for name in left]
        printed = os.pread(self.output, 10_000, 0).decode(errors="replace")
        os.ftruncate(self.output, 0), os.lseek(self.output, 0, os.SEEK_SET)
        self._check(not printed, content, f"printed {printed[:60]}", printed)
        self.counts.update(inputs=1, past=self.passed)

    def mutated(self, content, most, seed):
        return content[: self.reader.start] + self.reader.mutate(content, most, seed)[self.reader.start :]

    def _check(self, fine, content, what, told):
        if not fine and what not in self.found:
            self.found[what] = " ".join(str(told).split())[:300]
            name = f"{self.name}-{sha256(what.encode()).hexdigest()[:6]}{self.reader.suffix}"
            (self.keep / name).write_bytes(content)
            self.found[what] += f" ({name})"


def fuzz(name, inputs, keep):
    """Fuzz one reader in the current folder, print a line of JSON, and return the exit status."""
    bounds.MOST_BYTES, bounds.MOST_TEXT = 30_000_000, 5_000_000  # of which each reader may need some times the memory
    corpus = keep / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    try:
        for place, content in enumerate(READERS[name].seeds()):
            (corpus / f"seed{place}").write_bytes(content)
    except ImportError as error:  # of a package that only some formats need
        print(json.dumps({"reader": name, "skipped": str(error), "found": {}}))
        return 0
    run = Run(name, keep)
    for kept in sorted(corpus.iterdir()):  # which imports what only some need
        run.one(kept.read_bytes())
    Path("tokens").write_text("".join(f'"{token}"\n' for token in TOKENS))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, resource.RLIM_INFINITY))
    flags = f"-atheris_runs={inputs} -max_len=65536 -rss_limit_mb=0 -timeout=60 -seed=1 -dict=tokens -verbosity=0"
    began = time.monotonic()
    if inputs:
        flags += f" -artifact_prefix={keep}/{name}-died-"
        atheris.Setup(["", *flags.split(), str(corpus)], run.one, custom_mutator=run.mutated)
        with contextlib.suppress(SystemExit):
            atheris.Fuzz()
    told = {"reader": name, **run.counts, "slowest": round(run.slowest, 2), "seconds": round(time.monotonic() - began)}
    print(json.dumps(told | {"found": run.found}, ensure_ascii=True))
    return 1 if run.found else 0


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("readers", nargs="+", choices=[*READERS, "all"], metavar="READER", help=", ".join(READERS))
    flags.add_argument("--inputs", type=int, default=5000, metavar="N", help="for each reader")
    flags.add_argument("--keep", type=Path, metavar="FOLDER", help="of the inputs that found something, new or not")
    arguments = flags.parse_args()
    keep = (arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))).absolute()
    keep.mkdir(parents=True, exist_ok=True)
    names = list(READERS) if "all" in arguments.readers else arguments.readers
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tempfile.tempdir = folder
        if len(names) == 1:
            return fuzz(names[0], arguments.inputs, keep)
        given = ["--inputs", str(arguments.inputs), "--keep", str(keep)]
        return max([subprocess.run([sys.executable, __file__, name, *given]).returncode != 0 for name in names])


if __name__ == "__main__":
    sys.exit(main())
