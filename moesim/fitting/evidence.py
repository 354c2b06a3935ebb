"""Every reading of repetition against what has been published about it: one table, pass or fail.

A reading is a law, a form of repetition, which parameters are counted and against what. Each check is one number and a
limit. The rows of Li et al. are in bits per character: a law's form is fitted to the rows that repeat nothing, and the
reading then predicts the others, its coefficients in nat/token converted (`BITS`), what data teach being the published
law's. Weight decay may be the hidden variable: with one tens of times as large as usual, the excess of parameters may
almost vanish (Kim et al. 2025, arXiv:2509.14786). So each check says at which it was found: Ni's is that of their
script for diffusion models (JinjieNi/dlms-are-super-data-learners), Wu's of theirs (boqian333/sparse-dc-scaling).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.fit import fit
from moesim.fitting.model import target_of
from moesim.fitting.runs import load_runs
from moesim.laws import Repetition, load_law, load_repetition
from moesim.output.plots import finish, grid_of_panels, titled
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.output.text import aligned
from moesim.planning import settling
from moesim.planning.model import Model

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Check:
    """What was seen, and how a reading shows it: a number above or below a limit."""

    what: str
    unit: str
    decay: str
    below: float = np.inf
    above: float = -np.inf


_LI = "Li et al. 2026 (29 rows of 1.1 to 8.3 epochs): "
_NI = "Ni et al. 2025 (96 epochs on 1e9 tokens): "
_LAB = "own models of 25e3 active parameters (moesim lab, 64 epochs of 33e3 bytes): "
_BPC, _NAT = "bit/character", "nat/token"
_ALIKE = 1e-3  # nat/token
_UNREAD = "not in what was read"
CHECKS = {
    "error": Check(f"{_LI}RMSE, twice the noise at most", _BPC, _UNREAD, below=0.004),
    "order": Check(f"{_LI}share in order of the pairs that differ by twice the noise", "1", _UNREAD, above=0.95),
    "share": Check(f"{_LI}what the law's best N_a/N at fixed N and C costs there", _BPC, _UNREAD, below=0.004),
    "once": Check("one epoch is fresh data: penalty of the best run of 1e20 FLOP, S 15/16", _NAT, "any", below=0.01),
    "worst": Check(f"{_NI}MoE of 8e9, 1e9 active, less the worse of both dense", _NAT, "0.1", above=0.0),
    "rises": Check(f"{_NI}dense 8e9 less dense 1e9", _NAT, "0.1", above=0.0),
    "total": Check("Xue et al. 2023: how much nearer damage is to that by total size", _NAT, _UNREAD, above=0.01),
    "index": Check(f"{_LAB}damage of the MoE on the way from active (0) to total (1)", "1", "0.1", 0.87, 0.42),
    "density": Check("Wu et al. 2026: worth of endless repeats at density 1/4, of dense", "1", "0", above=1.2),
}
LAWS = ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026", "tian2025", "frantar2023_t5", "hossain2025", "li2026")
FORMS = ("muennighoff2023", "muennighoff2023_geometric", "li2026", "wu2026", "lovelace2026", "bryant2026", "lab2026")
LEFT_OUT = {
    "clark2022": "has no term in tokens",
    "krajewski2024, kang2025": "stand for one sparsity only: no N_a/N to fit, no MoE to compare",
    "all others": "describe dense models: nothing of theirs depends on N_a/N",
}
BITS = 1.0 / (np.log(2.0) * 4.5)  # bit/character of a nat/token, 4.5 characters to a token: usual, not stated by Li
_BY_CHARACTER = "li2026"  # its losses are in bit/character: it meets the rows of Li et al. only
_SOURCES = {check: about.what.partition(" et al.")[0] for check, about in CHECKS.items() if " et al." in about.what}
_NUMBER = {"0.051": 0.051}  # parameters for each unique token, of muennighoff2023
# (N, C, U) of the tables of Li et al. in which N and C are fixed
_FIXED = {
    10: (2.15e9, 9.1e20, np.inf),
    12: (6.52e9, 2.86e21, np.inf),
    14: (6.52e9, 2.86e21, 6.8e10),
    15: (3.29e9, 1.39e21, 6.5e10),
    16: (3.29e9, 1.39e21, 1.14e11),
}


def run(config: Any) -> Result:
    """The evidence as a Dataset, a table and a figure, and what would settle which parameters are counted."""
    found = settling.settling()
    dataset = evidence().merge(found.rename({name: f"settling_{name}" for name in found.data_vars}))
    text = f"{table(dataset)}\n\n{settling.told(found)}"
    return Result(
        signed(dataset, "sweep", config), text, figures={"evidence": figure(dataset)} if config["figures"] else {}
    )


def evidence() -> xr.Dataset:
    """`value` of every check for every reading, whether it `passes`, and its `best_share` of active parameters.

    NaN where a law has no dense optimum, and where a choice changes nothing (it stands at its first value then:
    `taught` where nothing is measured by it, `excess` where parameters lose nothing).
    """
    import xarray as xr

    dims = {"law": LAWS, "form": FORMS, "excess": ("none", "active", "total"), "taught": ("own", "dense", "0.051")}
    value, share = (np.full((*map(len, dims.values()), len(last)), np.nan) for last in (CHECKS, _FIXED))
    for at in np.ndindex(value.shape[:-1]):
        law, *reading = (values[i] for values, i in zip(dims.values(), at, strict=True))
        if (model := _model(law, *reading)) is not None:
            share[at] = best_shares(model)
            value[at] = [*_light(model), _cost(share[at]), *_heavy(model)]
    sides = {side: np.array([getattr(check, side) for check in CHECKS.values()]) for side in ("above", "below")}
    passes = np.where(np.isnan(value), np.nan, (value > sides["above"]) & (value < sides["below"]))
    told = {name: [getattr(check, name) for check in CHECKS.values()] for name in ("what", "unit", "decay")}
    about = {name: ("check", values) for name, values in {**told, **sides}.items()}
    data = {name: ([*dims, "check"], values) for name, values in {"value": value, "passes": passes}.items()}
    coords = {**{name: list(values) for name, values in dims.items()}, "check": list(CHECKS), "table": list(_FIXED)}
    return xr.Dataset({**data, "best_share": ([*dims, "table"], share)}, {**coords, **about})


_law, _repetition = cache(load_law), cache(load_repetition)


def _model(law: str, form: str, excess: str, taught: str) -> Model | None:
    try:
        repetition = _repetition(form, excess=excess, taught=_NUMBER.get(taught, taught))
        idle = excess != "none" and np.inf in repetition.coefficients.values()
        if idle or (taught != "own" and not repetition.needs_taught_params):
            return None
        return Model(_law(law), repetition)
    except InputError:
        return None


# ---------------------------------------------------------------- Li et al.


@cache
def _rows() -> xr.Dataset:
    """The runs of Li et al. with what any law asks of them; all parameters as sparse as the experts."""
    rows = load_runs("li2026")
    share, one = rows.active_params / rows.total_params, rows.tokens / rows.tokens
    rows = rows.assign(density=share, activation_ratio=share, sparsity=1.0 - share, experts=1.0 / share)
    rows = rows.assign(active_experts=one, granularity=one, shared_ratio=0.0 * one)
    return rows.assign(compute=6.0 * rows.active_params * rows.tokens)


@cache
def _base(law: str) -> dict[str, float]:
    """The law's form fitted to the Mixtures of Experts that repeat nothing."""
    rows = _rows()
    once = (rows.epochs < 1.05) & (rows["table"] != 13)
    fixed = {"alpha": 0.1} if law == _BY_CHARACTER else None  # three sizes do not identify it
    runs = rows.isel(run=np.flatnonzero(once))
    return fit(law, runs, objective="squared", fixed=fixed, draws=0, starts=16).estimate


