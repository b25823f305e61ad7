"""The sweep: its search space, the local engine, and Weights & Biases through its real client on a loopback server."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from conftest import PROJECT
from wandb_server import WandbServer

import dataset
import sweeping
from recipes import Recipe
from shell import UserError

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


def best_regret(method, seed, runs=40):
    study = optuna.create_study(sampler=sweeping.sampler(method, seed), direction="maximize")
    study.optimize(lambda trial: -regret(sweeping.suggest(trial, SPACE)), n_trials=runs)
    return -study.best_value


def test_the_search_is_better_than_chance():
    bayes, chance = ([best_regret(method, seed) for seed in range(10)] for method in ("bayes", "random"))
    assert np.mean(bayes) <= np.mean(chance) / 2, (np.mean(bayes), np.mean(chance))


def test_both_sweep_files_are_valid_and_the_first_is_the_reports():
    assert sweeping.read_config(PROJECT / "sweep-log.yaml")["parameters"]["learning_rate"]["distribution"] == (
        "log_uniform_values"
    )
    config = sweeping.read_config(PROJECT / "sweep.yaml")
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
        ("name: avg_F1_score -> name: val_accuracy", "metric is"),
        ("  num_neurons: ->   neurons:", "parameters.neurons is not a setting"),
        ("[relu, tanh, sigmoid] -> [relu, gelu]", "parameters.activation .* not 'gelu'"),
        ("[16, 32] -> [16, 0]", "parameters.batch_size .* above 0"),
        ("[16, 32] -> []", "parameters.batch_size .* no values"),
        ("max: 0.01 -> max: 0.00001", "parameters.learning_rate .* no values"),
        ("min: 0.0001 -> min: 1e-4", "parameters.learning_rate .* must be float, not '1e-4'"),
        ("distribution: uniform -> distribution: normal", "parameters.learning_rate"),
        (
            "values: [128, 256, 512, 1024] -> {distribution: uniform, min: 5, max: 9}",
            "parameters.num_neurons .* int_uniform",
        ),
        ("name: ecg-f1 -> early: yes", "unknown key 'early'"),
        ("name: ecg-f1 -> run_cap: 3", "unknown key 'run_cap'"),
        ("parameters: -> parameters: []\nprogram:", "not YAML|parameters"),
        ("method: bayes -> method: [", "is not YAML"),
    ],
)
def test_a_wrong_config_names_the_key(tmp_path, change, message):
    old, new = change.split(" -> ")
    text = (PROJECT / "sweep.yaml").read_text()
    assert old in text
    (tmp_path / "sweep.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        sweeping.read_config(tmp_path / "sweep.yaml")


def test_an_unreadable_config(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        sweeping.read_config(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="is not a sweep"):
        sweeping.read_config(tmp_path / "list.yaml")


def test_a_busy_or_refused_database_is_one_sentence(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/busy.db"
    sweeping.open_study(url, "test", "bayes", 0)
    monkeypatch.setattr(sweeping, "BUSY", 0.2)
    with sqlite3.connect(tmp_path / "busy.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="database is locked"), sweeping._database_errors(url):
            sweeping.open_study(url, "another", "bayes", 0)
        other.rollback()
    with pytest.raises(UserError, match="does not serve"), sweeping._database_errors("x"):
        sweeping.open_study("postgresql://nobody@127.0.0.1:9/none", "test", "bayes", 0)
    with pytest.raises(UserError, match="unable to open"), sweeping._database_errors("x"):
        sweeping.open_study(f"sqlite:///{tmp_path}/no/folder.db", "test", "bayes", 0)
    with sqlite3.connect(tmp_path / "busy.db") as full:
        pages = full.execute("PRAGMA page_count").fetchone()[0]
    import sqlalchemy

    @sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
    def fill(connection, _):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    try:
        with pytest.raises(UserError, match="full"), sweeping._database_errors(url):
            study = sweeping.open_study(url, "test", "bayes", 0)
            for number in range(200):
                study.set_user_attr(f"filler {number}", "x" * 5000)
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", fill)


@pytest.fixture
def project(archive, tmp_path, monkeypatch):
    """A folder with sweeping.py, a short sweep.yaml and, for a small set, imaginary features that a head can learn."""
    (tmp_path / "sweeping.py").symlink_to(PROJECT / "sweeping.py")
    write_config(tmp_path, epochs=10)
    shutil.copy(archive, tmp_path / "set.zip")
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    features = rng.normal(size=(240, 30)).astype(np.float32) + 1.5 * np.eye(30, dtype=np.float32)[labels]
    path = tmp_path / sweeping.prepared_path(Recipe(weights="random"), dataset.read_recordings(archive))
    path.parent.mkdir(parents=True)
    np.savez(
        path,
        train_features=features[:160],
        train_labels=labels[:160],
        validation_features=features[160:],
        validation_labels=labels[160:],
    )
    return tmp_path


def test_prepared_features_are_told_apart_by_what_is_in_the_set(archive, tmp_path):
    table = dataset.read_recordings(archive)
    recipe = Recipe()
    same = sweeping.prepared_path(Recipe(num_neurons=7, labels="mine.csv"), dataset.read_recordings(archive.parent))
    assert same == sweeping.prepared_path(recipe, table)
    relabelled = table.assign(label=["O" if table.label[0] == "N" else "N", *table.label[1:]])
    (tmp_path / "weights.h5").write_bytes(b"x")
    others = [
        sweeping.prepared_path(recipe, relabelled),
        sweeping.prepared_path(recipe, table.assign(signal=[signal + 1 for signal in table.signal])),
        sweeping.prepared_path(Recipe(seed=1), table),
        sweeping.prepared_path(Recipe(weights=str(tmp_path / "weights.h5")), table),
    ]
    assert len({same, *others}) == 5


def write_config(folder, epochs):
    config = yaml.safe_load((PROJECT / "sweep.yaml").read_text())
    config["parameters"]["epochs"] = {"value": epochs}
    config["command"] += ["--data", "set.zip", "--weights", "random"]
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
        [
            sys.executable,
            "sweeping.py",
            "--data",
            "set.zip",
            "--weights",
            "random",
            "--config",
            "sweep.yaml",
            *map(str, arguments),
        ],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder, **given),
    )


def sweep(folder, *arguments, **given):
    process = start(folder, *arguments, **given)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def check_results(folder, process, count, name="sweep"):
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(folder / f"sweeps/{name}.csv")
    finished = table[table.state.isin(["complete", "finished"])]
    assert len(finished) == count and table.run.is_unique
    assert {"num_neurons", "activation", "optimizer", "batch_size", "learning_rate", "seconds"} < set(table)
    assert (finished.best_avg_F1_score >= finished.last_avg_F1_score).all()
    for figure in ("sweep_top_runs", "sweep_importance"):
        assert cv2.imread(str(folder / f"figures/{name}/{figure}.png")).std() > 5
    best = finished.loc[finished.best_avg_F1_score.idxmax()]
    command = process.stdout.splitlines()[-1]
    assert command.startswith("next: python main.py ")
    for flag in (f"--num-neurons {int(best.num_neurons)}", f"--optimizer {best.optimizer}", "--weights random"):
        assert flag in command
    return table


def test_a_local_sweep_its_continuation_and_its_offline_runs(project):
    process = sweep(project, "--count", 4)
    assert "sweep on this machine" in process.stderr and "not logged in" in process.stderr
    first = check_results(project, process, 4)
    assert first.best_avg_F1_score.max() > 0.5
    assert len(list((project / "wandb").glob("offline-run-*"))) == 4

    process = sweep(project, "--engine", "local", "--count", 6)
    assert "4 of 6 runs are finished" in process.stderr
    table = check_results(project, process, 6)
    pd.testing.assert_frame_equal(table.iloc[:4], first)
    assert table.learning_rate.is_unique

    write_config(project, epochs=3)
    process = sweep(project, "--engine", "local", "--count", 8)
    assert process.returncode == 2 and "made with other parameters" in process.stderr

    with WandbServer() as server:
        runs = sorted((project / "wandb").glob("offline-run-*"))
        subprocess.run(
            ["wandb", "sync", *runs],
            check=True,
            cwd=project,
            capture_output=True,
            timeout=120,
            env=environment(project, **server.env),
        )
        assert len(server.runs) == 6
        for record in server.runs.values():
            assert [row["epoch"] for row in record["history"]] == list(range(1, 11))


def test_a_killed_worker_costs_one_trial(project):
    write_config(project, epochs=40)
    process = start(project, "--engine", "local", "--count", 6, "--workers", 3)
    database = project / "sweeps/sweep.db"

    def running():
        if not database.exists():
            return []
        study = sweeping.open_study(f"sqlite:///{database}", "sweep", "bayes", 0)
        return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]

    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(running()) < 3:
        time.sleep(0.3)
    workers = [
        pid
        for pid in map(int, children.read_text().split())
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 3
    os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    table = check_results(project, subprocess.CompletedProcess([], process.returncode, output, errors), 6)
    assert list(table.state).count("fail") == 1 and len(table) == 7
    assert list(table.run) == sorted(set(table.run))


def test_bad_command_lines(project):
    for arguments, words in (
        (["--sweep-id", "abc123"], "ENTITY/PROJECT/ID"),
        (["--engine", "wandb"], "not logged in"),
        (["--sweep-id", "a/b/c"], "not logged in"),
        (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--engine", "local", "--sweep-id", "a/b/c"], "belongs to W&B"),
        (["--count", "0"], "--count"),
    ):
        process = sweep(project, *arguments)
        assert process.returncode == 2 and words in process.stderr and "Traceback" not in process.stderr


def test_no_answer_and_a_wrong_key(project):
    dead = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    process = sweep(project, "--engine", "wandb", **dead)
    assert process.returncode == 2 and "no sweep on Weights & Biases" in process.stderr
    assert "Traceback" not in process.stderr
    with WandbServer() as server:
        process = sweep(project, "--engine", "wandb", **(server.env | {"WANDB_API_KEY": "1" * 40}))
        assert process.returncode == 2 and "does not accept the login" in process.stderr
        assert "Traceback" not in process.stderr


def check_arrived(server, count):
    """Every run's five parameters, ten epochs of the metric and its end are at the server."""
    assert not server.unknown
    assert len(server.runs) == count
    for record in server.runs.values():
        assert record["state"] == "finished" and record["exit_code"] == 0
        assert {name: record["config"][name] for name in SPACE} == record["params"]
        assert record["config"]["weights"] == "random"
        scores = [row["avg_F1_score"] for row in record["history"] if "avg_F1_score" in row]
        assert len(scores) == 10
        assert record["summary"]["avg_F1_score"] == max(scores)


