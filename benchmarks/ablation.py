"""What each part of the network of images of `improved` is worth: full trainings without it, on validation splits.

    python benchmarks/ablation.py [--data PATH] [--seeds 3] [--workers 2]
    python benchmarks/ablation.py stretch=0 padding=zeros epochs=60,learning_rate=0.002        these changes instead

trains the network as it is and with each change, by `main.py --recipe improved --members network --no-refit` in the
current folder, with seeds from 42 on, each of which has a validation split of its own; the test split is left alone.
Finished trainings are kept, so the same command goes on after an interruption. Prints a row for each change: the means
and, behind ±, the standard deviations over the seeds of the N/A/O F1, of its difference from the network as it is, of
the 4-class F1 and of the log loss; all calibrated on one half of the validation split and scored on the other, in ten
random halvings.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import dataset
import members
import recipes
import runs
import scoring
import spaces
import training
from shell import UserError, parser, run_script, say

PROJECT = Path(__file__).parent.parent
BASE = replace(recipes.RECIPES["improved"], members="network", refit=False)
TRAINED = (
    "trace=False",
    "image=spectrogram,trace=False",
    "image=scalogram",
    "flip=0,stretch=0,gain=0,noise=0,crop=0,clip=0,motion=0,low_pass=0,bursts=0",
    *(f"{name}=0" for name in ("flip", "stretch", "gain", "noise", "crop", "clip", "motion", "low_pass", "bursts")),
    *("warp=0.2", "bands=2"),
    *(f"{name}=0" for name in ("high_pass", "notch", "block", "floor")),
    *("padding=zeros", "padding=wrap", "class_weights=sqrt", "class_weights=balanced"),
    *("label_smoothing=0", "weight_average=0"),
)
# How the networks as they are answer: by which vote, and whether calibrated.
ANSWERED = {
    "as it is": ({}, True),
    "not calibrated": ({}, False),
    "no stretched readings": ({"vote_stretch": 0.0}, True),
    "the first 30 s alone": ({"vote_stretch": 0.0, "vote": False}, True),
}


def main():
    flags = parser(__doc__)
    flags.add_argument("rows", nargs="*", metavar="SETTING=VALUE", help="changes to train, instead of all")
    flags.add_argument("--data", type=Path, default=dataset.DEFAULT_DATA, help="zip or folder of recordings")
    flags.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    flags.add_argument("--workers", type=int, default=1, help="trainings at once")
    arguments = flags.parse_args()
    seeds = range(BASE.seed, BASE.seed + arguments.seeds)
    recipes_of = {row: [changed(row, seed) for seed in seeds] for row in ("", *(arguments.rows or TRAINED))}
    table = dataset.read_recordings(arguments.data, BASE.labels)
    print("| change | N/A/O F1 | difference | 4-class F1 | log loss |\n|---|---|---|---|---|", flush=True)
    pool, base = ThreadPoolExecutor(arguments.workers), None
    try:
        pending = {
            row: [pool.submit(train, recipe, arguments.data, table) for recipe in each]
            for row, each in recipes_of.items()
        }
        for row, trained in pending.items():
            for each in trained:
                each.result()
            for name, (how, calibrated) in ({row: ({}, True)} if row else ANSWERED).items():
                scores = [score(*answers(table, recipe, how), calibrated) for recipe in recipes_of[row]]
                base = base or scores
                show(name, scores, base)
    finally:
        pool.shutdown(cancel_futures=True)


def changed(row, seed):
    """The recipe of the network with the changes that `row` names, setting=value,setting=value or nothing."""
    changes = dict(part.partition("=")[::2] for part in row.split(",") if part)
    if "refit" in changes:
        raise UserError("refit cannot be changed here: it leaves no validation split to score the network on")
    if unknown := set(changes) - set(recipes.settings()):
        raise UserError(f"{sorted(unknown)[0]} is not a setting; python recipes.py prints them")
    kinds = {name: type(getattr(BASE, name)) for name in changes}
    with spaces.refusals(f"{row} cannot be used", ValueError):
        values = {
            name: {"True": True, "False": False}.get(value, value) if kinds[name] is bool else kinds[name](value)
            for name, value in changes.items()
        }
        return replace(BASE, **values, seed=seed)


def run(recipe):
    return runs.Run(f"ablation-{recipe.run}")


def train(recipe, data, table):
    """Train by main.py on the recordings in `data`, which `table` holds, unless it is done."""
    split = dataset.split(table, recipe.split_seed, recipe.seed)
    if run(recipe).finished(training.fingerprint(table.assign(split=split), recipe)):
        return
    command = f"main.py --recipe improved --run {run(recipe).name}{recipes.as_flags(recipe.changes)}".split()
    command = [sys.executable, PROJECT / command[0], *command[1:], "--data", data]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"the training of {run(recipe).name} failed: {ended.stderr[-300:]}")
    say(f"trained {run(recipe).name}")


def answers(table, recipe, how):
    """(labels (n,), probabilities (n, 4)) of the validation split by the network of `recipe`, read as `how` changes it.

    They are not calibrated.
    """
    rows = table[dataset.split(table, recipe.split_seed, recipe.seed) == "validation"]
    network = runs.load(run(recipe).model).network
    return dataset.labels(rows), members.by_network(network, replace(recipe, **how), rows.signal, rows.sampling_rate)


def score(labels, probabilities, calibrated, draws=10):
    """(N/A/O F1, 4-class F1, log loss) of what `answers` returns, each half calibrated on the other."""
    scores = []
    for draw in range(draws if calibrated else 1):
        halves = np.array_split(np.random.default_rng(draw).permutation(len(labels)), 2)
        said = probabilities.astype(float)
        for here, there in (halves, halves[::-1]) if calibrated else ():
            calibration = {"": training.calibrate(probabilities[there], labels[there])}
            said[here] = members.joined({"": probabilities[here]}, calibration)
        matrix = scoring.confusion_matrix(labels, said.argmax(1))
        scores.append((scoring.challenge_f1(matrix), scoring.average_f1(matrix), scoring.log_loss(labels, said)))
    return np.mean(scores, axis=0)


def show(name, scores, base):
    """Print a row of the table; scores, base: what `score` returns for each seed, of the row and of the first one."""
    scores, gains = np.array(scores), np.array(scores)[:, 0] - np.array(base)[:, 0]
    cells = [across(column) for column in scores.T]
    difference = across(gains, "+") if gains.any() else ""
    print(f"| {name} | {cells[0]} | {difference} | {cells[1]} | {cells[2]} |", flush=True)


def across(values, sign=""):
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.3f}{spread}"


if __name__ == "__main__":
    run_script(main)