@cache
def _repeated() -> dict[str, np.ndarray]:
    """The rows that repeat tokens: every variable of theirs, as arrays."""
    rows = _rows().isel(run=np.flatnonzero(_rows().epochs > 1.05))
    return {str(name): rows[name].values for name in rows.data_vars}


def _light(model: Model) -> list[float]:
    """Li et al.: error and order of the repeated rows."""
    rows = _repeated()
    seen, predicted = rows["loss"], _predicted(model, rows)
    i, j = np.triu_indices(len(seen), 1)
    apart = seen[i] - seen[j]
    telling = (rows["table"][i] == rows["table"][j]) & (np.abs(apart) > CHECKS["error"].below)
    order = np.mean(np.sign(predicted[i] - predicted[j])[telling] == np.sign(apart)[telling])
    return [float(np.sqrt(np.mean((predicted - seen) ** 2))), float(order)]


def _predicted(model: Model, runs: dict[str, np.ndarray], bits: float = BITS) -> np.ndarray:
    form = model.repetition.form
    scaled = {n: v * bits for n, v in model.repetition.coefficients.items() if form.coefficients[n].unit == "nat/token"}
    repetition = model.repetition.with_coefficients(**scaled)
    target = target_of(model.law, repetition)
    values = _base(model.law.name) | {target.renamed[n]: v for n, v in repetition.coefficients.items()}
    with np.errstate(all="ignore"):
        cell = model.with_taught_params({n: runs[n] for n in ("sparsity", "unique_tokens")})
        prediction = replace(target.at(runs), known=cell.get("taught_params"))
        return np.ravel(prediction(values))


