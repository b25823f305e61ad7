"""The sweep file: what is searched, by which method and metric; read as something that anyone may have written."""

import contextlib
import itertools
import math
import random
from dataclasses import replace

import optuna
import yaml

import recipes
import runs
from scoring import SCORES
from shell import UserError

KEYS = "program", "command", "name", "description", "project", "entity", "method", "metric", "parameters"
KEYS += ("early_terminate",)
GOALS = dict.fromkeys(SCORES, "maximize") | {"val_loss": "minimize"}  # of the metrics that every epoch has
SPACES = "value, values, or min and max with distribution int_uniform (whole numbers), uniform or log_uniform_values"
HALVING = "type: hyperband with min_iter, or max_iter and s, and if need be eta (3) and strict"
TREES = recipes.settings("trees")
HEAD = recipes.settings("head", "training")
# What changes a trial's score, each with its type; weights are a matter of what is at hand, and the vote over stretched
# recordings comes after the training.
TUNABLE = {
    name: recipes.Recipe.__annotations__[name]
    for name in [*recipes.settings("input", "conditioning", "image", "augmentation", "network"), *HEAD, *TREES]
    if name not in ("weights", "vote_stretch")
}
optuna.logging.set_verbosity(optuna.logging.ERROR)
LARGEST, DEEPEST = 64 * 1024, 12  # bytes of a sweep file, and levels in it
COMBINED = 1000  # combinations of values that are tried, of which a sweep may have any number


@contextlib.contextmanager
def refusals(what, *kinds):
    """Turn exceptions of these `kinds`, by which a server, database or file refuses `what`, into one sentence."""
    try:
        yield
    except kinds as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())[:200]
        raise UserError(f"{what}: {reason}") from error


def read(path, recipe):
    """The search in a W&B sweep file (YAML), as a dict. Raises `UserError` naming the key that is wrong."""
    with refusals(f"cannot read {path} as YAML", OSError, yaml.YAMLError, ValueError):
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST // 1024} KiB, which no sweep is")
        _check_structure(text)
        config = yaml.safe_load(text)
    check(config, path, recipe)
    return config


