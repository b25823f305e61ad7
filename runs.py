"""What a run leaves behind: its model with a card, its history, its figures, and the lock while it is in work.

python runs.py --onnx FILE...        add to saved models their network as ONNX, by which predict.py needs no Keras
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import shlex
import subprocess
import zipfile
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import bounds
import inference
from recipes import CLASSES, Recipe
from shell import UserError, parser, reason, run_name, run_script, say, shortened, writing

# Files in the Keras zip file, which Keras passes over: the card, the text of each booster, the network once more, and
# the networks of the sequence of beats.
CARD, TREES, ONNX, RHYTHM = "recipe.json", "trees-{}.txt", "network.onnx", "rhythm.onnx"

CONFIG = "config.json"
# The most bytes of a member, weights and values of an image or layer: some times those of the largest of our networks.
MOST = {CARD: 20_000_000, CONFIG: 20_000_000, ONNX: 100_000_000, RHYTHM: 100_000_000, "metadata.json": 100_000}
MOST_WEIGHTS, MOST_PIXELS = 250_000_000, 5_000_000
THRESHOLDS = "balanced", "sensitivity 95%"  # what `scoring.thresholds` chooses them for
NO_MODEL = "which no model of main.py has; do not trust it, and name another"

# network: a Keras model or an `inference.Onnx`; trees: LightGBM's boosters (none where it has no trees); card: a
# `Card`; rhythm: an `inference.Onnx`, or None.
Saved = namedtuple("Saved", "network trees card rhythm", defaults=[None])
Card = namedtuple(
    "Card",
    "recipe seen fingerprint data calibration history scores measured thresholds fold",
    defaults=[None, (), None, None, None, None],
)
Card.__doc__ = """What a model tells of itself.

recipe: its `Recipe`; seen: the records it was trained or chosen on; fingerprint: that of its training; data: where
its recordings were; calibration: {members: (factor, shifts) of their logits}, or None; history: a row of logs per
epoch; scores: its F1 scores on the validation split when it was finished, None while its training goes on; measured:
{measurements: their names, sequence: what its networks see of a beat, package: version} of its heartbeats, or None;
fold: [the fold of a cross-validation, its file or ""], or None;
thresholds: `scoring.thresholds` on the validation split, or None where they are not known. Of a model that has learned
from the validation split too, history, scores, calibration and thresholds are those of its first training.
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of the run `name`, relative to the current folder.

    member: the end of the names of what the training of another member than the network leaves.
    """

    name: str
    member: str = ""

    @property
    def model(self):
        return Path("models", f"{self.name}.keras")

    @property
    def checkpoint(self):
        return Path("models", f"{self.name}{self.member}.checkpoint.npz")

    @property
    def history(self):
        return Path("models", f"{self.name}{self.member}.csv")

    @property
    def figures(self):
        return Path("figures", self.name)

    def card(self):
        """The `Card` of the run's model, or None where there is none that this version can read."""
        try:
            return read_card(self.model)
        except UserError:
            return None

    def finished(self, fingerprint):
        """The `Card` of the run's model if the training of this `fingerprint` is finished, else None."""
        card = self.card()
        return card if card and card.scores and card.fingerprint == fingerprint else None

    def lock(self):
        """`lock` the run's files."""
        return lock(self.model.with_suffix(".lock"), f"run {self.name}")


@contextlib.contextmanager
def lock(path, what, instead="pass --run another name"):
    """Keep other processes off `what`; `UserError` if one has the file `path`. The lock of a dead process is free.

    instead: what to do but wait.
    """
    import filelock

    held, holder = filelock.FileLock(path, timeout=0), "another"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except filelock.Timeout:
        with contextlib.suppress(OSError, ValueError):  # it may end at this moment
            holder = path.read_text()[:20].strip() or holder
        raise UserError(f"the {what} is in work by process {holder}; wait for it, or {instead}") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: it is locked all the same
            path.write_text(str(os.getpid()))
        yield
    finally:
        with contextlib.suppress(OSError):  # what is left of it is no lock
            path.unlink()
        held.release()


