"""The F1 scores, exactly, in the one place that everything imports.

Two averages circulate. The report averages F1 over all four classes; the challenge's official score averages N, A
and O only. `python scoring.py` prints both for the report's own confusion matrix.

Confusion matrices are (4, 4) counts, rows true and columns predicted, in the order of `recipes.CLASSES`.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from recipes import CLASSES

SCORES = ("F1_0", "F1_1", "F1_2", "F1_3", "avg_F1_score", "challenge_F1")  # what is logged every epoch

REPORT_MATRIX = np.array([[72, 22, 51, 3], [31, 838, 128, 13], [59, 178, 245, 9], [4, 19, 12, 22]])
REPORT_AUC = np.array([0.86, 0.84, 0.74, 0.95])


def confusion_matrix(true, predicted):
    """Counts (4, 4) from indices of classes `true` and `predicted`, each of shape (n,)."""
    flat = np.asarray(true) * len(CLASSES) + np.asarray(predicted)
    return np.bincount(flat, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


def f1_per_class(matrix):
    """F1 of each class, 2·TP / (true + predicted), of shape (..., 4) for matrices of shape (..., 4, 4).

    A class that neither occurs nor is predicted scores 0, as scikit-learn's `zero_division=0` has it. Source:
    Clifford et al. 2017, "AF classification from a short single lead ECG recording", section 2.4.
    """
    matrix = np.asarray(matrix)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return 2 * hits / np.maximum(matrix.sum(-1) + matrix.sum(-2), 1)


def average_f1(matrix):
    """The report's score: the mean F1 of all four classes."""
    return f1_per_class(matrix).mean(-1)


def challenge_f1(matrix):
    """The challenge's official score: the mean F1 of N, A and O."""
    return f1_per_class(matrix)[..., [CLASSES.index(name) for name in "NAO"]].mean(-1)


def epoch_scores(matrix):
    """{name: score} of the `SCORES`, under the report's names: F1_0 … F1_3 are those of A, N, O and ~."""
    values = [*f1_per_class(matrix), average_f1(matrix), challenge_f1(matrix)]
    return dict(zip(SCORES, map(float, values), strict=True))


def log_loss(true, probabilities):
    """Mean cross-entropy of `probabilities` (n, 4) against the indices of classes `true` (n,)."""
    chosen = np.asarray(probabilities)[np.arange(len(true)), true]
    return float(-np.log(np.maximum(chosen, 1e-7)).mean())


def interval(matrix, score, draws=2000, seed=0):
    """95 % percentile bootstrap interval of `score(matrix)` over the recordings counted in `matrix`: [low, high],
    or a list of such pairs where the score has several values.

    Recordings drawn with replacement fall into the cells of the matrix as a multinomial draw (Efron & Tibshirani,
    "An Introduction to the Bootstrap", 1993), so no list of recordings is needed.
    """
    matrix = np.asarray(matrix)
    cells = np.random.default_rng(seed).multinomial(matrix.sum(), matrix.ravel() / matrix.sum(), size=draws)
    return np.quantile(score(cells.reshape(-1, *matrix.shape)), (0.025, 0.975), axis=0).T.tolist()


def gain(true, predicted, other, score, draws=2000, seed=0):
    """(score of `predicted` less that of `other`, its 95 % interval [low, high]), all indices of classes (n,).

    The bootstrap is a paired one: both are scored on the same drawn recordings. score, draws, seed: as in `interval`.
    """
    size = len(CLASSES)
    cells = np.bincount((np.asarray(true) * size + predicted) * size + other, minlength=size**3)
    drawn = np.random.default_rng(seed).multinomial(cells.sum(), cells / cells.sum(), size=draws)
    drawn = np.concatenate([cells[None], drawn]).reshape(-1, size, size, size)
    gains = score(drawn.sum(3)) - score(drawn.sum(2))
    return float(gains[0]), np.quantile(gains[1:], (0.025, 0.975)).tolist()


def members_alone(true, voices):
    """{member: its F1 scores and what the others add to them, with paired intervals}, ready for JSON.

    true: indices of classes (n,); voices: {members: probabilities (n, 4)}, first of all together, then of each.
    """
    together, *alone = voices.items()
    scores = {"avg_F1_score": average_f1, "challenge_F1": challenge_f1}
    measured = {}
    for name, probabilities in alone:
        chosen, both = probabilities.argmax(1), together[1].argmax(1)
        measured[name] = {key: float(score(confusion_matrix(true, chosen))) for key, score in scores.items()}
        for key, score in scores.items():
            measured[name][f"{key}_gain"], measured[name][f"{key}_gain_interval"] = gain(true, both, chosen, score)
    return measured