def test_the_wandb_engine_creates_runs_and_reads_back(project):
    with WandbServer() as server:
        process = sweep(project, "--count", 3, "--run", "online", **server.env)
        assert "logged in and reachable" in process.stderr, process.stderr
        table = check_results(project, process, 3, "online")
        check_arrived(server, 3)
        identifier = next(iter(server.sweeps))
        command = (
            f"python sweeping.py --sweep-id tester/ecg-classification/{identifier} --weights random --data set.zip"
        )
        assert command in process.stdout
        config = server.sweeps[identifier]["config"]
        assert config["method"] == "bayes" and set(config["parameters"]) == set(SPACE)

        process = sweep(
            project,
            "--count",
            2,
            "--run",
            "online",
            "--sweep-id",
            f"tester/ecg-classification/{identifier}",
            **server.env,
        )
        assert len(check_results(project, process, 5, "online")) == len(table) + 2

        server.sweeps[identifier]["config"]["parameters"]["dropout"] = {"value": 0.5}
        process = sweep(project, "--sweep-id", f"tester/ecg-classification/{identifier}", **server.env)
        assert process.returncode == 2 and "parameters.dropout is not a setting" in process.stderr

        process = sweep(project, "--sweep-id", "tester/ecg-classification/nosuch00", **server.env)
        assert process.returncode == 2 and "nosuch00" in process.stderr and "Traceback" not in process.stderr