def best_shares(model: Model) -> list[float]:
    """The N_a/N that is best by the published law for the N, C and U of each table in which Li et al. fix them."""
    shares, found = np.geomspace(0.01, 1.0, 400), []
    for total, compute, unique in _FIXED.values():
        tokens, distinct = compute / (6.0 * shares * total), np.full_like(shares, unique)
        cell = {"sparsity": 1.0 - shares, "tokens": tokens, "unique_tokens": distinct}
        found.append(float(shares[_loss(model, shares * total, cell).argmin()]))
    return found


@cache
def _curves() -> list[tuple[np.ndarray, np.ndarray]]:
    """(log of N_a/N, loss) of each table of `_FIXED`, by share."""
    tables = [_rows().isel(run=np.flatnonzero(_rows()["table"] == number)) for number in _FIXED]
    return [(np.log(rows.density.values), rows.loss.values) for rows in (t.sortby("active_params") for t in tables)]


def _cost(best: Any) -> float:
    """What these shares cost in the tables (the worst, read between rows); inf beyond them."""
    read = zip(_curves(), np.log(best), strict=True)
    return float(max(np.interp(at, *curve, left=np.inf, right=np.inf) - curve[1].min() for curve, at in read))


def _loss(model: Model, active_params: Any, cell: dict[str, Any]) -> np.ndarray:
    given = {"active_params": active_params, "sparsity": cell["sparsity"]}
    log_size = model.architecture.size_of("active_params", given, model.fields)
    with np.errstate(all="ignore"):
        return model.loss(log_size, model.with_taught_params(cell))


# ---------------------------------------------------------------- the others


def _heavy(model: Model) -> list[float]:
    """The checks after Li's; Ni's three models: a small dense one, a large dense one and a sparse one."""
    if model.law.name == _BY_CHARACTER:
        return [np.nan] * 6
    size, tokens = np.array([1e9, 8e9, 1e9]), np.full(3, 96e9)
    cell = {"sparsity": np.array([0.0, 0.0, 0.875]), "tokens": tokens}
    seen = _loss(model, size, {**cell, "unique_tokens": np.full(3, 1e9)})
    damage = seen - _loss(model, size, {**cell, "unique_tokens": tokens})
    by_total = abs(damage[2] - damage[0]) - abs(damage[2] - damage[1])
    apart = damage[1] - damage[0]
    index = (damage[2] - damage[0]) / apart if abs(apart) > _ALIKE else 0.0  # where size does no damage, none does
    bears = _worth_of_repeats(model.repetition, 0.25) / _worth_of_repeats(model.repetition, 1.0)
    return [_once(model), seen[2] - seen[:2].max(), seen[1] - seen[0], by_total, index, bears]


def _once(model: Model) -> float:
    """Penalty on the law's best sparse run of 1e20 FLOP if what it sees once is all there is."""
    size = np.geomspace(1e7, 1e10, 300)
    cell = {"sparsity": np.full(300, 0.9375), "tokens": 1e20 / (6.0 * size)}
    fresh = _loss(Model(model.law, "none", model.architecture), size, {**cell, "unique_tokens": np.full(300, np.inf)})
    all_there_is = _loss(model, size, {**cell, "unique_tokens": cell["tokens"]})
    return float((all_there_is - fresh)[fresh.argmin()])


def _worth_of_repeats(repetition: Repetition, density: float) -> float:
    given = {"params": 1.0, "tokens": 1e30, "unique_tokens": 1.0, "taught_params": 1.0, "density": density}
    inputs = {name: given[name] for name in repetition.form.inputs}
    return repetition.form.function(**inputs, **repetition.coefficients).tokens


