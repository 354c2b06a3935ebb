"""Which run next: the one, or the few, that would narrow a quantity most for their cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.identify import NOT_IDENTIFIED, WEAK
from moesim.fitting.judge import compute_of
from moesim.fitting.predict import given, losses, scatter
from moesim.hardware.chip import chip_of
from moesim.output.text import coordinate
from moesim.variables import FRACTION, POSITIVE, REAL, SIZES, check

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit


def next_runs(fit: Fit, candidates: Any, target: Any, cost: Any, count: int) -> xr.Dataset:
    """See `Fit.next_runs`."""
    import xarray as xr

    inputs, template = given(fit.task, candidates)
    if fit.draws is None:
        raise InputError("next_runs: the fit has no draws; fit with draws=1000")
    lines = _lines(fit, inputs)
    noise = (np.std(fit.task.centred(fit.optimum.x)) * scatter(fit, inputs)) ** 2
    wanted, price = _target(fit, target), _cost(inputs, cost)
    lines, wanted = lines - lines.mean(axis=0), wanted - wanted.mean()
    if not np.var(wanted) > 0:
        raise InputError("next_runs: the target does not vary between draws; there is nothing to narrow")
    narrowed = _gain(lines, wanted, noise) / np.var(wanted)
    order, left = _greedy(lines, wanted, noise, price, min(count, lines.shape[1]))
    rank = np.zeros(lines.shape[1], int)
    rank[order] = np.arange(1, len(order) + 1)
    found = {"variance_reduction": narrowed, "cost": price, "reduction_per_cost": narrowed / price, "order": rank}
    data = {name: (template.dims, values.reshape(template.shape)) for name, values in found.items()}
    data |= {name: (template.dims, values.reshape(template.shape)) for name, values in inputs.items()}
    return xr.Dataset(data, attrs={"left_after_ranked": left})


def _lines(fit: Fit, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What each draw predicts for runs, on the scale of the residuals: (draws, runs)."""
    lines = losses(fit.task, fit.task.target.at(inputs), fit.usable_x())
    lines = np.log(lines) if fit.task.objective.log else lines
    return np.where(np.isfinite(lines).all(axis=0), lines, 0.0)  # a run without a loss in some draw tells nothing


def _target(fit: Fit, target: Any) -> np.ndarray:
    """The quantity in each draw: a coefficient, a quantity at a budget, the loss of runs, or values of the draws."""
    x = fit.usable_x()
    if isinstance(target, str):
        if target not in fit.task.parameters.free:
            free = ", ".join(fit.task.parameters.free)
            takes = f"a free coefficient ({free}), a run, (quantity, compute), or draws"
            raise InputError(f"next_runs: target={target!r}; it takes {takes}")
        return x[:, fit.task.parameters.free.index(target)]
    if isinstance(target, Mapping):
        return _lines(fit, given(fit.task, target)[0]).mean(axis=1)
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], str):
        return _at_budget(fit, *target)
    values = np.asarray(check("next_runs", "target", target, REAL))
    if values.shape != (len(x),):
        raise InputError(f"next_runs: target has shape {values.shape}; it takes one value for each of {len(x)} draws")
    return values


def _at_budget(fit: Fit, quantity: str, compute: float) -> np.ndarray:
    """A quantity of `Fit.allocation` at a budget, in each draw; its log where it is a number of things."""
    plan = fit.allocation(compute=[compute])
    names = [str(name) for name, values in plan.data_vars.items() if set(values.dims) == {"compute", "draw"}]
    if quantity not in names:
        raise InputError(f"next_runs: target={quantity!r} at a budget; it takes one of {', '.join(names)}")
    values = plan[quantity].values.ravel().astype(float)
    values = np.log(values) if quantity.endswith(("params", "tokens")) else values
    return np.where(np.isnan(values), np.nanmean(values), values)


def _cost(inputs: Mapping[str, np.ndarray], cost: Any) -> np.ndarray:
    """Cost of each candidate: given, or its FLOPs, or with a chip its hours on it."""
    n = len(next(iter(inputs.values())))
    if cost is None or isinstance(cost, Mapping):
        return compute_of(inputs, "next_runs") / (1.0 if cost is None else _per_hour(cost))
    price = np.ravel(check("next_runs", "cost", cost, POSITIVE))
    if len(price) not in (1, n):
        raise InputError(
            f"next_runs: {len(price)} values of cost for {n} candidates; give one for each, or one for all"
        )
    return np.broadcast_to(price, n)


