"""The sweep on this machine, or on several that share a database: Optuna's storage, samplers and pruners; workers."""

import contextlib
import functools
import multiprocessing
import os
import random
import re
import threading
import time
import uuid
import warnings
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.trial import TrialState

from shell import UserError, progress, run_script, say
from spaces import halving, refusals, suggest

DONE = TrialState.COMPLETE, TrialState.PRUNED
BEGUN = *DONE, TrialState.RUNNING
HEARTBEAT, GRACE = 4, 150  # seconds between a trial's signs of life, and without one until it counts as failed
# What tells the trials of a sweep from others, as a message has it.
MADE_WITH = {
    "parameters": "parameters",
    "metric": "metric",
    "early_terminate": "early_terminate",
    "repeats": "--repeats",
    "features": "recordings, labels, split or fixed settings",
}
AWAY = 120  # seconds to wait for a server that does not answer; below GRACE, so that its return finds all trials alive
BUSY = 60  # seconds to wait for an SQLite database that another worker is writing to, or creating
SERVER = sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError  # what is raised when it goes away
FAULTS = sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError
DATABASE_ERRORS = *FAULTS, ImportError


warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the heartbeat's


# ── The database ────────────────────────────────────────────────────────────────────────────────────────────────────


def address(url):
    """`url` with the driver that is installed; `UserError` for a database that is not supported."""
    # Of an SQLite database without a file, each process would have one of its own.
    if not re.match(r"postgresql(\+\w+)?://|sqlite:///(?!:memory:|file:|\?|$)", url):
        raise UserError(
            f"--storage {shown(url)} is no database that a sweep can use; pass sqlite:///FILE or "
            "postgresql://USER@HOST/NAME"
        )
    # SQLAlchemy's default driver for PostgreSQL changes with its version.
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def shown(url):
    """`url` without its password."""
    url = re.sub(r"(://[^/:]*:)[^@]*(?=@)", r"\1…", url)
    return re.sub(r"(?i)(\bpassword=)[^&]*", r"\1…", url)


def serving(url):
    """Turn what the database `url` raises into one sentence."""
    advice = ' (PostgreSQL needs pip install "psycopg[binary]")' if url.startswith("postgresql") else ""
    return refusals(f"the database {shown(url)} does not serve{advice}", *DATABASE_ERRORS)


def open_study(url, name, goal="maximize"):
    """The Optuna study `name` in the database `url`, created if absent, also while others create it."""
    options = {"connect_args": {"timeout": BUSY}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    signs = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE, "heartbeat_stale_trial_callback": _again}
    until = time.monotonic() + BUSY
    while True:
        try:
            storage = optuna.storages.RDBStorage(address(url), options, **signs)
            if not url.startswith("sqlite"):
                _make_patient(storage)
            return optuna.create_study(storage=storage, study_name=name, direction=goal, load_if_exists=True)
        except FAULTS as error:
            if not _is_being_created(error) or time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.05, 0.5))


def _is_being_created(error):
    """Whether another process creates the same tables, their types or their first rows at this moment."""
    reason = str(error.__cause__ or error).casefold()
    return any(sign in reason for sign in ("already exists", "unique constraint", "no such table", "undefinedtable"))


def _make_patient(storage):
    """Have every call of an `RDBStorage` wait up to `AWAY` seconds for a server that has gone away."""
    for name in dir(optuna.storages.RDBStorage):
        # Of the private ones these alone are called from outside; the others run inside a session that has failed.
        own = name in ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_stale_trial_ids")
        if (own or not name.startswith("_")) and callable(getattr(storage, name)):
            setattr(storage, name, _patient(getattr(storage, name)))


def _patient(call):
    @functools.wraps(call)
    def patient(*arguments, **options):
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                return call(*arguments, **options)
            except FAULTS as error:
                away = isinstance(error, SERVER) or isinstance(error.__cause__, SERVER)
                if not away or time.monotonic() - began > AWAY:
                    raise
                if pause == 0.5:
                    say(f"the database does not answer; waiting up to {AWAY} s for it")
                time.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, 8)

    return patient


