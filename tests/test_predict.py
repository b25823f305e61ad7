"""predict.py as a user runs it, and the recipe `improved` from training to Grad-CAM."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
from conftest import PROJECT
from scipy.io import savemat
from wandb_server import WandbServer

import answers
import dataset
import inference
import members
import predict
import runs
import scoring
import training
from recipes import RECIPES
from synthetic import recording

SMALL = ("--recipe", "improved", "--seconds", "10", "--batch-size", "8")
WANTED = answers.Wanted((None, None, None), 0.5)
RUN = (*SMALL, "--epochs", "2", "--run", "improved")


@pytest.fixture(scope="module")
def trained(archive, folder, script, tmp_path_factory):
    """A folder in which main.py trained `improved` briefly, with the recordings unpacked in set/."""
    cwd = tmp_path_factory.mktemp("improved")
    process = script(cwd, "main.py", "--data", archive, *RUN)
    assert process.returncode == 0, process.stderr
    assert "calibrated on the validation split" in process.stderr
    assert "calibrated on this split, with its whole vote, joined by its other members" in process.stdout
    shutil.copytree(folder, cwd / "set")
    return cwd


@pytest.fixture(scope="module")
def evaluation(trained, script):
    """The finished process of evaluation.py on the trained model."""
    process = script(trained, "evaluation.py", "--run", "improved")
    assert process.returncode == 0, process.stderr
    return process


@pytest.fixture
def classify(trained, monkeypatch, capsys):
    """A function that runs predict.py with the trained model in this process: (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["predict.py", *map(str, arguments), "--model", "models/improved.keras"])
        monkeypatch.chdir(trained)
        status = predict.main()
        return status, *capsys.readouterr()

    return call


def test_the_improved_run_leaves_the_same_files_as_the_papers(trained, evaluation, script):
    assert not list(trained.glob("models/*.npz"))  # the checkpoint of a finished training
    card = runs.read_card(trained / "models/improved.keras")
    assert card.recipe.backbone == "compact" and card.recipe.image == RECIPES["improved"].image
    assert isinstance(runs.load(trained / "models/improved.keras", light=True).network, inference.Onnx)
    split = pd.read_csv(trained / "data/split.csv")
    assert card.seen == set(split.record[split.split != "test"])
    metrics = json.loads((trained / "figures/improved/metrics.json").read_text())
    assert set(metrics["members"]) == {"network", "rhythm", "trees"} and "trees alone" in evaluation.stdout
    assert set(metrics["baselines"]) == {"duration only", "exactly 30 s"}
    assert "duration only" in evaluation.stdout and "Calibration error" in evaluation.stdout
    process = script(trained, "gc_implementation.py", "--run", "improved")
    assert process.returncode == 0, process.stderr
    assert (pd.read_csv(trained / "figures/improved/gradcam.csv").heat_on_padding < 0.01).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_weights_and_biases_gets_it(trained, archive, script):
    before = [
        (trained / path).read_bytes() for path in ("models/improved-first.csv", "models/improved.csv", "data/split.csv")
    ]
    with WandbServer() as server:
        process = script(trained, "main.py", "--data", archive, *RUN[:-1], "again", **server.env)
        assert process.returncode == 0, process.stderr
        process = script(trained, "evaluation.py", "--run", "again", "--wandb", "online", **server.env)
    assert process.returncode == 0 and "did not take" not in process.stderr, process.stderr
    again = ("models/again-first.csv", "models/again.csv", "data/split.csv")
    assert [(trained / path).read_bytes() for path in again] == before
    one, two = (runs.read_card(trained / f"models/{name}.keras") for name in ("improved", "again"))
    assert one == two and one.calibration
    record, second, scored = server.runs.values()
    models = [each for each in server.artifacts.values() if each["type"] == "model"]
    assert [each["name"] for each in models] == ["again-first", "again", "again-again"]
    assert all(each["committed"] and each["metadata"]["recordings_fingerprint"] for each in models)
    assert scored["history"][-1]["hardest"]["nrows"] == 8 and "reliability" in scored["history"][-1]
    assert scored["config"]["code"] == runs.code() and scored["summary"]["challenge_F1_low"] >= 0
    assert record["exit_code"] == 0 and record["config"]["batch_size"] == 8
    table, losses = (pd.read_csv(trained / f"models/{name}.csv") for name in ("again-first", "again"))
    assert [row["loss"] for row in second["history"]] == pytest.approx(list(losses.loss))
    assert "avg_F1_score" not in second["history"][-1] and second["exit_code"] == 0
    assert [row["avg_F1_score"] for row in record["history"]] == pytest.approx(list(table.avg_F1_score))
    images = [row["epoch"] for row in record["history"] if "confusion_matrix" in row]
    assert images == list(table.epoch[table.val_loss < table.val_loss.cummin().shift(fill_value=np.inf)])
    assert len([name for name in record["files"] if name.endswith(".png")]) == len(images)


