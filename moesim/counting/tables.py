"""The console tables of `moesim flops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.plots import spread
from moesim.output.text import aligned, full, plain

if TYPE_CHECKING:
    import xarray as xr

_AT_MOST = 24  # rows of a table
_HEADINGS = {
    "forward": "forward",
    "input_gradient": "input gradient",
    "weight_gradient": "weight gradient",
    "update": "update",
    "recompute": "recompute",
}


def table(dataset: xr.Dataset) -> str:
    """Counts per layer and pass of one network or model, and its ratios; of several only the ratios."""
    several = [dim for dim in ("network", "depth") if dim in dataset.dims]
    if several:
        return _side_by_side(dataset, several[0])
    return "\n\n".join(part for part in (_heading(dataset), _layers(dataset), _ratios(dataset)) if part) + "\n"


def _heading(dataset: xr.Dataset) -> str:
    about = [dataset.attrs[key] for key in ("names", "description") if dataset.attrs.get(key)]
    published = dataset.attrs.get("published")
    lines = [": ".join(about), *([f"  published: {published}"] if published else [])]
    if "params" not in dataset:
        return "\n".join(lines)
    params = zip(dataset.params_convention.values, dataset.params.values, strict=True)
    costs = zip(dataset.convention.values, dataset.flops_per_token.values, strict=True)
    where = f"training FLOP per token at {dataset.attrs['sequence']} tokens, {dataset.attrs['mask']} mask"
    lines += ["", "parameters", aligned([[str(name), full(value)] for name, value in params])]
    lines += ["", where, aligned([[str(name), f"{value:.5g}"] for name, value in costs])]
    return "\n".join(lines)


def _layers(dataset: xr.Dataset) -> str:
    """One row per layer (per group of layers in a deep net) at the smallest batch, of a model at the largest."""
    at = dataset.isel(batch=-1 if "params" in dataset else 0, optimizer=0)
    passes = [name for name in _HEADINGS if (at.flops.sel({"pass": name}) != 0).any()]
    rows = _grouped(at, passes)
    rows.append(("total", *np.nansum([row[1:] for row in rows], axis=0)))
    title = f"FLOP of one step at batch {plain(at.batch.item())}, {at.optimizer.item()}"
    cells = [["layer", "weights", *(_HEADINGS[name] for name in passes)]]
    cells += [[row[0], *map(full, row[1:])] for row in rows]
    return title + "\n" + aligned(cells)


def _grouped(at: xr.Dataset, passes: list[str]) -> list[tuple[Any, ...]]:
    columns = np.column_stack([at.weights.values, *(at.flops.sel({"pass": name}).values for name in passes)])
    names = [str(name) for name in at.layer.values]
    kept = [(name, row) for name, row in zip(names, columns, strict=True) if np.nansum(row)]
    group = (lambda name: name.split(".")[0]) if len(kept) > _AT_MOST else (lambda name: name)
    sums: dict[str, Any] = {}
    for name, row in kept:
        sums[group(name)] = sums.get(group(name), 0) + row
    return [(name, *row) for name, row in sums.items()]


def _ratios(dataset: xr.Dataset) -> str:
    """Backward and update over forward, a row for each batch and a column for each optimiser."""
    shown = dataset.sel(batch=spread(dataset.batch.values, 13))
    header = ["batch", *map(str, shown.optimizer.values)]
    experts = "tokens_per_expert" in shown
    cells = [[*header, "tokens/expert", *(f"expert, {name}" for name in header[1:])] if experts else header]
    for i in range(shown.sizes["batch"]):
        at = shown.isel(batch=i)
        row = [plain(at.batch.item()), *(f"{value:.5g}" for value in at.backward_to_forward.values)]
        more = (
            [plain(at.tokens_per_expert.item()), *(f"{v - 1:.5g}" for v in at.expert_ratio.values)] if experts else []
        )
        cells.append(row + more)
    return "backward and update / forward\n" + aligned(cells)


def _side_by_side(dataset: xr.Dataset, dim: str) -> str:
    blocks = []
    for method in dataset.optimizer.values:
        data = dataset.backward_to_forward.sel(optimizer=method).transpose("batch", dim)
        data = data.sel(batch=spread(dataset.batch.values, 13))
        label = "" if dim == "network" else f"{dim} "
        cells = [["batch", *(label + plain(v) if label else str(v) for v in data[dim].values)]]
        cells += [
            [plain(b), *(f"{value:.5g}" for value in row)]
            for b, row in zip(data.batch.values, data.values, strict=True)
        ]
        blocks.append(f"backward and update / forward, {method}\n" + aligned(cells))
    return "\n\n".join(blocks) + "\n"
