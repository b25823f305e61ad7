"""Many recordings: on several processes, on a Dask cluster, and in a CSV file that outlives kills."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECT

import batches
import synthetic
from shell import UserError

NAMES = ["file", "class", "error", "fingerprint"]


def row(name, error="", fingerprint="mine"):
    return {"file": name, "class": "N", "error": error, "fingerprint": fingerprint}


def test_a_table_continues_after_a_kill_in_the_middle_of_a_row(tmp_path):
    path = tmp_path / "table.csv"
    assert batches.answered(path, NAMES, "mine") == {}
    batches.append(path, NAMES, [row("a, b.hea"), row("two\nlines.hea", error="bad"), row("\udcff.hea")])
    whole = path.read_bytes()
    known = {"a, b.hea": False, "two\nlines.hea": True, "\\udcff.hea": False}
    for torn in (b"", b"c.he", b'"c', b'"c\n', b"c.hea,N,,mine", b"c.hea,N\n"):
        path.write_bytes(whole + torn)
        assert batches.answered(path, NAMES, "mine") == known
        assert path.read_bytes() == whole, torn
    batches.append(path, NAMES, [row("c.hea")])
    assert list(batches.answered(path, NAMES, "mine")) == [*known, "c.hea"]
    path.write_bytes(whole[:9])  # killed in the header
    assert batches.answered(path, NAMES, "mine") == {} and path.read_bytes() == b""


def test_rows_that_failed_are_dropped_to_be_tried_again(tmp_path):
    path = tmp_path / "table.csv"
    rows = [row("a.hea", "bad"), row("two\nlines.hea", "=worse"), row('"b", \udcff.hea')]
    batches.append(path, NAMES, [rows[0], rows[2]])
    expected = path.read_bytes().replace(b"a.hea,N,bad,mine\n", b"")
    path.unlink()
    batches.append(path, NAMES, rows)
    batches.drop(path, {"a.hea", "two\nlines.hea"})
    assert path.read_bytes() == expected
    assert list(batches.answered(path, NAMES, "mine").values()) == [False]


def test_a_table_of_another_model_or_of_other_columns_is_refused_and_left(tmp_path):
    path = tmp_path / "table.csv"
    batches.append(path, NAMES, [row("a.hea")])
    before = path.read_bytes()
    for names, fingerprint in ((NAMES, "other"), ([*NAMES, "reasons"], "mine")):
        with pytest.raises(UserError, match=r"table.csv was written by another model or with other flags"):
            batches.answered(path, names, fingerprint)
    assert path.read_bytes() == before


def test_a_recording_is_not_taken_for_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("heart.csv", "1\n2\n"),
        ("table.csv", "file,class,error\n"),
        ("torn.csv", "fi"),
        ("x.hea", ""),
    ):
        Path(name).write_text(content)
    tables = ["heart.csv", "table.csv", "torn.csv", "x.hea", "new.csv", "new.txt", "."]
    assert [name for name in tables if batches.is_table(name, NAMES[:2])] == ["table.csv", "torn.csv", "new.csv"]


def once_killed(paths):
    """What a worker does here: its process is killed at the recording 5 the first time that somebody is there."""
    for path in paths:
        if path.name == "5" and not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [(path.name, os.getpid()) for path in paths]


def always_killed(paths):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_costs_no_recording(tmp_path, capsys):
    paths = [tmp_path / str(number) for number in range(40)]
    rows = list(batches.by_processes(once_killed, paths, 2))
    assert sorted(int(name) for name, _ in rows) == list(range(40))
    assert os.getpid() not in {process for _, process in rows}
    assert "a worker process died" in capsys.readouterr().err


@pytest.mark.slow
def test_recordings_that_kill_every_process_end_the_run(tmp_path):
    with pytest.raises(UserError, match="3 worker processes died one after the other"):
        list(batches.by_processes(always_killed, [tmp_path / "one"], 1))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder with 200 synthetic recordings."""
    folder = tmp_path_factory.mktemp("many") / "set"
    synthetic.write_dataset(folder, count=200, seed=2)
    return folder


def started(cwd, *arguments):
    command = [sys.executable, PROJECT / "predict.py", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(path, count):
    for _ in range(1200):
        if path.exists() and path.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} has no {count} rows after a minute")


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def workers(process):
    """The processes that classify, without Python's own that watches over them."""
    return [pid for pid in children(process) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def check_all_once(path, folder):
    rows = list(csv.DictReader(path.open()))
    assert sorted(Path(one["file"]).name for one in rows) == sorted(file.name for file in folder.glob("*.hea"))
    assert {one["class"] for one in rows} == set("ANO~") and len({one["fingerprint"] for one in rows}) == 1
    return {Path(one["file"]).name: one["probability_A"] for one in rows}


@pytest.fixture(scope="module")
def alone(many, script, tmp_path_factory):
    """What one process answers, {file: probability of A}."""
    path = tmp_path_factory.mktemp("alone") / "answers.csv"
    process = script(path.parent, "predict.py", many, "--csv", path)
    assert process.returncode == 0, process.stderr
    return check_all_once(path, many)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_killed_worker_and_a_killed_run_cost_no_recording(many, alone, tmp_path):
    path = tmp_path / "answers.csv"
    process = started(tmp_path, many, "--csv", path, "--workers", "2")
    wait_for_rows(path, 1)
    os.kill(workers(process)[0], signal.SIGKILL)
    wait_for_rows(path, 60)
    left = workers(process)
    process.kill()
    process.communicate()
    time.sleep(2)
    assert left and not [pid for pid in left if Path(f"/proc/{pid}").exists()]  # workers end with their parent
    assert 60 <= len(path.read_text().splitlines()) - 1 < 200
    process = started(tmp_path, many, "--csv", path, "--workers", "2")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and re.fullmatch(rf"rows written to {path}: \d+, it has 200\n", out), err
    assert check_all_once(path, many) == alone


@pytest.fixture
def cluster(tmp_path):
    """(address of a Dask scheduler, its two worker processes)."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    file = tmp_path / "scheduler.json"
    log = (tmp_path / "dask.log").open("w")
    options = {"cwd": tmp_path, "env": environment, "stdout": log, "stderr": log}
    processes = [subprocess.Popen([*dask, "--host", "127.0.0.1", "--scheduler-file", file], **options)]
    for _ in range(2):
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1"]
        processes.append(subprocess.Popen([*worker, "--no-nanny", "--no-dashboard"], **options))
    for _ in range(600):
        if file.exists():
            break
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"], processes[1:]
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_dask_cluster_answers_every_recording_once_though_a_worker_is_killed(many, alone, cluster, tmp_path):
    address, (first, _) = cluster
    path = tmp_path / "answers.csv"
    process = started(tmp_path, os.path.relpath(many, tmp_path), "--csv", path, "--dask", address)
    wait_for_rows(path, 1)
    first.kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert check_all_once(path, many) == alone


def test_dask_is_optional_and_must_be_there(script, refusal, tmp_path):
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError(name='distributed')")
    process = script(tmp_path, "predict.py", "a.hea", "--dask", "127.0.0.1:9", PYTHONPATH=str(tmp_path))
    assert "--dask needs distributed, which is not installed" in refusal(process, status=1)
    assert "standard input" in refusal(script(tmp_path, "predict.py", "-", "--workers", "2"))
