"""The figures of `moesim sweep`: isoFLOP curves, optima against sparsity or a coefficient, models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.output.plots import (
    COLOURS,
    colours,
    curve,
    finish,
    grid_of_panels,
    heading,
    how_many,
    label,
    line_entry,
    panels_for,
    per_active,
    point,
    sparsity_axis,
    spread,
    titled,
)
from moesim.output.text import coordinate, count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = ("compute", "unique_tokens", "sparsity", "experts", "active_params", "total_params", "draw")
_ABOUT = ("law", "repetition", "excess", "taught", "architecture")
_BUDGETS, _DATA, _SPARSITIES = 5, 3, 8  # shown at most
_ALIKE = 0.01  # of the range of losses: lines that come nearer are drawn in different widths
_HEADROOM = 0.6  # of the range of the optima, shown above them
_SPARSITY = "sparsity S, scaled as log 1/(1 - S)"
_PALE = "dashed and pale: outside the data behind the law, the repetition or what its excess is measured by"


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the dims for, by file name."""
    dataset = dataset[_own(dataset)]
    if named(dataset) and "tokens" in dataset.dims:
        return {"perplexity": perplexity(dataset)}
    if named(dataset):
        return {"comparison": comparison(dataset)} if "best_loss" in dataset else {}
    drawn = {}
    if swept(dataset) and "best_loss" in dataset:
        drawn["coefficient"] = coefficient(dataset)
    if "active_params" in dataset.dims and {"optimal_loss", "loss"} <= set(dataset):
        drawn["isoflop"] = isoflop(dataset)
    if "optimal_loss" in dataset and dataset.sizes.get("sparsity", 0) > 1:
        drawn["sparsity"] = sparsity(dataset)
    return drawn


def _own(dataset: xr.Dataset) -> list[str]:
    """The variables of the model itself, without those of the band of readings beside it."""
    return [str(name) for name in dataset.data_vars if not str(name).startswith("reading_")]


def named(dataset: xr.Dataset) -> list[str]:
    """The dims whose labels are names: laws, repetitions, readings side by side."""
    own = {dim for name in _own(dataset) for dim in dataset[name].dims}
    return [str(d) for d in dataset.dims if d in own and d in dataset.coords and dataset[d].dtype.kind in "UO"]


def swept(dataset: xr.Dataset) -> list[str]:
    """The dims of numbers that are not axes of the space: swept coefficients and fields, the longest first."""
    own = dataset[_own(dataset)]
    dims = [str(dim) for dim in own.dims if dim not in (*AXES, *named(own))]
    return sorted(dims, key=lambda dim: -dataset.sizes[dim])


def isoflop(dataset: xr.Dataset) -> Figure:
    """Loss against active parameters: columns are budgets, rows unique data, lines sparsities, dots their optima.

    `dataset`: of `moesim.sweep` along active_params, with optima.
    """
    _needs("isoflop", dataset, "loss", "optimal_loss", dim="active_params")
    data, note = _plottable(dataset, ("compute", "unique_tokens", "sparsity", "active_params"), "")
    budgets, uniques = spread(data["compute"], _BUDGETS), spread(data.unique_tokens, _DATA)
    lines, shades = spread(data.sparsity, _SPARSITIES), colours("sparsity", data.sparsity)
    figure, panels = grid_of_panels(len(uniques), len(budgets), sharex=True, sharey="row")
    for row, unique in zip(panels, uniques, strict=True):
        for axes, budget in zip(row, budgets, strict=True):
            cell = data.sel(compute=budget, unique_tokens=unique)
            for value in lines:
                _isoflop_line(axes, cell.sel(sparsity=value), shades[value], f"S = {plain(value)}")
            if row is panels[0]:
                titled(axes, f"C = {plain(budget)} FLOP")
        best = data.optimal_loss.sel(unique_tokens=unique, compute=budgets)
        low, room = float(best.min()), max(float(best.max() - best.min()), 0.1)
        row[0].set(xscale="log", ylim=(low - 0.08 * room, low + (1 + _HEADROOM) * room))
        row[0].set(xlim=(data.active_params.min(), data.active_params.max()), ylabel=_data(unique))
    label(figure, "active parameters", "loss (nat/token)")
    shown = how_many("budgets", budgets, data["compute"])
    return finish(figure, _title(dataset, note, shown), f"dots: optima; hollow, {_PALE}", of="sparsity")


