import dataclasses

import numpy as np
import pytest

import bounds
import dataset
import preprocessing
from recipes import RECIPES, Recipe, settings

PAPER = RECIPES["paper"]
PLAIN = Recipe(seconds=10, image="log-spectrogram", nperseg=64, noverlap=40)


def ticks(seconds=20, every=150):
    signal = np.zeros(seconds * 300)
    signal[::every] = 1
    return np.convolve(signal, np.hanning(21), "same")


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


def test_the_trace_continues_from_frame_to_frame():
    recipe = dataclasses.replace(RECIPES["improved"], seconds=10, floor=0)
    signal = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    image = preprocessing.image(signal, recipe)
    assert image.shape == preprocessing.image_shape(recipe) == (24 + 12, 123)
    recorded = image[0] != preprocessing.PADDED
    assert (image[:, ~recorded] == preprocessing.PADDED).all() and 79 < recorded.sum() < 83
    trace = np.sinh(4 * (image[24:, recorded].T.ravel() / 127.5 - 1)) / 2
    pairs = signal[20 : 20 + 2 * len(trace)].reshape(-1, 2).mean(1)  # 300 Hz as 150, from the first frame's middle on
    np.testing.assert_allclose(trace, pairs, atol=1e-4)
    turned = preprocessing.image(-signal, recipe)
    np.testing.assert_allclose(turned[:24], image[:24])
    np.testing.assert_allclose(turned[24:, recorded], 255 - image[24:, recorded], atol=1e-3)
    assert preprocessing.picture(image, recipe).values.shape == (24, 123)


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


# ── Conditioning ────────────────────────────────────────────────────────────────────────────────────────────────────

CONDITIONED = dataclasses.replace(PLAIN, high_pass=0.5, notch=30.0, block=2.0)


def conditioned(signal, rate=300, **settings):
    return preprocessing.prepare(signal, rate, dataclasses.replace(CONDITIONED, **settings))


@pytest.mark.parametrize("hertz", [0.1, 50, 60])
def test_wander_and_hum_go_and_the_heartbeat_stays_where_it_is(hertz):
    seconds = np.arange(9000) / 300
    clean = 100 * ticks(30)
    disturbed = clean + 300 * np.sin(2 * np.pi * hertz * seconds)
    inner = slice(900, -900)
    before, after = (conditioned(signal, block=0.0)[inner] for signal in (clean, disturbed))
    assert np.abs(after / after.max() - before / before.max()).max() < 0.05
    left = preprocessing.prepare(disturbed, 300, PLAIN)[inner]
    assert np.abs(left / left.max() - before / before.max()).max() > 0.3
    assert before.argmax() % 150 == clean[inner].argmax() % 150


@pytest.mark.parametrize("rate", [250, 300, 500])
def test_an_offset_changes_nothing_at_any_rate(rate):
    """Resampling takes what lies beyond the ends for 0, to which a baseline must not jump."""
    signal = np.random.default_rng(0).normal(0, 300, 20 * rate).round()
    before = preprocessing.prepare(signal, rate, CONDITIONED)
    after = preprocessing.prepare(signal + 300_000, rate, CONDITIONED)
    np.testing.assert_allclose(after, before, atol=1e-4)


@pytest.mark.parametrize("block", [0.41, 0.57, 1.005, 0.001])
def test_blocks_of_any_length(block):
    signal = np.random.default_rng(0).normal(0, 300, 9000).round()
    made = preprocessing.prepare(signal, 300, dataclasses.replace(CONDITIONED, block=block))
    assert len(made) == 9000 and np.isfinite(made).all()


def test_a_pop_does_not_scale_the_rest_where_blocks_do():
    clean = 100 * ticks(30) + np.random.default_rng(0).normal(0, 1, 9000)
    popped = clean.copy()
    popped[3000:3300] += 20000
    calm = slice(6000, 9000)
    for block, moved in ((2.0, False), (0.0, True)):
        before, after = (np.std(conditioned(signal, block=block)[calm]) for signal in (clean, popped))
        assert (abs(after / before - 1) > 0.5) == moved
    assert np.median(np.std(conditioned(clean).reshape(-1, 600), axis=1)) == pytest.approx(1)


@pytest.mark.parametrize("content", [np.zeros(4000), np.full(4000, -3), np.ones(1), np.eye(1, 4000, 900)[0]])
def test_conditioning_of_what_has_no_deviation(content):
    assert np.isfinite(conditioned(content)).all()


def test_the_floor_is_the_density_of_white_noise():
    recipe = dataclasses.replace(PLAIN, floor=0.1)
    noise = np.random.default_rng(0).normal(0, 0.1, 6000)
    silent = preprocessing.decibels(preprocessing.image(np.zeros(6000), recipe))
    noisy = preprocessing.decibels(preprocessing.image(noise, PLAIN))
    assert silent[2:-2].mean() == pytest.approx(10 * np.log10((10 ** (noisy[2:-2] / 10)).mean()), abs=0.3)


