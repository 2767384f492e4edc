"""The scores: one table, SCORES, that training, evaluation, reports, comparisons, cards and pages read.

A score is a function of counts and works over any leading dimensions: of confusion matrices (..., C, C), or of
reliability tables (..., 3, BINS). So the 2,000 resamples of an interval are scored at once, by the function that scores
the original, and are drawn as counts: one multinomial draw per cell instead of one index per image.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from facerwkv.core.errors import InputError

RESAMPLES = 2000
BINS = 15
TEMPERATURES = (0.05, 20.0)
UNDEFINED = "–"
CLASS_COLUMNS = {"precision": "precision", "recall": "recall", "f1": "F1", "support": "images"}
_FINER = 2  # groups per bin in which confidences are resampled, each at its mean
_CHUNK = 20_000_000  # counts drawn at a time: 160 MB


@dataclass(frozen=True, slots=True)
class Score:
    """A value and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: np.ndarray) -> "Score | None":
        """The score with the 2.5th to 97.5th percentile of its resamples, widened where needed to contain the value.

        (ECE counts sampling noise as error, so its resamples lean upwards.) Resamples in which the score is not defined
        are left out; None where the value itself is not defined (NaN).
        """
        if not np.isfinite(value):
            return None
        defined = draws[np.isfinite(draws)]
        low, high = np.percentile(defined, (2.5, 97.5)).tolist() if len(defined) else (value, value)
        return cls(float(value), float(min(low, value)), float(max(high, value)))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Metric:
    """A line of SCORES: what it is called, its function, its format, what it is computed from, and how to read it."""

    title: str
    function: Callable[[np.ndarray], np.ndarray]
    form: str = ".1%"
    of: Literal["confusion", "reliability", "calibrated reliability"] = "confusion"
    about: str = ""

    def number(self, value: float) -> str:
        """A value for people; a dash for NaN, which stands for one that is not defined."""
        return f"{value:{self.form}}" if np.isfinite(value) else UNDEFINED

    def interval(self, score: Score) -> str:
        return f"{self.number(score.low)}{'–' if score.low >= 0 else ' to '}{self.number(score.high)}"

    def text(self, score: Score | None) -> str:
        """Value and interval for people, "61.4% (60.0%–62.8%)"; a dash for a score that is not defined."""
        return UNDEFINED if score is None else f"{self.number(score.value)} ({self.interval(score)})"


def confusion(targets: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 (C, C) of class numbers (N,); rows are the truth, columns the prediction."""
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    for numbers in (targets, predictions):
        if numbers.size and (numbers.min() < 0 or numbers.max() >= num_classes):
            raise InputError(f"Class numbers must lie in 0 .. {num_classes - 1}; check the labels of the data set.")
    cells = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of right answers, in 0..1, of confusion matrices (..., C, C)."""
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


def uar(matrix: np.ndarray) -> np.ndarray:
    """Unweighted average recall: the mean recall over the classes that occur in the truth."""
    return _mean_over_present(per_class(matrix)["recall"], matrix)


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """The mean F1 over the classes that occur in the truth.

    It equals scikit-learn's f1_score(truth, predictions, average="macro", labels=numpy.unique(truth)).
    """
    return _mean_over_present(per_class(matrix)["f1"], matrix)


def expected_calibration_error(table: np.ndarray) -> np.ndarray:
    """Mean distance of confidence from accuracy, in 0..1, of reliability tables (..., 3, BINS).

    Bins are weighted by their images. Source: Guo et al. 2017, equation 3.
    """
    return _ratio(np.abs(table[..., 1, :] - table[..., 2, :]).sum(-1), table[..., 0, :].sum(-1))


SCORES: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy, about="the share of right answers"),
    "uar": Metric("UAR", uar, about="the mean recall of the classes that occur in the truth"),
    "macro_f1": Metric("macro-F1", macro_f1, about="the mean F1 of the classes that occur in the truth"),
    "ece": Metric(
        "ECE",
        expected_calibration_error,
        ".3f",
        "reliability",
        about=f"the mean distance between the probability a model shows and how often it is right, in {BINS} bins",
    ),
    "ece_calibrated": Metric(
        "ECE after temperature",
        expected_calibration_error,
        ".3f",
        "calibrated reliability",
        about="the same after the logits are divided by a temperature fitted on validation",
    ),
}
"""Every score by its name in files. The first is the one that comparisons are sorted by."""


def of_confusion() -> dict[str, Metric]:
    """The lines of SCORES that are computed from a confusion matrix."""
    return {name: metric for name, metric in SCORES.items() if metric.of == "confusion"}


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """precision, recall, f1 (..., C) in 0..1 and support, the number of true members.

    NaN marks what is not defined: precision of a class never predicted, recall and F1 of a class absent from the truth.
    """
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    support, answered = matrix.sum(-1), matrix.sum(-2)
    f1 = np.where(support > 0, _ratio(2 * right, support + answered), np.nan)
    return {"precision": _ratio(right, answered), "recall": _ratio(right, support), "f1": f1, "support": support}


