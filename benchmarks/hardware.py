"""Fits the constants of the hardware wing to the published rows and writes every residual to docs/hardware.md.

python benchmarks/hardware.py          # the table of residuals, with the constants as they are
python benchmarks/hardware.py --fit    # also what a fit gives, and what it predicts for a row it has not seen
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from moesim.hardware.published import (
    Residual,
    StepRow,
    exchange_residuals,
    gemm_residuals,
    other_residuals,
    step_residuals,
    step_rows,
)
from moesim.hardware.release import RELEASES, Release, release_of

TEXT = """# How far the hardware wing is from what has been published

Written by `benchmarks/hardware.py`. A step has five constants per release of the software, shared by all chips, models
and precisions; `left out` is the error of a row under constants fitted to all others. Software alone moves a row 1.56x
between releases, so a time without its release means little.
"""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "hardware.md"
# What the constants are taken to be before any row is seen, and the standard deviation of their logarithms: rows as
# of grouped products in `KERNELS`, core as FlashAttention reports, the rest within a factor 2 to 3.
PRIOR = Release(rows=950.0, core=0.55, passes=3.0, exposed=0.4, launches=200.0)
WIDTH = (0.5, 0.25, 0.6, 0.6, 1.0)
# A later release is taken to be like the one before.
CHANGE = (0.3, 0.15, 0.5, 0.5, 0.7)
SCATTER = 0.12  # of the rows, in logarithms


def constants(release: Release) -> np.ndarray:
    """The logarithms of the constants."""
    return np.log(np.array(astuple(release)[:5], dtype=float))


def fitted(rows: Sequence[StepRow], prior: Release, width: Sequence[float]) -> Release:
    """The constants that the rows and the prior make most likely."""
    names, centre = list(Release.__dataclass_fields__)[:5], constants(prior)

    def release(x: np.ndarray) -> Release:
        return replace(prior, **dict(zip(names, np.exp(x).tolist(), strict=True)))

    def misses(x: np.ndarray) -> np.ndarray:
        of_rows = [np.log1p(row.residual(release(x)).error) / SCATTER for row in rows]
        return np.concatenate([of_rows, (x - centre) / np.asarray(width)])

    return release(least_squares(misses, centre).x)


def fit_all(rows: Sequence[StepRow]) -> dict[str, Release]:
    """The constants of every release in turn, each starting from the one before."""
    out, prior, width = {}, PRIOR, WIDTH
    for name, there in RELEASES.items():
        out[name] = fitted([row for row in rows if release_of(row.release) is there], prior, width)
        prior, width = out[name], CHANGE
    return out


def left_out(rows: Sequence[StepRow]) -> list[float]:
    """The error of each row under constants fitted to all others."""
    errors = []
    for i, row in enumerate(rows):
        made = fit_all([*rows[:i], *rows[i + 1 :]])
        name = next(name for name, there in RELEASES.items() if release_of(row.release) is there)
        errors.append(row.residual(made[name]).error)
    return errors


def table(residuals: Sequence[Residual], unit: str, more: Sequence[float] | None = None) -> list[str]:
    """Rows of Markdown, and a line that sums them up."""
    head = ["of", "row", f"measured, {unit}", "formula", "error", *(["left out"] if more is not None else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for i, row in enumerate(residuals):
        cells = [row.group, row.name, f"{row.measured:.4g}", f"{row.predicted:.4g}", f"{row.error:+.0%}"]
        lines.append("| " + " | ".join([*cells, *([f"{more[i]:+.0%}"] if more is not None else [])]) + " |")
    return [*lines, "", summary([row.error for row in residuals])]


def summary(errors: Sequence[float]) -> str:
    """Median, share within 20 % and largest of absolute errors."""
    size = np.abs(errors)
    return f"Median {np.median(size):.1%}, within 20 %: {np.mean(size <= 0.2):.0%}, largest {size.max():.0%}."


def main() -> None:
    rows = step_rows()
    if "--fit" in sys.argv:
        for name, release in fit_all(rows).items():
            print(name, release)
    unseen = left_out(rows)
    parts = {
        "Training steps": [*table(step_residuals(), "TFLOP/s", unseen), "Left out: " + summary(unseen)],
        "Steps of other software (nothing is fitted to them)": table(other_residuals(), "TFLOP/s"),
        "Matrix products": table(gemm_residuals(), "TFLOP/s"),
        "All-to-all": table(exchange_residuals(), "GB/s"),
    }
    text = [
        "# How far the hardware wing is from what has been published",
        "",
        "Written by `benchmarks/hardware.py`.",
        "",
    ]
    for title, lines in parts.items():
        text += [f"## {title}", "", *lines, ""]
    PAGE.write_text("\n".join(text))
    print(*(f"{title}: {lines[-1]}" for title, lines in parts.items()), sep="\n")


if __name__ == "__main__":
    main()
