"""The report's sweep: a Bayesian search over the head's settings, graded by the report's four-class F1.

    python sweeping.py                                  on W&B when logged in, else on this machine, without an account
    python sweeping.py --engine local --workers 2 --count 60
    python sweeping.py --sweep-id ENTITY/PROJECT/ID     join a W&B sweep
    python sweeping.py --config sweep-log.yaml --run log

Run the same command again to continue an interrupted local sweep. Writes sweeps/RUN.csv (one row a trial) and
figures/RUN/: sweep_top_runs.png (Figure 3) and sweep_importance.png, and prints the best settings as a command line
for main.py.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import re
import shlex
import threading
import time
import warnings
from hashlib import sha256
from pathlib import Path

import optuna
import pandas as pd
import sqlalchemy.exc
import yaml
from optuna.trial import TrialState

import dataset
import recipes
import runs
import tracking
from recipes import Recipe
from scoring import SCORES
from shell import UserError, make_folders, parser, progress, run_name, run_script, say, writing

FIXED = ("labels", "seed", "backbone", "weights")  # the settings that are the same in all trials
TUNABLE = {name: Recipe.__annotations__[name] for name in recipes.settings("head", "training")}  # with their types
KEYS = ("program", "command", "name", "description", "project", "entity", "method", "metric", "parameters")
SPACES = "value, values, or min and max with distribution int_uniform (whole numbers), uniform or log_uniform_values"
LENIENT = Recipe(schedule="cosine")  # which lets every other setting have all its values
DONE, BEGUN = (TrialState.COMPLETE,), (TrialState.COMPLETE, TrialState.RUNNING)
HEARTBEAT, GRACE = 4, 20  # seconds between a local trial's signs of life, and without one until it counts as failed
BUSY = 60  # seconds to wait for an SQLite database that another worker is writing to
DATABASE_ERRORS = sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the heartbeat's


def main():
    arguments, recipe = parse()
    config = read_config(arguments.config)
    if arguments.trial:
        return wandb_trial(prepare(recipe, arguments.data)[0], recipe)
    engine = choose_engine(arguments.engine, arguments.sweep_id, arguments.storage)
    make_folders("sweeps", "data/features", f"figures/{arguments.run}")
    fixed = recipe.changes | ({"data": arguments.data} if arguments.data != dataset.DEFAULT_DATA else {})
    shared = engine == "wandb" or arguments.storage  # others may take part, also from this folder
    alone = runs.lock(Path(f"sweeps/{arguments.run}.lock"), f"sweep {arguments.run}")
    with contextlib.nullcontext() if shared else alone:
        features, fingerprint = prepare(recipe, arguments.data)
        job = config, recipe, features, arguments.count, arguments.workers
        if engine == "wandb":
            config, rows = wandb_sweep(arguments.sweep_id, flag_text(fixed), *job)
        else:
            rows = local_sweep(arguments.storage, arguments.run, fingerprint, *job)
    best = finish(arguments.run, config, rows)
    print(f"next: python main.py{flag_text(best | fixed)} --run {arguments.run}-best")


def parse():
    """(the flags, the recipe that all trials start from)."""
    flags = parser(__doc__)
    add = flags.add_argument
    add("--engine", choices=("auto", "wandb", "local"), default="auto", help="where the search runs")
    add("--count", type=int, default=30, metavar="N", help="trials: of this agent, or of the whole local sweep")
    add("--sweep-id", metavar="ENTITY/PROJECT/ID", help="W&B sweep to join")
    add("--workers", type=int, default=1, metavar="N", help="processes on this machine")
    add("--storage", metavar="URL", help="database of a local sweep (default: sqlite:///sweeps/RUN.db)")
    add("--config", type=Path, default=Path(__file__).with_name("sweep.yaml"), metavar="FILE", help="the sweep file")
    add("--data", type=Path, default=dataset.DEFAULT_DATA, metavar="PATH", help="zip or folder of recordings")
    add("--run", type=run_name, default="sweep", metavar="NAME", help="name of the sweep's files")
    add("--trial", action="store_true", help="make one trial for the W&B agent that calls this")
    recipes.add_flags(flags, FIXED)
    arguments = flags.parse_args()
    recipe = recipes.from_flags(flags, arguments)
    if arguments.count < 1 or arguments.workers < 1:
        flags.error("--count and --workers must be above 0")
    if recipe.streams or recipe.vote:
        flags.error(f"the sweep trains heads on a frozen base, which the recipe {recipe.title} does not have")
    return arguments, recipe


def finish(name, config, rows):
    """Write the rows and figures of a sweep; return its best settings, {name: value}."""
    import plotting

    metric, score = config["metric"]["name"], f"best_{config['metric']['name']}"
    table = pd.DataFrame(rows)
    with writing(f"sweeps/{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    # A failed trial without settings has turned a column of whole numbers into one of floats.
    finished = table.dropna(subset=score).astype({parameter: TUNABLE[parameter] for parameter in config["parameters"]})
    searched = [parameter for parameter, space in config["parameters"].items() if "value" not in space]
    plotting.sweep_top_runs(finished, searched, score, f"figures/{name}/sweep_top_runs.png")
    plotting.sweep_importance(finished, searched, score, f"figures/{name}/sweep_importance.png")
    best = finished.loc[finished[score].idxmax()]
    print(
        f"{len(finished)} trials finished, best {metric} {best[score]:.4f} in trial {best.trial}; "
        f"wrote sweeps/{name}.csv and figures/{name}/sweep_top_runs.png, sweep_importance.png"
    )
    return {parameter: best[parameter] for parameter in TUNABLE if parameter in {*config["parameters"]} - {"epochs"}}


def flag_text(settings):
    """`settings` as command-line flags, each after a space."""
    return "".join(f" --{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in settings.items())


# ── The search ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_config(path):
    """The search in a W&B sweep file (YAML), as a dict. Raises `UserError` naming the key that is wrong."""
    with refusals(f"cannot read {path} as YAML", OSError, yaml.YAMLError, UnicodeDecodeError):
        config = yaml.safe_load(path.read_text())
    check_config(config, path)
    return config


def check_config(config, where):
    """Raise `UserError`, naming `where` and the key, unless `config` is a sweep that the training understands."""

    def require(condition, otherwise):
        if not condition:
            raise UserError(f"{where}: {otherwise}")

    require(isinstance(config, dict), "this is not a sweep, which has the keys method, metric and parameters")
    for key in config:
        require(key in KEYS, f"unknown key {key!r}; a sweep has {', '.join(KEYS)}")
    method, metric, parameters = config.get("method"), config.get("metric"), config.get("parameters")
    require(method in ("bayes", "random"), f"method is {method!r}; expected bayes or random")
    known = [{"name": score, "goal": "maximize"} for score in SCORES]
    require(metric in known, f"metric is {metric!r}; expected goal: maximize and a name of {', '.join(SCORES)}")
    require(isinstance(parameters, dict) and parameters, "parameters is missing or empty")
    first = {}
    for name, space in parameters.items():
        require(name in TUNABLE, f"parameters.{name} is not a setting of the training; these are {', '.join(TUNABLE)}")
        require(isinstance(space, dict), f"parameters.{name} is {space!r}; expected {SPACES}")
        values = space.get("values", [space[key] for key in ("value", "min", "max") if key in space])
        with refusals(f"{where}: parameters.{name} is {space!r}; expected {SPACES}", ValueError, TypeError):
            for value in values:
                dataclasses.replace(LENIENT, **{name: value})
            dataclasses.replace(LENIENT, **suggest(optuna.create_study().ask(), {name: space}))
            first[name] = values[0]
    require(any("value" not in space for space in parameters.values()), "parameters has nothing to search")
    with refusals(f"{where}: parameters do not go together", ValueError):
        dataclasses.replace(Recipe(), **first)


def choose_engine(engine, sweep, storage):
    """By these flags `wandb` or `local`, decided within 5 s and said; `UserError` where W&B is asked for in vain."""
    if sweep and not re.fullmatch(r"[^/]+/[^/]+/[^/]+", sweep):
        raise UserError(f"--sweep-id {sweep} is not complete; expected ENTITY/PROJECT/ID, as W&B prints it")
    if (sweep or engine == "wandb") and (storage or engine == "local"):
        raise UserError("--sweep-id and --engine wandb belong to W&B, --storage and --engine local do not; choose one")
    if storage or engine == "local":
        return "local"
    obstacle = tracking.obstacle()
    if obstacle and (engine == "wandb" or sweep):
        raise UserError(f"no sweep on Weights & Biases: {obstacle}; or pass --engine local")
    if obstacle:
        say(f"sweep on this machine, since there is no Weights & Biases: {obstacle}")
        return "local"
    say("sweep on Weights & Biases: logged in and reachable")
    return "wandb"


# ── One trial ───────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare(recipe, data):
    """(`training.Prepared` without its models, fingerprint): the features of `data`, which all trials share."""
    import training

    table = dataset.read_recordings(data, recipe.labels)
    table["split"] = dataset.split(table, recipe.split_seed, recipe.seed)
    dataset.write_split(table)
    # What the features are of, and not they or their files' names, is the same on another machine of the sweep.
    weights = Path(recipe.weights)
    content = sha256(weights.read_bytes()).hexdigest() if weights.is_file() else recipe.weights
    fingerprint = training.fingerprint(table, dataclasses.replace(recipe, labels="", weights=content))
    return training.prepare(table, recipe)._replace(network=None, trained=None), fingerprint


def train(name, features, recipe, settings, tracker):
    """Train one head by `recipe` with the `settings` of the trial `name`; return its scores and the seconds it took.

    tracker: a W&B run, which is told all and ended, also where the trial fails; or None.
    """
    began = time.monotonic()
    try:
        import model
        import training
        from f1_sweeping_callback import PhysioNetF1SweepCallback

        if unknown := sorted(set(settings) - set(TUNABLE)):
            raise UserError(f"the sweep's parameter {unknown[0]} is not a setting of the training")
        recipe = dataclasses.replace(recipe, **settings)
        scorer = PhysioNetF1SweepCallback(features.validation, features.validation_labels, tracker=tracker)
        head = model.head(recipe, features.inputs.shape[1])
        history = training.fit(head, features.inputs, features.labels, recipe, scorer, bar=False)
    except BaseException as error:
        say(f"trial {name} failed: {error}")
        if tracker:
            tracker.finish(exit_code=1)
        raise
    model.keras.backend.clear_session()
    rows = {"best": history.loc[history.avg_F1_score.idxmax()], "last": history.iloc[-1]}
    result = {f"{which}_{score}": float(row[score]) for which, row in rows.items() for score in SCORES}
    result["seconds"] = round(time.monotonic() - began, 2)
    if tracker:
        tracker.log({}, commit=True)  # the last epoch's row, which would else overwrite the summary
        # A sweep reads its metric from the summary, where the best epoch's stands for the run, as in main.py.
        tracker.summary.update(result | {score: result[f"best_{score}"] for score in SCORES})
        tracker.finish()
    return result


def in_processes(target, jobs, watch=lambda: None):
    """Run `target` in a process for each of `jobs` (tuples of arguments), calling `watch` until all have ended."""
    context = multiprocessing.get_context("spawn")
    threads = str(max(1, (os.cpu_count() or 1) // max(1, len(jobs))))
    os.environ.update(TF_NUM_INTRAOP_THREADS=threads, OMP_NUM_THREADS=threads)
    processes = [context.Process(target=_process, args=(target, *job), daemon=True) for job in jobs]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        watch()
        time.sleep(0.3)


def _process(target, *job):
    parent = multiprocessing.parent_process()  # when it is killed, this ends too and does not go on unseen
    threading.Thread(target=lambda: parent.join() or os._exit(1), daemon=True).start()
    run_script(lambda: target(*job))


@contextlib.contextmanager
def refusals(what, *kinds):
    """Turn exceptions of these `kinds`, by which a server or database refuses `what`, into one sentence."""
    try:
        yield
    except kinds as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(f"{what}: {reason}") from error


# ── On Weights & Biases ─────────────────────────────────────────────────────────────────────────────────────────────


def wandb_trial(features, recipe):
    """One trial of a W&B sweep, with the settings its agent hands out; returns the exit status."""
    import wandb

    tracker = wandb.init(settings=tracking.settings(), project=os.environ.get("WANDB_PROJECT", tracking.PROJECT))
    settings = dict(tracker.config)
    tracker.config.update({key: getattr(recipe, key) for key in FIXED})
    try:
        train(tracker.id, features, recipe, settings, tracker)
    except Exception:  # it is told, here and to W&B; an agent gives up after a few
        return 1
    return 0


def wandb_sweep(sweep, command_line, config, recipe, features, count, workers):
    """Create a W&B sweep by `config` or join `sweep`, run agents, and return its search and the rows of its trials.

    command_line: the flags that further agents need.
    """
    import wandb

    with refusals(f"W&B refused the sweep{f' {sweep}' if sweep else ''}", Exception):  # its client raises many kinds
        if sweep:
            config = wandb.Api().sweep(sweep).config
        else:
            project = config.get("project") or os.environ.get("WANDB_PROJECT", tracking.PROJECT)
            identifier = wandb.sweep(config, project=project, entity=config.get("entity"))
            entity = config.get("entity") or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
            sweep = f"{entity}/{project}/{identifier}"
    check_config(config, f"sweep {sweep}")
    wandb.teardown()  # else the agents share this process's service, which they end with a traceback
    again = f"python sweeping.py --sweep-id {sweep}{command_line}"
    print(f"sweep {sweep}; further agents, here or on other machines: {again}", flush=True)
    finished = multiprocessing.get_context("spawn").Event()
    shares = [len(range(place, count, workers)) for place in range(min(workers, count))]
    in_processes(_agent, [(sweep, share, features, recipe, finished) for share in shares])
    if not finished.is_set():
        raise UserError(f"no trial of sweep {sweep} finished here; its page on W&B shows why")
    rows = []
    with refusals(f"W&B refused the trials of sweep {sweep}", Exception):
        for record in wandb.Api().sweep(sweep).runs:
            settings = {name: record.config.get(name) for name in config["parameters"]}
            scores = {key: value for key, value in record.summary.items() if re.match("best_|last_|seconds", key)}
            rows.append({"trial": record.name, "state": record.state, **settings, **scores})
    return config, rows


def _agent(sweep, count, features, recipe, finished):
    import wandb

    wandb.agent(sweep, lambda: wandb_trial(features, recipe) == 0 and finished.set(), count=count)


# ── On this machine, or on several that share a database ───────────────────────────────────────────────────────────


def local_sweep(storage, name, fingerprint, config, recipe, features, count, workers):
    """Make trials of the Optuna study `name` until `count` are finished; return the rows of all its trials.

    storage: the address of a database that other processes may use too, or None for a file of this sweep alone;
    fingerprint: of what the `features` were made from.
    """
    url = storage or f"sqlite:///sweeps/{name}.db"
    made_with = {"parameters": config["parameters"], "metric": config["metric"], "features": fingerprint}
    with refusals(f"the database {url} does not serve", *DATABASE_ERRORS):
        study = open_study(url, name)
        if study.user_attrs.get("made_with", made_with) != made_with:
            raise UserError(f"the sweep in {url} was made with other parameters, data or weights; pass another --run")
        study.set_user_attr("made_with", made_with)
        begun = study.get_trials()
        for trial in begun:
            if trial.state == TrialState.RUNNING and not storage:  # a killed process's
                study.tell(trial.number, state=TrialState.FAIL)
        done = len(study.get_trials(states=DONE))
        if done:
            say(f"continuing {name}: {done} of {count} trials are finished")
        # Workers that drew the same numbers would propose the same settings.
        seed = random.SystemRandom().randrange(2**31) if storage else recipe.seed + 1000 * len(begun)
        job = url, name, config, recipe, features, count
        jobs = [(*job, (seed + place) % 2**32) for place in range(min(workers, count - done))]
        with progress(count, "sweep", "trial") as bar:
            bar.initial = bar.n = done
            in_processes(_worker, jobs, lambda: bar.update(len(study.get_trials(states=DONE)) - bar.n))
        trials = study.get_trials()
        if len(study.get_trials(states=DONE)) < count:
            raise UserError(f"the workers stopped before {count} trials were finished; run the same command again")
    return [
        {"trial": trial.number, "state": trial.state.name.lower(), **trial.user_attrs["row"]}
        for trial in trials
        if trial.state.is_finished() and "row" in trial.user_attrs  # else it was one too many and drew no settings
    ]


def open_study(url, name):
    """The Optuna study `name` in the database `url`, created if absent."""
    # SQLAlchemy's default driver for PostgreSQL changes with its version.
    address = url.replace("postgresql://", "postgresql+psycopg://", 1)
    options = {"connect_args": {"timeout": BUSY}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    signs = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
    try:
        storage = optuna.storages.RDBStorage(address, options, **signs)
    except sqlalchemy.exc.DatabaseError as error:
        if isinstance(error, sqlalchemy.exc.OperationalError) and "already exists" not in str(error):
            raise
        time.sleep(2)  # another process is creating the same tables at this moment
        storage = optuna.storages.RDBStorage(address, options, **signs)
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


def sampler(method, seed):
    """What proposes a study's settings: for bayes the tree-structured Parzen estimator (Bergstra et al. 2011,
    "Algorithms for hyper-parameter optimization"), over all parameters jointly; for random, chance alone.
    """
    if method == "random":
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=8)


def suggest(trial, parameters):
    """The settings of an Optuna `trial` in the `parameters` of a sweep file; `ValueError` where these are none."""
    settings = {}
    for name, space in parameters.items():
        match space:
            case {"value": value, **rest} if not rest:
                settings[name] = value
            case {"values": [*values], **rest} if not rest:
                settings[name] = trial.suggest_categorical(name, values)
            case {"min": int(low), "max": int(high), **rest} if rest in ({}, {"distribution": "int_uniform"}):
                settings[name] = trial.suggest_int(name, low, high)
            case {"min": low, "max": high, **rest} if rest in ({}, {"distribution": "uniform"}):
                settings[name] = trial.suggest_float(name, low, high)
            case {"min": low, "max": high, "distribution": "log_uniform_values", **rest} if not rest:
                settings[name] = trial.suggest_float(name, low, high, log=True)
            case _:
                raise ValueError("unknown keys or distribution")
    return settings


def _worker(url, name, config, recipe, features, count, seed):
    """Make trials of a local sweep until `count` are finished, in a process of its own."""
    ended = []  # the states of the trials made here

    def objective(trial):
        # Two processes may begin a trial at the same moment, when only one more is wanted.
        if sum(other.number < trial.number for other in study.get_trials(states=BEGUN)) >= count:
            raise RuntimeError("one trial too many")
        settings = suggest(trial, config["parameters"])
        trial.set_user_attr("row", settings)
        tracker = tracking.start_offline(f"{name}-{trial.number}", settings, name)
        result = train(trial.number, features, recipe, settings, tracker)
        trial.set_user_attr("row", settings | result)
        metric = config["metric"]["name"]
        say(f"trial {trial.number}: {metric} {result[f'best_{metric}']:.4f}, {settings}")
        return result[f"best_{metric}"]

    with refusals(f"the database {url} does not serve", *DATABASE_ERRORS):
        study = open_study(url, name)
        study.sampler = sampler(config["method"], seed)
        while ended[-3:] != 3 * [TrialState.FAIL]:
            optuna.storages.fail_stale_trials(study)  # a killed worker's
            if len(study.get_trials(states=DONE)) >= count:
                return
            if len(study.get_trials(states=BEGUN)) >= count:  # the rest are in work elsewhere, and may still fail
                time.sleep(0.5)
                continue
            try:
                note = [lambda _, trial: ended.append(trial.state)]
                study.optimize(objective, n_trials=1, catch=(Exception,), callbacks=note)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                say("a trial was taken for dead while this machine slept; its result is lost")
                ended.append(TrialState.FAIL)


if __name__ == "__main__":
    run_script(main)
