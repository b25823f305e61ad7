"""The sweep: its search space, the local engine, and Weights & Biases through its real client on a loopback server."""

import contextlib
import functools
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import cv2
import numpy as np
import optuna
import pandas as pd
import pytest
import scipy.io
import sqlalchemy
import yaml
from conftest import PROJECT
from optuna.trial import TrialState
from sklearn.ensemble import RandomForestRegressor
from wandb_server import WandbServer

import dataset
import spaces
import studies
import sweeping
import training
from recipes import RECIPES, Recipe
from scoring import SCORES
from shell import UserError, run_script

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage")
SPACE = yaml.safe_load((PROJECT / "sweep.yaml").read_text())["parameters"]


def regret(settings):
    """How far `settings` lie from the best of a smooth objective over the report's five parameters, 0 at best."""
    neurons = [128, 256, 512, 1024].index(settings["num_neurons"])
    return (
        0.3 * abs(np.log(settings["learning_rate"] / 0.003)) / np.log(30)
        + 0.15 * abs(neurons - 2)
        + {"sigmoid": 0, "tanh": 0.1, "relu": 0.2}[settings["activation"]]
        + {"adam": 0, "rmsprop": 0.05, "sgd": 0.4}[settings["optimizer"]]
        + (0.05 if settings["batch_size"] == 32 else 0)
    )


@pytest.fixture(scope="module")
def replay():
    """A function that searches, as a sweep does, where a random forest of real trials tells F1 after each epoch."""
    table = pd.read_csv(PROJECT / "tests/data/random_trials.csv", comment="#")
    searched = [name for name in SPACE if name != "epochs"]
    inputs = pd.get_dummies(table[searched], dtype=float)
    best_so_far = np.maximum.accumulate(table.filter(like="epoch_").to_numpy(), axis=1)
    forest = RandomForestRegressor(30, random_state=0).fit(inputs.to_numpy(), best_so_far)
    trees = [each.tree_ for each in forest.estimators_]

    def curve(settings):
        choices = settings | {f"{name}_{value}": 1 for name, value in settings.items()}
        row = np.array([[choices.get(column, 0) for column in inputs]], np.float32)
        return np.mean([tree.predict(row)[0, :, 0] for tree in trees], axis=0)

    rng = np.random.default_rng(0)
    draws = {name: space.get("values", [space.get("min"), space.get("max")]) for name, space in SPACE.items()}
    anywhere = pd.DataFrame(
        {
            name: rng.choice(draws[name], 20_000) if "values" in SPACE[name] else rng.uniform(*draws[name], 20_000)
            for name in searched
        }
    )
    anywhere = pd.get_dummies(anywhere, dtype=float).reindex(columns=inputs.columns)
    top = forest.predict(anywhere.to_numpy())[:, -1].max()

    def search(method, seed, epochs, rule):
        study = optuna.create_study(
            sampler=studies.sampler(method, seed), pruner=studies.pruner(rule), direction="maximize"
        )
        best = []
        while len(best) < epochs:
            trial = study.ask()
            values = curve(spaces.suggest(trial, SPACE))
            for epoch, value in enumerate(values, 1):
                best.append(max([value, *best[-1:]]))
                if studies._report(trial, np.inf, epoch, value):
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, value)
        return best[:epochs]

    def regret(method, epochs, rule=None):
        """(epochs,): how far the best trial so far lies below the best that there is, the mean of 8 searches."""
        return top - np.mean([search(method, seed, epochs, rule) for seed in range(8)], axis=0)

    return regret


def test_the_search_is_better_than_chance_and_better_still_where_it_stops_trials(replay):
    chance, bayes = replay("random", 400), replay("bayes", 400)
    halving = replay("bayes", 200, {"type": "hyperband", "min_iter": 3, "eta": 3})
    assert bayes[399] <= chance[399] / 2, (bayes[399], chance[399])
    assert halving[199] <= chance[199] / 2, (halving[199], chance[199])
    assert halving[199] <= 0.7 * bayes[199], (halving[199], bayes[199])


