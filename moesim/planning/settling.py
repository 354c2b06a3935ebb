"""Which single experiment would settle which parameters repetition counts: a Mixture of Experts and a dense model.

Both have the same active parameters; each is trained on few unique tokens, many times over, and on as many fresh ones.
The outcome is how much more repetition costs the sparse model than the dense one: two differences, in which base laws
cancel. By the readings that count active parameters or none it is about 0, by those that count total ones it is large.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.laws import load_repetition
from moesim.output.text import aligned, count, plain
from moesim.planning.model import Model

if TYPE_CHECKING:
    import xarray as xr

LAWS = ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026")
# Reading -> (repetition, what is unmeasured in it, what is counted): first those without the idle ones.
COUNTED: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "none": ("muennighoff2023", ("R_D",), {"excess": "none"}),
    "active, dense": ("muennighoff2023", ("R_D", "R_N"), {"excess": "active", "taught": "dense"}),
    "active, rising": ("lovelace2026", ("P",), {"excess": "active"}),
    "total, 0.051": ("muennighoff2023", ("R_D", "R_N"), {"excess": "total", "taught": 0.051}),
    "total, dense": ("muennighoff2023", ("R_D", "R_N"), {"excess": "total", "taught": "dense"}),
    "total, rising": ("lovelace2026", ("P",), {"excess": "total"}),
}
THREEFOLD = (1.0 / 3.0, 1.0, 3.0)
SEED = 0.005  # nat/token between runs that differ in the seed alone, on fresh data
LUCK = 0.1  # of a run's penalty: how much the penalty itself differs between seeds
BUDGETS = (1e18, 1e19, 1e20, 1e21)  # FLOP of all four runs, at most
_SIZES = np.geomspace(2.5e7, 1.6e9, 7)  # active parameters
_EXPERTS = np.array([4.0, 8.0, 16.0])  # of which one is active: as sparse as all the laws' data are
_UNIQUE = np.array([1e8, 2.5e8, 5e8, 1e9, 2e9, 5e9, 1e10])
_EPOCHS = np.array([16.0, 32.0, 64.0])  # fewer might not see what sets in later: the question is about 13 to 24
_LARGEST = 8.7e9  # total parameters, as in the runs of Muennighoff et al. 2023
_TOKENS = 20.0, 1000.0  # for each active parameter: neither under- nor overtrained beyond use
# (FLOP, unique tokens) at which 90 % sparsity meets 98 %: the question; at four times the size; with ten times the data
QUESTIONS = ((1e20, 2e9), (1.6e21, 8e9), (1e20, 2e10))
_LINES = np.concatenate([np.linspace(0.0, 0.2, 41), np.linspace(0.22, 1.0, 14)])


@cache
def settling() -> xr.Dataset:
    """The most telling design of each budget: `outcome` by reading with its spread, and the odds that it settles it.

    `odds`: the share of worlds (law, and every unmeasured coefficient and the anchor threefold either way, seeds) in
    which the outcome falls on the right side of the best `line`. `in_noise`: the median outcomes of both kinds apart,
    in standard deviations of one outcome. `denser_wins`: the share of worlds in which 90 % sparsity is better than 98 %
    in each of the `QUESTIONS`, each at its best size.
    """
    import xarray as xr

    design = _designs()
    worlds = {name: _outcomes(name, design) for name in COUNTED}
    odds, line = _odds([worlds[name] for name in COUNTED])
    cost = 24.0 * design["active_params"] * design["tokens"]
    chosen = [_best(odds, (cost <= most) & (cost > most / 10.0)) for most in BUDGETS]
    outcomes = [found[:, chosen] for found, _ in worlds.values()]
    over = {"outcome_median": np.median, "outcome_lowest": np.min, "outcome_highest": np.max}
    data: dict[str, Any] = {
        name: (("reading", "budget"), [of(one, axis=0) for one in outcomes]) for name, of in over.items()
    }
    flat = {**design, "compute": cost, "odds": odds, "line": line, "in_noise": _in_noise(list(worlds.values()))}
    data |= {name: ("budget", values[chosen]) for name, values in flat.items()}
    data["denser_wins"] = (("reading", "question"), [_denser_wins(name) for name in COUNTED])
    asked = {"question_compute": [c for c, _ in QUESTIONS], "question_unique_tokens": [u for _, u in QUESTIONS]}
    coords = {"reading": list(COUNTED), "budget": list(BUDGETS)}
    return xr.Dataset(data, {**coords, **{name: ("question", values) for name, values in asked.items()}})


def _designs() -> dict[str, np.ndarray]:
    grid = np.meshgrid(_SIZES, 1.0 - 1.0 / _EXPERTS, _UNIQUE, _EPOCHS, indexing="ij")
    size, sparsity, unique, passes = (np.ravel(axis) for axis in grid)
    tokens = unique * passes
    ok = (size / (1.0 - sparsity) <= _LARGEST) & (tokens >= _TOKENS[0] * size) & (tokens <= _TOKENS[1] * size)
    found = {"active_params": size, "sparsity": sparsity, "unique_tokens": unique, "epochs": passes, "tokens": tokens}
    return {name: values[ok] for name, values in found.items()}


def _outcomes(reading: str, design: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The outcome in every world (worlds, designs), and its standard deviation between seeds."""
    outcome, spread = [], []
    for model, anchor in _worlds(reading):
        sparse, dense = (_penalty(model, {**design, "sparsity": s * design["sparsity"]}, anchor) for s in (1.0, 0.0))
        outcome.append(sparse - dense)
        spread.append(np.sqrt(4.0 * SEED**2 + LUCK**2 * (sparse**2 + dense**2)))
    return np.array(outcome), np.array(spread)


