"""The page of a count of FLOPs: layer by layer and pass by pass, at each batch; the ratio of backward to forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moesim.output.text import coordinate, count
from moesim.pages.views import Section, named

if TYPE_CHECKING:
    import xarray as xr


def view(dataset: xr.Dataset) -> list[Section]:
    """The sections of one network or model; none for several side by side."""
    if dataset.get("flops") is None or {"layer", "pass"} - set(dataset["flops"].dims):
        return []
    one = dataset.isel({dim: 0 for dim in dataset["flops"].dims if dim not in ("layer", "pass", "batch", "optimizer")})
    found = [_layers(one, str(optimizer)) for optimizer in _optimizers(one)]
    return [*found, *_weights(one), *_ratio(one)]


def _optimizers(dataset: xr.Dataset) -> list[Any]:
    return list(dataset["optimizer"].values) if "optimizer" in dataset["flops"].dims else [""]


def _layers(dataset: xr.Dataset, optimizer: str) -> Section:
    """Bars of every layer for each pass, with a slider through the batches."""
    flops = dataset["flops"].sel(optimizer=optimizer) if optimizer else dataset["flops"]
    places = [str(layer) for layer in dataset["layer"].values]
    batches = list(dataset["batch"].values) if "batch" in flops.dims else [None]
    frames = []
    for batch in batches:
        at = flops if batch is None else flops.sel(batch=batch)
        bars = [
            {"name": str(one), "y": at.sel({"pass": one}).values, "colour": k}
            for k, one in enumerate(at["pass"].values)
        ]
        x, y = {"label": "layer", "categories": places}, named(dataset["flops"], "flops")
        spec = {"title": "FLOPs of an optimiser step", "file": "flops", "x": x, "y": y, "bars": bars}
        frames.append({"text": "" if batch is None else coordinate("batch", batch), "spec": spec})
    where = f"Layers, {optimizer}" if optimizer else "Layers"
    return Section("plot", where, {"frames": frames, "slider": "batch (samples or tokens)"})


def _weights(dataset: xr.Dataset) -> list[Section]:
    """Weights of every layer, all and active."""
    if "weights" not in dataset or dataset["weights"].dims != ("layer",):
        return []
    kinds = [name for name in ("weights", "active_weights") if name in dataset]
    rows = [
        [str(layer), *(count(float(dataset[name].sel(layer=layer))) for name in kinds)]
        for layer in dataset["layer"].values
    ]
    return [Section("table", "Weights", {"rows": [["layer", *kinds], *rows]})]


def _ratio(dataset: xr.Dataset) -> list[Section]:
    """Backward over forward against the batch, a line for each optimiser."""
    if "backward_to_forward" not in dataset or "batch" not in dataset["backward_to_forward"].dims:
        return []
    lines = [
        {
            "name": str(optimizer) or "ratio",
            "x": dataset["batch"].values,
            "y": (
                dataset["backward_to_forward"].sel(optimizer=optimizer) if optimizer else dataset["backward_to_forward"]
            ).values,
            "colour": k,
            "marks": True,
        }
        for k, optimizer in enumerate(_optimizers(dataset))
    ]
    x = {"label": "batch (samples or tokens)", "log": True, "how": "count"}
    spec = {
        "title": "Backward over forward",
        "file": "ratio",
        "x": x,
        "y": {"label": "ratio", "how": "plain"},
        "lines": lines,
    }
    return [Section("plot", "Backward over forward", {"spec": spec})]