def test_all_sweep_files_are_valid_and_the_first_is_the_reports():
    log = spaces.read(PROJECT / "sweep-log.yaml", Recipe())
    assert log["parameters"]["learning_rate"]["distribution"] == "log_uniform_values"
    improved = RECIPES["improved"]
    for name, kind in {"improved": "network", "trees": "trees"}.items():
        config = spaces.read(PROJECT / f"sweep-{name}.yaml", improved)
        assert spaces.kind(config, improved) == kind and f"sweep-{name}.yaml" in config["command"]
    with pytest.raises(UserError, match="trees, which the recipe paper does not have; pass --recipe improved"):
        spaces.read(PROJECT / "sweep-trees.yaml", Recipe())
    assert spaces.kind({"parameters": SPACE}, Recipe()) == "head"
    assert spaces.kind({"parameters": SPACE | {"nperseg": {"values": [64, 128]}}}, Recipe()) == "network"
    config = spaces.read(PROJECT / "sweep.yaml", Recipe())
    assert config["method"] == "bayes" and config["metric"] == {"name": "avg_F1_score", "goal": "maximize"}
    assert config["parameters"] == {
        "num_neurons": {"values": [128, 256, 512, 1024]},
        "activation": {"values": ["relu", "tanh", "sigmoid"]},
        "optimizer": {"values": ["adam", "sgd", "rmsprop"]},
        "batch_size": {"values": [16, 32]},
        "learning_rate": {"distribution": "uniform", "min": 0.0001, "max": 0.01},
        "epochs": {"value": 10},
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ("method: bayes -> method: hyperband", "method is 'hyperband'"),
        ("goal: maximize -> goal: minimize", "metric is"),
        ("goal: maximize -> goal: maximize\n  target: 0.9", "metric is .*'target': 0.9"),
        ("name: avg_F1_score -> name: val_accuracy", "metric is"),
        ("  num_neurons: ->   neurons:", "parameters.neurons is not a setting"),
        ("  num_neurons: ->   vote_stretch:", "parameters.vote_stretch is not a setting"),
        ("  num_neurons: ->   1:", "parameters.1 is not a setting"),
        ("  num_neurons: ->   2020-02-02:", "parameters.2020-02-02 is not a setting"),
        ("  learning_rate: ->   trees_rate:", "parameters of the trees and of the network"),
        ("max: 0.01 -> max: 2020-02-02", "parameters.learning_rate .* must be float, not datetime.date"),
        ("method: bayes -> method: !!python/name:os.system", "cannot read .* has the tag tag:yaml.org"),
        ("method: bayes -> method: &a bayes\nname: *a", r"cannot read .* line 6 has the alias \*a"),
        (
            "goal: maximize -> goal: maximize\nearly_terminate: {type: hyperband}",
            "early_terminate is .* a key is missing",
        ),
        (
            "goal: maximize -> goal: maximize\nearly_terminate: {type: hyperband, min_iter: 3, eta: 1}",
            "early_terminate is .* eta must be a whole number",
        ),
        (
            "goal: maximize -> goal: maximize\nearly_terminate: {type: envelope, min_iter: 3}",
            "early_terminate is .* expected type: hyperband",
        ),
        ("[relu, tanh, sigmoid] -> [relu, gelu]", "parameters.activation .* not 'gelu'"),
        ("[16, 32] -> [16, 0]", r"parameters.batch_size .* must be within \[1, 100000\], not 0"),
        ("[16, 32] -> []", "parameters.batch_size .* must contain one or more elements"),
        ("values: [16, 32] -> values: 16", "parameters.batch_size is {'values': 16}; expected value, values, or min"),
        ("\n    values: [16, 32] ->  16", "parameters.batch_size is 16; expected value, values, or min"),
        ("max: 0.01 -> max: 1" + 400 * "0", "parameters.learning_rate .* too large to convert to float"),
        ("max: 0.01 -> max: 0.00001", "parameters.learning_rate .* must hold, but got .low=0.0001, high=1e-05"),
        ("min: 0.0001 -> min: 1e-4", "parameters.learning_rate .* must be float, not '1e-4'"),
        ("distribution: uniform -> distribution: normal", "parameters.learning_rate .* unknown keys or distribution"),
        ("distribution: uniform -> q: 0.001", "parameters.learning_rate .* unknown keys or distribution"),
        ("uniform -> int_uniform", "parameters.learning_rate .* unknown keys or distribution"),
        (
            "learning_rate:\n    distribution: uniform\n    min: 0.0001 -> "
            "dropout:\n    distribution: log_uniform_values\n    min: 0",
            "parameters.dropout .* must hold for `log=True`",
        ),
        (
            "values: [128, 256, 512, 1024] -> {distribution: uniform, min: 5, max: 9}",
            "parameters.num_neurons .* int_uniform .* num_neurons must be int, not",
        ),
        (
            "value: 10 -> value: 10\n  warm_up: {value: 0.1}",
            "these parameters, with the recipe, cannot be used: warm_up belongs to --schedule cosine",
        ),
        (
            "value: 10 -> value: 10\n  trace: {values: [false, true]}",
            "sweep.yaml: trace True cannot be used: trace is for the compact",
        ),
        (
            "value: 10 -> value: 10\n  seconds: {min: 60, max: 600}\n  noverlap: {min: 75, max: 149}",
            "seconds 600 and noverlap 149 cannot be used: its images would",
        ),
        ("name: ecg-f1 -> early: yes", "unknown key 'early'"),
        ("name: ecg-f1 -> run_cap: 3", "unknown key 'run_cap'"),
        ("parameters: -> parameters: []\nprogram:", "parameters is missing or empty"),
        ("method: bayes -> method: [", "cannot read .* as YAML"),
    ],
)
def test_a_wrong_config_names_the_key(tmp_path, change, message):
    old, new = change.split(" -> ")
    text = (PROJECT / "sweep.yaml").read_text()
    assert old in text
    (tmp_path / "sweep.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        spaces.read(tmp_path / "sweep.yaml", Recipe())


def test_an_unreadable_config(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        spaces.read(tmp_path / "nowhere.yaml", Recipe())
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="is not a sweep"):
        spaces.read(tmp_path / "list.yaml", Recipe())
    only = {"epochs": {"value": 10}, "optimizer": {"value": "adam"}}
    config = {"method": "bayes", "metric": {"name": "F1_0", "goal": "maximize"}, "parameters": only}
    with pytest.raises(UserError, match="nothing to search"):
        spaces.check(config, "sweep", Recipe())


@pytest.mark.parametrize(
    "text, words",
    [
        ("method: " + 500 * "[" + 500 * "]", "nested more than 12 levels"),
        ("a: &a [x]\n" + "".join(f"{c}: &{c} [{9 * f'*{p},'}]\n" for p, c in itertools.pairwise("abcdefghi")), "alias"),
        ("method: bayes\n" + 100_000 * "#", "larger than 64 KiB"),
        ("metric: " + 60_000 * "x", "method is None"),
        ("method: bayes\nmetric: " + 60_000 * "x", "metric is 'x"),
        ("? [a, b]\n: 1", "unhashable key"),
        ("null: 1", "unknown key None"),
        ("method: !!python/object/apply:os.getcwd []", "has the tag"),
        ("\0", "unacceptable character"),
    ],
)
def test_a_config_is_refused_in_a_sentence_whoever_wrote_it(tmp_path, text, words):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as refused:
        spaces.read(tmp_path / "sweep.yaml", Recipe())
    assert len(str(refused.value)) < 500


def test_early_termination_has_the_brackets_of_wandb():
    assert spaces.halving({"type": "hyperband", "min_iter": 3}) == (3, 3, np.inf)
    assert spaces.halving({"type": "hyperband", "max_iter": 27, "s": 2, "strict": True}) == (3, 3, 27)
    assert spaces.halving({"type": "hyperband", "max_iter": 100, "s": 2}) == (11, 3, 99)
    assert spaces.halving({"type": "hyperband", "max_iter": 5, "s": 9, "eta": 2}) == (1, 2, 4)


def test_the_settings_of_the_head_and_the_training_can_be_searched():
    parameters = {
        "warm_up": {"values": [0.1, 0]},  # which a schedule further down allows
        "schedule": {"value": "cosine"},
        "dropout": {"min": 0, "max": 0.5},
        "epochs": {"min": 2, "max": 5, "distribution": "int_uniform"},
        "weight_decay": {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform_values"},
    }
    metric = {"name": "challenge_F1", "goal": "maximize"}
    spaces.check({"method": "random", "metric": metric, "parameters": parameters}, "sweep", Recipe())
    assert not {"labels", "seed", "weights", "members", "calibrate"} & set(spaces.TUNABLE)


def test_a_busy_or_refused_database_is_one_sentence(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/busy.db"

    def refused(match):
        stack = contextlib.ExitStack()
        stack.enter_context(pytest.raises(UserError, match=match))
        stack.enter_context(studies.serving(url))
        return stack

    studies.open_study(url, "test")
    monkeypatch.setattr(studies, "BUSY", 0.2)
    with sqlite3.connect(tmp_path / "busy.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with refused("does not serve: database is locked"):
            studies.open_study(url, "another")
        other.rollback()
    with refused("does not serve"):
        studies.open_study("postgresql://nobody@127.0.0.1:9/none", "test")
    sentence = "does not serve .PostgreSQL needs pip install .psycopg.*: .*absent"
    with pytest.raises(UserError, match=sentence), studies.serving("postgresql+absent://x"):
        studies.open_study("postgresql+absent://x", "test")
    with refused("unable to open"):
        studies.open_study(f"sqlite:///{tmp_path}/no/folder.db", "test")
    with sqlite3.connect(tmp_path / "busy.db") as full:
        pages = full.execute("PRAGMA page_count").fetchone()[0]

    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
    def fill(connection, _):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    try:
        with refused("full"):
            study = studies.open_study(url, "test")
            for number in range(200):
                study.set_user_attr(f"filler {number}", "x" * 5000)
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", fill)


@pytest.mark.parametrize("kind", ["IntegrityError", "ProgrammingError", "OperationalError"])
def test_a_database_that_another_process_creates_at_the_same_moment(tmp_path, monkeypatch, kind):
    refusals = [getattr(sqlalchemy.exc, kind)("CREATE", {}, Exception("table x already exists"))]
    connect = optuna.storages.RDBStorage.__init__

    def refuse_first(*arguments, **options):
        if refusals:
            raise refusals.pop()
        connect(*arguments, **options)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", refuse_first)
    monkeypatch.setattr(studies.time, "sleep", lambda _: None)
    assert studies.open_study(f"sqlite:///{tmp_path}/new.db", "test").study_name == "test"
    assert not refusals


def test_the_fingerprint_tells_apart_what_the_features_are_of(archive, folder, tmp_path, monkeypatch):
    import training

    def fingerprint(data=archive, **settings):
        config = spaces.read(PROJECT / "sweep.yaml", Recipe())
        return sweeping.prepare(Recipe(**settings), data, config, 1)[1]["features"]

    def written(name, content):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "prepare", lambda table, recipe: training.Prepared(*7 * [None]))
    first = fingerprint()
    table = pd.read_csv("data/split.csv")
    record = table.record[table.split == "train"].iloc[0]
    labels = (folder / "REFERENCE.csv").read_text()
    line = next(line for line in labels.split() if line.startswith(record))
    relabelled = labels.replace(line, f"{record},{'O' if line.endswith('N') else 'N'}")
    shutil.copytree(folder, "changed")
    signal = scipy.io.loadmat(f"changed/{record}.mat")["val"]
    scipy.io.savemat(f"changed/{record}.mat", {"val": signal + np.int16(1)})

    assert fingerprint(folder, labels=written("same.csv", labels.encode())) == first
    weights = fingerprint(weights=written("a.h5", b"a"))
    assert fingerprint(weights=written("renamed.h5", b"a")) == weights
    others = [
        fingerprint(labels=written("other.csv", relabelled.encode())),
        fingerprint(tmp_path / "changed"),
        fingerprint(seed=1),
        fingerprint(backbone="vgg16"),
        fingerprint(weights="random"),
        fingerprint(weights=written("a.h5", b"b")),
    ]
    assert len({first, weights, *others}) == 8


# ── Local sweeps in this process, with trials that take no time ─────────────────────────────────────────────────────


def in_this_process(target, jobs, *_):
    for job in jobs:
        target(*job)


@pytest.fixture
def quick_sweep(tmp_path, monkeypatch):
    """A function that makes or continues a local sweep and returns its rows."""
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    monkeypatch.setattr(sweeping.tracking, "start_offline", lambda *_: None)
    monkeypatch.setattr(studies, "in_processes", in_this_process)
    config = spaces.read(PROJECT / "sweep.yaml", Recipe())

    def scores(number, settings, report):
        return {f"best_{score}": 1 - regret(settings) for score in SCORES}

    def run(name, count, seed=42, trial=scores, features="of the features", **changes):
        made_with = {"features": features}
        url = f"sqlite:///sweeps/{name}.db"
        return studies.sweep(url, name, made_with, config | changes, count, 1, seed, trial, False, "")

    return run


def test_one_seed_makes_one_sweep_and_more_trials_leave_it_as_it_is(quick_sweep):
    largest = 2**32 - 1
    rows = quick_sweep("a", 3, largest)
    assert [row["trial"] for row in rows] == [0, 1, 2] and {row["state"] for row in rows} == {"complete"}
    assert quick_sweep("b", 3, largest) == rows
    assert quick_sweep("c", 1, 1)[0]["learning_rate"] != rows[0]["learning_rate"]
    more = quick_sweep("a", 5, largest)
    assert more[:3] == rows and len({row["learning_rate"] for row in more}) == 5
    assert quick_sweep("a", 2, largest) == more


def test_a_sweep_is_not_continued_with_other_parameters_data_or_weights(quick_sweep):
    quick_sweep("a", 1)
    parameters = spaces.read(PROJECT / "sweep.yaml", Recipe())["parameters"]
    for change, words in (
        ({"features": "of others"}, "recordings, labels, split or fixed settings"),
        ({"metric": {"name": "F1_0", "goal": "maximize"}}, "metric"),
        ({"parameters": parameters | {"epochs": {"value": 3}}}, "parameters"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3}, "features": "x"}, "early_terminate and recordings"),
    ):
        with pytest.raises(UserError, match=f"made with other {words}.*; pass another --run"):
            quick_sweep("a", 2, **change)
    assert len(quick_sweep("a", 2)) == 2


def test_a_sweep_goes_on_once_the_disk_that_was_full_has_room(quick_sweep, capsys):
    before = quick_sweep("a", 2)
    with sqlite3.connect("sweeps/a.db") as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0] + 2

    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
    def fill(connection, _):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    try:
        with pytest.raises(
            UserError, match="the workers stopped before 40 trials were finished; run the same command again"
        ):
            quick_sweep("a", 40)
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", fill)
    assert capsys.readouterr().err.count("database or disk is full") == 3
    meanwhile = studies.stored("sqlite:///sweeps/a.db", "a")[2]
    rows = quick_sweep("a", len(meanwhile) + 2)
    kept = [row for row in meanwhile if row["state"] == "complete"]
    assert kept[:2] == before and [row for row in rows if row in kept] == kept
    finished = [row["learning_rate"] for row in rows if row["state"] == "complete"]
    assert len(finished) == len(set(finished)) == len(meanwhile) + 2


