"""The figures of `moesim fit`: predictions against observations, isoFLOP curves with runs, profiles, draws of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.fitting.profile import rise_of
from moesim.output.plots import grid_of_panels, label
from moesim.output.text import plain
from moesim.variables import SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from moesim.fitting.result import Fit

_INSIDE, _OUTSIDE = "#31688e", "#d95f02"
_CURVES, _PAIRS, _COLUMNS = 7, 6, 3


def draw(fit: Fit) -> dict[str, Figure]:
    """Every figure that the fit has the means for, by file name."""
    drawn = {"predictions": predictions(fit)}
    if _has_isoflops(fit):
        drawn["isoflop"] = isoflop(fit)
    if fit.profiles is not None and fit.task.parameters.free:
        drawn["profiles"] = profiles(fit)
    if fit.draws is not None and fit.identification.trade_offs():
        drawn["trade_offs"] = trade_offs(fit)
    return drawn


def predictions(fit: Fit) -> Figure:
    """Left: predicted against observed loss. Right: relative residuals. Held-out runs in colour."""
    observed, predicted = fit.runs["loss"].values, fit.predict(fit.runs)["loss"].values
    figure, panels = grid_of_panels(1, 2)
    left, right = panels[0]
    span = np.array([min(observed.min(), predicted.min()), max(observed.max(), predicted.max())])
    left.plot(span, span, color="0.5", lw=0.8, zorder=1)
    right.axhline(0.0, color="0.5", lw=0.8, zorder=1)
    for chosen, colour, name in ((~fit.outside, _INSIDE, "fitted"), (fit.outside, _OUTSIDE, "held out")):
        if chosen.any():
            style = {"s": 12, "color": colour, "alpha": 0.7, "lw": 0, "zorder": 2}
            left.scatter(observed[chosen], predicted[chosen], label=f"{name} ({chosen.sum()} runs)", **style)
            right.scatter(observed[chosen], 100.0 * (predicted / observed - 1.0)[chosen], **style)
    for axes in (left, right):
        axes.set(xscale="log", xlabel="observed loss (nat/token)")
        _plain_log(axes.xaxis)
    left.set(yscale="log", ylabel="predicted loss (nat/token)")
    _plain_log(left.yaxis)
    right.set(ylabel="predicted / observed - 1 (%)")
    left.legend(fontsize=8, loc="upper left")
    figure.suptitle(_title(fit), fontsize=9)
    return figure


def _has_isoflops(fit: Fit) -> bool:
    """Whether loss over size at fixed compute is one curve: nothing but size and tokens varies between the runs."""
    inputs, runs = fit.task.target.inputs, fit.runs
    sizes = [name for name in inputs if name in SIZES]
    others = [name for name in inputs if name not in SIZES and name != "tokens"]
    varied = any(np.ptp(runs[name].values) > 0 for name in others)
    return len(sizes) == 1 and "tokens" in inputs and "compute" in runs and not varied


def isoflop(fit: Fit) -> Figure:
    """Loss against size with fitted curves of some budgets, their bands, and every run in its budget's colour."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    runs, size = fit.runs, next(name for name in fit.task.target.inputs if name in SIZES)
    compute, sizes, loss = runs["compute"].values, runs[size].values, runs["loss"].values
    norm = LogNorm(compute.min(), compute.max())
    figure, panels = grid_of_panels(1, 1)
    axes = panels[0][0]
    figure.set_size_inches(5.4, 3.6)
    for budget in np.exp(np.quantile(np.log(compute), np.linspace(0.03, 0.97, _CURVES))):
        _budget_curve(fit, axes, size, float(budget), colormaps["viridis"](norm(budget)))
    dots = axes.scatter(sizes, loss, c=compute, norm=norm, cmap="viridis", s=12, lw=0.3, edgecolor="white", zorder=3)
    bar = figure.colorbar(dots, ax=axes, label="compute (FLOP)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    margin = 0.06 * (loss.max() - loss.min())
    axes.set(xscale="log", yscale="log", xlabel=size.replace("_", " ").replace("params", "parameters"))
    axes.set(ylabel="loss (nat/token)", ylim=(loss.min() - margin, loss.max() + margin))
    _plain_log(axes.yaxis)
    figure.suptitle(_title(fit), fontsize=9)
    return figure


def _budget_curve(fit: Fit, axes: Axes, size: str, budget: float, colour: Any) -> None:
    """The curve where runs of about that budget lie, and a little beyond."""
    runs = fit.runs
    compute = runs["compute"].values
    near = np.abs(np.log(compute / budget)) < 1.0
    sizes = runs[size].values[near] if near.any() else runs[size].values
    grid = np.geomspace(sizes.min() / 1.5, sizes.max() * 1.5, 80)
    per_token = float(np.median(compute / runs["tokens"].values / runs[size].values))
    fixed = {n: np.full(80, runs[n].values[0]) for n in fit.task.target.inputs if n not in (size, "tokens")}
    line = fit.predict({size: grid, "tokens": budget / per_token / grid, **fixed}, level=0.9)
    axes.plot(grid, line["loss"], color=colour, lw=1.2, zorder=2)
    if "confidence" in line:
        axes.fill_between(grid, *line["confidence"].values.T, color=colour, alpha=0.2, lw=0, zorder=1)


def profiles(fit: Fit) -> Figure:
    """For each free coefficient, how far the objective rises when the coefficient is held and the others follow.

    The rise is in units of that which ends the interval, 1; a bar below shows the bootstrap's interval.
    """
    found, parameters = fit.profiles, fit.task.parameters
    if found is None:
        raise ValueError("the fit has no profiles")
    entries = np.flatnonzero(found.done).tolist()
    columns = min(_COLUMNS, len(entries))
    figure, panels = grid_of_panels(-(-len(entries) // columns), columns, sharey=True)
    flat = [axes for row in panels for axes in row]
    for axes, j in zip(flat, entries, strict=False):
        _profile(fit, axes, j, parameters.free[j], parameters.transforms[j])
    for axes in flat[len(entries) :]:
        axes.set_visible(False)
    label(figure, "coefficient", "rise of the objective")
    said = f"{fit.level:.0%} profile interval: below the dashed line; bar: bootstrap"
    figure.suptitle(f"{_title(fit)}\n{said}", fontsize=9)
    return figure


def _profile(fit: Fit, axes: Axes, j: int, name: str, move: Any) -> None:
    found = fit.profiles
    if found is None:
        return
    rise = max(rise_of(fit.task, fit.optimum.x, fit.level, found.scale)[j], 1e-300)
    height = (found.objective[j] - fit.objective) / rise
    known = np.isfinite(height) & found.solved[j]
    smooth = _between(found.points[j][known], np.sqrt(np.maximum(height[known], 0.0)), fit.optimum.x[j])
    with np.errstate(over="ignore"):
        axes.plot(move.forward(smooth[0]), smooth[1] ** 2, color=_INSIDE)
    axes.plot(move.forward(found.points[j][known]), height[known], ".", ms=4, color=_INSIDE)
    axes.axhline(1.0, color="0.4", lw=0.8, ls="--")
    axes.axvline(fit.estimate[name], color="0.4", lw=0.8)
    shown = move.forward(found.points[j][known][height[known] < 2.5])
    if fit.draws is not None:
        bar = fit.interval(method="bootstrap")[name]
        axes.plot(bar, [-0.12, -0.12], color=_OUTSIDE, lw=3, solid_capstyle="butt")
        room = np.ptp(shown)  # for a bar that reaches further, but not to where an unidentified one ends
        shown = np.append(shown, np.clip(bar, shown.min() - room, shown.max() + room))
    axes.set(ylim=(-0.25, 2.2), xlim=(shown.min(), shown.max() + 0.04 * np.ptp(shown)))
    axes.set_title(name, fontsize=9)
    if shown.min() > 0 and shown.max() > 20 * shown.min():
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=4)


def _between(x: np.ndarray, root: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """A fine line through the signed roots of the rise, which are nearly straight, as (x, |root|)."""
    signed = np.where(x < middle, -root, root)
    grid = np.linspace(x.min(), x.max(), 200)
    return grid, np.interp(grid, x, signed)


def trade_offs(fit: Fit) -> Figure:
    """Draws of the pairs of coefficients that trade off most strongly, with the estimate."""
    pairs = fit.identification.trade_offs()[:_PAIRS]
    if fit.draws is None:
        raise ValueError("the fit has no draws")
    natural = fit.task.parameters.natural(fit.draws.x[fit.draws.usable])
    columns = min(_COLUMNS, len(pairs))
    figure, panels = grid_of_panels(-(-len(pairs) // columns), columns)
    flat = [axes for row in panels for axes in row]
    for axes, (one, other, correlation) in zip(flat, pairs, strict=False):
        axes.scatter(natural[one], natural[other], s=4, color=_INSIDE, alpha=0.25, lw=0, rasterized=True)
        axes.plot(fit.estimate[one], fit.estimate[other], "+", color=_OUTSIDE, ms=9, mew=1.6)
        for axis, name in ((axes.set_xscale, one), (axes.set_yscale, other)):
            if natural[name].min() > 0 and natural[name].max() > 3 * natural[name].min():
                axis("log")
        axes.set(xlabel=one, ylabel=other)
        axes.set_title(f"correlation {correlation:+.3f}", fontsize=9)
    for axes in flat[len(pairs) :]:
        axes.set_visible(False)
    figure.suptitle(f"{_title(fit)}: {int(fit.draws.usable.sum())} bootstrap draws", fontsize=9)
    return figure


def draw_comparison(fits: Mapping[str, Fit]) -> dict[str, Figure]:
    """Residuals of several fits of the same runs, one panel each, by file name."""
    columns = min(_COLUMNS, len(fits))
    figure, panels = grid_of_panels(-(-len(fits) // columns), columns, sharex=True, sharey=True)
    flat = [axes for row in panels for axes in row]
    residuals = {name: 100.0 * (f.predict(f.runs)["loss"] / f.runs["loss"] - 1.0).values for name, f in fits.items()}
    limit = 1.15 * np.quantile(np.abs(np.concatenate(list(residuals.values()))), 0.99)
    for axes, (name, fit) in zip(flat, fits.items(), strict=False):
        observed, off = fit.runs["loss"].values, np.clip(residuals[name], -limit, limit)
        beyond = int(np.sum(np.abs(residuals[name]) > limit))
        axes.axhline(0.0, color="0.5", lw=0.8)
        for chosen, colour in ((~fit.outside, _INSIDE), (fit.outside, _OUTSIDE)):
            axes.scatter(observed[chosen], off[chosen], s=8, color=colour, alpha=0.6, lw=0)
        axes.set(xscale="log", ylim=(-1.05 * limit, 1.05 * limit))
        axes.set_title(f"{name} ({beyond} beyond)" if beyond else name, fontsize=9)
        _plain_log(axes.xaxis)
    for axes in flat[len(fits) :]:
        axes.set_visible(False)
    label(figure, "observed loss (nat/token)", "predicted / observed - 1 (%)")
    held = any(fit.outside.any() for fit in fits.values())
    figure.suptitle("residuals" + (": blue fitted, orange held out" if held else ""), fontsize=9)
    return {"comparison": figure}


def _plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis of less than two decades as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(MaxNLocator(6) if high < 6 * low else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _title(fit: Fit) -> str:
    wrapped = fit.task.target.repetition.name
    law = fit.task.target.title if wrapped == "none" else f"{fit.task.target.title} with {wrapped}"
    return f"{law} on {fit.runs.attrs.get('runs', 'runs')}"
