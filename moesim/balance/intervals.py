"""What seeds say: a mean with its 95 % t interval, and a verdict that waits until the interval leaves zero."""

from __future__ import annotations

import numpy as np


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95 % t interval over seeds."""
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    if n < 2 or not np.isfinite(values).all():
        return mean, 0.0
    return mean, float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))


def verdicts(gaps: np.ndarray) -> np.ndarray:
    """-1 where the claim's loss is lower, 1 where higher, 0 where the 95 % interval over seeds (axis 0) holds zero."""
    from scipy.special import stdtrit

    n = len(gaps)
    mean = gaps.mean(axis=0)
    half = stdtrit(n - 1, 0.975) * gaps.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(mean.shape, np.inf)
    return np.where(np.abs(mean) > half, np.sign(mean), 0).astype(int)
