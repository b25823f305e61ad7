"""Another version of a recording in every epoch of training.

python augmentation.py        draw a synthetic recording and versions of it into figures/augmentation.png
"""

import numpy as np

import preprocessing
from shell import parser, run


def augment(signal, recipe, rng):
    """A random piece of `signal` (samples,), as long as the network's input or shorter, changed as `recipe` says.

    Stretching and warping read the signal at another pace by linear interpolation, which dampens frequencies near
    the upper end, so that the piece covers more or less of it. rng: a NumPy generator, which alone decides.
    """
    pace = np.exp(rng.uniform(-1, 1) * np.log1p(recipe.stretch))
    positions = np.arange(min(recipe.samples, int(len(signal) / pace)), dtype=np.float64) * pace
    if recipe.warp:
        positions = _wander(positions, recipe, rng)
    begin = rng.uniform(0, max(len(signal) - 1 - positions[-1], 0))
    positions += begin if recipe.stretch or recipe.warp else int(begin)  # interpolation would dampen high frequencies
    piece = np.interp(positions, np.arange(len(signal)), signal)
    piece *= np.exp(rng.uniform(-1, 1) * np.log1p(recipe.gain))
    if recipe.noise and rng.random() < 0.5:  # else no image would show how quiet a clean recording is
        piece += rng.normal(0, recipe.noise * 10 ** rng.uniform(-2, 0) * np.std(signal), len(piece))
    for _ in range(rng.integers(recipe.bursts + 1)):
        length = int(rng.uniform(0.05, 0.5) * recipe.sampling_rate)
        start = rng.integers(len(piece))
        piece[start : start + length] = 0
    return piece


def _wander(positions, recipe, rng):
    """`positions` (samples,) read at a pace that changes smoothly, every 2 s or so, and ends where it ended."""
    knots = max(int(len(positions) / recipe.sampling_rate / 2), 2)
    pace = 1 + rng.uniform(-recipe.warp, recipe.warp, knots)
    warped = np.cumsum(np.interp(np.linspace(0, knots - 1, len(positions)), np.arange(knots), pace))
    return (warped - warped[0]) * positions[-1] / (warped[-1] - warped[0])


def blank(pixels, bands, rng):
    """Set up to `bands` bands of an eighth of the frequencies or frames of an image to its mean, as SpecAugment does.

    Source: Park et al. 2019, "SpecAugment: a simple data augmentation method for automatic speech recognition".
    """
    present = pixels[0] != preprocessing.PADDED
    mean = pixels[:, present].mean()
    for axis in (0, 1):
        for _ in range(rng.integers(bands + 1)):
            length = rng.integers(1, max(pixels.shape[axis] // 8, 1) + 1)
            start = rng.integers(pixels.shape[axis] - length + 1)
            part = pixels[start : start + length] if axis == 0 else pixels[:, start : start + length]
            part[part != preprocessing.PADDED] = mean
    return pixels


class AugmentedImages:
    """Images of random, changed pieces of the recordings: one of each recording, another in each `epoch`.

    Indexed as `preprocessing.Images`; the recipe's seed, the epoch and the recording's place decide the image.
    """

    def __init__(self, signals, sampling_rates, recipe):
        self.signals, self.sampling_rates, self.recipe = list(signals), list(sampling_rates), recipe
        self.epoch = 0

    def __len__(self):
        return len(self.signals)

    def __getitem__(self, which):
        return np.stack([self._image(number) for number in np.arange(len(self))[which]])

    def _image(self, number):
        rng = np.random.default_rng((self.recipe.seed, self.epoch, number))
        signal = preprocessing.prepare(self.signals[number], self.sampling_rates[number], self.recipe)
        pixels = preprocessing.image(augment(signal, self.recipe, rng), self.recipe)
        return blank(pixels, self.recipe.bands, rng) if self.recipe.bands else pixels


def main():
    import dataclasses

    import plotting
    import synthetic
    from recipes import RECIPES

    parser(__doc__).parse_args()
    signal = synthetic.recording("N", 10, np.random.default_rng(0))
    plain = dataclasses.replace(RECIPES["paper"], seconds=10)
    versions = {
        "as recorded": {},
        "stretched": {"stretch": 0.25},
        "warped": {"warp": 0.3},
        "scaled": {"gain": 1.0},
        "noisy": {"noise": 1.0},
        "with bursts": {"bursts": 6},
    }
    traces = {
        name: augment(signal, dataclasses.replace(plain, **settings), np.random.default_rng(4))
        for name, settings in versions.items()
    }
    print(plotting.traces(traces, synthetic.FS, "figures/augmentation.png"))


if __name__ == "__main__":
    run(main)