def test_a_finished_training_is_not_done_again_and_finishing_is_one_step(trained, archive, script, tmp_path):
    """Also not where a process was killed after it had finished and before its checkpoint was gone."""
    for name in ("improved.keras", "improved.csv"):
        (tmp_path / "models").mkdir(exist_ok=True)
        shutil.copy(trained / "models" / name, tmp_path / "models" / name)
    (tmp_path / "models/improved.checkpoint.npz").write_bytes(b"left behind")
    before = (tmp_path / "models/improved.keras").read_bytes()
    process = script(tmp_path, "main.py", "--data", archive, *RUN)
    assert process.returncode == 0, process.stderr
    assert "models/improved.keras is finished" in process.stderr and "with its whole vote" in process.stdout
    assert (tmp_path / "models/improved.keras").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["improved.csv", "improved.keras"]
    assert (tmp_path / "figures/improved/training_f1.png").exists()


def test_an_ensemble_averages(trained, evaluation, script):
    process = script(trained, "evaluation.py", "--model", "models/improved.keras", "models/improved.keras")
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("next: python gc_implementation.py --model models/improved.keras\n")
    one, two = (pd.read_csv(trained / f"figures/{name}/predictions.csv") for name in ("improved", "ensemble"))
    pd.testing.assert_frame_equal(one, two, atol=2e-6)


def test_labels_that_are_asked_for_are_scored(trained, evaluation, script, tmp_path):
    predicted = pd.read_csv(trained / "figures/improved/predictions.csv")
    lines = [f"{record},{'A' if label == 'N' else 'N'}" for record, label in predicted[["record", "label"]].to_numpy()]
    (tmp_path / "other.csv").write_text("\n".join(lines))
    process = script(trained, "evaluation.py", "--run", "improved", "--labels", tmp_path / "other.csv")
    assert process.returncode == 0, process.stderr
    metrics = json.loads((trained / "figures/improved/metrics.json").read_text())
    supports = [sum(row) for row in metrics["confusion_matrix"]]
    assert supports == [sum(line.endswith(",A") for line in lines), sum(line.endswith(",N") for line in lines), 0, 0]
    assert "the report used the labels `reference`" in process.stderr
    predicted.to_csv(trained / "figures/improved/predictions.csv", index=False)


