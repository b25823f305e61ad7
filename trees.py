"""Boosted trees on measured heartbeats: the second member of a model, which errs elsewhere than the network does."""

from importlib.metadata import version

import numpy as np

import beats
import preprocessing
import rhythm
from recipes import CLASSES
from shell import hidden


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
    """The LightGBM booster of its text.

    LightGBM looks for packages that it can do without, and importing them takes a second: here it gets arrays alone.
    """
    with hidden("sklearn", "pandas", "matplotlib", "dask"):
        import lightgbm
    return lightgbm.Booster(model_str=text)


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
