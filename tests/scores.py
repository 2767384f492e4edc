"""Cohen's kappa, a score that the package does not have: what adding one takes is a function and one line."""

import numpy as np

from facerwkv.core.metrics import Metric


def kappa(matrix: np.ndarray) -> np.ndarray:
    """Agreement beyond chance of confusion matrices (..., C, C), at most 1; NaN where chance alone agrees always."""
    total = np.asarray(matrix.sum((-2, -1)), dtype=np.float64)
    observed = np.trace(matrix, axis1=-2, axis2=-1) / total
    expected = (matrix.sum(-1) * matrix.sum(-2)).sum(-1) / total**2
    return (observed - expected) / np.where(expected == 1, np.nan, 1 - expected)


KAPPA = Metric("kappa", kappa, ".3f")
