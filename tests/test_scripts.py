"""The scripts as a user runs them, in order, on a small synthetic set."""

import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest
from wandb_server import WandbServer

import gc_implementation
import scoring
from recipes import Recipe
from shell import UserError

pytestmark = pytest.mark.xdist_group("scripts")  # which share one run of main.py
FIGURES = ["class_distribution.png", "sequence_length_distribution.png", "example_recordings.png"]


@pytest.fixture(scope="module")
def trained(archive, script, tmp_path_factory):
    """A folder in which main.py has made a run, and the finished process."""
    cwd = tmp_path_factory.mktemp("project")
    process = script(cwd, "main.py", "--data", archive, "--weights", "random", "--epochs", "2", "--num-neurons", "8")
    assert process.returncode == 0, process.stderr
    return cwd, process


def test_main_leaves_what_it_promises(trained):
    cwd, process = trained
    for path in [*(f"figures/{name}" for name in FIGURES), "figures/paper/training_f1.png"]:
        assert cv2.imread(str(cwd / path)).std() > 5, path
    table = pd.read_csv(cwd / "models/paper.csv")
    assert list(table.epoch) == [1, 2]
    assert {"loss", "val_loss", "F1_0", "F1_1", "F1_2", "F1_3", "avg_F1_score", "challenge_F1"} < set(table)
    split = pd.read_csv(cwd / "data/split.csv")
    assert split.split.value_counts().to_dict() == {"train": 24, "validation": 8, "test": 8}
    settings = json.loads((cwd / "models/paper.json").read_text())
    assert settings["recipe"]["epochs"] == 2 and settings["data"].endswith("training2017.zip")
    assert "next: python evaluation.py" in process.stdout.splitlines()[-1]
    assert f"{table.avg_F1_score.max():.4f}" in process.stdout
    assert not [path for path in cwd.rglob(".*") if path.is_file()]


def test_the_same_seed_gives_the_same_run_and_weights_and_biases_gets_it(trained, archive, script):
    cwd, _ = trained
    before = [(cwd / path).read_bytes() for path in ("models/paper.csv", "data/split.csv")]
    with WandbServer() as server:
        process = script(
            cwd,
            "main.py",
            "--data",
            archive,
            "--weights",
            "random",
            "--epochs",
            "2",
            "--num-neurons",
            "8",
            "--run",
            "again",
            **server.env,
        )
        assert process.returncode == 0, process.stderr
    assert [(cwd / path).read_bytes() for path in ("models/again.csv", "data/split.csv")] == before
    (record,) = server.runs.values()
    assert record["exit_code"] == 0 and record["config"]["num_neurons"] == 8
    table = pd.read_csv(cwd / "models/again.csv")
    assert [row["avg_F1_score"] for row in record["history"]] == pytest.approx(list(table.avg_F1_score))
    images = [row["epoch"] for row in record["history"] if "confusion_matrix" in row]
    assert images == list(table.epoch[table.avg_F1_score > table.avg_F1_score.cummax().shift(fill_value=-1)])
    assert len([name for name in record["files"] if name.endswith(".png")]) == len(images)


@pytest.fixture(scope="module")
def evaluation(trained, script):
    """The finished process of evaluation.py on that run."""
    process = script(trained[0], "evaluation.py")
    assert process.returncode == 0, process.stderr
    return process


