"""Trains `improved` for 40 epochs undisturbed, and again while it is killed every two minutes until it ends.

python tests/faults/long.py FOLDER DATA [EPOCHS SECONDS]        DATA: zip or folder of recordings; takes an hour or two

Both must leave the same model, which says the same of every recording of the test split. Prints by how much the
memory of the first grew with each epoch, and fails where this is more than 2 MB.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pairs

PROJECT = Path(__file__).resolve().parents[2]
GROWTH = 2e6  # bytes an epoch
SKIPPED = 5  # first epochs, in which TensorFlow still takes memory


def start(folder, data, epochs, log):
    flags = [
        "--recipe",
        "improved",
        "--no-refit",
        "--run",
        "long",
        "--epochs",
        str(epochs),
        "--wandb",
        "disabled",
        "--data",
        data,
    ]
    command = [sys.executable, PROJECT / "main.py", *flags]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True)


def watch(process, checkpoint):
    """[bytes of memory after each epoch] of the network, until the process ends."""
    taken, written = [], 0
    while process.poll() is None:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != written:
            written = checkpoint.stat().st_mtime_ns
            told = Path(f"/proc/{process.pid}/status").read_text()
            taken.append(int(told.partition("RssAnon:")[2].split()[0]) * 1024)
        time.sleep(0.2)
    return taken


def left(folder):
    """What a training leaves: names of files, weights and trees."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return [name for name in names if "data/beats" not in name], pairs.content(folder / "models/long.keras")


def answers(folder, data):
    """The rows of the test split by the model in `folder`."""
    flags = ["--model", "models/long.keras", "--run", "long", "--data", data]
    subprocess.run([sys.executable, PROJECT / "evaluation.py", *flags], cwd=folder, check=True, capture_output=True)
    return (folder / "figures/long/predictions.csv").read_text()


def main(folder, data, epochs=40, seconds=120):
    straight, killed = folder / "straight", folder / "killed"
    for here in (straight, killed):
        here.mkdir(parents=True, exist_ok=True)
    with open(folder / "straight.log", "w") as log:
        began = time.monotonic()
        process = start(straight, data, epochs, log)
        taken = watch(process, straight / "models/long.checkpoint.npz")
    assert process.returncode == 0, (folder / "straight.log").read_text()[-2000:]
    slope = np.polyfit(range(len(taken) - SKIPPED), taken[SKIPPED:], 1)[0]
    took = time.monotonic() - began
    first, last = (taken[place] / 1e6 for place in (SKIPPED, -1))
    print(f"undisturbed: {took:.0f} s; memory {first:.0f} MB after epoch {SKIPPED + 1}, {last:.0f} MB after the last")
    print(f"that is {slope / 1e6:+.2f} MB an epoch over {len(taken) - SKIPPED} epochs", flush=True)
    kills, began = 0, time.monotonic()
    with open(folder / "killed.log", "w") as log:
        while True:
            process = start(killed, data, epochs, log)
            try:
                status = process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
    assert status == 0, (folder / "killed.log").read_text()[-2000:]
    print(f"killed {kills} times, every {seconds} s: {time.monotonic() - began:.0f} s", flush=True)
    assert left(killed) == left(straight)
    assert answers(killed, data) == answers(straight, data)
    print("the same files, weights, trees and answers", flush=True)
    assert abs(slope) < GROWTH, slope


if __name__ == "__main__":
    main(*(Path(path).absolute() for path in sys.argv[1:3]), *map(int, sys.argv[3:]))
