import math

import numpy as np
import pytest
from sklearn import metrics

import scoring


def as_lists(matrix):
    rows, columns = np.indices(matrix.shape)
    return np.repeat(rows.ravel(), matrix.ravel()), np.repeat(columns.ravel(), matrix.ravel())


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_scikit_learns(seed):
    matrix = np.random.default_rng(seed).integers(0, 60, (4, 4))
    if seed % 4 == 0:
        matrix[seed // 4 % 4] = 0  # a class that does not occur
    if seed % 5 == 0:
        matrix[:, 1] = 0  # a class that is never predicted
    true, predicted = as_lists(matrix)
    np.testing.assert_array_equal(scoring.confusion_matrix(true, predicted), matrix)
    expected = metrics.f1_score(true, predicted, labels=range(4), average=None, zero_division=0)
    np.testing.assert_allclose(scoring.f1_per_class(matrix), expected)
    assert scoring.average_f1(matrix) == pytest.approx(expected.mean())
    official = metrics.f1_score(true, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert scoring.challenge_f1(matrix) == pytest.approx(official)
    overall = scoring.overall(matrix)
    assert overall["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    keywords = {"labels": range(4), "average": "macro", "zero_division": 0}
    assert overall["macro_precision"] == pytest.approx(metrics.precision_score(true, predicted, **keywords))
    assert overall["macro_recall"] == pytest.approx(metrics.recall_score(true, predicted, **keywords))


def test_overall_takes_many_matrices():
    matrices = np.random.default_rng(0).integers(0, 60, (3, 4, 4))
    for key, scores in scoring.overall(matrices).items():
        np.testing.assert_allclose(scores, [scoring.overall(matrix)[key] for matrix in matrices])


def test_the_reports_matrix_gives_the_reports_figures():
    assert scoring.average_f1(scoring.REPORT_MATRIX) == pytest.approx(0.5553, abs=5e-5)
    assert scoring.challenge_f1(scoring.REPORT_MATRIX) == pytest.approx(0.5994, abs=1e-4)
    np.testing.assert_allclose(scoring.f1_per_class(scoring.REPORT_MATRIX), [0.46, 0.81, 0.53, 0.42], atol=0.005)
    assert list(scoring.REPORT_MATRIX.sum(1)) == [148, 1010, 491, 57]


def test_epoch_scores_keep_the_reports_names_and_order():
    scores = scoring.epoch_scores(scoring.REPORT_MATRIX)
    assert list(scores) == ["F1_0", "F1_1", "F1_2", "F1_3", "avg_F1_score", "challenge_F1"]
    assert scores["F1_0"] == pytest.approx(0.4586, abs=5e-5)  # A
    assert scores["F1_3"] == pytest.approx(0.4231, abs=5e-5)  # noise


def test_interval_equals_a_bootstrap_of_the_recordings():
    rng = np.random.default_rng(5)
    true, predicted = as_lists(scoring.REPORT_MATRIX)
    drawn = []
    for _ in range(500):
        chosen = rng.integers(len(true), size=len(true))
        drawn.append(metrics.f1_score(true[chosen], predicted[chosen], average="macro"))
    low, high = scoring.interval(scoring.REPORT_MATRIX, scoring.average_f1)
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)


def test_auc_equals_scikit_learns_and_is_nan_for_an_absent_class():
    rng = np.random.default_rng(3)
    true, probabilities = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    expected = metrics.roc_auc_score(true, probabilities, multi_class="ovr", average=None)
    np.testing.assert_allclose(scoring.one_vs_rest_auc(true, probabilities), expected)
    assert list(np.isnan(scoring.one_vs_rest_auc(true % 3, probabilities))) == [False, False, False, True]


def test_calibration_error():
    # Two bins: 0.9 sure and right 3 of 4 times, 0.6 sure and always wrong.
    sure, unsure = [0.9, 0.05, 0.03, 0.02], [0.3, 0.6, 0.05, 0.05]
    probabilities = np.array([sure] * 4 + [unsure] * 2)
    error = scoring.calibration_error(np.array([0, 0, 0, 3, 0, 0]), probabilities)
    assert error == pytest.approx((4 * 0.15 + 2 * 0.6) / 6)
    assert scoring.calibration_error(np.array([2]), np.eye(4)[[2]]) == 0


def test_duration_baseline_knows_only_durations():
    rng = np.random.default_rng(0)
    seconds = np.concatenate([np.full(300, 30.0), rng.uniform(9, 20, 100)])
    labels = np.repeat([1, 3], [300, 100])
    matrix = scoring.duration_baseline(seconds, labels, [30, 12, 30], [1, 3, 0])
    assert matrix[1, 1] == matrix[3, 3] == matrix[0, 1] == 1 and matrix.sum() == 3
    alike = scoring.duration_baseline(np.full(400, 30.0), labels, np.full(50, 30.0), np.resize([1, 3], 50))
    assert sorted(alike.sum(0)) == [0, 0, 0, 50]  # one class for all


def test_measure_puts_every_class_in_its_place():
    true = np.array([0, 0, 1, 1, 1, 2, 3])
    predicted = np.array([0, 1, 1, 1, 2, 2, 1])
    metrics_ = scoring.measure(true, np.eye(4)[predicted] * 0.9 + 0.025)
    expected = metrics.f1_score(true, predicted, labels=range(4), average=None, zero_division=0)
    assert metrics_["F1"] == dict(zip("ANO~", expected, strict=True))
    np.testing.assert_array_equal(metrics_["confusion_matrix"], metrics.confusion_matrix(true, predicted))
    low, high = metrics_["F1_interval"]["N"]
    assert low < metrics_["F1"]["N"] < high


def test_area_intervals_equal_a_bootstrap_of_the_recordings():
    rng = np.random.default_rng(4)
    true = rng.choice(4, 150, p=[0.2, 0.4, 0.4, 0])
    probabilities = rng.dirichlet(np.ones(4), 150) + 0.3 * np.eye(4)[true]
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).round(2)  # with ties
    order, *rest = scoring._ranked(true == 0, probabilities[:, 0])
    chosen = rng.integers(150, size=(20, 150))
    weights = np.array([np.bincount(each, minlength=150) for each in chosen], np.float32)
    drawn = np.array(scoring._areas(weights[:, order], *rest))
    for values, score in zip(drawn, (metrics.roc_auc_score, metrics.average_precision_score), strict=True):
        np.testing.assert_allclose(values, [score(true[row] == 0, probabilities[row, 0]) for row in chosen], rtol=1e-5)
    found = scoring.area_intervals(true, probabilities)
    assert found["AUC_interval"]["~"] is None is found["average_precision_interval"]["~"]
    low, high = found["AUC_interval"]["A"]
    assert (high - low) == pytest.approx(2 * 1.96 * drawn[0].std(), rel=0.4)
    assert low < metrics.roc_auc_score(true == 0, probabilities[:, 0]) < high


def test_mcnemar_is_the_exact_test():
    true = np.zeros(30, int)
    ours, theirs = np.repeat([0, 1], [25, 5]), np.repeat([1, 0, 1], [10, 18, 2])
    found = scoring.mcnemar(true, ours, theirs)
    assert (found["this"], found["other"]) == (10, 3)
    assert found["p"] == pytest.approx(2 * sum(math.comb(13, k) for k in range(4)) / 2**13)
    assert scoring.mcnemar(true, ours, ours)["p"] == 1


def test_the_reports_matrix_does_not_differ_from_itself():
    for change in scoring.less_report(scoring.REPORT_MATRIX).values():
        low, high = change["interval"]
        assert change["difference"] == 0 and low < 0 < high
    # Drawn apart, the variances add up.
    low, high = scoring.less_report(scoring.REPORT_MATRIX)["accuracy"]["interval"]
    accuracy = np.trace(scoring.REPORT_MATRIX) / scoring.REPORT_MATRIX.sum()
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(2 * accuracy * (1 - accuracy) / 1706), rel=0.1)
    perfect = np.diag(scoring.REPORT_MATRIX.sum(1))
    assert scoring.less_report(perfect)["avg_F1_score"]["interval"][0] > 0.3


