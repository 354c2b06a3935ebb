"""Numbers as a person reads them in tables and figures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def count(value: float) -> str:
    """A count in three digits with K, M, B or T: 1.23B; 'unlimited' for inf, '-' for NaN."""
    if not np.isfinite(value):
        return "unlimited" if value > 0 else "-"
    if abs(value) >= 0.9995e15:
        return plain(value)
    scale, letter = next(((s, p) for s, p in _PREFIXES if abs(value) >= 0.9995 * s), (1.0, ""))
    return f"{value / scale:.3g}{letter}"


def plain(value: Any) -> str:
    """A coordinate in four digits, 1e+20 as 1e20; names as they are."""
    return value if isinstance(value, str) else re.sub(r"e\+?(-?)0*", r"e\1", f"{float(value):.4g}")


def epochs(value: float) -> str:
    """Epochs in three digits; '<1' where not all unique tokens are seen once, '-' where they are unlimited."""
    return "-" if np.isnan(value) or value == 0 else "<1" if value < 0.995 else f"{value:.3g}"