def save(network, card, path):
    """Write a Keras model with its `Card` whole to `path` (.keras)."""
    with writing(path) as temporary:
        network.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, _card_text(card))


def finish(path, card, trees=(), onnx=None, rhythm=None):
    """Write the network in `path` again, with another `Card`, and with `trees`, LightGBM's boosters, the network as
    `onnx` and the networks `rhythm`, bytes or None, in one step.
    """
    texts = {TREES.format(place): booster.model_to_string() for place, booster in enumerate(trees)}
    texts |= {name: content for name, content in ((ONNX, onnx), (RHYTHM, rhythm)) if content}
    _put(path, texts | {CARD: _card_text(card)})


def add_onnx(path):
    """Write the model in `path` again, with its network as ONNX too and nothing else changed."""
    import model

    _put(path, {ONNX: model.to_onnx(load(path).network)})


def _put(path, texts):
    """Write the zip file `path` again with `texts`, {name: str or bytes}, in place of its members of these names."""
    with writing(path) as temporary, zipfile.ZipFile(path) as old, zipfile.ZipFile(temporary, "w") as new:
        for member in old.infolist():
            if member.filename not in texts:
                new.writestr(member, old.read(member))
        for name, text in texts.items():
            new.writestr(name, text, zipfile.ZIP_DEFLATED)


def _card_text(card):
    values = card._asdict() | {"recipe": dataclasses.asdict(card.recipe), "seen": sorted(card.seen)}
    return json.dumps({"classes": CLASSES, **values})


