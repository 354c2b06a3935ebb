"""Which single experiment would settle which parameters repetition counts: a Mixture of Experts and a dense model.

Both have the same active parameters; each is trained on few unique tokens, many times over, and on as many fresh ones.
The outcome is how much more repetition costs the sparse model than the dense one: two differences, in which base laws
cancel. By the readings that count active parameters or none it is about 0, by those that count total ones it is large.
The truth may lie between: such worlds are shown beside, and a line between two kinds tells nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim.laws import load_repetition
from moesim.output.text import aligned, count, plain
from moesim.planning.model import Model

if TYPE_CHECKING:
    import xarray as xr

LAWS = ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026")


@dataclass(frozen=True)
class Reading:
    """A repetition, what is unmeasured in it, how it is read, and what it counts beyond that: (N/N_a)^idle times as
    many parameters."""

    repetition: str
    unmeasured: tuple[str, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)
    idle: float = 0.0


_BOTH = ("muennighoff2023", ("R_D", "R_N"))
_RISING = ("lovelace2026", ("P",))
# first those without the idle ones
COUNTED = {
    "none": Reading("muennighoff2023", ("R_D",), {"excess": "none"}),
    "active, dense": Reading(*_BOTH, {"excess": "active", "taught": "dense"}),
    "active, rising": Reading(*_RISING, {"excess": "active"}),
    "total, 0.051": Reading(*_BOTH, {"excess": "total", "taught": 0.051}),
    "total, dense": Reading(*_BOTH, {"excess": "total", "taught": "dense"}),
    "total, rising": Reading(*_RISING, {"excess": "total"}),
}
# the geometric mean of active and total parameters, about where small models of our own lie (moesim lab)
BETWEEN = {
    "half, 0.051": Reading(*_BOTH, {"excess": "active", "taught": 0.051}, 0.5),
    "half, dense": Reading(*_BOTH, {"excess": "active", "taught": "dense"}, 0.5),
    "half, rising": Reading(*_RISING, {"excess": "active"}, 0.5),
}
_FORMS = ("geometric", "exponent", "params_only", "data_only")
_OTHERS = (*(f"muennighoff2023_{form}" for form in _FORMS), "wu2026", "wu2026_dense", "prabhudesai2025")
# and with published coefficients, in which total parameters may lose little or nothing
WEIGHED = {
    **COUNTED,
    **BETWEEN,
    "active or total, own": Reading(*_BOTH, {"taught": "own"}),
    **{f"total, dense: {form}": Reading(form, (), {"excess": "total", "taught": "dense"}) for form in _OTHERS},
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
# (FLOP, unique tokens, total parameters of all) at which 90, 95 and 98 % sparsity meet: the question; at four times the
# size; on ten times the data; at equal memory
QUESTIONS = ((1e20, 2e9, np.inf), (1.6e21, 8e9, np.inf), (1e20, 2e10, np.inf), (1e20, 2e9, 1e10))
_LINES = np.concatenate([np.linspace(0.0, 0.2, 41), np.linspace(0.22, 1.0, 14)])


@cache
def settling() -> xr.Dataset:
    """The most telling design of each budget: `outcome` by reading with its spread, and the odds that it settles it.

    `odds`: the share of worlds (law, and every unmeasured coefficient and the anchor threefold either way, seeds) in
    which the outcome falls on the right side of the best `line`. `in_noise`: the median outcomes of both kinds apart,
    in standard deviations of one outcome; `between_above`: the share of the `BETWEEN` worlds above the line.
    `denser_wins`, `sparser_wins`: the share of worlds in which the better of 90 and 95 % sparsity is more than `SEED`
    better, or worse, than 98 % in each of the `QUESTIONS`, each at its best size.
    """
    import xarray as xr

    design = _designs()
    worlds = {name: _outcomes(reading, design) for name, reading in COUNTED.items()}
    odds, line = _odds(list(worlds.values()))
    between = np.concatenate([_outcomes(reading, design)[0] for reading in BETWEEN.values()])
    cost = 24.0 * design["active_params"] * design["tokens"]
    chosen = [_best(odds, (cost <= most) & (cost > most / 10.0)) for most in BUDGETS]
    outcomes = [found[:, chosen] for found, _ in worlds.values()]
    over = {"outcome_median": np.median, "outcome_lowest": np.min, "outcome_highest": np.max}
    data: dict[str, Any] = {
        name: (("reading", "budget"), [of(one, axis=0) for one in outcomes]) for name, of in over.items()
    }
    flat = {**design, "compute": cost, "odds": odds, "line": line, "in_noise": _in_noise(list(worlds.values()))}
    flat["between_above"] = np.mean(between > line, axis=0)
    data |= {name: ("budget", values[chosen]) for name, values in flat.items()}
    return xr.Dataset(data, {"reading": list(COUNTED), "budget": list(BUDGETS)}).merge(_answers())


def _answers() -> xr.Dataset:
    """Who wins in each of the `QUESTIONS`, by reading."""
    import xarray as xr

    denser, sparser = np.stack([_wins(reading) for reading in WEIGHED.values()], axis=1)
    wins = {"denser_wins": (["weighed", "question"], denser), "sparser_wins": (["weighed", "question"], sparser)}
    asked = zip(("compute", "unique_tokens", "total_params"), np.transpose(QUESTIONS), strict=True)
    about = {f"question_{name}": ("question", values) for name, values in asked}
    return xr.Dataset(wins, {"weighed": list(WEIGHED), **about})


def _designs() -> dict[str, np.ndarray]:
    grid = np.meshgrid(_SIZES, 1.0 - 1.0 / _EXPERTS, _UNIQUE, _EPOCHS, indexing="ij")
    size, sparsity, unique, passes = (np.ravel(axis) for axis in grid)
    tokens = unique * passes
    ok = (size / (1.0 - sparsity) <= _LARGEST) & (tokens >= _TOKENS[0] * size) & (tokens <= _TOKENS[1] * size)
    found = {"active_params": size, "sparsity": sparsity, "unique_tokens": unique, "epochs": passes, "tokens": tokens}
    return {name: values[ok] for name, values in found.items()}


def _outcomes(reading: Reading, design: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The outcome in every world (worlds, designs), and its standard deviation between seeds."""
    outcome, spread = [], []
    for world in _worlds(reading):
        sparse, dense = (_penalty(world, {**design, "sparsity": s * design["sparsity"]}) for s in (1.0, 0.0))
        outcome.append(sparse - dense)
        spread.append(np.sqrt(4.0 * SEED**2 + LUCK**2 * (sparse**2 + dense**2)))
    return np.array(outcome), np.array(spread)


