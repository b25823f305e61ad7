import argparse
import dataclasses

import pytest

from recipes import RECIPES, Recipe, add_flags, from_flags


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
