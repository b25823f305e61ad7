"""Trains on 10,000 and on 100,000 synthetic recordings for an epoch, classifies their test split and scores it.

python tests/faults/large.py FOLDER [SMALL LARGE]        takes an hour, and 3 GB of disk

Prints how long each script took and how much memory it had, and fails where this is more than 2.5 GB, or where ten
times the recordings take more than eleven times as long. The network alone is trained: what is measured of heartbeats
is kept on disk and takes hours here. Recordings are a thousand different ones, turned.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import dataset
import synthetic

PROJECT = Path(__file__).resolve().parents[2]
MEMORY, TIMES = 2.5e9, 11  # bytes; how much longer ten times the recordings may take
TRAINED = [
    "--recipe",
    "improved",
    "--members",
    "network",
    "--no-refit",
    "--epochs",
    "1",
    "--run",
    "large",
    "--wandb",
    "disabled",
]
SCRIPTS = {
    "main.py": [*TRAINED, "--data", "set"],
    "evaluation.py": ["--run", "large", "--data", "set"],
}


def write(folder, count):
    """Write `count` recordings into `folder`."""
    synthetic.write_dataset(folder / "few", 1000)
    few, rows = dataset.read_recordings(folder / "few"), []
    (folder / "set").mkdir()
    for place in range(count):
        row, turned = few.iloc[place % 1000], place // 1000
        synthetic.write_recording(folder / "set", f"A{place:06}", np.roll(row.signal, 41 * turned))
        rows.append(f"A{place:06},{row.label}\n")
    (folder / "set/REFERENCE.csv").write_text("".join(rows))
    return sum(len(few.signal[place % 1000]) for place in range(count)) * 2


def memory(session):
    """Bytes that a process and its children have and the system cannot take back: not those of files, which it can
    read again.
    """
    taken = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if os.getsid(int(process.name)) == session:
                found = re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", (process / "status").read_text())
                taken += sum(map(int, found)) * 1024
    return taken


def run(folder, script):
    """(seconds, most memory in bytes) of a script in `folder`."""
    began, most = time.monotonic(), 0
    command = [sys.executable, PROJECT / script, *SCRIPTS[script]]
    with open(folder / f"{script}.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            most = max(most, memory(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0, (folder / f"{script}.log").read_text()[-2000:]
    return time.monotonic() - began, most


def main(folder, *counts):
    told = {}
    for count in counts:
        here = folder / str(count)
        here.mkdir(parents=True)
        size = write(here, count)
        for script in SCRIPTS:
            told[script, count] = seconds, most = run(here, script)
            sizes = f"{count:,} recordings of {size / 1e9:.2f} GB"
            print(f"{sizes}: {script} took {seconds:.0f} s and {most / 1e9:.2f} GB", flush=True)
            assert most < MEMORY
        assert len((here / "figures/large/predictions.csv").read_text().splitlines()) == 1 + round(count / 5)
        shutil.rmtree(here)
    least, greatest = min(counts), max(counts)
    for script in SCRIPTS:
        ratio = told[script, greatest][0] / told[script, least][0]
        print(f"{script}: {ratio:.1f} times as long for {greatest / least:g} times the recordings", flush=True)
        assert ratio <= TIMES * greatest / least / 10


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:] or ("10000", "100000")))
