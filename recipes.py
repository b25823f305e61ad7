"""Every setting of an experiment, one line each. `python recipes.py` prints the recipes.

A recipe is all that decides a result besides the recordings: it is saved inside the model, so that evaluation,
Grad-CAM and prediction use the very preprocessing that training used.
"""

import argparse
import dataclasses
import re
import shlex
from hashlib import sha256

CLASSES = ("A", "N", "O", "~")  # atrial fibrillation, normal, other rhythm, noise: the order of F1_0 … F1_3
MEMBERS = {"network": "network of images", "rhythm": "networks of heartbeats", "trees": "trees"}  # of a model
NAMES = {"A": "Atrial fibrillation (A)", "N": "Normal (N)", "O": "Other rhythm (O)", "~": "Noise (~)"}
COLOURS = {"A": "#d55e00", "N": "#0173b2", "O": "#029e73", "~": "#cc78bc"}  # that the colour-blind tell apart
SEED = "[0, 4294967295]"


def setting(group, default, help, bounds=None, choices=None):
    """A field of `Recipe`, with all that is derived from it: its check, and its command-line flag under `group`.

    bounds: an interval of numbers as "[0, 1)", whose round brackets exclude their end; choices: the texts it may be.
    """
    return dataclasses.field(
        default=default, metadata={"group": group, "help": help, "bounds": bounds, "choices": choices}
    )


