"""The search for settings: the report's sweep of its head, and that of any recipe, graded on the validation split.

    python sweeping.py                                  on W&B when logged in, else on this machine, without an account
    python sweeping.py --engine local --workers 2 --count 60
    python sweeping.py --sweep-id ENTITY/PROJECT/ID     join a W&B sweep
    python sweeping.py --config sweep-log.yaml --run log
    python sweeping.py --recipe improved --config sweep-improved.yaml --run improved
    python sweeping.py --recipe improved --config sweep-trees.yaml --run trees
    python sweeping.py --report                         draw again from the trials that there are

Run the same command again to continue an interrupted local sweep. Writes sweeps/RUN.csv (one row a trial, the best
first) and figures/RUN/: sweep_top_runs.png (Figure 3), sweep_importance.png, sweep_progress.png, sweep_slices.png and
sweep_contour.png, and prints the best settings as a command line for main.py.
"""

import contextlib
import functools
import math
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import namedtuple
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

import dataset
import recipes
import runs
import scoring
import spaces
import studies
import tracking
from shell import UserError, make_folders, parser, run_name, run_script, say, writing
from spaces import GOALS, TUNABLE, refusals

DEFAULT_CONFIG = Path(__file__).with_name("sweep.yaml")
FIXED = ("labels", "seed", "backbone", "weights")  # which a trial on W&B also shows
# What a sweep file fixes for short trials, and a full training does not take from it.
SHORT = "epochs", "weight_average"
FIGURES = ("top_runs", "importance", "progress", "slices", "contour")

# What all trials share: kind, as `spaces.kind` has it; learn, a function of (recipe, tracker) that trains once and
# tells the tracker the scores of each epoch; recipe, from which trials start; metric, by which they are graded;
# repeats, trainings of a trial.
Task = namedtuple("Task", "kind learn recipe metric repeats")


def main():
    arguments, recipe = parse()
    if arguments.report:
        config, rows, flags = stored(arguments, recipe)
        return finish(arguments.run, config, rows, flags)
    config = spaces.read(arguments.config, recipe)
    if arguments.trial:
        signal.signal(signal.SIGTERM, stop)  # by which W&B's agent ends a trial early
        return wandb_trial(prepare(recipe, arguments.data, config, arguments.repeats)[0])
    engine = choose_engine(arguments.engine, arguments.sweep_id, arguments.storage)
    make_folders("sweeps", "data/features", f"figures/{arguments.run}")
    flags = fixed_flags(recipe, arguments.data)
    url = database(arguments.storage, arguments.run)
    own = Path(url.removeprefix("sqlite:///")).resolve() == Path(f"sweeps/{arguments.run}.db").resolve()
    shared = engine == "wandb" or not own  # others may take part, also from this folder
    alone = runs.lock(Path(f"sweeps/{arguments.run}.lock"), f"sweep {arguments.run}")
    with contextlib.nullcontext() if shared else alone:
        task, made_with = prepare(recipe, arguments.data, config, arguments.repeats)
        job = config, arguments.count, arguments.workers
        if engine == "wandb":
            config, rows = wandb_sweep(arguments.sweep_id, task, agent_flags(arguments, flags), *job)
        else:
            trial = functools.partial(local_trial, arguments.run, task)
            rows = studies.sweep(url, arguments.run, made_with, *job, recipe.seed, trial, shared, flags)
    finish(arguments.run, config, rows, flags)


