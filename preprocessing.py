"""One recording → inputs of equal length → images; and other versions of a recording in every epoch of training.

python preprocessing.py        print the images of each recipe, and draw augmented recordings, figures/augmentation.png
"""

import dataclasses
import functools
import itertools
from collections import namedtuple

import numpy as np
import scipy.fft
import scipy.signal
import scipy.special

import bounds

DECIBELS = (-80.0, 0.0)  # of the power that images in dB show: from the rounding noise of an ECG to its peaks
PADDED = -1.0  # a value that no image has: it marks the frames that the network leaves out
TRACE = 12  # values of the trace in a frame: of 0.08 s, as `improved` has them, 150 a second

# Part of a recording that becomes an image: the recording's place, the sampling rate (Hz) it is read at, which is not
# its own where it is stretched, and the first sample.
Piece = namedtuple("Piece", "recording rate start")
# What a figure shows of an image: values (frequencies, frames), NaN on padding, and their unit; frequencies in Hz,
# times in s, and what kind of image it is.
Picture = namedtuple("Picture", "values unit frequencies times title")


# ── Recording → inputs ──────────────────────────────────────────────────────────────────────────────────────────────


def resample(signal, sampling_rate, target_rate):
    """Resample `signal` (samples,) from `sampling_rate` to `target_rate` (Hz) by a polyphase filter.

    Returns float64 of about samples · target_rate / sampling_rate; the signal itself where the rates agree.
    """
    if sampling_rate == target_rate:
        return signal
    up, down = small_ratio(target_rate / sampling_rate)
    return scipy.signal.resample_poly(signal.astype(np.float64), up, down)


@functools.cache
def small_ratio(wanted):
    """The smallest integers (up, down) whose ratio is `wanted` to 0.001 %, 36 ms in an hour: filters stay short."""
    return next(
        (round(wanted * down), down)
        for down in itertools.count(1)
        if abs(round(wanted * down) / (wanted * down) - 1) <= 1e-5
    )


def prepare(signal, sampling_rate, recipe):
    """The whole recording as `image` takes it, (samples,): at the recipe's rate; conditioned if the image wants it.

    Conditioned: freed of its mean, of slow waves and of hum as the recipe says, and scaled to a deviation of 1;
    float32. A constant recording becomes zeros.
    """
    if not IMAGES[recipe.image].conditioned:
        return resample(signal, sampling_rate, recipe.sampling_rate)
    # Freed of its mean first: `resample` takes what lies beyond the ends for 0, to which a baseline would jump.
    signal = signal.astype(np.float64) - np.mean(signal, dtype=np.float64)
    signal = resample(signal, sampling_rate, recipe.sampling_rate)
    sections = _filters(recipe.sampling_rate, recipe.high_pass, recipe.notch)
    if len(sections):
        # Forward and backward, so that no wave is delayed.
        signal = scipy.signal.sosfiltfilt(sections, signal, padlen=min(len(signal) - 1, recipe.sampling_rate))
    return (signal / _deviation(signal, recipe.block * recipe.sampling_rate)).astype(np.float32)


@functools.cache
def _filters(rate, high_pass, notch):
    """Second-order sections (sections, 6) of a high-pass at `high_pass` Hz and of notches at 50 and 60 Hz."""
    sections = [np.zeros((0, 6))]
    if high_pass:
        sections.append(scipy.signal.butter(2, high_pass, "highpass", fs=rate, output="sos"))
    if notch:
        sections += [scipy.signal.tf2sos(*scipy.signal.iirnotch(hum, notch, rate)) for hum in (50, 60)]
    return np.concatenate(sections)


