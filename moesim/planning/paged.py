"""The page of a plan: what to train, what it takes, what binds, and how far laws and readings agree; and its figure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.plots import colours_of, grid_of_panels, sparsity_axis, titled
from moesim.output.text import aligned, coordinate, count, epochs
from moesim.variables import OUTSIDE

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_ROWS = {
    "active_params": ("active", count),
    "total_params": ("total", count),
    "experts": ("experts", count),
    "tokens": ("tokens", count),
    "epochs": ("epochs", epochs),
    "mfu": ("MFU", "{:.1%}".format),
    "step_seconds": ("step s", "{:.3g}".format),
    "memory": ("bytes", count),
    "device_hours": ("device-h", count),
    "cost": ("$", count),
}
_OWN = ("choice", "sparsity", "resource", "law", "repetition", "draw")


def several(dataset: xr.Dataset) -> bool:
    """Whether the plan has axes."""
    return bool(set(dataset.chosen_sparsity.dims) - set(_OWN))


def page(dataset: xr.Dataset) -> str:
    """The page of one plan, or the table of several."""
    if several(dataset):
        return f"{table(dataset)}\n\n{across(dataset)}\n"
    best = dataset.sel(choice="best")
    parts = [
        _told(best),
        table(dataset),
        _layout(best),
        _binding(dataset),
        _gating(dataset),
        _agreement(dataset),
        _odds(dataset),
    ]
    return "\n\n".join(parts) + "\n"


def _told(best: xr.Dataset) -> str:
    """The best run in two sentences."""
    at = {name: best[name].item() for name in best.data_vars if best[name].size == 1}
    kind = f"{at['experts']:.0f} experts, {at['active_experts']:.0f} active" if at["experts"] > 1 else "dense"
    return (
        f"train {count(at['active_params'])} active of {count(at['total_params'])} parameters ({kind}; "
        f"{at['layers']:.0f} layers of width {at['d_model']:.0f}) on {count(at['tokens'])} tokens "
        f"({epochs(at['epochs'])} epochs), {count(at['batch_tokens'])} a step\n"
        f"in {at['hours'] / 24:.3g} days: loss {np.nanmedian(best.loss.isel(law=0, repetition=0)):.4f}"
        f"{_interval(best.loss.isel(law=0))}, {count(at['energy'])} kWh"
    )


def _interval(loss: xr.DataArray) -> str:
    """The spread over readings and draws, where there is one."""
    low, high = (float(loss.quantile(q)) for q in (0.05, 0.95))
    return f" ({low:.4f} to {high:.4f} over readings and draws)" if high > low else ""


def table(dataset: xr.Dataset) -> str:
    """A line for each choice of each plan: what it is, what it takes, and its loss by the plan's law."""
    dims = [dim for dim in dataset.chosen_sparsity.dims if dim != "choice"]
    stacked = dataset.stack(plan=dims) if dims else dataset.expand_dims("plan")
    rows = [[*map(str, dims), "choice", "S", *(said for said, _ in _ROWS.values()), "loss"]]
    for i in range(stacked.sizes["plan"]):
        one = stacked.isel(plan=i)
        for name in dataset.choice.values:
            at = one.sel(choice=name)
            if np.isfinite(at.tokens):
                where = [coordinate(str(dim), at[dim].item()) for dim in dims]
                rows.append([*where, str(name), f"{at.chosen_sparsity.item():.3f}", *_cells(at), _loss(at)])
    return aligned(rows, len(dims) + 1)


def _cells(at: xr.Dataset) -> list[str]:
    return [form(at[name].item()) if np.isfinite(at[name]) else "-" for name, (_, form) in _ROWS.items()]


def _loss(at: xr.Dataset) -> str:
    """By the plan's own law and reading."""
    return f"{float(at.scan_loss.sel(sparsity=float(at.chosen_sparsity))):.4f}"


def _layout(best: xr.Dataset) -> str:
    layout: dict[str, Any] = json.loads(best.layout.item())
    told = ", ".join(f"{name} {value}" for name, value in layout.items() if value not in (1, "none"))
    return f"layout: {told or 'data parallel alone'}; useful share of the time (failures): {best.goodput.item():.1%}"


def _binding(dataset: xr.Dataset) -> str:
    gains = ", ".join(f"{name} {float(dataset.gain.sel(resource=name)):.4f}" for name in dataset.resource.values)
    time, flops = float(dataset.chosen_sparsity.sel(choice="best")), float(dataset.equal_flop_sparsity)
    return (
        f"what binds: {dataset.binds.item()}; a quarter more of each would lower the loss by: {gains}\n"
        f"best sparsity at equal time {time:.3f}, at equal FLOPs {flops:.3f}"
    )


