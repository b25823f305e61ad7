import dataclasses

import numpy as np
import pytest

import dataset
import preprocessing
from recipes import RECIPES, Recipe, settings

PAPER = RECIPES["paper"]


def by_hand(signal):
    """The report's spectrogram straight from its definition: periodograms of detrended, tapered windows."""
    padded = np.zeros(18000)
    padded[: min(len(signal), 18000)] = signal[:18000]
    n = np.arange(150)
    # A periodic Tukey window of shape 0.25: cosine lobes over an eighth of the length at either end.
    ramp = 0.25 * 150 / 2
    window = np.ones(150)
    window[n < ramp] = 0.5 * (1 + np.cos(np.pi * (n[n < ramp] / ramp - 1)))
    falling = n > 150 - ramp
    window[falling] = 0.5 * (1 + np.cos(np.pi * ((n[falling] - 150) / ramp + 1)))
    image = np.empty((76, 239))
    for frame in range(239):
        piece = padded[75 * frame : 75 * frame + 150]
        waves = np.exp(-2j * np.pi * np.outer(np.arange(76), n) / 150)
        power = np.abs(waves @ (window * (piece - piece.mean()))) ** 2 / (300 * np.sum(window**2))
        power[1:-1] *= 2  # the negative frequencies' share
        image[:, frame] = np.log1p(power)
    return image


@pytest.mark.parametrize("samples", [2714, 9000, 18000, 18286])
def test_image_equals_an_independent_computation(samples):
    signal = np.random.default_rng(samples).normal(0, 300, samples).astype(np.int16)
    image = preprocessing.image(signal, PAPER)
    assert image.shape == preprocessing.image_shape(PAPER) == (76, 239)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, by_hand(signal), atol=1e-6)


def test_axes_are_those_of_scipy():
    import scipy.signal

    for recipe in (PAPER, Recipe(seconds=31.7, nperseg=64, noverlap=40)):
        signal = np.zeros(recipe.samples)
        frequencies, times, density = scipy.signal.spectrogram(
            signal, 300, nperseg=recipe.nperseg, noverlap=recipe.noverlap
        )
        assert preprocessing.image_shape(recipe) == density.shape
        np.testing.assert_allclose(preprocessing.image_axes(recipe)[0], frequencies)
        np.testing.assert_allclose(preprocessing.image_axes(recipe)[1], times)


@pytest.mark.parametrize(
    ("padding", "expected"), [("zeros", [1, 2, 3, 0, 0]), ("mask", [1, 2, 3, 0, 0]), ("wrap", [1, 2, 3, 1, 2])]
)
def test_fill(padding, expected):
    np.testing.assert_array_equal(preprocessing.fill(np.array([1, 2, 3]), 5, padding), expected)
    np.testing.assert_array_equal(preprocessing.fill(np.array([1, 2, 3]), 2, padding), [1, 2])


def test_masked_frames_are_those_that_reach_beyond_the_end():
    recipe = Recipe(padding="mask", image="log-spectrogram")
    image = preprocessing.image(np.random.default_rng(0).normal(size=10 * 300), recipe)
    masked = (image == preprocessing.PADDED).all(axis=0)
    np.testing.assert_array_equal(masked, np.arange(239) * 0.25 + 0.5 > 10)
    assert (image[:, ~masked] >= 0).all()


def test_log_spectrogram_is_the_power_density_in_decibels():
    recipe = Recipe(image="log-spectrogram", nperseg=64, noverlap=40, max_frequency=110)
    assert preprocessing.image_shape(recipe) == (24, 748) and preprocessing.image_axes(recipe)[0][-1] <= 110
    signal = preprocessing.prepare(50 * np.random.default_rng(0).normal(size=18000) + 7, 300, recipe)
    values = preprocessing.picture(preprocessing.image(signal, recipe), recipe).values
    # White noise of variance 1 has a density of 1/150 per Hz; the mean over frames is within a few percent of it.
    np.testing.assert_allclose((10 ** (values / 10))[2:].mean(1), 1 / 150, rtol=0.15)


@pytest.mark.parametrize("hertz", [2.0, 10.0, 40.0])
def test_scalogram_peaks_at_the_frequency_of_a_tone(hertz):
    recipe = Recipe(image="scalogram", nperseg=64, noverlap=40, max_frequency=110)
    frequencies, _ = preprocessing.image_axes(recipe)
    tone = preprocessing.prepare(np.sin(2 * np.pi * hertz * np.arange(18000) / 300), 300, recipe)
    image = preprocessing.image(tone, recipe)
    assert image.shape == preprocessing.image_shape(recipe) == (len(frequencies), 748)
    assert (image[:, 100:-100].argmax(0) == np.abs(np.log(frequencies / hertz)).argmin()).all()


def test_windows_cover_a_recording_and_are_voted_on():
    recipe = Recipe(seconds=30, vote=True)
    assert preprocessing.starts(3000, recipe) == preprocessing.starts(9000, recipe) == [0]
    assert preprocessing.starts(9001, recipe) == [0, 1]
    assert preprocessing.starts(27000, recipe) == [0, 9000, 18000]
    assert preprocessing.starts(27000, Recipe(seconds=30)) == [0]
    signals = [np.arange(n) % 500 for n in (4000, 18000, 9000)]
    images = preprocessing.Images(signals, [300, 300, 300], recipe)
    np.testing.assert_array_equal(images.owners, [0, 1, 1, 2])
    np.testing.assert_array_equal(images[2:3][0], preprocessing.image(signals[1][9000:], recipe))
    voted = preprocessing.vote(np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5], [1, 0]], np.float32), images.owners)
    np.testing.assert_allclose(voted, [[0.9, 0.1], [0.75, 0.25], [1, 0]], atol=1e-6)  # odds of √(9 · 1) to 1
    assert voted.dtype == np.float32


