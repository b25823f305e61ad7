"""Score a saved model, or an ensemble of several, on its held-out test part.

    python evaluation.py                                            the run of `python main.py`
    python evaluation.py --run mine                                 another run
    python evaluation.py --model models/a.keras models/b.keras      an ensemble: probabilities averaged

Prints each figure beside the report's, and writes figures/RUN/: class_f1_scores.png, overall_metrics.png,
multi_class_roc.png, test_confusion_matrix.png, metrics.json and predictions.csv.
"""

import json

import dataset
import runs
from recipes import CLASSES
from shell import make_folders, parser, run, say, writing


def main():
    flags = parser(__doc__)
    runs.add_flags(flags, models="+")
    arguments = flags.parse_args()

    name, models, table, seen = runs.open_run(arguments)
    folder = f"figures/{name}"
    make_folders(folder)
    true = table.label.map(CLASSES.index).to_numpy()
    probabilities = predict(models, table)
    metrics = {
        "labels": arguments.labels or models[0][1].labels,
        **measure(true, probabilities),
        "baselines": baselines(table, seen, true, probabilities),
    }
    if metrics["labels"] != "reference":
        say(f"note: the report used the labels `reference`; on {metrics['labels']} the figures do not compare")
    print_tables(metrics)
    draw(true, probabilities, metrics, folder)
    with writing(f"{folder}/metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    with writing(f"{folder}/predictions.csv") as temporary:
        predictions(table, probabilities).to_csv(temporary, index=False, float_format="%.6f")
    print(f"wrote {folder}/; next: {runs.gradcam_command(arguments, name)}")


def predict(models, table):
    """Probabilities (n, 4) for the recordings of `table`, averaged over `models`, a list of (model, recipe)."""
    import numpy as np

    import model
    from preprocessing import Images

    return np.mean(
        [model.predict(network, Images(table.signal, table.sampling_rate, recipe)) for network, recipe in models],
        axis=0,
    )


def measure(true, probabilities):
    """All figures of merit of `probabilities` (n, 4) for class numbers `true` (n,), ready for JSON.

    Intervals are 95 % bootstrap intervals over recordings; AUCs are one-vs-rest, None for a class without recordings.
    """
    import numpy as np

    import scoring

    matrix = scoring.confusion_matrix(true, probabilities.argmax(1))
    areas = scoring.one_vs_rest_auc(true, probabilities)
    return {
        "recordings": len(true),
        "F1": dict(zip(CLASSES, scoring.f1_per_class(matrix).tolist(), strict=True)),
        "F1_interval": dict(zip(CLASSES, scoring.interval(matrix, scoring.f1_per_class), strict=True)),
        **{key: float(score) for key, score in scoring.overall(matrix).items()},
        **{
            f"{key}_interval": scoring.interval(matrix, lambda cells, key=key: scoring.overall(cells)[key])
            for key in scoring.overall(matrix)
        },
        "calibration_error": scoring.calibration_error(true, probabilities),
        "macro_AUC": float(np.nanmean(areas)),
        "AUC": {name: None if np.isnan(area) else float(area) for name, area in zip(CLASSES, areas, strict=True)},
        "confusion_matrix": matrix.tolist(),
    }


def baselines(table, seen, true, probabilities):
    """What the score owes to durations: {name: {recordings, avg_F1_score, challenge_F1}}.

    `duration only` guesses from the duration alone, learned on `seen`, the recordings the model has seen; `exactly
    30 s` is the model's own score where the duration tells nothing.
    """
    import scoring

    alike = (dataset.seconds(table) == 30).to_numpy()
    matrices = {}
    if len(seen):
        matrices["duration only"] = duration_only(seen, table)
    if alike.any():
        matrices["exactly 30 s"] = scoring.confusion_matrix(true[alike], probabilities[alike].argmax(1))
    return {
        name: {
            "recordings": int(matrix.sum()),
            "avg_F1_score": float(scoring.average_f1(matrix)),
            "challenge_F1": float(scoring.challenge_f1(matrix)),
        }
        for name, matrix in matrices.items()
    }


def duration_only(seen, table):
    """Confusion matrix (4, 4) on `table` of a guess from the duration alone, learned on the recordings `seen`."""
    import scoring

    numbers = [rows.label.map(CLASSES.index) for rows in (seen, table)]
    guessed = scoring.duration_baseline(dataset.seconds(seen), numbers[0], dataset.seconds(table))
    return scoring.confusion_matrix(numbers[1], guessed)


def _report():
    """The report's figures, computed from its confusion matrix; its AUCs are as it printed them."""
    import scoring

    matrix = scoring.REPORT_MATRIX
    return {
        "F1": dict(zip(CLASSES, scoring.f1_per_class(matrix).tolist(), strict=True)),
        **scoring.overall(matrix),
        "macro_AUC": float(scoring.REPORT_AUC.mean()),
    }


OVERALL = {
    "avg_F1_score": "F1, 4-class average",
    "challenge_F1": "F1, challenge (N, A, O)",
    "accuracy": "Accuracy",
    "macro_precision": "Precision (macro)",
    "macro_recall": "Recall (macro)",
    "macro_AUC": "AUC (macro)",
}


def print_tables(metrics):
    """Print Figures 5 and 6 as tables: this run, its 95 % interval where there is one, the report."""
    report = _report()
    rows = [(f"F1 {name}", metrics["F1"][name], metrics["F1_interval"][name], report["F1"][name]) for name in CLASSES]
    rows += [(title, metrics[key], metrics.get(f"{key}_interval"), report[key]) for key, title in OVERALL.items()]
    print(f"{metrics['recordings']:,} test recordings, labels {metrics['labels']}\n")
    print(f"{'':<24}{'this run':>9}   {'95 % interval':<15}{'report':>7}")
    for title, ours, interval, theirs in rows:
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        print(f"{title:<24}{ours:>9.4f}   {between:<15}{theirs:>7.2f}")
    print(f"{'Calibration error':<24}{metrics['calibration_error']:>9.4f}\n")
    for title, row in metrics["baselines"].items():
        print(
            f"{title:<14} 4-class {row['avg_F1_score']:.4f}, challenge {row['challenge_F1']:.4f} "
            f"({row['recordings']:,} recordings)"
        )
    print()


def draw(true, probabilities, metrics, folder):
    """Draw Figures 5 to 8 into `folder`."""
    import numpy as np

    import plotting

    report = _report()
    plotting.bars_beside_report(
        CLASSES,
        list(metrics["F1"].values()),
        list(metrics["F1_interval"].values()),
        list(report["F1"].values()),
        "F1 score of each class, test part",
        f"{folder}/class_f1_scores.png",
    )
    names = [title.replace("F1, ", "F1,\n").replace(" (", "\n(") for title in OVERALL.values()]
    plotting.bars_beside_report(
        names,
        [metrics[key] for key in OVERALL],
        [metrics.get(f"{key}_interval", (np.nan, np.nan)) for key in OVERALL],
        [report[key] for key in OVERALL],
        "Overall metrics, test part",
        f"{folder}/overall_metrics.png",
    )
    plotting.multi_class_roc(true, probabilities, f"{folder}/multi_class_roc.png")
    plotting.confusion_matrix(
        np.array(metrics["confusion_matrix"]), "Test confusion matrix", f"{folder}/test_confusion_matrix.png"
    )


COLUMNS = [f"probability_{name}" for name in CLASSES]


def predictions(table, probabilities):
    """DataFrame of record, label and the `probabilities` (n, 4) of the recordings of `table`, index 0 to n - 1."""
    import pandas as pd

    return table[["record", "label"]].join(pd.DataFrame(probabilities, columns=COLUMNS))


if __name__ == "__main__":
    run(main)
