"""Boosted trees on measured heartbeats: the second member of a model, which errs elsewhere than the network does."""

import re
from importlib.metadata import version

import numpy as np

import beats
import preprocessing
import rhythm
from recipes import CLASSES
from shell import hidden

# The lines of a tree in LightGBM's text that are lists, of integers and of numbers: of each split, and of each leaf.
INTEGERS = ("split_feature", "decision_type", "left_child", "right_child", "internal_count"), ("leaf_count",)
NUMBERS = ("split_gain", "threshold", "internal_value", "internal_weight"), ("leaf_value", "leaf_weight")
DECISIONS = {0, 2, 4, 6, 8, 10}  # all but those by categories
MOST_LEAVES = 1000


def fit(measured, labels, recipe):
    """The trees, a list of LightGBM's boosters, for recordings that are `measuring.Measured`.

    labels: indices of classes (recordings,). Two sets of trees, whose logits are averaged: one of the best splits, and
    one of the best of random ones, which is surer of less.
    """
    import lightgbm

    rounds = recipe.trees_rounds
    kinds = {"num_iterations": rounds}, {"num_iterations": -(-rounds * 12 // 7), "extra_trees": True}
    settings = {
        "objective": "multiclass",
        "num_class": len(CLASSES),
        "num_leaves": recipe.trees_leaves,
        "learning_rate": recipe.trees_rate,
        "feature_fraction": recipe.trees_share,
        "lambda_l2": recipe.trees_l2,
        "min_data_in_leaf": recipe.trees_least,
        "max_bin": 63,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
        "seed": recipe.seed,
    }
    classes = np.asarray(labels)[measured.owners]
    return [lightgbm.train(settings | kind, lightgbm.Dataset(measured.rows, classes)) for kind in kinds]


def load(text):
    """The LightGBM booster of its text. Raises `ValueError` for a text that is none on our measurements and classes.

    LightGBM looks for packages that it can do without, and importing them takes a second: here it gets arrays alone.
    """
    with hidden("sklearn", "pandas", "matplotlib", "dask"):
        import lightgbm
    return lightgbm.Booster(model_str=_checked(text))


def _checked(text):
    """What LightGBM needs of its text, each line checked; `ValueError` where one is wrong.

    Its own parser believes counts and indices, and leaves its memory where they are wrong.
    """
    head, *parts = text.partition("\nend of trees")[0].split("\nTree=")
    told, width = _lines(head), len(beats.MEASUREMENTS)
    lines = {"version": told.get("version", ""), "num_class": len(CLASSES), "num_tree_per_iteration": len(CLASSES)}
    lines |= {"label_index": 0, "max_feature_idx": width - 1, "objective": f"multiclass num_class:{len(CLASSES)}"}
    alike = all(told.get(name) == str(value) for name, value in lines.items())
    if not alike or not re.fullmatch(r"v\d{1,3}", lines["version"]) or not parts or len(parts) % len(CLASSES):
        raise ValueError("its trees are not of this version's classes and measurements")
    lines |= {"feature_names": " ".join(f"Column_{place}" for place in range(width))}
    lines |= {"feature_infos": " ".join(["none"] * width)}  # the range of each in the training, which no answer needs
    trees = [_tree(_lines(part), width) for part in parts]
    sections = [lines, *({"Tree": place} | tree for place, tree in enumerate(trees))]
    text = "\n\n".join("".join(f"{name}={value}\n" for name, value in section.items()) for section in sections)
    return f"tree\n{text}\nend of trees\n"


def _lines(text):
    """{name: value} of the lines of a text."""
    return dict(line.partition("=")[::2] for line in text.split("\n"))


def _tree(told, width):
    """The lines {name: value} of a tree on so many measurements, checked."""
    plain = (told["num_cat"], told["is_linear"]) == ("0", "0") and "inf" not in told["leaf_value"]
    sizes = re.fullmatch(r"[0-9]{1,4}", told["num_leaves"]) and re.fullmatch(r"[-+.0-9e]{1,30}", told["shrinkage"])
    if not plain or not sizes:
        raise ValueError("a tree is of another kind than ours")
    leaves = int(told["num_leaves"])
    found = {}
    for groups, letters in ((INTEGERS, re.compile(r"[-0-9 ]*")), (NUMBERS, re.compile(r"[-+.0-9einf ]*"))):
        for names, many in zip(groups, (leaves - 1, leaves), strict=True):
            for name in names:
                found[name] = told[name].split()
                some = 0 if (leaves, name) == (1, "leaf_weight") else many
                if len(found[name]) != some or not letters.fullmatch(told[name]):
                    raise ValueError(f"the {name} of a tree is not one for each split or leaf")
    features, decisions, left, right, passed, reached = (
        list(map(int, found[name])) for names in INTEGERS for name in names
    )
    # Splits are numbered as they are made, the leaves from -1 downwards: all but the first are once below another.
    below = sorted(left + right) == [*range(-leaves, 0), *range(1, leaves - 1)] if leaves > 1 else True
    later = all(child < 0 or child > place for side in (left, right) for place, child in enumerate(side))
    known = all(0 <= feature < width for feature in features) and DECISIONS.issuperset(decisions)
    if not (below and later and known and 1 <= leaves <= MOST_LEAVES and min(passed + reached) > 0):
        raise ValueError("a tree branches to where there is nothing")
    return {name: told[name] for name in ("num_leaves", "num_cat", *found, "is_linear", "shrinkage")}


def provenance():
    """{measurements: names, sequence: names, package: version} of what is seen of heartbeats, and by what."""
    names = [name for name, _, _ in beats.MEASUREMENTS]
    packages = {name: version(name) for name in (*beats.PACKAGES, "lightgbm")}
    return {"measurements": names, "sequence": rhythm.FEATURES} | packages


def classify(boosters, measured):
    """Probabilities (recordings, 4) of recordings that are `measuring.Measured`: all boosters vote on all windows."""
    probabilities = np.concatenate([booster.predict(measured.rows) for booster in boosters])
    return preprocessing.vote(probabilities, np.tile(measured.owners, len(boosters)))


def contributions(boosters, rows, chosen):
    """What each measurement adds to the logit of the class of index `chosen`, (measurements,): the mean over `rows`.

    rows: (windows, measurements). Source: Lundberg et al. 2020, "From local explanations to global understanding with
    explainable AI for trees", as LightGBM computes it.
    """
    added = [booster.predict(rows, pred_contrib=True).reshape(len(rows), len(CLASSES), -1) for booster in boosters]
    return np.mean(added, axis=(0, 1))[chosen, :-1]  # the last is the same for all recordings
