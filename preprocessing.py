"""One recording → inputs of equal length → images, in plain NumPy, SciPy and PyWavelets.

python preprocessing.py        print the images that each recipe makes of a minute of noise
"""

import functools
from fractions import Fraction

import numpy as np
import scipy.signal
import scipy.special

DECIBELS = (-80.0, 0.0)  # of the power that images in dB show: from the rounding noise of an ECG to its peaks
PADDED = -1.0  # a value that no image has: it marks the frames that the network leaves out


def resample(signal, sampling_rate, target_rate):
    """Resample `signal` (samples,) from `sampling_rate` to `target_rate` (Hz) by a polyphase filter.

    Returns float64 of shape (ceil(samples · target_rate / sampling_rate),); the signal itself where the rates agree.
    """
    if sampling_rate == target_rate:
        return signal
    ratio = (Fraction(target_rate) / Fraction(sampling_rate).limit_denominator(1000)).limit_denominator(10_000)
    return scipy.signal.resample_poly(signal.astype(np.float64), ratio.numerator, ratio.denominator)


def prepare(signal, sampling_rate, recipe):
    """The whole recording as `image` takes it, (samples,): at the recipe's rate; standardised for images in dB.

    A spectrogram keeps the units recorded, as the report did; a constant recording becomes zeros.
    """
    signal = resample(signal, sampling_rate, recipe.sampling_rate)
    if recipe.image == "spectrogram":
        return signal
    signal = signal.astype(np.float64) - np.mean(signal, dtype=np.float64)
    return signal / (np.std(signal) or 1)


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


def image(signal, recipe):
    """The network's input for the first `recipe.samples` of a signal that `prepare` made; shorter ones are filled up.

    float32 of `image_shape(recipe)`: log(1 + PSD in units²/Hz) for `spectrogram`; for `log-spectrogram` and
    `scalogram`, power between the `DECIBELS` spread over 0 to 255, which the backbones expect of an image. With
    `mask`, frames that reach beyond the signal's end are `PADDED`.
    """
    fitted = fill(signal, recipe.samples, recipe.padding)
    if recipe.image != "spectrogram":
        fitted = fitted.astype(np.float32)  # plenty for decibels, and sooner done
    if recipe.image == "scalogram":
        power = scalogram(fitted, recipe)
    else:
        # The report's window is SciPy's default. At the edge of a Tukey window a step leaks over the whole spectrum,
        # which decibels would show.
        shape = ("tukey", 0.25) if recipe.image == "spectrogram" else "hann"
        window = _window(shape, recipe.nperseg)
        power = scipy.signal.spectrogram(fitted, recipe.sampling_rate, window, noverlap=recipe.noverlap)[2]
        power = power[: image_shape(recipe)[0]]
    if recipe.image == "spectrogram":
        pixels = np.log1p(power)
    else:
        low, high = DECIBELS
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        pixels = 255 * np.clip((decibels - low) / (high - low), 0, 1)
    if recipe.padding == "mask":
        pixels[:, frame_starts(recipe) + recipe.nperseg > max(len(signal), recipe.nperseg)] = PADDED
    return pixels.astype(np.float32)


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


@functools.cache
def frame_starts(recipe):
    """First sample of each frame of an image."""
    step = recipe.nperseg - recipe.noverlap
    return np.arange((recipe.samples - recipe.noverlap) // step) * step


@functools.cache
def image_axes(recipe):
    """Frequencies (Hz) and frame centres (s) of the images that `recipe` makes."""
    frequencies = np.arange(recipe.nperseg // 2 + 1) * recipe.sampling_rate / recipe.nperseg
    frequencies = frequencies[frequencies <= recipe.max_frequency]
    if recipe.image == "scalogram":
        frequencies = np.geomspace(0.5, frequencies[-1], len(frequencies))
    return frequencies, (frame_starts(recipe) + recipe.nperseg / 2) / recipe.sampling_rate


def image_shape(recipe):
    """(frequencies, frames) of the images that `recipe` makes: (76, 239) for the report's."""
    return tuple(len(axis) for axis in image_axes(recipe))


def shown(pixels, recipe):
    """(values (frequencies, frames), their name and unit) to draw for an image; padding is NaN."""
    values = np.where(pixels == PADDED, np.nan, pixels)
    if recipe.image == "spectrogram":
        return values, "log(1 + PSD in µV²/Hz)"
    low, high = DECIBELS
    unit = "Power (dB)" if recipe.image == "scalogram" else "PSD (dB/Hz)"  # of a recording of variance 1
    return low + values / 255 * (high - low), unit


class Images:
    """The images of many recordings, each made when it is asked for: memory does not grow with their number.

    Indexed like an array, by a slice or an index array: `Images(signals, rates, recipe)[:16]` is float32 of shape
    (16, frequencies, frames). Where the recipe takes a vote, a recording has several images: `owners` holds the
    recording of each image, (images,), and `pieces` the recording, the sampling rate (Hz) it is read at, which is not
    its own where it is stretched, and the image's first sample.
    """

    def __init__(self, signals, sampling_rates, recipe):
        self.signals, self.sampling_rates, self.recipe = list(signals), list(sampling_rates), recipe
        factors = (1, 1 + recipe.vote_stretch, 1 / (1 + recipe.vote_stretch)) if recipe.vote_stretch else (1,)
        self.pieces = [
            (number, rate * factor, start)
            for number, (signal, rate) in enumerate(zip(self.signals, self.sampling_rates, strict=True))
            for factor in factors
            for start in starts(round(len(signal) * recipe.sampling_rate / (rate * factor)), recipe)
        ]
        self.owners = np.array([number for number, _, _ in self.pieces], int)
        self._prepared = None, None  # the last recording used: one of hours has hundreds of images

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, which):
        return np.stack([self._image(*self.pieces[number]) for number in np.arange(len(self))[which]])

    def _image(self, number, rate, start):
        if self._prepared[0] != (number, rate):
            self._prepared = (number, rate), prepare(self.signals[number], rate, self.recipe)
        return image(self._prepared[1][start:], self.recipe)


def vote(probabilities, owners):
    """Probabilities (recordings, classes) from those of their images, (images, classes): those of the mean logits.

    `owners`: as `Images` has them.
    """
    logits = np.log(np.maximum(probabilities, 1e-7, dtype=np.float64))
    means = np.zeros((owners.max() + 1, logits.shape[1]))
    np.add.at(means, owners, logits / np.bincount(owners)[owners, None])
    return scipy.special.softmax(means, axis=1).astype(probabilities.dtype)


if __name__ == "__main__":
    from recipes import RECIPES
    from shell import parser

    parser(__doc__).parse_args()
    for name, recipe in RECIPES.items():
        noise = np.random.default_rng(0).normal(0, 200, 18000)
        frequencies, times = image_axes(recipe)
        pixels = image(prepare(noise, 300, recipe), recipe)
        print(
            f"{name}: {recipe.image}, {pixels.shape[0]} frequencies up to {frequencies[-1]:.0f} Hz × {pixels.shape[1]} "
            f"frames up to {times[-1]:.1f} s, values {pixels.min():.2f} to {pixels.max():.2f}"
        )
