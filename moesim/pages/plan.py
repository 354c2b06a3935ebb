"""The page of a plan: what to train, its rivals, what binds, and how far laws and readings agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.text import count, epochs
from moesim.pages.views import Section
from moesim.planning import paged
from moesim.variables import OUTSIDE

if TYPE_CHECKING:
    import xarray as xr

_ROWS = {
    "chosen_sparsity": ("sparsity", "{:.3f}".format),
    "active_params": ("active parameters", count),
    "total_params": ("total parameters", count),
    "experts": ("experts", count),
    "tokens": ("tokens", count),
    "epochs": ("epochs", epochs),
    "mfu": ("MFU", "{:.1%}".format),
    "step_seconds": ("seconds a step", "{:.3g}".format),
    "memory": ("bytes of a device", count),
    "device_hours": ("device-hours", count),
    "cost": ("$", count),
    "odds": ("odds of being better than the best", "{:.0%}".format),
}


def view(dataset: xr.Dataset) -> list[Section]:
    """The sections of a plan; of several plans their table; none for a named question."""
    if not {"chosen_sparsity", "scan_loss"} <= set(dataset.data_vars):
        return []
    if paged.several(dataset):
        return [Section("text", "Plans", {"paragraphs": [], "lines": paged.page(dataset)})]
    told = {"paragraphs": paged.page(dataset).split("\n\n")[0].splitlines()}
    return [
        Section("text", "The plan", told),
        _rivals(dataset),
        _ladder(dataset),
        _binding(dataset),
        _agreement(dataset),
    ]


def _rivals(dataset: xr.Dataset) -> Section:
    """The best run beside the dense one and the neighbours on the ladder."""
    kept = [name for name in dataset.choice.values if np.isfinite(dataset.tokens.sel(choice=name))]
    rows = [["", *map(str, kept)]]
    for name, (said, form) in _ROWS.items():
        if name in dataset:
            values = [float(dataset[name].sel(choice=choice)) for choice in kept]
            rows.append([said, *(form(value) if np.isfinite(value) else "-" for value in values)])
    return Section("table", "Rivals", {"rows": rows, "caption": "choices that fit the machine and the budget"})


def _ladder(dataset: xr.Dataset) -> Section:
    """Loss and utilisation of the best run at each sparsity, in the same time."""
    spread = 1.0 / (1.0 - dataset.sparsity.values)
    x = {"label": "experts per active expert, 1/(1 - S)", "log": True, "how": "plain"}

    def panel(name: str, label: str, how: str) -> dict[str, Any]:
        line = {"name": label, "x": spread, "y": dataset[f"scan_{name}"].values, "colour": 0, "marks": True}
        best = float(1.0 / (1.0 - dataset.chosen_sparsity.sel(choice="best")))
        rule = {"x": best, "text": "best"}
        y = {"label": label, "how": how}
        return {"title": label, "file": name, "x": x, "y": y, "lines": [line], "rules": [rule]}

    panels = [panel("loss", "loss at equal time (nat/token)", "plain"), panel("mfu", "MFU", "share")]
    return Section("plot", "At equal time", {"panels": panels})


def _binding(dataset: xr.Dataset) -> Section:
    """What a quarter more of each resource would gain."""
    names = [str(name) for name in dataset.resource.values]
    spec = {
        "title": f"What binds: {dataset.binds.item()}",
        "file": "gains",
        "height": 240,
        "x": {"label": "a quarter more of", "categories": names},
        "y": {"label": "lower loss (nat/token)", "how": "plain"},
        "bars": [{"name": "gain", "y": dataset.gain.values, "colour": 0}],
    }
    return Section("plot", "What a quarter more would gain", {"spec": spec})


def _agreement(dataset: xr.Dataset) -> Section:
    """Loss of the rivals less that of the best, by law and reading, with what it lies outside of."""
    rivals = [name for name in dataset.choice.values[1:] if np.isfinite(dataset.tokens.sel(choice=name))]
    rows = [["law", "reading", *(f"{name} less best" for name in rivals), "5 % to 95 %", "outside of"]]
    for law in dataset.law.values:
        for reading in dataset.repetition.values:
            at = dataset.loss.sel(law=law, repetition=reading)
            gap = at - at.sel(choice="best")
            low, high = (float(at.sel(choice="best").quantile(q)) for q in (0.05, 0.95))
            mask = int(np.bitwise_or.reduce(dataset.extrapolated_by.sel(law=law, repetition=reading).values))
            outside = " ".join(name for name, bit in OUTSIDE.items() if mask & bit) or "-"
            behind = [f"{float(gap.sel(choice=name).median()):+.4f}" for name in rivals]
            spread = f"{low:.4f} to {high:.4f}" if high > low else f"{low:.4f}"
            rows.append([str(law), str(reading), *behind, spread, outside])
    return Section(
        "table", "How far laws and readings agree", {"rows": rows, "caption": "loss, nat/token; of the best"}
    )