def members_lines(alone):
    """Lines that say what `members_alone` has measured."""
    return [
        f"{name} alone".ljust(14)
        + f" {title:<9} {row[key]:.4f}; together {row[f'{key}_gain']:+.4f} ({low:+.3f} to {high:+.3f})"
        for name, row in alone.items()
        for title, key in (("4-class", "avg_F1_score"), ("challenge", "challenge_F1"))
        for low, high in [row[f"{key}_gain_interval"]]
    ]


def overall(matrix):
    """Both averages of F1, accuracy, macro precision and macro recall of matrices (..., 4, 4), each of shape (...).

    A class never predicted, or absent, counts 0 in its mean.
    """
    matrix = np.asarray(matrix)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return {
        "avg_F1_score": average_f1(matrix),
        "challenge_F1": challenge_f1(matrix),
        "accuracy": hits.sum(-1) / matrix.sum((-2, -1)),
        "macro_precision": (hits / np.maximum(matrix.sum(-2), 1)).mean(-1),
        "macro_recall": (hits / np.maximum(matrix.sum(-1), 1)).mean(-1),
    }


def one_vs_rest_auc(true, probabilities):
    """Area under the ROC curve of each class against the rest, shape (4,); NaN for a class absent from `true` (n,)."""
    present = [0 < np.count_nonzero(true == place) < len(true) for place in range(len(CLASSES))]
    return np.array(
        [
            roc_auc_score(true == place, probabilities[:, place]) if present[place] else np.nan
            for place in range(len(CLASSES))
        ]
    )


def calibration_error(true, probabilities, bins=15):
    """Expected calibration error: how far confidence lies from accuracy, on average over bins of equal width.

    true: indices of classes (n,); probabilities: (n, 4). The confidence is that of the class predicted. Source: Guo et
    al. 2017, "On calibration of modern neural networks", equation 5.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == true
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(true))


def measure(true, probabilities):
    """All figures of merit of `probabilities` (n, 4) for indices of classes `true` (n,), ready for JSON.

    Intervals are 95 % bootstrap intervals over recordings; AUCs are one-vs-rest, None for a class without recordings.
    """
    matrix = confusion_matrix(true, probabilities.argmax(1))
    areas = one_vs_rest_auc(true, probabilities)
    scores = overall(matrix)
    intervals = {f"{key}_interval": interval(matrix, lambda cells, key=key: overall(cells)[key]) for key in scores}
    return {
        "recordings": len(true),
        "F1": dict(zip(CLASSES, f1_per_class(matrix).tolist(), strict=True)),
        "F1_interval": dict(zip(CLASSES, interval(matrix, f1_per_class), strict=True)),
        **{key: float(score) for key, score in scores.items()},
        **intervals,
        "calibration_error": calibration_error(true, probabilities),
        "macro_AUC": float(np.nanmean(areas)),
        "AUC": {name: None if np.isnan(area) else float(area) for name, area in zip(CLASSES, areas, strict=True)},
        "confusion_matrix": matrix.tolist(),
    }


def report():
    """The report's figures, computed from its confusion matrix; its AUCs are as it printed them."""
    return {
        "F1": dict(zip(CLASSES, f1_per_class(REPORT_MATRIX).tolist(), strict=True)),
        **overall(REPORT_MATRIX),
        "macro_AUC": float(REPORT_AUC.mean()),
    }


def duration_baseline(seen_seconds, seen_labels, seconds, labels):
    """Confusion matrix (4, 4) of a guess from the durations `seconds` (n,) alone, which padding gives away.

    labels: indices of classes (n,). A decision tree learns from the recordings a model has seen: `seen_seconds` (m,),
    indices of classes `seen_labels` (m,).
    """
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(min_samples_leaf=20, class_weight="balanced", random_state=0)
    tree.fit(np.asarray(seen_seconds)[:, None], seen_labels)
    return confusion_matrix(labels, tree.predict(np.asarray(seconds)[:, None]))


COLUMNS = [f"probability_{name}" for name in CLASSES]


def predictions(table, probabilities):
    """DataFrame of record, label and the `probabilities` (n, 4) of the recordings of `table`, index 0 to n - 1."""
    return table[["record", "label"]].join(pd.DataFrame(probabilities, columns=COLUMNS))


if __name__ == "__main__":
    from shell import parser

    parser(__doc__).parse_args()
    print("The report's own confusion matrix:")
    for name, f1 in zip(CLASSES, f1_per_class(REPORT_MATRIX), strict=True):
        print(f"F1 {name}   {f1:.4f}")
    for name, score in (("4-class average F1", average_f1), ("challenge F1 (N, A, O)", challenge_f1)):
        print(
            "{}   {:.4f}, 95 % interval {:.3f} to {:.3f}".format(
                name, score(REPORT_MATRIX), *interval(REPORT_MATRIX, score)
            )
        )
