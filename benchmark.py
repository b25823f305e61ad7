"""Predictions of any system in files, held against the recordings they are of; scores by fold and by group."""

from pathlib import PurePath

import numpy as np
import pandas as pd

import dataset
import scoring
from recipes import CLASSES
from shell import UserError, reason, say


def read(path):
    """The predictions of any system in a CSV file: a DataFrame of record, class, and what else the file has.

    The file has record (or file, whose stem it is, as `predict.py --csv` has it), and class, or four probabilities
    (probability_A … or A …; they become `scoring.COLUMNS`), of which the largest names the class. The columns label
    and fold are text, and so are those without any number; the others are numbers. Raises `UserError` for a file that
    says less, or no class for a record.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); name a CSV file of predictions") from None
    except ValueError as error:
        raise UserError(f"{path} is not a CSV file of predictions ({' '.join(str(error).split())[:120]})") from None
    rows = rows.rename(columns=dict(zip(CLASSES, scoring.COLUMNS, strict=True)))
    if not rows.columns.is_unique:
        raise UserError(f"{path} has the column {rows.columns[rows.columns.duplicated()][0]} twice; keep one of them")
    if "record" not in rows and "file" in rows:
        rows["record"] = rows["file"].map(lambda name: PurePath(name).stem)
    if {"record", "class", "error"} <= set(rows):  # what predict.py refused
        refused = (rows["class"] == "") & (rows["error"] != "")
        if refused.any():
            say(f"note: {refused.sum()} lines have an error and no answer, such as {rows.record[refused].iloc[0]}")
        rows = rows[~refused].reset_index(drop=True)
    probable = set(scoring.COLUMNS) <= set(rows)
    if "record" not in rows or not (probable or "class" in rows) or rows.empty:
        raise UserError(f"{path} needs lines with the columns record, and class or {', '.join(scoring.COLUMNS)}")
    needed = [*scoring.COLUMNS, *(column for column, _ in GROUPS.values())]
    for name in rows.columns.difference(["record", "file", "class", "label", "fold"]):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        if name in needed or numbers.notna().any():
            rows[name] = numbers
    if probable:
        named = rows[scoring.COLUMNS].fillna(-1).to_numpy().argmax(1)
        rows = rows.assign(**{"class": rows.get("class", np.array(CLASSES)[named])})
    _check(rows, path, probable)
    return rows


def _check(rows, path, probable):
    repeated = rows.duplicated(["record", "fold"] if "fold" in rows else ["record"])
    if repeated.any():
        raise UserError(
            f"{path} names {rows.record[repeated].iloc[0]} twice ({repeated.sum()} repeated lines); keep one"
        )
    if probable:
        values = rows[scoring.COLUMNS]
        wrong = ~((values >= 0).all(axis=1) & ((values.sum(axis=1, skipna=False) - 1).abs() < 0.01))
        if wrong.any():
            raise UserError(f"{path}: the probabilities of {rows.record[wrong].iloc[0]} do not add up to 1")
    for column in ("class", "label"):
        wrong = ~rows[column].isin(CLASSES) if column in rows else np.zeros(len(rows), bool)
        if wrong.any():
            record, value = rows.loc[wrong, ["record", column]].iloc[0]
            raise UserError(f"{path}: the {column} of {record} is {value!r}, not one of {', '.join(CLASSES)}")


def indices(rows):
    """(labels (n,), classes predicted (n,)) of a table of predictions, as indices of classes."""
    return tuple(rows[column].map(CLASSES.index).to_numpy(int) for column in ("label", "class"))


def probabilities(rows):
    """The probabilities (n, 4) of a table of predictions, or None where it has only classes."""
    return rows[scoring.COLUMNS].to_numpy(float) if set(scoring.COLUMNS) <= set(rows) else None


def hardest(rows, count):
    """The `count` rows of a table of predictions whose label has the least probability, `given` in a column, first."""
    true, _ = indices(rows)
    return rows.assign(given=probabilities(rows)[range(len(rows)), true]).sort_values("given").head(count)


def match(rows, path, table, folds=None):
    """The predictions `rows` of the file `path` on the recordings that are to be scored, with label and measurements.

    table: of the recordings, as `dataset.read_recordings` makes it. folds: of `dataset.folds`, of which each test part
    is to be scored, None: the report's test split, or "all" that have a prediction. A file with a column fold has a
    line for each record and fold. Raises `UserError` where a record is missing or not one of the set's; says how many
    others are left out.
    """
    unknown = rows.record[~rows.record.isin(table.record)]
    if len(unknown):
        raise UserError(
            f"{path} names {unknown.iloc[0]}, which is not in the set, or has no label there ({len(unknown)} such)"
        )
    if isinstance(folds, str):
        wanted = table[table.record.isin(rows.record)]
    elif folds is None:
        wanted = table[dataset.split(table) == "test"]
    else:
        wanted = pd.concat([table[part == "test"].assign(fold=fold) for fold, part in folds.items()])
    keys = _keys(rows, wanted, path)
    given = rows.drop(columns=["seconds", *((set(wanted) & set(rows)) - set(keys))], errors="ignore")
    scored = wanted.assign(seconds=dataset.seconds(wanted)).merge(given, on=keys, how="left")
    missing = scored.record[scored["class"].isna()]
    if len(missing):
        raise UserError(
            f"{path} has no prediction for {missing.iloc[0]} ({len(missing)} such records of those to be scored); add "
            "them, or pass --all to score those that it has"
        )
    if len(rows) > len(scored):
        say(f"note: {len(rows) - len(scored):,} of the {len(rows):,} lines are of other recordings and are left out")
    if not {"heart_rate", "agreement"} <= set(scored):
        import members

        scored = add_heartbeats(scored, scored, members.measure(scored.signal, scored.sampling_rate))
    return scored.drop(columns=["signal", "sampling_rate"])


def _keys(rows, others, path):
    """The columns by which the predictions `rows` of the file `path`, and `others`, belong together."""
    if {"fold"} <= set(rows) & set(others):
        return ["record", "fold"]
    if (repeated := rows.record.duplicated()).any():
        raise UserError(
            f"{path}: {rows.record[repeated].iloc[0]} has predictions of several folds ({repeated.sum()} such lines); "
            "pass --folds, or keep one of each record"
        )
    return ["record"]


def add_heartbeats(rows, table, measured):
    """`rows` with the columns that `GROUPS` needs of their recordings, `table`; measured: `measuring.Measured`."""
    import beats

    names = [name for name, _, _ in beats.MEASUREMENTS]
    windows = pd.DataFrame(measured.rows[:, [names.index("heart rate"), names.index("agreement")]])
    heart_rate, agreement = windows.groupby(measured.owners).median().to_numpy().T
    return rows.assign(seconds=dataset.seconds(table), heart_rate=heart_rate, agreement=agreement)


def member_columns(name):
    """The columns of the probabilities of the member `name` alone."""
    return [f"{name}_{label}" for label in CLASSES]


def voices(rows):
    """{members: probabilities (n, 4)} in a table of predictions: of all together, then of each; {} without members."""
    numbers = set(rows.select_dtypes("number"))
    names = [column[:-2] for column in rows if column.endswith("_A") and set(member_columns(column[:-2])) <= numbers]
    alone = {name: rows[member_columns(name)].to_numpy(float) for name in names if name != "probability"}
    together = probabilities(rows)
    return {",".join(alone): together} | alone if alone and together is not None else {}


def compare(rows, path):
    """`scoring.compare` of the predictions `rows` with those in the file `path`, on the recordings that both have."""
    other = read(path)
    keys = _keys(other, rows, path)
    both = rows[[*keys, "label", "class"]].merge(other[[*keys, "class"]], on=keys, suffixes=("", "_other"))
    if both.empty:
        raise UserError(f"{path} has no recording that is scored here; name predictions for the same ones")
    if len(both) < len(rows):
        say(f"note: compared on the {len(both):,} of {len(rows):,} recordings that {path} has too")
    return scoring.compare(*indices(both), both.class_other.map(CLASSES.index).to_numpy(int))


def against_lines(against):
    """Lines that say what `compare` found against the file that `against` names."""
    lines = [
        f"against {against['file']}: {title} {against[f'{key}_gain']:+.4f} "
        f"({scoring.span(against[f'{key}_gain_interval'], '+.3f')})"
        for title, key in (("4-class", "avg_F1_score"), ("challenge", "challenge_F1"))
    ]
    return [*lines, scoring.mcnemar_line(against["mcnemar"], f"against {against['file']}")]


def by_fold(rows):
    """{fold: figures of merit} of a table of predictions with labels and folds; of all together, "pooled", last."""
    parts = [*rows.groupby("fold", sort=False), ("pooled", rows)]
    return {fold: measure(part) for fold, part in parts}


def measure(rows):
    """All figures of merit of a table of predictions with labels, as `scoring.measure` makes them."""
    true, chosen = indices(rows)
    return scoring.measure(true, probabilities(rows), chosen)


def fold_lines(results):
    """Lines of F1 scores for each of `results`, {fold: figures of merit}, of which the last is pooled; mean and sd."""
    shown = {"4-class": "avg_F1_score", "challenge": "challenge_F1"}
    lines = {
        fold: [*result["F1"].values(), *(result[key] for key in shown.values())] for fold, result in results.items()
    }
    values = np.array(list(lines.values())[:-1])
    if len(values) > 1:
        lines |= {"mean": values.mean(0), "sd": values.std(0, ddof=1)}
    head = f"{'F1':<8}" + "".join(f"{title:>11}" for title in (*CLASSES, *shown))
    return [head, *(f"{title:<8}" + "".join(f"{value:>11.4f}" for value in line) for title, line in lines.items())]


# ── Groups of recordings ────────────────────────────────────────────────────────────────────────────────────────────

# What recordings are grouped by: column of the predictions, {group: value below which it ends}.
GROUPS = {
    "duration": ("seconds", {"under 20 s": 20, "20 to 30 s": 29.99, "30 s": 30.01, "over 30 s": np.inf}),
    "heart rate": ("heart_rate", {"under 60/min": 60, "60 to 100/min": 100, "over 100/min": np.inf}),
    "signal quality": ("agreement", {"under 80 %": 80, "80 to 95 %": 95, "over 95 %": np.inf}),  # two detectors'
}
FEWEST = 5  # recordings of a class, below which a group has no F1 of it


def by_group(rows):
    """{what: {group: its scores}} for the `GROUPS` whose columns `rows`, a table of recordings, has; ready for JSON.

    The F1 of a class with fewer than `FEWEST` recordings in a group is None.
    """
    measured, (true, chosen) = {}, indices(rows)
    for what, (column, bounds) in GROUPS.items():
        if column not in rows:
            continue
        values = rows[column].to_numpy(float)
        places = np.where(np.isnan(values), len(bounds), np.digitize(values, list(bounds.values())))
        names = [*bounds, "not measured"]
        measured[what] = {
            names[place]: _measure_group(scoring.confusion_matrix(true[places == place], chosen[places == place]))
            for place in np.unique(places)
        }
    return measured


def _measure_group(matrix):
    counts = dict(zip(CLASSES, matrix.sum(1).tolist(), strict=True))
    each = zip(CLASSES, scoring.f1_per_class(matrix), strict=True)
    whole = min(counts[name] for name in "NAO") >= FEWEST
    return {
        "recordings": int(matrix.sum()),
        "classes": counts,
        "F1": {name: float(f1) if counts[name] >= FEWEST else None for name, f1 in each},
        "challenge_F1": float(scoring.challenge_f1(matrix)) if whole else None,
        "challenge_F1_interval": scoring.interval(matrix, scoring.challenge_f1) if whole else None,
        "accuracy": float(scoring.overall(matrix)["accuracy"]),
        "accuracy_interval": scoring.share_interval(int(np.trace(matrix)), int(matrix.sum())),
    }


def group_lines(groups):
    """Lines of a table of what `by_group` measured."""
    head = f"{'recordings by':<16}{'':<16}{'all':>6}" + "".join(f"{name:>6}" for name in CLASSES)
    lines = [f"{head}   {'accuracy':<24}F1, challenge (N, A, O)"]
    for what, rows in groups.items():
        for title, row in rows.items():
            counts = "".join(f"{count:>6,}" for count in (row["recordings"], *row["classes"].values()))
            scores = [
                "" if row[key] is None else f"{row[key]:.3f} ({scoring.span(row[f'{key}_interval'])})"
                for key in ("accuracy", "challenge_F1")
            ]
            lines.append(f"{what:<16}{title:<16}{counts}   {scores[0]:<24}{scores[1] or 'too few of a class'}")
    return lines
