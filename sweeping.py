"""The report's sweep: a Bayesian search over the head's settings, graded by the report's four-class F1.

    python sweeping.py                                  on W&B when logged in, else on this machine, without an account
    python sweeping.py --engine local --workers 2 --count 60
    python sweeping.py --sweep-id ENTITY/PROJECT/ID     join a W&B sweep
    python sweeping.py --config sweep-log.yaml --run log

The same command continues an interrupted local sweep. Writes sweeps/RUN.csv (one row a run) and figures/RUN/:
sweep_top_runs.png (Figure 3) and sweep_importance.png, and prints the best settings as a command line for main.py.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shlex
import time
import warnings
from pathlib import Path

import dataset
import recipes
import tracking
from recipes import Recipe
from shell import UserError, make_folders, parser, progress, run, run_name, say, writing

TUNABLE = ("num_neurons", "activation", "optimizer", "batch_size", "learning_rate", "epochs")
METRICS = ("avg_F1_score", "challenge_F1", "F1_0", "F1_1", "F1_2", "F1_3")
BUSY = 60  # seconds to wait for an SQLite database that another worker is writing to
HEARTBEAT, GRACE = 4, 20  # seconds between a local trial's signs of life, and without one until it counts as failed


def main():
    flags = parser(__doc__)
    flags.add_argument("--engine", choices=("auto", "wandb", "local"), default="auto", help="where the search runs")
    flags.add_argument(
        "--count", type=_positive, default=30, metavar="N", help="runs: of this agent, or of the whole local sweep"
    )
    flags.add_argument("--sweep-id", metavar="ENTITY/PROJECT/ID", help="W&B sweep to join")
    flags.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes on this machine")
    flags.add_argument("--storage", metavar="URL", help="database of a local sweep (default: sqlite:///sweeps/RUN.db)")
    flags.add_argument(
        "--config",
        type=Path,
        default=Path(__file__).with_name("sweep.yaml"),
        metavar="FILE",
        help="sweep file that defines the search",
    )
    flags.add_argument(
        "--data", type=Path, default=dataset.DEFAULT_DATA, metavar="PATH", help="zip or folder of recordings"
    )
    recipes.add_flags(flags, ("labels", "seed", "weights"))
    flags.add_argument("--run", type=run_name, default="sweep", metavar="NAME", help="name of the sweep's files")
    flags.add_argument("--trial", action="store_true", help="make one run for the W&B agent that calls this")
    arguments = flags.parse_args()
    recipe = recipes.from_flags(flags, arguments)
    if recipe.streams or recipe.vote:
        flags.error(f"the sweep trains heads on a frozen base, which the recipe {recipe.name} does not have")
    config = read_config(arguments.config)
    if arguments.trial:
        return wandb_trial(prepare(recipe, arguments.data), recipe)

    engine = choose_engine(arguments)
    make_folders("sweeps", "data/features", f"figures/{arguments.run}")
    prepared = prepare(recipe, arguments.data)
    config, rows = (wandb_sweep if engine == "wandb" else local_sweep)(arguments, config, recipe, prepared)
    finish(arguments, config, recipe, rows)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def read_config(path):
    """The search in a W&B sweep file (YAML), as a dict. Raises `UserError` naming the key that is wrong."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    check_config(config, path)
    return config


def check_config(config, where):
    """Raise `UserError`, naming `where` and the key, unless `config` is a sweep that the training understands."""
    known = {"program", "command", "name", "description", "project", "entity", "method", "metric", "parameters"}
    if not isinstance(config, dict):
        raise UserError(f"{where} is not a sweep: expected the keys method, metric and parameters")
    unknown = sorted(set(config) - known)
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; a sweep has {', '.join(sorted(known))}")
    if config.get("method") not in ("bayes", "random"):
        raise UserError(f"{where}: method is {config.get('method')!r}; expected bayes or random")
    metric = config.get("metric")
    if not isinstance(metric, dict) or metric.get("name") not in METRICS or metric.get("goal") != "maximize":
        raise UserError(f"{where}: metric is {metric!r}; expected goal: maximize and a name of {', '.join(METRICS)}")
    parameters = config.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UserError(f"{where}: parameters is missing or empty")
    for name, space in parameters.items():
        _check_parameter(where, name, space)
    if all("value" in space for space in parameters.values()):
        raise UserError(f"{where}: parameters has nothing to search, only fixed values")