# ── What is proposed, and what is stopped ───────────────────────────────────────────────────────────────────────────


def sampler(method, seed):
    """What proposes a study's settings: for bayes the tree-structured Parzen estimator (Bergstra et al. 2011,
    "Algorithms for hyper-parameter optimization"), over all parameters jointly; for random, chance alone.
    """
    if method == "random":
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=8)


def pruner(rule):
    """What stops trials by W&B's `early_terminate`, or nothing for None.

    Successive halving without waiting (Li et al. 2020, "A system for massively parallel hyperparameter tuning"), as
    W&B's hyperband is too: its brackets are one set of epochs, the same for all trials. It is always strict.
    """
    if rule is None:
        return optuna.pruners.NopPruner()
    first, eta, _ = halving(rule)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=eta)


# ── Trials ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def sweep(url, name, made_with, config, count, workers, seed, trial, shared, flags):
    """Make trials of the study `name` in the database `url` until `count` have ended; return the rows of all.

    made_with: what the trials have in common besides the sweep's parameters and metric; trial: a function of (number,
    settings, report) that makes one and returns its row, with `stopped_at` if report(epoch, score) had it stop; shared:
    whether other commands may take part; flags: those of main.py that all trials share.
    """
    made_with = {key: config[key] for key in ("parameters", "metric", "early_terminate") if key in config} | made_with
    with serving(url):
        study = open_study(url, name, config["metric"]["goal"])
        begun, before = study.get_trials(), study.user_attrs.get("made_with")
        if begun and not before:
            raise UserError(f"the study {name} in {shown(url)} is not of this program; pass another --run")
        if others := [told for key, told in MADE_WITH.items() if before and before.get(key) != made_with.get(key)]:
            raise UserError(
                f"the sweep in {shown(url)} was made with other {' and '.join(others)}; pass another --run, or "
                "--report to see it"
            )
        if study.direction.name.lower() != config["metric"]["goal"]:
            raise UserError(f"the study {name} in {shown(url)} was created for another goal; pass another --run")
        study.set_user_attr("made_with", made_with)
        study.set_user_attr("flags", flags)
        if not shared:
            _give_back(study, [each for each in begun if each.state == TrialState.RUNNING])  # a killed command's
        done = len(study.get_trials(states=DONE))
        if done:
            say(f"continuing {name}: {done} of {count} trials are finished")
        # Workers that drew the same numbers would propose the same settings.
        seed = random.SystemRandom().randrange(2**32) if shared else seed + 1000 * len(begun)
        names = [uuid.uuid4().hex for _ in range(min(workers, count - done))]
        jobs = [(url, name, config, count, (seed + place) % 2**32, trial, own) for place, own in enumerate(names)]
        with progress(count, "sweep", "trial") as bar:
            bar.initial = bar.n = done
            in_processes(
                _worker,
                jobs,
                lambda: bar.update(len(study.get_trials(states=DONE)) - bar.n),
                lambda place: _give_back(study, _of_worker(study, names[place])),
            )
        if len(study.get_trials(states=DONE)) < count:
            raise UserError(f"the workers stopped before {count} trials were finished; run the same command again")
        return rows(study)


