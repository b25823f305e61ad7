"""A run as one thing: finished or not, locked while it is in work, and its model's card."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import zipfile

import pytest
from conftest import PROJECT

import runs
from recipes import RECIPES, Recipe
from shell import UserError

HOLDER = """
import sys, time, runs
with runs.Run("mine").lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_locked_run_is_refused_and_the_lock_of_a_dead_process_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=environment)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"the run mine is in work by process {holder.pid}; wait for it"):
        runs.Run("mine").lock().__enter__()
    with runs.Run("other").lock():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with runs.Run("mine").lock():
        pass
    assert not list((tmp_path / "models").iterdir())


def test_a_changed_recipe_has_a_name_of_its_own():
    assert Recipe().title == "paper" and RECIPES["improved"].title == "improved"
    changed = Recipe(weights="random", epochs=3, learning_rate=0.01)
    assert changed.title == "paper-epochs-3-learning-rate-0.01-weights-random"
    assert dataclasses.replace(RECIPES["improved"], seed=43).title == "improved-seed-43"
    assert Recipe(labels="my labels/v 4.csv").title == "paper-labels-my-labels-v-4.csv"


def test_only_a_training_with_scores_and_the_same_fingerprint_is_finished(monkeypatch):
    card = runs.Card(Recipe(), frozenset(), "mine", "", scores={"avg_F1_score": 0.5})
    monkeypatch.setattr(runs, "read_card", lambda path: card)
    assert runs.Run("any").finished("mine") == card
    assert runs.Run("any").finished("other") is None
    monkeypatch.setattr(runs, "read_card", lambda path: card._replace(scores=None))
    assert runs.Run("any").finished("mine") is None


def test_the_next_command_names_what_was_looked_at():
    assert runs.command("evaluation.py", "paper") == "python evaluation.py"
    assert runs.command("evaluation.py", "mine", data="a b") == "python evaluation.py --run mine --data 'a b'"
    assert runs.command("x.py", "ensemble", ["one.keras", "two.keras"]) == "python x.py --model one.keras"


def test_a_model_of_three_members_that_were_joined_otherwise_is_refused(tmp_path):
    path = tmp_path / "old.keras"
    card = json.loads(zipfile.ZipFile(PROJECT / "pretrained/improved.keras").read(runs.CARD))
    del card["recipe"]["trace"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(runs.CARD, json.dumps(card))
    with pytest.raises(UserError, match="of an earlier version, which joined its members otherwise; train it again"):
        runs.read_card(path)