# fmt: off
@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of one experiment; the defaults are the report's.

    Raises `ValueError`, naming the setting, for a value out of range.
    """

    name: str = "paper"
    labels: str = setting("recordings", "reference", "label version: reference, original, v3, or a CSV file of record,label")
    split_seed: int = setting("recordings", 42, "seed of the test split, the same for all models of an ensemble", SEED)
    seed: int = setting("recordings", 42, "seed of the validation split, the weights, the order of batches and the augmentation", SEED)

    sampling_rate: int = 300  # Hz, to which recordings are resampled; without a flag, since nperseg counts its samples
    seconds: float = setting("input", 60.0, "length of the network's input: recordings are padded or trimmed to it, in seconds", "(0, 3600]")
    vote: bool = setting("input", False, "cut longer recordings into several inputs and average their logits")
    vote_stretch: float = setting("input", 0.0, "vote also over each recording resampled in time by factors of 1 / (1 + X) and 1 + X; 0: as recorded only", "[0, 1]")
    padding: str = setting("input", "zeros", "what fills up shorter recordings: zeros, mask (zeros that the network leaves out) or wrap (itself again)", choices=("zeros", "mask", "wrap"))

    high_pass: float = setting("conditioning", 0.0, "high-pass at X Hz, both ways, against baseline wander; 0: none", "[0, 10]")
    notch: float = setting("conditioning", 0.0, "notches of quality factor X at 50 and 60 Hz, both ways, against hum; 0: none", "[0, 1000]")
    block: float = setting("conditioning", 0.0, "scale by the median standard deviation of blocks of X seconds; 0: by that of the recording", "[0, 3600]")
    floor: float = setting("conditioning", 0.0, "density added to the PSD: that of white noise of X standard deviations", "[0, 10]")

    image: str = setting("image", "spectrogram", "the report's log(1 + PSD), the PSD of the standardised recording in dB, or its wavelet power in dB", choices=("spectrogram", "log-spectrogram", "scalogram"))
    nperseg: int = setting("image", 150, "samples per spectrogram window", "[1, 18000]")
    noverlap: int = setting("image", 75, "samples by which spectrogram windows overlap", "[0, 18000)")
    max_frequency: float = setting("image", 150.0, "highest frequency of the image, in Hz", "(0, 150]")
    trace: bool = setting("image", False, "let the network (compact, with an image in dB) also see the trace")

    stretch: float = setting("augmentation", 0.0, "resample in time by a factor of 1 / (1 + X) to 1 + X", "[0, 10]")
    warp: float = setting("augmentation", 0.0, "let the pace wander smoothly by up to X to either side", "[0, 1)")
    flip: float = setting("augmentation", 0.0, "share of the recordings that are turned upside down", "[0, 1]")
    gain: float = setting("augmentation", 0.0, "scale by a factor of 1 / (1 + X) to 1 + X", "[0, 10]")
    noise: float = setting("augmentation", 0.0, "add white noise of up to X standard deviations of the recording", "[0, 10]")
    crop: float = setting("augmentation", 0.0, "share of the recordings of which 8 to 30 s are kept", "[0, 1]")
    clip: float = setting("augmentation", 0.0, "share of the recordings that are clipped", "[0, 1]")
    motion: float = setting("augmentation", 0.0, "share of the recordings with a motion of the electrode", "[0, 1]")
    low_pass: float = setting("augmentation", 0.0, "share of the recordings with a low-pass at 25 to 150 Hz", "[0, 1]")
    bursts: int = setting("augmentation", 0, "silence up to N bursts of 0.05 to 0.5 s", "[0, 100]")
    bands: int = setting("augmentation", 0, "blank up to N bands of time and N of frequency in the image", "[0, 100]")

    backbone: str = setting("network", "inception_resnet_v2", "the report's base, VGG16, or our own small residual network, trained whole", choices=("inception_resnet_v2", "vgg16", "compact"))
    weights: str = setting("network", "imagenet", "weights of the base: imagenet, random, or an .h5 file without top")
    fine_tune: bool = setting("network", False, "train the base too, from a stream of images (wants a GPU)")
    num_neurons: int = setting("head", 500, "neurons of the dense layer", "[1, 100000]")
    activation: str = setting("head", "sigmoid", "activation of the dense layer", choices=("relu", "tanh", "sigmoid"))
    dropout: float = setting("head", 0.0, "share of the features dropped before the dense layer in training", "[0, 1)")

    class_weights: str = setting("training", "none", "weight of a class in the loss: its rarity to the power of 0, 1/2 or 1", choices=("none", "sqrt", "balanced"))
    label_smoothing: float = setting("training", 0.0, "share of each label spread over all classes", "[0, 1)")
    optimizer: str = setting("training", "adam", "optimizer", choices=("adam", "sgd", "rmsprop"))
    learning_rate: float = setting("training", 0.003, "learning rate", "(0, 10]")
    weight_decay: float = setting("training", 0.0, "share of each weight that is taken off at every step, times the learning rate", "[0, 1)")
    schedule: str = setting("training", "constant", "learning rate: constant, or a warm-up followed by half a cosine to 0", choices=("constant", "cosine"))
    warm_up: float = setting("training", 0.0, "share of the steps over which the learning rate rises, before the cosine", "[0, 1)")
    weight_average: float = setting("training", 0.0, "epochs over which the weights that are kept are a moving average; 0: none", "[0, 100]")
    best_epoch: str = setting("training", "f1", "the epoch whose weights are kept: of the highest 4-class F1 of the validation split, or of its least loss; with --refit, as many epochs as the second training takes", choices=("f1", "loss"))
    batch_size: int = setting("training", 16, "recordings per training step", "[1, 100000]")
    epochs: int = setting("training", 100, "passes over the training split", "[1, 100000]")
    members: str = setting("members", "network", "who answers, their logits averaged: the network of images, and networks of heartbeats (rhythm) and boosted trees on measurements of heartbeats, which together count as much as that", choices=("network", "network,trees", "network,rhythm,trees"))
    calibrate: bool = setting("members", False, "scale and shift the logits for the likelihood and F1 of the validation split")
    refit: bool = setting("members", False, "then train again from the beginning on the training and validation splits together, the network of images up to the best epoch, the other members as before")
    # The trees', chosen on the validation parts of the published folds; `training.fingerprint` knows them by their group.
    trees_rounds: int = setting("trees", 350, "trees of each class; of those with random splits 12/7 as many", "[1, 10000]")
    trees_leaves: int = setting("trees", 15, "leaves of a tree", "[2, 1000]")
    trees_least: int = setting("trees", 20, "recordings in a leaf, at least", "[1, 10000]")
    trees_rate: float = setting("trees", 0.05, "learning rate of the trees", "(0, 1]")
    trees_share: float = setting("trees", 0.3, "share of the measurements that a tree may use", "(0, 1]")
    trees_l2: float = setting("trees", 5.0, "L2 penalty of the leaves", "[0, 10000]")
    # fmt: on

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.type is float and type(getattr(self, field.name)) is int:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
            _check(field, getattr(self, field.name))
        if self.noverlap >= self.nperseg:
            raise ValueError(f"noverlap must be below nperseg ({self.nperseg}), not {self.noverlap}")
        if self.samples < self.nperseg:
            raise ValueError(f"seconds must cover at least one window of {self.nperseg} samples, not {self.seconds}")
        if self.backbone == "compact" and self.weights != "random":
            raise ValueError("weights must be random where the backbone is compact: it has no others")
        if self.backbone == "compact" and self.fine_tune:
            raise ValueError("fine_tune is for a base that has learned before; compact is always trained whole")
        if self.trace and (self.backbone != "compact" or self.image == "spectrogram"):
            raise ValueError("trace is for the compact backbone and an image in dB; leave it out (--no-trace)")
        if self.warm_up and self.schedule != "cosine":
            raise ValueError("warm_up belongs to --schedule cosine")
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
        return any(getattr(self, name) for name in settings("augmentation"))

    @property
    def trains_base(self):
        """Whether the base is trained; otherwise it is frozen."""
        return self.fine_tune or self.backbone == "compact"

    @property
    def streams(self):
        """Whether training runs on images; otherwise the head alone is trained, on features computed once."""
        return self.trains_base or self.augments

    @property
    def changes(self):
        """{name: value} of the settings that differ from those of the recipe of this name."""
        named = RECIPES.get(self.name, Recipe())
        return {name: getattr(self, name) for name in settings() if getattr(self, name) != getattr(named, name)}

    @property
    def title(self):
        """The recipe's name and what was changed in it: "paper" or "paper-epochs-3-weights-random"."""
        changes = sorted(self.changes.items())
        return "-".join([self.name, *(re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{value}") for name, value in changes)])

    @property
    def run(self):
        """The name of its runs: the title, so that a changed recipe never writes over the run of another.

        A hash stands for the end of a title that is too long for a file's name.
        """
        if len(self.title) <= 100:
            return self.title
        return f"{self.title[:91]}-{sha256(self.title.encode()).hexdigest()[:8]}"


def settings(*groups):
    """The names of the settings in `groups`, without any of all settings."""
    return [
        field.name
        for field in dataclasses.fields(Recipe)
        if field.metadata and (not groups or field.metadata["group"] in groups)
    ]


def check(name, value):
    """Raise `ValueError` unless the setting `name` may have the `value`, whatever the others are."""
    field = Recipe.__dataclass_fields__[name]
    _check(field, float(value) if field.type is float and type(value) is int else value)


def _check(field, value):
    """Raise `ValueError` unless `value` has the field's type, is one of its choices and lies within its bounds."""
    bounds, choices = field.metadata.get("bounds"), field.metadata.get("choices")
    if type(value) is not field.type:
        raise ValueError(f"{field.name} must be {field.type.__name__}, not {value!r}")
    if choices and value not in choices:
        raise ValueError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")
    if bounds:
        low, high = map(float, bounds[1:-1].split(","))
        excluded = {low} if bounds[0] == "(" else set()
        excluded |= {high} if bounds[-1] == ")" else set()
        if not low <= value <= high or value in excluded:  # NaN lies nowhere
            raise ValueError(f"{field.name} must be within {bounds}, not {value!r}")


RECIPES = {
    "paper": Recipe(),
    # The reason beside each value; "loss" is the validation loss, and RESULTS.md has the tables.
    "improved": Recipe(
        name="improved",
        seconds=30,  # how long 70 % of the recordings last
        vote=True,  # what comes after 30 s counts too
        vote_stretch=0.15,  # loss 0.421 → 0.398
        padding="mask",  # the amount of padding must not tell the class
        high_pass=0.5,  # wander of 1 mV: N/A/O -0.07 without
        notch=30,  # hum of 0.1 mV: -0.23 without; so narrow that nothing else is lost
        block=2,  # a pop or a movement: -0.52 and -0.02 where it scales the rest
        floor=0.01,  # a low-pass at 40 Hz: -0.22 where the network sees how quiet the device is above
        image="log-spectrogram",  # N/A/O 0.822 → 0.838 against the report's units
        nperseg=64,  # 0.2 s, as Zihlmann et al. 2017 have it: shorter than a beat
        noverlap=40,  # a frame every 0.08 s, so that beats are told apart
        max_frequency=110,  # above it the recorder's filter leaves nothing but rounding noise
        trace=True,  # P waves, which a window of 0.2 s blurs: loss 0.374 → 0.364
        flip=0.5,  # some recordings are upside down
        stretch=0.25,  # other heart rates; Zihlmann et al. measured 0.746 → 0.792 with resampling and bursts
        gain=0.6,  # a few loud beats change the standard deviation of the rest
        noise=0.5,  # so that a quiet floor does not tell the class, nor a loud one noise
        crop=0.1,  # some recordings are short
        clip=0.05,  # other devices; so are the next two
        motion=0.1,
        low_pass=0.25,
        bursts=3,  # lost contact; Zihlmann et al.
        backbone="compact",  # trained whole in 20 minutes; network size is known not to matter here
        weights="random",  # compact has no others
        num_neurons=192,  # half the features
        activation="relu",  # a sigmoid passes little gradient to the layers below, which are trained here
        dropout=0.3,  # few recordings for the number of weights
        class_weights="none",  # calibration says rare classes as often as F1 asks
        label_smoothing=0.02,  # 4.8 % of the labels changed between the label versions
        learning_rate=0.002,  # from the search, as the weight decay, gain, noise and class weights are
        weight_decay=0.07,  # as Loshchilov & Hutter 2019 decouple it from the learning rate's schedule
        schedule="cosine",  # from fast learning to a settled end, without a choice of steps
        warm_up=0.05,  # batch normalisation settles first
        weight_average=1.25,  # evens out the steps of the last epochs
        best_epoch="loss",  # the few recordings of noise move the F1 by chance
        batch_size=32,  # faster than 16 on a CPU
        epochs=60,  # loss 0.417 → 0.391 against 30; the networks of heartbeats take half as many
        members="network,rhythm,trees",  # they err on different recordings
        calibrate=True,  # N/A/O 0.812 → 0.821, loss 0.408 → 0.403
        refit=True,  # a third more recordings: with a sixth fewer, loss 0.346 → 0.352
    ),
}  # fmt: skip


def add_flags(parser, names=None):
    """Add `--recipe` and one flag per setting to an `argparse` parser (`names`: only these settings)."""
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="paper", help="settings to start from")
    groups = {}
    for field in dataclasses.fields(Recipe):
        if not field.metadata or (names and field.name not in names):
            continue
        group, help, _, choices = field.metadata.values()
        defaults = ", ".join(f"{name}: {getattr(recipe, field.name)}" for name, recipe in RECIPES.items())
        options = {"help": f"{help} ({defaults})", "default": argparse.SUPPRESS}
        if field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            metavar = "|".join(choices) if choices else {int: "N", float: "X", str: "NAME"}[field.type]
            options |= {"type": field.type, "choices": choices, "metavar": metavar}
        if group not in groups:
            groups[group] = parser.add_argument_group(f"{group} (settings of the recipe)")
        groups[group].add_argument("--" + field.name.replace("_", "-"), **options)


def from_flags(parser, arguments):
    """The recipe that the parsed `arguments` ask for; a value out of range ends in `parser.error`."""
    given = {name: getattr(arguments, name) for name in settings() if name in arguments}
    try:
        return dataclasses.replace(RECIPES[arguments.recipe], **given)
    except ValueError as error:
        parser.error(str(error))


def as_flags(settings):
    """`settings` as command-line flags, each after a space."""
    texts = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            texts.append(f" --{'' if value else 'no-'}{flag}")
        else:
            texts.append(f" --{flag} {shlex.quote(str(value))}")
    return "".join(texts)


if __name__ == "__main__":
    from shell import parser

    parser(__doc__).parse_args()
    for recipe in RECIPES.values():
        print(*(f"{key:>15}: {value}" for key, value in dataclasses.asdict(recipe).items()), "", sep="\n")
