"""Speed of fitting against its peers, as ratios within one run, in one table with what was aimed at.

    python benchmarks/fitting.py

On the Chinchilla points (5 coefficients, 240 runs), 85 of them, and a synthetic abnar2025 table (10 coefficients, 400
runs). The peers: `scipy.optimize.least_squares` with an analytic Jacobian, started at the estimate; Hoffmann et al.'s
grid of starts by L-BFGS-B with finite differences; and the exponent grid of variable projection (99 x 99 exponents, the
three linear coefficients by ten rounds of reweighted least squares, Huber of the raw loss), here in NumPy, and the
package vpnls (its grid is compiled) where it is installed. Times are CPU times, the least of a few. Each line also says
by how much the two ends differ.
"""

import itertools
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import xarray as xr
from scipy.optimize import least_squares, minimize

import moesim
from moesim.fitting.bootstrap import bootstrap
from moesim.fitting.model import target_of
from moesim.fitting.profile import profile
from moesim.fitting.solve import Rows, solve
from moesim.fitting.task import optimum
from moesim.fitting.uncertainty import spread


def milliseconds(call, repeats=5):
    """(least CPU time of a few, what the call returned)."""
    best, out = np.inf, None
    for _ in range(repeats):
        start = time.process_time()
        out = call()
        best = min(best, time.process_time() - start)
    return best * 1e3, out


def line(what, ours, peer="", theirs=None, target="", gap=None):
    """One line of the table; times in ms, the gap is that of the peer's objective above ours."""
    ratio = "" if theirs is None else f"{theirs / ours:.1f}x"
    told = "" if theirs is None else f"{theirs:.3g}"
    ends = "" if gap is None else f"{gap:+.0e}"
    print(f"{what:46s}{ours:9.3g}  {peer:24s}{told:>9s}{ratio:>8s}  {target:18s}{ends}", flush=True)


def abnar_runs(n=400, noise=0.003):
    """Synthetic runs of abnar2025, sparsities of the paper, log-normal scatter."""
    rng, target = np.random.default_rng(0), target_of("abnar2025")
    inputs = {
        "total_params": 10 ** rng.uniform(7.5, 10.0, n),
        "tokens": 10 ** rng.uniform(9.0, 11.5, n),
        "sparsity": rng.choice([0.0, 0.25, 0.5, 0.75, 0.9, 0.95], n),
    }
    loss = target.at(inputs)(target.known) * np.exp(noise * rng.standard_normal(n))
    columns = {name: ("run", values) for name, values in {**inputs, "loss": loss}.items()}
    return xr.Dataset(columns, coords={"row": ("run", np.arange(n))})


def chinchilla_by_hand(runs):
    """Residual and Jacobian of the Chinchilla form, written by hand as in the published replications."""
    log_n, log_d, log_loss = (np.log(runs[name].values) for name in ("total_params", "tokens", "loss"))

    def parts(p):
        a, b, e, alpha, beta = p
        size, data = np.exp(a - alpha * log_n), np.exp(b - beta * log_d)
        return size, data, np.full_like(size, np.exp(e))

    def residual(p):
        return np.log(sum(parts(p))) - log_loss

    def jacobian(p):
        size, data, floor = parts(p)
        columns = [size, data, floor, -size * log_n, -data * log_d]
        return np.stack(columns, axis=1) / (size + data + floor)[:, None]

    return residual, jacobian


def through_task(fit):
    """Residual and exact Jacobian of any fit, in its transformed coefficients."""
    task = fit.task
    return lambda x: task.residuals(x[None])[0], task.effects


def bootstraps(name, fit, start, residual, jacobian, draws=4000, sample=30, target=""):
    """Refits of resamples: all in one batch, and some of the same one by one with least_squares."""
    task, rng = fit.task, np.random.default_rng(0)
    took, _ = milliseconds(lambda: bootstrap(task, fit.optimum.x, draws, "pairs", np.random.default_rng(1)))
    times = rng.multinomial(len(task.loss), np.full(len(task.loss), 1 / len(task.loss)), sample)
    picks = [np.repeat(np.arange(len(task.loss)), row) for row in times]

    def one_by_one():
        settings = {"loss": "huber", "f_scale": 1e-3, "x_scale": "jac"}
        return [
            least_squares(lambda p, i=i: residual(p)[i], start, lambda p, i=i: jacobian(p)[i], **settings).cost
            for i in picks
        ]

    took_scipy, costs = milliseconds(one_by_one, 3)
    rows = Rows(task.rows.observed, times.astype(float))
    ours = solve(task.problem, np.repeat(fit.optimum.x[None], sample, 0), rows).objective
    gap = np.max(np.array(costs) / ours - 1)
    line(f"{name}: one of {draws} bootstraps", took / draws, "warm least_squares", took_scipy / sample, target, gap)


