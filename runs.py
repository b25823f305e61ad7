"""What a finished run left behind, its models, data and held-out test part, for the scripts that look back at it."""

import json
import shlex
import zipfile
import zlib
from collections import namedtuple
from pathlib import Path

import dataset
from recipes import CLASSES, Recipe
from shell import UserError, run_name, say, writing

# recipe; seen: frozenset of the records it was trained or chosen on; identity: a text that tells its training.
Card = namedtuple("Card", "recipe seen identity")


def write_settings(name, data, recipe):
    """Write models/NAME.json: where the run's recordings are, and its recipe (a dict)."""
    settings = {"data": str(data), "recipe": recipe}
    with writing(f"models/{name}.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def add_flags(parser, models):
    """Add the flags that choose a run; `models` is the `nargs` of --model, "+" where several make an ensemble."""
    parser.add_argument(
        "--run", type=run_name, metavar="NAME", help="name of the run (default: that of the model, else paper)"
    )
    parser.add_argument(
        "--model", type=Path, nargs=models, metavar="FILE", help="saved model (default: models/RUN.keras)"
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="zip or folder of recordings (default: the run's)")
    parser.add_argument("--labels", metavar="NAME", help="label version or CSV file (default: the run's)")


def read_card(path):
    """The `Card` of a model that main.py saved.

    Raises `UserError` for a missing or foreign file, without the seconds that loading the network takes.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; train it with main.py, or name another")
    try:
        with zipfile.ZipFile(path) as archive:
            card = json.loads(archive.read("recipe.json"))
        card_of_model = Card(Recipe(**card["recipe"]), frozenset(card["seen"]), card["identity"])
        if tuple(card["classes"]) != CLASSES:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a model that this version of main.py saved") from error
    return card_of_model


def open_run(arguments):
    """(run name, [(model, recipe)], test, seen) for the flags of `add_flags`.

    test: DataFrame of the recordings that no model was trained or chosen on, as `dataset.read_recordings` makes it: of
    the run's own recordings, its test part; seen: the others. Raises `UserError` when nothing unseen is left.
    """
    given = arguments.model or Path(f"models/{arguments.run or 'paper'}.keras")
    paths = given if isinstance(given, list) else [given]
    # A model from elsewhere gets a name of its own, so that its figures do not mix with those of a run.
    folder = paths[0].resolve().parent.name
    own = paths[0].stem if folder == "models" else f"{folder}-{paths[0].stem}"
    name = arguments.run or (own if len(paths) == 1 else "ensemble")
    cards = [read_card(path) for path in paths]
    table = dataset.read_recordings(arguments.data or _data_of(paths[0]), arguments.labels or cards[0].recipe.labels)
    known = table.record.isin(frozenset().union(*(card.seen for card in cards)))
    if known.all():
        raise UserError(
            f"{' and '.join(map(str, paths))} {'has' if len(paths) == 1 else 'have'} seen all {len(table)} recordings; "
            "pass --data others, and make ensembles of models of one split only"
        )
    say(
        f"{known.sum():,} of {len(table):,} recordings are left out: "
        f"{'the model has' if len(paths) == 1 else 'the models have'} learned from records of these names"
    )
    import model  # here, so that neither --help nor an error waits for TensorFlow

    return (
        name,
        [(model.load(path), card.recipe) for path, card in zip(paths, cards, strict=True)],
        table[~known].reset_index(drop=True),
        table[known],
    )


def _data_of(path):
    """The recordings that the settings beside a model name, or the default ones."""
    settings = path.with_suffix(".json")
    try:
        return Path(json.loads(settings.read_text())["data"]) if settings.exists() else dataset.DEFAULT_DATA
    except (ValueError, KeyError, TypeError, OSError):
        raise UserError(f"{settings} is damaged; pass --data the path of the recordings") from None


def gradcam_command(arguments, name):
    """The command that explains what the flags of `add_flags` chose, for an ensemble its first model."""
    alone = not arguments.model or len(arguments.model) == 1
    flags = f" --run {name}" if alone and name != "paper" else ""  # an ensemble's figures are not its first model's
    if arguments.model:
        flags += f" --model {shlex.quote(str(arguments.model[0]))}"
    for key in ("data", "labels"):
        if getattr(arguments, key):
            flags += f" --{key} {shlex.quote(str(getattr(arguments, key)))}"
    return f"python gc_implementation.py{flags}"
