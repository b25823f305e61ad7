"""What the figures show: their lines, bars, labels and limits, not their pixels."""

import itertools

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import plotting
import preprocessing
import runs
import scoring
from recipes import CLASSES, Recipe


@pytest.fixture
def drawn(monkeypatch):
    """A list of the figures that `plotting.save` was given instead of writing them."""
    figures = []
    monkeypatch.setattr(plotting, "save", lambda drawing, path: figures.append(drawing) or path)
    return figures


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def test_class_distribution(drawn):
    plotting.class_distribution(["N"] * 6 + ["A"] * 3 + ["~"], "x.png")
    (axes,) = drawn[0].axes
    assert heights(axes) == [3, 6, 0, 1]
    assert [label.get_text()[-2] for label in axes.get_xticklabels()] == list(CLASSES)
    assert axes.texts[1].get_text() == "6\n60.0%" and axes.get_ylabel() == "Recordings"


def test_sequence_lengths_fall_into_the_reports_bins(drawn):
    plotting.sequence_length_distribution([9.9, 10, 30, 59.9, 60, 61], "x.png")
    (axes,) = drawn[0].axes
    assert heights(axes) == [1, 1, 0, 1, 0, 1, 2]
    assert axes.get_xlabel() == "Duration (s)" and axes.get_xticklabels()[-1].get_text() == "60 and over"


def test_training_f1_marks_the_best_epoch(drawn):
    each = {f"F1_{place}": 0.1 * place for place in range(4)}
    rows = zip([1, 2, 3], [0.2, 0.5, 0.4], [3.0, 2.0, 1.0], strict=True)
    history = [each | {"epoch": epoch, "avg_F1_score": f1, "val_loss": loss} for epoch, f1, loss in rows]
    plotting.training_f1(runs.Card(Recipe(), frozenset(), "", "", history=history), "x.png")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["F1 O"].get_ydata()) == [0.2] * 3 and list(lines["4-class average"].get_ydata()) == [
        0.2,
        0.5,
        0.4,
    ]
    assert axes.lines[-1].get_xydata().tolist() == [[2, 0.5]]
    assert "(best 0.5000 in epoch 2)" in axes.get_title() and axes.get_ylim() == (0, 1)
    plotting.training_f1(runs.Card(Recipe(best_epoch="loss"), frozenset(), "", "", history=history), "x.png")
    assert "(0.4000 at the least loss, epoch 3)" in drawn[1].axes[0].get_title()


def test_bars_beside_the_reports(drawn):
    plotting.bars_beside_report(["a", "b"], [0.5, 0.7], [[0.4, 0.6], [np.nan, np.nan]], [0.3, 0.2], "title", "x.png")
    (axes,) = drawn[0].axes
    assert heights(axes) == [0.5, 0.7, 0.3, 0.2] and axes.get_ylim()[0] == 0
    whisker = axes.collections[0].get_segments()[0]
    np.testing.assert_allclose(whisker[:, 1], [0.4, 0.6])
    assert [text.get_text() for text in axes.get_legend().get_texts()][1] == "the report"


def test_roc_curves_have_the_false_positive_rate_below(drawn):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 300)
    probabilities = rng.dirichlet(np.ones(4), 300) + 0.5 * np.eye(4)[true]
    probabilities /= probabilities.sum(1, keepdims=True)
    plotting.multi_class_roc(true, probabilities, "x.png")
    (axes,) = drawn[0].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("False positive rate", "True positive rate")
    for place, line in enumerate(axes.lines[:4]):
        area = metrics.roc_auc_score(true == place, probabilities[:, place])
        x, y = line.get_data()
        assert metrics.auc(x, y) == pytest.approx(area) and area > 0.6
        assert line.get_label() == f"{plotting.NAMES[CLASSES[place]]}: {area:.2f}"


def test_confusion_matrix_has_the_true_classes_in_rows(drawn):
    plotting.confusion_matrix(scoring.REPORT_MATRIX, "title", "x.png")
    axes = drawn[0].axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("True class", "Predicted class")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert texts[1.5, 0.5] == "22\n15%"  # A, called N
    assert texts[0.5, 1.5] == "31\n3%"  # N, called A
    shares = axes.collections[0].get_array().reshape(4, 4)
    np.testing.assert_allclose(shares.sum(1), 1)


