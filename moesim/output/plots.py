"""What every figure shares: panels, colours, legends, and writing them as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.store import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "svg.hashsalt": "moesim",
}
_PANEL = (2.6, 2.3)  # inches


def grid_of_panels(rows: int, columns: int, **share: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows x columns panels (a list of rows), and room on the right for a legend.

    `share`: sharex, sharey as in matplotlib's subplots.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        size = (_PANEL[0] * max(columns, 2) + 2.6, _PANEL[1] * rows + 0.7)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, **share)
    return figure, [list(row) for row in panels]


def colours(n: int) -> list[Any]:
    """n colours of one perceptually uniform scale, dark to light; legible on white."""
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.88, max(n, 1))))


def spread(values: Any, most: int) -> list[float]:
    """At most `most` of the values, evenly spread, first and last kept."""
    values = np.atleast_1d(values)
    index = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [float(v) for v in values[index]]


def band(axes: Axes, x: Any, y: Any, colour: Any, label: str, **style: Any) -> None:
    """A line; with a `draw` dim its median and the central 90 % of the draws as a band."""
    if "draw" in y.dims:
        low, middle, high = (y.quantile(q, "draw") for q in (0.05, 0.5, 0.95))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        y = middle
    axes.plot(x, y, color=colour, label=label, **style)


def label(figure: Figure, x: str, y: str = "") -> None:
    """One label for all x axes and one for all y axes."""
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)


def legend_right(figure: Figure, axes: Axes, title: str) -> None:
    """One legend for the whole figure, right of the panels, from the entries of one of them."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    style = {"title": title, "fontsize": 8, "title_fontsize": 8, "frameon": False}
    figure.legend(unique.values(), unique.keys(), loc="outside right center", **style)


def write_figures(figures: Mapping[str, Figure], directory: str | Path) -> list[Path]:
    """Each figure as NAME.png (150 dpi) and NAME.svg; returns the PNG paths."""
    import matplotlib

    written = []
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            with matplotlib.rc_context(_STYLE), whole(Path(directory) / f"{name}.{suffix}") as path:
                figure.savefig(path, format=suffix, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
        written.append(Path(directory) / f"{name}.png")
    return written
