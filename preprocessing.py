"""One recording → 60 s → spectrogram, in plain NumPy and SciPy.

python preprocessing.py        print what the report's settings make of a minute of silence
"""

from fractions import Fraction

import numpy as np
import scipy.signal


def resample(signal, sampling_rate, target_rate):
    """Resample `signal` (samples,) from `sampling_rate` to `target_rate` (Hz) by a polyphase filter.

    Returns float64 of shape (ceil(samples · target_rate / sampling_rate),); the signal itself where the rates agree.
    """
    if sampling_rate == target_rate:
        return signal
    ratio = (Fraction(target_rate) / Fraction(sampling_rate).limit_denominator(1000)).limit_denominator(10_000)
    return scipy.signal.resample_poly(signal.astype(np.float64), ratio.numerator, ratio.denominator)


def pad_or_trim(signal, samples):
    """Append zeros to `signal` (any,), or cut its tail, so that `samples` remain; float64."""
    fitted = np.zeros(samples)
    fitted[: len(signal)] = signal[:samples]
    return fitted


def spectrogram(signal, sampling_rate, nperseg, noverlap):
    """log(1 + power spectral density) of `signal` (samples,), float32 of shape (frequencies, frames).

    `scipy.signal.spectrogram` with its defaults (Tukey window of shape 0.25, constant detrend, density): units²/Hz
    under the logarithm, where a unit is that of `signal`.
    """
    density = scipy.signal.spectrogram(signal, sampling_rate, nperseg=nperseg, noverlap=noverlap)[2]
    return np.log1p(density).astype(np.float32)


def image_shape(recipe):
    """(frequencies, frames) of the spectrograms that `recipe` makes: (76, 239) for the report's."""
    step = recipe.nperseg - recipe.noverlap
    return recipe.nperseg // 2 + 1, (recipe.samples - recipe.noverlap) // step


def image_axes(recipe):
    """Frequencies (Hz) and frame centres (s) of the spectrograms that `recipe` makes."""
    frequencies, frames = image_shape(recipe)
    step = recipe.nperseg - recipe.noverlap
    times = (np.arange(frames) * step + recipe.nperseg / 2) / recipe.sampling_rate
    return np.arange(frequencies) * recipe.sampling_rate / recipe.nperseg, times


def image(signal, sampling_rate, recipe):
    """The network's input for one recording.

    `signal` (samples,) in the units recorded, at `sampling_rate` Hz; float32 of `image_shape(recipe)`.
    """
    signal = pad_or_trim(resample(signal, sampling_rate, recipe.sampling_rate), recipe.samples)
    return spectrogram(signal, recipe.sampling_rate, recipe.nperseg, recipe.noverlap)


class Images:
    """The images of many recordings, each made when it is asked for: memory does not grow with their number.

    Indexed like an array, by a slice or an index array: `Images(signals, rates, recipe)[:16]` is float32 of shape
    (16, frequencies, frames).
    """

    def __init__(self, signals, sampling_rates, recipe):
        self.signals, self.sampling_rates, self.recipe = list(signals), list(sampling_rates), recipe

    def __len__(self):
        return len(self.signals)

    def __getitem__(self, which):
        indices = np.arange(len(self))[which]
        return np.stack([image(self.signals[i], self.sampling_rates[i], self.recipe) for i in indices])


if __name__ == "__main__":
    from recipes import RECIPES

    paper = RECIPES["paper"]
    print("shape", image(np.zeros(300), 300, paper).shape, "frequencies × frames")
    print("frequencies up to {:.0f} Hz, times up to {:.2f} s".format(*(axis[-1] for axis in image_axes(paper))))
