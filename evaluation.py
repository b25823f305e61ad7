"""Score a saved model, an ensemble of several, or any system's predictions, on recordings not seen in training.

    python evaluation.py                                            the run of `python main.py`
    python evaluation.py --run mine                                 another run
    python evaluation.py --model models/a.keras models/b.keras      an ensemble: probabilities averaged
    python evaluation.py --robustness                               also as other devices record: half an hour
    python evaluation.py --wandb auto                               all of it also as a run of Weights & Biases
    python evaluation.py --against figures/mine/predictions.csv     also compared with another's predictions
    python evaluation.py --predictions figures/paper/predictions.csv        all of it again, without the model
    python evaluation.py --predictions theirs.csv                   any system's answers to the report's test split
    python evaluation.py --predictions theirs.csv --folds FILE.csv --labels v3      and to the test parts of folds
    python evaluation.py --predictions theirs.csv --all --data FOLDER       and to recordings of your own

A file of predictions has the columns record, and class or probability_A, probability_N, probability_O, probability_~.

Prints each figure beside the report's, and writes figures/RUN/: class_f1_scores.png, overall_metrics.png,
multi_class_roc.png, test_confusion_matrix.png, precision_recall.png, reliability.png, groups.png, metrics.json and
predictions.csv; with --robustness also robustness.png and robustness.json.
"""

import argparse
import dataclasses
import json
import re
from pathlib import Path

import dataset
import runs
import tracking
from recipes import CLASSES
from shell import UserError, make_folders, parser, run_script, say, writing

HARDEST = 50  # recordings that Weights & Biases shows
UNKNOWN = "a test only if the system learned from none of them"


