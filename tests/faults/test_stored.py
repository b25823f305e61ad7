"""Files that were damaged on disk, left by killed processes or cut short: made again, swept or left whole."""

import argparse
import errno
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT

import batches
import measuring
import runs
import shell
from shell import UserError

ARRAYS = {"features": np.arange(6, dtype=np.float32).reshape(2, 3), "keys": np.array(["a", "bc"])}


def resaved(path, **changes):
    """Save the arrays of `path` with `changes`, as a whole and valid file of the same checksum."""
    with np.load(path) as file:
        np.savez(path, **dict(file) | changes)


DAMAGES = {
    "a value changed": lambda path: resaved(path, features=ARRAYS["features"] + 1),
    "fewer rows": lambda path: resaved(path, features=ARRAYS["features"][:1]),
    "NaN": lambda path: resaved(path, features=ARRAYS["features"] * np.nan),
    "another type": lambda path: resaved(path, features=ARRAYS["features"].view(np.int32)),
    "one array more": lambda path: resaved(path, more=np.zeros(1)),
    "no checksum": lambda path: np.savez(path, **ARRAYS),
    "pickled": lambda path: resaved(path, features=np.array([{}, []], dtype=object)),
    "a single array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x02\x00{}"),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_text("text"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_bad_file_of_arrays_is_said_and_not_taken(tmp_path, capsys, damage):
    path = tmp_path / "kept.npz"
    assert shell.read_arrays(path) is None and not capsys.readouterr().err
    shell.write_arrays(path, **ARRAYS)
    np.testing.assert_equal(shell.read_arrays(path), ARRAYS)
    damage(path)
    assert shell.read_arrays(path) is None
    assert f"{path} is damaged or not what it should be" in capsys.readouterr().err


@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_or_cut_file_is_taken_for_other_arrays(tmp_path, monkeypatch, step):
    monkeypatch.setattr(shell, "say", lambda message: None)
    path = tmp_path / "kept.npz"
    shell.write_arrays(path, features=ARRAYS["features"])
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), step):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        kept = shell.read_arrays(path)
        if kept is not None:  # a date of the zip file, say
            np.testing.assert_equal(kept, {"features": ARRAYS["features"]})
    for length in range(0, len(whole), step):
        path.write_bytes(whole[:length])
        assert shell.read_arrays(path) is None


def test_bad_kept_measurements_are_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "KEPT", tmp_path)
    signals = [np.random.default_rng(seed).normal(size=3000).astype(np.float32) for seed in range(2)]
    made = measuring.measure_all(signals, [300, 300])
    for bad in ({"rows": np.zeros((0, 3))}, {"other": np.zeros(3)}, {"keys": np.zeros(2), "rows": made.rows}):
        for path in tmp_path.glob("*/*.npz"):
            shell.write_arrays(path, **bad)  # with a checksum that fits
        again = measuring.measure_all(signals, [300, 300])
        np.testing.assert_equal(again, made)
        assert "will be made again" in capsys.readouterr().err
    measuring.measure_all(signals, [300, 300])
    assert not capsys.readouterr().err


WRITER = """
import os, shell, signal, sys
with shell.writing(sys.argv[1]) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_processes_left_is_swept_at_the_next_start_and_no_other_file(tmp_path, monkeypatch):
    target = tmp_path / "models" / "run.keras"
    process = subprocess.run([sys.executable, "-c", WRITER, target], env=os.environ | {"PYTHONPATH": str(PROJECT)})
    assert process.returncode == -signal.SIGKILL
    (left,) = target.parent.iterdir()
    _, killed, _ = left.name.split("-")
    others = [".hidden", f"x{left.name}", left.name.replace(f"-{killed}-", "-1-")]  # the first process always lives
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another machine")
        shell._machine.cache_clear()
        others.append(f".run.{shell._machine()}-{killed}-0123abcd.keras")
    shell._machine.cache_clear()
    for name in others:
        target.with_name(name).touch()
    with shell.writing(target.with_name("mine.txt")) as own:  # the first file of this process here
        own.touch()
        shell.make_folders(target.parent)
        assert own.exists()
    assert sorted(path.name for path in target.parent.iterdir()) == sorted(["mine.txt", *others])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("64 requested and 0 written"), "64 requested and 0 written"),  # NumPy's
        (
            OSError("Can't write (errno = 28, error message = 'No space left on device', buf = 0x)"),
            "No space left on d",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_sentence_and_the_old_file_stays(tmp_path, error, told):
    path = tmp_path / "kept.npz"
    path.write_text("old")
    with pytest.raises(UserError, match=rf"^cannot write {path}: {told}"), shell.writing(path) as temporary:
        temporary.write_text("new")
        raise error
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_failed_connection_is_not_a_full_disk(tmp_path):
    import requests

    with pytest.raises(requests.ConnectionError), shell.writing(tmp_path / "a.zip"):
        raise requests.ConnectionError("no route")


def test_a_name_too_long_is_one_sentence(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*File name too long"),
        shell.writing(tmp_path / ("a" * 300)) as p,
    ):
        p.touch()
    with pytest.raises(argparse.ArgumentTypeError, match="is not a name of up to 200"):
        shell.run_name("a" * 201)
    with pytest.raises(UserError, match="File name too long"):
        runs.read_card(tmp_path / ("a" * 300))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_folder_that_cannot_be_entered_is_one_sentence(tmp_path):
    """By a process that is not root, which may enter any."""
    code = """
import os, sys, filelock, shell, runs  # nobody may read the packages
from pathlib import Path
os.setuid(65534)
def main():
    print(shell.read_arrays("shut/a.npz"), flush=True)
    for act in (lambda: runs.read_card("shut/a.keras"), lambda: shell.make_folders("shut"),
                lambda: shell.write_arrays("shut/a.npz"), lambda: runs.lock(Path("shut/a"), "a").__enter__()):
        try:
            act()
        except shell.UserError as error:
            print(error, flush=True)
    Path("shut/a").exists()
shell.run_script(main)
"""
    (tmp_path / "shut").mkdir(mode=0o600)
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(0o755)
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert process.stdout.count("Permission denied") == 4, process.stdout
    assert process.stderr.splitlines()[-1].startswith("error: cannot use shut/a: Permission denied")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_an_output_that_takes_no_more_is_one_sentence(tmp_path):
    code = "import shell; shell.run_script(lambda: print('answers'))"
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", code],
            text=True,
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )
    assert process.returncode == 2 and process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("error: cannot write the output: No space left on device")


@pytest.mark.slow
def test_a_table_is_appended_to_by_one_process(tmp_path, script, refusal, folder):
    path = tmp_path / "answers.csv"
    with runs.lock(tmp_path / "answers.csv.lock", "table"):
        process = script(tmp_path, "predict.py", folder / "A00001.hea", "--csv", path)
    sentence = refusal(process, status=1)
    assert f"the table {path} is in work by process {os.getpid()}; wait for it, or name another file" in sentence
    assert not path.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_table_on_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "answers.csv").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*answers.csv: No space left on device"):
        batches.append(str(tmp_path / "answers.csv"), ["file"], [{"file": "a.hea"}])
