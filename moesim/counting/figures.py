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
_AT_MOST, _DEEP, _SMALL = 8, 24, 0.004  # layers told apart in a bar; more are grouped; a share too small to see
_CATEGORIES = ("#56b4e9", "#0072b2", "#cc79a7", "#009e73", "#e69f00", "#f0e442", "#d55e00", "#bbbbbb", "#999999")


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the dims for, by file name."""
    drawn = {}
    if "sequence" in dataset.dims:
        drawn["flops_by_sequence"] = by_sequence(dataset)
        dataset = dataset.isel(sequence=-1)
    if dataset.sizes["batch"] > 1 and "depth" not in dataset.dims:
        drawn["ratio_by_batch"] = by_batch(dataset)
    if dataset.sizes.get("depth", 0) > 1:
        drawn["ratio_by_depth"] = by_depth(dataset)
    if not {"network", "depth"} & set(dataset.dims):
        drawn["flops_by_layer"] = by_layer(dataset)
        if "tokens_per_expert" in dataset:
            drawn["excess"] = excess(dataset)
    return drawn


def by_sequence(dataset: xr.Dataset) -> Figure:
    """Training FLOP per token against the length of a sequence: a line for each convention, or model by `exact`."""
    data = dataset.flops_per_token
    dim = "network" if "network" in data.dims else "convention"
    data = data.sel(convention="exact") if dim == "network" else data
    figure, panels = grid_of_panels(1, 1)
    axes = panels[0][0]
    for name, colour in zip(data[dim].values, colours(data.sizes[dim]), strict=True):
        axes.plot(data.sequence, data.sel({dim: name}), marker=".", color=colour, label=str(name))
    axes.set(xlabel="tokens per sequence", ylabel="training FLOP per token", ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: count(value))
    axes.set_title(dataset.attrs.get("description", ""), fontsize=9)
    legend_right(figure, axes, dim)
    return figure


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
        steps = (1, 2, 3, 5, 10, 20, 50, 100) if high < 200 else (1, 10, 100, 1000, 10**4, 10**5, 10**6)
        ticks = [t for t in steps if t < 1.2 * high]
        axes.set_yticks(ticks, [plain(t) for t in ticks])
        axes.set_yticks([], minor=True)
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
    axes.set_xlim(left=-0.3)
    ticks = dataset.depth.values
    axes.set_xticks(ticks, [plain(n) for n in ticks])
    axes.set(xlabel="intermediate layers", ylabel="backward and update / forward")
    legend_right(figure, axes, "batch, optimiser")
    return figure


def by_layer(dataset: xr.Dataset) -> Figure:
    """Where the FLOPs go: a bar for each pass, in parts for the layers that cost most, per sample or token.

    Networks at the smallest batch, models at the largest. Parts are labelled with their share of the pass.
    """
    at = dataset.isel(batch=-1 if "params" in dataset else 0, optimizer=0)
    per_sample = at.flops / at.batch
    shown = [str(name) for name in at["pass"].values if float(per_sample.sel({"pass": name}).sum()) > 0]
    parts = _largest(per_sample.sel({"pass": shown}))
    figure, panels = grid_of_panels(1, 1)
    axes, totals = panels[0][0], np.sum(list(parts.values()), axis=0)
    left = np.zeros(len(shown))
    for (name, values), colour in zip(parts.items(), _CATEGORIES, strict=False):
        bars = axes.barh(
            [name.replace("_", " ") for name in shown], values, left=left, color=colour, label=name, zorder=2
        )
        shares = [f"{v / t:.0%}" if v > 0.05 * max(totals) else "" for v, t in zip(values, totals, strict=True)]
        axes.bar_label(bars, shares, label_type="center", fontsize=7)
        left = left + values
    for row, total in enumerate(totals):
        axes.annotate(count(total), (total, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: count(value))
    where = f"{plain(at.optimizer.item())}, batch {count(at.batch.item())}"
    unit = "token" if "params" in dataset else "sample"
    axes.set(xlabel=f"FLOP per {unit} ({where})")
    axes.set_title(dataset.attrs.get("description", ""), fontsize=9)
    legend_right(figure, axes, "layer")
    return figure


def _largest(flops: xr.DataArray) -> dict[str, np.ndarray]:
    """The costliest layers in the order of the stack (groups of layers in a deep net), the rest as one."""
    names = [str(name) for name in flops.layer.values]
    group = (lambda name: name.split(".")[0]) if len(names) > _DEEP else (lambda name: name)
    rows: dict[str, Any] = {}
    for name, values in zip(names, flops.transpose("layer", "pass").values, strict=True):
        rows[group(name)] = rows.get(group(name), 0) + values
    enough = _SMALL * float(np.sum(list(rows.values())))
    top = sorted((name for name in rows if rows[name].sum() > enough), key=lambda name: -rows[name].sum())[:_AT_MOST]
    rest = sum((values for name, values in rows.items() if name not in top), np.zeros(flops.sizes["pass"]))
    return {name: rows[name] for name in rows if name in top} | ({"all others": rest} if rest.sum() > 0 else {})


def excess(dataset: xr.Dataset) -> Figure:
    """What an expert's total/forward is above 3, against its tokens per step: u/(2 b).

    Dashed: only experts with tokens are updated, under uniform routing; dots: where the excess is 0.01; dotted: the
    batch that the model was trained with, if it is known.
    """
    figure, panels = grid_of_panels(1, 1)
    axes = panels[0][0]
    share = float((dataset.tokens_per_expert / dataset.batch)[0])
    last = max(float(dataset.tokens_per_expert.max()), 100 * float(dataset.expert_update.max()))
    tokens = np.geomspace(float(dataset.tokens_per_expert.min()), last, 121)
    for method, colour in zip(dataset.optimizer.values, colours(dataset.sizes["optimizer"]), strict=True):
        update = float(dataset.expert_update.sel(optimizer=method))
        enough = float(ratio.tokens_for(0.01, update=update))
        touched = ratio.touched_only(tokens / share, 1 / share, 1, update=update) - 3
        axes.plot(tokens, ratio.expert(tokens, update=update) - 3, color=colour, label=f"{method}, u = {count(update)}")
        axes.plot(tokens, touched, "--", color=colour)
        axes.plot(enough, 0.01, "o", ms=5, color=colour, mec="white", mew=0.7, zorder=3)
        axes.annotate(count(enough), (enough, 0.01), (4, 4), textcoords="offset points", fontsize=8)
    if "training_batch" in dataset.attrs:
        seen = dataset.attrs["training_batch"] * share
        axes.axvline(seen, color="0.4", lw=1, ls=":", label=f"as trained: {count(seen)} tokens")
    axes.axhline(0.01, color="0.6", lw=0.7, zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="tokens per expert and step", ylabel="total / forward \N{MINUS SIGN} 3")
    axes.set_title(dataset.attrs.get("description", ""), fontsize=9)
    legend_right(figure, axes, "FLOP per weight of the update;\ndashed: only experts with tokens;\ndots: 3.01")
    return figure