def test_screening():
    true = np.repeat([0, 1, 2], [20, 60, 20])
    flagged = np.r_[np.ones(18), np.zeros(2), np.ones(8), np.zeros(72)].astype(bool)
    found = scoring.screening(true, flagged)
    assert (found["sensitivity"], found["specificity"], found["flagged"]) == (0.9, 0.9, 26)
    assert found["sensitivity_interval"] == pytest.approx([0.6830, 0.9877], abs=1e-4)  # Clopper & Pearson's table
    assert found["predictive_value"]["9%"] == pytest.approx(0.9 * 0.09 / (0.9 * 0.09 + 0.1 * 0.91))
    low, high = found["predictive_value_interval"]["9%"]
    assert low < found["predictive_value"]["9%"] < high
    assert scoring.screening(true[20:], flagged[20:]) == {}
    perfect = scoring.screening(true, true == 0)
    low, high = perfect["predictive_value_interval"]["1%"]
    assert perfect["predictive_value"]["1%"] == 1 and low < 0.6 and high > 0.99


def test_thresholds_do_what_they_are_chosen_for():
    rng = np.random.default_rng(1)
    true = rng.choice(4, 400)
    probabilities = rng.dirichlet(np.ones(4), 400) + 0.3 * np.eye(4)[true]
    probabilities /= probabilities.sum(1, keepdims=True)
    limits = scoring.thresholds(true, probabilities)
    points = {point["rule"]: point for point in scoring.operating_points(true, true * 0 + 1, probabilities, limits)}
    assert points["sensitivity 95%"]["sensitivity"] >= 0.95
    higher = scoring.screening(true, probabilities[:, 0] > limits["sensitivity 95%"])
    assert higher["sensitivity"] < 0.95
    flagged = probabilities[:, 0] >= probabilities[:, :1]  # by each threshold
    best = (flagged[:, true == 0].mean(1) + 1 - flagged[:, true != 0].mean(1)).max()
    assert points["balanced"]["sensitivity"] + points["balanced"]["specificity"] == pytest.approx(best)
    assert points["class named"]["sensitivity"] == 0 and points["class named"]["predictive_value"]["9%"] is None
