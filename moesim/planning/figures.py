"""The figures of `moesim sweep`: isoFLOP curves, optima against sparsity, and models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.plots import band, colours, grid_of_panels, label, legend_right, spread
from moesim.output.text import count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPARED = ("law", "repetition", "excess", "architecture")
_STYLES = ("-", "--", ":", "-.")
_HEADROOM = 0.3  # nat/token shown above the highest optimum of a budget


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the dims for, by file name."""
    compared = [dim for dim in _COMPARED if dim in dataset.dims]
    if compared:
        return {"comparison": comparison(dataset, compared)} if "sparsity" in dataset.dims else {}
    drawn = {}
    if "active_params" in dataset.dims and "optimal_loss" in dataset:
        drawn["isoflop"] = isoflop(dataset)
    if "optimal_loss" in dataset and dataset.sizes.get("sparsity", 0) > 1:
        drawn["sparsity"] = against_sparsity(dataset)
    return drawn


def isoflop(dataset: xr.Dataset) -> Figure:
    """Loss against active parameters: columns are budgets, rows unique data, lines sparsities."""
    data = _plottable(dataset, ("compute", "unique_tokens", "sparsity", "active_params"))
    budgets, uniques, sparsities = spread(data["compute"], 5), spread(data.unique_tokens, 3), spread(data.sparsity, 8)
    figure, panels = grid_of_panels(len(uniques), len(budgets), sharex="col", sharey="col")
    for row, unique in enumerate(uniques):
        for column, budget in enumerate(budgets):
            cell, axes = data.sel(compute=budget, unique_tokens=unique), panels[row][column]
            for sparsity, colour in zip(sparsities, colours(len(sparsities)), strict=True):
                _curve(axes, cell.sel(sparsity=sparsity), colour, f"S = {plain(sparsity)}")
            optima = data.optimal_loss.sel(compute=budget)
            axes.set(xscale="log", ylim=(optima.min() - 0.05, optima.max() + _HEADROOM))
            axes.set_title(f"C = {plain(budget)} FLOP\n{_data(unique)}", fontsize=9)
    label(figure, "active parameters", "loss (nat/token)")
    legend_right(figure, panels[0][0], "sparsity; dots: optima")
    return figure


def _curve(axes: Axes, line: xr.Dataset, colour: Any, label: str) -> None:
    band(axes, line.active_params, line.loss, colour, label)
    best = line[["optimal_active_params", "optimal_loss"]]
    best = best.median("draw") if "draw" in best.dims else best
    axes.plot(best.optimal_active_params, best.optimal_loss, "o", ms=5, color=colour, mec="white", mew=0.7, zorder=3)


_AGAINST = (
    ("loss", "loss (nat/token)", "linear"),
    ("active_params", "active parameters", "log"),
    ("epochs", "epochs", "log"),
)


def against_sparsity(dataset: xr.Dataset) -> Figure:
    """Optimal loss, active parameters and epochs against sparsity: a colour for each budget, a style for each data."""
    data = _plottable(dataset, ("compute", "unique_tokens", "sparsity"))
    budgets, uniques = spread(data["compute"], 6), spread(data.unique_tokens, 4)
    figure, panels = grid_of_panels(1, 3)
    for axes, (name, text, scale) in zip(panels[0], _AGAINST, strict=True):
        for budget, colour in zip(budgets, colours(len(budgets)), strict=True):
            for unique, style in zip(uniques, _STYLES, strict=False):
                cell = data.sel(compute=budget, unique_tokens=unique)
                if name != "epochs" or np.isfinite(unique):
                    entry = f"C = {plain(budget)} FLOP, {_data(unique)}"
                    band(axes, _per_active(cell.sparsity), cell[f"optimal_{name}"], colour, entry, linestyle=style)
                    _star(axes, cell, f"best_{name}", colour)
        axes.set(yscale=scale, ylabel=text)
        _sparsity_axis(axes, data.sparsity)
    label(figure, "sparsity S, scaled as log 1/(1 - S)")
    legend_right(figure, panels[0][0], "stars: best sparsity")
    return figure


def comparison(dataset: xr.Dataset, compared: list[str]) -> Figure:
    """Optimal loss against sparsity, a panel for each choice along the longest compared dim, a colour along the next.

    Grey dashes: the most plentiful data of the space.
    """
    across, *others = sorted(compared, key=lambda dim: -dataset.sizes[dim])
    data = _plottable(dataset, (*compared, "compute", "unique_tokens", "sparsity"))
    cell = data.isel(compute=len(data["compute"]) // 2)
    scarce, plenty = float(data.unique_tokens.min()), float(data.unique_tokens.max())
    names = list(data[across].values)
    columns = min(4, len(names))
    figure, panels = grid_of_panels(-(-len(names) // columns), columns, sharey="all")
    flat = [axes for row in panels for axes in row]
    lines = cell.stack(line=others) if others else cell.expand_dims("line")
    for axes, name in zip(flat, names, strict=False):
        for i, colour in enumerate(colours(lines.sizes["line"])):
            line = lines.sel({across: name}).isel(line=i)
            text = ", ".join(f"{dim}: {line[dim].item()}" for dim in others) or across
            base = line.sel(unique_tokens=plenty)
            axes.plot(_per_active(data.sparsity), base.optimal_loss, "--", color="0.6", lw=1, zorder=1)
            line = line.sel(unique_tokens=scarce)
            width = 5.0 - 3.5 * i / max(lines.sizes["line"] - 1, 1)  # coinciding lines stay visible
            axes.plot(_per_active(data.sparsity), line.optimal_loss, color=colour, label=text, lw=width)
            _star(axes, line, "best_loss", colour)
        axes.set_title(f"{name}", fontsize=9)
        _sparsity_axis(axes, data.sparsity)
    for axes in flat[len(names) :]:
        axes.set_visible(False)
    label(figure, "sparsity S, scaled as log 1/(1 - S)", "loss (nat/token)")
    legend_right(
        figure, flat[0], f"C = {plain(cell['compute'])} FLOP, {_data(scarce)}\nstars: best; dashes: {_data(plenty)}"
    )
    return figure


def _plottable(dataset: xr.Dataset, dims: tuple[str, ...]) -> xr.Dataset:
    """All of `dims` present (scalars become axes of length 1), `draw` kept, the first value of any other dim."""
    missing = [dim for dim in dims if dim not in dataset.dims]
    scalars = {"sparsity": 0.0, "unique_tokens": np.inf}
    data = dataset.assign_coords({dim: scalars[dim] for dim in missing if dim not in dataset.coords})
    others = {dim: 0 for dim in data.dims if dim not in (*dims, "draw")}
    return data.isel(others).expand_dims(missing)


def _star(axes: Axes, cell: xr.Dataset, name: str, colour: Any) -> None:
    if name in cell and "draw" not in cell.dims:
        axes.plot(_per_active(cell.best_sparsity), cell[name], "*", ms=10, color=colour, mec="black", mew=0.6, zorder=4)


def _per_active(sparsity: Any) -> Any:
    return 1.0 / (1.0 - sparsity)


def _sparsity_axis(axes: Axes, sparsities: xr.DataArray) -> None:
    ticks = spread(sparsities, 7)
    axes.set_xscale("log")
    axes.set_xticks([_per_active(s) for s in ticks], [plain(s) for s in ticks], fontsize=8, rotation=45)
    axes.set_xticks([], minor=True)


def _data(unique: float) -> str:
    return "unlimited data" if np.isinf(unique) else f"U = {count(unique)} tokens"