def test_gradcam_marks_the_padding_and_gives_units(drawn):
    recipe = Recipe(seconds=20)
    pixels = preprocessing.image(np.random.default_rng(0).normal(0, 100, 3000), recipe)
    heat = np.zeros(pixels.shape, np.float32)
    heat[10, 20] = 1
    trace = np.arange(3000) / 300, np.sin(np.arange(3000)) * 1000, np.array([2.0, 4.5])
    plotting.gradcam(preprocessing.picture(pixels, recipe), heat, trace, 10.0, "title", "N: regular", "x.png")
    above, panels, bars = drawn[0].axes[0], drawn[0].axes[1:4], drawn[0].axes[4:]
    assert above.get_title() == "N: regular; 2 R peaks" and above.get_ylabel() == "Voltage (mV)"
    line, peaks = above.lines
    np.testing.assert_allclose(line.get_ydata(), np.sin(np.arange(3000)))
    np.testing.assert_array_equal(peaks.get_xdata(), [2, 4.5])
    assert [axes.get_title() for axes in panels] == ["Spectrogram", "Grad-CAM", "Overlay"]
    assert all(axes.get_xlabel() == "Time (s)" for axes in panels) and panels[0].get_ylabel() == "Frequency (Hz)"
    assert all(axes.lines[0].get_xdata() == [10, 10] for axes in panels)
    assert [axes.get_ylabel() for axes in bars] == ["log(1 + PSD in µV²/Hz)", "Heat (share of maximum)"]
    shown = panels[1].collections[0].get_array().reshape(pixels.shape)
    np.testing.assert_array_equal(shown, heat)


def test_precision_recall_curves_have_the_precision_upward(drawn):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 200)  # without noise
    probabilities = rng.dirichlet(np.ones(4), 200) + 0.5 * np.eye(4)[true]
    plotting.precision_recall(true, probabilities, "x.png")
    (axes,) = drawn[0].axes
    labels = {line.get_label(): line for line in axes.lines}
    for place, name in enumerate(CLASSES[:3]):
        area = metrics.average_precision_score(true == place, probabilities[:, place])
        recall, precision = labels[f"{plotting.NAMES[name]}: {area:.2f}"].get_data()
        assert recall[-1] == 0 and precision[-1] == 1 and recall[0] == 1
    assert not any("Noise" in label for label in labels) and axes.get_ylabel().startswith("Precision")


def test_reliability_has_the_shares_of_its_bins(drawn):
    sure, unsure = [0.92, 0.04, 0.02, 0.02], [0.3, 0.52, 0.1, 0.08]
    probabilities = np.array([sure] * 4 + [unsure] * 2)
    plotting.reliability(np.array([0, 0, 0, 3, 1, 0]), probabilities, "x.png")
    axes, below = drawn[0].axes
    (points,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xydata(), [[0.52, 0.5], [0.92, 0.75]])
    assert heights(below) == [2, 4] and below.get_ylabel() == "Recordings"
    low, high = axes.collections[0].get_segments()[1][:, 1]
    assert (low, high) == pytest.approx((0.1941, 0.9937), abs=1e-4)  # Clopper & Pearson's interval of 3 of 4