def read_card(path):
    """The `Card` of a model that main.py saved.

    Raises `UserError` for a missing or foreign file, without the seconds that loading the network takes.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a model that main.py saved")
        if not path.is_file():
            raise UserError(f"{path} does not exist; train it with main.py, or name another")
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path)
            values = json.loads(archive.read(CARD))
        if tuple(values.pop("classes")) != CLASSES:
            raise ValueError("its classes are others")
        # A calibration is of one way to join; recipes have named the trace only since the present one.
        if "trace" not in values["recipe"] and "rhythm" in values["recipe"].get("members", ""):
            raise UserError(f"{path} is of an earlier version, which joined its members otherwise; train it again")
        card = Card(**values | {"recipe": Recipe(**values["recipe"]), "seen": frozenset(values["seen"])})
        _check_card(card)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}; mend that, or name another") from error
    except Exception as error:  # whatever a damaged or foreign file may cause
        raise UserError(
            f"{path} is not a model that this version of main.py saved ({shortened(str(error), 120)}); name another, "
            "or delete it and train it again"
        ) from error
    return card


def _check_sizes(archive, path):
    """Refuse a zip file with a member larger than any of ours, by the sizes that it tells: no more is unpacked."""
    bounds.check_zip(archive, path)
    for entry in archive.infolist():
        if entry.file_size > MOST.get(entry.filename, bounds.MOST_BYTES):
            raise UserError(f"{path} unpacks {shortened(entry.filename, 60)} to {entry.file_size:,} bytes, {NO_MODEL}")


def check_images(recipe):
    """Raise `ValueError` for a recipe whose settings, each of them allowed, make images too large together."""

    import preprocessing  # and with it SciPy, for which --help need not wait

    pixels = math.prod(preprocessing.image_shape(recipe))
    if pixels > MOST_PIXELS:
        raise ValueError(f"its images would have {pixels:,} pixels, more than {MOST_PIXELS:,}")


def _check_card(card):
    """Raise `ValueError` for a card whose values are not what the scripts rely on."""
    check_images(card.recipe)
    if not all(isinstance(text, str) for text in (card.fingerprint, card.data, *card.seen)):
        raise ValueError("its card has no names where they should be")
    if not isinstance(card.history, list | tuple) or not all(isinstance(row, dict) for row in card.history):
        raise ValueError("its history is none")
    if bool(card.scores) and not {"avg_F1_score", "challenge_F1"} <= set(_numbers(card.scores)):
        raise ValueError("its scores are none")
    if card.thresholds and not (
        card.thresholds.keys() <= set(THRESHOLDS)
        and all(0 <= value <= 1 for value in _numbers(card.thresholds).values())
    ):
        raise ValueError("its thresholds are none")
    if card.fold is not None and [type(each) for each in card.fold] != [str, str]:
        raise ValueError("its fold is none")
    if card.measured is not None and not isinstance(card.measured["measurements"], list):
        raise ValueError("its measurements are no list")
    if "rhythm" in card.recipe.members and card.measured and not card.measured.get("sequence"):
        raise ValueError("it does not tell what its networks see of a beat")
    if card.calibration is not None:
        members = card.recipe.members.split(",")
        for some in {card.recipe.members, *members}:
            factor, shifts = card.calibration[some]
            if len(_numbers({0: factor, **dict(enumerate(shifts, 1))})) != 1 + len(CLASSES):
                raise ValueError("its calibration is none")


def _numbers(values):
    """`values`, {name: number}, if all are finite numbers; else raises `ValueError`."""
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values.values()):
        raise ValueError("its card has no numbers where they should be")
    return values


def load(path, light=False):
    """The `Saved` model of a file that `finish` wrote. Nothing in it is executed: Keras's safe mode, LightGBM's text.

    light: take the network by ONNX Runtime and not by Keras, where the file has it and ONNX Runtime is installed.
    Raises `UserError` for a missing, foreign or damaged file, and for one that needs Keras where there is none.
    """
    card = read_card(path)
    try:
        network = light and _has_onnx(path) and _onnx(path, ONNX)
        boosters = _trees(path, card) if card.measured else []
        rhythm = _onnx(path, RHYTHM) if card.measured and "rhythm" in card.recipe.members else None
        return Saved(network or _keras(path), boosters, card, rhythm)
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({shortened(str(error), 120)}); name another, or delete it and train it again"
        ) from error


def _onnx(path, name):
    with zipfile.ZipFile(path) as archive:
        return inference.Onnx(archive.read(name), path)


def _has_onnx(path):
    with zipfile.ZipFile(path) as archive:
        return ONNX in archive.namelist() and find_spec("onnxruntime")


def _keras(path):
    try:
        from keras_setup import keras  # here, so that neither --help nor an error waits for TensorFlow
    except ModuleNotFoundError as error:
        raise UserError(
            f"this needs {path} by Keras, which is not installed: pip install -r requirements.txt"
        ) from error
    with zipfile.ZipFile(path) as archive:
        _check_layers(json.loads(archive.read(CONFIG)), path)
    with _bounded_weights(keras, path):
        network = keras.models.load_model(path, compile=False, safe_mode=True)
    _check_outputs(network, path)
    return network


def _check_layers(config, path):
    """Refuse a Keras configuration, of dictionaries and lists, that names code which is not Keras's or is given."""
    left = [config]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            kind, module = part.get("class_name"), part.get("module")
            builtin = isinstance(kind, str) and re.fullmatch(r"__(keras_tensor|slice|tuple|ellipsis|none)\w*__", kind)
            ours = isinstance(module, str) and re.fullmatch(r"keras(\.\w+)*", module)
            if kind == "__lambda__" or "Lambda" in str(kind) or (kind is not None and not (ours or builtin)):
                raise UserError(f"{path} has a layer {shortened(f'{module}.{kind}', 80)}, {NO_MODEL}")
        left += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


@contextlib.contextmanager
def _bounded_weights(keras, path):
    """Meanwhile, layers that would have more weights in all than any of our networks are refused before they have."""
    add, total = keras.Layer.add_weight, 0

    @functools.wraps(add)
    def counted(layer, shape=None, *given, **more):
        nonlocal total
        total += math.prod((shape,) if isinstance(shape, int) else shape or ())
        if total > MOST_WEIGHTS:
            raise UserError(f"{path} has more than {MOST_WEIGHTS:,} weights, {NO_MODEL}")
        return add(layer, shape, *given, **more)

    keras.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.Layer.add_weight = add


