"""The scripts as a user runs them, in order, on a small synthetic set."""

import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest

import gc_implementation
import heatmaps
import runs
import scoring
import synthetic
from recipes import Recipe
from shell import UserError

FIGURES = ["class_distribution.png", "sequence_length_distribution.png", "example_recordings.png"]


@pytest.fixture(scope="module", params=["vgg16", pytest.param("inception_resnet_v2", marks=pytest.mark.slow)])
def trained(request, script, tmp_path_factory):
    """A folder in which main.py has made the report's run with random weights, and the finished process."""
    cwd = tmp_path_factory.mktemp("project")
    synthetic.write_dataset(cwd / "training2017", count=20, seed=1)  # the fewest of which each split has every class
    settings = ("--weights", "random", "--backbone", request.param, "--epochs", "2", "--num-neurons", "8")
    settings = (*settings, "--run", "paper")
    process = script(cwd, "main.py", "--data", "training2017", *settings)
    assert process.returncode == 0, process.stderr
    return cwd, process


def is_drawn(path):
    """Whether a file is a picture; what is drawn in it, test_plotting.py inspects."""
    picture = cv2.imread(str(path))
    return picture is not None and min(picture.shape[:2]) > 300


def test_main_leaves_what_it_promises(trained):
    cwd, process = trained
    for path in [*(f"figures/{name}" for name in FIGURES), "figures/paper/training_f1.png"]:
        assert is_drawn(cwd / path), path
    table = pd.read_csv(cwd / "models/paper.csv")
    assert list(table.epoch) == [1, 2]
    assert {"loss", "val_loss", "F1_0", "F1_1", "F1_2", "F1_3", "avg_F1_score", "challenge_F1"} < set(table)
    split = pd.read_csv(cwd / "data/split.csv")
    assert split.split.value_counts().to_dict() == {"train": 12, "validation": 4, "test": 4}
    card = runs.read_card(cwd / "models/paper.keras")
    assert card.recipe.epochs == 2 and card.data == "training2017" and card.calibration is None
    assert card.seen == set(split.record[split.split != "test"])
    assert pd.DataFrame(card.history).avg_F1_score.to_list() == pytest.approx(table.avg_F1_score.to_list())
    assert card.scores["avg_F1_score"] == pytest.approx(table.avg_F1_score.max())
    assert "next: python evaluation.py" in process.stdout.splitlines()[-1]
    assert f"{table.avg_F1_score.max():.4f}" in process.stdout
    assert "calibrated" not in process.stdout + process.stderr
    assert sorted(path.name for path in (cwd / "models").iterdir()) == ["paper.csv", "paper.keras"]
    assert not [path for path in cwd.rglob(".*") if path.is_file()]


def test_evaluation_follows_without_flags(trained, script):
    cwd, _ = trained
    process = script(cwd, "evaluation.py")
    assert process.returncode == 0, process.stderr
    for name in ("class_f1_scores", "overall_metrics", "multi_class_roc", "test_confusion_matrix"):
        assert is_drawn(cwd / f"figures/paper/{name}.png"), name
    predictions = pd.read_csv(cwd / "figures/paper/predictions.csv")
    split = pd.read_csv(cwd / "data/split.csv")
    assert list(predictions.record) == list(split.record[split.split == "test"])
    probabilities = predictions.filter(like="probability_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)
    metrics = json.loads((cwd / "figures/paper/metrics.json").read_text())
    matrix = scoring.confusion_matrix(predictions.label.map("ANO~".index), probabilities.argmax(1))
    assert metrics["confusion_matrix"] == matrix.tolist()
    assert metrics["avg_F1_score"] == pytest.approx(scoring.average_f1(matrix))
    assert f"{metrics['challenge_F1']:.4f}" in process.stdout


@pytest.mark.slow
def test_gradcam_follows_without_flags(trained, script):
    cwd, _ = trained
    process = script(cwd, "gc_implementation.py")
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(cwd / "figures/paper/gradcam.csv")
    assert list(table.label) == ["A", "N", "O", "~"]
    split = pd.read_csv(cwd / "data/split.csv")
    assert set(table.record) == set(split.record[split.split == "test"])
    assert table.heat_on_padding.between(0, 1).all()
    for name in ("A", "N", "O", "noise"):
        assert is_drawn(cwd / f"figures/paper/gradcam_{name}.png")


def test_share_of_heat_on_padding():
    recipe = Recipe()
    heat = np.ones((76, 239))
    assert heatmaps.share_on_padding(heat, 60, recipe) == 0
    # Frames begin every 0.25 s; those from 30 s on are 119 of the 239.
    assert heatmaps.share_on_padding(heat, 30, recipe) == pytest.approx(119 / 239)
    heat[:, 120:] = 0
    assert heatmaps.share_on_padding(heat, 30, recipe) == 0
    assert heatmaps.share_on_padding(np.zeros((76, 239)), 30, recipe) == 0


@pytest.mark.parametrize("name", ["main.py", "evaluation.py", "gc_implementation.py", "sweeping.py"])
def test_help_and_wrong_flags(script, tmp_path, name):
    process = script(tmp_path, name, "--help")
    assert process.returncode == 0 and "--data" in process.stdout and not process.stderr
    process = script(tmp_path, name, "--no-such-flag")
    assert process.returncode == 2 and "--no-such-flag" in process.stderr and process.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data", "missing.zip"], ["missing.zip", "does not exist"]),
        (["--labels", "missing.csv"], ["missing.csv is neither reference, original, v3"]),
        (["--wandb", "online"], ["wandb login"]),
        (["--backbone", "vgg16"], ["ImageNet weights cannot be obtained", "URL fetch failure", "--weights"]),
    ],
)
def test_main_refuses_in_one_sentence(script, refusal, archive, tmp_path, arguments, words):
    given = [] if "--data" in arguments else ["--data", archive]
    sentence = refusal(script(tmp_path, "main.py", *given, *arguments))
    assert all(word in sentence for word in words), sentence
    assert not list(tmp_path.glob("models/*"))


def test_no_data_and_no_network(script, refusal, tmp_path):
    assert "no connection" in refusal(script(tmp_path, "main.py", "--weights", "random"))
    assert not list(tmp_path.glob("data/*"))


def test_an_output_folder_that_cannot_be_written(script, refusal, archive, tmp_path):
    (tmp_path / "models").write_text("a file in the way")
    assert "models" in refusal(script(tmp_path, "main.py", "--data", archive))


@pytest.mark.parametrize("name", ["evaluation.py", "gc_implementation.py"])
def test_a_missing_or_foreign_model(script, refusal, tmp_path, name):
    assert "models/paper.keras does not exist" in refusal(script(tmp_path, name))
    (tmp_path / "foreign.keras").write_bytes(os.urandom(100))
    assert "foreign.keras is not a model" in refusal(script(tmp_path, name, "--model", "foreign.keras"))


def test_gradcam_of_a_record_that_is_not_in_the_test_split():
    table = pd.DataFrame({"record": ["A1", "A2", "A3"], "label": ["N", "~", "N"]})
    assert {name: row.record for name, row in gc_implementation.choose(table, None).items()} == {
        "N": "A1",
        "noise": "A2",
    }
    assert list(gc_implementation.choose(table, ["A3"])) == ["A3"]
    with pytest.raises(UserError, match="B00001 is not among the recordings"):
        gc_implementation.choose(table, ["B00001"])
