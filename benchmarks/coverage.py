"""How often intervals of nominal 90 % hold the truth, by law, noise and method.

    python benchmarks/coverage.py [REPEATS] [CASE ...]

For each law and kind of noise: 60 runs on a grid, REPEATS (300) draws of the noise, each fitted with the default
objective, 200 draws and profiles. Printed are the shares of intervals that hold the true coefficient: over those that
the fit calls identified, and over all others. `small` is 18 runs (3 x 3 sizes, twice) at nominal 95 %, `irregular` 40
runs anywhere. One process; minutes for the dense law, an hour for abnar2025. The table of docs/coverage.md is made of
these cases.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import xarray as xr

import moesim
from moesim.fitting.model import target_of


def grid(repeats=1, **axes):
    """Every combination of the axes, each `repeats` times."""
    return {n: np.repeat(a.ravel(), repeats) for n, a in zip(axes, np.meshgrid(*axes.values()), strict=True)}


def dense():
    """10 sizes x 6 ratios of tokens to parameters."""
    runs = grid(total_params=np.geomspace(5e7, 1.6e10, 10), tokens=np.geomspace(2.0, 300.0, 6))
    return {**runs, "tokens": runs["tokens"] * runs["total_params"]}


def irregular(n=40):
    """Sizes and ratios of tokens to parameters anywhere in their ranges."""
    rng = np.random.default_rng(99)
    sizes = 10.0 ** rng.uniform(7.7, 10.2, n)
    return {"total_params": sizes, "tokens": sizes * 10.0 ** rng.uniform(0.3, 2.5, n)}


SPARSITIES = [0.0, 0.5, 0.75, 0.9, 0.95]
# name: coefficients that are true, form that is fitted, runs, scatter of the log loss, level.
CASES = {
    "hoffmann2022": ("besiroglu2024", "hoffmann2022", dense(), 0.01, 0.9),
    "clark2022": (
        "clark2022_sbase",
        "clark2022_sbase",
        grid(active_params=np.geomspace(1.5e7, 1.3e9, 6), experts=2.0 ** np.arange(10)),
        0.005,
        0.9,
    ),
    "small": (
        "besiroglu2024",
        "hoffmann2022",
        grid(2, total_params=np.geomspace(1e7, 1e9, 3), tokens=np.geomspace(1e8, 1e11, 3)),
        0.005,
        0.95,
    ),
    "irregular": ("besiroglu2024", "hoffmann2022", irregular(), 0.01, 0.9),
    "abnar2025": (
        "abnar2025",
        "abnar2025",
        grid(total_params=np.geomspace(1e8, 1e10, 4), tokens=np.geomspace(2e9, 2e11, 3), sparsity=SPARSITIES),
        0.004,
        0.9,
    ),
}


def _grouped(rng, n, u):
    return 0.8 * np.repeat(rng.standard_normal(-(-n // 3)), 3)[:n] + 0.6 * rng.standard_normal(n)


NOISES = {
    "normal": lambda rng, n, u: rng.standard_normal(n),
    "heteroscedastic": lambda rng, n, u: 1.8 * 10.0**-u * rng.standard_normal(n),  # falls tenfold with compute
    "t(3)": lambda rng, n, u: rng.standard_t(3, n) / np.sqrt(3.0),
    "grouped": _grouped,  # threes share 0.8 of it, and `group` says which
}
METHODS = ("bootstrap", "profile", "normal")


def one_case(name, noise, repeats):
    """(share of covering intervals over identified, over others, by coefficient) for each method."""
    truth, form, inputs, scatter, level = CASES[name]
    target, n = target_of(truth), len(next(iter(inputs.values())))
    smooth = target.at(inputs)(target.known)
    size = next(iter(inputs.values())) * inputs.get("tokens", 1.0)
    u = np.log(size / size.min()) / np.log(size.max() / size.min())
    hits = {m: {c: [] for c in target.known} for m in METHODS}
    told = {c: [] for c in target.known}
    for seed in range(repeats):
        loss = smooth * np.exp(scatter * NOISES[noise](np.random.default_rng(seed), n, u))
        columns = {k: ("run", np.asarray(v, float)) for k, v in {**inputs, "loss": loss}.items()}
        columns |= {"group": ("run", np.arange(n) // 3)} if noise == "grouped" else {}
        runs = xr.Dataset(columns, coords={"row": ("run", np.arange(n))})
        found = moesim.fit(form, runs, draws=200, starts=4, profiles=True, level=level, seed=seed)
        for c, verdict in found.verdict.items():
            told[c].append(verdict == "identified")
        for m in METHODS:
            for c, (low, high) in found.interval(level, m).items():
                hits[m][c].append(low <= target.known[c] <= high)
    return hits, told


def line(name, noise, method, hits, told):
    """Mean coverage of identified and of other coefficients, then that of each with the share that was identified."""
    every = [(hit, is_told) for c in hits for hit, is_told in zip(hits[c], told[c], strict=True)]
    parts = []
    for wanted in (True, False):
        chosen = [hit for hit, is_told in every if is_told == wanted]
        parts.append(f"{np.mean(chosen):.3f}" if chosen else "-")
    each = ", ".join(f"{c} {np.mean(hits[c]):.2f} ({np.mean(told[c]):.0%})" for c in hits)
    return f"| {name} | {noise} | {method} | {parts[0]} | {parts[1]} | {each} |"


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print("| law | noise | method | identified | others | each (share of the fits that call it identified) |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[2:] or CASES:
        for noise in ["normal"] if name == "small" else NOISES:
            hits, told = one_case(name, noise, repeats)
            for method in METHODS:
                print(line(name, noise, method, hits[method], told), flush=True)
