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
    split_seed: int = setting(42, "seed of the test part, the same for all models of an ensemble")
    seed: int = setting(42, "seed of the validation part, the weights, the order of the batches and the augmentation")

    sampling_rate: int = 300  # Hz
    seconds: float = setting(60.0, "length of the network's input: recordings are padded or trimmed to it, in seconds")
    vote: bool = setting(False, "cut longer recordings into several inputs and average their logits")
    vote_stretch: float = setting(
        0.0, "vote also over each recording resampled in time by factors of 1 / (1 + X) and 1 + X; 0: as recorded only"
    )
    padding: str = setting(
        "zeros",
        "what fills up shorter recordings: zeros, mask (zeros that the network leaves out) or wrap (itself again)",
        ("zeros", "mask", "wrap"),
    )
    image: str = setting(
        "spectrogram",
        "the report's log(1 + PSD), the PSD of the standardised recording in dB, or its wavelet power in dB",
        ("spectrogram", "log-spectrogram", "scalogram"),
    )
    nperseg: int = setting(150, "samples per spectrogram window")
    noverlap: int = setting(75, "samples by which spectrogram windows overlap")
    max_frequency: float = setting(150.0, "highest frequency of the image, in Hz")

    stretch: float = setting(0.0, "augmentation: resample in time by a factor of 1 / (1 + X) to 1 + X")
    warp: float = setting(0.0, "augmentation: let the pace wander smoothly by up to X to either side, below 1")
    gain: float = setting(0.0, "augmentation: scale by a factor of 1 / (1 + X) to 1 + X")
    noise: float = setting(0.0, "augmentation: add white noise of up to X standard deviations of the recording")
    bursts: int = setting(0, "augmentation: silence up to N bursts of 0.05 to 0.5 s")
    bands: int = setting(0, "augmentation: blank up to N bands of time and N of frequency in the image")

    backbone: str = setting(
        "inception_resnet_v2",
        "the report's base, VGG16, or our own small residual network, trained whole",
        ("inception_resnet_v2", "vgg16", "compact"),
    )
    weights: str = setting("imagenet", "weights of the base: imagenet, random, or an .h5 file without top")
    fine_tune: bool = setting(False, "train the base too, from a stream of images (wants a GPU)")
    num_neurons: int = setting(500, "neurons of the dense layer")
    activation: str = setting("sigmoid", "activation of the dense layer", ("relu", "tanh", "sigmoid"))
    dropout: float = setting(0.0, "share of the features dropped before the dense layer in training")

    class_weights: str = setting(
        "none", "weight of a class in the loss: its rarity to the power of 0, 1/2 or 1", ("none", "sqrt", "balanced")
    )
    label_smoothing: float = setting(0.0, "share of each label spread over all classes")
    optimizer: str = setting("adam", "optimizer", ("adam", "adamw", "sgd", "rmsprop"))
    learning_rate: float = setting(0.003, "learning rate")
    schedule: str = setting(
        "constant", "learning rate: constant, or a warm-up followed by half a cosine to 0", ("constant", "cosine")
    )
    weight_average: float = setting(0.0, "epochs over which the weights that are kept are a moving average; 0: none")
    batch_size: int = setting(16, "recordings per training step")
    epochs: int = setting(100, "passes over the training part")
    calibrate: bool = setting(False, "scale and shift the logits for the likelihood and F1 of the validation part")

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
        for name in ("seconds", "nperseg", "max_frequency", "num_neurons", "learning_rate", "batch_size", "epochs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("vote_stretch", "stretch", "gain", "noise", "bursts", "bands", "weight_average"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("warp", "dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 <= self.noverlap < self.nperseg:
            raise ValueError(f"noverlap must be at least 0 and below nperseg ({self.nperseg}), not {self.noverlap}")
        if self.samples < self.nperseg:
            raise ValueError(f"seconds must cover at least one window of {self.nperseg} samples, not {self.seconds}")
        for name in ("seed", "split_seed"):
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{name} must be from 0 to 4294967295, not {getattr(self, name)}")
        if self.backbone == "compact" and self.weights != "random":
            raise ValueError("weights must be random where the backbone is compact: it has no others")
        if self.backbone == "compact" and self.fine_tune:
            raise ValueError("fine_tune is for a base that has learned before; compact is always trained whole")
        step = self.sampling_rate / self.nperseg
        if self.max_frequency // step * step <= 0.5:
            raise ValueError(f"max_frequency must leave a frequency above 0.5 Hz, not {self.max_frequency}")

    @property
    def samples(self):
        """Samples of the padded or trimmed recording."""
        return round(self.seconds * self.sampling_rate)

    @property
    def augments(self):
        """Whether training sees another version of each recording in every epoch."""
        return any((self.stretch, self.warp, self.gain, self.noise, self.bursts, self.bands))

    @property
    def trains_base(self):
        """Whether the base is trained; otherwise it is frozen."""
        return self.fine_tune or self.backbone == "compact"

    @property
    def streams(self):
        """Whether training runs on images; otherwise the head alone is trained, on features computed once."""
        return self.trains_base or self.augments


RECIPES = {
    "paper": Recipe(),
    "improved": Recipe(
        name="improved",
        seconds=30,
        vote=True,
        vote_stretch=0.15,
        padding="mask",
        image="log-spectrogram",
        nperseg=64,
        noverlap=40,
        max_frequency=110,
        stretch=0.25,
        gain=0.3,
        noise=0.1,
        bursts=3,
        backbone="compact",
        weights="random",
        num_neurons=192,
        activation="relu",
        dropout=0.3,
        class_weights="sqrt",
        label_smoothing=0.05,
        optimizer="adamw",
        learning_rate=0.003,
        schedule="cosine",
        weight_average=1.25,
        batch_size=32,
        epochs=40,
        calibrate=True,
    ),
}


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
    from shell import parser

    parser(__doc__).parse_args()
    for recipe in RECIPES.values():
        print(*(f"{key:>14}: {value}" for key, value in dataclasses.asdict(recipe).items()), "", sep="\n")