def stored(url, name):
    """({parameters, metric …}, flags of main.py, rows) of the study `name` in the database `url`, as it is now."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise UserError(f"there is no sweep in {shown(url)}; make one, or pass its --run or --storage")
    with serving(url):
        storage = optuna.storages.RDBStorage(address(url))
        try:
            study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            raise UserError(f"there is no sweep {name} in {shown(url)}; pass its --run") from None
        if "made_with" not in study.user_attrs:
            raise UserError(f"the study {name} in {shown(url)} has no sweep of this program; pass its --run")
        return study.user_attrs["made_with"], study.user_attrs.get("flags", ""), rows(study)


def rows(study):
    """[{trial, state, its settings and scores}] of all trials that have ended."""
    return [
        {"trial": trial.number, "state": trial.state.name.lower(), **trial.user_attrs["row"]}
        for trial in study.get_trials()
        if trial.state.is_finished() and "row" in trial.user_attrs  # else it was one too many and drew no settings
    ]


def _worker(url, name, config, count, seed, trial, own):
    """Make trials of a sweep until `count` have ended, in a process of its own, which its trials know as `own`."""
    ended = []  # the states of the trials made here
    end = halving(config["early_terminate"])[2] if "early_terminate" in config else 0

    def objective(each):
        try:
            return made(each)
        except FAULTS as error:  # Optuna would pass over it in silence
            say(f"trial {each.number} failed: the database does not serve ({str(error.__cause__ or error)[:120]!r})")
            raise

    def made(each):
        # Two processes may begin a trial at the same moment, when only one more is wanted.
        if sum(other.number < each.number for other in study.get_trials(states=BEGUN)) >= count:
            raise RuntimeError("one trial too many")
        each.set_user_attr("worker", own)
        settings = suggest(each, config["parameters"])
        each.set_user_attr("row", settings)
        row = trial(each.number, settings, functools.partial(_report, each, end))
        each.set_user_attr("row", settings | row)
        if "stopped_at" in row:
            raise optuna.TrialPruned
        return row[f"best_{config['metric']['name']}"]

    with serving(url):
        study = open_study(url, name, config["metric"]["goal"])
        study.sampler, study.pruner = sampler(config["method"], seed), pruner(config.get("early_terminate"))
        while ended[-3:] != 3 * [TrialState.FAIL]:
            optuna.storages.fail_stale_trials(study)  # of a machine that went away
            if len(study.get_trials(states=DONE)) >= count:
                return
            if len(study.get_trials(states=BEGUN)) >= count:  # the rest are in work elsewhere, and may still fail
                time.sleep(0.5)
                continue
            try:
                note = [lambda _, each: ended.append(each.state)]
                study.optimize(objective, n_trials=1, catch=(Exception,), callbacks=note)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                say("a trial was taken for dead while this machine slept; its result is lost")
                ended.append(TrialState.FAIL)


def _report(trial, end, epoch, score):
    """Tell the study a trial's best score up to `epoch`; whether it should stop there, as it may before epoch `end`."""
    trial.report(score, epoch)
    return epoch < end and trial.should_prune()


def _of_worker(study, own):
    running = study.get_trials(states=(TrialState.RUNNING,))
    return [trial for trial in running if trial.user_attrs.get("worker") == own]


def _give_back(study, trials):
    """Have `trials` fail whose processes are dead, and their settings be tried again."""
    for trial in trials:
        with contextlib.suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another process did so
            study.tell(trial.number, state=TrialState.FAIL)
            _again(study, trial)


def _again(study, trial):
    """Queue the settings of a failed `trial` once more, unless they have failed so before."""
    trial.user_attrs = {}
    optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1)(study, trial)


# ── Processes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def in_processes(target, jobs, watch=lambda: None, died=lambda place: None):
    """Run `target` in a process for each of `jobs` (tuples of arguments), calling `watch` until all have ended.

    died: told the place of a job whose process was killed or failed.
    """
    context = multiprocessing.get_context("spawn")
    threads = str(max(1, (os.cpu_count() or 1) // max(1, len(jobs))))
    os.environ.update(TF_NUM_INTRAOP_THREADS=threads, OMP_NUM_THREADS=threads)
    processes = {
        place: context.Process(target=_process, args=(target, *job), daemon=True) for place, job in enumerate(jobs)
    }
    for process in processes.values():
        process.start()
    while processes:
        for place in [place for place, process in processes.items() if not process.is_alive()]:
            if processes.pop(place).exitcode:
                died(place)
        watch()
        time.sleep(0.3)


def _process(target, *job):
    parent = multiprocessing.parent_process()  # when it is killed, this ends too and does not go on unseen
    threading.Thread(target=lambda: parent.join() or os._exit(1), daemon=True).start()
    run_script(lambda: target(*job))