def class_intervals(matrix: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """The ends (2, C) of the 95 % intervals of precision, recall and f1; NaN for what most resamples do not define."""
    rng, n, step = np.random.default_rng(seed), int(matrix.sum()), max(1, _CHUNK // matrix.size)
    parts: dict[str, list[np.ndarray]] = {"precision": [], "recall": [], "f1": []}
    for start in range(0, resamples, step):
        drawn = rng.multinomial(n, matrix.ravel() / n, min(step, resamples - start)).reshape(-1, *matrix.shape)
        scored = per_class(drawn)
        for name, tables in parts.items():
            tables.append(scored[name])
    ends = {}
    for name, tables in parts.items():
        table = np.concatenate(tables)
        table[:, np.isnan(table).mean(0) > 0.5] = 0
        ends[name] = np.nanpercentile(table, (2.5, 97.5), axis=0)
        ends[name][:, np.isnan(per_class(matrix)[name])] = np.nan
    return ends


def class_rows(rows: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, ...]]:
    """The texts of a table with a row per class and CLASS_COLUMNS, from a summary's "per_class"."""
    texts = []
    for label, row in rows.items():
        cells = [label]
        for column in CLASS_COLUMNS:
            value, form = row[column], "," if column == "support" else ".1%"
            cells.append(UNDEFINED if value is None else f"{value:{form}}")
        texts.append(tuple(cells))
    return texts


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float64 (..., C) of logits divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    odds = np.exp(scaled - scaled.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def reliability(probs: np.ndarray, targets: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Images, sum of confidences and right answers (3, bins) of equal-width bins (lower, upper] of the top probability.

    probs (N, C), targets (N,).
    """
    confidence, right = probs.max(-1), probs.argmax(-1) == targets
    codes = _bin(confidence, bins)
    return np.stack([np.bincount(codes, weights, bins) for weights in (None, confidence, right)])


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The one number T that minimises the negative log-likelihood of softmax(logits / T), kept within 0.05 .. 20.

    logits (N, C), targets (N,). The loss is convex in 1/T, so its slope is bisected; where the data are separable, or
    the answers worse than chance, the slope keeps its sign and a bound is returned. Raises InputError for no images
    and for logits that are not finite. Source: Guo et al. 2017, section 4.2.
    """
    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    if not len(logits):
        raise InputError("There are no images to fit a temperature on; choose a split that has some.")
    require_finite(logits)
    of_truth = logits[np.arange(len(targets)), targets].mean()
    low, high = (float(np.log(bound)) for bound in TEMPERATURES)
    for _ in range(50):
        middle = (low + high) / 2
        prefers_warmer = (softmax(logits, float(np.exp(middle))) * logits).sum(-1).mean() > of_truth
        low, high = (middle, high) if prefers_warmer else (low, middle)
    return float(np.clip(np.exp((low + high) / 2), *TEMPERATURES))


def require_finite(logits: np.ndarray, names: list[str] | None = None) -> None:
    """Raise InputError that counts the images (rows) whose logits contain NaN or infinity and names the first."""
    bad = np.flatnonzero(~np.isfinite(logits).all(-1))
    if len(bad):
        first = names[bad[0]] if names else f"number {bad[0]}"
        raise InputError(
            f"The model answers NaN or infinity for {len(bad)} of {len(logits)} images (the first: {first}). "
            "Its training has diverged or its weights are damaged; evaluate an earlier checkpoint."
        )


def scores(
    targets: np.ndarray,
    logits: np.ndarray,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """Each score of SCORES with its interval, but those that are not defined here or need a temperature that is None.

    targets (N,), logits (N, C). A resample is N of the N images drawn with replacement.
    """
    matrix = confusion(targets, logits.argmax(-1), logits.shape[-1])
    tables = [(matrix, confusion_draws(matrix, resamples, seed))]
    for of, divisor in (("reliability", 1.0), ("calibrated reliability", temperature)):
        if divisor is not None:
            probs = softmax(logits, divisor)
            draws = _reliability_draws(of, probs, targets, resamples, seed)
            tables.append((reliability(probs, targets), draws))
    found = {
        name: Score.of(float(SCORES[name].function(table)), values)
        for table, draws in tables
        for name, values in draws.items()
    }
    return {name: score for name in SCORES if (score := found.get(name))}


def confusion_scores(matrix: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Score]:
    """The scores that a confusion matrix (C, C) defines, with their intervals."""
    draws = confusion_draws(matrix, resamples, seed)
    found = {name: Score.of(float(SCORES[name].function(matrix)), values) for name, values in draws.items()}
    return {name: score for name, score in found.items() if score}


def confusion_draws(matrix: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """The scores (resamples,) of as many images, drawn with replacement from those of a confusion matrix (C, C)."""
    return _draws("confusion", matrix.ravel(), lambda counts: counts.reshape(-1, *matrix.shape), resamples, seed)


def paired(right: np.ndarray, others: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Score, float]:
    """The accuracy of others less that of `right` on the same images, with its interval, and McNemar's exact p.

    right, others: bool (N,), who answered which image rightly, or (S, N) of S runs each, whose mean is compared. p: how
    often a fair coin splits the images on which they differ at least as unevenly. Source: McNemar 1947, in its exact
    (binomial) form; of several runs the sign test.
    """
    changes = np.atleast_2d(others).mean(0) - np.atleast_2d(right).mean(0)
    values, counts = np.unique(changes.round(9), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(changes), counts / len(changes), resamples)
    difference = Score.of(changes.mean(), drawn @ values / len(changes))
    assert difference is not None  # of a finite value
    lost, differing = int(counts[values < 0].sum()), int(counts[values != 0].sum())
    tail = sum(math.comb(differing, count) for count in range(min(lost, differing - lost) + 1))
    return difference, min(1.0, 2 * tail / 2**differing)


def _reliability_draws(
    of: str, probs: np.ndarray, targets: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """The scores (resamples,) of reliability tables of as many images.

    Images are drawn in groups of one correctness and a half bin of confidence, each with its group's mean confidence:
    what varies inside a half bin is less than a thousandth of the variance of being right or wrong.
    """
    confidence, right = probs.max(-1), probs.argmax(-1) == targets
    codes = _bin(confidence, BINS * _FINER) * 2 + right
    groups, group, counts = np.unique(codes, return_inverse=True, return_counts=True)
    mean = np.bincount(group, confidence) / counts
    image = np.zeros((len(groups), 3, BINS))  # what one image of each group adds to a table
    image[np.arange(len(groups)), :, groups // 2 // _FINER] = np.stack([np.ones(len(groups)), mean, groups % 2], -1)
    flat = image.reshape(len(groups), -1)
    return _draws(of, counts, lambda drawn: (drawn @ flat).reshape(-1, 3, BINS), resamples, seed)


def _draws(
    of: str, counts: np.ndarray, table: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """The scores (resamples,) of tables made of multinomial draws (R, K) of counts (K,)."""
    rng, n, step = np.random.default_rng(seed), int(counts.sum()), max(1, _CHUNK // len(counts))
    parts: dict[str, list[np.ndarray]] = {name: [] for name, metric in SCORES.items() if metric.of == of}
    for start in range(0, resamples, step):
        drawn = table(rng.multinomial(n, counts / n, min(step, resamples - start)))
        for name, values in parts.items():
            values.append(SCORES[name].function(drawn))
    return {name: np.concatenate(values) for name, values in parts.items()}


def stored(summary: Mapping[str, Any]) -> dict[str, Score]:
    """The scores in a summary (evaluation.json); one that was added later is computed from its confusion matrix."""
    found = {name: Score(**summary[name]) for name in SCORES if summary.get(name)}
    later = [name for name in of_confusion() if name not in summary]
    if later and "confusion" in summary:
        added = confusion_scores(np.asarray(summary["confusion"]))
        found |= {name: added[name] for name in later if name in added}
    return {name: found[name] for name in SCORES if name in found}


def to_json(found: Mapping[str, Score], names: Mapping[str, Metric] | None = None) -> dict[str, Any]:
    """Scores as a summary has them: name → value, low, high; null for one that is not defined."""
    return {name: found[name].to_dict() if name in found else None for name in names or SCORES}


def score_titles() -> dict[str, dict[str, Any]]:
    """SCORES for a page that formats numbers itself: name → title, about, whether in per cent, and decimals."""
    return {
        name: {
            "title": metric.title,
            "about": metric.about,
            "percent": metric.form.endswith("%"),
            "digits": int(metric.form.strip(".%f")),
        }
        for name, metric in SCORES.items()
    }


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _mean_over_present(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    present = matrix.sum(-1) > 0
    return _ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom as float64; NaN where bottom is 0."""
    bottom = np.asarray(bottom, dtype=np.float64)
    return np.asarray(top) / np.where(bottom == 0, np.nan, bottom)


def plus_minus(mean: dict[str, Any] | None, name: str) -> str:
    """A mean and its deviation as a table shows them."""
    metric = SCORES[name]
    if not mean:
        return UNDEFINED
    deviation = mean["deviation"]
    return metric.number(mean["mean"]) + ("" if deviation is None else f" ± {metric.number(deviation)}")


def mean_scores(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """Of each score its mean over the rows in which it is defined, the sample's deviation, and their number."""
    means: dict[str, dict[str, float | int | None]] = {}
    for name in of_confusion():
        values = [row[name]["value"] for row in rows if row.get(name)]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            means[name] = {"mean": statistics.fmean(values), "deviation": deviation, "n": len(values)}
    return means
