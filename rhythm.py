"""A small network on the sequence of heartbeats: a member of a model that sees each beat beside its neighbours."""

import dataclasses
import functools

import numpy as np
import scipy.signal

import beats
import preprocessing
from recipes import CLASSES
from shell import say

MOST = 48  # beats of a recording that training sees at once
NETWORKS, BLOCKS, CHANNELS = 3, 3, 64  # networks that vote, residual blocks of each, channels of each block
BATCH = 64  # recordings that are answered at once
STEP = 5  # samples at `beats.RATE` from one point of a beat to the next: 60 points a second
POINTS = np.arange(-90, 150, STEP)  # of a beat, in samples after its R peak
BANDS = beats.BANDS[:-1]  # above 20 Hz devices differ
# What the network sees of each beat. Intervals are logarithms of s over 0.8 s, or of their ratio to the median.
FEATURES = [
    *(f"wave at {1000 * at // beats.RATE} ms" for at in POINTS.tolist()),
    *("before", "after", "usual"),
    *("before/usual", "after/usual", "after/before", "before/local"),
    *("likeness", "QRS likeness", "P likeness", "T likeness", "likeness to last", "P likeness to last"),
    *("found by both", "height", "rest deviation"),
    *(f"rest {low}-{high} Hz" for low, high in BANDS),
    "beat",  # 1; 0 where a shorter sequence is filled up
]
PACE = [FEATURES.index(name) for name in ("before", "after", "usual")]


@functools.cache
def _smooth():
    """Second-order sections of a low-pass below half of the rate at which beats are sampled."""
    return scipy.signal.butter(2, 28, fs=beats.RATE, output="sos")


def describe(conditioned, peaks):
    """The `FEATURES` of each beat, float16 (beats, features), of a `beats.Conditioned` signal; 0 rows below 3 beats.

    peaks: as `beats.detect` finds them.
    """
    first, second = (peaks[name] for name in beats.DETECTORS)
    if len(first) < 3:
        return np.zeros((0, len(FEATURES)), np.float16)
    signal, rr = conditioned.signal, np.diff(first) / beats.RATE
    usual, local = np.median(rr), beats.timing(rr)[2]
    before, after = np.r_[usual, rr], np.r_[rr, usual]
    smooth = np.pad(scipy.signal.sosfiltfilt(_smooth(), signal), (-POINTS[0], POINTS[-1]))
    waves = smooth[first[:, None] - POINTS[0] + POINTS]
    middle = np.median(waves, axis=0)
    whole, qrs, p, t = (
        slice(*np.searchsorted(POINTS, ends)) for ends in ((-75, 120), (-24, 30), (-75, -15), (36, 135))
    )
    columns = [
        *waves.T,
        *(np.log(each / 0.8) for each in (before, after, np.full(len(first), usual))),
        *(np.log(each) for each in (before / usual, after / usual, after / before)),
        np.r_[0, rr / local - 1],
        *(beats.correlation(waves[:, part], middle[part]) for part in (whole, qrs, p, t)),
        *(np.r_[0, beats.correlation(waves[1:, part], waves[:-1, part])] for part in (whole, p)),
        _confirmed(first, second),
        np.log(np.abs(waves).max(1) + 1e-2),
        *_rests(signal, first).T,
        np.ones(len(first)),
    ]
    return np.nan_to_num(np.stack(columns, axis=1)).astype(np.float16)


def _confirmed(first, second):
    if not len(second):
        return np.zeros(len(first))
    return np.abs(first[:, None] - second).min(1) <= beats.TOGETHER * beats.RATE


def _rests(signal, peaks):
    """Logs of the deviation, and of the power in BANDS, between T and P before each beat; (beats, 1 + bands)."""
    values = np.zeros((len(peaks), 1 + len(BANDS)))
    for place, piece in enumerate(beats.rests(signal, peaks), 1):
        if len(piece) > 40:
            level = (piece - np.linspace(piece[0], piece[-1], len(piece)))[: beats.RATE]
            power = np.abs(np.fft.rfft(level * np.hanning(len(level)), beats.RATE)) ** 2 / len(level)
            values[place, 0] = np.log(level.std() + 1e-3)
            values[place, 1:] = [np.log(power[low:high].sum() + 1e-5) for low, high in BANDS]
    return values


class Sequences:
    """Sequences of beats as batches of one length: indexed as an array, float32 (n, beats, features).

    sequences: as `describe` makes them; recipe: by which training sees another version of each in every `epoch`, at
    most `MOST` beats of it at another pace and amplitude and with noise; without a recipe they are shown as they are.
    """

    def __init__(self, sequences, recipe=None):
        self.sequences, self.recipe, self.epoch = sequences, recipe, 0
        self.length = MOST if recipe else max([len(sequence) for sequence in sequences] + [1])

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, which):
        places = np.arange(len(self))[which]
        filled = np.zeros((len(places), self.length, len(FEATURES)), np.float32)
        for row, place in zip(filled, places, strict=True):
            sequence = self.sequences[place]
            if self.recipe:
                sequence = vary(sequence, self.recipe, np.random.default_rng((self.recipe.seed, self.epoch, place)))
            row[: len(sequence)] = sequence
        return filled