def _isoflop_line(axes: Axes, line: xr.Dataset, colour: Any, text: str) -> None:
    curve(axes, line.active_params, line.loss, line.extrapolated, color=colour, label=text)
    best = line[["optimal_active_params", "optimal_loss", "optimal_extrapolated"]].astype(float)
    best = best.median("draw") if "draw" in best.dims else best
    point(axes, best.optimal_active_params, best.optimal_loss, best.optimal_extrapolated, "o", 5, colour)


_AGAINST = (
    ("loss", "loss (nat/token)", "linear"),
    ("active_params", "active parameters", "log"),
    ("epochs", "epochs", "log"),
)


def sparsity(dataset: xr.Dataset) -> Figure:
    """Optimal loss, active parameters and epochs against sparsity: a line for each budget, a row for each unique data.

    `dataset`: of `moesim.sweep` or `moesim.optimum` along sparsity.
    """
    _needs("sparsity", dataset, "optimal_loss", dim="sparsity")
    data, note = _plottable(dataset, ("compute", "unique_tokens", "sparsity"))
    budgets, uniques = spread(data["compute"], _BUDGETS), spread(data.unique_tokens, _DATA)
    limited = [unique for unique in uniques if np.isfinite(unique)]
    rows = _AGAINST if limited else _AGAINST[:2]
    figure, panels = grid_of_panels(len(uniques), len(rows), (3.0, 2.2), sharex=True)
    shades = colours("compute", data["compute"])
    for row, unique in zip(panels, uniques, strict=True):
        for axes, (name, text, scale) in zip(row, rows, strict=True):
            if name == "epochs" and np.isinf(unique):
                axes.set_visible(False)
                continue
            for budget in budgets:
                cell = data.sel(compute=budget, unique_tokens=unique)
                _against_sparsity(axes, cell, name, color=shades[budget], label=f"C = {plain(budget)} FLOP")
            if len(budgets) == 1 and f"parabola_{name}" in data:
                read = data[f"parabola_{name}"].sel(compute=budgets[0], unique_tokens=unique)
                read = read.median("draw") if "draw" in read.dims else read
                axes.plot(per_active(read.sparsity), read, "x", ms=5, color="0.3")
            axes.set(yscale=scale, ylabel=text)
            titled(axes, _data(unique))
            axes.tick_params(labelbottom=True)
    sparsity_axis(panels[0][0], data.sparsity)
    label(figure, _SPARSITY)
    star = "" if "draw" in dataset.dims or "best_loss" not in dataset else "stars: best sparsity; "
    cross = "crosses: as parabolas would read it; " if len(budgets) == 1 and "parabola_epochs" in data else ""
    shown = how_many("budgets", budgets, data["compute"])
    return finish(figure, _title(dataset, note, shown), f"{star}{cross}hollow, {_PALE}")


def _against_sparsity(axes: Axes, cell: xr.Dataset, name: str, star: bool = True, **style: Any) -> None:
    """A line of optima against sparsity, led through the star of the best sparsity."""
    x, y, out = cell.sparsity, cell[f"optimal_{name}"], cell.optimal_extrapolated
    if "draw" in cell.dims or f"best_{name}" not in cell:
        curve(axes, per_active(x), y, out, **style)
        return
    best, value = float(cell.best_sparsity), float(cell[f"best_{name}"])
    if np.isfinite(value):
        x, y, out = np.append(x, best), np.append(y, value), np.append(out, bool(cell.best_extrapolated))
    order = np.argsort(x, kind="stable")
    curve(axes, per_active(np.asarray(x)[order]), np.asarray(y)[order], np.asarray(out)[order], **style)
    dots = {"ls": "none", "marker": ".", "ms": 4, "color": style["color"]}
    axes.plot(per_active(cell.sparsity), cell[f"optimal_{name}"], **dots)
    if star:
        point(axes, per_active(best), value, cell.best_extrapolated, "*", 11, style["color"])


_OF_COEFFICIENT = (
    ("sparsity", "best sparsity S", "linear"),
    ("loss", "loss at the best S (nat/token)", "linear"),
    ("active_params", "active parameters there", "log"),
)


