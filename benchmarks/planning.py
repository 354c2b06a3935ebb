"""How fast sweeps and optima are, as ratios measured in one run: `python benchmarks/planning.py`.

1. A product grid of 1e8 cells (abnar2025 with muennighoff2023) against writing that array once, and the peak memory
   of its process against the result.
2. The best active parameters of 1e5 cells against `scipy.optimize.minimize_scalar` in a loop, for three shapes of axes.
3. The best sparsity of 2e4 cells against nested `minimize_scalar`.

The loops run on a sample of the cells, on a loss written out for plain floats (in 2 also on the model's own loss); in 2
they are given the taught parameters. All times are CPU times, the least of a few.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from moesim import Model, load_law, load_repetition, optimum, sweep
from moesim.planning.space import Space

MODEL = Model("abnar2025", "muennighoff2023")
GRID = {
    "compute": np.geomspace(1e19, 1e22, 50),
    "sparsity": np.linspace(0, 0.98, 50),
    "unique_tokens": np.geomspace(1e9, 1e13, 40),
    "active_params": np.geomspace(1e7, 1e11, 1000),
}
CELLS = {**{name: GRID[name] for name in ("compute", "sparsity")}, "unique_tokens": np.geomspace(1e9, 1e13, 40)}
SHAPES = {  # two whose terms share few cells: 10,000 budgets x 10 data sizes, and the other way round
    "50 x 50 x 40": CELLS,
    "10,000 x 10": {"compute": np.geomspace(1e19, 1e22, 10000), "unique_tokens": np.geomspace(1e9, 1e13, 10)},
    "10 x 10,000": {"compute": np.geomspace(1e19, 1e22, 10), "unique_tokens": np.geomspace(1e9, 1e13, 10000)},
}
SAMPLE = 300


def scalar_loss():
    """The loss of MODEL as a function of plain floats: log active params, compute, sparsity, U, taught params."""
    c = load_law("abnar2025").coefficients
    a, alpha, b, beta, c3, lam = (c[name] for name in ("a", "alpha", "b", "beta", "c", "lam"))
    d, delta, gamma, e = (c[name] for name in ("d", "delta", "gamma", "e"))
    R_D, R_N = load_repetition("muennighoff2023").coefficients.values()

    def loss(x, compute, sparsity, unique, taught):
        active = math.exp(x)
        tokens, total = compute / (6 * active), active / (1 - sparsity)
        if tokens > unique:
            tokens = unique * (1 - R_D * math.expm1((1 - tokens / unique) / R_D))
        if total > taught:
            total = taught * (1 - R_N * math.expm1((1 - total / taught) / R_N))
        share = 1 - sparsity
        return a * total**-alpha + b * tokens**-beta + c3 * share**-lam + d * share**-delta * total**-gamma + e

    def taught(sparsity, unique):
        share = 1 - sparsity

        def slope(x):  # N dL/dN - D dL/dD at D = unique
            total = math.exp(x) / share
            fall = a * alpha * total**-alpha + d * gamma * share**-delta * total**-gamma
            return b * beta * unique**-beta - fall

        return math.exp(brentq(slope, 0.0, 60.0)) / share

    return loss, taught


def timed(call, times=1):
    """Result and the least CPU seconds of `times` calls; CPU time, so that other work on the machine matters less."""
    least = math.inf
    for _ in range(times):
        result = None  # free the last one first
        start = time.process_time()
        result = call()
        least = min(least, time.process_time() - start)
    return result, least


def grid_in_its_own_process():
    """Seconds to write the array once and to sweep it, and peak memory over the bytes of the result."""
    sweep(MODEL, **{**GRID, "active_params": [1e9, 1e10]})  # imports
    shape = tuple(len(axis) for axis in GRID.values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, seconds = timed(lambda: sweep(MODEL, **GRID, optima=False))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    size, result = result.nbytes, None
    write = timed(lambda: np.full(shape, 1.0), 3)[1]  # page faults included
    seconds = min(seconds, timed(lambda: sweep(MODEL, **GRID, optima=False), 2)[1])
    print(math.prod(shape), write, seconds, grown / size)


def grid():
    """The product grid, in a fresh process."""
    run = subprocess.run([sys.executable, __file__, "grid"], capture_output=True, text=True, check=True)
    cells, write, seconds, memory = map(float, run.stdout.split())
    print(f"grid of {cells:.0e} cells: {seconds:.2f} s, {seconds / write:.2f} x writing it once ({write:.2f} s)")
    print(f"  peak memory {memory:.2f} x the result")


def picked(shape, count):
    """Some cells, the same in every run."""
    return [tuple(index) for index in np.random.default_rng(0).integers(0, shape, (count, len(shape)))]


def peer_of_size(loss, bounds, *cell):
    """The other solver on one cell: bounded Brent, to its own best tolerance."""
    return minimize_scalar(loss, bounds=bounds, args=cell, method="bounded", options={"xatol": 1e-8})


def sizes():
    """Best active parameters of every cell of a product, against two loops: on plain floats and on MODEL itself."""
    loss, _ = scalar_loss()
    found, seconds = timed(lambda: optimum(MODEL, **CELLS, best=False), 3)
    full = MODEL.with_taught_params(Space.of(MODEL, CELLS).context)
    shape = found.optimal_loss.shape
    each = seconds / math.prod(shape)
    indices = picked(shape, SAMPLE)
    arrays = [np.broadcast_to(full[n], shape) for n in ("compute", "sparsity", "unique_tokens", "taught_params")]
    cells = [tuple(float(array[index]) for array in arrays) for index in indices]
    bounds = math.log(1e6), math.log(1e13)
    peers, loop = timed(lambda: [peer_of_size(loss, bounds, *cell) for cell in cells])

    def own(x, *cell):
        return MODEL.loss(x, dict(zip(("compute", "sparsity", "unique_tokens", "taught_params"), cell, strict=True)))

    _, slow = timed(lambda: [peer_of_size(own, bounds, *cell) for cell in cells])
    print(f"optimum: {each * 1e6:.2f} us a cell ({math.prod(shape):.0e} cells)")
    for name, axes in SHAPES.items():
        other, seconds = timed(lambda axes=axes: optimum(MODEL, **axes, best=False), 3)
        own_each = seconds / other.optimal_loss.size
        print(f"  {name}: {own_each * 1e6:.2f} us a cell, {loop / SAMPLE / own_each:.0f} x the first loop")
    print(f"  minimize_scalar on a plain-float loss {loop / SAMPLE * 1e6:.0f} us, {loop / SAMPLE / each:.0f} x")
    print(f"  minimize_scalar on the model's loss {slow / SAMPLE * 1e6:.0f} us, {slow / SAMPLE / each:.0f} x")
    accuracy(loss, cells, [float(np.log(found.optimal_active_params.values[index])) for index in indices], peers)


def accuracy(loss, cells, ours, peers):
    """Error in log N of both, against the root of the derivative (complex step) next to ours."""
    mine, theirs, flat, worse = [], [], 0, 0
    for cell, x, peer in zip(cells, ours, peers, strict=True):
        exact = root_near(x, cell)
        flat += exact is None
        if exact is not None:
            mine.append(abs(x - exact))
            theirs.append(abs(peer.x - exact))
        worse += loss(peer.x, *cell) < loss(x, *cell) - 1e-12
    theirs = np.array(theirs)
    print(f"  error in log N: ours at most {max(mine):.1e}; minimize_scalar median {np.median(theirs):.1e},", end=" ")
    print(f"in another dip in {np.mean(theirs > 1e-3):.1%} of the cells, lower than ours in {worse}")
    print(f"  left out, the loss being flat to rounding: {flat} of {len(cells)} cells")


def root_near(x, cell):
    """Root of dL/dx near x by complex step; None where the slope there is but rounding."""
    at = dict(zip(("compute", "sparsity", "unique_tokens", "taught_params"), cell, strict=True))

    def slope(x):
        return MODEL.loss(x + 1e-30j, at).imag / 1e-30

    if not slope(x - 1e-3) < -1e-9 < 1e-9 < slope(x + 1e-3):
        return None
    return brentq(slope, x - 1e-3, x + 1e-3, xtol=1e-13, rtol=1e-14)


def best_sparsities():
    """Best sparsity of every cell against nested loops."""
    loss, taught = scalar_loss()
    axes = {"compute": np.geomspace(1e19, 1e22, 200), "unique_tokens": np.geomspace(1e9, 1e13, 100)}
    found, seconds = timed(lambda: optimum(MODEL, **axes), 2)
    without = timed(lambda: optimum(MODEL, **axes, best=False), 2)[1]
    cells = picked((200, 100), 40)
    bounds = math.log(1e6), math.log(1e13)

    def outer(t, compute, unique):
        sparsity = -math.expm1(-t)
        return peer_of_size(loss, bounds, compute, sparsity, unique, taught(sparsity, unique)).fun

    def peer(compute, unique):
        ends = 0, -math.log(0.02)
        return minimize_scalar(outer, bounds=ends, args=(compute, unique), method="bounded", options={"xatol": 1e-8})

    peers, loop = timed(lambda: [peer(axes["compute"][i], axes["unique_tokens"][j]) for i, j in cells])
    each = (seconds - without) / found.best_loss.size
    print(f"best sparsity: {each * 1e6:.1f} us a cell ({found.best_loss.size:.0e} cells)")
    print(f"  nested minimize_scalar {loop / len(cells) * 1e6:.0f} us, {loop / len(cells) / each:.0f} x")
    ours = found.best_loss.values
    above = [ours[cell] - peer.fun for cell, peer in zip(cells, peers, strict=True)]
    print(f"  loss against the loops: at most {max(above):.1e} above, at most {-min(above):.1e} below")


if __name__ == "__main__":
    if sys.argv[1:] == ["grid"]:
        grid_in_its_own_process()
    else:
        grid()
        sizes()
        best_sparsities()
