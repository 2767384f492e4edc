"""How well probabilities rank the images of each class: ROC and precision-recall, with their micro and macro average.

Of a class its images are the positives and all others the negatives. Micro: every (image, class) is one decision.
Macro: the mean over the classes that have positives and negatives. Values equal scikit-learn's roc_curve,
precision_recall_curve and average_precision_score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GRID = np.linspace(0, 1, 201)  # where curves are averaged


@dataclass(frozen=True, eq=False)
class Curve:
    """Points x and y, both (P,) in 0..1, and the area: of ROC below the curve, else the average precision."""

    x: np.ndarray
    y: np.ndarray
    area: float


def _counts(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at each distinct threshold, the highest first, from none on."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    right = np.cumsum(positive[order])[last]
    return np.append(0, right), np.append(0, last + 1 - right)


def roc(score: np.ndarray, positive: np.ndarray) -> Curve:
    """The share of positives found against that of false alarms, of scores and truths (N,)."""
    right, wrong = _counts(score, positive)
    x, y = wrong / wrong[-1], right / right[-1]
    return Curve(x, y, float(np.trapezoid(y, x)))


def precision_recall(score: np.ndarray, positive: np.ndarray) -> Curve:
    """Precision against recall; the area is the average precision, the sum of precisions at each rise of recall."""
    right, wrong = _counts(score, positive)
    recall, precision = right / right[-1], np.append(1, right[1:] / (right[1:] + wrong[1:]))
    return Curve(recall, precision, float((np.diff(recall) * precision[1:]).sum()))


def curves(probs: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """The ROC and the precision-recall curves: of the micro and macro average, then of each class that is defined.

    probs (N, C), targets (N,). Empty where only one class occurs.
    """
    truth = np.arange(len(labels)) == targets[:, None]
    shown = [index for index in range(len(labels)) if 0 < truth[:, index].sum() < len(targets)]
    if not shown:
        return {}, {}
    found = []
    for draw in (roc, precision_recall):
        each = {labels[index]: draw(probs[:, index], truth[:, index]) for index in shown}
        micro = draw(probs[:, shown].ravel(), truth[:, shown].ravel())
        y = np.mean([np.interp(GRID, curve.x, curve.y) for curve in each.values()], axis=0)
        macro = Curve(GRID, y, float(np.mean([curve.area for curve in each.values()])))
        found.append({"micro average": micro, "macro average": macro, **each})
    return found[0], found[1]
