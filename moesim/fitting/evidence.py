"""Every reading of repetition against what has been published about it: one table, pass or fail.

A reading is a law, a form of repetition, which parameters are counted and against what. All the evidence is of runs at
the usual weight decay (about 0.1); with one tens of times as large the excess of parameters may almost vanish
(Kim et al. 2025, arXiv:2509.14786), so a reading that passes does so at usual weight decay.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.fit import fit
from moesim.fitting.model import target_of
from moesim.fitting.runs import load_runs
from moesim.laws import Repetition, load_repetition
from moesim.output.plots import finish, grid_of_panels
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.output.text import aligned
from moesim.planning.model import Model

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

LAWS = ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026")
FORMS = ("muennighoff2023", "muennighoff2023_geometric", "li2026", "wu2026", "lovelace2026", "bryant2026")
CHECKS = {
    "light": "Li et al. 2026: the 29 rows of 1.1 to 8.3 epochs to 0.004 BPC (twice the noise), and the best sparsities",
    "worst": "Ni et al. 2025: of 96 epochs on 1e9 tokens, the MoE of 8e9 (1e9 active) is the worst of three",
    "rises": "Ni et al. 2025: dense 8e9 is worse than dense 1e9 there",
    "total": "Xue et al. 2023: the damage to a MoE is nearer that of its total size than of its active size",
    "density": "Wu et al. 2026: sparse models bear more repeats than dense ones (R_D 7.0 at density 1/4, 4.4 dense)",
}
_NI = {"active_params": (1e9, 8e9, 1e9), "sparsity": (0.0, 0.0, 0.875)}
_NUMBER = {"0.051": 0.051}  # parameters for each unique token, of muennighoff2023
_NOISE = 0.004  # BPC: twice the run-to-run scatter that the table of Li et al. shows


def run(config: Any) -> Result:
    """The evidence as a Dataset, a table and a figure."""
    dataset = signed(evidence(), "sweep", config)
    return Result(dataset, table(dataset), figures={"evidence": figure(dataset)} if config["figures"] else {})


def evidence() -> xr.Dataset:
    """Whether each reading passes each check: NaN where forms cannot be so read or a law has no dense optimum."""
    import xarray as xr

    dims = {"law": LAWS, "form": FORMS, "excess": ("none", "active", "total"), "taught": ("own", "dense", "0.051")}
    passed = np.full((*map(len, dims.values()), len(CHECKS)), np.nan)
    light: dict[tuple, float] = {}
    for at in np.ndindex(passed.shape[:-1]):
        law, form, excess, taught = (values[i] for values, i in zip(dims.values(), at, strict=True))
        try:
            repetition = load_repetition(form, excess=excess, taught=_NUMBER.get(taught, taught))
            model = Model(law, repetition)
        except InputError:
            continue
        if at[1:] not in light:
            light[at[1:]] = _light(repetition)
        passed[at] = [light[at[1:]], *_heavy(model), _density(repetition)]
    coords = {name: list(values) for name, values in dims.items()}
    return xr.Dataset({"passes": ([*dims, "check"], passed)}, {**coords, "check": list(CHECKS)})


def _light(repetition: Repetition) -> float:
    """Li et al.: the law fitted to the unrepeated rows, then the repeated ones predicted."""
    rows = load_runs("li2026")
    again = (rows.epochs > 1.05).values
    once = rows.isel(run=~again & (rows["table"] != 13).values)
    base = fit("li2026", once, objective="squared", fixed={"alpha": 0.1}, draws=0, starts=16)
    target, groups, seen = target_of("li2026", repetition), rows["table"].values[again], rows.loss.values[again]
    inputs = {name: rows[name].values[again] for name in ("total_params", "active_params", "tokens", "unique_tokens")}
    inputs["density"] = inputs["active_params"] / inputs["total_params"]
    values = {**base.estimate, **{target.renamed[n]: v for n, v in repetition.coefficients.items()}}
    predicted = np.asarray(target.at(inputs)(values))
    tables = [groups == one for one in np.unique(groups)]
    kept = all(seen[one][predicted[one].argmin()] <= seen[one].min() + _NOISE for one in tables)
    return float(np.sqrt(np.mean((predicted - seen) ** 2)) < _NOISE and kept)


def _heavy(model: Model) -> tuple[bool, bool, bool]:
    """Ni et al. and Xue et al.: 96 epochs on 1e9 tokens of a small dense, a large dense and a sparse model."""
    size, sparsity = (np.array(_NI[name]) for name in ("active_params", "sparsity"))
    log_size = model.architecture.size_of("active_params", {"active_params": size, "sparsity": sparsity}, model.fields)
    cell = {"sparsity": sparsity, "tokens": np.full(3, 96e9)}
    with np.errstate(all="ignore"):
        seen = model.loss(log_size, model.with_taught_params({**cell, "unique_tokens": np.full(3, 1e9)}))
        fresh = model.loss(log_size, {**cell, "unique_tokens": np.full(3, np.inf)})
    active, total, sparse = seen - fresh
    return bool(seen.argmax() == 2), bool(seen[1] > seen[0]), bool(abs(sparse - total) < abs(sparse - active))


def _density(repetition: Repetition) -> bool:
    """How much endless repeats are worth at density 1/4 against density 1: 1.6 times by Wu et al."""
    given = {"params": 1.0, "tokens": 1e30, "unique_tokens": 1.0, "taught_params": 1.0}
    worth = [
        repetition.form.function(
            **{name: {**given, "density": q}[name] for name in repetition.form.inputs}, **repetition.coefficients
        ).tokens
        for q in (0.25, 1.0)
    ]
    return bool(worth[0] > 1.2 * worth[1])


def table(dataset: xr.Dataset) -> str:
    """For each form, what is counted and against what: the number of laws under which each check is passed."""
    head = ["form", "counted", "against", *dataset.check.values]
    rows = []
    for form, excess, taught in product(*(dataset[name].values for name in ("form", "excess", "taught"))):
        cell = dataset.passes.sel(form=form, excess=excess, taught=taught)
        if not np.isfinite(cell).any() or (excess == "none" and taught != "own"):
            continue
        counts = [f"{int(np.nansum(cell.sel(check=c)))}/{int(np.isfinite(cell.sel(check=c)).sum())}" for c in CHECKS]
        rows.append([form, excess, "-" if excess == "none" else taught, *counts])
    told = "\n".join(f"{name}: {text}" for name, text in CHECKS.items())
    title = f"laws under which a reading passes, of {len(LAWS)}; all at usual weight decay"
    return f"{title}\n{aligned([head, *rows], 3)}\n{told}"


def figure(dataset: xr.Dataset) -> Figure:
    """Share of the laws under which each reading passes each check: dark passes, light fails."""
    cells = dataset.passes.mean("law").stack(reading=("form", "excess", "taught")).transpose("reading", "check")
    cells = cells[np.isfinite(cells).any("check").values]
    shown, panels = grid_of_panels(1, 1, (6.0, 0.2 * cells.sizes["reading"] + 1.0))
    axes = panels[0][0]
    axes.imshow(cells.values, cmap="Greys", vmin=0.0, vmax=1.3, aspect="auto")
    axes.set_xticks(range(len(CHECKS)), list(CHECKS))
    axes.set_yticks(range(cells.sizes["reading"]), [", ".join(map(str, r)) for r in cells.reading.values], fontsize=7)
    axes.grid(False)
    return finish(shown, "evidence on repetition: dark passes under every law, white under none")