def _check_outputs(network, path):
    """Refuse a network one of whose layers gives more numbers for an image than any of ours."""
    for layer in network.operations if hasattr(network, "operations") else ():
        if hasattr(layer, "operations"):
            _check_outputs(layer, path)
        outputs = layer.output if isinstance(layer.output, list | tuple) else [layer.output]
        if any(math.prod(size or 1 for size in output.shape[1:]) > MOST_PIXELS for output in outputs):
            raise UserError(f"{path} has a layer {shortened(layer.name, 60)} of {MOST_PIXELS:,} outputs, {NO_MODEL}")


def _trees(path, card):
    import trees

    now = trees.provenance()
    if any(card.measured[name] != now[name] for name in ("measurements", "sequence") if name in card.measured):
        raise UserError(
            f"{path} was trained on other measurements of heartbeats than this version makes; train it again"
        )
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(TREES.format("[0-9]+"), name)]
        return [trees.load(archive.read(name).decode()) for name in names]


def code():
    """The revision of this code, by git, with "-dirty" where files were changed since; "" where git cannot tell."""
    call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(call, capture_output=True, text=True).stdout.strip()
    except OSError:  # git is not installed
        return ""


def add_flags(parser, models):
    """Add the flags that choose a run; `models` is the `nargs` of --model, "+" where several make an ensemble."""
    parser.add_argument(
        "--run",
        type=run_name,
        metavar="NAME",
        help="name of the run (default: the model's or the file's, else paper)",
    )
    parser.add_argument(
        "--model", type=Path, nargs=models, metavar="FILE", help="saved model (default: models/RUN.keras)"
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="zip or folder of recordings (default: the run's)")
    parser.add_argument("--labels", metavar="NAME", help="label version or CSV file (default: the run's)")


def open_run(run, model, data, labels, also=()):
    """(`Run`, [`Saved`], test, seen) for the values of the flags of `add_flags`, each of which may be None.

    also: the files of further models, which follow in the list and do not change the run's name.
    test: DataFrame of the recordings that no model was trained or chosen on, as `dataset.read_recordings` makes it: of
    the run's own recordings, its test split; seen: the others. Raises `UserError` when nothing unseen is left.
    """
    import dataset  # and with it pandas

    given = model or Run(run or "paper").model
    named = given if isinstance(given, list) else [given]
    paths = [*named, *also]
    # A model from elsewhere gets a name of its own, so that its figures do not mix with those of a run.
    folder = paths[0].resolve().parent
    own = paths[0].stem if folder == Path("models").resolve() else f"{folder.name}-{paths[0].stem}"
    cards = [read_card(path) for path in paths]
    for path, card in zip(paths, cards, strict=True):
        if not card.scores:
            say(f"note: the training of {path} is not finished; this is how far it has come")
    table = dataset.read_recordings(data or Path(cards[0].data), labels or cards[0].recipe.labels)
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
    name = run or (own if len(named) == 1 else "ensemble")
    return Run(name), [load(path) for path in paths], table[~known].reset_index(drop=True), table[known]


def command(script, name, model=None, data=None, labels=None):
    """The command that has `script` look at the run `name`, or at the first model of an ensemble."""
    models = model if isinstance(model, list) else [model] if model else []
    alone = len(models) < 2  # figures of an ensemble are not its first model's
    flags = f" --run {name}" if alone and name != "paper" else ""
    given = {"model": models[0] if models else None, "data": data, "labels": labels}
    flags += "".join(f" --{key} {shlex.quote(str(value))}" for key, value in given.items() if value)
    return f"python {script}{flags}"


def main():
    flags = parser(__doc__)
    flags.add_argument("--onnx", type=Path, nargs="+", metavar="FILE", required=True, help="saved models")
    for path in flags.parse_args().onnx:
        add_onnx(path)
        print(f"wrote {path}, now with its network as ONNX")


if __name__ == "__main__":
    run_script(main)
