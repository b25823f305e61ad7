"""Runs a script again and again, each time stopped at another of its calls that change the disk.

python tests/faults/steps.py kill|full JOB FOLDER [FIRST STEP]      from the call FIRST on (-1: the last), each STEP-th

JOB: training, of a tiny `improved`, or another of JOBS. kill: by SIGKILL after the call; full: from the call on, the
disk is full. Each time the same command is then given again and must end with what an undisturbed one ends with.
Processes are forked from one that has imported all, which takes seconds; in the training, copies of networks as ONNX
are their plain weights, since making such copies takes longest.
"""

import builtins
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import lightgbm  # noqa: F401
import numpy as np
import pairs
import pandas as pd

import evaluation
import f1_training_callback  # noqa: F401
import gc_implementation
import inference
import main
import members  # noqa: F401
import model
import plotting  # noqa: F401
import predict
import runs
import scoring  # noqa: F401
import shell
import synthetic
import training  # noqa: F401
import trees  # noqa: F401
from recipes import RECIPES

RECIPE = replace(RECIPES["improved"], seconds=5, vote_stretch=0, epochs=2, batch_size=8, trees_rounds=2)
RUN = runs.Run("tiny")
HEAD = ["--weights", "random", "--backbone", "compact", "--seconds", "10", "--epochs", "2", "--run", "head"]
JOBS = {
    "training": None,
    "features": (main.main, ["main.py", *pairs.DATA, *HEAD]),
    "evaluation": (evaluation.main, pairs.SCRIPTS["evaluation"]),
    "gradcam": (gc_implementation.main, pairs.SCRIPTS["gradcam"]),
    "predict": (predict.main, ["predict.py", "set", "--csv", "answers.csv", "--model", "models/tiny.keras"]),
}


class Unsure:
    """In place of an `inference.Onnx`, whose bytes are none here."""

    def __init__(self, content, where=""):
        self.content = content

    def predict_on_batch(self, beats):
        return np.full((len(beats), 4), 0.25, np.float32)


def table():
    rng = np.random.default_rng(0)
    rows = [
        {"record": f"A{n}", "label": "ANO~"[n % 4], "signal": synthetic.recording("ANO~"[n % 4], 9, rng)}
        for n in range(16)
    ]
    return pd.DataFrame(rows).assign(sampling_rate=300, split=(["train"] * 8 + ["validation"] * 8))


def stop_at(place, full):
    """Have this process killed after its call `place` that changes the disk, or find the disk full from it on."""
    calls = 0

    def changed(real, counts=lambda *given, **more: True):
        def call(*given, **more):
            nonlocal calls
            if not counts(*given, **more):
                return real(*given, **more)
            calls += 1
            if full and place and calls >= place:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            try:
                return real(*given, **more)
            finally:  # also where it fails, as deleting a file that was renamed does
                if calls == place and not full:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    here = os.getcwd()
    opened = changed(
        builtins.open,
        lambda path, mode="r", *given, **more: bool(set(mode) & set("wax+")) and os.path.abspath(path).startswith(here),
    )
    builtins.open = io.open = opened
    os.fsync, os.replace = changed(os.fsync), changed(os.replace)
    if not full:
        os.unlink = changed(os.unlink)
    return lambda: calls


def run(job, folder, place=0, full=False):
    """(exit status or minus the signal, output) of a process that does a job in `folder`; it ends with the calls."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    child = os.fork()
    if not child:
        to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(to, 1)
        os.dup2(to, 2)
        os.chdir(folder)
        if job == "training":
            inference.Onnx = Unsure
            model.to_onnx = lambda network: b"".join(weight.tobytes() for weight in network.get_weights())
        import tensorflow as tf  # here, where it says nothing to this process's output

        tf.config.run_functions_eagerly(True)  # graphs take longer to make than such a training
        status = 3
        try:
            calls = stop_at(place, full)
            status = _run(job)
            print(calls(), flush=True)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, log.read_text()


def _run(job):
    try:
        if job == "training":
            shell.make_folders("data", "models", RUN.figures)
            main.train(table(), RECIPE, RUN, "data", "disabled")
            return 0
        script, sys.argv = JOBS[job]
        return script() or 0
    except shell.UserError as error:
        print(f"error: {error}")
        return 2
    except OSError as error:
        print(f"error: {shell.reason(error)}")  # as `shell.run_script` tells it
        return 2


def result(folder):
    """What a training leaves: (names of all files, bytes of its history, its card, its weights)."""
    model_file = folder / RUN.model
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    card = runs.read_card(model_file)
    saved = runs.load(model_file)
    weights = [*(value.tobytes() for value in saved.network.get_weights()), saved.rhythm.content]
    return names, (folder / RUN.history).read_bytes(), card, weights


def compared(job, folder):
    """What a job leaves in `folder`, found in a process of its own: this one must not start TensorFlow."""
    if job != "training":
        return pairs.left(folder)
    log = folder.with_suffix(".result")
    child = os.fork()
    if not child:
        try:
            inference.Onnx = Unsure
            names, history, card, weights = result(folder)
            log.write_text(
                repr(
                    (
                        names,
                        history,
                        sorted(card.seen),
                        card.calibration,
                        card.scores,
                        card.thresholds,
                        card.history,
                        weights,
                    )
                )
            )
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return log.read_text()


def check(kind, job, folder, first=1, step=1):
    """How many places were tried; raises AssertionError where one of them is not survived."""
    full, ready = kind == "full", folder / "ready"
    ready.mkdir(parents=True)
    if job != "training":
        subprocess.run([sys.executable, pairs.PROJECT / "synthetic.py", ready / "set", "--count", "24"], check=True)
        pairs.end(ready, "main")
    shutil.copytree(ready, folder / "straight")
    status, said = run(job, folder / "straight", full=full)
    assert status == 0, said
    expected, calls, tried = compared(job, folder / "straight"), int(said.split()[-1]), 0
    print(f"{calls} calls change the disk", flush=True)
    for place in range(first if first > 0 else calls + 1 + first, calls + 1, step):
        here = folder / str(place)
        shutil.copytree(ready, here)
        status, said = run(job, here, place, full)
        assert status == (2 if full else -signal.SIGKILL), (place, status, said)
        assert "Traceback" not in said and (not full or said.count("error: ") == 1), (place, said)
        status, said = run(job, here)
        assert status == 0, (place, said)
        assert compared(job, here) == expected, (place, said)
        shutil.rmtree(here)
        tried += 1
        print(f"{place}: {' '.join(said.splitlines()[0].split())[:100]}", flush=True)
    print(f"{kind}: {tried} of {calls} calls tried, all survived", flush=True)
    return tried


if __name__ == "__main__":
    check(*sys.argv[1:3], Path(sys.argv[3]).absolute(), *map(int, sys.argv[4:]))
