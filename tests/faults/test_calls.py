"""Every call that writes, failing in its turn: whatever fails, the old file stays, and the next try ends the same.

python -m pytest -n 0 -s -m "slow or not slow" tests/faults/test_calls.py        also prints how many calls failed
"""

import builtins
import errno
import io
import itertools
import json
import os

import numpy as np
import pandas as pd
import pytest

import batches
import dataset
import runs
import shell
from recipes import Recipe
from shell import UserError

ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT]
NAMES = ["file", "error", "fingerprint"]


class Faults:
    """Has the `place`-th of all calls that open for writing, write, flush to disk or rename below `folder` fail."""

    def __init__(self, monkeypatch, folder):
        self.folder, self.left, self.number, self.lasting = str(folder), None, None, False
        real = builtins.open

        def opened(path, mode="r", *given, **more):
            if set(mode) & set("wax+") and str(path).startswith(self.folder):
                self.count()
                return Written(real(path, mode, *given, **more), self)
            return real(path, mode, *given, **more)

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(io, "open", opened)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))

    def failing(self, call):
        def counted(*given, **more):
            self.count()
            return call(*given, **more)

        return counted

    def count(self):
        if self.left is not None:
            self.left -= 1
            if self.left == 0 or (self.lasting and self.left < 0):
                raise OSError(self.number, os.strerror(self.number))

    def run(self, act, place, number, lasting):
        """Whether `act` made fewer calls than `place`, which fails, alone or with all after it."""
        self.left, self.number, self.lasting = place, number, lasting
        try:
            act()
            return self.left > 0
        finally:
            self.left = None


class Written:
    """An open file each of whose writes may fail."""

    def __init__(self, file, faults):
        self.__dict__ |= {"file": file, "faults": faults}

    def write(self, content):
        self.faults.count()
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __iter__(self):
        return iter(self.file)

    def __enter__(self):
        return self

    def __exit__(self, *given):
        self.file.close()


def arrays(path, value):
    shell.write_arrays(path, features=np.full((3, 2), value, np.float32), progress="text")


def model_file(path, value):
    """The step that finishes a model: its members again, and others."""
    if not path.exists():
        with zipped(path) as archive:
            archive.writestr("config.json", "{}")
    runs.finish(path, runs.Card(Recipe(seed=value), [], "mine", ""), onnx=b"network" * value)


def zipped(path):
    import zipfile

    return zipfile.ZipFile(path, "w")


def split(path, value):
    table = pd.DataFrame({"record": ["A1", "A2"], "label": "N", "split": ["train", "test"]})
    dataset.write_split(table.head(value), path)


def metrics(path, value):
    with shell.writing(path) as temporary:
        temporary.write_text(json.dumps({"value": value}))


def figure(path, value):
    import plotting

    drawing, axes = plotting.figure(2, 1)
    axes.plot([0, value])
    plotting.save(drawing, path)


ARTEFACTS = {
    "arrays.npz": arrays,
    "model.keras": model_file,
    "split.csv": split,
    "metrics.json": metrics,
    "figure.png": pytest.param(figure, marks=pytest.mark.slow),
}


def content(path):
    """The bytes of a file, of a zip file those of its members: its dates change."""
    if path.suffix not in (".npz", ".keras"):
        return path.read_bytes()
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("numbers", [ERRORS[:1], pytest.param(ERRORS[1:], marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param(name, *(make.values if hasattr(make, "values") else [make]), marks=getattr(make, "marks", ()))
        for name, make in ARTEFACTS.items()
    ],
)
def test_a_file_is_whole_whichever_call_fails(tmp_path, monkeypatch, name, write, numbers):
    path = tmp_path / name
    write(path, 2)
    new = content(path)
    write(path, 1)
    old, faults, tries = content(path), Faults(monkeypatch, tmp_path), 0
    assert old != new
    for number, lasting in itertools.product(numbers, (False, True)):
        for place in itertools.count(1):
            try:
                if faults.run(lambda: write(path, 2), place, number, lasting):
                    break
                assert not lasting and content(path) == new  # the library has tried once more
            except UserError as error:
                assert str(error) == f"cannot write {path}: {os.strerror(number)}"
                assert content(path) == old
            tries += 1
            assert [each.name for each in tmp_path.iterdir()] == [name]
            write(path, 2)
            assert content(path) == new
            write(path, 1)
        write(path, 1)
    print(f"\n{name}: {tries} calls failed")
    assert tries >= 4 * len(numbers)


def test_a_table_continues_whichever_call_fails(tmp_path, monkeypatch):
    path, rows = tmp_path / "table.csv", [{"file": f"{n}.hea", "error": "", "fingerprint": "mine"} for n in range(5)]
    batches.append(path, NAMES, rows)
    whole, faults, tries = path.read_bytes(), Faults(monkeypatch, tmp_path), 0

    def continued():
        known = batches.answered(path, NAMES, "mine")
        batches.append(path, NAMES, [row for row in rows if row["file"] not in known])

    for number, lasting in itertools.product(ERRORS, (False, True)):
        for place in itertools.count(1):
            path.unlink()
            try:
                if faults.run(continued, place, number, lasting):
                    break
                pytest.fail(f"call {place} failed and nothing was said")
            except UserError as error:
                assert str(error) == f"cannot write {path}: {os.strerror(number)}"
            tries += 1
            path.touch()
            assert whole.startswith(path.read_bytes())
            continued()
            assert path.read_bytes() == whole
    print(f"\ntable.csv: {tries} calls failed")
    assert tries == 6 * 8  # those that open it twice, its header and its rows
