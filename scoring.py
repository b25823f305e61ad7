"""The F1 scores, exactly, in the one place that everything imports.

Two averages circulate. The report averages F1 over all four classes; the challenge's official score averages N, A
and O only. `python scoring.py` prints both for the report's own confusion matrix.

Confusion matrices are (4, 4) counts, rows true and columns predicted, in the order of `recipes.CLASSES`.
"""

import math

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from recipes import CLASSES, MEMBERS

SCORES = ("F1_0", "F1_1", "F1_2", "F1_3", "avg_F1_score", "challenge_F1")  # what is logged every epoch

OVERALL = {
    "avg_F1_score": "F1, 4-class average",
    "challenge_F1": "F1, challenge (N, A, O)",
    "accuracy": "Accuracy",
    "macro_precision": "Precision (macro)",
    "macro_recall": "Recall (macro)",
    "macro_AUC": "AUC (macro)",
}

LEAST = 1e-7  # the probability that a loss takes for any below it

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


def merit(logs, best_epoch):
    """By which an epoch is the best, the greater the better: `avg_F1_score` of its `logs`, or minus their `val_loss`.

    best_epoch: f1 or loss, as the recipe has it. A loss that is NaN is the worst there is.
    """
    if best_epoch == "f1":
        return logs["avg_F1_score"]
    return -math.inf if math.isnan(logs["val_loss"]) else -logs["val_loss"]


def best_row(rows, best_epoch):
    """That of the best epoch among the `rows` of logs; the first of equals. The rest as `merit` takes it."""
    return max(rows, key=lambda row: merit(row, best_epoch))


def log_loss(true, probabilities):
    """Mean cross-entropy of `probabilities` (n, 4) against the indices of classes `true` (n,)."""
    chosen = np.asarray(probabilities)[np.arange(len(true)), true]
    return float(-np.log(np.maximum(chosen, LEAST)).mean())


