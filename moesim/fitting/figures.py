"""The figures of `moesim fit`: predictions against observations, isoFLOP curves with runs, profiles, draws of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.judge import active_of, compute_of
from moesim.fitting.profile import rise_of
from moesim.fitting.saved import fit_of
from moesim.output.plots import COLOURS, colour_map, curve, finish, grid_of_panels, label, panels_for, titled
from moesim.variables import SIZES, VARIABLES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from moesim.fitting.result import Fit

_INSIDE, _OUTSIDE = COLOURS[:2]
_CURVES, _PAIRS, _NAMED = 7, 6, 6  # shown at most: budgets, pairs of coefficients, rows by number
_FAR = 8.0  # usual scatters: beyond, a run is named
_STRAY = 0.005  # share of the draws at each end that may lie outside the panel


def draw(given: Fit | xr.Dataset) -> dict[str, Figure]:
    """Every figure that the fit, or its Dataset, has the means for, by file name."""
    fit = _fit(given)
    drawn = {"predictions": predictions(fit)}
    if _has_isoflops(fit):
        drawn["isoflop"] = isoflop(fit)
    if fit.allocated:
        drawn["allocation"] = allocation(fit)
    if fit.profiles is not None and fit.task.parameters.free:
        drawn["profiles"] = profiles(fit)
    if fit.draws is not None and fit.identification.trade_offs():
        drawn["trade_offs"] = trade_offs(fit)
    return drawn


def _fit(given: Fit | xr.Dataset) -> Fit:
    return fit_of(given) if hasattr(given, "dims") else given  # type: ignore[arg-type, return-value]


def predictions(given: Fit | xr.Dataset) -> Figure:
    """Left: predicted against observed loss. Right: relative residuals. Held-out runs in colour, far ones by row."""
    fit = _fit(given)
    observed, predicted = fit.observed, fit.predict(fit.runs)[fit.task.target.predicts].values
    figure, panels = grid_of_panels(1, 2, (3.4, 2.8))
    left, right = panels[0]
    off = 100.0 * (predicted / observed - 1.0)
    span = np.array([min(observed.min(), predicted.min()), max(observed.max(), predicted.max())])
    left.plot(span, span, color="0.5", lw=0.8, zorder=1)
    right.axhline(0.0, color="0.5", lw=0.8, zorder=1)
    for chosen, colour, name in ((~fit.outside, _INSIDE, "fitted"), (fit.outside, _OUTSIDE, "held out")):
        if chosen.any():
            style = {"s": 12, "color": colour, "alpha": 0.7, "lw": 0, "zorder": 2}
            left.scatter(observed[chosen], predicted[chosen], label=f"{name} ({chosen.sum()} runs)", **style)
            right.scatter(observed[chosen], off[chosen], **style)
    scatter = 1.4826 * np.median(np.abs(off - np.median(off)))
    far = np.flatnonzero(np.abs(off - np.median(off)) > max(_FAR * scatter, 1e-9))
    for i in far[np.argsort(-np.abs(off[far]))][:_NAMED]:
        right.annotate(
            f"row {fit.runs['row'].values[i]}", (observed[i], off[i]), (4, 0), textcoords="offset points", fontsize=7
        )
    what = _fitted(fit)
    left.set(xscale="log", yscale="log", xlabel=f"observed {what}", ylabel=f"predicted {what}")
    right.set(xscale="log", xlabel=f"observed {what}", ylabel="predicted / observed - 1 (%)")
    note = f"named: more than {_FAR:g} times the usual scatter" if len(far) else ""
    return finish(figure, _title(fit), note)


def _fitted(fit: Fit) -> str:
    """What is fitted, with its unit."""
    row = VARIABLES[fit.task.target.predicts]
    return fit.task.target.predicts + (f" ({row.unit})" if row.unit != "1" else "")


def _has_isoflops(fit: Fit) -> bool:
    """Whether loss over size at fixed compute is one curve: nothing but size and tokens varies between the runs."""
    inputs, runs = fit.task.target.inputs, fit.runs
    sizes = [name for name in inputs if name in SIZES]
    others = [name for name in inputs if name not in SIZES and name != "tokens"]
    varied = any(np.ptp(runs[name].values) > 0 for name in others)
    return len(sizes) == 1 and "tokens" in inputs and "compute" in runs and not varied


def isoflop(given: Fit | xr.Dataset) -> Figure:
    """Loss against size with fitted curves of some budgets, their bands, and every run in its budget's colour."""
    from matplotlib.colors import LogNorm

    fit, shades = _fit(given), colour_map("compute")
    if not _has_isoflops(fit):
        raise InputError("isoflop of a fit: its runs vary in more than compute, size and tokens; see predictions")
    runs, size = fit.runs, next(name for name in fit.task.target.inputs if name in SIZES)
    compute, sizes, loss = runs["compute"].values, runs[size].values, runs["loss"].values
    norm = LogNorm(compute.min(), compute.max())
    figure, panels = grid_of_panels(1, 1, (5.4, 3.4))
    axes = panels[0][0]
    for budget in np.exp(np.quantile(np.log(compute), np.linspace(0.03, 0.97, _CURVES))):
        _budget_curve(fit, axes, size, float(budget), shades(norm(budget)))
    dots = axes.scatter(sizes, loss, c=compute, norm=norm, cmap=shades, s=12, lw=0.3, edgecolor="white", zorder=3)
    bar = figure.colorbar(dots, ax=axes, label="compute (FLOP)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    margin = 0.1 * (loss.max() - loss.min())
    axes.set(xscale="log", yscale="log", xlabel=size.replace("_", " ").replace("params", "parameters"))
    axes.set(ylabel="loss (nat/token)", ylim=(loss.min() - margin, loss.max() + margin))
    bands = "; bands: 90 % confidence of the curve (bootstrap)" if fit.draws is not None else ""
    return finish(figure, _title(fit), f"dots: runs; curves: where runs of about that compute lie{bands}")


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


def allocation(given: Fit | xr.Dataset) -> Figure:
    """How to spend a budget: the best size, tokens and sparsity over compute, with intervals and the runs."""
    fit = _fit(given)
    plan = {name: np.asarray(values[1]) for name, values in fit.allocated.items() if isinstance(values, tuple)}
    if not plan:
        raise InputError("allocation: the law takes no size and tokens; there is nothing to choose")
    own = _spent(fit)
    names = {"active_params": "active parameters", "tokens": "tokens", "tokens_per_param": "tokens / active parameter"}
    shown = [f"optimal_{name}" for name in names] + (["best_sparsity"] if "best_sparsity" in plan else [])
    figure, flat = panels_for(len(shown), sharex=True)
    for axes, name in zip(flat, shown, strict=True):
        low, high = plan[f"{name}_interval"].T
        outside = plan[f"{name.split('_')[0]}_extrapolated"]
        axes.fill_between(plan["budget"], low, high, color=_INSIDE, alpha=0.2, lw=0)
        curve(axes, plan["budget"], plan[name], outside, color=_INSIDE, marker="o", ms=3)
        if name in own:
            axes.scatter(own["compute"], own[name], s=5, color="0.6", lw=0, zorder=1)
        share = {"yscale": "linear", "ylim": (0.0, 1.02)} if name == "best_sparsity" else {"yscale": "log"}
        axes.set(xscale="log", ylabel=names.get(name.removeprefix("optimal_"), "best sparsity"), **share)
    label(figure, "compute (FLOP)", "")
    slopes = ", ".join(f"{symbol}* ~ C^{fit.allocated[f'exponent_{n}'][2]['estimate']:.3f}" for symbol, n in _SLOPES)
    mixed = f" at sparsity {fit.allocated['allocation_sparsity']:.3g}" if "allocation_sparsity" in fit.allocated else ""
    said = f"{slopes}{mixed}; bands: {fit.level:.0%} intervals; grey: the runs; dashed: outside them"
    return finish(figure, _title(fit), said)


_SLOPES = (("N", "params"), ("D", "tokens"))


def _spent(fit: Fit) -> dict[str, np.ndarray]:
    """What the runs spent their compute on, by the names of the panels; empty where they do not say."""
    params, tokens = active_of(fit.runs), fit.runs["tokens"].values
    if params is None:
        return {}
    spent = {"active_params": params, "tokens": tokens, "tokens_per_param": tokens / params}
    return {"compute": compute_of(fit.runs, "allocation")} | {f"optimal_{n}": v for n, v in spent.items()}


def profiles(given: Fit | xr.Dataset) -> Figure:
    """For each free coefficient, how far the objective rises when the coefficient is held and the others follow.

    The rise is in units of that which ends the interval, 1; a bar below shows the bootstrap's interval.
    """
    fit = _fit(given)
    found, parameters = fit.profiles, fit.task.parameters
    if found is None:
        raise InputError("profiles: the fit has none; fit with profiles=True")
    entries = np.flatnonzero(found.done).tolist()
    figure, flat = panels_for(len(entries), sharey=True)
    for axes, j in zip(flat, entries, strict=False):
        _profile(fit, axes, j, parameters.free[j], parameters.transforms[j])
    label(figure, "", "rise of the objective")
    said = f"{fit.level:.0%} profile interval: below the dashed line; orange: bootstrap, an arrow where it goes on"
    return finish(figure, _title(fit), said)


def _profile(fit: Fit, axes: Axes, j: int, name: str, move: Any) -> None:
    found = fit.profiles
    if found is None:
        return
    rise = max(rise_of(fit.task, fit.optimum.x, fit.level, found.scale, found.freedom)[j], 1e-300)
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
        bar = np.array(fit.interval(method="bootstrap")[name])
        room = np.ptp(shown)  # for a bar that reaches further, but not to where an unidentified one ends
        ends = np.clip(bar, shown.min() - room, shown.max() + room)
        axes.plot(ends, [-0.12, -0.12], color=_OUTSIDE, lw=3, solid_capstyle="butt")
        for end, whole, arrow in zip(ends, bar, "<>", strict=True):
            axes.plot(end, -0.12, arrow, color=_OUTSIDE, ms=6, alpha=float(end != whole))
        shown = np.append(shown, ends)
    if shown.min() > 0 and shown.max() > 20 * shown.min():
        axes.set(xscale="log", xlim=(shown.min() / 1.15, shown.max() * 1.15))
    else:
        room = 0.06 * max(np.ptp(shown), 1e-300)
        axes.set_xlim(shown.min() - room, shown.max() + room)
        axes.locator_params(axis="x", nbins=4)
    axes.set_ylim(-0.25, 2.2)
    unit = fit.task.target.coefficients[name].unit
    axes.set_xlabel(name + (f" ({unit})" if unit != "1" else ""))


def _between(x: np.ndarray, root: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """A fine line through the signed roots of the rise, which are nearly straight, as (x, |root|)."""
    signed = np.where(x < middle, -root, root)
    grid = np.linspace(x.min(), x.max(), 200)
    return grid, np.interp(grid, x, signed)


def trade_offs(given: Fit | xr.Dataset) -> Figure:
    """Draws of the pairs of coefficients that trade off most strongly, with the estimate."""
    fit = _fit(given)
    pairs = fit.identification.trade_offs()[:_PAIRS]
    if fit.draws is None or not pairs:
        raise InputError("trade_offs: the fit has no draws, or no coefficients that trade off; see identified")
    natural = fit.task.parameters.natural(fit.draws.x[fit.draws.usable])
    figure, flat = panels_for(len(pairs))
    for axes, (one, other, correlation) in zip(flat, pairs, strict=True):
        axes.scatter(natural[one], natural[other], s=4, color=_INSIDE, alpha=0.25, lw=0, rasterized=True)
        axes.plot(fit.estimate[one], fit.estimate[other], "+", color=_OUTSIDE, ms=9, mew=1.6)
        for which, name in (("x", one), ("y", other)):
            low, high = np.quantile(natural[name], [_STRAY, 1 - _STRAY])
            log = low > 0 and high > 3 * low
            room = (high / low) ** 0.08 if log else 0.08 * (high - low)
            ends = (low / room, high * room) if log else (low - room, high + room)
            axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}lim": ends, f"{which}label": name})
            if not log:
                getattr(axes, f"{which}axis").get_major_locator().set_params(nbins=4)
        titled(axes, f"correlation {correlation:+.3f}")
    note = f"dots: {int(fit.draws.usable.sum())} bootstrap draws, the central 99 % shown; cross: estimate"
    return finish(figure, _title(fit), note)


def draw_comparison(fits: Mapping[str, Fit]) -> dict[str, Figure]:
    """Residuals of several fits of the same runs, one panel each, by file name."""
    figure, flat = panels_for(len(fits), sharex=True, sharey=True)
    predicted = {name: fit.predict(fit.runs)[fit.task.target.predicts].values for name, fit in fits.items()}
    residuals = {name: 100.0 * (predicted[name] / fit.observed - 1.0) for name, fit in fits.items()}
    limit = 1.15 * np.quantile(np.abs(np.concatenate(list(residuals.values()))), 0.99)
    for axes, (name, fit) in zip(flat, fits.items(), strict=False):
        observed, off = fit.observed, np.clip(residuals[name], -limit, limit)
        beyond = int(np.sum(np.abs(residuals[name]) > limit))
        axes.axhline(0.0, color="0.5", lw=0.8)
        for chosen, colour in ((~fit.outside, _INSIDE), (fit.outside, _OUTSIDE)):
            axes.scatter(observed[chosen], off[chosen], s=8, color=colour, alpha=0.6, lw=0)
        axes.set(xscale="log", ylim=(-1.05 * limit, 1.05 * limit))
        titled(axes, f"{name} ({beyond} beyond)" if beyond else name)
    label(figure, f"observed {_fitted(next(iter(fits.values())))}", "predicted / observed - 1 (%)")
    held = any(fit.outside.any() for fit in fits.values())
    note = "blue: fitted, orange: held out" if held else ""
    return {"comparison": finish(figure, f"residuals of {len(fits)} fits", note)}


def compared(dataset: xr.Dataset) -> Figure:
    """A multirun of fits in one figure: every coefficient with its interval, a row for each fit that is done."""
    dims = [str(dim) for dim in dataset.job_status.dims]
    jobs = dataset.stack(job=dims)
    jobs = jobs.isel(job=(jobs.job_status == "done").values)
    labels = [", ".join(map(str, np.atleast_1d(one))) for one in jobs.job.values.tolist()]
    names, place = list(dataset.coefficient.values), np.arange(len(labels))
    figure, flat = panels_for(len(names), (2.3, 0.26 * len(labels) + 0.9), sharey=True)
    for axes, name in zip(flat, names, strict=True):
        value = jobs.estimate.sel(coefficient=name).values
        low, high = (jobs.interval.sel(coefficient=name, bound=end).values for end in ("low", "high"))
        axes.hlines(place, low, high, color=_OUTSIDE, lw=2)
        axes.plot(value, place, "o", ms=5, color=_INSIDE)
        axes.set_xlabel(str(name))
        axes.locator_params(axis="x", nbins=3)
    flat[0].set_yticks(place, labels)
    flat[0].set_ylim(len(labels) - 0.5, -0.5)
    return finish(
        figure, f"fits by {', '.join(dims)}", f"dots: estimates; bars: {float(jobs.level.max()):.0%} intervals"
    )


def _title(fit: Fit) -> str:
    wrapped = fit.task.target.repetition.name
    law = fit.task.target.title if wrapped == "none" else f"{fit.task.target.title} with {wrapped}"
    return f"{law} on {fit.runs.attrs.get('runs', 'runs')}"
