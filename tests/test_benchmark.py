"""Predictions in files, and evaluation.py on them, which needs no model."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import benchmark
import dataset
import report
import runs
import scoring
from shell import UserError


def write(path, **columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.fixture
def predictions():
    return random_predictions()


def random_predictions():
    """Predictions, right more often than not, as evaluation.py writes them."""
    rng = np.random.default_rng(0)
    true = rng.choice(4, 300, p=[0.1, 0.5, 0.3, 0.1])
    table = pd.DataFrame({"record": [f"A{n:05}" for n in range(300)], "label": np.array(list("ANO~"))[true]})
    rows = None
    for name in ("probability", "network", "trees"):
        probabilities = rng.dirichlet(np.ones(4), 300) + 0.6 * np.eye(4)[true]
        probabilities = (probabilities / probabilities.sum(1, keepdims=True)).round(6)
        if rows is None:
            rows = scoring.predictions(table, probabilities)
        else:
            rows[benchmark.member_columns(name)] = probabilities
    return rows.assign(seconds=rng.choice([15, 30, 60], 300), heart_rate=rng.uniform(50, 120, 300))


def test_a_file_is_read_as_it_was_written(predictions, tmp_path):
    path = tmp_path / "predictions.csv"
    predictions.to_csv(path, index=False)
    pd.testing.assert_frame_equal(benchmark.read(path), predictions)
    assert list(benchmark.voices(predictions)) == ["network,trees", "network", "trees"]


@pytest.mark.parametrize(
    "columns",
    [
        {"record": ["A1", "A2"], "class": ["N", "~"]},
        {"record": ["A1", "A2"], "A": [0, 0.1], "N": [1, 0.1], "O": [0, 0.1], "~": [0, 0.7]},
        {"file": ["set/A1.mat", "A2.hea"], "class": ["N", "~"], "uncertain": [True, False]},
    ],
)
def test_files_of_others(tmp_path, columns):
    rows = benchmark.read(write(tmp_path / "theirs.csv", **columns))
    assert list(rows.record) == ["A1", "A2"] and list(rows["class"]) == ["N", "~"]


@pytest.mark.parametrize(
    "columns, words",
    [
        ({"name": ["A1"], "class": ["N"]}, "columns record, and class or probability_A"),
        ({"record": ["A1"], "A": [0.1], "N": [0.9]}, "columns record, and class or probability_A"),
        ({"record": ["A1", "A1"], "class": ["N", "A"]}, "names A1 twice"),
        ({"record": ["A1", "A2"], "class": ["N", "AF"]}, "the class of A2 is 'AF'"),
        ({"record": ["A1"], "A": [0.1], "N": [0.1], "O": [0.1], "~": [0.1]}, "of A1 do not add up to 1"),
        ({"record": ["A1"], "A": ["x"], "N": [1], "O": [0], "~": [0]}, "of A1 do not add up to 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, columns, words):
    with pytest.raises(UserError, match=words):
        benchmark.read(write(tmp_path / "theirs.csv", **columns))
    (tmp_path / "binary.csv").write_bytes(os.urandom(300))
    with pytest.raises(UserError, match="binary"):
        benchmark.read(tmp_path / "binary.csv")


@pytest.fixture
def table():
    """30 recordings, of which only what a file of predictions is held against matters."""
    labels = list("ANO") * 10
    signals = [np.zeros(300 * seconds) for seconds in range(1, 31)]
    records = [f"A{n:02}" for n in range(30)]
    return pd.DataFrame({"record": records, "label": labels, "signal": signals, "sampling_rate": 300.0})


def answers(records, named="N", **columns):
    return pd.DataFrame({"record": records, "class": named, "heart_rate": 60.0, "agreement": 100.0} | columns)


def test_match_scores_the_test_split(table, capsys):
    test = table[dataset.split(table) == "test"]
    rows = benchmark.match(answers(table.record[::-1], label="~"), "x.csv", table)
    assert list(rows.record) == list(test.record) and list(rows.label) == list(test.label)
    assert list(rows.seconds) == list(test.signal.map(len) / 300)
    assert "24 of the 30 lines are of other recordings" in capsys.readouterr().err
    with pytest.raises(UserError, match=rf"x.csv has no prediction for {test.record.iloc[0]} \(6 such"):
        benchmark.match(answers(["A00"] if "A00" not in set(test.record) else ["A01"]), "x.csv", table)
    with pytest.raises(UserError, match="names B99, which is not in the set"):
        benchmark.match(answers([*table.record, "B99"]), "x.csv", table)


def test_match_scores_the_test_part_of_each_fold(table):
    folds = dataset.folds(table)
    rows = benchmark.match(answers(table.record), "x.csv", table, folds)
    assert sorted(rows.record) == sorted(table.record)
    for fold, part in folds.items():
        assert set(rows.record[rows.fold == fold]) == set(table.record[part == "test"])
    # A record that a file names for the wrong fold is missing in its own.
    with pytest.raises(UserError, match=r"no prediction for .* \(24 such records"):
        benchmark.match(answers(table.record, fold="fold0"), "x.csv", table, folds)


def test_predictions_of_several_folds_count_a_recording_once(table, predictions, tmp_path):
    rows = pd.concat([pd.DataFrame({"record": table.record, "class": "N", "fold": f"fold{n}"}) for n in range(3)])
    with pytest.raises(UserError, match=r"has predictions of several folds .* pass --folds"):
        benchmark.match(rows, "x.csv", table)
    twice = {"record": [*predictions.record] * 2, "fold": ["a"] * 300 + ["b"] * 300, "class": "N"}
    other = write(tmp_path / "b.csv", **twice)
    with pytest.raises(UserError, match="has predictions of several folds"):
        benchmark.compare(predictions, other)


def test_columns_of_other_systems_without_probabilities_are_no_members(tmp_path):
    rows = {f"cnn_{name}": [0.25, 0.25] for name in "ANO~"}
    path = write(tmp_path / "a.csv", record=["A1", "A2"], label=["A", "N"], **{"class": ["A", "A"]}, **rows)
    assert benchmark.voices(benchmark.read(path)) == {}


def test_columns_of_text_stay(predictions, tmp_path):
    given = predictions.head(3).assign(uncertain=["False", "True", ""], remark="good", seconds="30", agreement="none")
    given.to_csv(tmp_path / "a.csv", index=False)
    rows = benchmark.read(tmp_path / "a.csv")
    assert list(rows.uncertain) == ["False", "True", ""] and list(rows.remark) == ["good"] * 3
    assert list(rows.seconds) == [30] * 3 and rows.agreement.isna().all()


def test_scores_by_fold(predictions):
    rows = predictions.assign(fold=np.repeat(["a", "b", "c"], 100))
    results = benchmark.by_fold(rows)
    assert list(results) == ["a", "b", "c", "pooled"]
    each = [
        metrics.f1_score(part.label, part["class"], average="macro", labels=list("ANO"))
        for _, part in rows.groupby("fold")
    ]
    lines = {line.split()[0]: line.split()[1:] for line in benchmark.fold_lines(results)}
    assert float(lines["mean"][-1]) == pytest.approx(np.mean(each), abs=1e-4)
    assert float(lines["sd"][-1]) == pytest.approx(np.std(each, ddof=1), abs=1e-4)
    assert results["pooled"]["recordings"] == 300


def test_groups_hold_every_recording_once(predictions):
    predictions.loc[:9, "heart_rate"] = np.nan
    groups = benchmark.by_group(predictions)
    assert list(groups) == ["duration", "heart rate"]
    assert list(groups["duration"]) == ["under 20 s", "30 s", "over 30 s"]
    for rows in groups.values():
        assert sum(row["recordings"] for row in rows.values()) == 300
    some = predictions[predictions.seconds == 15]
    row = groups["duration"]["under 20 s"]
    assert row["accuracy"] == pytest.approx(np.mean(some.label == some["class"]))
    assert row["classes"]["O"] == np.sum(some.label == "O")
    low, high = row["accuracy_interval"]
    assert low < row["accuracy"] < high
    assert groups["heart rate"]["not measured"]["recordings"] == 10
    assert groups["heart rate"]["not measured"]["challenge_F1"] is None


@pytest.mark.parametrize("count", [1, 3])
def test_evaluation_of_recordings_of_one_class(script, tmp_path, count):
    probabilities = {name: [0.7 if name == "probability_N" else 0.1] * count for name in scoring.COLUMNS}
    records = {"record": [f"r{place}" for place in range(count)], "label": ["N"] * count}
    earlier = tmp_path / "figures/n/multi_class_roc.png"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    process = script(tmp_path, "evaluation.py", "--predictions", write(tmp_path / "n.csv", **records, **probabilities))
    assert process.returncode == 0 and "Warning" not in process.stderr, process.stderr
    measured = json.loads((tmp_path / "figures/n/metrics.json").read_text(), parse_constant=pytest.fail)
    assert measured["accuracy"] == 1 and measured["macro_AUC"] is None
    assert "AUC" not in process.stdout and not earlier.exists()
    process = script(tmp_path, "report.py", "--run", "n")
    assert process.returncode == 0, process.stderr


def test_evaluation_of_a_file_needs_no_model(predictions, script, tmp_path, monkeypatch):
    folder = tmp_path / "figures/mine"
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    known = {"labels": "v3", "protocol": "mine", "baselines": {}, "thresholds": {"balanced": 0.25}}
    (folder / "metrics.json").write_text(json.dumps(known))
    other = write(tmp_path / "other.csv", record=predictions.record, **{"class": "N"})
    arguments = ("evaluation.py", "--predictions", folder / "predictions.csv", "--against", other)
    process = script(tmp_path, *arguments, KERAS_BACKEND="none")  # with which Keras cannot be imported
    assert process.returncode == 0, process.stderr
    names = {path.name for path in folder.iterdir()}
    assert {"precision_recall.png", "reliability.png", "groups.png", "multi_class_roc.png"} < names
    measured = json.loads((folder / "metrics.json").read_text())
    assert measured["protocol"] == "mine" and measured["thresholds"] == {"balanced": 0.25}
    assert [point["threshold"] for point in measured["screening"]] == [None, 0.25]
    assert measured["against"]["mcnemar"]["this"] > measured["against"]["mcnemar"]["other"]
    assert set(measured["members"]) == {"network", "trees"}
    assert f"{measured['macro_AUC']:.4f}" in process.stdout
    with pytest.raises(UserError, match="no recording that is scored"):
        benchmark.compare(predictions, write(tmp_path / "b.csv", record=["B"], **{"class": "N"}))
    before = (folder / "predictions.csv").read_bytes()
    process = script(tmp_path, "evaluation.py", "--predictions", folder / "predictions.csv", "--run", "twin")
    assert process.returncode == 0, process.stderr
    assert (folder / "predictions.csv").read_bytes() == before
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["report.py", "--run", "mine", "twin"])
    report.main()
    page = (folder / "report.html").read_text()
    assert "python evaluation.py --predictions figures/twin/predictions.csv" in page
    assert (
        f"{measured['avg_F1_score']:.3f} (" in page and "mine less twin" in page and "+0.000 (+0.000 to +0.000)" in page
    )
    assert page.count("data:image/png;base64,") == 2 * len([name for name in names if name.endswith(".png")])
    assert not re.search(r"(src|href)=.(?!data:|#)", page)  # nothing is loaded from elsewhere
    with pytest.raises(UserError, match=r"python evaluation\.py --run none"):
        report.describe(runs.Run("none"))
    (folder / "metrics.json").write_text(json.dumps(measured | {"labels": "reference"}))
    with pytest.raises(UserError, match="scored by the labels reference and v3, which"):
        report.main()
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="not of this version of"):
        report.main()


def test_a_page_shows_nothing_of_another_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = runs.Run("mine").figures
    folder.mkdir(parents=True)
    pictures = [f"gradcam_{name}.png" for name in ("A", "N")] + ["gradcam_checks.png", "robustness.png"]
    for name in pictures:
        (folder / name).write_bytes(b"a picture")
    told = {"gradcam_checks.json": {"fingerprint": "new"}, "robustness.json": {"fingerprints": ["new", "b"]}}
    for fingerprint, left_out in (("new", {"gradcam_N.png"}), ("old", {*pictures} - {"gradcam_A.png"})):
        write(folder / "gradcam.csv", picture=["gradcam_A.png", "gradcam_N.png"], fingerprint=[fingerprint, "older"])
        for name, values in told.items():
            (folder / name).write_text(json.dumps(values))
        if fingerprint == "old":  # and a table of an earlier version tells nothing
            write(folder / "gradcam.csv", record=["A1"])
            left_out = {*pictures}
        changed, checked, absent = report.present(runs.Run("mine"), [fingerprint, "b"])
        assert {*pictures} & absent == left_out and (changed is checked is None) == (fingerprint == "old")
        assert capsys.readouterr().err.count("is of another model") == len(left_out)


def test_predictions_never_replace_the_evaluation_of_a_model_nor_keep_a_threshold_that_was_given(
    tmp_path, script, refusal
):
    run = tmp_path / "figures/mine"
    run.mkdir(parents=True)
    rows = pd.DataFrame({"record": [f"A{n}" for n in range(40)], "label": [*"ANO~"] * 10})
    for name in "ANO~":
        rows[f"probability_{name}"] = np.where(rows.label == name, 0.7, 0.1)
    rows.to_csv(run / "predictions.csv", index=False)
    told = {"labels": "reference", "protocol": "mine", "baselines": {}, "thresholds": {"balanced": 0.2, "given": 0.3}}
    (run / "metrics.json").write_text(json.dumps(told | {"models": ["models/mine.keras"], "fingerprints": ["f"]}))
    before = (run / "metrics.json").read_bytes()
    for given in ("figures/mine/predictions.csv", "mine.csv"):
        rows.to_csv(tmp_path / "mine.csv", index=False)
        process = script(tmp_path, "evaluation.py", "--predictions", given, "--all", "--data", "nowhere")
        assert "figures/mine/ holds the evaluation of a model; pass --run NAME" in refusal(process)
    (tmp_path / "elsewhere/mine").mkdir(parents=True)
    for given in ("mine.csv", "elsewhere/mine/predictions.csv"):  # with labels of their own
        rows.to_csv(tmp_path / given, index=False)
        process = script(tmp_path, "evaluation.py", "--predictions", given)
        assert "figures/mine/ holds the evaluation of a model; pass --run NAME" in refusal(process)
    assert (run / "metrics.json").read_bytes() == before
    process = script(tmp_path, "evaluation.py", "--predictions", "figures/mine/predictions.csv", "--threshold", "0.4")
    assert process.returncode == 0, process.stderr
    process = script(tmp_path, "evaluation.py", "--predictions", "figures/mine/predictions.csv")
    told = json.loads((run / "metrics.json").read_text())
    assert told["thresholds"] == {"balanced": 0.2} and "given" not in process.stdout
    assert told["models"] == ["models/mine.keras"] and told["fingerprints"] == ["f"]