def _per_hour(cost: Mapping[str, Any]) -> float:
    """FLOPs of an hour of {chip: NAME, utilisation: SHARE}."""
    if set(cost) != {"chip", "utilisation"}:
        raise InputError(f"next_runs: cost={dict(cost)}; it takes numbers, or {{'chip': 'h100', 'utilisation': 0.4}}")
    share = check("next_runs", "utilisation", cost["utilisation"], FRACTION)
    return 3600.0 * share * chip_of(cost["chip"]).flops


def _gain(lines: np.ndarray, wanted: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """By how much a run of each candidate would lower the variance of the wanted quantity, were all normal."""
    together = wanted @ lines / len(wanted)
    return together**2 / (np.mean(lines**2, axis=0) + noise)


def _greedy(
    lines: np.ndarray, wanted: np.ndarray, noise: np.ndarray, price: np.ndarray, count: int
) -> tuple[list[int], float]:
    """(candidates in the order in which they narrow most for their cost, each given those before, and the share of the
    variance that is left after them)."""
    order, start = [], np.var(wanted)
    for _ in range(count):
        worth = _gain(lines, wanted, noise) / price
        worth[order] = -1.0
        best = int(np.argmax(worth))
        order.append(best)
        line = lines[:, best]
        total = np.mean(line**2) + noise[best]
        # as the mean and covariance of a normal distribution shrink when one more noisy value is seen
        shrink = 1.0 - np.sqrt(noise[best] / total)
        size = max(np.mean(line**2), 1e-300)
        wanted = wanted - shrink * (wanted @ line / len(line)) / size * line
        lines = lines - shrink * np.outer(line, line @ lines / len(line)) / size
    return order, float(np.var(wanted) / start)


_FEWEST = 50  # draws from which their spread says where they disagree
_STEPS = 6  # values of each input among the candidates
_BEYOND = 3.0  # how far they go beyond the runs
_SHARES = (0.0, 0.5, 0.75, 0.9, 0.95)


def advice(fit: Fit) -> tuple[str, ...]:
    """For coefficients that the runs do not determine well: the run, no dearer than the dearest one, that would tell.

    One line for each such run. Empty without draws, or where runs do not tell their compute.
    """
    doubtful = [n for n, word in fit.verdict.items() if word in (WEAK, NOT_IDENTIFIED)]
    if not doubtful or len(fit.usable_x()) < _FEWEST:
        return ()
    runs = _candidates(fit)
    if runs is None:
        return ()
    told: dict[str, list[str]] = {}
    for name in doubtful:
        if not np.ptp(_target(fit, name)) > 0:
            continue
        found = fit.next_runs(runs, name, cost=1.0)
        best, share = int(np.argmax(found["variance_reduction"].values)), float(found["variance_reduction"].max())
        run = ", ".join(f"{n} {coordinate(n, float(values[best]))}" for n, values in runs.items())
        told.setdefault(run, []).append(f"{name} by {share:.0%}")
    return tuple(f"a run at {run} would narrow the variance of {', '.join(names)}" for run, names in told.items())


def _candidates(fit: Fit) -> dict[str, np.ndarray] | None:
    """Runs on a grid around those of the fit, none dearer than the dearest; None where compute is unknown."""
    inputs = {name: fit.task.inputs[name] for name in fit.task.target.inputs}
    grid = np.meshgrid(*(_levels(name, values) for name, values in inputs.items()), indexing="ij")
    runs = {name: values.ravel() for name, values in zip(inputs, grid, strict=True)}
    try:
        price, most = compute_of(runs, "advice"), compute_of(fit.runs, "advice").max()
    except InputError:
        return None
    affordable = price <= most * (1 + 1e-9)
    return {name: values[affordable] for name, values in runs.items()} if affordable.any() else None


def _levels(name: str, values: np.ndarray) -> np.ndarray:
    """Values of an input that a further run may take."""
    if name in (*SIZES, "tokens", "unique_tokens", "compute"):
        return np.geomspace(values.min() / _BEYOND, values.max() * _BEYOND, _STEPS)
    own = np.unique(values)
    shares = np.array(_SHARES) if name == "sparsity" else own
    return np.union1d(own[np.linspace(0, len(own) - 1, min(len(own), _STEPS)).astype(int)], shares[:_STEPS])
