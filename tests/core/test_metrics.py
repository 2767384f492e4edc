import json
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassCalibrationError

from facerwkv.core import metrics
from facerwkv.core.errors import InputError
from tests.scores import KAPPA, kappa

# Class 0: 3 images, 2 found; class 1: 2 images, 1 found; class 2 never occurs, but is answered once.
TARGETS = np.array([0, 0, 0, 1, 1])
PREDICTIONS = np.array([0, 0, 2, 1, 0])
MATRIX = np.array([[2, 0, 1], [1, 1, 0], [0, 0, 0]])


def logits_of(predictions: np.ndarray, classes: int, confidence: float) -> np.ndarray:
    """Logits whose softmax is `confidence` at the prediction, and the rest shared alike."""
    probs = np.full((len(predictions), classes), (1 - confidence) / (classes - 1))
    probs[np.arange(len(predictions)), predictions] = confidence
    return np.log(probs)


def calibration_error(probs: np.ndarray, targets: np.ndarray) -> float:
    return float(metrics.expected_calibration_error(metrics.reliability(probs, targets)))


def test_confusion_has_the_truth_in_rows():
    assert metrics.confusion(TARGETS, PREDICTIONS, 3).tolist() == MATRIX.tolist()


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
    assert calibration_error(probs, targets) == pytest.approx((2 * 0.4 + 0.3 + 0.8) / 4)


def test_calibration_error_equals_torchmetrics():
    rng = np.random.default_rng(0)
    probs, targets = metrics.softmax(rng.normal(size=(500, 7)) * 2), rng.integers(0, 7, 500)
    theirs = MulticlassCalibrationError(7, n_bins=15, norm="l1")(torch.tensor(probs), torch.tensor(targets))
    assert calibration_error(probs, targets) == pytest.approx(float(theirs), abs=1e-6)


def test_bins_take_certainty_and_the_upper_edge():
    probs = np.array([[1.0, 0.0], [1 / 2, 1 / 2], [0.6, 0.4]])
    images, confidence, right = metrics.reliability(probs, np.array([0, 0, 1]), bins=10)
    assert images.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert confidence.tolist() == [0, 0, 0, 0, 0.5, 0.6, 0, 0, 0, 1]
    assert right.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


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
    assert list(found) == list(metrics.SCORES)
    assert found["accuracy"].value == 0.6
    assert found["ece"].value == pytest.approx(0.2)
    cooler = metrics.softmax(logits, 2.0)
    assert found["ece_calibrated"].value == pytest.approx(calibration_error(cooler, TARGETS))


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


def test_draws_do_not_depend_on_the_size_of_a_chunk(monkeypatch):
    whole = metrics.confusion_draws(MATRIX, resamples=20)
    monkeypatch.setattr(metrics, "_CHUNK", 30)
    assert whole.keys() == metrics.of_confusion().keys()
    for name, values in metrics.confusion_draws(MATRIX, resamples=20).items():
        np.testing.assert_array_equal(values, whole[name])


def by_index(targets: np.ndarray, logits: np.ndarray, resamples: int) -> dict[str, np.ndarray]:
    """The scores of resamples as the bootstrap is defined: one index drawn for each image."""
    rng, probs = np.random.default_rng(1), metrics.softmax(logits)
    values: dict[str, list[float]] = {"accuracy": [], "uar": [], "macro_f1": [], "ece": []}
    for _ in range(resamples):
        rows = rng.integers(0, len(targets), len(targets))
        matrix = metrics.confusion(targets[rows], logits[rows].argmax(-1), logits.shape[-1])
        for name in ("accuracy", "uar", "macro_f1"):
            values[name].append(float(metrics.SCORES[name].function(matrix)))
        values["ece"].append(calibration_error(probs[rows], targets[rows]))
    return {name: np.array(drawn) for name, drawn in values.items()}


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (3, 3, 1.0), (1, 5, 14 / 64), (0, 10, 2 / 1024), (40, 60, 0.0568879)]
)
def test_a_paired_difference_and_its_exact_p(lost, gained, p):
    right = np.array([True] * lost + [False] * gained + [True] * 100)
    others = np.array([False] * lost + [True] * gained + [True] * 100)
    difference, found = metrics.paired(right, others)
    assert difference.value == pytest.approx((gained - lost) / len(right))
    assert found == pytest.approx(p, rel=1e-5)
    deviation = np.sqrt((lost + gained) / len(right) - difference.value**2) / np.sqrt(len(right))
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * deviation, rel=0.1, abs=1e-9)