def _gating(dataset: xr.Dataset) -> str:
    """How imperfect the gating of the best run may be."""
    at = dataset.sel(sparsity=float(dataset.chosen_sparsity.sel(choice="best")))
    if not at.margin_time > 0:
        return "imperfect gating: the dense model is best even with a perfect router"
    nat, flops, share = (float(at[f"margin_{name}"]) for name in ("time", "flops", "experts"))
    return (
        f"imperfect gating: the dense model is as good from a penalty of {nat:.3f} nat/token on at equal time, "
        f"{flops:.3f} at equal FLOPs, or with {share:.0%} of the experts effective"
    )


def across(dataset: xr.Dataset) -> str:
    """A line for each of several plans: the best sparsity by time and by FLOPs, and what its gating may cost."""
    dims = [dim for dim in dataset.chosen_sparsity.dims if dim != "choice"]
    stacked = dataset.stack(plan=dims)
    rows = [
        [*map(str, dims), "best S at equal time", "at equal FLOPs", "binds", "gating: nat", "nat, FLOPs", "experts"]
    ]
    for i in range(stacked.sizes["plan"]):
        one = stacked.isel(plan=i)
        best = float(one.chosen_sparsity.sel(choice="best"))
        margins = one.sel(sparsity=best)
        told = [f"{float(margins[f'margin_{name}']):.3f}" for name in ("time", "flops", "experts")]
        where = [coordinate(str(dim), one[dim].item()) for dim in dims]
        rows.append([*where, f"{best:.3f}", f"{float(one.equal_flop_sparsity):.3f}", str(one.binds.item()), *told])
    return aligned(rows, len(dims) + 1)


def _agreement(dataset: xr.Dataset) -> str:
    """A line for each law and reading: loss of the rivals less that of the best, and whose data they lie outside."""
    rivals = [name for name in dataset.choice.values[1:] if np.isfinite(dataset.tokens.sel(choice=name))]
    rows = [["law", "reading", *map(str, rivals), "outside of"]]
    median = dataset.loss.median("draw")
    for law in dataset.law.values:
        for reading in dataset.repetition.values:
            at = median.sel(law=law, repetition=reading)
            behind = [f"{float(at.sel(choice=name) - at.sel(choice='best')):+.4f}" for name in rivals]
            mask = int(np.bitwise_or.reduce(dataset.extrapolated_by.sel(law=law, repetition=reading).values))
            outside = " ".join(name for name, bit in OUTSIDE.items() if mask & bit) or "-"
            rows.append([str(law), str(reading), *behind, outside])
    return "loss of the rivals less that of the best, by law and reading of repetition\n" + aligned(rows, 2)


def _odds(dataset: xr.Dataset) -> str:
    told = [
        f"{name} {float(dataset.odds.sel(choice=name)):.0%}"
        for name in dataset.choice.values[1:]
        if np.isfinite(dataset.odds.sel(choice=name))
    ]
    return f"odds that another choice is better, over laws, readings and draws: {', '.join(told) or 'no rival fits'}"


def warnings(dataset: xr.Dataset) -> tuple[str, ...]:
    """One line on extrapolation, one on the ends of the ladder, one on money."""
    out = []
    if (dataset.extrapolated_by.isel(law=0).sel(choice="best") > 0).any():
        out.append(
            "the best run lies outside the data of the law, of the repetition or of its anchor (extrapolated_by)"
        )
    worst, guessing = float(dataset.scan_loss.min("sparsity").max()), dataset.attrs["guessing_loss"]
    if worst > guessing:
        out.append(f"a loss of {worst:.1f} nat/token is above that of guessing, {guessing:.1f}: no law holds so low")
    if (dataset.chosen_sparsity.sel(choice="best") == dataset.sparsity.max()).any():
        out.append(f"the best sparsity is the largest that is tried ({float(dataset.sparsity.max()):.3f})")
    if dataset.cost.sel(choice="best").isnull().all():
        out.append("no cost: no source gives a price of this chip; give chip.price=V ($ an hour)")
    return tuple(out)


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """The ladder: loss and utilisation of the best run at each sparsity, at equal time; a line for each plan."""
    dims = [dim for dim in dataset.scan_loss.dims if dim != "sparsity"]
    stacked = dataset.stack(plan=dims) if dims else dataset.expand_dims("plan")
    names = [_name(stacked.isel(plan=i), dims) for i in range(stacked.sizes["plan"])]
    figure, ((left, right),) = grid_of_panels(1, 2)
    for i, (name, colour) in enumerate(colours_of(names).items()):
        one = stacked.isel(plan=i)
        places = 1.0 / (1.0 - one.sparsity)
        left.plot(places, one.scan_loss, "o-", ms=3, color=colour, label=name)
        right.plot(places, one.scan_mfu, "o-", ms=3, color=colour)
    for axes, said in ((left, "loss at equal time (nat/token)"), (right, "MFU")):
        sparsity_axis(axes, dataset.sparsity.values)
        axes.set_xlabel("sparsity")
        titled(axes, said)
    if len(names) > 1:
        left.legend(fontsize=7)
    return {"iso_time": figure}


def _name(one: xr.Dataset, dims: list[Any]) -> str:
    return ", ".join(f"{dim} {coordinate(str(dim), one[dim].item())}" for dim in dims) or "plan"