def main():
    arguments = read_flags()
    if arguments.predictions:
        run, rows, known = read_entry(arguments)
        make_folders(run.figures)
    else:
        run, models, table, seen = runs.open_run(arguments.run, arguments.model, arguments.data, arguments.labels)
        make_folders(run.figures)
        tracker = tracking.start(arguments.wandb, f"{run.name}-evaluation", settings(models, table))
        rows, known = predict(models, table, seen, arguments.labels)
        known["models"] = [str(path) for path in arguments.model or [run.model]]
        known["fingerprints"] = [saved.card.fingerprint for saved in models]
    metrics = measure(rows, known, arguments.threshold, arguments.against)
    draw(rows, metrics, run.figures)
    with writing(run.figures / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    kept = run.figures / "predictions.csv"
    if not (arguments.predictions and kept.exists() and kept.samefile(arguments.predictions)):
        with writing(kept) as temporary:
            rows.to_csv(temporary, index=False)
    print_tables(metrics)  # after the files, which are there even if the reader of a pipe goes away
    if arguments.predictions:
        print(f"wrote {run.figures}/")
        return
    if arguments.robustness:
        compare_devices(models, table, run.figures)
    if tracker:
        tracking.hand_over(tracker, lambda: give(tracker, run, metrics, rows, table))
    gradcam = runs.command("gc_implementation.py", run.name, arguments.model, arguments.data, arguments.labels)
    print(f"wrote {run.figures}/; next: {gradcam}")


def settings(models, table):
    """What Weights & Biases shows as the settings of scoring `models` on the recordings of `table`."""
    return dataclasses.asdict(models[0].card.recipe) | {
        "code": runs.code(),
        "recordings_fingerprint": dataset.fingerprint(table),
        "training_fingerprints": [saved.card.fingerprint for saved in models],
    }


def give(tracker, run, metrics, rows, table):
    """Hand the scores, the hardest recordings, the figures and the models of a run to a W&B run."""
    import benchmark

    hardest = benchmark.hardest(rows, HARDEST)
    shown = table[table.record.isin(hardest.record)]
    signals = {row.record: (row.signal, row.sampling_rate) for row in shown.itertuples()}
    tracking.log_evaluation(tracker, metrics, hardest, signals, sorted(run.figures.glob("*.png")))
    facts = {key: tracker.config[key] for key in ("recordings_fingerprint", "training_fingerprints", "code")}
    for path in map(Path, metrics["models"]):
        tracking.log_model(tracker, path, f"{run.name}-{path.stem}", facts)


def read_flags():
    """The flags, whose combination is checked."""
    flags = parser(__doc__)
    runs.add_flags(flags, models="+")
    flags.add_argument(
        "--predictions", type=Path, metavar="FILE", help="score this CSV file of predictions, and load no model"
    )
    flags.add_argument(
        "--folds", type=Path, metavar="FILE", help="score --predictions on the test parts of this CSV file of folds"
    )
    flags.add_argument("--all", action="store_true", help="score --predictions on all recordings that it has")
    flags.add_argument("--against", type=Path, metavar="FILE", help="compare with the predictions in another CSV file")
    flags.add_argument(
        "--threshold",
        type=_share,
        metavar="P",
        help="also screen for fibrillation from this probability of A on, besides two chosen on the validation split",
    )
    flags.add_argument(
        "--robustness", action="store_true", help="also score the recordings changed as other devices would change them"
    )
    tracking.add_flag(flags, default="disabled")
    arguments = flags.parse_args()
    if arguments.predictions and (arguments.model or arguments.robustness or arguments.wandb != "disabled"):
        flags.error("--predictions needs no model: leave out --model, --robustness and --wandb")
    if arguments.all and (arguments.folds or not arguments.predictions):
        flags.error("--all goes with --predictions and without --folds")
    if arguments.folds and not arguments.predictions:
        flags.error("--folds goes with --predictions; main.py --folds trains a model for each fold")
    return arguments


def _share(text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability from 0 to 1")
    return value


def predict(models, table, seen, labels):
    """(predictions of `models` for the recordings of `table`, what is known of them besides).

    The predictions are a table as `benchmark.read` makes it, with what is needed to draw everything again: label, each
    member's probabilities, seconds, heart_rate, agreement. Known: labels, protocol, baselines, thresholds. seen: the
    recordings the models have seen; labels: version or None.
    """
    import benchmark
    import members
    import scoring

    measured = members.measure(table.signal, table.sampling_rate)
    together, *alone = members.voices(models, table.signal, table.sampling_rate, measured=measured).items()
    rows = scoring.predictions(table, together[1])
    for name, probabilities in alone:
        rows[benchmark.member_columns(name)] = probabilities
    rows = benchmark.add_heartbeats(rows, table, measured).round(6)
    known = {
        "labels": labels or models[0].card.recipe.labels,
        "protocol": f"{'' if len(seen) else 'all '}recordings that the model has not seen",
        "baselines": duration_baseline(table, seen),
        "thresholds": (models[0].card.thresholds if len(models) == 1 else None) or {},
    }
    if len(models) > 1:
        say("note: an ensemble has no thresholds for fibrillation; --threshold P gives one")
    elif not known["thresholds"]:
        say(
            "note: the model holds no thresholds for fibrillation, as it is of an earlier version or its validation "
            "split had no A; --threshold P gives one"
        )
    return rows, known


def duration_baseline(table, seen):
    """{"duration only": scores on `table` of a guess from the duration alone, learned on the recordings `seen`}."""
    import scoring

    if not len(seen):
        return {}
    sets = [(dataset.seconds(rows), dataset.labels(rows)) for rows in (seen, table)]
    return {"duration only": f1_scores(scoring.duration_baseline(*sets[0], *sets[1]))}


def f1_scores(matrix):
    """{recordings, avg_F1_score, challenge_F1} of a confusion matrix (4, 4)."""
    import scoring

    return {
        "recordings": int(matrix.sum()),
        "avg_F1_score": float(scoring.average_f1(matrix)),
        "challenge_F1": float(scoring.challenge_f1(matrix)),
    }


def read_entry(arguments):
    """(`Run`, predictions, what is known of them) of the file that --predictions names, both as `predict` has them.

    Where the file has no labels, or flags name recordings, labels or folds, it is held against the recordings.
    """
    import benchmark

    path = arguments.predictions
    rows, beside = benchmark.read(path), path.parent / "metrics.json"
    name = path.resolve().parent.name if path.stem in ("predictions", "fold_predictions") else path.stem
    run = runs.Run(arguments.run or re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-") or "predictions")
    known = {}
    if path.name == "predictions.csv" and beside.is_file():
        try:
            values = json.loads(beside.read_text())
            known = {key: values[key] for key in ("labels", "protocol", "baselines", "thresholds")}
            known["thresholds"].pop("given", None)  # by a flag of that call
            known |= {key: values[key] for key in ("models", "fingerprints") if key in values}
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{beside} is not of this version of evaluation.py; delete it, or score the run again"
            ) from None
    as_it_is = "label" in rows and not (arguments.data or arguments.labels or arguments.folds or arguments.all)
    kept = run.figures / "predictions.csv"
    again = as_it_is and kept.exists() and kept.samefile(path)
    if not arguments.run and not again and _models(run.figures / "metrics.json"):
        raise UserError(f"{run.figures}/ holds the evaluation of a model; pass --run NAME to write to figures/NAME/")
    if as_it_is:
        return run, rows, known or {"labels": "the file's own", "protocol": f"all of the file's recordings; {UNKNOWN}"}
    labels = arguments.labels or "reference"
    table = dataset.read_recordings(arguments.data or dataset.DEFAULT_DATA, labels)
    folds = dataset.folds(table, arguments.folds) if arguments.folds else "all" if arguments.all else None
    rows = benchmark.match(rows, path, table, folds)
    protocol = f"test parts of {arguments.folds.name}" if arguments.folds else "the test split, drawn as in the report"
    if arguments.all:
        protocol = f"all recordings that have a prediction; {UNKNOWN}"
    return run, rows, {"labels": labels, "protocol": protocol, "thresholds": known.get("thresholds", {})}


def _models(path):
    """The models whose evaluation a metrics.json is of; [] where there is none, or they are not known."""
    try:
        return json.loads(path.read_text()).get("models", [])
    except (OSError, ValueError, AttributeError):
        return []


def measure(rows, known, threshold=None, against=None):
    """All that is reported of the predictions `rows`, ready for metrics.json; known: as `predict` has it.

    threshold: of the probability of A, besides those known, or None; against: a file of other predictions, or None.
    """
    import benchmark
    import scoring

    (true, chosen), probabilities = benchmark.indices(rows), benchmark.probabilities(rows)
    if threshold is not None and probabilities is None:
        say("note: without probabilities there is nothing that --threshold could be held against")
    thresholds = {**known.get("thresholds", {}), **({} if threshold is None else {"given": threshold})}
    metrics = {
        "labels": known["labels"],
        "protocol": known["protocol"],
        "models": known.get("models", []),
        **({"fingerprints": known["fingerprints"]} if "fingerprints" in known else {}),
        **scoring.measure(true, probabilities, chosen),
        **({} if probabilities is None else scoring.area_intervals(true, probabilities)),
        "less_report": scoring.less_report(scoring.confusion_matrix(true, chosen)),
        "members": scoring.members_alone(true, benchmark.voices(rows)),
        "baselines": dict(known.get("baselines", {})),
        "thresholds": thresholds,
        "screening": scoring.operating_points(true, chosen, probabilities, thresholds),
        "groups": benchmark.by_group(rows),
    }
    if "seconds" in rows and (rows.seconds == 30).any():
        alike = (rows.seconds == 30).to_numpy()
        metrics["baselines"]["exactly 30 s"] = f1_scores(scoring.confusion_matrix(true[alike], chosen[alike]))
    if "fold" in rows:
        metrics["folds"] = benchmark.by_fold(rows)
    if against:
        metrics["against"] = {"file": str(against), **benchmark.compare(rows, against)}
    return metrics


def print_tables(metrics):
    """Print all that was measured: Figures 5 and 6 as tables, and what stands behind them."""
    import benchmark
    import scoring

    print(f"{metrics['recordings']:,} recordings ({metrics['protocol']}), labels {metrics['labels']}\n")
    if metrics["labels"] != "reference":
        say(f"note: the report used the labels `reference`; on {metrics['labels']} the figures do not compare")
    print_scores(metrics)
    if "calibration_error" in metrics:
        print(f"{'Calibration error':<24}{metrics['calibration_error']:>9.4f}")
    print()
    for line in scoring.members_lines(metrics["members"]):
        print(line)
    for title, row in metrics["baselines"].items():
        print(
            f"{title:<29} 4-class {row['avg_F1_score']:.4f}, challenge {row['challenge_F1']:.4f} "
            f"({row['recordings']:,} recordings)"
        )
    if "against" in metrics:
        print()
        print(*benchmark.against_lines(metrics["against"]), sep="\n")
    if "folds" in metrics:
        print()
        print(*benchmark.fold_lines(metrics["folds"]), sep="\n")
    print()
    print(*scoring.screening_lines(metrics["screening"]), sep="\n")
    print()
    print(*benchmark.group_lines(metrics["groups"]), sep="\n")
    print()


def print_scores(metrics):
    """Print the scores with their 95 % intervals, the report's, and by how much they differ from it."""
    import scoring

    report, less = scoring.report(), metrics["less_report"]
    rows = [
        (f"F1 {name}", metrics["F1"][name], metrics["F1_interval"][name], report["F1"][name], None) for name in CLASSES
    ]
    rows += [
        (title, metrics[key], metrics[f"{key}_interval"], report[key], less.get(key))
        for key, title in scoring.OVERALL.items()
        if metrics.get(key) is not None
    ]
    print(f"{'':<24}{'this run':>9}   {'95 % interval':<15}{'report':>7}   difference (both drawn apart)")
    for title, ours, interval, theirs, change in rows:
        line = f"{title:<24}{ours:>9.4f}   {scoring.span(interval) if interval else '':<15}{theirs:>7.2f}"
        if change:
            line += f"   {change['difference']:+.3f} ({scoring.span(change['interval'], '+.3f')})"
        print(line)


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
            + ("-" if scores["wrong_of_certain"] is None else f"{scores['wrong_of_certain']:.1%}").rjust(21),
            flush=True,
        )
    with writing(folder / "robustness.json") as temporary:
        found = {"fingerprints": [saved.card.fingerprint for saved in models], "changes": rows}
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    plotting.robustness(rows, folder / "robustness.png")


def draw(rows, metrics, folder):
    """Draw Figures 5 to 8 and those of probabilities and groups into `folder`."""
    import numpy as np

    import benchmark
    import plotting
    import scoring

    for name in ("multi_class_roc", "precision_recall", "reliability", "groups"):  # an earlier call's, if not drawn now
        (folder / f"{name}.png").unlink(missing_ok=True)
    tested = not metrics["protocol"].startswith("all ")
    where = "test split" if tested else "all recordings"
    report = scoring.report()
    (true, _), probabilities = benchmark.indices(rows), benchmark.probabilities(rows)
    plotting.bars_beside_report(
        CLASSES,
        list(metrics["F1"].values()),
        list(metrics["F1_interval"].values()),
        list(report["F1"].values()),
        f"F1 score of each class, {where}",
        folder / "class_f1_scores.png",
    )
    overall = {key: title for key, title in scoring.OVERALL.items() if metrics.get(key) is not None}
    plotting.bars_beside_report(
        [title.replace("F1, ", "F1,\n").replace(" (", "\n(") for title in overall.values()],
        [metrics[key] for key in overall],
        [metrics[f"{key}_interval"] or (np.nan, np.nan) for key in overall],
        [report[key] for key in overall],
        f"Overall metrics, {where}",
        folder / "overall_metrics.png",
    )
    title = "Test confusion matrix" if tested else f"Confusion matrix, {where}"
    plotting.confusion_matrix(np.array(metrics["confusion_matrix"]), title, folder / "test_confusion_matrix.png")
    if probabilities is not None:
        if len(np.unique(true)) > 1:  # of one class nothing is to be told apart
            plotting.multi_class_roc(true, probabilities, folder / "multi_class_roc.png")
            plotting.precision_recall(true, probabilities, folder / "precision_recall.png")
        plotting.reliability(true, probabilities, folder / "reliability.png")
    if metrics["groups"]:
        plotting.groups(metrics["groups"], folder / "groups.png")


if __name__ == "__main__":
    run_script(main)
