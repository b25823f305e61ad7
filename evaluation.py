"""Score a saved model, or an ensemble of several, on its held-out test split.

    python evaluation.py                                            the run of `python main.py`
    python evaluation.py --run mine                                 another run
    python evaluation.py --model models/a.keras models/b.keras      an ensemble: probabilities averaged
    python evaluation.py --robustness                               also as other devices record: half an hour

Prints each figure beside the report's, and writes figures/RUN/: class_f1_scores.png, overall_metrics.png,
multi_class_roc.png, test_confusion_matrix.png, metrics.json and predictions.csv; with --robustness also robustness.png
and robustness.json.
"""

import json

import dataset
import runs
from recipes import CLASSES
from shell import make_folders, parser, run_script, say, writing

OVERALL = {
    "avg_F1_score": "F1, 4-class average",
    "challenge_F1": "F1, challenge (N, A, O)",
    "accuracy": "Accuracy",
    "macro_precision": "Precision (macro)",
    "macro_recall": "Recall (macro)",
    "macro_AUC": "AUC (macro)",
}


def main():
    flags = parser(__doc__)
    runs.add_flags(flags, models="+")
    flags.add_argument(
        "--robustness", action="store_true", help="also score the recordings changed as other devices would change them"
    )
    arguments = flags.parse_args()

    run, models, table, seen = runs.open_run(arguments.run, arguments.model, arguments.data, arguments.labels)
    make_folders(run.figures)

    import members
    import scoring

    true = dataset.labels(table)
    voices = members.voices(models, table.signal, table.sampling_rate)
    probabilities = next(iter(voices.values()))
    metrics = {
        "labels": arguments.labels or models[0].card.recipe.labels,
        **scoring.measure(true, probabilities),
        "members": scoring.members_alone(true, voices),
        "baselines": baselines(table, seen, true, probabilities),
    }
    if metrics["labels"] != "reference":
        say(f"note: the report used the labels `reference`; on {metrics['labels']} the figures do not compare")
    print_tables(metrics)
    draw(true, probabilities, metrics, run.figures)
    with writing(run.figures / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    with writing(run.figures / "predictions.csv") as temporary:
        scoring.predictions(table, probabilities).to_csv(temporary, index=False, float_format="%.6f")
    if arguments.robustness:
        compare_devices(models, table, run.figures)
    gradcam = runs.command("gc_implementation.py", run.name, arguments.model, arguments.data, arguments.labels)
    print(f"wrote {run.figures}/; next: {gradcam}")


def baselines(table, seen, true, probabilities):
    """What the score owes to durations: {name: {recordings, avg_F1_score, challenge_F1}}.

    `duration only` guesses from the duration alone, learned on `seen`, the recordings the model has seen; `exactly
    30 s` is the model's own score where the duration tells nothing. true: indices of classes (n,).
    """
    import scoring

    seconds = dataset.seconds(table)
    alike = (seconds == 30).to_numpy()
    matrices = {}
    if len(seen):
        matrices["duration only"] = scoring.duration_baseline(
            dataset.seconds(seen), dataset.labels(seen), seconds, true
        )
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


def print_tables(metrics):
    """Print Figures 5 and 6 as tables: this run, its 95 % interval where there is one, the report."""
    import scoring

    report = scoring.report()
    rows = [(f"F1 {name}", metrics["F1"][name], metrics["F1_interval"][name], report["F1"][name]) for name in CLASSES]
    rows += [(title, metrics[key], metrics.get(f"{key}_interval"), report[key]) for key, title in OVERALL.items()]
    print(f"{metrics['recordings']:,} test recordings, labels {metrics['labels']}\n")
    print(f"{'':<24}{'this run':>9}   {'95 % interval':<15}{'report':>7}")
    for title, ours, interval, theirs in rows:
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        print(f"{title:<24}{ours:>9.4f}   {between:<15}{theirs:>7.2f}")
    print(f"{'Calibration error':<24}{metrics['calibration_error']:>9.4f}\n")
    for line in scoring.members_lines(metrics["members"]):
        print(line)
    for title, row in metrics["baselines"].items():
        print(
            f"{title:<14} 4-class {row['avg_F1_score']:.4f}, challenge {row['challenge_F1']:.4f} "
            f"({row['recordings']:,} recordings)"
        )
    print()


def compare_devices(models, table, folder):
    """Print, draw and write into `folder` the scores of `models` on the recordings of `table` as others make them."""
    import plotting
    import robustness

    rows = {}
    print(
        f"{'recordings':<22}{'challenge':>10}{'4-class':>9}{'accuracy':>10}{'confidence':>12}{'other class':>13}"
        f"{'uncertain':>11}{'wrong of the others':>21}"
    )
    for name, row in robustness.measure(models, table):
        rows[name] = row
        scores = next(iter(row.values()))
        print(
            f"{name:<22}{scores['challenge_F1']:>10.4f}{scores['avg_F1_score']:>9.4f}{scores['accuracy']:>10.3f}"
            f"{scores['confidence']:>12.3f}{scores['changed_decisions']:>13.1%}{scores['uncertain']:>11.1%}"
            f"{scores['wrong_of_certain']:>21.1%}",
            flush=True,
        )
    with writing(folder / "robustness.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=2) + "\n")
    plotting.robustness(rows, folder / "robustness.png")


def draw(true, probabilities, metrics, folder):
    """Draw Figures 5 to 8 into `folder`."""
    import numpy as np

    import plotting
    import scoring

    report = scoring.report()
    plotting.bars_beside_report(
        CLASSES,
        list(metrics["F1"].values()),
        list(metrics["F1_interval"].values()),
        list(report["F1"].values()),
        "F1 score of each class, test split",
        folder / "class_f1_scores.png",
    )
    plotting.bars_beside_report(
        [title.replace("F1, ", "F1,\n").replace(" (", "\n(") for title in OVERALL.values()],
        [metrics[key] for key in OVERALL],
        [metrics.get(f"{key}_interval", (np.nan, np.nan)) for key in OVERALL],
        [report[key] for key in OVERALL],
        "Overall metrics, test split",
        folder / "overall_metrics.png",
    )
    plotting.multi_class_roc(true, probabilities, folder / "multi_class_roc.png")
    plotting.confusion_matrix(
        np.array(metrics["confusion_matrix"]), "Test confusion matrix", folder / "test_confusion_matrix.png"
    )


if __name__ == "__main__":
    run_script(main)