def test_a_study_of_another_program_is_refused(quick_sweep):
    theirs = studies.open_study("sqlite:///sweeps/a.db", "a")
    with pytest.raises(UserError, match="has no sweep of this program"):
        studies.stored("sqlite:///sweeps/a.db", "a")
    assert len(quick_sweep("a", 1)) == 1  # it was empty, as one is whose command was killed while it began
    theirs = studies.open_study("sqlite:///sweeps/b.db", "b")
    theirs.tell(theirs.ask(), 0.5)
    with pytest.raises(UserError, match=r"the study b in sqlite:///sweeps/b\.db is not of"):
        quick_sweep("b", 1)
    studies.open_study("sqlite:///sweeps/c.db", "c", "minimize")
    with pytest.raises(UserError, match=r"the study c in .* was created for another goal"):
        quick_sweep("c", 1)


@pytest.mark.parametrize(
    "url, told",
    [
        ("postgresql://me:secret@host:5432/x", "postgresql://me:…@host:5432/x"),
        ("postgresql://me:se/c&ret@host/x", "postgresql://me:…@host/x"),
        ("postgresql://me@server:secret@host/x", "postgresql://me@server:…@host/x"),
        ("postgresql://host:5432/x?user=me&password=a@b", "postgresql://host:…@b"),
        ("postgresql://me@/x?host=/tmp&PASSWORD=a@b&port=1", "postgresql://me@/x?host=/tmp&PASSWORD=…&port=1"),
        ("sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db"),
    ],
)
def test_a_password_is_not_told(url, told):
    assert studies.shown(url) == told