def grid_of_starts(fit, runs, sample=20):
    """Hoffmann et al.'s 4500 starts as one batch, against L-BFGS-B with finite differences on some of them."""
    grid = np.array(
        list(itertools.product(*[np.linspace(0, 25, 6)] * 2, np.linspace(-1, 1, 5), *[np.linspace(0, 2, 5)] * 2))
    )
    task, (A, B, E) = fit.task, np.exp(grid[:, :3].T)
    x = task.parameters.many_x_of({"A": A, "B": B, "E": E, "alpha": grid[:, 3], "beta": grid[:, 4]})
    took, found = milliseconds(lambda: solve(task.problem, x, task.rows, tolerance=1e-11), 1)
    residual, _ = chinchilla_by_hand(runs)

    def objective(p):
        with np.errstate(all="ignore"):
            return np.sum(task.objective.rho(residual(p))[0])

    some = grid[np.random.default_rng(0).choice(len(grid), sample, replace=False)]
    took_scipy, others = milliseconds(lambda: [minimize(objective, p, method="L-BFGS-B").fun for p in some], 1)
    reached = np.mean(found.objective <= fit.objective * (1 + 1e-6))
    best = np.mean(np.array(others) <= fit.objective * (1 + 1e-3))
    line("chinchilla: one of a grid of 4500 starts", took / len(x), "L-BFGS-B", took_scipy / sample)
    print(f"    {reached:.0%} of the starts reach the best optimum to 1e-6; of L-BFGS-B's {best:.0%} to 1e-3")


def projected_grid(runs, delta=1e-3, rounds=10, step=0.01):
    """The lowest sum of Huber's function of the raw loss over a grid of exponents, E, A, B solved for, none below 0."""
    log_n, log_d, loss = np.log(runs.total_params.values), np.log(runs.tokens.values), runs.loss.values
    exponents, best = 0.01 + step * np.arange(99), np.inf
    data = np.exp(-exponents[:, None] * log_d)
    for alpha in exponents:  # one row of the grid at a time, so that its arrays stay in the cache
        columns = np.stack(np.broadcast_arrays(1.0, np.exp(-alpha * log_n), data), axis=1)
        off = loss - _linear(columns, loss, np.ones_like(data))
        for _ in range(rounds):
            off = loss - _linear(columns, loss, delta / np.maximum(np.abs(off), delta))
        size = np.minimum(np.abs(off), delta)
        best = min(best, float(np.min(np.sum(size * (np.abs(off) - size / 2), axis=-1))))
    return best


def _linear(columns, loss, weight):
    """Predictions (cells, runs) of weighted least squares; cells with a coefficient below 0 have that one left out."""
    scale = np.sqrt(np.sum(columns**2, axis=-1))
    unit, keep = columns / scale[:, :, None], np.ones(scale.shape, bool)
    for _ in range(3):
        used = unit * keep[:, :, None]
        matrix = (used * weight[:, None]) @ used.swapaxes(1, 2) + np.eye(3) * (~keep[:, :, None] + 1e-12)
        found = np.linalg.solve(matrix, (used @ (weight * loss)[:, :, None]))
        if np.all(found >= 0.0):
            break
        keep &= found[:, :, 0] >= 0.0
    return (used.swapaxes(1, 2) @ found)[:, :, 0]


def package_grid(runs):
    """The same by the package vpnls, None if it is not installed."""
    try:
        from vpnls.api import fit_vpnls, huber
    except ImportError:
        return None
    found = fit_vpnls(*(runs[name].values for name in ("total_params", "tokens", "loss")), loss=huber(1e-3))
    return found.loss_value * runs.sizes["run"]


def seeded_fits(runs, few):
    """Whole fits without draws: 24 starts from random points in the typical ranges."""
    for name, table in (("240 runs", runs), ("85 runs", few)):
        took, found = milliseconds(lambda t=table: moesim.fit("hoffmann2022", t, objective="huber", draws=0))
        for peer, grid in (("exponent grid, NumPy", projected_grid), ("exponent grid, vpnls", package_grid)):
            took_grid, lowest = milliseconds(lambda t=table, grid=grid: grid(t), 1)
            if lowest is not None:
                gap = lowest / found.objective - 1
                line(f"chinchilla, {name}: a fit, Huber of the loss", took, peer, took_grid, "> 1x", gap)


def one_fit_and_profiles(name, fit, target, per_start=False):
    """A globally seeded optimum of 24 starts, and 90 % profile intervals of all coefficients."""
    task = fit.task
    once, best = milliseconds(lambda: optimum(task, 24, np.random.default_rng(0)))
    local = spread(task, best.x)
    profiles, _ = milliseconds(lambda: profile(task, best.x, best.objective, local, 0.9), 1)
    line(f"{name}: optimum of 24 starts{', for each' * per_start}", once / (24 if per_start else 1), target=target)
    line(f"{name}: profiles of {len(best.x)} coefficients", profiles)


if __name__ == "__main__":
    runs = moesim.load_runs("chinchilla")
    few = runs.isel(run=np.sort(np.random.default_rng(0).choice(240, 85, replace=False)))
    chinchilla, abnar = moesim.fit("hoffmann2022", runs, draws=0), moesim.fit("abnar2025", abnar_runs(), draws=0)
    found = chinchilla.estimate
    start = np.array([np.log(found["A"]), np.log(found["B"]), np.log(found["E"]), found["alpha"], found["beta"]])
    ordered = runs.isel(run=chinchilla.task.order)
    print(f"{'':46s}{'ms':>9s}  {'peer':24s}{'ms':>9s}{'ratio':>8s}  {'target':18s}gap of the peer")
    bootstraps("chinchilla", chinchilla, start, *chinchilla_by_hand(ordered), target="50x")
    bootstraps("abnar2025", abnar, abnar.optimum.x, *through_task(abnar), draws=500, sample=8)
    one_fit_and_profiles("chinchilla", chinchilla, "10 ms")
    one_fit_and_profiles("abnar2025", abnar, "5 ms", per_start=True)
    seeded_fits(runs, few)
    grid_of_starts(chinchilla, ordered)
