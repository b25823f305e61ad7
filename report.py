"""One page that shows what a run left behind: how it was made, its scores, its figures, and how to make it again.

    python report.py                        the run of `python main.py`: figures/paper/report.html
    python report.py --run improved
    python report.py --run improved paper   also beside another run, with paired differences
    make report                             the shipped model, from its evaluation on; and the report's, beside it

The page stands alone and loads nothing. It shows what is there: run evaluation.py first, and gc_implementation.py, both
also with --checks and --robustness, for all of it.
"""

import base64
import dataclasses
import json
import os
import platform
import re
import shlex
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dataset
import pages
import runs
from recipes import CLASSES, MEMBERS, Recipe, as_flags
from shell import UserError, parser, run_name, run_script, say

PACKAGES = ("keras", "tensorflow", "numpy", "scipy", "scikit-learn", "lightgbm", "sleepecg", "onnxruntime")
RULES = {
    "class named": "the class named",
    "balanced": "largest sum of both on validation",
    "sensitivity 95%": "sensitivity of 95 % on validation",
}
HARDEST, RATE = 6, 300  # recordings whose traces are shown, at so many Hz
FIGURES = {
    "training_f1.png": "F1 on the validation split, epoch by epoch, of the network before calibration (Figure 4)",
    "class_f1_scores.png": "F1 of each class beside the report's (Figure 5)",
    "overall_metrics.png": "Overall metrics beside the report's (Figure 6)",
    "multi_class_roc.png": "ROC curves (Figure 7)",
    "precision_recall.png": "Precision-recall curves",
    "test_confusion_matrix.png": "Confusion matrix (Figure 8)",
    "reliability.png": "Reliability of the probabilities",
    "groups.png": "Scores in groups of recordings",
    "robustness.png": "Scores on recordings as other devices make them",
    "gradcam_A.png": "Where the model looked: fibrillation (Figure 9)",
    "gradcam_N.png": "Where the model looked: normal (Figure 10)",
    "gradcam_O.png": "Where the model looked: other rhythm (Figure 11)",
    "gradcam_noise.png": "Where the model looked: noise (Figure 12)",
    "gradcam_checks.png": "Checks of these maps",
    "hardest.png": "Hardest recordings: the least probability for the label",
}


def main():
    flags = parser(__doc__)
    flags.add_argument("--run", type=run_name, nargs="+", default=["paper"], metavar="NAME", help="runs to show")
    flags.add_argument("--data", type=Path, metavar="PATH", help="zip or folder of recordings (default: the run's)")
    arguments = flags.parse_args()
    names = list(dict.fromkeys(arguments.run))
    shown = [describe(runs.Run(name), arguments.data) for name in names]
    path = runs.Run(names[0]).figures / "report.html"
    pages.render("report.html", path, runs=shown, compared=compare(shown), title=" and ".join(names), machine=machine())
    print(f"wrote {path}")


def describe(run, data=None):
    """All that the page shows of a `Run`: {name, tables, figures, …}, from its files; data: recordings, if moved."""
    import plotting

    path = run.figures / "metrics.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; score the run first: {runs.command('evaluation.py', run.name)}")
    metrics = json.loads(path.read_text())
    models = [Path(each) for each in metrics.get("models", [run.model])]
    again = evaluation(run, models)
    if not {"less_report", "members", "screening", "groups"} <= set(metrics):
        raise UserError(f"{path} is not of this version of evaluation.py; score the run again: {again}")
    told = metrics.get("fingerprints", [])
    for model, fingerprint in zip(models, told, strict=False):
        if model.is_file() and runs.read_card(model).fingerprint != fingerprint:
            raise UserError(f"{path} is of a model that {model} held before; score the present one: {again}")
    card = runs.read_card(models[0]) if len(models) == 1 and models[0].is_file() else None
    changed, checked, left_out = present(run, told)
    if card and card.history:
        plotting.training_f1(card, run.figures / "training_f1.png")
    else:
        left_out.add("training_f1.png")
    tables = [scores(metrics), members(metrics), screening(metrics), groups(metrics)]
    tables += [robustness(changed), checks(checked)]
    drawn = card and (run.figures / "predictions.csv").is_file() and draw_hardest(run, card, data or Path(card.data))
    if not drawn:
        left_out.add("hardest.png")
    return {
        "name": run.name,
        "metrics": metrics,
        "facts": facts(models, card, metrics),
        "recipe": recipe_rows(card),
        "tables": [table for table in tables if table],
        "figures": [
            {"title": title, "source": embed(run.figures / name)}
            for name, title in FIGURES.items()
            if (run.figures / name).is_file() and name not in left_out
        ],
        "commands": commands(run, models, card),
    }


