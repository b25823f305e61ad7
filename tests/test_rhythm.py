"""The sequence of heartbeats, and the networks that are trained on it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from test_beats import heart

import beats
import inference
import measuring
import rhythm
import runs
from recipes import RECIPES
from synthetic import FS, recording

RECIPE = dataclasses.replace(RECIPES["improved"], epochs=23, batch_size=8, seed=3)


def described(signal, rate=FS):
    return measuring.measure(signal, rate)[1]


def column(sequence, name):
    return sequence[:, rhythm.FEATURES.index(name)].astype(float)


def test_each_beat_has_its_intervals_and_its_wave():
    signal, times = heart("sinus", 60, seed=1)
    sequence = described(signal)
    assert sequence.shape[1] == len(rhythm.FEATURES) and abs(len(sequence) - len(times)) <= 1
    intervals = 0.8 * np.exp(column(sequence, "before")[1:])
    assert np.median(intervals) == pytest.approx(np.median(np.diff(times)), rel=0.01)
    np.testing.assert_allclose(column(sequence, "after")[:-1], column(sequence, "before")[1:])
    highest = sequence[:, : len(rhythm.POINTS)].astype(float).argmax(1)
    assert np.abs(rhythm.POINTS[highest]).max() <= 10  # the R wave, within 33 ms
    assert (column(sequence, "beat") == 1).all() and column(sequence, "likeness").mean() > 0.9


def test_fibrillation_differs_in_its_intervals_and_in_what_lies_between():
    sinus, fibrillation = (described(heart(kind, 90, seed=2)[0]) for kind in ("sinus", "fibrillation"))
    spread = [np.abs(column(each, "after/before")).mean() for each in (sinus, fibrillation)]
    assert spread[1] > 3 * spread[0]
    assert column(sinus, "P likeness").mean() > column(fibrillation, "P likeness").mean() + 0.3


def test_neither_the_sign_nor_the_gain_nor_the_rate_changes_it():
    signal, _ = heart("sinus", 70, seed=4)
    expected = described(signal)
    np.testing.assert_allclose(described(-3 * signal), expected, atol=0.02)
    points = np.arange(0, len(signal) - 1, 0.5)
    faster = described(np.interp(points, np.arange(len(signal)), signal), 2 * FS)
    np.testing.assert_allclose(column(faster, "before"), column(expected, "before"), atol=0.02)


@pytest.mark.parametrize("signal", [np.zeros(3000), np.arange(3000.0), np.ones(10)])
def test_a_recording_without_beats_has_an_empty_sequence(signal):
    assert described(signal).shape == (0, len(rhythm.FEATURES))
    assert rhythm.Sequences([described(signal)])[:].shape == (1, 1, len(rhythm.FEATURES))


def test_training_sees_another_part_of_a_recording_in_every_epoch():
    sequence = described(heart("sinus", 100, seed=5, seconds=59)[0])
    assert len(sequence) > rhythm.MOST
    shown = rhythm.Sequences([sequence], RECIPE)
    first = shown[:]
    np.testing.assert_array_equal(shown[[0]], first)
    shown.epoch = 1
    assert first.shape == (1, rhythm.MOST, len(rhythm.FEATURES)) and not np.array_equal(shown[:], first)
    still = dataclasses.replace(RECIPE, stretch=0, gain=0, noise=0)
    part = rhythm.vary(sequence, still, np.random.default_rng(0))
    places = [place for place in range(len(sequence)) if np.array_equal(sequence[place], part[0])]
    assert any(np.array_equal(sequence[place : place + len(part)], part) for place in places)
    paced = rhythm.vary(sequence, dataclasses.replace(still, stretch=0.5), np.random.default_rng(0))
    changed = np.abs(paced - part).max(0) > 0.01
    assert {rhythm.FEATURES[place] for place in np.flatnonzero(changed)} == {"before", "after", "usual"}


def test_networks_learn_rhythms_and_answer_alike_by_keras_and_onnx(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rhythm, "NETWORKS", 2)
    rng = np.random.default_rng(0)
    signals = [recording("ANO~"[place % 4], 12, rng) for place in range(120)]
    labels = np.arange(120) % 4
    learned, shown = (
        measuring.measure_all(some, [FS] * len(some), keep=False) for some in (signals[:96], signals[96:])
    )
    card = runs.Card(RECIPE, frozenset(), "mine", "")  # of the network that is trained before
    monkeypatch.setattr(runs.Run, "card", lambda run: card)
    saved, run = [], runs.Run("x")
    real = rhythm.network
    monkeypatch.setattr(rhythm, "network", lambda *given: saved.append(real(*given)) or saved[-1])
    content = rhythm.fit(learned, labels[:96], shown, labels[96:], RECIPE, run, "mine")
    assert [len(pd.read_csv(part.history)) for part in rhythm.parts(run)] == [12, 12]  # half the epochs
    answered = rhythm.classify(inference.Onnx(content), shown)
    assert np.mean(answered.argmax(1) == labels[96:]) > 0.6  # by chance 0.25
    alone = [rhythm.classify(network, shown) for network in saved]
    logits = np.mean([np.log(one) for one in alone], axis=0)
    together = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(answered, together, atol=1e-4)
    one = measuring.measure_all(signals[96:97], [FS], keep=False)  # not filled up to the longest of a batch
    np.testing.assert_allclose(rhythm.classify(inference.Onnx(content), one)[0], answered[0], atol=1e-4)
    again = rhythm.fit(learned, labels[:96], shown, labels[96:], RECIPE, run, "mine")  # from the checkpoints
    np.testing.assert_array_equal(rhythm.classify(inference.Onnx(again), shown), answered)


def test_windows_of_a_long_recording_vote():
    class Sure:
        def predict_on_batch(self, shown):
            there = shown[..., -1].sum(1) > 20
            return np.where(there[:, None], [0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]).astype(np.float32)

    many, few = (np.ones((count, len(rhythm.FEATURES)), np.float16) for count in (30, 10))
    measured = measuring.Measured(np.zeros((4, len(beats.MEASUREMENTS))), [many, few, few, few], np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(rhythm.classify(Sure(), measured)[:, :2], [[0.363, 0.363], [0.1, 0.7]], atol=1e-3)
