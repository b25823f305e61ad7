import dataclasses

import numpy as np

import augmentation
import preprocessing
from recipes import RECIPES, Recipe

PLAIN = Recipe(seconds=10, image="log-spectrogram", nperseg=64, noverlap=40)


def piece(signal, seed=0, **settings):
    return augmentation.augment(signal, dataclasses.replace(PLAIN, **settings), np.random.default_rng(seed))


def ticks(seconds=20, every=150):
    signal = np.zeros(seconds * 300)
    signal[::every] = 1
    return np.convolve(signal, np.hanning(21), "same")


def test_without_settings_a_piece_is_cut_out_unchanged():
    signal = np.random.default_rng(1).normal(size=6000)
    cut = [piece(signal, seed) for seed in range(3)]
    assert all(len(one) == 3000 for one in cut) and not np.allclose(cut[0], cut[1])
    line = piece(np.arange(6000.0), 5)
    np.testing.assert_allclose(np.diff(line), 1)
    short = piece(signal[:2000])
    np.testing.assert_allclose(short, signal[:2000], atol=1e-9)


def gaps(signal):
    """Samples between the ticks of `signal`."""
    peaks = (signal[1:-1] > signal[:-2]) & (signal[1:-1] >= signal[2:]) & (signal[1:-1] > 0.5)
    return np.diff(np.flatnonzero(peaks))


def test_stretching_changes_the_rate_within_its_bounds():
    stretched = [gaps(piece(ticks(), seed, stretch=0.25)) for seed in range(20)]
    assert max(map(np.ptp, stretched)) <= 2
    rates = [np.mean(one) for one in stretched]
    assert 150 / 1.25 - 1 <= min(rates) < 130 and 170 < max(rates) <= 150 * 1.25 + 1


def test_warping_changes_the_pace_within_a_piece():
    warped = gaps(piece(ticks(), 3, warp=0.2))
    assert np.ptp(warped) > 5 and warped.min() > 100 and warped.max() < 230


def test_gain_noise_and_bursts():
    signal = np.random.default_rng(1).normal(size=3000)
    ratios = [np.std(piece(signal, seed, gain=0.5)) / np.std(signal) for seed in range(20)]
    assert min(ratios) >= 1 / 1.5 - 0.01 and max(ratios) <= 1.51 and np.ptp(ratios) > 0.3
    added = [np.std(piece(signal, seed, noise=0.2) - signal) for seed in range(20)]
    assert 0.02 < max(added) <= 0.21 and min(added) < 1e-9
    silent = [np.mean(piece(signal, seed, bursts=3) == 0) for seed in range(20)]
    assert min(silent) == 0 and 0.01 < max(silent) <= 3 * 150 / 3000


def test_bands_are_blanked_and_padding_is_not():
    image = np.random.default_rng(0).uniform(1, 2, (32, 200)).astype(np.float32)
    image[:, 150:] = preprocessing.PADDED
    blanked = augmentation.blank(image.copy(), 4, np.random.default_rng(1))
    assert (blanked[:, 150:] == preprocessing.PADDED).all()
    changed = blanked != image
    assert 0.02 < changed[:, :150].mean() < 0.9
    np.testing.assert_allclose(blanked[changed], image[:, :150].mean(), rtol=1e-5)


def test_images_change_with_the_epoch_and_nothing_else():
    rng = np.random.default_rng(0)
    signals = [rng.normal(0, 200, n).astype(np.int16) for n in (4000, 9000)]
    recipe = RECIPES["improved"]
    one, two = (augmentation.AugmentedImages(signals, [300, 300], recipe) for _ in range(2))
    first = one[:]
    assert first.shape == (2, *preprocessing.image_shape(recipe))
    np.testing.assert_array_equal(first[1], two[np.array([1])][0])
    one.epoch = 1
    assert np.abs(one[:] - first).max() > 1