def present(run, fingerprints):
    """(robustness.json, gradcam_checks.json, pictures to leave out) of what in a run's folder is of the models that
    were scored; None for what is not.

    fingerprints: of the trainings of these models.
    """
    import pandas as pd

    changed, checked = (read(run.figures / name) for name in ("robustness.json", "gradcam_checks.json"))
    changed = changed if changed and changed.get("fingerprints") == fingerprints else None
    checked = checked if checked and [checked.get("fingerprint")] == fingerprints[:1] else None
    drawn = set()
    if (run.figures / "gradcam.csv").is_file():
        rows = pd.read_csv(run.figures / "gradcam.csv", keep_default_na=False)
        if {"picture", "fingerprint"} <= set(rows):
            drawn = set(rows.picture[rows.fingerprint.isin(fingerprints[:1])])
    left_out = {name for name in FIGURES if re.fullmatch("gradcam_(A|N|O|noise).png", name)} - drawn
    left_out |= {"robustness.png"} if not changed else set()
    left_out |= {"gradcam_checks.png"} if not checked else set()
    for name in sorted(left_out):
        if (run.figures / name).is_file():
            say(f"note: {run.figures / name} is of another model, or an earlier version's, and is left out")
    return changed, checked, left_out


def read(path):
    """The JSON in a file, or None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def embed(path):
    """A PNG as the address of an image that stands in the page itself."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def facts(models, card, metrics):
    """[(name, value)] of the run as a whole; models: their paths; card: that of the only one, or None."""
    from scoring import best_row

    rows = [
        ("scored on", f"{metrics['recordings']:,} recordings: {metrics['protocol']}"),
        ("labels", metrics["labels"]),
    ]
    if card:
        epochs = f"{len(card.history)}"
        if card.recipe.refit and card.history:
            epochs += f", then {best_row(card.history, card.recipe.best_epoch)['epoch']} on the validation split too"
        digest = sha256(models[0].read_bytes()).hexdigest()
        rows += [
            ("recipe", card.recipe.title),
            ("recordings", card.data),
            ("seen in training", f"{len(card.seen):,} recordings, listed in the model"),
            ("epochs", epochs),
            ("training's fingerprint", card.fingerprint[:16]),
            ("model", f"{models[0]}, SHA-256 {digest}"),
        ]
        split = read_split(card)
        if split:
            rows.append(("split", split))
        if card.scores:
            rows.append(
                (
                    "validation, its first training" if card.recipe.refit else "validation, the model as kept",
                    "4-class F1 {avg_F1_score:.4f}, N/A/O {challenge_F1:.4f}".format(**card.scores),
                )
            )
    return rows


def read_split(card):
    """The sizes of the run's split, as text, if data/split.csv still is of this run; else ""."""
    import pandas as pd

    if not dataset.SPLIT_FILE.is_file():
        return ""
    rows = pd.read_csv(dataset.SPLIT_FILE, keep_default_na=False)
    if set(rows.record[rows.split != "test"]) != card.seen:
        return ""
    return ", ".join(f"{count:,} {name}" for name, count in rows.split.value_counts().items())


def recipe_rows(card):
    """[(setting, value, whether it differs from the report's)] of the run's recipe."""
    if not card:
        return []
    plain = dataclasses.asdict(Recipe())
    return [(name, value, value != plain[name]) for name, value in dataclasses.asdict(card.recipe).items()]