def test_calibration_and_scores_are_of_the_validation_split(trained, evaluation, folder):
    table = dataset.read_recordings(folder)
    table["split"] = dataset.split(table)
    validation = table[table.split == "validation"]
    saved = runs.load(trained / "models/improved-first.keras")
    said = members.answers(saved, validation.signal, [300] * 8, keep=False)
    assert list(said) == ["network", "rhythm", "trees"]
    assert np.abs(said["network"] - said["trees"]).max() > 0.05
    labels = dataset.labels(validation)
    for some in (*({name: one} for name, one in said.items()), said):
        logits = [np.log(one.astype(float)) for one in some.values()]
        logits = np.average(logits, axis=0, weights=[2, 1, 1][: len(some)])
        uncalibrated = scipy.special.softmax(logits, axis=1)
        factor, shifts = saved.card.calibration[",".join(some)]
        expected = training.calibrate(uncalibrated, labels)
        assert [factor, *shifts] == pytest.approx([expected[0], *expected[1]], rel=0.02, abs=0.02)
        logits = logits * factor + shifts
    assert saved.card.scores == pytest.approx(scoring.epoch_scores(scoring.confusion_matrix(labels, logits.argmax(1))))
    expected = scoring.thresholds(labels, scipy.special.softmax(logits, axis=1))
    assert len(expected) == 2 and saved.card.thresholds == pytest.approx(expected, abs=1e-4)
    card, metrics = runs.read_card(trained / "models/improved.keras"), trained / "figures/improved/metrics.json"
    assert card.calibration == saved.card.calibration and card.scores == saved.card.scores
    assert json.loads(metrics.read_text())["thresholds"] == card.thresholds == saved.card.thresholds


def test_predictions_are_those_of_evaluation(trained, evaluation, classify):
    expected = pd.read_csv(trained / "figures/improved/predictions.csv")
    status, out, _ = classify(*(trained / f"set/{record}.hea" for record in expected.record), "--csv")
    assert status == 0
    rows = pd.read_csv(io.StringIO(out))
    columns = [name for name in expected if name.startswith("probability_")]
    np.testing.assert_allclose(rows[columns], expected[columns], atol=2e-3)
    assert np.ptp(rows[columns], axis=0).max() > 0.004


def test_a_table_in_the_folder_of_its_recordings_continues(trained, classify):
    folder = trained / "texts"
    folder.mkdir()
    signal = recording("N", 12, np.random.default_rng(0))
    np.savetxt(folder / "one.txt", signal)
    command = ("texts", "--fs", "300", "--unit", "uV", "--csv", "texts/answers.csv")
    assert classify(*command) == (0, "rows written to texts/answers.csv: 1, it has 1\n", "")
    first = (folder / "answers.csv").read_text()
    np.savetxt(folder / "two.txt", signal[::-1])
    np.savetxt(folder / "three.txt", signal[:600])
    status, out, err = classify(*command)
    assert (status, out) == (
        1,
        "rows written to texts/answers.csv: 2, it has 3\n",
    ) and "1 of 3 files could not be classified" in err
    text = (folder / "answers.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text.startswith(first) and [row["file"] for row in rows] == [
        f"texts/{name}.txt" for name in ("one", "three", "two")
    ]
    np.savetxt(folder / "three.txt", 2 * signal)  # mended
    assert classify(*command)[0] == 0
    mended = list(csv.DictReader((folder / "answers.csv").open()))
    assert mended[:2] == [rows[0], rows[2]] and mended[2]["file"] == rows[1]["file"] and not mended[2]["error"]
    text = (folder / "answers.csv").read_text()
    assert classify(*command)[0] == 0 and (folder / "answers.csv").read_text() == text
    _, printed, _ = classify("--csv", "texts/one.txt", "--fs", "300", "--unit", "uV")
    assert printed.splitlines()[1] == first.splitlines()[1].rsplit(",", 1)[0]
    status, _, err = classify(*command, "--confidence", "0.6")
    assert status == 1 and "with other flags" in err and (folder / "answers.csv").read_text() == text