def coefficient(dataset: xr.Dataset) -> Figure:
    """The best sparsity, its loss and its active parameters against a swept coefficient: a line for each budget.

    `dataset`: of `moesim.sweep` or `moesim.optimum` of a model with a coefficient or field as an axis.
    """
    _needs("coefficient", dataset, "best_loss")
    across = (swept(dataset) or [""])[0]
    if not across:
        raise InputError(f"coefficient: the dims {', '.join(map(str, dataset.dims))} have no swept coefficient")
    data, note = _plottable(dataset, ("compute", "unique_tokens", across), "best_")
    moves = data.best_loss.max(across) > data.best_loss.min(across)
    moves = moves.any([dim for dim in moves.dims if dim != "unique_tokens"])
    data = data.sel(unique_tokens=moves) if moves.any() else data  # what unlimited data says is the same everywhere
    budgets, uniques = spread(data["compute"], _BUDGETS), spread(data.unique_tokens, _DATA)
    figure, panels = grid_of_panels(len(uniques), len(_OF_COEFFICIENT), (3.0, 2.2), sharex=True)
    shades, x = colours("compute", data["compute"]), data[across]
    for row, unique in zip(panels, uniques, strict=True):
        for axes, (name, text, scale) in zip(row, _OF_COEFFICIENT, strict=True):
            for budget in budgets:
                cell = data.sel(compute=budget, unique_tokens=unique)
                style = {"color": shades[budget], "label": f"C = {plain(budget)} FLOP"}
                curve(axes, x, cell[f"best_{name}"], cell.best_extrapolated, marker=".", ms=4, **style)
            axes.set(yscale=scale, ylabel=text)
            titled(axes, _data(unique))
            axes.tick_params(labelbottom=True)
    if float(x.min()) > 0 and float(x.max()) > 20 * float(x.min()):
        panels[0][0].set_xscale("log")
    label(figure, across)
    shown = how_many("budgets", budgets, data["compute"])
    return finish(figure, _title(dataset, note, shown), f"at the best sparsity; {_PALE}")


def comparison(dataset: xr.Dataset) -> Figure:
    """Optimal loss against sparsity of several models: a panel for each along the longest dim, a line along the others.

    With one dim, a panel for each budget. Grey: the first model with the most plentiful data. `dataset`: from
    `compare=`, or a collected multirun.
    """
    dims = named(dataset)
    _needs("comparison", dataset, "best_loss")
    if not dims:
        raise InputError("comparison: no dim of names; give a Dataset of several laws, repetitions or readings")
    data, note = _plottable(dataset, (*dims, "compute", "unique_tokens", "sparsity"))
    across, *others = sorted(dims, key=lambda dim: -dataset.sizes[dim]) if len(dims) > 1 else ["compute", *dims]
    data = data.dropna(across, how="all", subset=["optimal_loss"])  # of jobs that failed
    data, at, titles, shown = _along(data, across)
    figure, panels = panels_for(len(at), sharex=True, sharey=True)
    scarce, plenty = float(data.unique_tokens.min()), float(data.unique_tokens.max())
    stacks = [data.sel({across: value}).stack(line=others) for value in at]
    stacks = [lines.dropna("line", how="all", subset=["optimal_loss"]) for lines in stacks]  # jobs that failed
    alike = any(_alike(lines.optimal_loss.sel(unique_tokens=scarce).transpose("line", ...).values) for lines in stacks)
    for axes, lines, title in zip(panels, stacks, titles, strict=True):
        _compared(axes, lines, others, scarce, plenty, alike)
        titled(axes, title)
    sparsity_axis(panels[0], data.sparsity)
    label(figure, _SPARSITY, "loss (nat/token)")
    text = f"{_data(scarce)}; panels: {across}; stars: best sparsity; hollow, {_PALE}"
    return finish(figure, _title(dataset, note, shown), text, _with_base(figure, scarce, plenty), ", ".join(others))


def perplexity(dataset: xr.Dataset) -> Figure:
    """What sparsity changes in the best loss of runs of so many tokens: a panel for each count, a line for each model.

    `dataset`: from `compare=` with tokens instead of compute.
    """
    _needs("perplexity", dataset, "optimal_loss", dim="tokens")
    across = named(dataset)
    data, note = _plottable(dataset, (*across, "tokens", "sparsity"))
    counts = spread(data.tokens, _BUDGETS)
    figure, panels = panels_for(len(counts), (3.4, 2.6), sharex=True, sharey=True)
    for axes, tokens in zip(panels, counts, strict=True):
        lines = data.sel(tokens=tokens).stack(line=across)
        n = lines.sizes["line"]
        for i in range(n):
            line = lines.isel(line=i)
            change = line.optimal_loss - line.optimal_loss.isel(sparsity=0)
            width = 5.0 - 3.5 * i / max(n - 1, 1)  # where the theorem is exact lines coincide, and stay visible so
            style = {"color": COLOURS[i % len(COLOURS)], "marker": ".", "ms": 4, "lw": width}
            text = ", ".join(str(line[name].item()) for name in across)
            curve(axes, per_active(line.sparsity), change, line.optimal_extrapolated, label=text, **style)
        titled(axes, f"{count(tokens)} tokens")
    sparsity_axis(panels[0], data.sparsity)
    label(figure, _SPARSITY, f"loss less that at S = {plain(data.sparsity.values[0])} (nat/token)")
    return finish(
        figure, _title(dataset, note, how_many("counts of tokens", counts, data.tokens)), _PALE, of=", ".join(across)
    )


