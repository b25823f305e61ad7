"""Every setting of an experiment, in one place. `python recipes.py` prints them.

A recipe is all that decides a result besides the recordings: it is saved inside the model, so that evaluation,
Grad-CAM and prediction use the very preprocessing that training used.
"""

import argparse
import dataclasses
import math

CLASSES = ("A", "N", "O", "~")  # atrial fibrillation, normal, other rhythm, noise: the order of F1_0 … F1_3


def setting(default, help, choices=None):
    """A field of `Recipe`; `help` and `choices` also make its command-line flag."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of one experiment; the defaults are the report's.

    Raises `ValueError`, naming the setting, for a value out of range.
    """

    name: str = "paper"
    labels: str = setting("reference", "label version: reference, original, v3, or a CSV file of record,label")
    seed: int = setting(42, "seed of the split, the weights and the order of the batches")

    sampling_rate: int = 300  # Hz
    seconds: float = setting(60.0, "length every recording is padded or trimmed to, in seconds")
    nperseg: int = setting(150, "samples per spectrogram window")
    noverlap: int = setting(75, "samples by which spectrogram windows overlap")

    weights: str = setting("imagenet", "weights of the base: imagenet, random, or an .h5 file without top")
    fine_tune: bool = setting(False, "train the base too, from a stream of images (wants a GPU)")
    num_neurons: int = setting(500, "neurons of the dense layer")
    activation: str = setting("sigmoid", "activation of the dense layer", ("relu", "tanh", "sigmoid"))

    optimizer: str = setting("adam", "optimizer", ("adam", "sgd", "rmsprop"))
    learning_rate: float = setting(0.003, "learning rate")
    batch_size: int = setting(16, "recordings per training step")
    epochs: int = setting(100, "passes over the training part")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata.get("choices")
            if field.type is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, value := float(value))
            if type(value) is not field.type:
                raise ValueError(f"{field.name} must be {field.type.__name__}, not {value!r}")
            if choices and value not in choices:
                raise ValueError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number, not {value!r}")
        for name in ("seconds", "nperseg", "num_neurons", "learning_rate", "batch_size", "epochs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.noverlap < self.nperseg:
            raise ValueError(f"noverlap must be at least 0 and below nperseg ({self.nperseg}), not {self.noverlap}")
        if self.samples < self.nperseg:
            raise ValueError(f"seconds must cover at least one window of {self.nperseg} samples, not {self.seconds}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 4294967295, not {self.seed}")

    @property
    def samples(self):
        """Samples of the padded or trimmed recording."""
        return round(self.seconds * self.sampling_rate)


RECIPES = {"paper": Recipe()}


def add_flags(parser, names=None):
    """Add `--recipe` and one flag per setting to an `argparse` parser (`names`: only these settings)."""
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="paper", help="settings to start from")
    for field in dataclasses.fields(Recipe):
        if not field.metadata or (names and field.name not in names):
            continue
        defaults = ", ".join(f"{name}: {getattr(recipe, field.name)}" for name, recipe in RECIPES.items())
        options = {"help": f"{field.metadata['help']} ({defaults})", "default": argparse.SUPPRESS}
        if field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": field.type, "choices": field.metadata["choices"]}
            options["metavar"] = None if options["choices"] else {int: "N", float: "X", str: "NAME"}[field.type]
        parser.add_argument("--" + field.name.replace("_", "-"), **options)


def from_flags(parser, arguments):
    """The recipe that the parsed `arguments` ask for; a value out of range ends in `parser.error`."""
    given = {
        field.name: getattr(arguments, field.name) for field in dataclasses.fields(Recipe) if field.name in arguments
    }
    try:
        return dataclasses.replace(RECIPES[arguments.recipe], **given)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    for recipe in RECIPES.values():
        print(*(f"{key:>14}: {value}" for key, value in dataclasses.asdict(recipe).items()), sep="\n")