def test_groups_leave_out_the_smallest_and_say_how_many(drawn):
    row = {"accuracy": 0.8, "accuracy_interval": [0.7, 0.9], "challenge_F1": None, "challenge_F1_interval": None}
    rows = {"under 20 s": {"recordings": 25, **row}, "30 s": {"recordings": 3, **row}}
    plotting.groups({"duration": rows}, "x.png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["under 20 s  (25)"]
    assert [text.get_text() for text in axes.texts] == ["by duration"]


def test_heat_lies_behind_the_trace_at_its_time(drawn):
    recipe = Recipe(seconds=20)
    pixels = preprocessing.image(np.random.default_rng(0).normal(0, 100, 6000), recipe)
    heat = np.zeros(pixels.shape, np.float32)
    heat[:, 60] = 1
    trace = np.arange(6000) / 300, np.sin(np.arange(6000)) * 1000, np.array([2.0, 14.5])
    picture = preprocessing.picture(pixels, recipe)
    plotting.heat_on_trace(picture, heat, trace, "Occlusion", "title", "N: regular", "x.png")
    first, second, below = drawn[0].axes[:3]
    assert [axes.get_xlim() for axes in (first, second, below)] == [(0, 10), (10, 20), (0, 20)]
    for strip in (first, second):
        np.testing.assert_allclose(strip.collections[0].get_array().reshape(2, -1)[0], heat.mean(0))
        np.testing.assert_allclose(strip.lines[0].get_ydata(), np.sin(np.arange(6000)))
    assert first.get_title() == "N: regular; 2 R peaks" and first.get_ylabel() == "mV"


def test_robustness_tells_all_members_apart(drawn):
    voices = {name: {"challenge_F1": 0.8} for name in ("network,rhythm,trees", "network", "rhythm", "trees")}
    plotting.robustness({"untouched": voices}, "x.png")
    *dots, _ = drawn[0].axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in dots}) == len(dots) == 4
    shown = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert "its networks of heartbeats alone" in shown and shown[-1] == "the model"


def test_robustness_has_a_dot_for_each_member_and_change(drawn):
    scores = [
        {"all": {"challenge_F1": 0.8}, "trees": {"challenge_F1": 0.7}},
        {"all": {"challenge_F1": 0.6}, "trees": {"challenge_F1": 0.5}},
    ]
    plotting.robustness(dict(zip(("untouched", "pop"), scores, strict=True)), "x.png")
    (axes,) = drawn[0].axes
    alone, together, reference = axes.lines
    assert list(alone.get_xdata()) == [0.7, 0.5] and list(together.get_xdata()) == [0.8, 0.6]
    assert list(reference.get_xdata()) == [0.8, 0.8]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["its trees alone", "the model"]


def test_example_recordings_share_the_time_axis(drawn):
    recipe = Recipe()
    signal = np.arange(9000) % 300
    picture = preprocessing.picture(preprocessing.image(signal, recipe), recipe)
    plotting.example_recordings({"A": ("A1", signal, 300, picture), "~": ("A2", signal, 300, picture)}, "x.png")
    trace, _, spectrum = drawn[0].axes[:3]
    x, y = trace.lines[0].get_data()
    assert x[-1] == pytest.approx(9000 / 300, abs=0.01) and y.max() == 0.299 and trace.get_ylabel() == "Voltage (mV)"
    assert spectrum.get_xlim() == trace.get_xlim() and spectrum.get_ylim()[1] == 50


SEARCHED = {"optimizer": False, "learning_rate": False}


def trials(count=20):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"optimizer": rng.choice(["adam", "sgd"], count), "learning_rate": rng.uniform(0, 0.01, count)}
    ).assign(state="complete")
    return table.assign(best_avg_F1_score=table.learning_rate * 30 + 0.2 * (table.optimizer == "adam"))


def test_the_best_trials_are_coloured_over_the_rest(drawn):
    plotting.sweep_top_runs(trials(), SEARCHED, "best_avg_F1_score", "x.png", top=5)
    axes = drawn[0].axes[0]
    grey = [line for line in axes.lines if line.get_color() == "0.85"]
    assert len(grey) == 15 and "best 5 of 20 sweep trials" in axes.get_title()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["optimizer", "learning rate", "F1, 4-class average"]


def test_importance_of_settings_and_its_sign(drawn):
    plotting.sweep_importance(trials(60), SEARCHED, "best_avg_F1_score", "x.png")
    importance, correlation = drawn[0].axes
    names = [label.get_text() for label in importance.get_yticklabels()]
    signs = dict(zip(names, [np.sign(bar.get_width()) for bar in correlation.patches], strict=True))
    assert signs == {"optimizer = adam": 1, "optimizer = sgd": -1, "learning rate": 1}
    assert sum(bar.get_width() for bar in importance.patches) == pytest.approx(1)