def test_a_stretched_reading_is_freed_of_hum_at_the_rate_it_was_recorded_at():
    hum = np.sin(2 * np.pi * 50 * np.arange(9000) / 300) + 0.001 * np.random.default_rng(0).normal(size=9000)
    recipe = dataclasses.replace(CONDITIONED, seconds=40, block=1000.0, vote_stretch=0.15)
    frequencies = preprocessing.image_axes(recipe)[0]
    power = {}
    for notch in (0.0, 30.0):
        images = preprocessing.Images([hum * 0.01], [300], dataclasses.replace(recipe, notch=notch))
        rows = [np.abs(frequencies - 50 * piece.rate / 300).argmin() for piece in images.pieces]
        power[notch] = [
            image[row - 1 : row + 2, 20:200].max(0).mean() for image, row in zip(images[:], rows, strict=True)
        ]
        assert len(set(rows)) == 3
    assert np.min(np.subtract(power[0.0], power[30.0])) > 0.3 * 255, power


@pytest.mark.parametrize("rate", [50, 97.31, 128, 257, 301, 333.3, 510.227, 1000, 4999])
def test_resampling_keeps_time(rate):
    up, down = preprocessing.small_ratio(300 / rate)
    assert abs(up / down * rate / 300 - 1) <= 1e-5 and max(up, down) < 20_000
    seconds = np.arange(int(20 * rate)) / rate
    resampled = preprocessing.resample(np.sin(2 * np.pi * 3 * seconds), rate, 300)
    expected = np.sin(2 * np.pi * 3 * np.arange(len(resampled)) / 300)
    assert len(resampled) == pytest.approx(6000, abs=2)
    np.testing.assert_allclose(resampled[300:-300], expected[300:-300], atol=0.02)


# ── Augmentation


def piece(signal, seed=0, **settings):
    return preprocessing.augment(signal, dataclasses.replace(PLAIN, **settings), np.random.default_rng(seed))


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


def test_each_device_changes_its_share_of_the_pieces_as_it_should():
    signal = np.random.default_rng(1).normal(size=12000)
    whole = dataclasses.replace(PLAIN, seconds=40)
    for name in ("crop", "clip", "motion", "low_pass"):
        recipe = dataclasses.replace(whole, **{name: 0.5})
        changed = [preprocessing.augment(signal, recipe, np.random.default_rng(seed)) for seed in range(40)]
        touched = [one for one in changed if len(one) != 12000 or np.abs(one - signal).max() > 1e-6]
        assert 10 < len(touched) < 30, name
        if name == "crop":
            assert all(8 * 300 <= len(one) < 30 * 300 for one in touched)
        if name == "clip":
            assert all(np.mean(one == one.max()) < 0.021 and one.max() < signal.max() for one in touched)
        if name == "motion":
            assert all(np.median(np.abs(one - signal)) < 0.1 < 2 < np.abs(one - signal).max() for one in touched)
        if name == "low_pass":
            power = [np.abs(np.fft.rfft(one)) ** 2 for one in touched]  # up to 150 Hz
            assert all(one[-2000:].mean() < 0.75 * one[:600].mean() for one in power)


def test_bands_are_blanked_and_padding_is_not():
    image = np.random.default_rng(0).uniform(1, 2, (32, 200)).astype(np.float32)
    image[:, 150:] = preprocessing.PADDED
    blanked = preprocessing.blank(image.copy(), dataclasses.replace(PLAIN, bands=4), np.random.default_rng(1))
    assert (blanked[:, 150:] == preprocessing.PADDED).all()
    changed = blanked != image
    assert 0.02 < changed[:, :150].mean() < 0.9
    np.testing.assert_allclose(blanked[changed], image[:, :150].mean(), rtol=1e-5)


@pytest.mark.parametrize("held", [None, 0, 20_000])
def test_images_change_with_the_epoch_and_nothing_else(held, monkeypatch):
    rng = np.random.default_rng(0)
    signals = [rng.normal(0, 200, n).astype(np.int16) for n in (4000, 9000)]
    recipe = RECIPES["improved"]
    one, two = (preprocessing.AugmentedImages(signals, [300, 300], recipe) for _ in range(2))
    if held is not None:  # of what is prepared, nothing or the first recording stays in memory
        monkeypatch.setattr(bounds, "HELD", held)
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
    whole = dataclasses.replace(PLAIN, seconds=40, backbone="compact", weights="random", trace=True)
    plain = preprocessing.AugmentedImages(signal * 4, [300] * 4, whole)
    for name in settings("augmentation"):
        recipe = dataclasses.replace(whole, **{name: 3 if isinstance(getattr(PLAIN, name), int) else 0.9})
        assert recipe.augments
        changed = preprocessing.AugmentedImages(signal * 4, [300] * 4, recipe)
        plain.epoch = changed.epoch = 2
        assert np.abs(changed[:] - plain[:]).max() > 1, name