def _check_parameter(path, name, space):
    if name not in TUNABLE:
        raise UserError(f"{path}: parameters.{name} is not a setting of the training; these are {', '.join(TUNABLE)}")
    keys = set(space) if isinstance(space, dict) else set()
    kind = space.get("distribution", "uniform") if "min" in keys else None
    if keys not in ({"value"}, {"values"}, {"min", "max"}, {"min", "max", "distribution"}) or kind not in (
        None,
        "uniform",
        "int_uniform",
        "log_uniform_values",
    ):
        raise UserError(
            f"{path}: parameters.{name} is {space!r}; expected value, values, or min and max "
            "with distribution uniform, int_uniform or log_uniform_values"
        )
    integer = next(field.type for field in dataclasses.fields(Recipe) if field.name == name) is int
    if (
        "min" in keys
        and integer
        and not (kind == "int_uniform" or ("distribution" not in keys and type(space["min"]) is int))
    ):
        raise UserError(f"{path}: parameters.{name} is {space!r}: whole numbers need distribution int_uniform")
    values = space.get("values", [space[key] for key in ("value", "min", "max") if key in space])
    try:
        for value in values:
            dataclasses.replace(Recipe(), **{name: value})
        if not values or ("min" in space and space["min"] >= space["max"]):
            raise ValueError("it has no values to choose from")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: parameters.{name} is {space!r}: {error}") from None


def choose_engine(arguments):
    """`wandb` or `local`, decided within 5 s and said on stderr; `UserError` where W&B is asked for in vain."""
    if arguments.sweep_id and (arguments.sweep_id.count("/") != 2 or not all(arguments.sweep_id.split("/"))):
        raise UserError(
            f"--sweep-id {arguments.sweep_id} is not complete; expected ENTITY/PROJECT/ID, as W&B prints it"
        )
    if arguments.engine == "local":
        if arguments.sweep_id:
            raise UserError("--sweep-id belongs to W&B; leave out --engine local")
        return "local"
    if arguments.storage:
        if arguments.engine == "wandb" or arguments.sweep_id:
            raise UserError("--storage belongs to a local sweep; leave out --engine wandb and --sweep-id")
        return "local"
    obstacle = tracking.obstacle()
    if obstacle is None:
        say("sweep on Weights & Biases: logged in and reachable")
        return "wandb"
    if arguments.engine == "wandb" or arguments.sweep_id:
        raise UserError(f"no sweep on Weights & Biases: {obstacle}; or pass --engine local")
    say(f"sweep on this machine, since there is no Weights & Biases: {obstacle}")
    return "local"


def prepared_path(recipe, table):
    """Where `prepare` keeps its file: a name that tells recordings, labels, split, images and weights apart."""
    settings = {key: value for key, value in dataclasses.asdict(recipe).items() if key not in (*TUNABLE, "labels")}
    if Path(recipe.weights).is_file():
        settings["weights"] = hashlib.sha256(Path(recipe.weights).read_bytes()).hexdigest()
    key = hashlib.sha256(f"{json.dumps(settings)} {dataset.digest(table)}".encode())
    return Path("data/features") / f"sweep-{key.hexdigest()[:16]}.npz"


def prepare(recipe, data):
    """Path of an .npz file with the frozen features and class numbers of the training and validation part.

    Computed once and then shared by all runs, workers and agents that see the folder.
    """
    table = dataset.read_recordings(data, recipe.labels)
    path = prepared_path(recipe, table)
    if path.exists():
        return path

    import numpy as np

    import model
    import preprocessing

    table["split"] = dataset.split(table, recipe.split_seed, recipe.seed)
    dataset.write_split(table)
    parts = {part: table[table.split == part] for part in ("train", "validation")}
    images = {part: preprocessing.Images(rows.signal, rows.sampling_rate, recipe) for part, rows in parts.items()}
    base = model.build(recipe, images["train"][: model.BATCH]).base
    arrays = {}
    for part, rows in parts.items():
        arrays[f"{part}_features"] = model.frozen_features(base, images[part], f"features, {part} part")
        arrays[f"{part}_labels"] = rows.label.map(recipes.CLASSES.index).to_numpy()
    with writing(path) as temporary:
        np.savez(temporary, **arrays)
    return path