def test_when_every_run_fails_so_does_the_sweep(project):
    path = next((project / "data/features").glob("sweep-*.npz"))
    np.savez(path, train_features=np.zeros(3))
    with WandbServer() as server:
        process = sweep(project, "--count", 2, **server.env)
        assert process.returncode == 2 and "no run of sweep" in process.stderr
        assert {record["state"] for record in server.runs.values()} == {"failed"}
    process = sweep(project, "--engine", "local", "--count", 2)
    assert process.returncode == 2 and "the workers stopped" in process.stderr and "Traceback" not in process.stderr


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
        assert [agent.wait(timeout=180) for agent in agents] == [0, 0]
        check_arrived(server, 4)


@pytest.fixture
def postgresql(tmp_path_factory):
    """The address of a real PostgreSQL server of the test's own."""
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path("/tmp") / f"postgresql-{os.getpid()}"
    folder.mkdir()
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", 54329
    subprocess.run(
        [programs[-1], "-D", data, "-U", "sweeper", "--auth=trust"], check=True, capture_output=True, cwd=folder, **user
    )
    server = subprocess.Popen(
        [programs[-1].with_name("postgres"), "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        **user,
    )
    for _ in range(100):
        if (
            subprocess.run([programs[-1].with_name("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]).returncode
            == 0
        ):
            break
        time.sleep(0.1)
    yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
    server.send_signal(signal.SIGINT)
    server.wait()
    shutil.rmtree(folder)


def test_two_processes_share_a_postgresql_study(project, postgresql):
    processes = [start(project, "--storage", postgresql, "--count", 6) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=200)
        table = check_results(project, subprocess.CompletedProcess([], process.returncode, output, errors), 6)
        assert len(table) == 6


def test_suggestions_stay_in_the_space():
    study = optuna.create_study(sampler=sweeping.sampler("random", 3))
    space = {
        "num_neurons": {"min": 3, "max": 5},
        "learning_rate": {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform_values"},
        "epochs": {"value": 2},
        "optimizer": {"values": ["sgd", "adam"]},
    }
    drawn = [sweeping.suggest(study.ask(), space) for _ in range(60)]
    assert {settings["num_neurons"] for settings in drawn} == {3, 4, 5}
    assert {settings["optimizer"] for settings in drawn} == {"sgd", "adam"}
    assert {settings["epochs"] for settings in drawn} == {2}
    rates = np.log10([settings["learning_rate"] for settings in drawn])
    assert rates.min() < -4 and rates.max() > -2 and abs(np.mean(rates) + 3) < 0.6
    assert Recipe(**drawn[0]).epochs == 2
