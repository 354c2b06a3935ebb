"""The one plot kit: panels, colours that mean the same in every figure, ticks, headings, legends, and files.

Colours: sparsity has one scale, compute another, and names (policies, laws, parts) a fixed cycle; what lies outside
the data behind a law is dashed and pale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.store import whole
from moesim.output.text import coordinate, count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "moesim",
}
_PANEL = (2.6, 2.2)  # inches
_SCALES = {"sparsity": ("viridis", 0.0, 0.76), "compute": ("plasma", 0.0, 0.76)}  # no lime or yellow: weak on white
# Colours that stay apart in grey and for most colour-blind readers (Okabe and Ito 2008), without yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8C510A")
_FIXED = {"static": "#000000", "split_feed": COLOURS[0], "eplb": COLOURS[1], "hybrid": COLOURS[2]}
_FIXED |= {"hybrid_feed": COLOURS[3]}
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1)), (0, (3, 2)), (0, (8, 2)))
_PALE = 0.45
_PER_INCH = 14  # characters of a heading
_LABELS = 6  # of a logarithmic axis


def grid_of_panels(
    rows: int, columns: int, panel: tuple[float, float] = _PANEL, **share: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows x columns panels (a list of rows) of about that size in inches.

    `share`: sharex, sharey as in matplotlib's subplots.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(panel[0] * columns + 0.6, 4.6), panel[1] * rows + 1.2), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, **share)
    return figure, [list(row) for row in panels]


def panels_for(n: int, panel: tuple[float, float] = _PANEL, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure with n panels in at most five columns and as few blanks as can be; the blanks are hidden."""
    columns = min(range(min(n, 3), min(n, 5) + 1), key=lambda c: (-n % c, -c))
    figure, panels = grid_of_panels(-(-n // columns), columns, panel, **share)
    flat = [axes for row in panels for axes in row]
    for axes in flat[n:]:
        axes.set_visible(False)
    for axes in flat[n - columns : n]:
        axes.tick_params(labelbottom=True)
    return figure, flat[:n]


def colours(scale: str, values: Any) -> dict[float, Any]:
    """Value -> colour on the scale of `sparsity` or `compute`, dark to light, by rank among all values of the axis."""
    ordered, shades = np.unique(values), colour_map(scale)
    return {float(v): shades(c) for v, c in zip(ordered, np.linspace(0, 1, len(ordered)), strict=True)}


def colour_map(scale: str) -> Any:
    """The scale of `sparsity` or `compute` as a matplotlib colour map."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    name, low, high = _SCALES[scale]
    return ListedColormap(colormaps[name](np.linspace(low, high, 256)))


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Name -> colour; the policies of the study have theirs in every figure, other names take those that are free."""
    fixed = {name: _FIXED[name] for name in names if name in _FIXED}
    free = [colour for colour in COLOURS if colour not in fixed.values()] or list(COLOURS)
    others = [name for name in names if name not in fixed]
    return fixed | {name: free[i % len(free)] for i, name in enumerate(others)}


def spread(values: Any, most: int) -> list[float]:
    """At most `most` of the values, evenly spread, first and last kept."""
    values = np.atleast_1d(values)
    index = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [float(v) for v in values[index]]


def how_many(name: str, shown: Sequence[Any], values: Any) -> str:
    """'5 of 9 budgets shown' where not all are, else nothing."""
    n = np.size(values)
    return f"{len(shown)} of {n} {name} shown" if len(shown) < n else ""


def curve(axes: Axes, x: Any, y: Any, outside: Any = False, **style: Any) -> None:
    """A line, dashed and pale where `outside`; with a `draw` dim its median and the central 90 % as a band."""
    if "draw" in getattr(y, "dims", ()):
        low, middle, high = (y.quantile(q, "draw").values for q in (0.05, 0.5, 0.95))
        axes.fill_between(x, low, high, color=style.get("color"), alpha=0.15, lw=0)
        outside, y = (outside.mean("draw") > 0.5 if hasattr(outside, "dims") else outside), middle
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    out = np.broadcast_to(np.asarray(outside, dtype=bool), y.shape)
    beside = out | np.append(out[1:], False) | np.append(False, out[:-1])  # the dashes begin where the line ends
    axes.plot(x, np.where(out, np.nan, y), **style)
    if out.any():
        axes.plot(x, np.where(beside, y, np.nan), **{**style, "ls": (0, (3, 2)), "alpha": _PALE, "label": None})


def point(axes: Axes, x: Any, y: Any, outside: Any, marker: str, size: float, colour: Any) -> None:
    """A marker on a curve: filled inside the data, hollow outside."""
    face = "white" if bool(outside) else colour
    edge = colour if bool(outside) else "white"
    axes.plot(x, y, marker, ms=size, color=face, mec=edge, mew=1.0, zorder=4)


def sparsity_axis(axes: Axes, sparsities: Any) -> None:
    """x is 1/(1 - S), logarithmic, with ticks at those of the sparsities that have room."""
    values = np.unique(np.asarray(sparsities, dtype=float))
    place = -np.log1p(-values)
    room, kept = 0.1 * max(np.ptp(place), 1e-9), []
    for i in np.argsort(np.minimum(np.arange(len(values)), np.arange(len(values))[::-1]), kind="stable"):
        if all(abs(place[i] - place[k]) > room for k in kept):
            kept.append(i)
    shown = values[sorted(kept)]
    axes.set_xscale("log")
    fixed_ticks(axes.xaxis, per_active(shown), map(plain, shown))


def per_active(sparsity: Any) -> Any:
    """Experts for each active one, 1/(1 - S): equal steps in its logarithm are equal factors of total parameters."""
    return 1.0 / (1.0 - sparsity)


def titled(axes: Axes, text: str) -> None:
    """A panel's title."""
    axes.set_title(text, fontsize=9)


def tick(value: float) -> str:
    """A number at an axis: 1e-5, 0.5, 20, 3B, 1e20."""
    return count(value) if abs(value) >= 1 else plain(value)


def log_ticks(axis: Any) -> None:
    """Labels of a logarithmic axis that stay apart: whole powers over many decades, 1-2-5 over few, else even steps."""
    ticks = _ticks_between(*sorted(axis.get_view_interval()))
    fixed_ticks(axis, ticks, map(tick, ticks))


def fixed_ticks(axis: Any, places: Any, labels: Iterable[str] | None = None) -> None:
    """Ticks at these places and nowhere else, named by their values or by `labels`."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(list(map(tick, places) if labels is None else labels)))
    axis.set_minor_locator(NullLocator())


def _ticks_between(low: float, high: float) -> list[float]:
    powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 6), ((1,), 12)):
        ticks = np.array([s * 10.0**p for p in powers[powers % every == 0] for s in steps])
        ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
        if len(ticks) <= _LABELS:
            break
    if len(ticks) >= 3:
        return ticks.tolist()
    from matplotlib.ticker import MaxNLocator

    return [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high and t > 0]


def label(figure: Figure, x: str, y: str = "") -> None:
    """The label of all x axes, below the lowest panels, and one for all y axes."""
    for axes in figure.axes:
        if x and axes.get_visible() and axes.xaxis.get_tick_params()["labelbottom"]:
            axes.set_xlabel(x)
    if y:
        figure.supylabel(y, fontsize=9)


def heading(dataset: xr.Dataset, *names: str) -> str:
    """What the dataset rests on, from its attributes and single coordinates: 'law abnar2025, excess total'."""
    told = {name: dataset.attrs[name] for name in names if name in dataset.attrs and name not in dataset.dims}
    return ", ".join(f"{name.replace('_', ' ')} {coordinate(name, value)}" for name, value in told.items())


def finish(figure: Figure, title: str, note: str = "", legend: Mapping[str, Any] | None = None, of: str = "") -> Figure:
    """The heading on top, a note on what marks mean, one legend below for all panels, and ticks that stay apart.

    `legend`: label -> handle; by default what the panels have. `of` says what the entries are.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log" and not isinstance(axis.get_major_formatter(), _fixed()):
                log_ticks(axis)
    lines = [line for text in (title, note) for line in wrap(text, int(_PER_INCH * figure.get_figwidth()))]
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left")
    found = dict(legend if legend is not None else _entries(figure))
    if found:
        wide = max(map(len, found)) * 0.075 + 0.55  # inches of an entry
        columns = max(1, min(len(found), int(figure.get_figwidth() / wide)))
        style = {"title": of or None, "title_fontsize": 8, "fontsize": 8, "ncols": columns, "frameon": False}
        figure.legend(found.values(), found.keys(), loc="outside lower center", **style)
    return figure


def _fixed() -> Any:
    from matplotlib.ticker import FixedFormatter

    return FixedFormatter


def _entries(figure: Figure) -> dict[str, Any]:
    pairs = (axes.get_legend_handles_labels() for axes in figure.axes)
    found: dict[str, Any] = {}
    for handles, labels in pairs:
        found |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in found}
    return found


def line_entry(**style: Any) -> Any:
    """A legend entry that no panel has a line of its own for."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def write_figures(figures: Mapping[str, Figure], directory: str | Path) -> list[Path]:
    """Each figure as NAME.png (150 dpi) and NAME.svg; returns all paths. The layout is worked out once for both."""
    import matplotlib

    written = []
    for name, figure in figures.items():
        with matplotlib.rc_context(_STYLE):
            figure.set_dpi(150)  # text is wider at some resolutions
            if engine := figure.get_layout_engine():
                engine.execute(figure)
                figure.set_layout_engine(None)  # done: an engine would have the figure drawn once more for each file
            for suffix in ("png", "svg"):
                written.append(Path(directory) / f"{name}.{suffix}")
                with whole(written[-1]) as path:
                    date = {"Date": None} if suffix == "svg" else None
                    figure.savefig(path, format=suffix, dpi=figure.dpi, metadata=date)
    return written
