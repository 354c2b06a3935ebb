"""The figures of `moesim flops`: ratios against batch and depth, where FLOPs go, and the excess over 3:1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.models import ratio
from moesim.output.plots import colours, grid_of_panels, legend_right, spread
from moesim.output.text import count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--", ":", "-.")
_GUIDES = (1, 2, 3)
_PASSES = {
    "forward": "forward",
    "input_gradient": "input gradient",
    "weight_gradient": "weight gradient",
    "update": "update",
    "recompute": "recompute",
}
_AT_MOST = 9  # layers told apart in a bar


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the dims for, by file name."""
    drawn = {}
    if dataset.sizes["batch"] > 1 and "depth" not in dataset.dims:
        drawn["ratio_by_batch"] = by_batch(dataset)
    if dataset.sizes.get("depth", 0) > 1:
        drawn["ratio_by_depth"] = by_depth(dataset)
    if not {"network", "depth"} & set(dataset.dims):
        drawn["flops_by_layer"] = by_layer(dataset)
        if "tokens_per_expert" in dataset:
            drawn["excess"] = excess(dataset)
    return drawn


def _guides(axes: Axes) -> None:
    for height in _GUIDES:
        axes.axhline(height, color="0.6", lw=0.7, zorder=0)


def by_batch(dataset: xr.Dataset) -> Figure:
    """Backward/forward ratio against batch size: a colour for each network, a style for each optimiser."""
    data = dataset.backward_to_forward
    data = data if "network" in data.dims else data.expand_dims(network=[dataset.attrs.get("names", "")])
    figure, panels = grid_of_panels(1, 1)
    axes = panels[0][0]
    _guides(axes)
    for network, colour in zip(data.network.values, colours(data.sizes["network"]), strict=True):
        for i, method in enumerate(data.optimizer.values):
            line = data.sel(network=network, optimizer=method)
            style = _STYLES[i % len(_STYLES)]
            axes.plot(line.batch, line, style, color=colour, label=f"{network}, {method}")
    _batch_axes(axes, float(data.min()), float(data.max()))
    axes.set(xlabel="batch (samples or tokens per step)", ylabel="backward and update / forward")
    legend_right(figure, axes, "network, optimiser")
    return figure


def _batch_axes(axes: Axes, low: float, high: float) -> None:
    """Ratios up to about 4 on a linear axis from 0.9; larger ones on a log axis."""
    axes.set_xscale("log", base=2)
    if high > 5:
        axes.set_yscale("log")
    else:
        axes.set_ylim(min(0.9, low - 0.1), max(3.1, high + 0.1))


def by_depth(dataset: xr.Dataset) -> Figure:
    """Backward/forward ratio against the number of intermediate layers: a colour for each batch, a style each rule."""
    figure, panels = grid_of_panels(1, 1)
    axes = panels[0][0]
    batches = spread(dataset.batch.values, 4)
    for batch, colour in zip(batches, colours(len(batches)), strict=True):
        for i, method in enumerate(dataset.optimizer.values):
            line = dataset.backward_to_forward.sel(batch=batch, optimizer=method)
            label = f"batch {plain(batch)}, {method}"
            axes.plot(line.depth, line, _STYLES[i % len(_STYLES)], marker=".", color=colour, label=label)
    axes.axhline(2, color="0.6", lw=0.7, zorder=0)
    axes.set_xscale("symlog", base=2, linthresh=1)
    ticks = dataset.depth.values
    axes.set_xticks(ticks, [plain(n) for n in ticks])
    axes.set(xlabel="intermediate layers", ylabel="backward and update / forward")
    legend_right(figure, axes, "batch, optimiser")
    return figure


def by_layer(dataset: xr.Dataset) -> Figure:
    """Where the FLOPs go: one bar for each pass, in parts for the layers that cost most, per sample at one batch."""
    at = dataset.isel(batch=-1 if "params" in dataset else 0, optimizer=0)
    per_sample = at.flops / at.batch
    shown = [name for name in _PASSES if float(per_sample.sel({"pass": name}).sum()) > 0]
    parts = _largest(per_sample.sel({"pass": shown}))
    figure, panels = grid_of_panels(1, 1)
    axes, left = panels[0][0], np.zeros(len(shown))
    for (name, values), colour in zip(parts.items(), colours(len(parts)), strict=True):
        axes.barh([_PASSES[p] for p in shown], values, left=left, color=colour, label=name, edgecolor="white", lw=0.3)
        left = left + values
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    where = f"batch {plain(at.batch.item())}, {at.optimizer.item()}"
    axes.set(xlabel=f"FLOP per sample or token ({where})", title=dataset.attrs.get("description", ""))
    axes.title.set_fontsize(9)
    legend_right(figure, axes, "layer")
    return figure


def _largest(flops: xr.DataArray) -> dict[str, np.ndarray]:
    """The costliest layers in the order of the stack, the rest as one."""
    rows = {str(name): flops.sel(layer=name).values for name in flops.layer.values}
    ranked = sorted(rows, key=lambda name: -rows[name].sum())
    top = {name: rows[name] for name in rows if name in ranked[:_AT_MOST] and rows[name].sum() > 0}
    rest: Any = sum((rows[name] for name in ranked[_AT_MOST:]), np.zeros(flops.sizes["pass"]))
    return top | ({"all others": rest} if rest.sum() > 0 else {})


def excess(dataset: xr.Dataset) -> Figure:
    """What an expert's total/forward is above 3, against its tokens per step: u/(2 b).

    Dashed: only experts with tokens are updated, under uniform routing; dots mark where the excess is 0.01.
    """
    figure, panels = grid_of_panels(1, 1)
    axes = panels[0][0]
    tokens = dataset.tokens_per_expert.values
    share = tokens / dataset.batch.values
    for method, colour in zip(dataset.optimizer.values, colours(dataset.sizes["optimizer"]), strict=True):
        above = dataset.expert_ratio.sel(optimizer=method).values - 3
        update = float((above * 2 * tokens)[0])
        touched = above * (1 - (1 - share) ** dataset.batch.values)
        enough = float(ratio.tokens_for(0.01, update=update))
        axes.plot(tokens, above, color=colour, label=f"{method} (u = {plain(update)})")
        axes.plot(tokens, touched, "--", color=colour)
        axes.plot(enough, 0.01, "o", ms=5, color=colour, mec="white", mew=0.7, zorder=3)
        axes.annotate(count(enough), (enough, 0.01), (4, 4), textcoords="offset points", fontsize=8)
    axes.axhline(0.01, color="0.6", lw=0.7, zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="tokens per expert and step", ylabel="total / forward - 3")
    legend_right(figure, axes, "optimiser; dashed: only\nexperts with tokens updated;\ndots: 3.01")
    return figure