def parse():
    """(the flags, the recipe that all trials start from)."""
    flags = parser(__doc__)
    add = flags.add_argument
    add("--engine", choices=("auto", "wandb", "local"), default="auto", help="where the search runs")
    add("--count", type=int, default=30, metavar="N", help="trials: of this agent, or of the whole local sweep")
    add("--repeats", type=int, default=1, metavar="N", help="trainings of a trial, each with a seed of its own")
    add("--sweep-id", metavar="ENTITY/PROJECT/ID", help="W&B sweep to join")
    add("--workers", type=int, default=1, metavar="N", help="processes on this machine")
    add("--storage", metavar="URL", help="database of a local sweep (default: sqlite:///sweeps/RUN.db)")
    add("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="the sweep file")
    add("--data", type=Path, default=dataset.DEFAULT_DATA, metavar="PATH", help="zip or folder of recordings")
    add("--run", type=run_name, default="sweep", metavar="NAME", help="name of the sweep's files")
    add("--report", action="store_true", help="make no trial; table and figures of those that there are")
    add("--trial", action="store_true", help="make one trial for the W&B agent that calls this")
    recipes.add_flags(flags)
    arguments = flags.parse_args()
    recipe = recipes.from_flags(flags, arguments)
    if min(arguments.count, arguments.workers, arguments.repeats) < 1:
        flags.error("--count, --workers and --repeats must be above 0")
    if arguments.storage:
        studies.address(arguments.storage)
    return arguments, recipe


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


def fixed_flags(recipe, data):
    """The flags of main.py that stand for what is the same in all trials."""
    name = {"recipe": recipe.name} if recipe.name != "paper" else {}
    return recipes.as_flags(name | recipe.changes | ({"data": data} if data != dataset.DEFAULT_DATA else {}))


def agent_flags(arguments, flags):
    """The flags that further agents of a W&B sweep need: those `flags`, and what else decides what a trial is."""
    chosen = {"repeats": arguments.repeats} if arguments.repeats > 1 else {}
    chosen |= {"config": arguments.config} if arguments.config != DEFAULT_CONFIG else {}
    return flags + recipes.as_flags(chosen)


def database(storage, name):
    """The address of the database of the local sweep `name`: `storage`, or a file of this sweep alone."""
    return storage or f"sqlite:///sweeps/{name}.db"


# ── Results ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def stored(arguments, recipe):
    """(search, rows of the trials, flags of main.py) of a sweep that was made before, or that is in work."""
    if arguments.sweep_id:
        choose_engine("wandb", arguments.sweep_id, arguments.storage)
        return *wandb_results(arguments.sweep_id, recipe), fixed_flags(recipe, arguments.data)
    config, flags, rows = studies.stored(database(arguments.storage, arguments.run), arguments.run)
    return config, rows, flags


def finish(name, config, rows, flags):
    """Write the table and figures of a sweep, and print what it found and what to run next."""
    metric, goal, parameters = config["metric"]["name"], config["metric"]["goal"], config["parameters"]
    score, lowest = f"best_{metric}", goal == "minimize"
    if not any(score in row and "stopped_at" not in row for row in rows):
        raise UserError(f"no trial of the sweep {name} has finished yet")
    table = pd.DataFrame(rows).reindex(columns=list(dict.fromkeys(key for row in rows for key in row)))
    stopped = table.state == "pruned"
    order = table.assign(stopped=stopped, value=table[score] * (1 if lowest else -1))
    table = table.loc[order.sort_values(["stopped", "value"], kind="stable").index]
    with writing(f"sweeps/{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    # A failed trial without settings has turned a column of whole numbers into one of floats.
    table = table.dropna(subset=score).astype({parameter: TUNABLE[parameter] for parameter in parameters})
    finished = table[table.state != "pruned"]
    draw(table, spaces.searched(parameters), score, lowest, f"figures/{name}")
    best = finished.iloc[0]
    print(
        f"{len(finished)} trials finished, {stopped.sum()} stopped early; best {metric} {best[score]:.4f} in trial "
        f"{best.trial}{luck(finished, metric)}; wrote sweeps/{name}.csv and figures/{name}/sweep_*.png"
    )
    short = {parameter for parameter in SHORT if "value" in parameters.get(parameter, {})}
    settings = {each: TUNABLE[each](best[each]) for each in TUNABLE if each in parameters.keys() - short}
    if short:
        say(f"note: the command leaves out what the file fixes for short trials: {', '.join(sorted(short))}")
    print(f"next: python main.py{recipes.as_flags(settings)}{flags} --run {name}-best")


def luck(finished, metric):
    """What is known of how far trials differ by their seeds alone, as the end of a sentence."""
    if f"sd_{metric}" not in finished:
        say("how far the same settings differ by luck is not known; --repeats 3 measures it, at three times the cost")
        return ""
    repeats = finished.trainings.fillna(1).to_numpy()  # one, where another agent was started without --repeats
    spread = np.sqrt((finished[f"sd_{metric}"] ** 2).mean())  # of one training
    behind = (finished[f"best_{metric}"] - finished[f"best_{metric}"].iloc[0]).abs().to_numpy()
    near = (behind <= 2 * spread * np.sqrt(1 / repeats + 1 / repeats[0])).sum() - 1
    return (
        f", the mean of {repeats[0]:.0f} training{'s' if repeats[0] > 1 else ''}; another seed changes a training by "
        f"{spread:.4f} (standard deviation), so {near} of the other trials may be as good"
    )


def draw(table, searched, score, lowest, folder):
    """Draw the `FIGURES` of a sweep.

    table: a row for each trial; one that was stopped early counts with the score that it had then, as W&B has it;
    searched: {parameter: whether on a logarithmic scale}; lowest: whether a low `score` is good.
    """
    import plotting

    path = f"{folder}/sweep_{{}}.png".format
    plotting.sweep_top_runs(table, searched, score, path("top_runs"), lowest=lowest)
    plotting.sweep_importance(table, searched, score, path("importance"))
    plotting.sweep_progress(table.sort_index(), score, path("progress"), lowest)
    plotting.sweep_slices(table, searched, score, path("slices"))
    plotting.sweep_contour(table, searched, score, path("contour"))


# ── One trial ───────────────────────────────────────────────────────────────────────────────────────────────────────


def stop(*_):
    raise tracking.Stopped


def prepare(recipe, data, config, repeats):
    """(`Task`, {name: value} of what tells its trials from those of another) of trials by `config` from `recipe`."""
    import training

    table = dataset.read_recordings(data, recipe.labels)
    table["split"] = dataset.split(table, recipe.split_seed, recipe.seed)
    dataset.write_split(table)
    # What the features are of, and not they or their files' names, is the same on another machine of the sweep.
    weights = Path(recipe.weights)
    content = sha256(weights.read_bytes()).hexdigest() if weights.is_file() else recipe.weights
    made_with = {"features": training.fingerprint(table, replace(recipe, labels="", weights=content, refit=False))}
    made_with |= {"repeats": repeats} if repeats > 1 else {}
    kind = spaces.kind(config, recipe)
    if kind == "trees":
        learn = functools.partial(learn_trees, *measured(table))
    elif kind == "head":
        learn = functools.partial(learn_head, training.prepare(table, recipe)._replace(network=None, trained=None))
    else:
        if not recipe.trains_base:
            say(f"note: each trial sends all images through the base of the recipe {recipe.name} again")
        learn = functools.partial(learn_network, table[table.split != "test"])
    return Task(kind, learn, recipe, config["metric"]["name"], repeats), made_with


def measured(table):
    """The measured heartbeats and the labels of the training split, and those of the validation split."""
    import measuring

    parts = [table[table.split == split] for split in ("train", "validation")]
    return [
        each
        for rows in parts
        for each in (measuring.measure_all(rows.signal, rows.sampling_rate), dataset.labels(rows))
    ]


def learn_head(prepared, recipe, tracker):
    """Train a head on the features in `prepared`, a `training.Prepared` without its models."""
    import model

    _fit(prepared._replace(trained=model.head(recipe, prepared.inputs.shape[1])), recipe, tracker)


def learn_network(table, recipe, tracker):
    """Train a network on the recordings of `table`, from their images on."""
    import training

    _fit(training.prepare(table, recipe), recipe, tracker)


def _fit(prepared, recipe, tracker):
    import model
    import training
    from f1_sweeping_callback import PhysioNetF1SweepCallback

    chunk = 2 * model.BATCH if recipe.streams else 256
    scorer = PhysioNetF1SweepCallback(
        prepared.validation, prepared.validation_labels, chunk, tracker, owners=prepared.owners
    )
    try:
        training.fit(prepared.trained, prepared.inputs, prepared.labels, recipe, scorer, bar=False)
    finally:  # also where the trial is stopped: a hundred networks are more than memory holds
        model.keras.backend.clear_session()


def learn_trees(train, labels, validation, validation_labels, recipe, tracker):
    """Fit trees to the heartbeats `train`, `measuring.Measured`; they have one epoch."""
    import trees

    probabilities = trees.classify(trees.fit(train, labels, recipe), validation)
    scores = scoring.epoch_scores(scoring.confusion_matrix(validation_labels, probabilities.argmax(1)))
    tracker.log({"epoch": 1, "val_loss": scoring.log_loss(validation_labels, probabilities), **scores}, step=1)


def train(name, task, settings, tracker, report=lambda epoch, score: False):
    """Make the trial `name` of a `Task` with `settings`; return its scores and the seconds it took.

    tracker: a W&B run, which is told all of the first training and ended, also where the trial fails; or None. report:
    is told the best score up to an epoch of the first training, and whether to stop there; the result then has the
    epoch as `stopped_at`. Of several trainings the result has the means, and the metric's standard deviation.
    """
    began, histories, listener = time.monotonic(), [], tracking.Listener(tracker)

    def log(row, step):
        histories[-1].append(row)
        if len(histories) == 1:
            listener.log(row, step)
            late = report(step, scores(histories[0], recipe.best_epoch)[f"best_{task.metric}"])
            if late and step < last:
                raise tracking.Stopped

    try:
        if unknown := sorted(set(settings) - set(TUNABLE)):
            raise UserError(f"the sweep's parameter {unknown[0]} is not a setting of the training")
        recipe = replace(task.recipe, **settings)
        last = 1 if task.kind == "trees" else recipe.epochs
        for repeat in range(task.repeats):
            histories.append([])
            task.learn(replace(recipe, seed=(recipe.seed + repeat) % 2**32), SimpleNamespace(log=log))
    except BaseException as error:
        if not tracking.ends_trial(error) or not any(histories):
            say(f"trial {name} failed: {str(error) or type(error).__name__}")
            if tracker:
                with contextlib.suppress(Exception):
                    tracker.finish(exit_code=1)
            raise
        # What ends a trial may come when its first training has ended.
        histories[:] = [each for each in histories if len(each) == last] or histories[:1]
    stopped = {"stopped_at": len(histories[0])} if len(histories[0]) < last else {}
    if stopped:
        say(f"trial {name} stopped after epoch {len(histories[0])}: it does not keep up with the best")
    each = [scores(history, recipe.best_epoch) for history in histories]
    result = result_of(each, task.metric) | stopped | {"seconds": round(time.monotonic() - began, 2)}

    if tracker:
        tracking.hand_over(tracker, lambda: give(tracker, result))
    return result


def give(tracker, result):
    """Hand the result of a trial to its W&B run."""
    tracker.log({}, commit=True)  # the last epoch's row, which would else overwrite the summary
    # A sweep reads its metric from the summary, where the best epoch's stands for the run, as in main.py.
    tracker.summary.update(result | {score: result[f"best_{score}"] for score in GOALS})


def scores(history, best_epoch):
    """{best_SCORE, last_SCORE: value} of the rows of a training's epochs; the best is the one that main.py keeps.

    best_epoch: as the recipe has it. A loss that is NaN, of a training that diverged, is the largest there can be.
    """
    chosen = {"best": scoring.best_row(history, best_epoch), "last": history[-1]}
    values = {f"{which}_{score}": float(row[score]) for which, row in chosen.items() for score in GOALS}
    return {name: -math.log(scoring.LEAST) if math.isnan(value) else value for name, value in values.items()}


def result_of(each, metric):
    """The means of the `scores` of several trainings, and of `metric` the standard deviation."""
    each = pd.DataFrame(each)
    spread = {f"sd_{metric}": each[f"best_{metric}"].std(), "trainings": len(each)} if len(each) > 1 else {}
    return each.mean().to_dict() | {key: float(value) for key, value in spread.items()}


def local_trial(name, task, number, settings, report):
    """The trial `number` of the local sweep `name`: what `train` returns, also kept as an offline W&B run."""
    tracker = tracking.start_offline(f"{name}-{number}", settings, name)
    result = train(number, task, settings, tracker, report)
    say(f"trial {number}: {task.metric} {result[f'best_{task.metric}']:.4f}, {settings}")
    return result


# ── On Weights & Biases ─────────────────────────────────────────────────────────────────────────────────────────────


def wandb_trial(task):
    """One trial of a W&B sweep, with the settings its agent hands out; returns the exit status."""
    import wandb

    tracker = wandb.init(settings=tracking.settings(), project=os.environ.get("WANDB_PROJECT", tracking.PROJECT))
    settings = dict(tracker.config)
    tracker.config.update({key: getattr(task.recipe, key) for key in FIXED if key not in settings})
    try:
        train(tracker.id, task, settings, tracker)
    except Exception:  # it is told, here and to W&B; an agent gives up after a few
        return 1
    return 0


def wandb_sweep(sweep, task, flags, config, count, workers):
    """Create a W&B sweep by `config` or join `sweep`, run agents, and return its search and the rows of its trials.

    flags: those that further agents need.
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
    spaces.check(config, f"sweep {sweep}", task.recipe)
    task = task._replace(metric=config["metric"]["name"])
    if spaces.kind(config, task.recipe) != task.kind:
        raise UserError(f"sweep {sweep} is of other parameters than --config; pass the file that it was made of")
    wandb.teardown()  # else the agents share this process's service, which they end with a traceback
    again = f"python sweeping.py --sweep-id {sweep}{flags}"
    print(f"sweep {sweep}; further agents, here or on other machines: {again}", flush=True)
    finished = multiprocessing.get_context("spawn").Event()
    shares = [len(range(place, count, workers)) for place in range(min(workers, count))]
    studies.in_processes(_agent, [(sweep, share, task, finished) for share in shares])
    if not finished.is_set():
        raise UserError(f"no trial of sweep {sweep} finished here; its page on W&B shows why")
    return wandb_results(sweep, task.recipe)


def wandb_results(sweep, recipe):
    """(search, rows of the trials) of a W&B sweep, whose trials start from `recipe`."""
    import wandb

    rows = []
    with refusals(f"W&B refused the trials of sweep {sweep}", Exception):
        found = wandb.Api().sweep(sweep)
        spaces.check_names(found.config, f"sweep {sweep}", recipe)
        for record in sorted(found.runs, key=lambda record: record.created_at):
            settings = {name: record.config.get(name) for name in found.config["parameters"]}
            kept = "best_|last_|sd_|trainings|stopped_at|seconds"
            scores = {key: value for key, value in record.summary.items() if re.match(kept, key)}
            state = "pruned" if "stopped_at" in scores else record.state
            rows.append({"trial": record.name, "state": state, **settings, **scores})
        return found.config, rows


def _agent(sweep, count, task, finished):
    import wandb

    wandb.agent(sweep, lambda: wandb_trial(task) == 0 and finished.set(), count=count)
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())  # all is sent; its threads may end with tracebacks


if __name__ == "__main__":
    run_script(main)
