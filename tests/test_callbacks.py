import contextlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

import runs
import training
from f1_sweeping_callback import PhysioNetF1SweepCallback
from f1_training_callback import PhysioNetF1Callback
from keras_setup import keras
from recipes import Recipe
from shell import read_arrays, write_arrays
from tracking import Listener, Stopped

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


def test_a_tracker_that_fails_ends_no_training_and_is_told_no_more(capsys):
    class Broken(Recorder):
        def log(self, row, step=None):
            super().log(row, step)
            raise BrokenPipeError("gone")

    inputs, labels = data()
    run, saved, logs = Broken(), [], {"loss": 1.0}
    callbacks = [
        PhysioNetF1Callback(inputs, labels, lambda: saved.append(1), tracker=Listener(run)),
        training.Kept(lambda: saved.append(1), Listener(run)),
    ]
    for callback in callbacks:
        callback.set_model(small())
        for epoch in range(2):
            callback.on_epoch_end(epoch, logs)
    assert len(run.rows) == 2 and len(saved) == 3
    assert capsys.readouterr().err.count("is told no more of this training (BrokenPipeError: 'gone')") == 2


@pytest.mark.parametrize("ending", [Stopped(), Exception()])
def test_a_listener_lets_through_what_ends_a_trial(ending):
    class Ended(Recorder):
        def log(self, row, step=None):
            raise ending

    with pytest.raises(type(ending)):
        Listener(Ended()).log({}, 1)


def test_inputs_that_do_not_match_are_refused():
    inputs, labels = data()
    for wrong in ((inputs[:3], labels), (inputs[:0], labels[:0]), (inputs, labels, 0)):
        with pytest.raises(ValueError, match="do not go together"):
            PhysioNetF1SweepCallback(*wrong)


def test_each_new_best_is_saved_and_only_those(monkeypatch):
    pytest.importorskip("wandb")
    inputs, labels = data()
    saves, run, scores = [], Recorder(), iter([0.3, 0.2, 0.3, 0.5])
    callback = PhysioNetF1Callback(inputs, labels, save=lambda: saves.append(len(run.rows)), tracker=run)
    monkeypatch.setattr("f1_sweeping_callback.epoch_scores", lambda matrix: dict.fromkeys(KEYS, next(scores)))
    callback.set_model(small())
    for epoch in range(4):
        callback.on_epoch_end(epoch, {})
    assert len(saves) == 2 and callback.best == 0.5
    images = [step for step, row in run.rows if "confusion_matrix" in row]
    assert images == [1, 4]
    assert [step for step, row in run.rows if "avg_F1_score" in row] == [1, 2, 3, 4]


def test_the_epoch_of_the_least_loss_is_saved_where_the_recipe_asks_for_it(monkeypatch):
    inputs, labels = data()
    saves, losses = [], iter([np.nan, 0.5, 0.4, 0.6, np.nan, 0.4, 0.3])
    scorer = PhysioNetF1Callback(inputs, labels, save=lambda: saves.append(epoch), best_epoch="loss")
    monkeypatch.setattr("f1_sweeping_callback.log_loss", lambda true, probabilities: next(losses))
    scorer.set_model(small())
    for epoch in range(7):
        scorer.on_epoch_end(epoch, {})
    assert saves == [0, 1, 2, 6]


def test_training_writes_one_row_an_epoch_and_repeats_itself(tmp_path, monkeypatch):
    inputs, labels = data(40)
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.01)
    tables = []
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        scorer = PhysioNetF1SweepCallback(*data(30, seed=2))
        tables.append(training.fit(small(), inputs, labels, recipe, scorer, runs.Run(name), bar=False))
    assert list(tables[0]) == ["epoch", "loss", "val_loss", *KEYS]
    assert list(tables[0].epoch) == [1, 2, 3, 4]
    assert Path("models/a.csv").read_bytes() == Path("models/b.csv").read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv("models/a.csv"), tables[0])
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