def test_reasons_are_given_when_asked_for_and_always_in_json(classify):
    _, table, _ = classify("set/A00001.hea")
    _, explained, _ = classify("set/A00001.hea", "--explain")
    _, out, _ = classify("set/A00001.hea", "set/A00002.hea", "--json")
    _, flat, _ = classify("set/A00001.hea", "--explain", "--csv")
    first, second = json.loads(out)
    assert first["reasons"]["sentence"] != second["reasons"]["sentence"]
    assert explained.splitlines() == [*table.splitlines(), explained.splitlines()[-1]]
    assert explained.splitlines()[-1].strip() == first["reasons"]["sentence"]
    assert next(csv.DictReader(io.StringIO(flat)))["reasons"] == first["reasons"]["sentence"]
    assert len(first["reasons"]["drivers"]) == 7 and first["reasons"]["measurements"]["heart rate"] > 30


def test_every_kind_of_bad_file_is_a_row_and_the_rest_goes_on(trained, classify):
    bad = trained / "bad"
    bad.mkdir()
    rng = np.random.default_rng(0)
    good = recording("N", 12, rng) / 1000
    np.savetxt(bad / "good.txt", good)
    (bad / "empty.csv").write_bytes(b"")
    (bad / "words.txt").write_text("Dear sir,\nI enclose my heart.\n")
    (bad / "random.edf").write_bytes(rng.bytes(300))
    np.savetxt(bad / "constant.txt", np.ones(4000))
    np.savetxt(bad / "nan.txt", np.full(4000, np.nan))
    np.savetxt(bad / "short.txt", good[:900])
    np.savetxt(bad / "large.txt", good * 1000)
    status, out, err = classify("bad", "bad/missing.hea", "--fs", "300", "--unit", "mV", "--json")
    rows = {row["file"].split("/")[-1]: row for row in json.loads(out)}
    assert {tuple(row) for row in rows.values()} == {tuple(predict.KEYS)}
    assert status == 1 and "8 of 9 files could not be classified" in err
    assert set(rows["good.txt"]["probabilities"]) == set("ANO~")
    assert sum(rows["good.txt"]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    for name, row in rows.items():
        assert (row["error"] is None) == (name == "good.txt") and (row["class"] is None) != (name == "good.txt"), row
        assert name == "good.txt" or (name.split(".")[0] in row["error"] and "\n" not in row["error"])
    status, out, _ = classify("bad/good.txt", "--json")  # no rate and no unit
    assert status == 1 and "--fs" in json.loads(out)[0]["error"]
    status, out, _ = classify("set/A00001.hea", "--lead", "V5", "--json")
    assert status == 1 and "V5" in json.loads(out)[0]["error"]


def test_appended_zeros_change_nothing_and_are_told(trained, classify):
    signal = recording("A", 20, np.random.default_rng(1))
    for name, zeros in (("plain", 0), ("padded", 30 * 300)):
        long = np.concatenate([signal, np.zeros(zeros, np.int16)])
        savemat(trained / f"{name}.mat", {"val": long[None]}, format="4")
        (trained / f"{name}.hea").write_text(f"{name} 1 300 {len(long)}\n{name}.mat 16+24 1000/mV 16 0 0 0 0 ECG\n")
    status, out, _ = classify("plain.hea", "padded.hea", "--json")
    plain, padded = json.loads(out)
    assert status == 0 and "constant" in " ".join(padded["notes"]) and not plain["notes"]
    for name in "ANO~":
        assert plain["probabilities"][name] == pytest.approx(padded["probabilities"][name], abs=0.02)


def test_parts_without_a_heart_are_left_out_and_told(trained, classify):
    signal = recording("A", 60, np.random.default_rng(3)).astype(float)
    off, silent, short = signal.copy(), signal.copy(), signal.copy()
    off[20 * 300 : 22 * 300] += 300_000
    silent[10 * 300 : 50 * 300] = 0
    short[4 * 300 : 56 * 300] = 0
    for name, samples in {"whole": signal, "off": off, "silent": silent, "short": short}.items():
        np.savetxt(trained / f"{name}.csv", samples, "%.0f")
    names = ("whole.csv", "off.csv", "silent.csv", "short.csv")
    status, out, _ = classify(*names, "--fs", "300", "--unit", "uV", "--json")
    whole, off, silent, short = json.loads(out)
    assert status == 1 and "no 5 s that are whole (52.0 s are flat" in short["error"]
    assert "2.2 s are off the scale, at 19.9 s, and left out" in off["notes"]  # in blocks of 0.1 s
    assert off["doubts"] == whole["doubts"]
    assert "40.0 s are flat, at 10.0 s, and left out" in silent["notes"]
    for name, p in whole["probabilities"].items():
        assert off["probabilities"][name] == pytest.approx(p, abs=0.15)


def test_rates_lengths_and_the_table(trained, classify):
    rng = np.random.default_rng(2)
    np.savetxt(trained / "slow.txt", recording("N", 30, rng)[::2])
    np.savetxt(trained / "long.txt", np.concatenate([recording("N", 60, rng) for _ in range(5)]))
    status, out, _ = classify("slow.txt", "--fs", "150", "--unit", "uV")
    assert status == 0 and "resampled from 150 to 300 Hz" in out and "30.0" in out
    status, out, _ = classify("long.txt", "--fs", "300", "--unit", "uV", "--confidence", "1", "--csv")
    (row,) = csv.DictReader(out.splitlines())
    assert status == 0 and float(row["seconds"]) == 300 and row["uncertain"] == "True"
    status, out, _ = classify("long.txt", "--fs", "300", "--unit", "uV", "--json")  # from 5 minutes on
    assert json.loads(out)[0]["fibrillation"]["rule"]


def test_long_recordings_tell_their_episodes_and_windows_are_rows(trained, classify):
    rng = np.random.default_rng(3)
    savemat(
        trained / "hour.mat", {"val": np.concatenate([recording("N", 61, rng) for _ in range(5)])[None]}, format="4"
    )
    (trained / "hour.hea").write_text("hour 1 300 91500\nhour.mat 16+24 1000/mV 16 0 0 0 0 ECG\n")
    status, out, _ = classify("hour.hea", "set/A00001.hea", "--windows", "--json")
    hour, short = json.loads(out)
    assert status == 0 and [row["start"] for row in hour["windows"]] == list(range(0, 300, 30))
    assert hour["windows"][-1]["seconds"] == 35 and len(short["windows"]) == 1
    logits = np.mean([np.log(np.maximum([*row["probabilities"].values()], 1e-4)) for row in hour["windows"]], axis=0)
    assert list(hour["probabilities"].values()) == pytest.approx(scipy.special.softmax(logits), abs=0.01)
    assert {"share", "seconds", "episodes", "longest", "rule"} <= set(hour["fibrillation"])
    assert all(30 < row["heart_rate"] < 200 and 0 <= row["quality"] <= 100 for row in hour["windows"])
    np.savetxt(trained / "late.txt", np.concatenate([np.zeros(36_000), recording("N", 61, rng), np.ones(300)]))
    status, out, _ = classify("late.txt", "--fs", "300", "--unit", "uV", "--windows", "--html", "late", "--json")
    (late,) = json.loads(out)
    assert [row["start"] for row in late["windows"]] == [120, 150] and late["seconds"] == pytest.approx(61, abs=0.1)
    page = (trained / "late" / late["page"]).read_text("utf-8")
    assert ">2:00 to 3:01<" in page and "ECG from 2:00, 10 s" in page and "ECG from 3:00" in page
    several = len({row["class"] for row in hour["windows"]}) > 1
    assert several == any("disagree" in note for note in hour["notes"])


def test_rows_of_windows_as_csv_and_table(capsys):
    window = {"start": 30.0, "seconds": 30.0, "class": "A", "uncertain": True, "heart_rate": None, "quality": 97.0}
    window["probabilities"] = dict.fromkeys("ANO~", 0.25)
    told = {"share": 0.5, "seconds": 90.0, "readable": 180.0, "episodes": 1, "longest": 90.0, "rule": "this"}
    told["list"] = [{"begin": 30.0, "end": 120.0}]
    row = {"file": "a.hea", "class": "N", "uncertain": False, "probabilities": window["probabilities"]}
    row |= {"seconds": 180.0, "doubts": [], "notes": [], "fibrillation": told}
    predict.print_csv([row])
    (flat,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert flat["fibrillation_share"] == "0.5" and flat["fibrillation_longest"] == "90.0"
    predict.print_csv([row | {"windows": [window]}, {"file": "x", "error": "x is bad"}])
    first, second = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (first["file"], first["start"], first["class"], first["heart_rate"]) == ("a.hea", "30.0", "A", "")
    assert first["probability_O"] == "0.25" and second["error"] == "x is bad" and second["class"] == ""
    predict.print_table([row | {"windows": [window]}])
    lines = capsys.readouterr().out.splitlines()
    assert "fibrillation for 1:30, 50.0%" in lines[2] and lines[3].strip() == "from 0:30 to 2:00"
    assert lines[4].split()[:3] == ["0:30", "A,", "uncertain"] and "quality 97 %" in lines[4]


def test_pages_are_written_with_where_the_network_looked(trained, classify):
    (trained / "bad.txt").write_text("Dear sir")
    status, out, err = classify("bad.txt", "set/A00001.hea", "--html", "pages")
    assert status == 1 and "pages/index.html" in err and "bad.txt" in out
    page = next((trained / "pages").glob("A00001-????????.html")).read_text()
    assert 'class="warm"' in page and 'class="ecg"' in page and "/min" in page
    text = (trained / "pages/index.html").read_text()
    assert 'href="A00001-' in text and "bad.txt holds no lines of numbers" in text


@pytest.mark.slow
def test_gradcam_of_ones_own_files(trained, script, refusal):
    command = ("gc_implementation.py", "--model", "models/improved.keras", "--file")
    process = script(trained, *command, "set/A00001.hea", "nothing.hea", "set/A00002.hea")  # the others are drawn
    assert process.returncode == 2 and "error: nothing.hea does not exist" in process.stderr
    assert list(pd.read_csv(trained / "figures/files/gradcam.csv").record) == ["A00001", "A00002"]
    assert (trained / "figures/files/gradcam_A00001.png").exists()
    samples = recording("N", 301, np.random.default_rng(4))
    pd.DataFrame({"time (s)": np.arange(len(samples)) / 300, "ECG (uV)": samples}).to_csv(
        trained / "five.csv", index=False
    )
    assert "predict.py --html" in refusal(script(trained, *command, "five.csv"))


@pytest.mark.slow
def test_maps_are_held_against_those_of_another_model(trained, archive, script, refusal):
    shutil.copy(trained / "models/improved.keras", trained / "models/again.keras")
    command = ("gc_implementation.py", "--run", "improved", "--data", archive, "--count", "4")
    process = script(trained, *command, "--checks", "--against", "models/again.keras")
    assert process.returncode == 0, process.stderr
    found = json.loads((trained / "figures/improved/gradcam_checks.json").read_text())["methods"]
    assert {each["agreement"]["correlation"] for each in found.values()} == {1}
    assert "--against goes with --checks" in script(trained, *command, "--against", "models/again.keras").stderr
    shipped = PROJECT / "pretrained/improved.keras"
    assert "sees other images" in refusal(script(trained, *command, "--checks", "--against", shipped))


def test_a_folder_of_records_without_its_lists(trained):
    found = predict.find([str(trained / "set")])
    assert len(found) == 40 and {path.suffix for path in found} == {".hea"}
    assert predict.find([str(trained / "set/A0000*.hea")]) == found[:9]


def test_a_name_is_itself_before_it_is_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("rec1.txt", "rec[1].txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in predict.find(["rec[1].txt", "rec1.txt"])] == ["rec[1].txt", "rec1.txt"]
    assert [path.name for path in predict.find(["rec?.txt"])] == ["rec1.txt"]
    (tmp_path / "empty").mkdir()
    assert [path.name for path in predict.find(["empty", "nowhere.hea"])] == ["empty", "nowhere.hea"]


def test_folders_in_any_case_and_inside_each_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in (
        "REC.HEA",
        "REC.DAT",
        "REC.MAT",
        "x.EDF",
        "notes.txt",
        "sub/a.CSV",
        "sub/deep/B.HEA",
        "sub/deep/c.MAT",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(path) for path in predict.find(["."])] == ["REC.HEA", "x.EDF"]
    assert "so 1 other file is left out" in capsys.readouterr().err
    predict.find(["sub/deep/.."])
    assert not capsys.readouterr().err
    (tmp_path / "sub/a.CSV").unlink()
    assert predict.find(["sub"]) == [Path("sub")]
    assert capsys.readouterr().err == "sub holds folders and no recordings; pass --recursive to search them\n"
    (tmp_path / "sub/a.CSV").write_text("")
    for left in ("sub/._a.CSV", "__MACOSX/sub/a.CSV"):  # by macOS
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("")
    found = [str(path) for path in predict.find([".", "-"], recursive=True)]
    assert found == ["REC.HEA", "x.EDF", "sub/a.CSV", "sub/deep/B.HEA", "sub/deep/c.MAT", "-"]


def test_a_record_is_classified_once_and_its_segments_not_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "r.hea": "r 1 300 9000\nr.dat 16\n",
        "m.hea": "m/2 1 300 9000\nm_layout 0\nm_1 9000\n",
        "m_layout.hea": "m_layout 1 300 0\n~ 0\n",
        "m_1.hea": "m_1 1 300 9000\nm_1.dat 16\n",
    }.items():
        Path(name).write_text(text)
    for name in ("r.dat", "m_1.dat"):
        Path(name).write_bytes(b"\0" * 18000)
    assert [str(path) for path in predict.find(["r.dat", "r.hea", "r"])] == ["r.dat"]
    assert [str(path) for path in predict.find(["."])] == ["m.hea", "r.hea"]


def test_links_that_lead_back_are_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop/a").mkdir(parents=True)
    for name in ("loop/x.edf", "loop/a/y.edf"):
        (tmp_path / name).write_text("")
    (tmp_path / "loop/up").symlink_to("..")
    (tmp_path / "loop/a/up").symlink_to("../..")
    (tmp_path / "loop/z.edf").symlink_to("x.edf")
    for pattern in ("loop/**/*.edf", "**/*.edf", f"{tmp_path}/**/*.edf", "**"):
        found = predict.find([pattern, "loop/x.edf"])
        assert {path.resolve() for path in found} == {(tmp_path / n).resolve() for n in ("loop/x.edf", "loop/a/y.edf")}
        assert len(found) == 2
    assert predict.find(["x" * 5000])  # whose reading will fail


def test_names_and_notes_of_strangers_are_harmless(capsys):
    row = {"class": "N", "uncertain": False, "probabilities": dict.fromkeys("NAO~", 0.25), "seconds": 9.0}
    rows = [row | {"file": "=a\x1b[31m\n\u202e.csv", "doubts": [], "notes": ["@note"]}, {"file": "-", "error": "+e"}]
    for show in (predict.print_table, predict.print_csv, predict.print_json):
        show(rows)
        out = capsys.readouterr().out
        assert not set(out) & set("\x1b\u202e") and len(out.splitlines()) in (3, *range(20, 40))
        if show == predict.print_csv:
            assert [each[:1] for each in out.splitlines()] == ["f", "'", "-"] and ",'@note," in out and ",'+e" in out
        if show == predict.print_json:
            assert json.loads(out)[0]["file"] == rows[0]["file"]
    assert predict.harmless("-") == "-" and predict.harmless("a=1") == "a=1"


def test_long_sentences_are_cut_in_the_middle():
    (row,) = answers.classify(["n" * 200], [], WANTED)
    assert len(row["error"]) <= 300 and " … " not in row["error"] and row["error"].endswith("name a recording")
    (row,) = answers.classify(["n" * 200 + "\n" * 200], [], WANTED)
    assert len(row["error"]) <= 300 and " … " in row["error"] and row["error"].endswith("name a recording")


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_names_that_the_terminal_cannot_show(script, tmp_path, form):
    """The answers are written all the same; JSON and CSV in UTF-8 whatever the terminal's encoding is."""
    for suffix in (".hea", ".mat"):
        shutil.copy(PROJECT / f"pretrained/example{suffix}", tmp_path / f"é{suffix}")
    header = tmp_path / "é.hea"
    header.write_text(header.read_text("latin-1").replace("example", "é"), "utf-8")
    name = os.fsencode(tmp_path) + b"/\xff.csv"
    with open(name, "wb"):
        pass
    process = script(tmp_path, "predict.py", ".", *form, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert process.returncode == 1 and "Traceback" not in process.stderr, process.stderr
    assert ("\\xe9.hea" if not form else "é.hea") in process.stdout


def test_the_answer_of_an_unfinished_model_says_so(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    saved = runs.load("models/improved.keras")
    card = saved.card._replace(scores=None, calibration=None, measured=None)  # as while the training goes on
    runs.save(saved.network, card, "models/begun.keras")
    for model, noted in (("models/begun.keras", True), ("models/improved.keras", False)):
        monkeypatch.setattr("sys.argv", ["predict.py", "set/A00001.hea", "--model", model, "--json"])
        assert predict.main() == 0
        notes = json.loads(capsys.readouterr().out)[0]["notes"]
        assert any("is not finished" in note for note in notes) == noted


def test_a_foreign_model_and_wrong_flags(script, refusal, tmp_path):
    (tmp_path / "foreign.keras").write_bytes(b"PK")
    process = script(tmp_path, "predict.py", "a.hea", "--model", "foreign.keras")
    assert "foreign.keras is not a model" in refusal(process, status=1)
    assert "name recordings" in refusal(script(tmp_path, "predict.py"))
    process = script(tmp_path, "predict.py", "--model", "one.keras", "two.keras", "a.hea")
    assert "before each" in refusal(process)


def test_the_shipped_model_gives_its_known_answer(script, tmp_path):
    process = script(tmp_path, "predict.py", "--check")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "recipe improved, SHA-256" in process.stdout and "ok" in process.stdout
    assert not [path for path in tmp_path.iterdir() if path.name[0] != "."]  # libraries keep theirs


@pytest.mark.slow
def test_folds_are_trained_once_and_pooled(trained, script, folder, tmp_path):
    table = pd.read_csv(trained / "data/split.csv")
    parts = table.split.replace("validation", "valid")
    rotated = parts.replace({"test": "valid", "valid": "test"})
    pd.DataFrame({"record": table.record, "fold0": parts, "fold1": rotated}).to_csv(tmp_path / "folds.csv", index=False)
    command = ("main.py", "--data", folder, *SMALL, "--epochs", "1", "--folds", "folds.csv", "--run", "cv")
    process = script(tmp_path, *command)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "figures/cv/folds.json").read_text())["folds"]
    assert [results[name]["recordings"] for name in ("fold0", "fold1", "pooled")] == [8, 8, 16]
    pooled = pd.read_csv(tmp_path / "figures/cv/fold_predictions.csv")
    assert set(pooled.record[pooled.fold == "fold1"]) == set(table.record[rotated == "test"])
    assert f"{results['pooled']['avg_F1_score']:.4f}" in process.stdout
    assert "trees alone, mean:" in process.stdout
    before = (tmp_path / "models/cv-fold0.keras").read_bytes()
    again = script(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "models/cv-fold0.keras").read_bytes() == before
    assert again.stdout == process.stdout