def test_the_best_so_far_leaves_out_what_was_stopped_and_the_front_what_is_beaten(drawn):
    table = pd.DataFrame({"state": ["complete", "pruned", "complete", "complete"], "seconds": [9.0, 1.0, 3.0, 5.0]})
    plotting.sweep_progress(table.assign(best_val_loss=[0.5, 0.1, 0.6, 0.4]), "best_val_loss", "x.png", lowest=True)
    progress, cost = drawn[0].axes
    assert list(progress.lines[0].get_ydata()) == [0.5, 0.5, 0.5, 0.4]
    assert list(progress.lines[2].get_xdata()) == [2]
    assert list(cost.lines[-1].get_xdata()) == [3, 5] and list(cost.lines[-1].get_ydata()) == [0.6, 0.4]


def test_trials_that_were_stopped_are_drawn_with_the_score_they_had(drawn):
    table = trials().assign(state=["pruned"] * 15 + ["complete"] * 5)
    plotting.sweep_slices(table, SEARCHED, "best_avg_F1_score", "x.png")
    finished, stopped = drawn[0].axes[1].collections
    assert [len(each.get_offsets()) for each in (finished, stopped)] == [5, 15]
    assert list(stopped.get_offsets()[:, 1]) == list(table.best_avg_F1_score[:15])
    assert "a cross: stopped early" in drawn[0].axes[-1].get_ylabel()


def test_a_logarithmic_search_has_logarithmic_axes(drawn):
    table = trials(60).assign(learning_rate=np.geomspace(1e-4, 1e-2, 60))
    log = {"optimizer": False, "learning_rate": True}
    for draw in (plotting.sweep_top_runs, plotting.sweep_slices, plotting.sweep_contour):
        draw(table, log, "best_avg_F1_score", "x.png")
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert {"0.0001", "0.001", "0.01"} < set(texts)
    assert [axes.get_xscale() for axes in drawn[1].axes[:2]] == ["linear", "log"]
    assert "log" in (drawn[2].axes[0].get_xscale(), drawn[2].axes[0].get_yscale())


def test_whole_numbers_of_a_range_are_drawn_as_numbers_and_a_few_as_choices(drawn):
    table = trials(60).assign(rounds=[*range(100, 159), 250], neurons=[128, 1024] * 30)
    for draw in (plotting.sweep_top_runs, plotting.sweep_slices):
        draw(table, {"rounds": False, "neurons": False}, "best_avg_F1_score", "x.png")
    heights = {text.get_text(): text.get_position()[1] for text in drawn[0].axes[0].texts}
    assert heights["100"] == 0 and heights["175"] == pytest.approx(0.5) and heights["250"] == 1
    assert (heights["128"], heights["1024"]) == (0.06, 0.94)
    rounds, neurons = (axes.collections[0].get_offsets()[:, 0] for axes in drawn[1].axes[:2])
    assert sorted(rounds) == sorted(table.rounds) and neurons.max() < 1.2


def test_the_names_of_a_logarithmic_axis_do_not_overlap(drawn):
    for low, high in ((0.02, 0.2), (0.0005, 0.02), (0.00013, 0.083), (3e-5, 3e-2), (0.15, 0.4)):
        table = trials(60).assign(learning_rate=np.geomspace(low, high, 60))
        names = ("learning_rate", "b", "c", "d")
        table = table.assign(b=table.learning_rate, c=table.learning_rate, d=table.learning_rate)
        plotting.sweep_slices(table, dict.fromkeys(names, True), "best_avg_F1_score", "x.png")
        drawn[-1].canvas.draw()
        for axes in drawn[-1].axes[:4]:
            within = [tick for tick in axes.xaxis.get_ticklabels(which="both") if tick.get_text()]
            left, right = axes.get_xlim()
            boxes = [tick.get_window_extent() for tick in within if left <= tick.get_position()[0] <= right]
            assert len(boxes) >= 2
            assert all(one.x1 < other.x0 for one, other in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)))


def test_a_figure_is_written_whole(tmp_path):
    path = plotting.class_distribution(["N"], tmp_path / "figure.png")
    assert cv2.imread(str(path)).shape[2] == 3 and [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]
