"""How well episodes of fibrillation are found, on recordings of half an hour joined from the challenge's.

    python benchmarks/episodes.py --data path/of/training2017.zip
    python benchmarks/episodes.py --data path/of/training2017.zip --choose models/improved-first.keras

Fibrillation of known minutes is put between normal recordings, or nothing between those of other rhythms; all are of
the test split, each used once, and the shipped model answers. --choose prints the same for other rules than the one in
`episodes.py`: on the validation split, by a model that has not learned from it.
"""

import itertools
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import dataset
import episodes
import runs
from shell import UserError, parser, progress, run_script

RATE, MINUTES = 300, 25  # Hz; the least length of a joined recording
INSERTED = 2, 3, 5, 2, 8, 3, 2, 5  # minutes of the episodes

Joined = namedtuple("Joined", "background signal truth")  # truth: [(begin, end)] in s


def main():
    flags = parser(__doc__)
    flags.add_argument("--data", type=Path, required=True, metavar="PATH", help="zip or folder of the recordings")
    flags.add_argument("--seed", type=int, default=0, help="of the order in which recordings are joined")
    flags.add_argument("--choose", type=Path, metavar="MODEL", help="compare rules on the validation split")
    arguments = flags.parse_args()
    models = [runs.load(arguments.choose or Path(__file__).parent.parent / "pretrained/improved.keras")]
    if arguments.choose and models[0].card.recipe.refit:
        raise UserError(
            f"{arguments.choose} has learned from the validation split; name its first training, NAME-first.keras"
        )
    table = dataset.read_recordings(arguments.data)
    recipe, split = models[0].card.recipe, "validation" if arguments.choose else "test"
    table = table[dataset.split(table, recipe.split_seed, recipe.seed) == split]
    table = table.sample(frac=1, random_state=arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    joined = [one for half in (0, 1) for one in join(table[half::2], rng)]
    with progress(sum(len(one.signal) for one in joined) // (RATE * episodes.WINDOW), "classifying", "window") as bar:
        answers = [(one, episodes.classify(models, one.signal, RATE, bar)) for one in joined]
    print("rule: " + episodes.RULE)
    report(answers)
    if arguments.choose:
        choose(answers)


def join(table, rng):
    """[`Joined`] of the recordings in `table`, each used once."""
    pool = {label: list(group.signal) for label, group in table.groupby("label")}
    inserted = itertools.cycle(INSERTED)
    made = []
    for background in ("N",) * 8 + ("O",) * 3:
        parts, truth = [], []
        while sum(map(len, parts)) < MINUTES * 60 * RATE and pool[background]:
            parts += take(pool[background], rng.uniform(4, 9))
            episode = take(pool["A"], next(inserted)) if background == "N" and rng.random() < 2 / 3 else []
            begin = sum(map(len, parts)) / RATE
            parts += episode
            if episode:
                truth.append((begin, sum(map(len, parts)) / RATE))
        if parts:
            made.append(Joined(background, np.concatenate(parts), truth))
    return made


def take(pool, minutes):
    """Recordings out of `pool` that last so many minutes together or little longer, at the same level."""
    taken = []
    while pool and sum(map(len, taken)) < minutes * 60 * RATE:
        signal = pool.pop()
        taken.append(signal - np.median(signal))
    return taken


def report(answers):
    """Print how far the burden is off, and which episodes were found, by background."""
    for background in ("N", "O"):
        off, found, wanted, false = scores([each for each in answers if each[0].background == background])
        print(
            f"{background}: {len(off)} recordings; burden off by {np.abs(off).mean():.1f} % points, at most "
            f"{np.abs(off).max():.1f}, in the mean {np.mean(off):+.1f}; {found} of {wanted} episodes of 2 minutes or "
            f"more found; {false} false episodes"
        )


def scores(answers):
    """(errors of the burden in % points, episodes found, episodes there are, false episodes)."""
    off, found, wanted, false = [], 0, 0, 0
    for one, windows in answers:
        episodes_found = episodes.find(windows)
        off.append(100 * (total(episodes_found) - total(one.truth)) / windows.ends[-1])
        long = [truth for truth in one.truth if truth[1] - truth[0] >= 120]
        wanted += len(long)
        found += sum(covered(truth, episodes_found) > 0.5 for truth in long)
        false += sum(covered(each, one.truth) == 0 for each in episodes_found)
    return off, found, wanted, false


def total(stretches):
    """The length of [(begin, end)]."""
    return sum(end - begin for begin, end in stretches)


def covered(stretch, others):
    """The share of a stretch (begin, end) that lies in one of `others`."""
    begin, end = stretch
    return total([(max(begin, b), max(min(end, e), max(begin, b))) for b, e in others]) / (end - begin)


def choose(answers):
    """Print the `report` of other rules than that of `episodes.py`."""
    for rule in itertools.product((1, 3, 5), (0.1, 0.2, 0.3, 0.5), (0, 60, 90), (0, 60)):
        episodes.NEIGHBOURS, episodes.PROBABILITY, episodes.SHORTEST, episodes.GAP = rule
        print("median of {}, above {}, from {} s, gaps to {} s".format(*rule))
        report(answers)


if __name__ == "__main__":
    run_script(main)