def test_a_worker_gives_up_after_three_failures_of_its_own(quick_sweep):
    def fail(*_):
        raise MemoryError

    with pytest.raises(UserError, match="the workers stopped before 4 trials were finished"):
        quick_sweep("a", 4, trial=fail)
    rows = quick_sweep("a", 1)
    assert [row["state"] for row in rows] == ["fail", "fail", "fail", "complete"]
    assert all(set(row) - {"trial", "state"} == set(SPACE) for row in rows[:3])


def test_of_two_trials_begun_at_one_moment_the_one_too_many_ends(quick_sweep, monkeypatch):
    """Another process begins the last trial after this one has seen that it is wanted, and finishes it later."""
    optimize, others = optuna.Study.optimize, []

    def states():
        return [trial.state for trial in studies.open_study("sqlite:///sweeps/a.db", "a").get_trials()]

    def overtaken(study, *arguments, **options):
        others.append(study.ask())
        optimize(study, *arguments, **options)

    def meanwhile(_):
        assert states() == [TrialState.RUNNING, TrialState.FAIL]
        others[0].study.tell(0, 0.5)

    monkeypatch.setattr(optuna.Study, "optimize", overtaken)
    monkeypatch.setattr(studies.time, "sleep", meanwhile)
    assert [row["trial"] for row in quick_sweep("a", 1)] == []
    assert states() == [TrialState.COMPLETE, TrialState.FAIL]


def test_a_trial_taken_for_dead_while_the_machine_slept_is_lost_and_made_again(quick_sweep, capsys):
    def slept(number, settings, report):
        if number == 1:
            studies.open_study("sqlite:///sweeps/a.db", "a").tell(1, state=TrialState.FAIL)  # as another worker does
        return {f"best_{score}": 0.5 for score in SCORES}

    assert [row["state"] for row in quick_sweep("a", 3, trial=slept)] == ["complete", "fail", "complete", "complete"]
    assert "its result is lost" in capsys.readouterr().err


def test_what_a_killed_command_left_in_work_has_failed(quick_sweep, monkeypatch):
    quick_sweep("a", 1)
    studies.open_study("sqlite:///sweeps/a.db", "a").ask()
    monkeypatch.setattr(studies.time, "sleep", lambda _: pytest.fail("waits for a trial that nobody makes"))
    quick_sweep("a", 2)
    trials = studies.open_study("sqlite:///sweeps/a.db", "a").get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_a_killed_workers_settings_are_tried_once_more(quick_sweep):
    quick_sweep("a", 1)
    study = studies.open_study("sqlite:///sweeps/a.db", "a")
    for number in (1, 2):
        trial = study.ask()
        trial.set_user_attr("worker", "x")
        settings = spaces.suggest(trial, SPACE)
        studies._give_back(study, studies._of_worker(study, "x"))
        assert study.get_trials()[number].state == TrialState.FAIL
        studies._give_back(study, [study.get_trials()[number]])  # another process noticed it too
    assert study.get_trials()[1].params == study.get_trials()[2].params and len(study.get_trials()) == 3
    assert quick_sweep("a", 2)[-1]["learning_rate"] != settings["learning_rate"]


def test_a_trial_that_is_stopped_says_where_and_is_kept(quick_sweep):
    asked = []

    def trial(number, settings, report):
        for epoch in range(1, 10):
            asked.append((number, epoch))
            if report(epoch, (10 - number) * epoch / 100):
                return {"best_avg_F1_score": 0.1, "stopped_at": epoch}
        return {"best_avg_F1_score": 0.9}

    def later(number, settings, report):
        """The better from the second epoch on, the earlier it is made."""
        assert not any(report(epoch, 0.5 - (number / 10 if epoch > 1 else 0)) for epoch in range(1, 10))
        return {"best_avg_F1_score": 0.5}

    rows = quick_sweep("a", 4, trial=trial, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2})
    assert [row["state"] for row in rows] == ["complete", "pruned", "pruned", "pruned"]
    assert [row.get("stopped_at") for row in rows] == [None, 2, 2, 2] and (1, 3) not in asked
    assert studies.stored("sqlite:///sweeps/a.db", "a")[2] == rows
    # By W&B's rule there is nothing more to stop from max_iter on.
    rows = quick_sweep("b", 4, trial=trial, early_terminate={"type": "hyperband", "max_iter": 2, "s": 1, "eta": 2})
    assert [row.get("stopped_at") for row in rows] == [None, 1, 1, 1]
    asked.clear()
    rows = quick_sweep("c", 4, trial=later, early_terminate={"type": "hyperband", "max_iter": 2, "s": 1, "eta": 2})
    assert {row["state"] for row in rows} == {"complete"}