def vary(sequence, recipe, rng):
    """A random part of a `sequence` (beats, features), at most `MOST` beats long, changed as `recipe` augments.

    rng: a NumPy generator, which alone decides.
    """
    most = min(len(sequence), MOST)
    count = rng.integers(most // 2, most + 1) if rng.random() < 0.5 and most > 12 else most
    begin = rng.integers(len(sequence) - count + 1)
    sequence = sequence[begin : begin + count].astype(np.float32)
    waves = slice(len(POINTS))
    sequence[:, PACE] += rng.uniform(-1, 1) * np.log1p(recipe.stretch)
    sequence[:, waves] *= np.exp(rng.uniform(-1, 1) * np.log1p(recipe.gain))
    if rng.random() < 0.5:
        sequence[:, waves] += rng.normal(0, recipe.noise * 10 ** rng.uniform(-2, 0), sequence[:, waves].shape)
    return sequence


def network(recipe, sequences):
    """A Keras model: beats (n, beats, features) → probabilities (n, 4), with as many beats as there are.

    A residual network of 0.1 million weights, convolved along the beats, of whose last maps the mean, the largest value
    and the deviation over the beats go to the head. sequences: those of the training split, to whose mean and deviation
    the features are scaled.
    """
    import model
    from keras_setup import keras

    keras.utils.set_random_seed(recipe.seed)
    layers, ops = keras.layers, keras.ops
    given = keras.Input((None, len(FEATURES)), name="beats")
    there = given[..., -1:]
    every = np.concatenate(sequences).astype(np.float32)
    deviation = every.std(0) + 1e-3
    x = layers.Rescaling(1 / deviation, -every.mean(0) / deviation)(given)
    x = layers.Conv1D(CHANNELS, 1, use_bias=False)(layers.Multiply()([x, there]))

    def active(x):
        return layers.Multiply()([layers.Activation("relu")(layers.BatchNormalization(momentum=0.97)(x)), there])

    for _ in range(BLOCKS):
        added = layers.Conv1D(CHANNELS, 3, padding="same", use_bias=False)(active(x))
        added = layers.SpatialDropout1D(0.3)(active(added))  # with 0.1 the loss rises after 15 epochs
        x = layers.Add()([x, layers.Conv1D(CHANNELS, 3, padding="same", use_bias=False)(added)])
    x = active(x)
    count = ops.maximum(ops.sum(there, 1), 1)
    mean = ops.sum(x, 1) / count
    spread = ops.sqrt(ops.maximum(ops.sum(x * x, 1) / count - mean * mean, 0) + 1e-4)
    features = layers.Concatenate()([mean, ops.max(x, 1), spread])
    return keras.Model(given, model.head(recipe, features.shape[1])(features))


def parts(run):
    """The `runs.Run` of each network, whose files belong to the `run`."""
    return [dataclasses.replace(run, member=f".rhythm{place}") for place in range(NETWORKS)]


def fit(measured, labels, validation, validation_labels, recipe, run, fingerprint):
    """`NETWORKS` networks that are trained on sequences of beats and vote, as ONNX, bytes.

    measured, validation: `measuring.Measured` of both splits, the latter perhaps None; labels: indices of classes
    (recordings,). They are trained as the recipe has it, but for half its epochs, and kept as they are after the last.
    run, fingerprint: as `training.fit` takes them; each network has files of its own, from which its training continues
    after an interruption.
    """
    import model
    import training
    from f1_sweeping_callback import PhysioNetF1SweepCallback
    from keras_setup import keras

    trained, scorer = [], training.Kept(lambda: None)
    epochs = -(-recipe.epochs // 2)  # more gain nothing
    for place in range(NETWORKS):
        own = dataclasses.replace(recipe, seed=(recipe.seed + place) % 2**32, epochs=epochs)
        say(f"training network {place + 1} of {NETWORKS} on the sequence of beats")
        if validation:
            scorer = PhysioNetF1SweepCallback(
                Sequences(validation.sequences), validation_labels, BATCH, owners=validation.owners
            )
        trained.append(network(own, measured.sequences))
        inputs = Sequences(measured.sequences, own)
        training.fit(
            trained[-1], inputs, np.asarray(labels)[measured.owners], own, scorer, parts(run)[place], fingerprint
        )
    given = keras.Input(trained[0].input.shape[1:], name="beats")
    logits = keras.ops.mean(keras.ops.stack([keras.ops.log(one(given) + 1e-7) for one in trained]), 0)
    return model.to_onnx(keras.Model(given, keras.ops.softmax(logits)))


def classify(network, measured):
    """Probabilities (recordings, 4) of recordings that are `measuring.Measured`: a vote of all their windows.

    network: of Keras, or an `inference.Onnx`.
    """
    order = np.argsort([len(sequence) for sequence in measured.sequences], kind="stable")
    probabilities = np.empty((len(order), len(CLASSES)), np.float32)
    for start in range(0, len(order), BATCH):
        alike = order[start : start + BATCH]  # in length, so that little is filled up
        probabilities[alike] = network.predict_on_batch(Sequences([measured.sequences[place] for place in alike])[:])
    return preprocessing.vote(probabilities, measured.owners)
