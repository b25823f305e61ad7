import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

import model
import training
from f1_sweeping_callback import PhysioNetF1SweepCallback
from f1_training_callback import PhysioNetF1Callback
from recipes import Recipe

keras = model.keras
KEYS = ["F1_0", "F1_1", "F1_2", "F1_3", "avg_F1_score", "challenge_F1"]


class Recorder:
    """Stands in for a Weights & Biases run."""

    def __init__(self):
        self.rows = []

    def log(self, row, step=None):
        self.rows.append((step, row))


def small(seed=0):
    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="softmax")])
    network.compile(loss="categorical_crossentropy")
    return network


def data(n=50, classes=4, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, classes, n)


@pytest.mark.parametrize("classes", [4, 2])
@pytest.mark.parametrize("chunk_size", [1, 7, 50, 1000])
def test_scores_are_the_same_for_every_chunk_size(chunk_size, classes):
    inputs, labels = data(classes=classes)
    network, run, logs = small(), Recorder(), {"loss": 1.0}
    callback = PhysioNetF1SweepCallback(inputs, labels, chunk_size, run)
    callback.set_model(network)
    callback.on_epoch_end(2, logs)
    probabilities = network.predict(inputs, verbose=0).astype(float)
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = f1_score(labels, probabilities.argmax(1), labels=range(4), average=None, zero_division=0)
    np.testing.assert_allclose([logs[f"F1_{number}"] for number in range(4)], expected)
    assert logs["avg_F1_score"] == pytest.approx(expected.mean())
    assert logs["challenge_F1"] == pytest.approx(expected[:3].mean())
    assert logs["val_loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)
    assert run.rows == [(3, {"epoch": 3, **logs})]


def test_inputs_that_do_not_match_are_refused():
    inputs, labels = data()
    for wrong in ((inputs[:3], labels), (inputs[:0], labels[:0]), (inputs, labels, 0)):
        with pytest.raises(ValueError, match="do not go together"):
            PhysioNetF1SweepCallback(*wrong)


def test_each_new_best_is_saved_and_only_those(monkeypatch):
    pytest.importorskip("wandb")
    inputs, labels = data()
    saves, run, scores = [], Recorder(), iter([0.3, 0.2, 0.3, 0.5])
    callback = PhysioNetF1Callback(inputs, labels, save=lambda: saves.append(len(run.rows)), run=run)
    monkeypatch.setattr("f1_sweeping_callback.epoch_scores", lambda matrix: dict.fromkeys(KEYS, next(scores)))
    callback.set_model(small())
    for epoch in range(4):
        callback.on_epoch_end(epoch, {})
    assert len(saves) == 2 and callback.best == 0.5
    images = [step for step, row in run.rows if "confusion_matrix" in row]
    assert images == [1, 4]
    assert [step for step, row in run.rows if "avg_F1_score" in row] == [1, 2, 3, 4]


def test_training_writes_one_row_an_epoch_and_repeats_itself(tmp_path):
    inputs, labels = data(40)
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.01)
    tables = []
    for path in (tmp_path / "a.csv", tmp_path / "b.csv"):
        scorer = PhysioNetF1SweepCallback(*data(30, seed=2))
        tables.append(training.train(small(), inputs, labels, recipe, scorer, path, bar=False))
    assert list(tables[0]) == ["epoch", "loss", "val_loss", *KEYS]
    assert list(tables[0].epoch) == [1, 2, 3, 4]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), tables[0])
    assert tables[0].loss.iloc[-1] < tables[0].loss.iloc[0]


def test_batches_hold_every_recording_once_an_epoch_in_a_seeded_order():
    inputs, labels = np.arange(23), np.arange(23) % 4
    orders = []
    for seed in (1, 1, 2):
        batches = training.Batches(inputs, labels, Recipe(batch_size=5, seed=seed))
        epochs = []
        for _ in range(2):
            served = [batches[number] for number in range(len(batches))]
            epochs.append(np.concatenate([batch for batch, _, _ in served]))
            targets = np.concatenate([target for _, target, _ in served])
            np.testing.assert_array_equal(targets.argmax(1), epochs[-1] % 4)
            assert sorted(epochs[-1]) == list(range(23))
            batches.on_epoch_end()
        orders.append(np.stack(epochs))
        assert (epochs[0] != epochs[1]).any()
    assert (orders[0] == orders[1]).all() and (orders[0] != orders[2]).any()
