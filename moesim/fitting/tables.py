"""What `moesim fit` prints: coefficients with intervals, scores, and what the runs cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.fitting.isoflop import DEGREES
from moesim.output.text import Page, Rows, aligned, count, epochs, number, plain, text_of

if TYPE_CHECKING:
    import xarray as xr


def table(dataset: xr.Dataset) -> str:
    """The table of one fit, from its Dataset (`Fit.to_dataset`): what it is, how to spend budgets, what would tell."""
    advice = [f"next: {line}" for line in dataset.attrs.get("next_runs", "").splitlines()]
    return text_of([*_fitted(dataset), *_allocation(dataset), *_warnings(dataset), *advice])


def page(dataset: xr.Dataset) -> Page:
    """What a fit is in short: what and how well, coefficients, scores, warnings."""
    return [*_fitted(dataset), *_warnings(dataset)]


def _fitted(dataset: xr.Dataset) -> Page:
    return [_head(dataset), _coefficients(dataset), *_scores(dataset)]


def _warnings(dataset: xr.Dataset) -> Page:
    return [f"! {line}" for line in dataset.attrs.get("warnings", "").splitlines()]


def _head(data: xr.Dataset) -> str:
    wrapped = "" if data.attrs["repetition"] == "none" else f" with repetition {data.attrs['repetition']}"
    used = int(data.runs_used.sel(part="in sample"))
    return (
        f"{data.attrs['law']}{wrapped} on runs {data.attrs['runs']} ({used} runs)\n"
        f"objective {float(data.objective):.10g} ({data.attrs['objective_name']}), {data.status.item()};"
        f" {float(data.start_share):.0%} of {data.sizes['start']} starts reached it"
    )


def _coefficients(data: xr.Dataset) -> Rows:
    level = f"{float(data.level):.0%} interval"
    rows = [("coefficient", "estimate", level, "verdict")]
    for name in data.coefficient.values:
        one = data.sel(coefficient=name)
        low, high = one.interval.values
        fixed, partner = one.role.item() == "fixed", one.trades_off_with.item()
        verdict = one.role.item() if one.role.item() != "free" else one.identified.item()
        verdict += f", trades off with {partner}" if partner and one.role.item() == "free" else ""
        rows.append((str(name), number(one.estimate), "" if fixed else f"{number(low)} .. {number(high)}", verdict))
    return rows


def _scores(data: xr.Dataset) -> Page:
    rows: list[Sequence[str]] = [("", "runs", "R2", "MAPE", "worst", "RMSE", "bias", "in interval")]
    for part in data.part.values:
        one = data.sel(part=part)
        if int(one.runs_used):
            rows.append((str(part), str(int(one.runs_used)), *_score_cells(one)))
    named = {"AIC": "aic", "AICc": "aicc", "BIC": "bic"}
    told = ", ".join(f"{word} {float(data[name]):.2f}" for word, name in named.items() if name in data)
    criteria = [told] if told else []
    return [rows, *criteria]


def _allocation(data: xr.Dataset) -> Page:
    """How to spend budgets: exponents, and a row for each budget at the usual sparsity and at the best one."""
    if "budget" not in data.dims:
        return []
    exponents = [data[f"exponent_{name}"] for name in ("params", "tokens")]
    told = (f"{e.attrs['estimate']:.3f} ({e.values[0]:.3f} to {e.values[1]:.3f})" for e in exponents)
    usual = {"sparsity": number, "experts": number, "unique_tokens": count}
    known = {n: form(data[f"allocation_{n}"]) for n, form in usual.items() if f"allocation_{n}" in data}
    at = [f"{name.replace('_', ' ')} {value}" for name, value in known.items()]
    head = f"allocation{', at ' + ', '.join(at) if at else ''}: N* ~ C^{next(told)}, D* ~ C^{next(told)}"
    parts: list[Any] = [head, *_minima(data), _spent(data, "optimal")]
    if "best_sparsity" in data:
        parts += ["at the best sparsity:", _spent(data, "best")]
    if data["optimal_extrapolated"].any() or ("best_extrapolated" in data and data["best_extrapolated"].any()):
        parts.append("*: outside the runs")
    if "best_sparsity" in data and (data["best_sparsity_status"] == _EDGE).any():
        parts.append(">: the loss still falls at the largest sparsity searched")
    return parts


def _minima(data: xr.Dataset) -> Page:
    """What the runs say of the exponents by themselves, a line for each polynomial."""
    if "degree" not in data.dims:
        return []
    lines = []
    for degree, name in DEGREES.items():
        one = data.sel(degree=degree)
        params, tokens = (
            f"{float(one[f'isoflop_exponent_{n}']):.3f} +- {float(one[f'isoflop_exponent_{n}_error']):.3f}"
            for n in ("params", "tokens")
        )
        lines.append(f"  minima of {int(one.isoflop_budgets)} budgets ({name}): N* ~ C^{params}, D* ~ C^{tokens}")
    return lines


_HEADS = {"sparsity": "sparsity", "active_params": "active", "total_params": "total", "tokens": "tokens"}
_HEADS |= {"tokens_per_param": "tokens/active", "epochs": "epochs", "loss": "loss"}
_FORMS = {"active_params": count, "total_params": count, "tokens": count, "loss": number, "epochs": epochs}
_EDGE = "at upper bound"


def _spent(data: xr.Dataset, prefix: str) -> Rows:
    names = [name for name in _HEADS if f"{prefix}_{name}" in data]
    rows = [("compute", *(_HEADS[name] for name in names))]
    for i, budget in enumerate(data["budget"].values):
        cells = []
        for name in names:
            form = _FORMS.get(name, "{:.3g}".format)
            low, high = (form(end) for end in data[f"{prefix}_{name}_interval"].values[i])
            more = ">" if name == "sparsity" and data["best_sparsity_status"].values[i] == _EDGE else ""
            cells.append(f"{more}{form(data[f'{prefix}_{name}'].values[i])} ({low} to {high})")
        star = "*" if data[f"{prefix}_extrapolated"].values[i] else ""
        rows.append((f"{plain(budget)}{star}", *cells))
    return rows


def _score_cells(one: xr.Dataset) -> tuple[str, ...]:
    return (
        number(one.r2),
        f"{float(one.mape):.3%}",
        f"{float(one.worst):.2%}",
        f"{float(one.rmse):.4f}",
        f"{float(one.bias):+.4f}",
        f"{float(one.coverage):.0%}" if "coverage" in one and np.isfinite(one.coverage) else "-",
    )


def comparison(dataset: xr.Dataset, dim: str = "fit") -> str:
    """The table of several fits side by side along a dim: from `compare`, or the collected jobs of a multirun."""
    dataset = dataset if dim == "fit" else dataset.rename({dim: "fit"})
    head = ("fit", "status", "free", "objective", "R2", "MAPE", "held-out R2", "held-out MAPE", "AIC", "BIC")
    rows: list[Sequence[str]] = [head]
    for name in dataset.fit.values:
        one = dataset.sel(fit=name)
        inside, outside = one.sel(part="in sample"), one.sel(part="held out")
        criteria = [f"{float(one[c]):.1f}" if c in one and np.isfinite(one[c]) else "-" for c in ("aic", "bic")]
        cells = [str(one.status.item()), str(int(one.free_coefficients)), f"{float(one.objective):.7g}"]
        rows.append((str(name), *cells, *_pair(inside), *_pair(outside), *criteria))
    parts = [aligned(rows), *_folds(dataset), _estimates(dataset)]
    return "\n\n".join(parts)


def _folds(dataset: xr.Dataset) -> list[str]:
    """Cross-validated errors, best first."""
    if "cv_error" not in dataset:
        return []
    rows = [("left out", "error", "square above the best")]
    for name in dataset.fit.values[np.argsort(dataset.cv_error.values)]:
        one = dataset.sel(fit=name)
        behind = "-" if one.cv_behind == 0 else f"{float(one.cv_behind):.1%} +- {float(one.cv_behind_error):.1%}"
        rows.append((str(name), f"{float(one.cv_error):.3%}", behind))
    return [aligned(rows)]


def rolling(data: xr.Dataset) -> str:
    """The fits below each cut of compute, and how they predict the runs above."""
    rows: list[Sequence[str]] = [
        ("fitted up to", "below", "above", "MAPE", "bias", "in interval", *map(str, data.coefficient.values))
    ]
    for cut in data.cut.values:
        one = data.sel(cut=cut)
        cells = [f"{float(one.mape):.3%}", f"{float(one.bias):+.4f}", f"{float(one.coverage):.0%}"]
        counts = [str(int(one.below)), str(int(one.above))]
        rows.append((plain(cut), *counts, *cells, *map(number, one.estimate.values)))
    return f"fitted below each cut of compute, and judged on the runs above\n{aligned(rows, 2)}"


def collected(dataset: xr.Dataset) -> str:
    """The comparison of a multirun's fits that are done, over all its choices."""
    dims = list(dataset.job_status.dims)
    jobs = dataset.stack(fit=dims)
    jobs = jobs.isel(fit=(jobs.job_status == "done").values)
    names = [", ".join(map(str, label)) for label in jobs.fit.values]
    return comparison(jobs.drop_vars(["fit", *dims]).assign_coords(fit=names))


def _estimates(dataset: xr.Dataset) -> str:
    """Coefficients in columns, a row for each fit; blank where a fit has no such coefficient."""
    names = [str(name) for name in dataset.coefficient.values]
    rows: list[Sequence[str]] = [("", *names)]
    for fit in dataset.fit.values:
        cells = [dataset.estimate.sel(fit=fit, coefficient=name).item() for name in names]
        rows.append((str(fit), *("" if np.isnan(cell) else number(cell) for cell in cells)))
    return aligned(rows)


def _pair(one: xr.Dataset) -> tuple[str, str]:
    known = np.isfinite(one.mape)
    return (number(one.r2), f"{float(one.mape):.3%}") if known else ("-", "-")
