"""Speed of fitting against SciPy, as ratios within one run.

    python benchmarks/fitting.py

On the Chinchilla points (5 coefficients, 240 runs) and a synthetic abnar2025 table (10 coefficients, 400 runs):
bootstraps against warm-started `scipy.optimize.least_squares` with an analytic Jacobian, Hoffmann et al.'s grid of 4500
starts against L-BFGS-B with finite differences, a globally seeded fit, and profile intervals against one fit. Every
comparison also prints by how much the two end apart.
"""

import itertools
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import least_squares, minimize

import moesim
from moesim.fitting.bootstrap import bootstrap
from moesim.fitting.model import target_of
from moesim.fitting.profile import profile
from moesim.fitting.solve import Rows, solve
from moesim.fitting.task import optimum
from moesim.fitting.uncertainty import spread


def seconds(call, repeats=3):
    """(shortest time of a few, what the call returned)."""
    best, out = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        out = call()
        best = min(best, time.perf_counter() - start)
    return best, out


def abnar_runs(n=400, noise=0.003):
    """Synthetic runs of abnar2025, sparsities of the paper, log-normal scatter."""
    import xarray as xr

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


def bootstraps(name, fit, start, residual, jacobian, draws=4000, sample=30):
    """Refits of resamples: all in one batch, and some of the same one by one with least_squares."""
    task, rng = fit.task, np.random.default_rng(0)
    took, found = seconds(lambda: bootstrap(task, fit.optimum.x, draws, "pairs", np.random.default_rng(1)))
    times = rng.multinomial(len(task.loss), np.full(len(task.loss), 1 / len(task.loss)), sample)
    picks = [np.repeat(np.arange(len(task.loss)), row) for row in times]

    def one_by_one():
        settings = {"loss": "huber", "f_scale": 1e-3, "x_scale": "jac"}
        return [
            least_squares(lambda p, i=i: residual(p)[i], start, lambda p, i=i: jacobian(p)[i], **settings).cost
            for i in picks
        ]

    took_scipy, costs = seconds(one_by_one, 1)
    rows = Rows(task.rows.observed, times.astype(float))
    ours = solve(task.problem, np.repeat(fit.optimum.x[None], sample, 0), rows).objective
    each, each_scipy = took / draws, took_scipy / sample
    print(f"{name}: {draws} bootstraps {took:.2f} s, {each * 1e6:.0f} us each ({found.usable.mean():.1%} converged)")
    print(f"   least_squares {each_scipy * 1e3:.2f} ms each: ratio {each_scipy / each:.1f}", end="; ")
    print(f"its objective is higher by {np.max(np.array(costs) / ours - 1):.1e} at most")


def grid_of_starts(fit, runs, sample=40):
    """Hoffmann et al.'s 4500 starts as one batch, against L-BFGS-B with finite differences on some of them."""
    grid = np.array(
        list(itertools.product(*[np.linspace(0, 25, 6)] * 2, np.linspace(-1, 1, 5), *[np.linspace(0, 2, 5)] * 2))
    )
    task = fit.task
    natural = {"A": grid[:, 0], "B": grid[:, 1], "E": grid[:, 2]}
    values = [dict(zip(natural, np.exp(row), strict=True)) for row in np.stack(list(natural.values()), 1)]
    x = np.stack([task.parameters.x_of({**v, "alpha": g[3], "beta": g[4]}) for v, g in zip(values, grid, strict=True)])
    took, found = seconds(lambda: solve(task.problem, x, task.rows, tolerance=1e-11), 1)
    residual, _ = chinchilla_by_hand(runs)

    def objective(p):
        with np.errstate(all="ignore"):
            return np.sum(task.objective.rho(residual(p))[0])

    some = grid[np.random.default_rng(0).choice(len(grid), sample, replace=False)][:, [0, 1, 2, 3, 4]]
    took_scipy, others = seconds(lambda: [minimize(objective, p, method="L-BFGS-B").fun for p in some], 1)
    ratio = took_scipy / sample / (took / len(x))
    reached = np.mean(found.objective <= fit.objective * (1 + 1e-6))
    best = np.mean(np.array(others) <= fit.objective * (1 + 1e-3))
    whole = took_scipy / sample * len(x)
    print(f"grid of {len(x)} starts {took:.2f} s; L-BFGS-B would take {whole:.0f} s: ratio {ratio:.0f}")
    print(f"   {reached:.0%} of the starts reach the best optimum to 1e-6; of L-BFGS-B's {best:.0%} to 1e-3")


def one_fit_and_profiles(name, fit):
    """A globally seeded fit (the best 4 of 256 random points), and 90 % profile intervals of all coefficients."""
    task = fit.task
    once, best = seconds(lambda: optimum(task, 4, np.random.default_rng(0)), 5)
    local = spread(task, best.x)
    profiles, _ = seconds(lambda: profile(task, best.x, best.objective, local, 0.9))
    print(
        f"{name}: globally seeded fit {once * 1e3:.1f} ms (best of {len(best.ends.x)}, {best.share:.0%} agree),",
        end=" ",
    )
    print(f"profiles of {len(best.x)} coefficients {profiles * 1e3:.1f} ms: {profiles / once:.1f} fits")


if __name__ == "__main__":
    runs = moesim.load_runs("chinchilla")
    chinchilla, abnar = moesim.fit("hoffmann2022", runs), moesim.fit("abnar2025", abnar_runs())
    found = chinchilla.estimate
    start = np.array([np.log(found["A"]), np.log(found["B"]), np.log(found["E"]), found["alpha"], found["beta"]])
    ordered = runs.isel(run=chinchilla.task.order)
    bootstraps("chinchilla", chinchilla, start, *chinchilla_by_hand(ordered))
    bootstraps("abnar2025", abnar, abnar.optimum.x, *through_task(abnar), draws=1000, sample=8)
    grid_of_starts(chinchilla, ordered)
    one_fit_and_profiles("chinchilla", chinchilla)
    one_fit_and_profiles("abnar2025", abnar)
