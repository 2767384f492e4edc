import time

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from facerwkv.core import metrics
from facerwkv.core.errors import InputError

# Class 0: 3 images, 2 found; class 1: 2 images, 1 found; class 2 never occurs, but is answered once.
TARGETS = np.array([0, 0, 0, 1, 1])
PREDICTIONS = np.array([0, 0, 2, 1, 0])
MATRIX = np.array([[2, 0, 1], [1, 1, 0], [0, 0, 0]])


def logits_of(predictions: np.ndarray, classes: int, confidence: float) -> np.ndarray:
    """Logits whose softmax is `confidence` at the prediction, and the rest shared alike."""
    probs = np.full((len(predictions), classes), (1 - confidence) / (classes - 1))
    probs[np.arange(len(predictions)), predictions] = confidence
    return np.log(probs)


def test_confusion_has_the_truth_in_rows():
    assert metrics.confusion(TARGETS, PREDICTIONS, 3).tolist() == MATRIX.tolist()


def test_confusion_keeps_leading_dimensions():
    twice = metrics.confusion(np.stack([TARGETS, TARGETS]), np.stack([PREDICTIONS, TARGETS]), 3)
    assert twice.tolist() == [MATRIX.tolist(), [[3, 0, 0], [0, 2, 0], [0, 0, 0]]]


@pytest.mark.parametrize("bad", [-1, 3])
def test_confusion_refuses_a_class_number_that_does_not_exist(bad):
    with pytest.raises(InputError, match=r"must lie in 0 \.\. 2"):
        metrics.confusion(np.array([bad]), np.array([0]), 3)


# Scores by hand: recall 2/3, 1/2; precision 2/3, 1/1; F1 2·2/(3+3) = 2/3, 2·1/(2+1) = 2/3.
@pytest.mark.parametrize(
    ("score", "expected"), [(metrics.accuracy, 3 / 5), (metrics.uar, (2 / 3 + 1 / 2) / 2), (metrics.macro_f1, 2 / 3)]
)
def test_scores_count_the_classes_of_the_truth(score, expected):
    assert float(score(MATRIX)) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("score", [metrics.accuracy, metrics.uar, metrics.macro_f1])
def test_scores_work_over_leading_dimensions(score):
    other = np.diag([3, 0, 5])
    assert score(np.stack([MATRIX, other])).tolist() == [float(score(MATRIX)), 1.0]