def interval(matrix, score, draws=2000, seed=0):
    """95 % percentile bootstrap interval of `score(matrix)` over the recordings counted in `matrix`: [low, high],
    or a list of such pairs where the score has several values.

    Recordings drawn with replacement fall into the cells of the matrix as a multinomial draw (Efron & Tibshirani,
    "An Introduction to the Bootstrap", 1993), so no list of recordings is needed. Classes are not drawn apart: another
    test set would have other numbers of each, and F1 depends on them.
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


def share_interval(part, whole):
    """Exact 95 % interval [low, high] of the share `part` of `whole` recordings (Clopper & Pearson 1934)."""
    limits = binomtest(part, whole).proportion_ci()
    return [float(limits.low), float(limits.high)]


def difference(matrix, other, score, draws=2000, seed=0):
    """(score of `matrix` less that of `other`, its 95 % interval [low, high]), where the recordings behind `other` are
    not known: both are drawn apart. Of the same recordings, a paired comparison (`gain`) would tell more.

    score, draws, seed: as in `interval`.
    """
    drawn = []
    for cells, stream in zip(map(np.asarray, (matrix, other)), np.random.default_rng(seed).spawn(2), strict=True):
        counts = stream.multinomial(cells.sum(), cells.ravel() / cells.sum(), size=draws)
        drawn.append(score(counts.reshape(-1, *cells.shape)))
    limits = np.quantile(drawn[0] - drawn[1], (0.025, 0.975)).tolist()
    return float(score(np.asarray(matrix)) - score(np.asarray(other))), limits


def less_report(matrix):
    """{score: difference from the report's, and its 95 % interval} of a confusion matrix, by `difference`."""
    measured = {}
    for key in overall(matrix):
        change, limits = difference(matrix, REPORT_MATRIX, lambda cells, key=key: overall(cells)[key])
        measured[key] = {"difference": change, "interval": limits}
    return measured


def mcnemar(true, predicted, other):
    """{this: recordings that only `predicted` has right, other: that only `other` has, p: of chance}, all indices (n,).

    McNemar's test in its exact form: of the recordings that one alone has right, each has half under the null
    hypothesis (two-sided binomial test).
    """
    right, also = np.asarray(predicted) == true, np.asarray(other) == true
    ours, theirs = int(np.sum(right & ~also)), int(np.sum(also & ~right))
    p = binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    return {"this": ours, "other": theirs, "p": float(p)}


def compare(true, predicted, other):
    """Both F1 averages of `predicted` less those of `other`, with paired intervals, and `mcnemar`; indices (n,).

    Ready for JSON.
    """
    compared = {"recordings": len(true), "mcnemar": mcnemar(true, predicted, other)}
    for key, score in (("avg_F1_score", average_f1), ("challenge_F1", challenge_f1)):
        compared[f"{key}_gain"], compared[f"{key}_gain_interval"] = gain(true, predicted, other, score)
    return compared


def members_alone(true, voices):
    """{member: its F1 scores and what the others add to them, as `compare` has it}, ready for JSON.

    true: indices of classes (n,); voices: {members: probabilities (n, 4)}, first of all together, then of each.
    """
    together, *alone = voices.items() or [None]
    scores = {"avg_F1_score": average_f1, "challenge_F1": challenge_f1}
    measured = {}
    for name, probabilities in alone:
        chosen, both = probabilities.argmax(1), together[1].argmax(1)
        measured[name] = {key: float(score(confusion_matrix(true, chosen))) for key, score in scores.items()}
        measured[name] |= compare(true, both, chosen)
    return measured


def members_lines(alone):
    """Lines that say what `members_alone` has measured."""
    return [
        f"{MEMBERS.get(name, name)} alone".ljust(29)
        + f" {title:<9} {row[key]:.4f}; together {row[f'{key}_gain']:+.4f} ({low:+.3f} to {high:+.3f})"
        for name, row in alone.items()
        for title, key in (("4-class", "avg_F1_score"), ("challenge", "challenge_F1"))
        for low, high in [row[f"{key}_gain_interval"]]
    ] + [
        mcnemar_line(row["mcnemar"], f"together against the {MEMBERS.get(name, name)} alone")
        for name, row in alone.items()
    ]


def mcnemar_line(test, what):
    """A line that says what `mcnemar` found, headed by `what`."""
    ours, theirs, p = test.values()
    return f"{what}: {ours} recordings right that it has wrong, {theirs} the other way round (McNemar's p = {p:.2g})"


def span(interval, form=".3f"):
    """An interval [low, high] in words."""
    return "{:{form}} to {:{form}}".format(*interval, form=form)


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


def area_intervals(true, probabilities, draws=2000, seed=0):
    """95 % bootstrap intervals over recordings of what `measure` gives as AUC, average_precision and macro_AUC.

    Ready for JSON, under those names with _interval; None for a class that is absent. true: indices of classes (n,);
    probabilities: (n, 4).
    """
    rng, count, areas = np.random.default_rng(seed), len(true), []
    ranked = [_ranked(true == place, probabilities[:, place]) for place in range(len(CLASSES))]
    size = max(min(draws, 400_000 // count), 1)  # draws at once, which stay in a processor's cache
    for start in range(0, draws, size):
        rows = np.arange(min(size, draws - start))[:, None]
        chosen = rng.integers(count, size=(len(rows), count)) + count * rows
        weights = np.bincount(chosen.ravel(), minlength=chosen.size).reshape(chosen.shape).astype(np.float32)
        areas.append([_areas(weights[:, order], *rest) for order, *rest in ranked])
    areas = np.concatenate(areas, axis=2)  # (4, 2, draws)
    present = [0 < np.count_nonzero(true == place) < len(true) for place in range(len(CLASSES))]
    whole = areas[present, 0]
    whole = whole[:, ~np.isnan(whole).any(0)]  # draws that have every class
    return {
        "macro_AUC_interval": np.quantile(whole.mean(0), (0.025, 0.975)).tolist() if whole.size else None,
        **{
            f"{name}_interval": {
                title: np.nanquantile(drawn, (0.025, 0.975)).tolist() if there else None
                for title, drawn, there in zip(CLASSES, areas[:, place], present, strict=True)
            }
            for place, name in enumerate(("AUC", "average_precision"))
        },
    }


def _ranked(positive, scores):
    """(order of falling scores (n,), `positive` in it, last places of runs of equal scores) of (n,) recordings."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, positive[order], ends


def _areas(weights, positive, ends):
    """[areas under the ROC curve (draws,), average precisions (draws,)] of recordings of `weights` (draws, n)."""
    hits = np.cumsum(weights * positive, axis=1, dtype=np.float32)  # counts, which single precision holds exactly
    found = np.cumsum(weights, axis=1, dtype=np.float32)
    if len(ends) < len(positive):
        hits, found = hits[:, ends], found[:, ends]
    misses, before = found - hits, np.s_[:, :-1]
    after = np.s_[:, 1:]
    corners = hits[:, -1].astype(np.float64) * misses[:, -1]
    # Twice the area between the curve and the diagonal, as the sum of triangles seen from the origin.
    twice = np.einsum("ij,ij->i", hits[before], misses[after], dtype=np.float64)
    twice -= np.einsum("ij,ij->i", hits[after], misses[before], dtype=np.float64)
    rise = np.diff(hits, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (1 + twice / corners) / 2
        precision = np.einsum("ij,ij->i", rise, hits / np.maximum(found, 1), dtype=np.float64) / hits[:, -1]
    return [area, precision]


def measure(true, probabilities, chosen=None):
    """All figures of merit of `probabilities` (n, 4) for indices of classes `true` (n,), ready for JSON.

    chosen: indices of the classes named (n,), by default the most probable; where they alone are known, probabilities
    is None. Intervals are 95 % bootstrap intervals over recordings; AUCs and average precisions
    are one-vs-rest, None for a class without recordings, and macro_AUC where all are of one class.
    """
    matrix = confusion_matrix(true, probabilities.argmax(1) if chosen is None else chosen)
    scores = overall(matrix)
    intervals = {f"{key}_interval": interval(matrix, lambda cells, key=key: overall(cells)[key]) for key in scores}
    measured = {
        "recordings": len(true),
        "F1": dict(zip(CLASSES, f1_per_class(matrix).tolist(), strict=True)),
        "F1_interval": dict(zip(CLASSES, interval(matrix, f1_per_class), strict=True)),
        **{key: float(score) for key, score in scores.items()},
        **intervals,
        "confusion_matrix": matrix.tolist(),
    }
    return measured if probabilities is None else measured | _measure_probabilities(true, probabilities)


def _measure_probabilities(true, probabilities):
    areas = one_vs_rest_auc(true, probabilities)
    precisions = [
        None if np.isnan(area) else float(average_precision_score(true == place, probabilities[:, place]))
        for place, area in enumerate(areas)
    ]
    return {
        "calibration_error": calibration_error(true, probabilities),
        "macro_AUC": float(np.nanmean(areas)) if np.isfinite(areas).any() else None,
        "AUC": {name: None if np.isnan(area) else float(area) for name, area in zip(CLASSES, areas, strict=True)},
        "average_precision": dict(zip(CLASSES, precisions, strict=True)),
    }


# ── Screening for fibrillation: A against the rest ──────────────────────────────────────────────────────────────────

PREVALENCES = (0.01, 0.02, 0.05, 0.09)  # of fibrillation: of those who might be screened, and (9 %) of this set
SENSITIVITY = 0.95  # that a threshold is chosen for


def thresholds(true, probabilities):
    """{what it is chosen for: threshold of the probability of A}, chosen on these recordings; {} without A or others.

    true: indices of classes (n,); probabilities: (n, 4), of which none is chosen where one is NaN.
    """
    sick = np.asarray(true) == CLASSES.index("A")
    if sick.all() or not sick.any() or not np.isfinite(probabilities).all():
        return {}
    false_rate, true_rate, levels = roc_curve(sick, probabilities[:, CLASSES.index("A")], drop_intermediate=False)
    return {
        "balanced": float(min(levels[np.argmax(true_rate - false_rate)], 1)),
        f"sensitivity {SENSITIVITY:.0%}": float(min(levels[np.argmax(true_rate >= SENSITIVITY)], 1)),
    }


def screening(true, flagged, draws=2000, seed=0):
    """How well the recordings that are `flagged` (n,), True or False, are those of fibrillation, ready for JSON.

    true: indices of classes (n,). Sensitivity and specificity have exact 95 % intervals. The predictive values, at each
    of the `PREVALENCES`, have those of both drawn from Jeffreys' posterior, which has a width where none is wrong
    (Brown, Cai & DasGupta 2001, "Interval estimation for a binomial proportion"); None where none is flagged.
    """
    sick, flagged = np.asarray(true) == CLASSES.index("A"), np.asarray(flagged)
    counts = {
        "sensitivity": (np.sum(flagged & sick), sick.sum()),
        "specificity": (np.sum(~flagged & ~sick), np.sum(~sick)),
    }
    values, drawn, rng = {}, [], np.random.default_rng(seed)
    for name, (right, total) in counts.items():
        right, total = int(right), int(total)
        if not total:
            return {}
        values |= {name: right / total, f"{name}_interval": share_interval(right, total)}
        drawn.append(rng.beta(right + 0.5, total - right + 0.5, draws))
    shares = values["sensitivity"], values["specificity"]
    values["predictive_value"] = {f"{at:.0%}": _known(predictive_value(*shares, at)) for at in PREVALENCES}
    values["predictive_value_interval"] = {
        f"{at:.0%}": np.nanquantile(predictive_value(*drawn, at), (0.025, 0.975)).tolist() if flagged.any() else None
        for at in PREVALENCES
    }
    return values | {"flagged": int(flagged.sum())}


def _known(value):
    """A number for JSON: None instead of NaN."""
    return None if np.isnan(value) else float(value)


def operating_points(true, chosen, probabilities, limits):
    """[`screening` by the class named, then by the probability of A at each of `limits`, {what for: threshold}].

    true, chosen: indices of classes (n,); probabilities: (n, 4) or None. [] where A or all others are absent.
    """
    place = CLASSES.index("A")
    rules = {"class named": (None, chosen == place)}
    if probabilities is not None:
        rules |= {name: (limit, probabilities[:, place] >= limit) for name, limit in limits.items()}
    points = [{"rule": name, "threshold": limit} | screening(true, flagged) for name, (limit, flagged) in rules.items()]
    return [point for point in points if "sensitivity" in point]


def screening_lines(points):
    """Lines of a table of `operating_points`."""
    if not points:
        return []
    heads = "".join(f"{at:>6.0%}" for at in PREVALENCES)
    lines = [
        f"{'':<76}predictive value where it has",
        f"{'fibrillation, by':<28}{'sensitivity':<24}{'specificity':<24}{heads}",
    ]
    for point in points:
        limit = "" if point["threshold"] is None else f", P ≥ {point['threshold']:.3f}"
        shares = "".join(
            f"{point[key]:.3f} ({span(point[f'{key}_interval'])})".ljust(24) for key in ("sensitivity", "specificity")
        )
        values = "".join(
            f"{'-' if value is None else f'{value:.2f}':>6}" for value in point["predictive_value"].values()
        )
        lines.append(f"{point['rule'] + limit:<28}{shares}{values}")
    return lines


def predictive_value(sensitivity, specificity, prevalence):
    """Share of the flagged who have the condition, by Bayes' rule; all are shares; NaN where none is flagged."""
    hits = np.multiply(sensitivity, prevalence)
    flagged = hits + (1 - np.asarray(specificity)) * (1 - prevalence)
    return np.divide(hits, flagged, out=np.full_like(flagged, np.nan), where=flagged > 0)


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
    """DataFrame of record, label, class and `probabilities` (n, 4) of the recordings of `table`, index 0 to n - 1."""
    named = pd.DataFrame({"class": np.array(CLASSES)[probabilities.argmax(1)]})
    return table[["record", "label"]].join([named, pd.DataFrame(probabilities, columns=COLUMNS)])


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
