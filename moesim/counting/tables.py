"""The console tables of `moesim flops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.counting import clocked
from moesim.output.plots import spread
from moesim.output.text import aligned, full, plain

if TYPE_CHECKING:
    import xarray as xr

_AT_MOST = 24  # rows of a table


def table(dataset: xr.Dataset) -> str:
    """Counts per layer and pass of one network or model, and its ratios; of several their sizes and ratios."""
    if "sequence" in dataset.dims:
        dataset = dataset.isel(sequence=-1).assign_attrs(
            sequence=dataset.sequence[-1].item(), lengths=_lengths(dataset)
        )
    several = [dim for dim in ("network", "depth") if dim in dataset.dims]
    if several:
        return _side_by_side(dataset, several[0])
    timed = clocked.table(dataset) if "step_seconds" in dataset else ""
    parts = (_heading(dataset), _layers(dataset), _run(dataset), _ratios(dataset), timed)
    return "\n\n".join(part for part in parts if part) + "\n"


def _lengths(dataset: xr.Dataset) -> str:
    """Training FLOP per token by sequence length: a row for each convention."""
    shown = dataset.sel(sequence=spread(dataset.sequence.values, 8)).flops_per_token
    if "network" in shown.dims:
        shown = shown.sel(convention="exact", drop=True).rename(network="convention")
    cells = [["tokens per sequence", *map(plain, shown.sequence.values)]]
    rows = zip(shown.convention.values, shown.transpose("convention", "sequence").values, strict=True)
    cells += [[str(name), *(f"{value:.5g}" for value in row)] for name, row in rows]
    return "training FLOP per token\n" + aligned(cells)


def _heading(dataset: xr.Dataset) -> str:
    about = [dataset.attrs[key] for key in ("names", "description") if dataset.attrs.get(key)]
    published = dataset.attrs.get("published")
    lines = [": ".join(about), *([f"  published: {published}"] if published else [])]
    lines += [f"  {dataset.attrs['layers']}"] if "layers" in dataset.attrs else []
    if "params" not in dataset:
        return "\n".join(lines)
    params = zip(dataset.params_convention.values, dataset.params.values, strict=True)
    costs = zip(dataset.convention.values, dataset.flops_per_token.values, strict=True)
    where = f"training FLOP per token at {plain(dataset.attrs['sequence'])} tokens, {dataset.attrs['mask']} mask"
    lines += ["", "parameters", aligned([[str(name), full(value)] for name, value in params])]
    costs_in = aligned([[str(name), f"{value:.5g}"] for name, value in costs])
    lines += ["", *([dataset.attrs["lengths"]] if "lengths" in dataset.attrs else [where, costs_in])]
    return "\n".join(lines)


def _layers(dataset: xr.Dataset) -> str:
    """One row per layer (per group of layers in a deep net) at the smallest batch, of a model at the largest."""
    at = dataset.isel(batch=-1 if "params" in dataset else 0, optimizer=0)
    passes = [str(name) for name in at["pass"].values if (at.flops.sel({"pass": name}) != 0).any()]
    rows = _grouped(at, passes)
    rows.append(("total", *np.nansum([row[1:] for row in rows], axis=0)))
    title = f"FLOP of one step at batch {plain(at.batch.item())}, {at.optimizer.item()}{_length(dataset)}"
    cells = [["layer", "weights", *(name.replace("_", " ") for name in passes), "all passes"]]
    cells += [[row[0], *map(full, (*row[1:], sum(row[2:])))] for row in rows]
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


def _run(dataset: xr.Dataset) -> str:
    """FLOPs of a whole run: a row for each convention and a column for each number of tokens."""
    if "run_flops" not in dataset:
        return ""
    shown = dataset.run_flops.isel(tokens=slice(8)) if "tokens" in dataset.dims else dataset.run_flops
    cells = [["tokens of the run", *map(plain, np.atleast_1d(shown.tokens.values))]]
    rows = np.reshape(shown.transpose("convention", ...).values, (shown.sizes["convention"], -1))
    cells += [[str(n), *(f"{v:.5g}" for v in row)] for n, row in zip(shown.convention.values, rows, strict=True)]
    return f"FLOP of a whole run, without updates{_length(dataset)}\n" + aligned(cells)


def _length(dataset: xr.Dataset) -> str:
    """Of several lengths of a sequence, the one that is shown."""
    return f", {plain(dataset.attrs['sequence'])} tokens per sequence" if "lengths" in dataset.attrs else ""


def _ratios(dataset: xr.Dataset) -> str:
    """Backward and update over forward, a row for each batch and a column for each optimiser."""
    shown = dataset.sel(batch=spread(dataset.batch.values, 13))
    header = ["batch", *map(str, shown.optimizer.values)]
    experts = "tokens_per_expert" in shown
    cells = [[*header, "tokens/expert", *(f"expert, {name}" for name in header[1:])] if experts else header]
    title, ratio, of_experts = _above_forward(shown)
    for i in range(shown.sizes["batch"]):
        at = shown.isel(batch=i)
        row = [plain(at.batch.item()), *(f"{value:.5g}" for value in ratio.isel(batch=i).values)]
        more = [plain(at.tokens_per_expert.item()), *(f"{v:.5g}" for v in of_experts[i])] if experts else []
        cells.append(row + more)
    return title + "\n" + aligned(cells)


def _above_forward(shown: xr.Dataset) -> tuple[str, xr.DataArray, Any]:
    """What a step costs beyond its forward pass, of all layers and of the experts, recomputed passes included."""
    again = bool((shown.total_to_forward - 1 - shown.backward_to_forward > 1e-12).any())
    title = f"backward{', recomputed' if again else ''} and update / forward"
    ratio = shown.total_to_forward - 1 if again else shown.backward_to_forward
    if "tokens_per_expert" not in shown:
        return title, ratio, None
    return title, ratio, (shown.expert_ratio - 1 if again else shown.expert_backward).values


def _side_by_side(dataset: xr.Dataset, dim: str) -> str:
    label = "" if dim == "network" else f"{dim} "
    names = [label + plain(v) if label else str(v) for v in dataset[dim].values]
    blocks = [dataset.attrs["lengths"]] if "lengths" in dataset.attrs else []
    blocks.append(_sizes(dataset, dim, names))
    for method in dataset.optimizer.values:
        title, ratio, _ = _above_forward(dataset)
        data = ratio.sel(optimizer=method).transpose("batch", dim).sel(batch=spread(dataset.batch.values, 13))
        cells = [["batch", *names]]
        cells += [[plain(b), *(f"{v:.5g}" for v in row)] for b, row in zip(data.batch.values, data.values, strict=True)]
        blocks.append(f"{title}, {method}\n" + aligned(cells))
    return "\n\n".join(blocks) + "\n"


def _sizes(dataset: xr.Dataset, dim: str, names: list[str]) -> str:
    """Sizes and FLOPs of each: weights, active ones, forward and training per sample, a step, and a run if asked."""
    at = dataset.isel(batch=-1, optimizer=0)
    forward = (at.flops.sel({"pass": "forward"}).sum("layer") / at.batch).transpose(dim)
    training = (at.flops.drop_sel({"pass": "update"}).sum(["layer", "pass"]) / at.batch).transpose(dim)
    columns = {
        "weights": at.weights.sum("layer"),
        "active": at.active_weights.sum("layer"),
        "forward/sample": forward,
        "training/sample": training,
        f"step of {plain(at.batch.item())}": at.step_flops,
    }
    if "run_flops" in at:
        tokens = np.atleast_1d(at.tokens.values)[-1]
        run = at.run_flops.sel(convention="exact")
        columns[f"run of {plain(tokens)}"] = run.isel(tokens=-1) if "tokens" in run.dims else run
    rows = [[full(value) for value in np.broadcast_to(column.values, len(names))] for column in columns.values()]
    cells = [[dim, *columns], *([name, *row] for name, row in zip(names, zip(*rows, strict=True), strict=True))]
    where = f", models at {plain(dataset.attrs['sequence'])} tokens per sequence" if "params" in dataset else ""
    return f"weights, and FLOP with {at.optimizer.item()}{where}\n" + aligned(cells)