def _along(data: xr.Dataset, across: str) -> tuple[xr.Dataset, list[Any], list[str], str]:
    """The data, and the values and titles of the panels along a dim; at the middle budget unless budgets are it."""
    budgets = data["compute"]
    if across == "compute":
        at = spread(budgets, _BUDGETS)
        return data, at, [f"C = {plain(v)} FLOP" for v in at], how_many("budgets", at, budgets)
    middle = float(budgets[budgets.size // 2])
    shown = ", ".join(filter(None, (f"C = {plain(middle)} FLOP", how_many("budgets", [middle], budgets))))
    return data.sel(compute=middle), list(data[across].values), list(map(str, data[across].values)), shown


def _compared(axes: Axes, lines: xr.Dataset, dims: Sequence[str], scarce: float, plenty: float, alike: bool) -> None:
    n = lines.sizes["line"]
    if n and plenty > scarce:
        base = lines.isel(line=0).sel(unique_tokens=plenty)
        axes.plot(per_active(base.sparsity), base.optimal_loss, color="0.7", lw=1, zorder=1)
    lines = lines.sel(unique_tokens=scarce)
    for i in range(n):
        line = lines.isel(line=i)
        text = ", ".join(f"{line[dim].item()}" for dim in dims)
        width = 5.0 - 3.5 * i / max(n - 1, 1) if alike else 1.5  # coinciding lines stay visible
        _against_sparsity(axes, line, "loss", color=COLOURS[i % len(COLOURS)], label=text, lw=width)


def _alike(losses: np.ndarray) -> bool:
    """Whether two of the lines (line, ...) nearly coincide somewhere."""
    if len(losses) < 2:
        return False
    apart = np.abs(np.diff(np.sort(losses, axis=0), axis=0))
    return bool(np.nanmin(apart) < _ALIKE * np.nanmax(np.ptp(losses, axis=1)))


def _with_base(figure: Figure, scarce: float, plenty: float) -> dict[str, Any]:
    entries = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    return entries | ({_data(plenty): line_entry(color="0.7", lw=1)} if plenty > scarce else {})


def _plottable(dataset: xr.Dataset, dims: tuple[str, ...], prefix: str = "optim") -> tuple[xr.Dataset, str]:
    """Variables best_*, parabola_*, PREFIX* with all `dims` (scalars become axes), and in words what else was chosen.

    `draw` is kept; of any other dim it is the middle value.
    """
    dataset = dataset[[name for name in dataset.data_vars if str(name).startswith(("best_", "parabola_", prefix))]]
    missing = [dim for dim in dims if dim not in dataset.dims]
    scalars = {"sparsity": 0.0, "unique_tokens": np.inf}
    data = dataset.assign_coords({dim: scalars[dim] for dim in missing if dim not in dataset.coords})
    others = {str(dim): n // 2 for dim, n in data.sizes.items() if dim not in (*dims, "draw")}
    data = data.isel(others)
    many = {d: f" ({n} values)" * (n > 1) for d, n in dataset.sizes.items()}
    told = [f"{d} = {coordinate(d, data[d].item())}{many[d]}" for d in others if d in data.coords]
    return data.expand_dims(missing), ", ".join(told)


def _needs(figure: str, dataset: xr.Dataset, *variables: str, dim: str | None = None) -> None:
    lacking = [name for name in variables if name not in dataset]
    if dim is not None and dim not in dataset.dims:
        lacking.append(f"dim {dim}")
    if lacking:
        raise InputError(f"{figure}: the Dataset has no {', no '.join(lacking)}; it takes one of moesim.sweep with it")


def _title(dataset: xr.Dataset, *notes: str) -> str:
    return "; ".join(filter(None, (heading(dataset, *_ABOUT), *notes)))


def _data(unique: float) -> str:
    return "unlimited data" if np.isinf(unique) else f"{count(unique)} unique tokens"
