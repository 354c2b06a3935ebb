"""Random cells of every combination of law, repetition, excess, anchor and architecture against fine grids.

`python benchmarks/searches.py [SECONDS] [SEED]`: how many cells were tried, how many had a lower loss on a grid of 6001
sizes, on one of 401 sparsities, and where neighbouring cells (1 % of U or C, .01 of sparsity) lie more than 30 % apart
in N_a (or more than the square of the active share changes, near sparsity 1) although the status of neither says why.
All three counts are 0, but for cells whose loss is above 11 nat/token, more than a uniform guess among words has.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from moesim import InputError, Model, config, load_law, load_repetition
from moesim.planning.size import INSIDE, STEP, best_size
from moesim.planning.sparsity import best_sparsity

CELLS, SIZES, SPARSITIES = 20, 6001, 401


def random_model(rng):
    """A model of any combination that may be made."""
    law, repetition, architecture = (str(rng.choice(config.choices(n))) for n in ("law", "repetition", "architecture"))
    excess, taught = str(rng.choice(["none", "active", "total"])), ["own", "dense", 0.051][rng.integers(3)]
    try:
        return Model(load_law(law), load_repetition(repetition, excess, taught), architecture)
    except InputError:
        return random_model(rng)


def random_cells(rng):
    """Budgets, unique tokens and sparsities."""
    sparsity = rng.uniform(0, 0.98, CELLS)
    return {"compute": 10 ** rng.uniform(18, 25, CELLS), "unique_tokens": 10 ** rng.uniform(8, 12, CELLS)}, sparsity


def above_sizes(model, cell, sparsity):
    """Cells whose best size is above a fine grid of sizes."""
    full = model.with_taught_params({**cell, "sparsity": sparsity})
    x = np.linspace(*model.architecture.log_size[[0, -1]], SIZES)
    losses = model.loss(x, {name: value[:, None] if np.ndim(value) else value for name, value in full.items()})
    return int((best_size(model, full).loss > np.nanmin(losses, axis=1) * (1 + 1e-10)).sum())


def above_sparsities(model, cell):
    """Cells whose best sparsity is above a fine grid of sparsities."""
    sparsity = -np.expm1(-np.linspace(0, -np.log(0.02), SPARSITIES))
    grid = {**{name: value[:, None] for name, value in cell.items()}, "sparsity": sparsity}
    lowest = np.nanmin(best_size(model, model.with_taught_params(grid)).loss, axis=1)
    return int((best_sparsity(model, cell, (0.0, 0.98))[1].loss > lowest * (1 + 1e-10)).sum())


def jumps(model, cell, sparsity):
    """Neighbours far apart whose statuses both say nothing."""
    here = {**cell, "sparsity": sparsity}
    moved = [
        {**here, "sparsity": sparsity + 0.01},
        *({**here, n: here[n] * 1.01} for n in ("compute", "unique_tokens")),
    ]
    one, *others = (best_size(model, model.with_taught_params(c)) for c in (here, *moved))
    size = model.described(one.log_size, here)["active_params"]
    count = 0
    for other, there in zip(others, moved, strict=True):
        ratio = np.abs(np.log(model.described(other.log_size, there)["active_params"] / size))
        allowed = np.maximum(STEP, 2 * np.log((1 - here["sparsity"]) / (1 - there["sparsity"])))
        count += int(((ratio > allowed) & (one.status == INSIDE) & (other.status == INSIDE)).sum())
    return count


def main(seconds=60.0, seed=0):
    rng, start, found, tried = np.random.default_rng(int(seed)), time.time(), np.zeros(3, int), 0
    with np.errstate(all="ignore"):
        while time.time() - start < float(seconds):
            model, (cell, sparsity) = random_model(rng), random_cells(rng)
            counts = above_sizes(model, cell, sparsity), above_sparsities(model, cell), jumps(model, cell, sparsity)
            found += counts
            tried += CELLS
            if any(counts):
                parts = model.law.name, model.repetition.name, model.repetition.excess, model.repetition.taught
                print(*parts, model.architecture.name, counts)
    print(f"{tried} cells: {found[0]} above a grid of sizes, {found[1]} above one of sparsities, {found[2]} jumps")


if __name__ == "__main__":
    main(*sys.argv[1:])