def machine():
    """[(name, value)] of where the page was made: code, packages, computer."""
    rows = [("code", runs.code() or "no git revision")]
    for name in PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    return [
        *rows,
        ("Python", platform.python_version()),
        ("computer", f"{platform.platform()}, {os.cpu_count()} cores"),
    ]


def between(value, interval, form=".3f"):
    """A value and its interval, as text; "" for None."""
    import scoring

    if value is None:
        return ""
    return f"{value:{form}}" + (f" ({scoring.span(interval, form)})" if interval else "")


def table(title, head, rows):
    """What the template draws as a table, or None without rows."""
    return {"title": title, "head": head, "rows": rows} if rows else None


def scores(metrics):
    """The table of scores with intervals, beside the report's."""
    import scoring

    report, less = scoring.report(), metrics["less_report"]
    rows = [
        (f"F1 {name}", between(metrics["F1"][name], metrics["F1_interval"][name]), f"{report['F1'][name]:.2f}", "")
        for name in CLASSES
    ]
    for key, title in scoring.OVERALL.items():
        if key in metrics:
            change = less.get(key, {"difference": None, "interval": None})
            difference = between(change["difference"], change["interval"], "+.3f")
            rows.append((title, between(metrics[key], metrics[f"{key}_interval"]), f"{report[key]:.2f}", difference))
    return table("Scores", ("", "this run (95 % interval)", "the report", "difference (both drawn apart)"), rows)


def members(metrics):
    """The table of what each member scores alone, and what joining adds."""
    rows = [
        (
            MEMBERS.get(name, name),
            f"{row['avg_F1_score']:.3f}",
            f"{row['challenge_F1']:.3f}",
            between(row["challenge_F1_gain"], row["challenge_F1_gain_interval"], "+.3f"),
            f"{row['mcnemar']['p']:.2g}",
        )
        for name, row in metrics["members"].items()
    ]
    return table("Members", ("alone", "4-class F1", "N/A/O F1", "joining adds to N/A/O", "McNemar's p"), rows)


def screening(metrics):
    """The table of operating points for fibrillation."""
    shares = [f"{name} ill" for name in (metrics["screening"] or [{"predictive_value": {}}])[0]["predictive_value"]]
    rows = [
        (
            RULES.get(point["rule"], point["rule"])
            + ("" if point["threshold"] is None else f", P ≥ {point['threshold']:.3f}"),
            *(between(point[key], point[f"{key}_interval"]) for key in ("sensitivity", "specificity")),
            *("" if value is None else f"{value:.2f}" for value in point["predictive_value"].values()),
        )
        for point in metrics["screening"]
    ]
    head = ("flagged by", "sensitivity", "specificity", *(f"predictive value, {share}" for share in shares))
    return table("Screening for fibrillation", head, rows)


def groups(metrics):
    """The table of scores in groups of recordings."""
    rows = [
        (
            f"{what}: {title}",
            f"{row['recordings']:,}",
            between(row["accuracy"], row["accuracy_interval"]),
            between(row["challenge_F1"], row["challenge_F1_interval"]) or "too few of a class",
        )
        for what, group in metrics["groups"].items()
        for title, row in group.items()
    ]
    return table("Groups of recordings", ("group", "recordings", "accuracy", "N/A/O F1"), rows)


def robustness(found):
    """The table of scores on changed recordings; found: robustness.json, or None."""
    rows = [
        (name, f"{row['challenge_F1']:.3f}", f"{row['avg_F1_score']:.3f}", f"{row['changed_decisions']:.1%}")
        for name, voices in (found or {"changes": {}})["changes"].items()
        for row in [next(iter(voices.values()))]
    ]
    return table("Recordings as other devices make them", ("change", "N/A/O F1", "4-class F1", "other class"), rows)


def checks(found):
    """The table of checks of heat maps; found: gradcam_checks.json."""
    methods = (found or {"methods": {}})["methods"]
    names = list(dict.fromkeys(name for each in methods.values() for name in each["passed"]))
    words = {True: "passed", False: "FAILED", None: ""}
    rows = [(name, *(words[each["passed"].get(name)] for each in methods.values())) for name in names]
    heads = [f"{name} (used)" if name == found["used"] else name for name in methods]
    return table("Checks of the maps", ("check", *heads), rows)