class Seen(PhysioNetF1SweepCallback):
    """Keeps the weights that are scored after each epoch."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.weights.append(self.model.get_weights()[0])


def test_the_moving_average_is_scored_and_training_goes_on_from_the_weights():
    """Against the average made by hand from a training without one; an epoch is one step."""
    inputs, labels = data(40)
    scored = {}
    for average in (0.0, 2.0):
        recipe = Recipe(epochs=3, batch_size=40, learning_rate=0.1, weight_average=average)
        scorer = Seen(*data(30, seed=2))
        scorer.on_train_begin()
        training.fit(small(), inputs, labels, recipe, scorer, bar=False)
        scored[average] = scorer.weights[-3:]
    first, second, third = scored[0.0]
    expected = [first, (first + second) / 2, (first + second) / 4 + third / 2]
    np.testing.assert_allclose(scored[2.0], expected, atol=1e-6)
    assert np.abs(first - third).max() > 0.05


def trained(name="run"):
    """A finished training of the run `name` in this folder, with its checkpoint."""
    inputs, labels = data(40)
    network, run = small(), runs.Run(name)
    recipe = Recipe(epochs=3, batch_size=16)
    card = runs.Card(recipe, [], "mine", "")
    scorer = PhysioNetF1Callback(*data(30, seed=2), save=lambda: runs.save(network, card, run.model))
    return training.fit(network, inputs, labels, recipe, scorer, run, "mine", bar=False)


def spoil(**changes):
    """Change arrays of the checkpoint of the run; None takes one out."""
    path = runs.Run("run").checkpoint
    write_arrays(path, **{key: array for key, array in (read_arrays(path) | changes).items() if array is not None})


def spoil_rows(change):
    """Apply `change` to the rows of epochs in the checkpoint of the run."""
    left = json.loads(str(read_arrays(runs.Run("run").checkpoint)["progress"]))
    change(left["rows"])
    spoil(progress=json.dumps(left))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda: runs.Run("run").checkpoint.write_bytes(b"PK nonsense"), "is damaged"),
        (lambda: spoil(variable_0=np.zeros(3)), "was made by another version"),
        (lambda: spoil(variable_1=None), "was made by another version"),
        (lambda: spoil(variable_0=read_arrays(runs.Run("run").checkpoint)["variable_0"] > 0), "was made by another"),
        (lambda: spoil_rows(lambda rows: rows.append(rows[-1] | {"epoch": 4})), "does not tell of the epochs"),
        (lambda: spoil_rows(lambda rows: rows.reverse()), "does not tell of the epochs"),
        (lambda: spoil_rows(lambda rows: rows[1].update(avg_F1_score="0.5")), "does not tell of the epochs"),
        (lambda: spoil_rows(lambda rows: rows[1].update(val_loss="0.5")), "does not tell of the epochs"),
        (lambda: spoil(progress="[]"), "does not hold what a checkpoint should"),
        (lambda: spoil(progress='{"fingerprint": "mine", "rows": [3]}'), "does not hold what"),
        (lambda: spoil(progress='{"fingerprint": "other", "rows": []}'), "belongs to a training on other"),
        (lambda: runs.Run("run").model.unlink(), "has lost its model"),
    ],
)
def test_a_checkpoint_that_cannot_be_continued_from_is_passed_by_and_said(
    tmp_path, monkeypatch, capsys, damage, reason
):
    monkeypatch.chdir(tmp_path)
    first = trained()
    assert trained().equals(first) and "continuing after epoch 3" in capsys.readouterr().err
    damage()
    pd.testing.assert_frame_equal(trained(), first)
    assert reason in capsys.readouterr().err


def test_a_training_that_starts_anew_forgets_the_checkpoint_that_its_model_would_seem_to_belong_to(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    trained()
    runs.Run("run").model.unlink()
    save = runs.save

    def save_and_die(*given):
        save(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):  # with its first model, and before its first checkpoint
        trained()
    assert runs.Run("run").card() and not runs.Run("run").checkpoint.exists()


def test_an_interrupted_training_continues_as_if_it_had_not_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs, labels = data(40)
    recipe = Recipe(epochs=4, batch_size=16, schedule="cosine", warm_up=0.1, weight_average=1.0, weight_decay=0.01)
    card = runs.Card(recipe, [], "mine", "")
    histories, ends = [], []
    for name, stop in (("straight", None), ("cut", 3), ("cut", None)):
        network, run, saved = small(), runs.Run(name), []
        rising = iter([0.1, 0.2, 0.3, 0.4] if stop or name == "straight" else [0.3, 0.4])

        def save(network=network, run=run, saved=saved, stop=stop):
            runs.save(network, card, run.model)
            saved.append(run)
            if len(saved) == stop:
                raise KeyboardInterrupt

        scores = lambda matrix, rising=rising: {"avg_F1_score": next(rising)}  # noqa: E731
        monkeypatch.setattr("f1_sweeping_callback.epoch_scores", scores)
        scorer = PhysioNetF1Callback(*data(30, seed=2), save=save)
        if stop:  # in the third epoch, after its scores and before its checkpoint
            with pytest.raises(KeyboardInterrupt):
                training.fit(network, inputs, labels, recipe, scorer, run, "mine", bar=False)
            continue
        histories.append(training.fit(network, inputs, labels, recipe, scorer, run, "mine", bar=False))
        ends.append(network.get_weights())
    assert "continuing after epoch 2" in capsys.readouterr().err
    pd.testing.assert_frame_equal(*histories, rtol=1e-5)
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_training_without_a_validation_split_ends_early_as_the_whole_one_began(tmp_path, monkeypatch, capsys):
    """Also where it was interrupted: its schedule is that of all epochs, and each epoch's model is kept."""
    monkeypatch.chdir(tmp_path)
    inputs, labels = data(40)
    recipe = Recipe(epochs=4, batch_size=16, schedule="cosine", warm_up=0.1, weight_average=1.0)
    card, network, whole = runs.Card(recipe, [], "mine", ""), small(), []
    training.fit(network, inputs, labels, recipe, training.Kept(lambda: whole.append(network.get_weights())), bar=False)
    saved, run = [], runs.Run("run")

    def save():
        runs.save(network, card, run.model)
        saved.append(network.get_weights())
        if len(saved) == 3:
            raise KeyboardInterrupt

    for _ in range(2):
        network = small()
        with contextlib.suppress(KeyboardInterrupt):  # in the third epoch, before its checkpoint
            rows = training.fit(network, inputs, labels, recipe, training.Kept(save), run, "mine", epochs=3)
    assert "continuing after epoch 2" in capsys.readouterr().err
    assert len(saved) == 4 and list(rows.epoch) == [1, 2, 3] and set(rows) == {"epoch", "loss"}
    for kept, expected in zip((saved[0], saved[1], saved[3]), whole, strict=False):
        np.testing.assert_allclose(kept[0], expected[0], atol=1e-6)
    assert np.abs(whole[2][0] - whole[3][0]).max() > 1e-3  # else any two would agree