class World(NamedTuple):
    """A model, how many times what the data teach, and what is counted beside active parameters (`Reading.idle`)."""

    model: Model
    anchor: float
    idle: float


def _worlds(reading: Reading) -> Iterator[World]:
    """Every law with the reading, each unmeasured coefficient, and what the data teach, moved threefold either way."""
    base = load_repetition(reading.repetition, **reading.choices)
    anchors = THREEFOLD if base.needs_taught_params else (1.0,)
    for law, *factors in product(LAWS, *[THREEFOLD] * len(reading.unmeasured)):
        moved = {n: base.coefficients[n] * factor for n, factor in zip(reading.unmeasured, factors, strict=True)}
        model = Model(law, base.with_coefficients(**moved))
        yield from (World(model, anchor, reading.idle) for anchor in anchors)


def _penalty(world: World, runs: dict[str, np.ndarray]) -> np.ndarray:
    """What repetition costs each run: its loss less that on as many tokens seen once."""
    return _loss(world, runs) - _loss(world, {**runs, "unique_tokens": runs["tokens"]})


def _loss(world: World, runs: dict[str, np.ndarray]) -> np.ndarray:
    model, known = world.model, world.model.repetition.coefficients
    log_size = np.log(runs["active_params"])  # the size of the proportional architecture
    counted = (1.0 - runs["sparsity"]) ** -world.idle  # times as many, or what the data teach as many times fewer
    with np.errstate(all="ignore"):
        cell = model.with_taught_params({name: runs[name] for name in ("sparsity", "tokens", "unique_tokens")})
        if "taught_params" in cell:
            cell["taught_params"] = cell["taught_params"] * world.anchor / counted
        elif world.idle:
            cell["repetition.P"] = known["P"] * counted ** known["kappa"]
        return model.loss(log_size, cell)