def draw_hardest(run, card, data):
    """Draw the first 10 s of the recordings in `data` whose label the model finds least probable; whether it could."""
    import benchmark
    import plotting
    import preprocessing

    if not data.exists():
        say(f"note: {data} is not there, so no traces of the hardest recordings are shown; --data says where they are")
        return False
    rows = benchmark.hardest(benchmark.read(run.figures / "predictions.csv"), HARDEST)
    recordings = dataset.read_recordings(data, card.recipe.labels).set_index("record")
    rows = rows[rows.record.isin(recordings.index)]
    signals = {}
    for row in rows.rename(columns={"class": "named"}).itertuples():
        signal, rate = recordings.loc[row.record, ["signal", "sampling_rate"]]
        title = f"{row.record}: label {row.label}, called {row.named}; P({row.label}) = {row.given:.3f}"
        signals[title] = preprocessing.resample(signal[: int(10 * rate)], rate, RATE)
    if signals:
        plotting.traces(signals, RATE, run.figures / "hardest.png", alike=False)
    return bool(signals)


def evaluation(run, models):
    """The command that scores `models` into the folder of the `run`."""
    if len(models) < 2:
        return runs.command("evaluation.py", run.name, models if models != [run.model] else None)
    flags = "" if run.name == "ensemble" else f" --run {run.name}"
    return f"python evaluation.py{flags} --model {shlex.join(map(str, models))}"


def commands(run, models, card):
    """The commands that make the run again; models: paths of its models."""
    if not any(path.is_file() for path in models):
        return [f"python evaluation.py --predictions {run.figures / 'predictions.csv'}"]
    if not card:
        return [evaluation(run, models)]
    fold, file = card.fold or ("", "")
    name = models[0].stem.removesuffix("-first").removesuffix(f"-{fold}") if fold else models[0].stem
    train = f"python main.py --recipe {card.recipe.name}{as_flags(card.recipe.changes)} --run {name}"
    train += f" --folds {shlex.quote(file)}" if file else " --folds" if fold else ""
    train += f" --data {shlex.quote(card.data)}"
    elsewhere = models if models != [run.model] else None
    look = runs.command("gc_implementation.py", run.name, elsewhere)
    return [train, evaluation(run, models), look, runs.command("report.py", run.name)]


def compare(shown):
    """The tables of several runs: their scores side by side, and paired differences of each from the first."""
    import benchmark
    import scoring

    if len(shown) < 2:
        return []
    keys = {key: title for key, title in scoring.OVERALL.items() if all(key in run["metrics"] for run in shown)}
    values = [
        (title, *(between(run["metrics"][key], run["metrics"][f"{key}_interval"]) for run in shown))
        for key, title in keys.items()
    ]
    first, *others = shown
    if len(labels := {run["metrics"]["labels"] for run in shown}) > 1:
        raise UserError(f"these runs were scored by the labels {' and '.join(sorted(labels))}, which do not compare")
    rows = benchmark.read(runs.Run(first["name"]).figures / "predictions.csv")
    pairs = []
    for other in others:
        found = benchmark.compare(rows, runs.Run(other["name"]).figures / "predictions.csv")
        gains = (
            between(found[f"{key}_gain"], found[f"{key}_gain_interval"], "+.3f")
            for key in ("avg_F1_score", "challenge_F1")
        )
        test = found["mcnemar"]
        pairs.append((f"{first['name']} less {other['name']}", *gains, test["this"], test["other"], f"{test['p']:.2g}"))
    head = ("", "4-class F1", "N/A/O F1", "only the first is right", "only the other is", "McNemar's p")
    return [
        table("Side by side", ("", *(run["name"] for run in shown)), values),
        table("Paired differences, on the same recordings", head, pairs),
    ]


if __name__ == "__main__":
    run_script(main)
