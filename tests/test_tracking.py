"""Switches of Weights & Biases and of Keras that a user may have set."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import wandb
from test_benchmark import random_predictions
from wandb_server import WandbServer

import benchmark
import evaluation
import tracking


@pytest.mark.parametrize(
    ("variable", "value", "mode"),
    [
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "offline", "offline"),
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_DISABLED", "true", "disabled"),
    ],
)
def test_the_variables_of_wandb_win_in_auto(monkeypatch, capsys, variable, value, mode):
    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv(variable, value)
    started = []
    monkeypatch.setattr(tracking, "start_offline", lambda *given: started.append(given) or "offline run")
    assert tracking.start("auto", "name", {}) == ("offline run" if mode == "offline" else None)
    assert len(started) == (mode == "offline")
    assert f"{mode}, by {variable}" in capsys.readouterr().err
    assert f"{mode}, by {variable}" in tracking.obstacle()


def test_a_disabled_wandb_keeps_no_offline_runs(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.start_offline("name", {}, None) is None


def test_a_backend_that_is_not_installed_is_one_sentence(script, refusal, tmp_path, archive):
    process = script(tmp_path, "main.py", "--data", archive, "--weights", "random", KERAS_BACKEND="no_such")
    assert "KERAS_BACKEND" in refusal(process) and "no_such" in process.stderr


def test_the_order_of_axes_in_keras_settings_changes_nothing(script, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text(json.dumps({"image_data_format": "channels_first"}))
    process = script(tmp_path, "predict.py", "--check", KERAS_HOME=str(tmp_path / ".keras"))
    assert process.returncode == 0, process.stderr


def hand_over(folder):
    """Track an evaluation of random answers; its metrics."""
    rows = random_predictions()
    (folder / "figures").mkdir()
    cv2.imwrite(str(folder / "figures/one.png"), np.zeros((40, 40, 3), np.uint8))
    (folder / "model.keras").write_bytes(b"weights")
    tracker = tracking.start("online" if tracking.logged_in() else "offline", "mine-evaluation", {"code": "abc"})
    metrics = evaluation.measure(rows, {"labels": "reference", "protocol": "", "models": []})
    hardest = benchmark.hardest(rows, 50)
    signals = {record: (np.arange(3000, dtype=np.int16), 300) for record in hardest.record}
    tracking.log_evaluation(tracker, metrics, hardest, signals, [folder / "figures/one.png"])
    tracking.log_model(tracker, folder / "model.keras", "mine", {"recordings_fingerprint": "f00"})
    tracker.finish()
    wandb.teardown()  # which else stays in the folder of the first run of this process
    return metrics


@pytest.mark.slow
def test_an_evaluation_is_a_run_with_scores_hardest_recordings_figures_and_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with WandbServer() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        metrics = hand_over(tmp_path)
    (record,) = server.runs.values()
    (artifact,) = (each for each in server.artifacts.values() if each["type"] == "model")
    assert record["exit_code"] == 0 and record["config"]["code"] == "abc" and server.unknown == []
    low, high = metrics["challenge_F1_interval"]
    shown = [record["summary"][name] for name in ("challenge_F1", "challenge_F1_low", "challenge_F1_high", "F1_2")]
    assert shown == pytest.approx([metrics["challenge_F1"], low, high, metrics["F1"]["O"]])
    table = record["history"][-1]["hardest"]
    assert (table["nrows"], table["ncols"]) == (50, 8)
    assert artifact["name"] == "mine" and artifact["committed"] and artifact["files"] == {"model.keras"}
    digest = hashlib.sha256(b"weights").hexdigest()
    assert artifact["metadata"] == {"recordings_fingerprint": "f00", "sha256": digest}
    assert any(name.startswith("media/images/one") for name in record["files"])


@pytest.mark.slow
def test_an_evaluation_offline_is_kept_for_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"WANDB_API_KEY": "", "NETRC": "none", "WANDB_DATA_DIR": str(tmp_path / "staged")}.items():
        monkeypatch.setenv(name, value)
    hand_over(tmp_path)
    (kept,) = tmp_path.glob("wandb/offline-run-*")
    (table,) = kept.rglob("hardest*.json")
    assert list(kept.glob("*.wandb")) and list(kept.rglob("one*.png"))
    assert len(json.loads(table.read_text())["data"]) == 50
    staged = [path.read_bytes() for path in (tmp_path / "staged").rglob("*") if path.is_file()]
    assert b"weights" in staged