def _wins(reading: Reading) -> np.ndarray:
    """The shares of worlds in which 90 or 95 % sparsity wins, and in which 98 % does (2, questions)."""
    compute, unique, total = np.array(QUESTIONS).T[..., None]
    sparsity = np.array([0.9, 0.95, 0.98])[:, None, None]
    once = compute / (6.0 * unique) * (1.0 - 1e-13)  # a kink: a hair more than all unique tokens, each once
    sizes = np.concatenate([np.tile(np.geomspace(2e6, 5e10, 200), (len(QUESTIONS), 1)), once], axis=1)
    sizes = np.where(total < np.inf, np.broadcast_to(total, sizes.shape) * (1.0 - sparsity), sizes)
    tokens = compute / (6.0 * sizes)
    runs = {"active_params": sizes, "tokens": tokens, "unique_tokens": unique, "sparsity": sparsity}
    best = np.array([np.min(_loss(world, runs), axis=-1) for world in _worlds(reading)])
    gain = best[:, 2] - best[:, :2].min(axis=1)
    return np.array([np.mean(gain > SEED, axis=0), np.mean(gain < -SEED, axis=0)])


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
    head = ["FLOP", "active", "S", "total", "unique", "epochs", *COUNTED, "line", "in noise", "odds", "between"]
    rows = [head, *(_row(found.isel(budget=i)) for i in range(found.sizes["budget"]))]
    return f"""what would settle it: a Mixture of Experts and a dense model of equal active parameters, each on few
unique tokens and on as many fresh ones (4 runs): what repetition costs the sparse one less what it costs the dense one,
in nat/token by reading, median over {", ".join(LAWS)} and threefold
moves of R_D, R_N, P and the anchor; noise of a run, assumed: {SEED:g} nat and {LUCK:.0%} of its penalty
{aligned(rows, 0)}
above the line total parameters count, below it they do not; odds: share of all these worlds told right, if one of the
two is true; between: share above the line where sqrt(active x total) counts: there the line tells nothing; tune weight
decay for each arm, it may be the hidden variable
is the better of 90 and 95 % sparsity better than 98 %, each at its best size (last: at equal total size)? the share of
worlds in which it is, and in which it is worse, by more than {SEED:g} nat (the others tie); half: sqrt(active x total)
counts; dense, own, 0.051: what counted parameters are measured against (repetition.taught)
{aligned(_table_of_wins(found), 1)}"""


def _row(at: xr.Dataset) -> list[str]:
    sizes = [count(float(v)) for v in (at.active_params, at.active_params / (1.0 - at.sparsity), at.unique_tokens)]
    outcomes = [f"{float(at.outcome_median.sel(reading=name)):+.2f}" for name in COUNTED]
    tail = [
        f"{float(at.line):.3f}",
        f"{float(at.in_noise):.1f}",
        f"{float(at.odds):.1%}",
        f"{float(at.between_above):.0%}",
    ]
    design = [f"{float(at['compute']):.1e}", sizes[0], f"{float(at.sparsity):.3g}", *sizes[1:], f"{float(at.epochs):g}"]
    return [*design, *outcomes, *tail]


def _table_of_wins(found: xr.Dataset) -> list[list[str]]:
    asked = [f"{plain(compute)} on {count(unique)}" for compute, unique, _ in QUESTIONS]
    rows = [["counted", *asked[:-1], f"{asked[-1]}, total {count(QUESTIONS[-1][-1])}"]]
    for name in WEIGHED:
        at = found.sel(weighed=name)
        rows.append(
            [name, *(f"{d:.0%}, {s:.0%}" for d, s in zip(at.denser_wins.values, at.sparser_wins.values, strict=True))]
        )
    return rows