def test_calls_wait_for_a_server_that_has_gone_away(monkeypatch):
    gone = sqlalchemy.exc.OperationalError("SELECT", {}, Exception("connection refused"))
    wrapped = optuna.exceptions.StorageInternalError()
    wrapped.__cause__ = gone
    answers, clock = [gone, wrapped, gone, 42], [0.0]

    def call():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(studies.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(studies.time, "sleep", lambda pause: clock.__setitem__(0, clock[0] + 15))
    assert studies._patient(call)() == 42 and clock[0] == 45
    answers += 20 * [gone]
    with pytest.raises(sqlalchemy.exc.OperationalError):
        studies._patient(call)()
    assert studies.AWAY < clock[0] - 45 < studies.GRACE
    answers[:] = [sqlalchemy.exc.ProgrammingError("SELECT", {}, Exception("no such column"))]
    with pytest.raises(sqlalchemy.exc.ProgrammingError):
        studies._patient(call)()


# ── One trial ───────────────────────────────────────────────────────────────────────────────────────────────────────


def imagined(*values):
    """A `Task` of two trainings whose F1s after each epoch are `values`, the second's by 0.1 higher."""
    seeds = []

    def learn(recipe, tracker):
        seeds.append(recipe.seed)
        for epoch, value in enumerate(values, 1):
            if isinstance(value, Exception):
                raise value
            tracker.log({"val_loss": 1.0} | dict.fromkeys(SCORES, value + 0.1 * (len(seeds) - 1)), step=epoch)

    return sweeping.Task("head", learn, Recipe(seed=2**32 - 1), "avg_F1_score", 2), seeds


def test_a_trial_has_the_mean_of_its_trainings_and_their_deviation():
    task, seeds = imagined(0.1, 0.5, 0.2)
    heard = []
    result = sweeping.train("x", task, {"epochs": 3}, None, lambda *said: heard.append(said))
    assert result["best_avg_F1_score"] == pytest.approx(0.55) and result["last_F1_0"] == pytest.approx(0.25)
    assert result["sd_avg_F1_score"] == pytest.approx(0.1 / 2**0.5) and result["trainings"] == 2
    assert heard == [(1, 0.1), (2, 0.5), (3, 0.5)] and seeds == [2**32 - 1, 0]


def test_a_trial_is_stopped_by_the_study_and_by_wandb_but_not_by_a_fault(capsys):
    tracker = MagicMock()
    late = imagined(0.1, 0.2)[0]

    def ended_in_the_second(recipe, log):
        if recipe.seed == 0:
            raise Exception
        late.learn(recipe, log)

    result = sweeping.train("x", late._replace(learn=ended_in_the_second), {"epochs": 2}, tracker)
    assert "stopped_at" not in result and result["best_avg_F1_score"] == 0.2
    for last in (3, 4):  # a trial that has ended is not stopped
        result = sweeping.train("x", imagined(0.1, 0.2, 0.3)[0], {"epochs": last}, None, lambda epoch, _: epoch == 3)
        assert ("stopped_at" in result) == (last == 4) and result["best_avg_F1_score"] == pytest.approx(
            0.35 - (last == 4) * 0.05
        )
    result = sweeping.train("x", imagined(0.1, 0.2, 0.3)[0], {}, None, lambda epoch, score: score >= 0.2)
    assert result["stopped_at"] == 2 and result["best_avg_F1_score"] == 0.2 and "sd_avg_F1_score" not in result
    assert "trial x stopped after epoch 2" in capsys.readouterr().err
    tracker = MagicMock()
    assert sweeping.train("x", imagined(0.1, Exception())[0], {}, tracker)["stopped_at"] == 1
    assert tracker.summary.update.call_args[0][0]["avg_F1_score"] == 0.1
    tracker.finish.assert_called_once_with()
    for fault in (imagined(0.1, ValueError("bad"))[0], imagined(Exception())[0]):
        with pytest.raises(Exception):  # noqa: B017
            sweeping.train("x", fault, {}, tracker)
        assert tracker.finish.call_args[1] == {"exit_code": 1}


def test_the_epoch_that_counts_is_the_one_that_main_would_keep():
    rows = [{"val_loss": loss} | dict.fromkeys(SCORES, f1) for f1, loss in ((0.5, 0.4), (0.6, 0.8), (0.4, np.nan))]
    assert [sweeping.scores(rows, kind)["best_val_loss"] for kind in ("f1", "loss")] == [0.8, 0.4]
    assert [sweeping.scores(rows, kind)["best_avg_F1_score"] for kind in ("f1", "loss")] == [0.6, 0.5]
    task = imagined(0.1)[0]._replace(recipe=Recipe(best_epoch="loss"), repeats=1)
    heard = []

    def learn(recipe, tracker):
        for epoch, row in enumerate(rows, 1):
            tracker.log(row, step=epoch)

    result = sweeping.train(
        "x", task._replace(learn=learn, metric="val_loss"), {}, None, lambda *said: heard.append(said)
    )
    assert result["best_val_loss"] == 0.4 and heard == [(1, 0.4), (2, 0.4), (3, 0.4)]
    # The loss of a training that diverged is the largest there can be, so that its trial counts.
    assert result["last_val_loss"] == pytest.approx(-np.log(1e-7))


def test_a_trial_of_a_real_head_stops_where_the_study_says_and_fails_where_it_fails():
    """With the callback of the trainings, which tells the trial of each epoch."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 4, 40)
    prepared = training.Prepared(None, None, inputs, labels, inputs, labels, np.arange(40))
    recipe = Recipe(num_neurons=8, epochs=9, seed=1)
    task = sweeping.Task("head", functools.partial(sweeping.learn_head, prepared), recipe, "avg_F1_score", 1)
    heard = []

    def report(epoch, score):
        heard.append(epoch)
        return epoch == 2

    assert sweeping.train("x", task, {}, MagicMock(), report)["stopped_at"] == 2 and heard == [1, 2]
    fault = sqlalchemy.exc.OperationalError("SELECT", {}, Exception("gone"))
    with pytest.raises(sqlalchemy.exc.OperationalError):
        sweeping.train("x", task, {}, None, MagicMock(side_effect=fault))


def test_a_trial_is_not_lost_by_what_weights_and_biases_does(capsys):
    for broken in ("log", "finish"):
        tracker = MagicMock()
        getattr(tracker, broken).side_effect = BrokenPipeError("gone")
        result = sweeping.train("x", imagined(0.1, 0.2)[0], {}, tracker)
        assert result["best_avg_F1_score"] == pytest.approx(0.25)
        assert "BrokenPipeError: 'gone'" in capsys.readouterr().err
    assert tracker.log.call_count == 3


def test_the_summary_says_what_luck_is(capsys):
    table = pd.DataFrame({"best_F1_0": [0.8, 0.75, 0.5], "sd_F1_0": [0.03, 0.05, 0.04], "trainings": [2.0] * 3})
    said = sweeping.luck(table, "F1_0")
    assert "the mean of 2 trainings; another seed changes a training by 0.0408" in said and "so 1 of the" in said
    assert sweeping.luck(table.drop(columns="sd_F1_0"), "F1_0") == "" and "--repeats 3" in capsys.readouterr().err
    # One agent of a sweep on W&B was started without --repeats.
    mixed = pd.DataFrame({"best_F1_0": [0.8, 0.75], "sd_F1_0": [np.nan, 0.04], "trainings": [np.nan, 2.0]})
    assert "the mean of 1 training; " in sweeping.luck(mixed, "F1_0") and "so 1 of" in sweeping.luck(mixed, "F1_0")


def test_the_next_command_has_what_made_the_best_trial(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make = {"vote": {"values": [True, False]}, "epochs": {"min": 20, "max": 40}, "weight_average": {"value": 0}}
    config = {"metric": {"name": "avg_F1_score", "goal": "maximize"}, "parameters": make}
    rows = [
        {"trial": n, "state": "complete", "vote": n > 1, "epochs": 30 + n, "weight_average": 0, "seconds": 1.0}
        | {"best_avg_F1_score": n / 10}
        for n in range(4)
    ]
    sweeping.make_folders("sweeps", "figures/x")
    sweeping.finish("x", config, rows, " --recipe improved")
    command = "next: python main.py --epochs 33 --vote --recipe improved --run x-best"
    said = capsys.readouterr()
    assert sorted(said.out.splitlines()[-1].split(" --")) == sorted(command.split(" --"))
    assert "what the file fixes for short trials: weight_average" in said.err
    with pytest.raises(UserError, match="no trial of the sweep x has finished yet"):
        sweeping.finish("x", config, [row | {"stopped_at": 1, "state": "pruned"} for row in rows], "")


# ── Sweeps, as a user starts them ───────────────────────────────────────────────────────────────────────────────────


FLAGS = ("--data", "set.zip", "--backbone", "vgg16", "--weights", "random", "--config", "sweep.yaml")


@pytest.fixture(scope="session")
def kept_features(archive, tmp_path_factory):
    """A folder data/features in which scripts find, for the small set, imaginary features that a head can learn."""
    import model

    table = dataset.read_recordings(archive)
    parts = [table.label[dataset.split(table) == name] for name in ("train", "validation")]
    rng = np.random.default_rng(0)
    typical = dict(zip("ANO~", rng.normal(size=(4, 512)), strict=True))

    def imagine(base, images, bar):
        means = np.stack(parts.pop(0).map(typical))
        assert len(means) == len(images)
        return (means + rng.normal(size=means.shape)).astype(np.float32)

    folder = tmp_path_factory.mktemp("features")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", imagine)
        recipe = Recipe(backbone="vgg16", weights="random")
        sweeping.prepare(recipe, archive, spaces.read(PROJECT / "sweep.yaml", recipe), 1)
    assert not parts
    return folder / "data/features"


@pytest.fixture
def project(archive, kept_features, tmp_path):
    """A folder with sweeping.py, a sweep.yaml, a small set and its features."""
    (tmp_path / "sweeping.py").symlink_to(PROJECT / "sweeping.py")
    write_config(tmp_path, epochs=10)
    shutil.copy(archive, tmp_path / "set.zip")
    shutil.copytree(kept_features, tmp_path / "data/features")
    return tmp_path


def write_config(folder, epochs):
    config = yaml.safe_load((PROJECT / "sweep.yaml").read_text())
    config["parameters"]["epochs"] = {"value": epochs}
    config["command"] += FLAGS[:-2]
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))


def environment(folder, **given):
    """No login, no W&B settings but those given, and this interpreter as `python`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return (
        kept | {"PATH": paths, "HOME": str(folder), "NETRC": str(folder / "no-netrc"), "WANDB_SILENT": "true"} | given
    )


def start(folder, *arguments, **given):
    return subprocess.Popen(
        [sys.executable, "sweeping.py", *FLAGS, *map(str, arguments)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder, **given),
    )


def ended(process):
    """A `start`ed process when it has ended, with its output."""
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def sweep(folder, *arguments, **given):
    return ended(start(folder, *arguments, **given))


@pytest.fixture
def sweep_here(tmp_path, monkeypatch, capsys):
    """As `sweep`, in this process, which takes a few seconds instead of a minute."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(studies, "in_processes", in_this_process)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sweeping.py", *FLAGS, *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            run_script(sweeping.main)
        return subprocess.CompletedProcess(arguments, ending.value.code or 0, *capsys.readouterr())

    return run


def trials(folder):
    """The trials of the local sweep in `folder`, which may not have begun."""
    database = folder / "sweeps/sweep.db"
    return studies.open_study(f"sqlite:///{database}", "sweep").get_trials() if database.exists() else []


def check_results(folder, process, count, name="sweep"):
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(folder / f"sweeps/{name}.csv")
    assert table.best_avg_F1_score.dropna().is_monotonic_decreasing
    table = table.sort_values("trial", ignore_index=True)
    finished = table[table.state.isin(["complete", "finished"])]
    assert len(finished) == count and table.trial.is_unique
    assert {"num_neurons", "activation", "optimizer", "batch_size", "learning_rate", "seconds"} < set(table)
    assert (finished.best_avg_F1_score >= finished.last_avg_F1_score).all()
    for figure in sweeping.FIGURES:
        assert cv2.imread(str(folder / f"figures/{name}/sweep_{figure}.png")).std() > 5
    best = finished.loc[finished.best_avg_F1_score.idxmax()]
    command = process.stdout.splitlines()[-1]
    assert command.startswith("next: python main.py ")
    fixed = "--backbone vgg16 --weights random --data set.zip"
    for flag in (f"--num-neurons {int(best.num_neurons)}", f"--optimizer {best.optimizer}", fixed):
        assert flag in command
    assert len(list((folder / "data/features").rglob("*.npz"))) == 2  # those that were there
    return table


def test_a_local_sweep_is_alone_and_can_be_continued(project, sweep_here, refusal):
    process = start(project, "--count", 2)
    lock = project / "sweeps/sweep.lock"
    while process.poll() is None and not (lock.exists() and lock.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    try:
        sentence = refusal(sweep(project, "--engine", "local", "--count", 9))
        assert f"the sweep sweep is in work by process {process.pid}" in sentence
    finally:
        process.send_signal(signal.SIGCONT)
    process = ended(process)
    assert "sweep on this machine" in process.stderr and "not logged in" in process.stderr
    first = check_results(project, process, 2)
    assert first.best_avg_F1_score.max() > 0.3
    assert len(list((project / "wandb").glob("offline-run-*"))) == 2 and not lock.exists()

    process = sweep_here("--engine", "local", "--count", 3)
    assert "2 of 3 trials are finished" in process.stderr
    table = check_results(project, process, 3)
    pd.testing.assert_frame_equal(table.iloc[:2], first)
    assert table.learning_rate.is_unique
    assert len(list((project / "wandb").glob("offline-run-*"))) == 3 and not lock.exists()

    (project / "sweeps/sweep.csv").unlink()
    again = sweep_here("--report")
    pd.testing.assert_frame_equal(check_results(project, again, 3), table)
    assert again.stdout == process.stdout


@pytest.mark.slow
def test_the_offline_runs_of_a_local_sweep_can_be_sent(project):
    check_results(project, sweep(project, "--engine", "local", "--count", 3), 3)
    with WandbServer() as server:
        subprocess.run(
            ["wandb", "sync", *sorted((project / "wandb").glob("offline-run-*"))],
            check=True,
            cwd=project,
            capture_output=True,
            timeout=120,
            env=environment(project, **server.env),
        )
        assert len(server.runs) == 3 and not server.unknown
        for record in server.runs.values():
            assert [row["epoch"] for row in record["history"]] == list(range(1, 11))


def in_work(project):
    """The trials that have begun to train, whose end a killed worker or sweep must tell."""
    return [trial for trial in trials(project) if trial.state == TrialState.RUNNING and "row" in trial.user_attrs]


@pytest.mark.slow
def test_a_killed_worker_costs_one_trial(project):
    write_config(project, epochs=40)
    process = start(project, "--engine", "local", "--count", 6, "--workers", 3)

    while process.poll() is None and len(in_work(project)) < 3:
        time.sleep(0.3)
    workers = workers_of(process)
    assert len(workers) == 3
    os.kill(workers[0], signal.SIGKILL)
    table = check_results(project, ended(process), 6)
    assert list(table.state).count("fail") == 1 and len(table) == 7
    assert list(table.trial) == sorted(set(table.trial))


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
def test_a_killed_sweep_loses_the_trial_in_work_and_ends_its_worker(project):
    write_config(project, epochs=40)
    process = start(project, "--engine", "local", "--count", 4)
    while process.poll() is None and not (len(trials(project)) == 3 and in_work(project)):
        time.sleep(0.1)
    (worker,) = workers_of(process)
    process.kill()
    process.communicate(timeout=300)
    while Path(f"/proc/{worker}").exists():
        time.sleep(0.1)
    states = [trial.state.name.lower() for trial in trials(project)]
    assert states == ["complete", "complete", "running"]

    process = sweep(project, "--engine", "local", "--count", 4)
    assert "2 of 4 trials are finished" in process.stderr
    assert list(check_results(project, process, 4).state) == ["complete", "complete", "fail", "complete", "complete"]


@pytest.mark.slow
def test_the_trees_are_searched_without_a_network(project):
    improved = ["--recipe", "improved", "--backbone", "compact", "--weights", "random"]
    flags = [*improved, "--config", PROJECT / "sweep-trees.yaml", "--engine", "local", "--count", "2", "--repeats", "2"]
    process = sweep(project, *flags)
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(project / "sweeps/sweep.csv")
    assert (
        table.best_val_loss.is_monotonic_increasing and len(table) == 2 and {"sd_val_loss", "trees_rate"} < set(table)
    )
    assert "another seed changes a training by" in process.stdout
    last = process.stdout.splitlines()[-1]
    assert f"--trees-leaves {table.trees_leaves[0]} " in last and "--recipe improved --data set.zip" in last


@pytest.mark.slow
def test_a_network_of_another_recipe_is_searched_and_its_trials_stopped(project):
    config = yaml.safe_load((PROJECT / "sweep-improved.yaml").read_text())
    config["parameters"] = {name: config["parameters"][name] for name in ("stretch", "class_weights")}
    config["parameters"]["epochs"] = {"value": 3}
    config["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": 2}
    (project / "mine.yaml").write_text(yaml.safe_dump(config))
    improved = [
        "--recipe",
        "improved",
        "--backbone",
        "compact",
        "--weights",
        "random",
        "--config",
        "mine.yaml",
        "--engine",
        "local",
    ]
    process = sweep(project, *improved, "--count", "5")
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(project / "sweeps/sweep.csv")
    stopped = table.state == "pruned"  # how many is up to the scores
    assert set(table.state[~stopped]) == {"complete"} and len(table) == 5
    assert stopped.any() == ("stopped after epoch" in process.stderr)
    assert not stopped.any() or set(table.stopped_at[stopped]) <= {1, 2}
    assert "--stretch" in process.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--sweep-id", "abc123"], "ENTITY/PROJECT/ID"),
        (["--engine", "wandb"], "not logged in"),
        (["--sweep-id", "a/b/c"], "not logged in"),
        (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--engine", "local", "--sweep-id", "a/b/c"], "belong to W&B"),
        (["--storage", "sqlite:///x.db", "--sweep-id", "a/b/c"], "belong to W&B"),
        (["--storage", "sqlite:///x.db", "--engine", "wandb"], "belong to W&B"),
        (["--count", "0"], "--count"),
        (["--workers", "-1"], "--workers"),
        (["--repeats", "0"], "--repeats"),
        (["--learning-rate", "0.01"], "learning_rate is a flag and in sweep.yaml"),
        (["--storage", "mysql://x@y/z"], "pass sqlite:///FILE or postgresql://USER@HOST/NAME"),
        (["--storage", "postgres://x@y/z"], "pass sqlite:///FILE or postgresql://USER@HOST/NAME"),
        (["--storage", "x.db"], "pass sqlite:///FILE or postgresql://USER@HOST/NAME"),
        (["--storage", "sqlite://"], "pass sqlite:///FILE or postgresql://USER@HOST/NAME"),
        (["--storage", "sqlite:///:memory:"], "pass sqlite:///FILE or postgresql://USER@HOST/NAME"),
        (["--report"], "there is no sweep in sqlite:///sweeps/sweep.db"),
        (["--report", "--storage", "postgresql://me:secret@127.0.0.1:9/x"], "postgresql://me:…@127.0.0.1:9/x does not"),
    ],
)
def test_bad_command_lines(sweep_here, refusal, arguments, words):
    shutil.copy(PROJECT / "sweep.yaml", ".")
    assert words in refusal(sweep_here(*arguments))
    assert not Path("sweeps").exists()


def test_no_answer_and_a_wrong_key(project, refusal):
    dead = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    assert "no sweep on Weights & Biases" in refusal(sweep(project, "--engine", "wandb", **dead))
    with WandbServer() as server:
        wrong = server.env | {"WANDB_API_KEY": "1" * 40}
        assert "does not accept the login" in refusal(sweep(project, "--engine", "wandb", **wrong))


def check_arrived(server, count):
    """Every trial's five parameters, ten epochs of the metric and its end are at the server."""
    assert not server.unknown
    assert len(server.runs) == count
    for record in server.runs.values():
        assert record["state"] == "finished" and record["exit_code"] == 0
        assert {name: record["config"][name] for name in SPACE} == record["params"]
        assert record["config"]["weights"] == "random" and record["config"]["backbone"] == "vgg16"
        scores = [row["avg_F1_score"] for row in record["history"] if "avg_F1_score" in row]
        assert len(scores) == 10
        assert record["summary"]["avg_F1_score"] == max(scores)


@pytest.mark.slow
def test_the_wandb_engine_creates_trials_and_reads_them_back(project):
    with WandbServer() as server:
        process = sweep(project, "--count", 3, "--run", "online", **server.env)
        assert "logged in and reachable" in process.stderr, process.stderr
        assert "Traceback" not in process.stderr, process.stderr
        check_results(project, process, 3, "online")
        check_arrived(server, 3)
        (identifier,) = server.sweeps
        flags = "--backbone vgg16 --weights random --data set.zip --config sweep.yaml"
        assert f"python sweeping.py --sweep-id tester/ecg-classification/{identifier} {flags}\n" in process.stdout
        config = server.sweeps[identifier]["config"]
        assert config["method"] == "bayes" and set(config["parameters"]) == set(SPACE)
        assert not (project / "sweeps/online.lock").exists()


@pytest.mark.slow
def test_a_wandb_sweep_is_joined_by_two_workers_or_refused(project, refusal):
    with WandbServer() as server:
        check_results(project, sweep(project, "--count", 1, **server.env), 1)
        (identifier,) = server.sweeps
        join = ["--sweep-id", f"tester/ecg-classification/{identifier}"]
        process = sweep(project, "--count", 3, "--workers", 2, *join, **server.env)
        assert len(check_results(project, process, 4)) == 4
        check_arrived(server, 4)

        server.sweeps[identifier]["config"]["parameters"]["colour"] = {"value": 64}
        for report in ([], ["--report"]):
            sentence = refusal(sweep(project, *report, *join, **server.env))
            assert "parameters.colour is not a setting" in sentence
        join = ["--sweep-id", "tester/ecg-classification/nosuch00"]
        assert "W&B refused the sweep tester/ecg-classification/nosuch00: " in refusal(
            sweep(project, *join, **server.env)
        )


@pytest.mark.slow
def test_trials_that_weights_and_biases_ends_early_say_so(project, refusal):
    write_config(project, epochs=100_000)
    with WandbServer() as server:
        process = start(project, "--count", 2, **server.env)
        while process.poll() is None:
            server.stop.update(name for name, record in server.runs.items() if len(record["history"]) > 1)
            time.sleep(0.1)
        process = ended(process)
        assert "no trial of the sweep sweep has finished yet" in refusal(process)
        assert process.stderr.count(": it does not keep up with the best") == 2
        assert len(server.runs) == 2
        for record in server.runs.values():
            summary, told = record["summary"], [row["avg_F1_score"] for row in record["history"] if "epoch" in row]
            assert record["state"] == "finished" and 1 < summary["stopped_at"] < 100_000
            assert summary["avg_F1_score"] == max(told)


@pytest.mark.slow
def test_when_every_trial_fails_so_does_the_sweep(project, refusal):
    (project / "sitecustomize.py").write_text('import sys\nsys.modules["f1_sweeping_callback"] = None\n')
    broken = {"PYTHONPATH": str(project)}
    with WandbServer() as server:
        process = sweep(project, "--count", 2, **server.env, **broken)
        assert "no trial of sweep" in refusal(process) and "failed: import of f1_sweeping_callback" in process.stderr
        assert {record["state"] for record in server.runs.values()} == {"failed"} and len(server.runs) == 2
    process = sweep(project, "--engine", "local", "--count", 2, **broken)
    assert "the workers stopped before 2 trials" in refusal(process)
    assert process.stderr.count("failed: import of f1_sweeping_callback") == 3


@pytest.mark.slow
def test_two_agents_of_the_command_line(project):
    with WandbServer() as server:
        env = environment(project, **server.env)
        created = subprocess.run(
            ["wandb", "sweep", "--project", "ecg", "sweep.yaml"],
            cwd=project,
            env=env,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert created.returncode == 0, created.stderr
        identifier = next(iter(server.sweeps))
        agents = [
            subprocess.Popen(
                ["wandb", "agent", "--count", "2", f"tester/ecg/{identifier}"],
                cwd=project,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        assert [agent.wait(timeout=300) for agent in agents] == [0, 0]
        check_arrived(server, 4)


class Postgresql:
    """A real PostgreSQL server of the test's own, which listens on a socket in its own folder."""

    def __init__(self, programs):
        self.programs, self.folder = programs, Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
        self.url = f"postgresql://sweeper@/postgres?host={self.folder}"
        self.user = {"user": "postgres"} if os.geteuid() == 0 else {}  # it refuses to run as root
        if self.user:
            shutil.chown(self.folder, "postgres")
        create = [programs / "initdb", "-D", self.folder / "data", "-U", "sweeper", "--auth=trust"]
        subprocess.run(create, check=True, capture_output=True, **self.user)
        self.start()

    def start(self):
        serve = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", ""]
        self.server = subprocess.Popen(serve, stderr=subprocess.DEVNULL, **self.user)
        while subprocess.run([self.programs / "pg_isready", "-h", self.folder, "-q"]).returncode:
            assert self.server.poll() is None
            time.sleep(0.1)

    def stop(self):
        self.server.send_signal(signal.SIGINT)
        self.server.wait()


@pytest.fixture
def postgresql():
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed")
    server = Postgresql(programs[-1].parent)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)


def slow_trial(folder, number, settings, report):
    (folder / f"{number}.writing").write_text(str(os.getpid()))
    (folder / f"{number}.writing").rename(folder / str(number))
    for epoch in range(1, 9):
        time.sleep(0.5)
        report(epoch, settings["learning_rate"])
    return {"best_avg_F1_score": settings["learning_rate"]}


@pytest.mark.slow
def test_neither_a_server_that_goes_away_nor_a_killed_worker_loses_a_trial(tmp_path, postgresql):
    """The server stops for 30 s while three trials are in work, and later one of the workers is killed."""
    config = spaces.read(PROJECT / "sweep.yaml", Recipe())
    states, killed = [], []

    def wait_for(number):
        while not (tmp_path / str(number)).exists():
            time.sleep(0.1)

    def meddle():
        for number in range(3):
            wait_for(number)
        postgresql.stop()
        time.sleep(30)
        postgresql.start()
        study = studies.open_study(postgresql.url, "x")
        # One of the three may wait longer for the server than another's next trial takes.
        while any(not trial.state.is_finished() for trial in study.get_trials(deepcopy=False)[:3]):
            time.sleep(0.2)
        states.extend(trial.state for trial in study.get_trials()[:3])
        killed.append(len(study.get_trials()))
        wait_for(killed[0])
        os.kill(int((tmp_path / str(killed[0])).read_text()), signal.SIGKILL)

    thread = threading.Thread(target=meddle)
    thread.start()
    trial = functools.partial(slow_trial, tmp_path)
    rows = studies.sweep(postgresql.url, "x", {}, config, 9, 3, 0, trial, True, "")
    thread.join()
    assert states == 3 * [TrialState.COMPLETE]
    assert sorted(row["state"] for row in rows) == 9 * ["complete"] + ["fail"]
    lost = next(row for row in rows if row["state"] == "fail")
    assert lost["trial"] == killed[0]
    assert sum(row["learning_rate"] == lost["learning_rate"] for row in rows) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_processes_open_a_new_study_at_once(tmp_path, kind, request):
    url = f"sqlite:///{tmp_path}/x.db" if kind == "sqlite" else request.getfixturevalue("postgresql").url
    code = f"""if True:
        import studies, sys
        print("ready", flush=True)
        sys.stdin.readline()
        studies.open_study({url!r}, "x")"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, **pipes) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait() for process in processes] == 8 * [0]
    assert studies.open_study(url, "x").get_trials() == []


@pytest.mark.slow
def test_two_clients_share_a_postgresql_study(project, postgresql, tmp_path_factory):
    """Each has a folder of its own, with its own recordings and features, as two machines have."""
    folders = [project, tmp_path_factory.mktemp("other") / "client"]
    shutil.copytree(*folders, symlinks=True)
    for folder, process in [(each, start(each, "--storage", postgresql.url, "--count", 6)) for each in folders]:
        table = check_results(folder, ended(process), 6)
        assert len(table) == 6 and table.learning_rate.is_unique
    made = [len(list((folder / "wandb").glob("offline-run-*"))) for folder in folders]
    assert sum(made) == 6 and min(made) > 0


def test_suggestions_stay_in_the_space():
    study = optuna.create_study(sampler=studies.sampler("random", 3))
    space = {
        "num_neurons": {"min": 3, "max": 5},
        "learning_rate": {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform_values"},
        "epochs": {"value": 2},
        "optimizer": {"values": ["sgd", "adam"]},
    }
    drawn = [spaces.suggest(study.ask(), space) for _ in range(60)]
    assert {settings["num_neurons"] for settings in drawn} == {3, 4, 5}
    assert {settings["optimizer"] for settings in drawn} == {"sgd", "adam"}
    assert {settings["epochs"] for settings in drawn} == {2}
    rates = np.log10([settings["learning_rate"] for settings in drawn])
    assert rates.min() < -4 and rates.max() > -2 and abs(np.mean(rates) + 3) < 0.6
    assert Recipe(**drawn[0]).epochs == 2