def _check_structure(text):
    """Raise `ValueError` where YAML would grow, nest or build objects beyond what a sweep has, without building it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if depth > DEEPEST:
            raise ValueError(f"line {line} is nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line} has the alias *{event.anchor}; write out what it stands for")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line} has the tag {event.tag}; a sweep has plain values")


def check(config, where, recipe):
    """Raise `UserError`, naming `where` and the key, unless `config` is a sweep of trials that start from `recipe`."""

    def require(condition, otherwise):
        if not condition:
            raise UserError(f"{where}: {otherwise}")

    require(isinstance(config, dict), "this is not a sweep, which has the keys method, metric and parameters")
    for key in config:
        require(key in KEYS, f"unknown key {shown(key)}; a sweep has {', '.join(KEYS)}")
    method = config.get("method")
    require(method in ("bayes", "random"), f"method is {shown(method)}; expected bayes or random")
    check_names(config, where, recipe)
    parameters = config["parameters"]
    if "early_terminate" in config:
        with refusals(
            f"{where}: early_terminate is {shown(config['early_terminate'])}; expected {HALVING}", ValueError
        ):
            halving(config["early_terminate"])
    values = {name: _check_space(name, space, where) for name, space in parameters.items()}
    require(any("value" not in space for space in parameters.values()), "parameters has nothing to search")
    kind(config, recipe, where)
    for settings in _combinations(values):
        if clash := _clash(recipe, settings):
            others = {name: [settings | {name: value} for value in values[name]] for name in settings}
            guilty = [name for name in others if not all(_clash(recipe, other) for other in others[name])]
            told = " and ".join(f"{name} {settings[name]}" for name in guilty) or "these parameters, with the recipe,"
            raise UserError(f"{where}: {told} cannot be used: {clash}")


def check_names(config, where, recipe):
    """Raise `UserError` unless `config` has a metric and parameters that trials from `recipe` can have.

    That is all that the report of a sweep needs, which may have been made otherwise than this program would.
    """
    metric, parameters = config.get("metric"), config.get("parameters")
    if metric not in [{"name": name, "goal": goal} for name, goal in GOALS.items()]:
        raise UserError(
            f"{where}: metric is {shown(metric)}; expected goal: maximize and a name of {', '.join(SCORES)}, or goal: "
            "minimize and name: val_loss"
        )
    if not isinstance(parameters, dict) or not parameters:
        raise UserError(f"{where}: parameters is missing or empty")
    for name, space in parameters.items():
        if name not in TUNABLE:
            raise UserError(
                f"{where}: parameters.{str(name)[:80]} is not a setting of the training; these are {', '.join(TUNABLE)}"
            )
        if not isinstance(space, dict):
            raise UserError(f"{where}: parameters.{name} is {shown(space)}; expected {SPACES}")
    if both := sorted(recipe.changes.keys() & parameters.keys()):
        raise UserError(f"{both[0]} is a flag and in {where}; take it out of one")


def _clash(recipe, settings):
    """Why `recipe` cannot have `settings`, or None."""
    try:
        runs.check_images(replace(recipe, **settings))
    except ValueError as error:
        return str(error)


def _combinations(values):
    """Settings of one of the `values` of each parameter: all, or `COMBINED` drawn ones."""
    if math.prod(map(len, values.values())) <= COMBINED:
        return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    draw = random.Random(0).choice
    return [{name: draw(choices) for name, choices in values.items()} for _ in range(COMBINED)]


def shown(value):
    """`value` as a message shows it, however long it is."""
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}…"


def _check_space(name, space, where):
    """The values of the parameter `name`, or their bounds; `UserError` unless it may have all of its `space`."""
    expected = f"{where}: parameters.{name} is {shown(space)}; expected {SPACES}"
    values = space.get("values", [space[key] for key in ("value", "min", "max") if key in space])
    with refusals(expected, ValueError, TypeError, OverflowError):
        for value in values:
            recipes.check(name, value)
        drawn = suggest(optuna.create_study().ask(), {name: space})
        recipes.check(name, drawn[name])
        return values


def kind(config, recipe, where="the sweep"):
    """What a trial trains: `trees` alone, or the network: its `head` on features that all trials share, or `network`.

    Raises `UserError` where the search is of both, or of trees that the recipe does not have.
    """
    names = set(config["parameters"])
    if names <= set(TREES):
        if "trees" not in recipe.members:
            raise UserError(
                f"{where} searches the trees, which the recipe {recipe.name} does not have; pass --recipe improved"
            )
        return "trees"
    if names & set(TREES):
        raise UserError(f"{where} has parameters of the trees and of the network; search one after the other")
    return "head" if names <= set(HEAD) and not recipe.streams else "network"


def halving(rule):
    """(epochs before a trial may be stopped, eta, epochs from which on none is) of W&B's `early_terminate`.

    A trial goes on after so many epochs, and after eta times as many, eta² times … if it is then among the best
    1/eta of all that came as far. Raises `ValueError` where it is another rule.
    """
    steps = math.inf
    match rule:
        case {"type": "hyperband", "min_iter": int(first), **rest}:
            brackets = None
        case {"type": "hyperband", "max_iter": int(first), "s": int(brackets), **rest}:
            pass
        case _:
            raise ValueError("a key is missing, unknown, or no whole number")
    eta, strict = rest.pop("eta", 3), rest.pop("strict", False)
    if rest or type(eta) is not int or not 2 <= eta <= 100 or type(strict) is not bool:
        raise ValueError("eta must be a whole number of 2 to 100, strict true or false, and there is nothing else")
    if brackets is not None:
        if not 1 <= brackets <= 20:
            raise ValueError("s must be 1 to 20")
        steps = 0
        while steps < brackets and first // eta:  # the lowest of s steps below max_iter, but not below one epoch
            first, steps = first // eta, steps + 1
    if not 1 <= first <= 100_000:
        raise ValueError("min_iter and max_iter must be 1 to 100000")
    return first, eta, first * eta**steps


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


def searched(parameters):
    """{name of each parameter that is searched: whether on a logarithmic scale}."""
    return {
        name: space.get("distribution") == "log_uniform_values"
        for name, space in parameters.items()
        if "value" not in space
    }