def train(prepared, recipe, tracker):
    """Train one head; return its best and last scores (dict of float) and the seconds it took."""
    import numpy as np

    import model
    import training
    from f1_sweeping_callback import PhysioNetF1SweepCallback

    began = time.monotonic()
    with np.load(prepared, allow_pickle=False) as arrays:
        features, labels = arrays["train_features"], arrays["train_labels"]
        scorer = PhysioNetF1SweepCallback(arrays["validation_features"], arrays["validation_labels"], run=tracker)
    head = model.head(recipe, features.shape[1])
    history = training.train(head, features, labels, recipe, scorer, bar=False)
    best, last = history.loc[history.avg_F1_score.idxmax()], history.iloc[-1]
    model.keras.backend.clear_session()
    result = {f"best_{name}": float(best[name]) for name in METRICS}
    result |= {f"last_{name}": float(last[name]) for name in METRICS}
    return result | {"seconds": round(time.monotonic() - began, 2)}


def wandb_trial(prepared, recipe):
    """One run of a W&B sweep, with the settings its agent hands out; returns the exit status.

    A failure is told to W&B and does not leave this function, since an agent gives up after a few exceptions.
    """
    import wandb

    tracker = wandb.init(settings=tracking.settings(), project=os.environ.get("WANDB_PROJECT", tracking.PROJECT))
    try:
        given = dict(tracker.config)
        unknown = sorted(set(given) - set(TUNABLE))
        if unknown:
            raise UserError(f"the sweep's parameter {unknown[0]} is not a setting of the training")
        tracker.config.update({key: getattr(recipe, key) for key in ("labels", "seed", "weights")})
        result = train(prepared, dataclasses.replace(recipe, **given), tracker)
    except Exception as error:
        say(f"run {tracker.id} failed: {error}")
        tracker.finish(exit_code=1)
        return 1
    tracker.log({}, commit=True)  # the last epoch's row, which would else overwrite the summary
    # The sweep reads its metric from the summary, where the best epoch's stands for the run, as in main.py.
    tracker.summary.update(result | {name: result[f"best_{name}"] for name in METRICS})
    tracker.finish()
    return 0


def wandb_sweep(arguments, config, recipe, prepared):
    """Create or join a W&B sweep, run agents, and return its search and the rows of all its runs."""
    import wandb

    sweep = arguments.sweep_id
    with _wandb_errors(sweep):
        if sweep:
            config = wandb.Api().sweep(sweep).config
            check_config(config, f"sweep {sweep}")
        else:
            project = config.get("project") or os.environ.get("WANDB_PROJECT", tracking.PROJECT)
            identifier = wandb.sweep(config, project=project, entity=config.get("entity"))
            entity = config.get("entity") or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
            sweep = f"{entity}/{project}/{identifier}"
    print(
        f"sweep {sweep}; further agents, here or on other machines: "
        f"python sweeping.py --sweep-id {sweep}{_flags(_settings(arguments, recipe))}",
        flush=True,
    )
    finished = multiprocessing.get_context("spawn").Value("i", 0)
    share, rest = divmod(arguments.count, arguments.workers)
    counts = [share + (number < rest) for number in range(arguments.workers)]
    _in_processes(_agent, [(sweep, count, prepared, recipe, finished) for count in counts if count])
    if not finished.value:
        raise UserError(f"no run of sweep {sweep} finished here; its page on W&B shows why")
    rows = []
    with _wandb_errors(sweep):
        for record in wandb.Api().sweep(sweep).runs:
            settings = {name: record.config.get(name) for name in config["parameters"]}
            scores = {
                key: value for key, value in record.summary.items() if key.startswith(("best_", "last_", "seconds"))
            }
            rows.append({"run": record.name, "state": record.state, **settings, **scores})
    return config, rows