def _deviation(signal, block):
    """Standard deviation of `signal` (samples,), or the median of those of its blocks of `block` samples, above 0.

    A second of motion moves the first, and leaves the second as it is.
    """
    size = max(round(block), 1)
    whole = signal[: len(signal) // size * size] if block else signal[:0]
    deviations = whole.reshape(-1, size).std(1) if len(whole) else np.std(signal)[None]
    moving = deviations[deviations > 1e-9 * deviations.max()]  # a lead that fell off says nothing
    return np.median(moving) if len(moving) else 1.0


def starts(samples, recipe):
    """First samples of the inputs that a recording of `samples` is cut into: as few as cover it, evenly spaced.

    Only the first where the recipe takes no vote.
    """
    count = -(-samples // recipe.samples) if recipe.vote else 1
    return np.linspace(0, max(samples - recipe.samples, 0), max(count, 1)).astype(int).tolist()


def fill(signal, samples, padding):
    """`signal` (any,) cut after `samples`, or filled up to them by zeros or, with `wrap`, by itself; float64."""
    if padding == "wrap" and len(signal):
        return np.resize(signal, samples).astype(np.float64) if len(signal) < samples else signal[:samples] * 1.0
    fitted = np.zeros(samples)
    fitted[: len(signal)] = signal[:samples]
    return fitted


# ── Input → image ───────────────────────────────────────────────────────────────────────────────────────────────────


def image(signal, recipe):
    """The network's input for the first `recipe.samples` of a signal that `prepare` made; shorter ones are filled up.

    float32 of `image_shape(recipe)`, made by the recipe's entry of `IMAGES`; below it, if the recipe wants it, the
    trace. With `mask`, frames that reach beyond the signal's end are `PADDED`.
    """
    kind = IMAGES[recipe.image]
    fitted = fill(signal, recipe.samples, recipe.padding)
    # Single precision is plenty for decibels, and sooner done.
    power = kind.power(fitted.astype(np.float32) if kind.conditioned else fitted, recipe)
    # White noise of the deviation `floor`, added without its chance: how quiet a device is tells nothing of the heart.
    pixels = kind.pixels(power + 2 * recipe.floor**2 / recipe.sampling_rate if recipe.floor else power)
    if recipe.trace:
        pixels = np.concatenate([pixels, trace_pixels(fitted, recipe)])
    if recipe.padding == "mask":
        pixels[:, frame_starts(recipe) + recipe.nperseg > max(len(signal), recipe.nperseg)] = PADDED
    return pixels.astype(np.float32)


def spectrogram(signal, recipe, window):
    """Power spectral density (frequencies, frames) of `signal` (samples,), units²/Hz, up to the highest frequency."""
    power = scipy.signal.spectrogram(
        signal, recipe.sampling_rate, _window(window, recipe.nperseg), noverlap=recipe.noverlap
    )[2]
    return power[: len(linear(recipe))]


_window = functools.cache(scipy.signal.get_window)


def scalogram(signal, recipe):
    """Power of the complex Morlet wavelet transform of `signal` (samples,), averaged over the recipe's frames.

    Shape `image_shape(recipe)`, units²; the rows are spaced evenly in the logarithm of the frequency. The wavelet is
    PyWavelets' `cmor1.5-1.0`; power is divided by the scale, so that tones of one height look alike (Liu et al. 2007,
    "Rectification of the bias in the wavelet power spectrum").
    """
    import pywt

    scales = pywt.frequency2scale("cmor1.5-1.0", image_axes(recipe)[0] / recipe.sampling_rate)
    transform = pywt.cwt(signal, scales, "cmor1.5-1.0", method="fft")[0]
    total = np.cumsum(np.abs(transform) ** 2 / scales[:, None], axis=1)
    total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
    begins = frame_starts(recipe)
    return (total[:, begins + recipe.nperseg] - total[:, begins]) / recipe.nperseg


def trace_pixels(signal, recipe):
    """The trace of a conditioned `signal` (samples,) as pixels (TRACE, frames): a step about each frame's middle.

    0 to 255, with 127.5 for the mean, on a scale that shows P waves beside QRS complexes: linear up to about half a
    standard deviation, logarithmic beyond, up to 13.6.
    """
    step = recipe.nperseg - recipe.noverlap
    offsets = (recipe.nperseg - 1) / 2 + step * ((np.arange(TRACE) + 0.5) / TRACE - 0.5)
    values = np.interp(frame_starts(recipe) + offsets[:, None], np.arange(len(signal)), signal)
    return 127.5 * (1 + np.clip(np.arcsinh(2 * values) / 4, -1, 1))


def decibel_pixels(power):
    """Power between the `DECIBELS` spread over 0 to 255, which the backbones expect of an image."""
    low, high = DECIBELS
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    return 255 * np.clip((decibels - low) / (high - low), 0, 1)


def decibels(pixels):
    """The power in dB that `decibel_pixels` shows as `pixels`."""
    low, high = DECIBELS
    return low + pixels / 255 * (high - low)


def linear(recipe):
    """Frequencies (Hz) of a spectrogram."""
    frequencies = np.arange(recipe.nperseg // 2 + 1) * recipe.sampling_rate / recipe.nperseg
    return frequencies[frequencies <= recipe.max_frequency]


def geometric(recipe):
    """As many frequencies (Hz) as a spectrogram has, evenly spaced on a logarithmic scale from 0.5 Hz."""
    frequencies = linear(recipe)
    return np.geomspace(0.5, frequencies[-1], len(frequencies))


# One kind of image: title; unit of what figures show; whether `prepare` conditions the recording; functions
# recipe → frequencies in Hz, (signal, recipe) → power, power → pixels, pixels → what figures show.
Kind = namedtuple("Kind", "title unit conditioned frequencies power pixels shown")
IMAGES = {
    # The report's, in the units recorded. Its window is SciPy's default.
    "spectrogram": Kind(
        "Spectrogram",
        "log(1 + PSD in µV²/Hz)",
        False,
        linear,
        functools.partial(spectrogram, window=("tukey", 0.25)),
        np.log1p,
        np.array,
    ),
    # At the edge of a Tukey window a step leaks over the whole spectrum, which decibels would show.
    "log-spectrogram": Kind(
        "Spectrogram",
        "PSD (dB/Hz)",  # of a recording of variance 1
        True,
        linear,
        functools.partial(spectrogram, window="hann"),
        decibel_pixels,
        decibels,
    ),
    "scalogram": Kind("Scalogram", "Power (dB)", True, geometric, scalogram, decibel_pixels, decibels),
}


@functools.cache
def frame_starts(recipe):
    """First sample of each frame of an image."""
    step = recipe.nperseg - recipe.noverlap
    return np.arange((recipe.samples - recipe.noverlap) // step) * step


@functools.cache
def image_axes(recipe):
    """Frequencies (Hz) and frame centres (s) of the images that `recipe` makes."""
    centres = (frame_starts(recipe) + recipe.nperseg / 2) / recipe.sampling_rate
    return IMAGES[recipe.image].frequencies(recipe), centres


def image_shape(recipe):
    """(rows, frames) of the images that `recipe` makes: (76, 239) for the report's.

    There is a row for each frequency, and `TRACE` more where the network also sees the trace.
    """
    frequencies, centres = image_axes(recipe)
    return len(frequencies) + TRACE * recipe.trace, len(centres)


def picture(pixels, recipe, begin=0.0):
    """The `Picture` to draw of an image whose first sample lies `begin` seconds into the recording."""
    kind, (frequencies, times) = IMAGES[recipe.image], image_axes(recipe)
    pixels = pixels[: len(frequencies)]
    values = np.where(pixels == PADDED, np.nan, kind.shown(pixels))
    return Picture(values, kind.unit, frequencies, times + begin, kind.title)


class Images:
    """The images of many recordings, each made when it is asked for: memory does not grow with their number.

    Indexed like an array, by a slice or an index array: `Images(signals, rates, recipe)[:16]` is float32 of shape
    (16, frequencies, frames). Where the recipe takes a vote, a recording has several images: `pieces` holds the `Piece`
    of each image, and `owners` its recording, (images,).
    """

    def __init__(self, signals, sampling_rates, recipe):
        self.signals, self.sampling_rates, self.recipe = list(signals), list(sampling_rates), recipe
        factors = (1, 1 + recipe.vote_stretch, 1 / (1 + recipe.vote_stretch)) if recipe.vote_stretch else (1,)
        self.pieces = [
            Piece(recording, rate * factor, start)
            for recording, (signal, rate) in enumerate(zip(self.signals, self.sampling_rates, strict=True))
            for factor in factors
            for start in starts(round(len(signal) * recipe.sampling_rate / (rate * factor)), recipe)
        ]
        self.owners = np.array([piece.recording for piece in self.pieces], int)
        self._prepared = None, None  # the last recording used: one of hours has hundreds of images

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, which):
        return np.stack([self._image(self.pieces[place]) for place in np.arange(len(self))[which]])

    def _image(self, piece):
        if self._prepared[0] != piece[:2]:
            self._prepared = piece[:2], self._read(piece)
        return image(self._prepared[1][piece.start :], self.recipe)

    def _read(self, piece):
        """The recording of `piece`, conditioned at its own rate, where the hum is hum, and then read at the piece's."""
        rate = self.sampling_rates[piece.recording]
        signal = prepare(self.signals[piece.recording], rate, self.recipe)
        return resample(signal, piece.rate / rate * self.recipe.sampling_rate, self.recipe.sampling_rate)


def vote(probabilities, owners):
    """Probabilities (recordings, classes) from those of their images, (images, classes): those of the mean logits.

    `owners`: as `Images` has them.
    """
    logits = np.log(np.maximum(probabilities, 1e-7, dtype=np.float64))
    means = np.zeros((owners.max() + 1, logits.shape[1]))
    np.add.at(means, owners, logits / np.bincount(owners)[owners, None])
    return scipy.special.softmax(means, axis=1).astype(probabilities.dtype)


# ── Augmentation ────────────────────────────────────────────────────────────────────────────────────────────────────


def cut(signal, recipe, rng):
    """A random piece of `signal` (samples,), as long as the network's input or shorter, read at another pace.

    Stretching and warping interpolate linearly, which dampens frequencies near the upper end; the piece then covers
    more or less of the signal.
    """
    pace = np.exp(rng.uniform(-1, 1) * np.log1p(recipe.stretch))
    positions = np.arange(min(recipe.samples, int(len(signal) / pace)), dtype=np.float64) * pace
    if recipe.warp:
        positions = _wander(positions, recipe, rng)
    begin = rng.uniform(0, max(len(signal) - 1 - positions[-1], 0))
    positions += begin if recipe.stretch or recipe.warp else int(begin)  # interpolation would dampen high frequencies
    return np.interp(positions, np.arange(len(signal)), signal)


def _wander(positions, recipe, rng):
    """`positions` (samples,) read at a pace that changes smoothly, every 2 s or so, and ends where it ended."""
    knots = max(int(len(positions) / recipe.sampling_rate / 2), 2)
    pace = 1 + rng.uniform(-recipe.warp, recipe.warp, knots)
    warped = np.cumsum(np.interp(np.linspace(0, knots - 1, len(positions)), np.arange(knots), pace))
    return (warped - warped[0]) * positions[-1] / (warped[-1] - warped[0])


def turn(piece, recipe, rng):
    """Some `piece` (samples,), a share `flip` of them, upside down, as where the electrodes change places."""
    return -piece if rng.random() < recipe.flip else piece


def scale(piece, recipe, rng):
    """`piece` (samples,) times a factor of 1 / (1 + gain) to 1 + gain."""
    return piece * np.exp(rng.uniform(-1, 1) * np.log1p(recipe.gain))


def add_noise(piece, recipe, rng):
    """Every other `piece` (samples,) with white noise of a random deviation, up to `noise` times its own."""
    if rng.random() < 0.5:  # else no image would show how quiet a clean recording is
        return piece + rng.normal(0, recipe.noise * 10 ** rng.uniform(-2, 0) * np.std(piece), len(piece))
    return piece


def shorten(piece, recipe, rng):
    """8 to 30 s of some `piece` (samples,), of a share `crop` of them."""
    length = int(rng.uniform(8, 30) * recipe.sampling_rate)
    if rng.random() >= recipe.crop or length >= len(piece):
        return piece
    begin = rng.integers(len(piece) - length)
    return piece[begin : begin + length]


def saturate(piece, recipe, rng):
    """Some `piece` (samples,), a share `clip` of them, clipped at its largest and smallest 0 to 2 %."""
    if rng.random() >= recipe.clip:
        return piece
    share = rng.uniform(0, 0.02)
    return np.clip(piece, *np.quantile(piece, (share, 1 - share)))


def move(piece, recipe, rng):
    """Some `piece` (samples,), a share `motion` of them, with the electrode moved once, for 0.3 to 2.5 s.

    That is a swing of 3 to 100 standard deviations, or a jump and a jump back that the recorder's high-pass lets decay.
    """
    if rng.random() >= recipe.motion:
        return piece
    piece, rate = piece.copy(), recipe.sampling_rate
    length = min(int(rng.uniform(0.3, 2.5) * rate), len(piece))
    begin = rng.integers(len(piece) - length + 1)
    height = np.std(piece) * 10 ** rng.uniform(0.5, 2)
    if rng.random() < 0.5:
        knots = max(length // 30, 3)
        swing = np.interp(np.arange(length), np.linspace(0, length - 1, knots), rng.normal(0, 1, knots))
        piece[begin : begin + length] += height * np.hanning(length) * swing
    else:
        for start, jump in ((begin, height), (begin + length, -height)):
            piece[start:] += jump * np.exp(-np.arange(len(piece) - start) / (0.2 * rate))
    return piece


def dampen(piece, recipe, rng):
    """Some `piece` (samples,), a share `low_pass` of them, through a low-pass of any steepness at 25 to 150 Hz.

    Devices differ in what they leave of high frequencies.
    """
    if rng.random() >= recipe.low_pass:
        return piece
    edge, order = np.exp(rng.uniform(np.log(25), np.log(150))), rng.integers(1, 9)
    size = scipy.fft.next_fast_len(len(piece), real=True)
    gain = 1 / np.sqrt(1 + (scipy.fft.rfftfreq(size, 1 / recipe.sampling_rate) / edge) ** (2 * order))  # Butterworth's
    return scipy.fft.irfft(scipy.fft.rfft(piece, size) * gain, size)[: len(piece)]


def silence(piece, recipe, rng):
    """`piece` (samples,) with up to `bursts` stretches of 0.05 to 0.5 s set to 0."""
    for _ in range(rng.integers(recipe.bursts + 1)):
        length = int(rng.uniform(0.05, 0.5) * recipe.sampling_rate)
        start = rng.integers(len(piece))
        piece[start : start + length] = 0
    return piece


def blank(pixels, recipe, rng):
    """`pixels` with up to `bands` bands of an eighth of its frequencies or frames set to the mean, as SpecAugment does;
    the trace below them is left alone.

    Source: Park et al. 2019, "SpecAugment: a simple data augmentation method for automatic speech recognition".
    """
    shown = pixels[: len(image_axes(recipe)[0])]
    mean = shown[:, shown[0] != PADDED].mean()
    for axis in (0, 1):
        for _ in range(rng.integers(recipe.bands + 1)):
            length = rng.integers(1, max(shown.shape[axis] // 8, 1) + 1)
            start = rng.integers(shown.shape[axis] - length + 1)
            part = shown[start : start + length] if axis == 0 else shown[:, start : start + length]
            part[part != PADDED] = mean
    return pixels


# The function of each setting, in the order in which they are applied: to the signal while the piece is cut from it
# (`cut` does both), to the piece, or to its image.
CUTS = {"stretch": cut, "warp": cut}
CHANGES = {
    "flip": turn,
    "gain": scale,
    "crop": shorten,
    "clip": saturate,
    "noise": add_noise,
    "motion": move,
    "low_pass": dampen,
    "bursts": silence,
}
BLANKS = {"bands": blank}


def augment(signal, recipe, rng):
    """A random piece of `signal` (samples,), as long as the network's input or shorter, changed as `recipe` says.

    rng: a NumPy generator, which alone decides.
    """
    piece = cut(signal, recipe, rng)
    for name, change in CHANGES.items():
        if getattr(recipe, name):
            piece = change(piece, recipe, rng)
    return piece


class AugmentedImages:
    """Images of random, changed pieces of the recordings: one of each recording, another in each `epoch`.

    Indexed as `Images`; the recipe's seed, the epoch and the recording's place decide the image.
    """

    def __init__(self, signals, sampling_rates, recipe):
        self.signals, self.sampling_rates, self.recipe = list(signals), list(sampling_rates), recipe
        self.epoch = 0
        self._prepared, self._bytes = {}, 0  # recording → what `prepare` makes of it, not anew in each epoch

    def __len__(self):
        return len(self.signals)

    def __getitem__(self, which):
        return np.stack([self._image(place) for place in np.arange(len(self))[which]])

    def _image(self, place):
        rng = np.random.default_rng((self.recipe.seed, self.epoch, place))
        pixels = image(augment(self._prepare(place), self.recipe, rng), self.recipe)
        for name, change in BLANKS.items():
            if getattr(self.recipe, name):
                pixels = change(pixels, self.recipe, rng)
        return pixels

    def _prepare(self, place):
        if place in self._prepared:
            return self._prepared[place]
        made = prepare(self.signals[place], self.sampling_rates[place], self.recipe)
        if self._bytes + made.nbytes <= bounds.HELD:
            self._prepared[place] = made
            self._bytes += made.nbytes
        return made


def main():
    import plotting
    import synthetic
    from recipes import RECIPES
    from shell import parser

    parser(__doc__).parse_args()
    for name, recipe in RECIPES.items():
        noise = np.random.default_rng(0).normal(0, 200, 18000)
        frequencies, times = image_axes(recipe)
        pixels = image(prepare(noise, 300, recipe), recipe)[: len(frequencies)]
        print(
            f"{name}: {recipe.image}, {len(frequencies)} frequencies up to {frequencies[-1]:.0f} Hz × {len(times)} "
            f"frames up to {times[-1]:.1f} s, values {pixels.min():.2f} to {pixels.max():.2f}"
        )
    signal = synthetic.recording("N", 10, np.random.default_rng(0))
    plain = dataclasses.replace(RECIPES["paper"], seconds=10)
    traces = {"as recorded": signal}
    amounts = {"stretch": 0.25, "warp": 0.3, "gain": 1.0, "clip": 1.0, "noise": 1.0, "motion": 1.0, "low_pass": 1.0}
    for name, amount in (amounts | {"bursts": 6, "flip": 1.0}).items():
        changed = dataclasses.replace(plain, **{name: amount})
        traces[f"--{name.replace('_', '-')} {amount}"] = augment(signal, changed, np.random.default_rng(8))
    print(plotting.traces(traces, synthetic.FS, "figures/augmentation.png"))


if __name__ == "__main__":
    from shell import run_script

    run_script(main)
