"""What each part of the recipe `improved` is worth: full trainings without it, on the report's validation splits.

    python benchmarks/ablation.py [--data PATH] [--seeds 3] [--workers 2] [ROW ...]

trains the whole recipe, and its network of images with each change, by `main.py` in the current folder, with seeds from
42 on, each of which has a validation split of its own; the test split is left alone. Finished trainings are kept, so
the same command goes on after an interruption. Prints a row for each change: the means and, behind ±, the standard
deviations over the seeds of the N/A/O F1 and its difference from the row it belongs to, of the 4-class F1, and of the
log loss, calibrated on one half of the validation split and scored on the other, in ten random halvings.
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
# The changes of the network's training.
TRAINED = [
    {"image": "spectrogram"},
    {"image": "scalogram"},
    {name: 0.0 for name in ("stretch", "gain", "noise", "crop", "clip", "motion", "low_pass")} | {"bursts": 0},
    {"stretch": 0.0},
    {"gain": 0.0},
    {"noise": 0.0},
    {"crop": 0.0},
    {"clip": 0.0},
    {"motion": 0.0},
    {"low_pass": 0.0},
    {"bursts": 0},
    {"warp": 0.2},
    {"bands": 2},
    {"high_pass": 0.0},
    {"notch": 0.0},
    {"block": 0.0},
    {"floor": 0.0},
    {"padding": "zeros"},
    {"padding": "wrap"},
    {"class_weights": "none"},
    {"class_weights": "balanced"},
    {"label_smoothing": 0.0},
    {"weight_average": 0.0},
]
# Those of the answers of the whole recipe's models: who answers, the network's vote, and whether they are calibrated.
EVERY = ("network", "rhythm", "trees")
ANSWERED = {
    "all members": (EVERY, {}, True),
    **{f"{' and '.join(each)} alone": (each, {}, True) for each in (EVERY[:2], EVERY[::2], EVERY[1:])},
    **{f"{each} alone": ((each,), {}, True) for each in EVERY},
    "not calibrated": (EVERY, {}, False),
    "network alone, not calibrated": (EVERY[:1], {}, False),
    "network alone, no stretched readings": (EVERY[:1], {"vote_stretch": 0.0}, True),
    "network alone, the first 30 s": (EVERY[:1], {"vote_stretch": 0.0, "vote": False}, True),
}
BASE = recipes.RECIPES["improved"]


def title(changes):
    return "everything of augmentation off" if len(changes) > 2 else spaces.flags(changes).strip()


def main():
    names = [title(changes) for changes in TRAINED]
    flags = parser(__doc__)
    flags.add_argument("rows", nargs="*", metavar="ROW", help=f"of the trained rows, by number: {numbered(names)}")
    flags.add_argument("--data", type=Path, default=dataset.DEFAULT_DATA, help="zip or folder of recordings")
    flags.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    flags.add_argument("--workers", type=int, default=1, help="trainings at once")
    arguments = flags.parse_args()
    try:
        chosen = [TRAINED[int(row) - 1] for row in arguments.rows] or TRAINED
    except (ValueError, IndexError):
        raise UserError(f"rows are numbers from 1 to {len(TRAINED)}") from None
    seeds = range(BASE.seed, BASE.seed + arguments.seeds)
    wanted = [(changes, seed) for changes in ({}, *chosen) for seed in seeds]
    with ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(lambda each: train(*each, arguments.data), wanted))
    table = dataset.read_recordings(arguments.data, BASE.labels)
    print("| change | N/A/O F1 | difference | 4-class F1 | log loss |\n|---|---|---|---|---|")
    base = {}
    for name, (some, changes, calibrated) in ANSWERED.items():
        rows = [score(answers(table, {}, seed, some, changes), calibrated) for seed in seeds]
        base[some] = base.get(some, rows)
        show(name, rows, base[EVERY] if some == EVERY or name.endswith(" alone") else base[some])
    for changes in chosen:
        rows = [score(answers(table, changes, seed, EVERY[:1], {}), True) for seed in seeds]
        show(f"network alone, {title(changes)}", rows, base[EVERY[:1]])


def numbered(names):
    return "; ".join(f"{number} {name}" for number, name in enumerate(names, 1))


def recipe(changes, seed):
    return replace(BASE, seed=seed, **({"members": "network"} | changes if changes else {}))


def run(changes, seed):
    return runs.Run(f"ablation-{recipe(changes, seed).title}"[:100])


def train(changes, seed, data):
    """Train by main.py, unless it is done."""
    card = run(changes, seed).card()
    if card and card.scores and card.recipe == recipe(changes, seed):
        return
    command = [sys.executable, PROJECT / "main.py", "--recipe", "improved", "--data", data]
    command += [f"--run={run(changes, seed).name}"]
    command += spaces.flags(recipe(changes, seed).changes).split()
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"{' '.join(map(str, command[1:]))} failed: {ended.stderr[-300:]}")
    say(f"trained {run(changes, seed).name}")


def answers(table, changes, seed, some, answered):
    """(labels (n,), probabilities (n, 4), not calibrated) of the members `some` for the validation split."""
    saved = runs.load(run(changes, seed).model)
    card = saved.card
    rows = table[dataset.split(table, card.recipe.split_seed, seed) == "validation"]
    said = {}
    for member in some:
        if member == "network":
            how = replace(card.recipe, **answered)
            said[member] = members.by_network(saved.network, how, rows.signal, rows.sampling_rate)
        else:
            measured = members.measure(rows.signal, rows.sampling_rate)
            said[member] = members.by_heartbeats(saved, member, measured)
    return dataset.labels(rows), members.joined(said, None)


def score(answer, calibrated, draws=10):
    """(N/A/O F1, 4-class F1, log loss) of what `answers` returns, each half calibrated on the other."""
    labels, probabilities = answer
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


def show(name, rows, base):
    rows, base = np.array(rows), np.array(base)
    spread = rows.std(0, ddof=1) if len(rows) > 1 else np.full(3, np.nan)
    gain = rows[:, 0] - base[:, 0]
    far = gain.std(ddof=1) if len(rows) > 1 else np.nan
    cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(rows.mean(0), spread, strict=True)]
    difference = "" if not gain.any() else f"{gain.mean():+.3f} ± {far:.3f}"
    print(f"| {name} | {cells[0]} | {difference} | {cells[1]} | {cells[2]} |", flush=True)


if __name__ == "__main__":
    run_script(main)
