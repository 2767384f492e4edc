"""Confusion matrix → accuracy, UAR, macro-F1; logits → calibration; both → 95 % bootstrap intervals.

Every score is a function of counts and works over any leading dimensions, so that the 2,000 resamples of the
bootstrap are scored at once by the functions that score the original.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from facerwkv.core.errors import InputError

RESAMPLES = 2000
BINS = 15
TEMPERATURES = (0.05, 20.0)
_CHUNK = 4_000_000  # indices drawn at a time: about 200 MB at the peak


@dataclass(frozen=True, slots=True)
class Score:
    """A value and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def confusion(targets: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 (..., C, C) of class numbers (..., N); rows are the truth, columns the prediction."""
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    for numbers in (targets, predictions):
        if numbers.size and (numbers.min() < 0 or numbers.max() >= num_classes):
            raise InputError(f"Class numbers must lie in 0 .. {num_classes - 1}; check the labels of the data set.")
    cells = _counts(targets * num_classes + predictions, num_classes**2)
    return cells.reshape(*targets.shape[:-1], num_classes, num_classes).astype(np.int64)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of right answers, in 0..1, of confusion matrices (..., C, C)."""
    return _ratio(_diagonal(matrix).sum(-1), matrix.sum((-2, -1)))


def uar(matrix: np.ndarray) -> np.ndarray:
    """Unweighted average recall: the mean recall over the classes that occur in the truth."""
    return _mean_over_present(_recall(matrix), matrix)


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """The mean F1 over the classes that occur in the truth.

    It equals scikit-learn's f1_score(truth, predictions, average="macro", labels=numpy.unique(truth)).
    """
    return _mean_over_present(_f1(matrix), matrix)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """precision, recall, f1 (..., C) in 0..1 and support, the number of true members.

    NaN marks what is not defined: precision of a class never predicted, recall and F1 of a class absent from the truth.
    """
    precision = _ratio(_diagonal(matrix), matrix.sum(-2))
    return {"precision": precision, "recall": _recall(matrix), "f1": _f1(matrix), "support": matrix.sum(-1)}


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float64 (..., C) of logits divided by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    odds = np.exp(scaled - scaled.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def calibration_bins(probs: np.ndarray, targets: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, ...]:
    """Images, mean confidence and accuracy (bins,) of equal-width bins (lower, upper] of the top probability.

    probs (N, C), targets (N,). The two means of an empty bin are NaN.
    """
    confidence, correct = probs.max(-1), probs.argmax(-1) == targets
    codes = _bin(confidence, bins)
    count = _counts(codes, bins)
    return count, _ratio(_counts(codes, bins, confidence), count), _ratio(_counts(codes, bins, correct), count)


def expected_calibration_error(probs: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Mean distance of confidence from accuracy, in 0..1, bins weighed by their images (Guo et al. 2017, eq. 3)."""
    count, confidence, right = calibration_bins(probs, targets, bins)
    full = count > 0
    return float((count * np.abs(confidence - right))[full].sum() / count.sum())


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

    def prefers_warmer(temperature: float) -> bool:
        return (softmax(logits, temperature) * logits).sum(-1).mean() > of_truth

    low, high = (float(np.log(bound)) for bound in TEMPERATURES)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if prefers_warmer(float(np.exp(middle))) else (low, middle)
    return float(np.clip(np.exp((low + high) / 2), *TEMPERATURES))


def require_finite(logits: np.ndarray, names: list[str] | None = None) -> None:
    """Raise InputError that counts the images (rows) whose logits hold NaN or infinity and names the first."""
    bad = np.flatnonzero(~np.isfinite(logits).all(-1))
    if len(bad):
        first = names[bad[0]] if names else f"number {bad[0]}"
        raise InputError(
            f"The model answers NaN or infinity for {len(bad)} of {len(logits)} images (the first: {first}). "
            "Its training has diverged or its weights are damaged; evaluate an earlier checkpoint."
        )


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """What `statistic` (rows (R, n) → (R, S)) makes of n out of n images drawn with replacement: (resamples, S)."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // n)
    chunks = [min(size, resamples - start) for start in range(0, resamples, size)]
    return np.concatenate([statistic(rng.integers(0, n, (chunk, n), dtype=np.int32)) for chunk in chunks])


def scores(
    targets: np.ndarray,
    logits: np.ndarray,
    temperature: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """accuracy, uar, macro_f1, ece and, where a temperature is given, ece_calibrated, each with its interval.

    targets (N,), logits (N, C). The interval is the 2.5th to 97.5th percentile over resampled images, widened where
    needed to hold the value: ECE counts sampling noise as error, so its resamples lean upwards.
    """
    predictions, classes = logits.argmax(-1), logits.shape[-1]
    temperatures = (1.0,) if temperature is None else (1.0, temperature)
    binned = [_bin_and_gap(softmax(logits, t), targets) for t in temperatures]

    def statistic(rows: np.ndarray) -> np.ndarray:
        matrix = confusion(targets[rows], predictions[rows], classes)
        errors = [np.abs(_counts(codes[rows], BINS, gap[rows])).sum(-1) / rows.shape[-1] for codes, gap in binned]
        return np.stack([accuracy(matrix), uar(matrix), macro_f1(matrix), *errors], -1)

    values = statistic(np.arange(len(targets))[None])[0]
    low, high = np.percentile(bootstrap(statistic, len(targets), resamples, seed), (2.5, 97.5), axis=0)
    rows = zip(values.tolist(), np.minimum(low, values).tolist(), np.maximum(high, values).tolist(), strict=True)
    names = ("accuracy", "uar", "macro_f1", "ece", "ece_calibrated")
    return dict(zip(names, (Score(*row) for row in rows), strict=False))


def _bin_and_gap(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per image its bin and confidence minus correctness: ECE is the sum over bins of |sum of gaps|, over N."""
    confidence = probs.max(-1)
    return _bin(confidence, BINS), confidence - (probs.argmax(-1) == targets)


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _counts(codes: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """How often, or with what total weight, each of 0 .. size-1 occurs in the last axis: (..., N) → (..., size)."""
    lead = codes.shape[:-1]
    rows = int(np.prod(lead))
    shifted = codes.reshape(rows, -1) + np.arange(rows)[:, None] * size
    flat = None if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    return np.bincount(shifted.ravel(), flat, rows * size).reshape(*lead, size)


def _diagonal(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _recall(matrix: np.ndarray) -> np.ndarray:
    return _ratio(_diagonal(matrix), matrix.sum(-1))


def _f1(matrix: np.ndarray) -> np.ndarray:
    support = matrix.sum(-1)
    return np.where(support > 0, _ratio(2 * _diagonal(matrix), support + matrix.sum(-2)), np.nan)


def _mean_over_present(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    present = matrix.sum(-1) > 0
    return _ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom as float64; NaN where bottom is 0."""
    bottom = np.asarray(bottom, dtype=np.float64)
    return np.asarray(top) / np.where(bottom == 0, np.nan, bottom)