# ---------------------------------------------------------------- what is shown


def readings(dataset: xr.Dataset) -> list[tuple[str, str, str]]:
    """The (form, excess, taught) that any law was read with."""
    cells = dataset.passes.stack(reading=("form", "excess", "taught"))
    return list(cells.reading.values[np.isfinite(cells).any(["law", "check"]).values])


def table(dataset: xr.Dataset) -> str:
    """For each form, what is counted and against what: under how many laws each check is passed."""
    rows: list[list[str]] = [["form", "counted", "against", *CHECKS]]
    for form, excess, taught in readings(dataset):
        cell = dataset.passes.sel(form=form, excess=excess, taught=taught)
        met = [f"{m:.0f}/{n}" for m, n in zip(cell.sum("law").values, cell.count("law").values, strict=True)]
        rows.append([form, excess, _against(form, excess, taught), *met])
    lines = [f"laws under which a reading passes, of {', '.join(LAWS)}", aligned(rows, 3)]
    lines += [f"{name}: {check.what} ({_limit(check)}; weight decay {check.decay})" for name, check in CHECKS.items()]
    return "\n".join([*lines, _best(dataset), *(f"without {name}: {why}" for name, why in LEFT_OUT.items())])


def _against(form: str, excess: str, taught: str) -> str:
    measured = load_repetition(form, excess=excess).needs_taught_params
    return taught if measured else "-"


def _limit(check: Check) -> str:
    unit = "" if check.unit == "1" else f" {check.unit}"
    if np.isfinite([check.above, check.below]).all():
        return f"{check.above:g} to {check.below:g}{unit}"
    return f"below {check.below:g}{unit}" if check.below < np.inf else f"above {check.above:g}{unit}"


def _best(dataset: xr.Dataset) -> str:
    """Which readings pass everything about which parameters are counted, under which laws; and without `rises`."""
    asked = [name for name in CHECKS if name not in ("share", "index", "density")]
    whole = _passing(dataset, asked)
    monotone = _passing(dataset, [name for name in asked if name != "rises"])
    left = "share (of the law alone), index (of small models) and density (of weight-sparse ones)"
    return f"""every check but {left} is passed by: {whole}
without rises, which only a loss that rises can pass: {monotone}
the error of lovelace2026 and bryant2026 takes 4.5 characters to a token, not stated by Li: from 3 to 6 the former
passes, the latter, active counted, under none to all laws"""


def _passing(dataset: xr.Dataset, asked: list[str]) -> str:
    whole = (dataset.passes.sel(check=asked) == 1).all("check")
    found = []
    for form, excess, taught in readings(dataset):
        laws = [str(law) for law in LAWS if whole.sel(law=law, form=form, excess=excess, taught=taught)]
        against = "" if _against(form, excess, taught) == "-" else f" against {taught}"
        found += [f"{form}, {excess} counted{against}: {', '.join(laws)}"] if laws else []
    return "; ".join(found) or "none"


def figure(dataset: xr.Dataset) -> Figure:
    """A panel for each check, with a row for each reading and a column for each law."""
    own = readings(dataset)
    shown, panels = grid_of_panels(1, len(CHECKS), (1.5, 0.18 * len(own) + 0.8), sharex=True, sharey=True)
    for axes, check in zip(panels[0], CHECKS, strict=True):
        cells = np.array([dataset.passes.sel(form=f, excess=e, taught=t, check=check) for f, e, t in own])
        axes.pcolormesh(cells, cmap="Greys", vmin=0.0, vmax=1.5, edgecolors="0.85", linewidth=0.4)
        y, x = np.nonzero(np.isnan(cells))
        axes.plot(x + 0.5, y + 0.5, ls="none", marker=".", ms=2, color="0.5")
        axes.set_xticks(np.arange(len(LAWS)) + 0.5, list(LAWS), rotation=90, fontsize=7)
        axes.grid(False)
        titled(axes, f"{check}\n{_SOURCES.get(check, 'by definition')}")
    panels[0][0].invert_yaxis()
    labels = [
        ", ".join([f.removeprefix("muennighoff2023_"), e, _against(f, e, t)]).removesuffix(", -") for f, e, t in own
    ]
    panels[0][0].set_yticks(np.arange(len(own)) + 0.5, labels, fontsize=7)
    return finish(shown, "readings of repetition against the evidence", "dark: passes; white: fails; dot: not asked")