@contextlib.contextmanager
def _wandb_errors(sweep):
    """Turn what W&B refuses into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # its client raises many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"W&B refused the sweep{f' {sweep}' if sweep else ''}: {reason}") from error


def _agent(sweep, count, prepared, recipe, finished):
    import wandb

    def trial():
        if wandb_trial(prepared, recipe) == 0:
            with finished.get_lock():
                finished.value += 1

    wandb.agent(sweep, function=trial, count=count)


def _in_processes(target, jobs, watch=lambda: None):
    """Run `target` in a process for each of `jobs` (tuples of arguments), calling `watch` until all have ended."""
    context = multiprocessing.get_context("spawn")
    threads = str(max(1, (os.cpu_count() or 1) // len(jobs)))
    os.environ.update(TF_NUM_INTRAOP_THREADS=threads, OMP_NUM_THREADS=threads)
    processes = [context.Process(target=_process, args=(target, *job), daemon=True) for job in jobs]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            watch()
            time.sleep(0.3)
    finally:
        for process in processes:
            process.terminate()


def _process(target, *job):
    run(lambda: target(*job))


def local_sweep(arguments, config, recipe, prepared):
    """Run an Optuna study until it has `--count` finished runs; return the search and the rows of all its runs."""
    url = arguments.storage or f"sqlite:///sweeps/{arguments.run}.db"
    with _database_errors(url):
        study = open_study(url, arguments.run, config["method"], recipe.seed)
        made_with = {"parameters": config["parameters"], "metric": config["metric"], "features": prepared.name}
        if study.user_attrs.get("made_with", made_with) != made_with:
            raise UserError(
                f"the sweep {arguments.run} in {url} was made with other parameters, data or weights; "
                "pass another --run"
            )
        study.set_user_attr("made_with", made_with)
        done = sum(trial.state.is_finished() for trial in _counted(study))
        if done:
            say(f"continuing {arguments.run}: {done} of {arguments.count} runs are finished")
        with progress(arguments.count, "sweep", "run") as bar:

            def watch():
                _fail_stale(study)
                values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.value is not None]
                if values:
                    bar.set_postfix(best=f"{max(values):.3f}", refresh=False)
                bar.update(len(values) - bar.n)

            job = (url, arguments.run, config, recipe, prepared, arguments.count)
            # Workers on other machines count from 0 too, but must not draw what these draw.
            first = random.SystemRandom().randrange(2**31) if arguments.storage else 0
            _in_processes(_worker, [(*job, first + number) for number in range(arguments.workers)], watch)
            watch()
        trials = study.get_trials(deepcopy=False)
        if sum(trial.value is not None for trial in trials) < arguments.count:
            raise UserError(
                f"the workers stopped before {arguments.count} runs were finished; the same command continues the sweep"
            )
    constants = {name: space["value"] for name, space in config["parameters"].items() if "value" in space}
    rows = [
        {
            "run": trial.number,
            "state": trial.state.name.lower(),
            **constants,
            **trial.params,
            **trial.user_attrs.get("result", {}),
        }
        for trial in trials
        if trial.state.is_finished() and not trial.user_attrs.get("surplus")
    ]
    return config, rows


def sampler(method, seed):
    """What proposes a study's settings: for bayes the tree-structured Parzen estimator (Bergstra et al. 2011,
    "Algorithms for hyper-parameter optimization"), over all parameters jointly; for random, chance.
    """
    import optuna

    if method == "random":
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=8)


def open_study(url, name, method, seed):
    """The Optuna study `name` in the database `url`, created if absent; `method` is bayes (TPE) or random."""
    import optuna
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    local = url.startswith("sqlite")
    # SQLAlchemy's default driver for PostgreSQL changes with its version.
    address = url.replace("postgresql://", "postgresql+psycopg://", 1)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the heartbeat's
    for attempts_left in reversed(range(5)):
        try:
            storage = optuna.storages.RDBStorage(
                address,
                engine_kwargs={"connect_args": {"timeout": BUSY}} if local else {"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
            )
            break
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not attempts_left:  # else another machine is creating the same tables at this moment
                raise
            time.sleep(0.5)
    return optuna.create_study(
        storage=storage, study_name=name, sampler=sampler(method, seed), direction="maximize", load_if_exists=True
    )


def suggest(trial, parameters):
    """The settings of an Optuna `trial` in the search space `parameters` of a sweep file."""
    settings = {}
    for name, space in parameters.items():
        if "value" in space:
            settings[name] = space["value"]
        elif "values" in space:
            settings[name] = trial.suggest_categorical(name, space["values"])
        elif isinstance(space["min"], int) and isinstance(space["max"], int):
            settings[name] = trial.suggest_int(name, space["min"], space["max"])
        else:
            log = space.get("distribution") == "log_uniform_values"
            settings[name] = trial.suggest_float(name, space["min"], space["max"], log=log)
    return settings


def _worker(url, name, config, recipe, prepared, count, number):
    """Make runs of a local sweep until `count` are finished, in a process of its own."""
    import optuna

    with _database_errors(url):
        study = open_study(url, name, config["method"], 0)
        # A worker or a continuation that drew the same numbers as another would propose the same settings.
        study.sampler = sampler(config["method"], recipe.seed + 1000 * len(study.get_trials(deepcopy=False)) + number)
        failures = 0

        def note(_, trial):
            nonlocal failures
            if trial.state.name == "COMPLETE":
                failures = 0
            elif not trial.user_attrs.get("surplus"):
                failures += 1

        while failures < 3:
            _fail_stale(study)
            counted = _counted(study)
            if sum(trial.state.is_finished() for trial in counted) >= count:
                return
            if len(counted) >= count:  # the rest are in work elsewhere, where one of them may still be killed
                time.sleep(0.5)
                continue
            try:
                study.optimize(
                    lambda trial: _objective(study, trial, config, recipe, prepared, count),
                    n_trials=1,
                    catch=(Exception,),
                    callbacks=[note],
                )
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                say("a run was taken for dead while this machine slept; its result is lost")


class _Surplus(Exception):
    """Ends a trial that another process began at the same moment, when only one more was wanted."""


def _objective(study, trial, config, recipe, prepared, count):
    if sum(other.number < trial.number for other in _counted(study)) >= count:
        trial.set_user_attr("surplus", True)
        raise _Surplus
    settings = suggest(trial, config["parameters"])
    tracker = tracking.start_offline(f"{study.study_name}-{trial.number}", settings, study.study_name)
    try:
        result = train(prepared, dataclasses.replace(recipe, **settings), tracker)
    except BaseException as error:
        say(f"run {trial.number} failed: {error}")
        if tracker:
            tracker.finish(exit_code=1)
        raise
    if tracker:
        tracker.summary.update(result)
        tracker.finish()
    trial.set_user_attr("result", result)
    say(f"run {trial.number}: {config['metric']['name']} {result['best_' + config['metric']['name']]:.4f}, {settings}")
    return result[f"best_{config['metric']['name']}"]


def _counted(study):
    """The trials that are finished or in work."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "RUNNING")]