def test_several_runs_are_paired_by_their_means():
    right, others = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool), np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
    difference, p = metrics.paired(right, others)
    assert difference.value == pytest.approx((0 + 0.5 + 1 + 0.5) / 4)
    assert p == pytest.approx(2 / 2**3)


def test_intervals_are_those_of_drawn_indices():
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 4, 400)
    logits = rng.normal(size=(400, 4)) * 2 + 2 * np.eye(4)[targets]
    fast = metrics.scores(targets, logits, resamples=1500)
    for name, drawn in by_index(targets, logits, 1500).items():
        spread = drawn.std()
        assert fast[name].low == pytest.approx(min(np.percentile(drawn, 2.5), fast[name].value), abs=0.3 * spread)
        assert fast[name].high == pytest.approx(np.percentile(drawn, 97.5), abs=0.3 * spread)


def test_the_intervals_of_a_test_split_take_little_time():
    rng = np.random.default_rng(0)
    targets, logits = rng.integers(0, 7, 3589), rng.normal(size=(3589, 7))
    matrix = metrics.confusion(targets, logits.argmax(-1), 7)
    start = time.process_time()
    metrics.confusion_draws(matrix)
    middle = time.process_time()
    metrics.scores(targets, logits, 1.2)
    assert middle - start < 0.3  # about 0.02 s; the rest is for a loaded machine
    assert time.process_time() - middle < 0.6  # about 0.06 s


@st.composite
def evaluations(draw) -> tuple[np.ndarray, np.ndarray]:
    """Targets and logits of a few images: classes without images, one class alone, ties."""
    classes, n = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    targets = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return targets, draw(arrays(np.float64, (n, classes), elements=st.sampled_from([-3.0, 0.0, 0.5, 3.0])))


@given(evaluations())
@settings(max_examples=60, deadline=None)
def test_scores_that_are_not_defined_are_left_out_and_break_nothing(given_evaluation):
    targets, logits = given_evaluation
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setitem(metrics.SCORES, "kappa", KAPPA)
        found = metrics.scores(targets, logits, resamples=50)
        matrix = metrics.confusion(targets, logits.argmax(-1), logits.shape[-1])
        whole = {name: float(metric.function(matrix)) for name, metric in metrics.of_confusion().items()}
        assert {name: score.value for name, score in found.items() if name in whole} == {
            name: value for name, value in whole.items() if np.isfinite(value)
        }
        for score in found.values():
            assert np.isfinite([score.low, score.value, score.high]).all()
            assert score.low <= score.value <= score.high
        summary = json.loads(json.dumps(metrics.to_json(found), allow_nan=False))
        assert [name for name in metrics.SCORES if summary[name] is None] == [
            n for n in metrics.SCORES if n not in found
        ]
        assert metrics.stored(summary) == found


def test_one_class_answered_alone_has_no_kappa(monkeypatch):
    monkeypatch.setitem(metrics.SCORES, "kappa", KAPPA)
    found = metrics.scores(np.zeros(5, int), np.tile([2.0, 0.0], (5, 1)))
    assert "kappa" not in found
    assert metrics.to_json(found)["kappa"] is None
    assert metrics.SCORES["kappa"].text(found.get("kappa")) == "–"


def test_resamples_without_a_score_are_left_out_of_its_interval(monkeypatch):
    monkeypatch.setitem(metrics.SCORES, "kappa", KAPPA)
    matrix = np.array([[3, 0], [0, 1]])  # a third of the resamples have one class alone
    assert np.isnan(metrics.confusion_draws(matrix)["kappa"]).mean() == pytest.approx(0.75**4 + 0.25**4, abs=0.03)
    assert metrics.confusion_scores(matrix)["kappa"] == metrics.Score(1.0, 1.0, 1.0)


def test_a_score_added_later_is_computed_from_the_stored_confusion_matrix(monkeypatch):
    summary = metrics.to_json(metrics.confusion_scores(MATRIX)) | {"confusion": MATRIX.tolist()}
    monkeypatch.setitem(metrics.SCORES, "kappa", KAPPA)
    assert metrics.stored(summary)["kappa"].value == pytest.approx(float(kappa(MATRIX)))
    assert "kappa" not in metrics.stored({"accuracy": {"value": 1.0, "low": 1.0, "high": 1.0}})
    assert "kappa" not in metrics.stored(summary | {"kappa": None})


def test_pages_are_told_titles_and_formats():
    titles = metrics.score_titles()
    assert list(titles) == list(metrics.SCORES)
    assert titles["uar"] == {
        "title": "UAR",
        "about": "the mean recall of the classes that occur in the truth",
        "percent": True,
        "digits": 1,
    }
    assert (titles["ece"]["percent"], titles["ece"]["digits"]) == (False, 3)