def test_a_stretching_vote_reads_recordings_faster_and_slower():
    recipe = Recipe(seconds=10, vote=True, vote_stretch=0.5, nperseg=300, noverlap=0)
    tone = 500 * np.sin(2 * np.pi * 20 * np.arange(3600) / 300)
    images = preprocessing.Images([tone, tone[:2000]], [300, 300], recipe)
    np.testing.assert_array_equal(images.owners, [0] * 5 + [1] * 3)  # 12, 8 and 18 s; 6.7, 4.4 and 10 s
    frequencies = preprocessing.image_axes(recipe)[0]
    peaks = frequencies[images[:].mean(2).argmax(1)]
    np.testing.assert_array_equal(peaks, [20, 20, 30, 13, 13, 20, 30, 13])
    plain = preprocessing.Images([tone], [300], dataclasses.replace(recipe, vote_stretch=0))
    np.testing.assert_array_equal(images[:2], plain[:])


@pytest.mark.parametrize("rate", [250, 500, 512, 510.227, 1000])
def test_resampling_keeps_a_tone(rate):
    seconds = np.arange(int(10 * rate)) / rate
    resampled = preprocessing.resample(np.sin(2 * np.pi * 7 * seconds), rate, 300)
    assert abs(len(resampled) - 3000) <= 1
    expected = np.sin(2 * np.pi * 7 * np.arange(len(resampled)) / 300)
    np.testing.assert_allclose(resampled[100:-100], expected[100:-100], atol=0.02)


def test_images_are_those_of_the_recordings_in_any_order():
    rng = np.random.default_rng(0)
    signals, rates = [rng.integers(-500, 500, n) for n in (3000, 9000, 5000)], [300, 300, 250]
    images = preprocessing.Images(signals, rates, PAPER)
    assert len(images) == 3
    np.testing.assert_array_equal(
        images[np.array([2, 0])][0], preprocessing.image(preprocessing.prepare(signals[2], 250, PAPER), PAPER)
    )
    np.testing.assert_array_equal(images[1:], images[np.array([1, 2])])


def test_every_real_image_is_finite(real_set):
    table = dataset.read_recordings(real_set)
    highest = 0.0
    for signal in table.signal:
        image = preprocessing.image(signal, PAPER)
        assert np.isfinite(image).all()
        assert image.min() >= 0
        highest = max(highest, float(image.max()))
    assert highest == pytest.approx(15.93, abs=0.005)
    np.testing.assert_allclose(image, by_hand(signal), atol=1e-6)


# ── Augmentation

PLAIN = Recipe(seconds=10, image="log-spectrogram", nperseg=64, noverlap=40)


def piece(signal, seed=0, **settings):
    return preprocessing.augment(signal, dataclasses.replace(PLAIN, **settings), np.random.default_rng(seed))


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
    blanked = preprocessing.blank(image.copy(), dataclasses.replace(PLAIN, bands=4), np.random.default_rng(1))
    assert (blanked[:, 150:] == preprocessing.PADDED).all()
    changed = blanked != image
    assert 0.02 < changed[:, :150].mean() < 0.9
    np.testing.assert_allclose(blanked[changed], image[:, :150].mean(), rtol=1e-5)


def test_images_change_with_the_epoch_and_nothing_else():
    rng = np.random.default_rng(0)
    signals = [rng.normal(0, 200, n).astype(np.int16) for n in (4000, 9000)]
    recipe = RECIPES["improved"]
    one, two = (preprocessing.AugmentedImages(signals, [300, 300], recipe) for _ in range(2))
    first = one[:]
    assert first.shape == (2, *preprocessing.image_shape(recipe))
    np.testing.assert_array_equal(first[1], two[np.array([1])][0])
    one.epoch = 1
    assert np.abs(one[:] - first).max() > 1


def test_a_picture_is_what_the_image_shows():
    recipe = Recipe(seconds=10, image="log-spectrogram", nperseg=64, noverlap=40, padding="mask")
    signal = preprocessing.prepare(np.random.default_rng(0).normal(size=2400), 300, recipe)
    picture = preprocessing.picture(preprocessing.image(signal, recipe), recipe, begin=7.0)
    assert picture.values.shape == (len(picture.frequencies), len(picture.times))
    assert picture.unit == "PSD (dB/Hz)" and picture.title == "Spectrogram"
    assert picture.times[0] == pytest.approx(7 + 32 / 300) and picture.frequencies[1] == 300 / 64
    recorded = picture.times + 32 / 300 <= 7 + 8 + 1e-9
    assert np.isnan(picture.values[:, ~recorded]).all() and np.isfinite(picture.values[:, recorded]).all()


def test_every_augmentation_of_the_recipe_has_its_function_and_changes_the_image():
    """A setting that is forgotten in the tables, or in what augments, would do nothing in silence."""
    tables = [*preprocessing.CUTS, *preprocessing.CHANGES, *preprocessing.BLANKS]
    assert sorted(tables) == sorted(settings("augmentation"))
    signal = [ticks().astype(np.float32) + np.random.default_rng(0).normal(0, 0.1, 6000)]
    plain = preprocessing.AugmentedImages(signal, [300], PLAIN)
    for name in settings("augmentation"):
        recipe = dataclasses.replace(PLAIN, **{name: 3 if isinstance(getattr(PLAIN, name), int) else 0.5})
        assert recipe.augments
        changed = preprocessing.AugmentedImages(signal, [300], recipe)
        plain.epoch = changed.epoch = 2
        assert np.abs(changed[:] - plain[:]).max() > 1, name
