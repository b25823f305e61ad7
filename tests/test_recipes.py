import argparse
import dataclasses

import pytest

import shell
from recipes import RECIPES, Recipe, add_flags, from_flags, settings


def parse(*arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    return from_flags(parser, parser.parse_args(arguments))


def test_flags_change_their_settings_and_no_other():
    assert parse() == RECIPES["paper"] == Recipe()
    changed = parse("--epochs", "3", "--learning-rate", "0.01", "--fine-tune", "--labels", "v3", "--activation", "relu")
    assert changed == dataclasses.replace(
        Recipe(), epochs=3, learning_rate=0.01, fine_tune=True, labels="v3", activation="relu"
    )


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--epochs", "0"], "epochs"),
        (["--epochs", "2.5"], "epochs"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--activation", "gelu"], "activation"),
        (["--noverlap", "150"], "noverlap"),
        (["--seconds", "0.1"], "seconds"),
        (["--seed", "-1"], "seed"),
        (["--epoch", "3"], "--epoch"),
    ],
)
def test_a_wrong_value_is_refused_by_name(arguments, named, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err.replace("--learning-rate", "learning_rate")


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(ValueError, match="batch_size must be int"):
        Recipe(batch_size="16")
    with pytest.raises(ValueError, match="fine_tune must be bool"):
        Recipe(fine_tune=1)
    assert Recipe(seconds=30).seconds == 30.0


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("dropout", (0, 0.99), (-0.1, 1, float("nan"), float("inf"))),
        ("learning_rate", (1e-9, 10), (0, -1, 11)),
        ("epochs", (1, 100000), (0, 100001)),
        ("warp", (0,), (1,)),
        ("seed", (0, 2**32 - 1), (-1, 2**32)),
    ],
)
def test_bounds(name, inside, outside):
    for value in inside:
        assert getattr(Recipe(**{name: value}), name) == value
    for value in outside:
        with pytest.raises(ValueError, match=name):
            Recipe(**{name: value})


def test_every_setting_has_a_group_a_help_and_bounds_or_choices():
    for field in dataclasses.fields(Recipe):
        if field.name in ("name", "sampling_rate"):
            continue
        group, help, bounds, choices = field.metadata.values()
        assert group and help
        assert (field.type in (int, float)) == bool(bounds), field.name
        assert field.type is str or not choices
    assert {"stretch", "warp", "gain", "noise", "bursts", "bands"} <= set(settings("augmentation"))
    assert set(settings("head", "training")) & {"num_neurons", "activation", "optimizer", "batch_size", "learning_rate"}


def test_what_augments_is_the_whole_group():
    for name in settings("augmentation"):
        assert dataclasses.replace(Recipe(), **{name: 1 if type(getattr(Recipe(), name)) is int else 0.5}).augments
    assert not Recipe().augments and RECIPES["improved"].augments


def test_settings_that_do_not_go_together():
    for wrong in ({"warm_up": 0.1}, {"backbone": "compact"}, {"noverlap": 150}, {"max_frequency": 0.4}):
        with pytest.raises(ValueError, match=next(iter(wrong)) if "backbone" not in wrong else "weights"):
            Recipe(**wrong)


def test_flags_are_grouped_in_the_help():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = parser.format_help()
    for group in (
        "recordings",
        "input",
        "conditioning",
        "image",
        "augmentation",
        "network",
        "head",
        "training",
        "members",
    ):
        assert f"{group} (settings of the recipe)" in text


def test_recipes_that_differ_at_the_end_of_a_long_title_have_runs_of_their_own():
    changes = {
        "batch_size": 24,
        "class_weights": "balanced",
        "dropout": 0.0938,
        "gain": 0.5819,
        "label_smoothing": 0.0087,
        "noise": 0.4995,
    }
    recipes = [dataclasses.replace(RECIPES["improved"], **changes, seed=seed) for seed in (1, 2)]
    assert all(len(recipe.title) > 100 for recipe in recipes)
    names = [recipe.run for recipe in recipes]
    assert len(set(names)) == 2 and all(shell.run_name(name) == name and len(name) == 100 for name in names)
    assert RECIPES["improved"].run == "improved"