def test_evaluation_and_gradcam_follow_without_flags(trained, evaluation, script):
    cwd, _ = trained
    for name in ("class_f1_scores", "overall_metrics", "multi_class_roc", "test_confusion_matrix"):
        assert cv2.imread(str(cwd / f"figures/paper/{name}.png")).std() > 5, name
    predictions = pd.read_csv(cwd / "figures/paper/predictions.csv")
    split = pd.read_csv(cwd / "data/split.csv")
    assert list(predictions.record) == list(split.record[split.split == "test"])
    probabilities = predictions.filter(like="probability_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-4)
    metrics = json.loads((cwd / "figures/paper/metrics.json").read_text())
    matrix = scoring.confusion_matrix(predictions.label.map("ANO~".index), probabilities.argmax(1))
    assert metrics["confusion_matrix"] == matrix.tolist()
    assert metrics["avg_F1_score"] == pytest.approx(scoring.average_f1(matrix))
    assert f"{metrics['challenge_F1']:.4f}" in evaluation.stdout

    process = script(cwd, "gc_implementation.py")
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(cwd / "figures/paper/gradcam.csv")
    assert list(table.label) == ["A", "N", "O", "~"]
    first = predictions.drop_duplicates("label").set_index("label").record
    assert list(table.record) == [first[label] for label in table.label]
    assert table.heat_on_padding.between(0, 1).all()
    for name in ("A", "N", "O", "noise"):
        assert cv2.imread(str(cwd / f"figures/paper/gradcam_{name}.png")).std() > 5


def test_an_ensemble_averages(trained, evaluation, script):
    cwd, _ = trained
    process = script(cwd, "evaluation.py", "--model", "models/paper.keras", "models/paper.keras")
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("next: python gc_implementation.py --model models/paper.keras\n")
    one, two = (pd.read_csv(cwd / f"figures/{name}/predictions.csv") for name in ("paper", "ensemble"))
    pd.testing.assert_frame_equal(one, two, atol=2e-6)


def test_share_of_heat_on_padding():
    recipe = Recipe()
    heat = np.ones((76, 239))
    assert gc_implementation.share_on_padding(heat, 60, recipe) == 0
    # Frames begin every 0.25 s; those from 30 s on are 119 of the 239.
    assert gc_implementation.share_on_padding(heat, 30, recipe) == pytest.approx(119 / 239)
    heat[:, 120:] = 0
    assert gc_implementation.share_on_padding(heat, 30, recipe) == 0
    assert gc_implementation.share_on_padding(np.zeros((76, 239)), 30, recipe) == 0


def test_gradcam_finds_the_pixels_that_decide():
    from model import keras

    shape = (8, 12)
    given = keras.Input(shape)
    maps = keras.layers.Reshape((*shape, 1))(given)
    maps = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="maps")(maps)
    features = keras.layers.GlobalAveragePooling2D(name="features")(maps)
    # A logit of 1000 saturates the softmax, whose gradient is then exactly zero.
    logits = keras.layers.Dense(
        4, name="logits", use_bias=False, kernel_initializer=keras.initializers.Constant([[5000.0, 0, 0, 0]])
    )(features)
    network = keras.Model(given, keras.layers.Softmax(name="probabilities")(logits))
    image = np.zeros(shape, np.float32)
    image[2:4, 5:7] = 10
    assert network.predict(image[None], verbose=0)[0, 0] == 1
    heat = gc_implementation.explain(network, image, 0)
    np.testing.assert_allclose(heat, image / 10, atol=1e-6)
    heat = gc_implementation.explain(network, np.zeros(shape, np.float32), 0)
    assert not heat.any() and np.isfinite(heat).all()


@pytest.mark.parametrize("name", ["main.py", "evaluation.py", "gc_implementation.py"])
def test_help_and_wrong_flags(script, tmp_path, name):
    process = script(tmp_path, name, "--help")
    assert (process.returncode == 0 and "--wandb" in process.stdout) or name != "main.py"
    process = script(tmp_path, name, "--no-such-flag")
    assert process.returncode == 2 and "--no-such-flag" in process.stderr and process.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data", "missing.zip"], ["missing.zip", "does not exist"]),
        (["--labels", "missing.csv"], ["missing.csv is neither reference, original, v3"]),
        (["--wandb", "online"], ["wandb login"]),
        (["--weights", "imagenet"], ["ImageNet weights cannot be downloaded", "--weights"]),
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


def test_gradcam_of_a_record_that_is_not_in_the_test_part():
    table = pd.DataFrame({"record": ["A1", "A2", "A3"], "label": ["N", "~", "N"]})
    assert {name: row.record for name, row in gc_implementation.choose(table, None).items()} == {
        "N": "A1",
        "noise": "A2",
    }
    assert list(gc_implementation.choose(table, ["A3"])) == ["A3"]
    with pytest.raises(UserError, match="B00001 is not among the recordings"):
        gc_implementation.choose(table, ["B00001"])