def test_per_class_marks_what_is_not_defined():
    found = metrics.per_class(MATRIX)
    np.testing.assert_array_equal(found["support"], [3, 2, 0])
    np.testing.assert_allclose(found["recall"], [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(found["precision"], [2 / 3, 1, 0])
    np.testing.assert_allclose(found["f1"], [2 / 3, 2 / 3, np.nan])


def test_one_class_for_everything_gives_chance_recall():
    matrix = metrics.confusion(np.array([0, 0, 1, 2]), np.zeros(4, int), 3)
    assert float(metrics.accuracy(matrix)) == 0.5
    assert float(metrics.uar(matrix)) == pytest.approx(1 / 3)
    assert float(metrics.macro_f1(matrix)) == pytest.approx((2 * 2 / (2 + 4)) / 3)
    assert np.isnan(metrics.per_class(matrix)["precision"][1:]).all()


def test_calibration_error_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    # bin (.8667, .9333]: confidence .9, accuracy 1/2; bin (.6667, .7333]: .7, 1; bin (.7333, .8]: .8, 0
    targets = np.array([0, 1, 1, 1])
    assert metrics.expected_calibration_error(probs, targets) == pytest.approx((2 * 0.4 + 0.3 + 0.8) / 4)


def test_calibration_error_equals_torchmetrics():
    rng = np.random.default_rng(0)
    probs, targets = metrics.softmax(rng.normal(size=(500, 7)) * 2), rng.integers(0, 7, 500)
    theirs = MulticlassCalibrationError(7, n_bins=15, norm="l1")(torch.tensor(probs), torch.tensor(targets))
    assert metrics.expected_calibration_error(probs, targets) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_bins_take_certainty_and_the_upper_edge():
    probs = np.array([[1.0, 0.0], [1 / 2, 1 / 2], [0.6, 0.4]])
    assert metrics.calibration_bins(probs, np.array([0, 0, 0]), bins=10)[0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(true_temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 2
    targets = (logits + rng.gumbel(size=logits.shape)).argmax(-1)  # drawn from softmax(logits)
    assert metrics.fit_temperature(logits * true_temperature, targets) == pytest.approx(true_temperature, rel=0.03)


def test_temperature_minimises_the_loss():
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(300, 4)) * 3, rng.integers(0, 4, 300)
    targets[:150] = logits[:150].argmax(-1)

    def loss(temperature: float) -> float:
        return -np.log(metrics.softmax(logits, temperature)[np.arange(300), targets]).mean()

    best = metrics.fit_temperature(logits, targets)
    assert 0.05 < best < 20
    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_temperature_of_separable_data_is_the_lower_bound():
    assert metrics.fit_temperature(np.eye(3) * 5, np.arange(3)) == pytest.approx(0.05)


def test_temperature_of_answers_worse_than_chance_is_the_upper_bound():
    assert metrics.fit_temperature(np.eye(3) * 5, np.array([1, 2, 0])) == pytest.approx(20)


def test_temperature_takes_tensors():
    assert metrics.fit_temperature(torch.eye(3), torch.arange(3)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("logits", "message"), [([[np.nan, 1.0], [0.0, 1.0]], "1 of 2 images"), (np.zeros((0, 2)), "no images")]
)
def test_temperature_refuses_what_cannot_be_fitted(logits, message):
    with pytest.raises(InputError, match=message):
        metrics.fit_temperature(np.array(logits), np.zeros(len(logits), int))


def test_scores_have_the_values_of_the_functions():
    logits = logits_of(PREDICTIONS, 3, 0.8)
    found = metrics.scores(TARGETS, logits, temperature=2.0)
    assert list(found) == ["accuracy", "uar", "macro_f1", "ece", "ece_calibrated"]
    assert found["accuracy"].value == 0.6
    assert found["ece"].value == pytest.approx(0.2)
    cooler = metrics.softmax(logits, 2.0)
    assert found["ece_calibrated"].value == pytest.approx(metrics.expected_calibration_error(cooler, TARGETS))


def test_ece_calibrated_needs_a_temperature():
    assert "ece_calibrated" not in metrics.scores(TARGETS, logits_of(PREDICTIONS, 3, 0.8))


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    targets = np.zeros(1000, int)
    predictions = (np.arange(1000) < 300).astype(int)
    score = metrics.scores(targets, logits_of(predictions, 2, 0.9))["accuracy"]
    spread = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert score.value == 0.7
    assert (score.low, score.high) == (pytest.approx(0.7 - spread, abs=0.003), pytest.approx(0.7 + spread, abs=0.003))


def test_intervals_are_the_same_every_time_and_hold_the_value():
    rng = np.random.default_rng(3)
    logits, targets = rng.normal(size=(200, 7)), rng.integers(0, 7, 200)
    first = metrics.scores(targets, logits, 1.3)
    assert first == metrics.scores(targets, logits, 1.3)
    assert all(score.low <= score.value <= score.high for score in first.values())
    assert all(type(number) is float for score in first.values() for number in score.to_dict().values())


def test_a_single_image_has_an_interval_of_no_width():
    found = metrics.scores(np.array([1]), logits_of(np.array([1]), 2, 0.75))
    assert found["accuracy"] == found["uar"] == found["macro_f1"] == metrics.Score(1.0, 1.0, 1.0)
    assert found["ece"].low == found["ece"].value == found["ece"].high == pytest.approx(0.25)


def test_bootstrap_draws_do_not_depend_on_the_size_of_a_chunk(monkeypatch):
    def mean(rows):
        return rows.mean(-1, keepdims=True)

    whole = metrics.bootstrap(mean, 50, resamples=20)
    monkeypatch.setattr(metrics, "_CHUNK", 150)
    assert whole.shape == (20, 1)
    np.testing.assert_array_equal(metrics.bootstrap(mean, 50, resamples=20), whole)


def test_the_intervals_of_a_test_split_take_little_time():
    rng = np.random.default_rng(0)
    start = time.process_time()
    metrics.scores(rng.integers(0, 7, 3589), rng.normal(size=(3589, 7)), 1.2)
    assert time.process_time() - start < 5  # about 0.8 s; the rest is for a loaded machine