def _fail_stale(study):
    """Mark as failed the trials whose process has stopped giving signs of life."""
    import optuna

    optuna.storages.fail_stale_trials(study)


@contextlib.contextmanager
def _database_errors(url):
    """Turn what a database refuses into one sentence."""
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(f"the database {url} does not serve: {reason}; the same command continues the sweep") from error
    except ImportError as error:
        raise UserError(f"{url} needs a driver, for PostgreSQL: pip install 'psycopg[binary]'") from error


def finish(arguments, config, recipe, rows):
    """Write the rows and figures of a sweep, and print its best settings as a command line."""
    import pandas as pd

    import plotting

    name, metric = arguments.run, config["metric"]["name"]
    table = pd.DataFrame(rows)
    with writing(f"sweeps/{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    score = f"best_{metric}"
    finished = table.dropna(subset=score)
    searched = [parameter for parameter, space in config["parameters"].items() if "value" not in space]
    # A failed run without settings has turned a column of whole numbers into one of floats.
    types = {field.name: field.type for field in dataclasses.fields(Recipe) if field.name in config["parameters"]}
    finished = finished.astype(types)
    figures = f"figures/{name}"
    plotting.sweep_top_runs(finished, searched, score, f"{figures}/sweep_top_runs.png")
    plotting.sweep_importance(finished, searched, score, f"{figures}/sweep_importance.png")
    best = finished.loc[finished[score].idxmax()]
    print(
        f"{len(finished)} runs finished, best {metric} {best[score]:.4f} in run {best.run}; "
        f"wrote sweeps/{name}.csv and {figures}/sweep_top_runs.png, sweep_importance.png"
    )
    settings = {parameter: best[parameter] for parameter in types if parameter != "epochs"}
    print(f"next: python main.py{_flags(settings | _settings(arguments, recipe))} --run {name}-best")


def _settings(arguments, recipe):
    """What of labels, seed, weights and data is not the default."""
    settings = {key: getattr(recipe, key) for key in ("labels", "seed", "weights")}
    settings = {key: value for key, value in settings.items() if value != getattr(Recipe(), key)}
    return settings if arguments.data == dataset.DEFAULT_DATA else settings | {"data": arguments.data}


def _flags(settings):
    """`settings` as command-line flags, each after a space."""
    return "".join(f" --{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in settings.items())


if __name__ == "__main__":
    run(main)