def _worlds(reading: str) -> Iterator[tuple[Model, float]]:
    """Every law with the reading, each unmeasured coefficient, and what the data teach, moved threefold either way."""
    name, unmeasured, choices = COUNTED[reading]
    base = load_repetition(name, **choices)
    anchors = THREEFOLD if base.needs_taught_params else (1.0,)
    for law, *factors in product(LAWS, *[THREEFOLD] * len(unmeasured)):
        moved = {n: base.coefficients[n] * factor for n, factor in zip(unmeasured, factors, strict=True)}
        model = Model(law, base.with_coefficients(**moved))
        yield from ((model, anchor) for anchor in anchors)


def _penalty(model: Model, runs: dict[str, np.ndarray], anchor: float) -> np.ndarray:
    """What repetition costs each run: its loss less that on as many tokens seen once."""
    return _loss(model, runs, anchor) - _loss(model, {**runs, "unique_tokens": runs["tokens"]}, anchor)


def _loss(model: Model, runs: dict[str, np.ndarray], anchor: float) -> np.ndarray:
    log_size = np.log(runs["active_params"])  # the size of the proportional architecture
    with np.errstate(all="ignore"):
        cell = model.with_taught_params({name: runs[name] for name in ("sparsity", "tokens", "unique_tokens")})
        cell |= {"taught_params": cell["taught_params"] * anchor} if "taught_params" in cell else {}
        return model.loss(log_size, cell)


def _denser_wins(reading: str) -> np.ndarray:
    """The share of worlds in which the best run at sparsity 0.9 is better than that at 0.98, for each question."""
    compute, unique = np.array(QUESTIONS).T[..., None]
    once = compute / (6.0 * unique) * (1.0 - 1e-13)  # a kink: a hair more than all unique tokens, each once
    sizes = np.concatenate([np.tile(np.geomspace(2e6, 5e10, 200), (len(QUESTIONS), 1)), once], axis=1)
    runs = {"active_params": sizes, "tokens": compute / (6.0 * sizes), "unique_tokens": unique}
    runs["sparsity"] = np.array([0.9, 0.98])[:, None, None]
    best = np.array([np.min(_loss(model, runs, anchor), axis=-1) for model, anchor in _worlds(reading)])
    return np.mean(best[:, 0] < best[:, 1], axis=0)


def _odds(worlds: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """For each design the share of worlds told right by the best line, each reading as likely, and that line."""
    from scipy.special import ndtr

    active, total = worlds[: len(worlds) // 2], worlds[len(worlds) // 2 :]
    right = np.array(
        [
            np.mean([ndtr((line - found) / noise).mean(axis=0) for found, noise in active], axis=0)
            + np.mean([ndtr((found - line) / noise).mean(axis=0) for found, noise in total], axis=0)
            for line in _LINES
        ]
    )
    return right.max(axis=0) / 2.0, _LINES[right.argmax(axis=0)]


def _in_noise(worlds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """How far apart the readings' median outcomes are, the nearest two of different kind, in their noise."""
    middle = np.array([np.median(found, axis=0) for found, _ in worlds])
    noise = np.array([np.median(spread, axis=0) for _, spread in worlds])
    half = len(worlds) // 2
    apart = middle[half:, None] - middle[None, :half]
    return (apart / np.sqrt(noise[half:, None] ** 2 + noise[None, :half] ** 2)).min(axis=(0, 1))


def _best(odds: np.ndarray, among: np.ndarray) -> int:
    return int(np.where(among, odds, -1.0).argmax())


def told(found: xr.Dataset) -> str:
    """The designs as a table, the surest of each budget."""
    head = ["FLOP", "active", "S", "total", "unique", "epochs", *COUNTED, "line", "in noise", "odds"]
    rows = [head, *(_row(found.isel(budget=i)) for i in range(found.sizes["budget"]))]
    return f"""what would settle it: a Mixture of Experts and a dense model of equal active parameters, each on few
unique tokens and on as many fresh ones (4 runs): what repetition costs the sparse one less what it costs the dense one,
in nat/token by reading, median over {", ".join(LAWS)} and threefold
moves of R_D, R_N, P and the anchor; noise of a run {SEED:g} nat and {LUCK:.0%} of its penalty
{aligned(rows, 0)}
above the line total parameters count, below it they do not; odds: share of all these worlds told right; tune weight
decay for each arm, it may be the hidden variable
share of these worlds in which 90 % sparsity is better than 98 %, each at its best size
{aligned(_wins(found), 1)}"""


def _row(at: xr.Dataset) -> list[str]:
    sizes = [count(float(v)) for v in (at.active_params, at.active_params / (1.0 - at.sparsity), at.unique_tokens)]
    outcomes = [f"{float(at.outcome_median.sel(reading=name)):+.2f}" for name in COUNTED]
    tail = [f"{float(at.line):.3f}", f"{float(at.in_noise):.1f}", f"{float(at.odds):.1%}"]
    design = [f"{float(at['compute']):.1e}", sizes[0], f"{float(at.sparsity):.3g}", *sizes[1:], f"{float(at.epochs):g}"]
    return [*design, *outcomes, *tail]


def _wins(found: xr.Dataset) -> list[list[str]]:
    rows = [["FLOP", "unique tokens", *COUNTED]]
    for i, (compute, unique) in enumerate(QUESTIONS):
        shares = [f"{share:.0%}" for share in found.denser_wins.isel(question=i).values]
        rows.append([plain(compute), count(unique), *shares])
    return rows
