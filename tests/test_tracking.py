"""Switches of Weights & Biases and of Keras that a user may have set."""

import json

import pytest

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
