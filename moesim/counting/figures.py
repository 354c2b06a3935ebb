"""The figures of `moesim flops`: ratios against batch and depth, where FLOPs go, and what updates add for an expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.models import ratio
from moesim.output.plots import COLOURS, DASHES, colours_of, finish, grid_of_panels, spread
from moesim.output.text import count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GUIDES = (1, 2, 3)
_AT_MOST, _DEEP = 7, 24  # layers told apart in a bar; more are grouped
_SMALL, _SHORT = 0.004, 0.02  # shares of a layer, of a pass, too small to see
_FLAT = 0.01  # of its last value: a ratio that moves less is level
_RATIO = "backward and update / forward"


def draw(dataset: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the dims for, by file name."""
    drawn = {}
    if "sequence" in dataset.dims:
        drawn["flops_by_sequence"] = flops_by_sequence(dataset)
        longest = dataset.isel(sequence=-1)
        dataset = longest.assign_attrs(shown=f"{longest.sequence.item():,.0f} tokens per sequence")
    if dataset.sizes["batch"] > 1 and "depth" not in dataset.dims:
        drawn["ratio_by_batch"] = ratio_by_batch(dataset)
    if dataset.sizes.get("depth", 0) > 1:
        drawn["ratio_by_depth"] = ratio_by_depth(dataset)
    if not {"network", "depth"} & set(dataset.dims):
        drawn["flops_by_layer"] = flops_by_layer(dataset)
        if "tokens_per_expert" in dataset and _whole_experts(dataset):
            drawn["expert_update"] = expert_update(dataset)
    return drawn


def _about(dataset: xr.Dataset) -> str:
    names = dict.fromkeys(dataset.attrs.get("names", "").split(", "))
    about = ": ".join(filter(None, (", ".join(names), dataset.attrs.get("description"))))
    return f"{about}; {dataset.attrs['shown']}" if "shown" in dataset.attrs else about


def flops_by_sequence(dataset: xr.Dataset) -> Figure:
    """Training FLOP per token against the length of a sequence: a line for each convention, or model by `exact`."""
    data = dataset.flops_per_token
    dim = "network" if "network" in data.dims else "convention"
    data = data.sel(convention="exact") if dim == "network" else data
    figure, panels = grid_of_panels(1, 1, (5.2, 3.0))
    axes = panels[0][0]
    for i, (name, colour) in enumerate(colours_of([str(name) for name in data[dim].values]).items()):
        style = {"ls": DASHES[i % len(DASHES)], "marker": ".", "color": colour}
        axes.plot(data.sequence, data.sel({dim: name}), label=name, **style)
    axes.set(xlabel="tokens per sequence", ylabel="training FLOP per token", ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: count(value))
    return finish(figure, _about(dataset), of=dim)


def ratio_by_batch(dataset: xr.Dataset) -> Figure:
    """Backward/forward ratio against batch size: a colour for each network, dashes for each optimiser.

    Up to four times the batch at which the last of them is level, and at least one batch further.
    """
    data = dataset.backward_to_forward.sortby("batch")
    data = data if "network" in data.dims else data.expand_dims(network=[dataset.attrs.get("names", "")])
    figure, panels = grid_of_panels(1, 1, (5.2, 3.0))
    axes, moves = panels[0][0], np.abs(data / data.isel(batch=-1) - 1) > _FLAT
    moving = data.batch.values[moves.any([d for d in moves.dims if d != "batch"]).values]
    shown = data.sel(batch=data.batch <= _until(data.batch.values, moving.max())) if moving.size else data
    for height in _GUIDES:
        axes.axhline(height, color="0.6", lw=0.7, zorder=0)
    shades = colours_of([str(name) for name in data.network.values])
    for network, colour in shades.items():
        for i, method in enumerate(data.optimizer.values):
            line, style = shown.sel(network=network, optimizer=method), DASHES[i % len(DASHES)]
            text = f"{network}, {method}" if len(shades) > 1 else str(method)
            axes.plot(line.batch, line, ls=style, color=colour, label=text, lw=2.6 - 1.2 * min(i, 1))
    _batch_axes(axes, float(shown.min()), float(shown.max()))
    axes.set(xlabel=f"batch ({_unit(dataset)}s per step)", ylabel=_RATIO)
    note = "" if moving.size == 0 or shown.sizes["batch"] == data.sizes["batch"] else "larger batches: level"
    return finish(figure, _about(dataset), note)


def _until(batches: np.ndarray, moving: float) -> float:
    return max(4 * moving, batches[batches > moving].min())


def _unit(dataset: xr.Dataset) -> str:
    return "token" if "params" in dataset else "sample"


def _batch_axes(axes: Axes, low: float, high: float) -> None:
    """Ratios up to about 4 on a linear axis from 0.9; larger ones on a log axis."""
    axes.set_xscale("log")
    if high > 5:
        axes.set_yscale("log")
    else:
        axes.set_ylim(min(0.9, low - 0.1), max(3.1, high + 0.1))


def ratio_by_depth(dataset: xr.Dataset) -> Figure:
    """Backward/forward ratio against the number of intermediate layers: a colour for each batch, dashes each rule."""
    figure, panels = grid_of_panels(1, 1, (5.2, 3.0))
    axes = panels[0][0]
    batches, methods = spread(dataset.batch.values, 4), list(dataset.optimizer.values)
    for i, batch in enumerate(batches):
        for j, method in enumerate(methods):
            line = dataset.backward_to_forward.sel(batch=batch, optimizer=method)
            width = 5.0 - 3.8 * (i * len(methods) + j) / max(len(batches) * len(methods) - 1, 1)  # lines may coincide
            style = {"ls": DASHES[j % len(DASHES)], "marker": ".", "color": COLOURS[i], "lw": width}
            axes.plot(line.depth, line, label=f"batch {plain(batch)}, {method}", **style)
    axes.axhline(2, color="0.6", lw=0.7, zorder=0)
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xlim(left=-0.3)
    ticks = dataset.depth.values
    axes.set_xticks(ticks, [plain(n) for n in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="intermediate layers", ylabel=_RATIO)
    return finish(figure, _about(dataset))


def flops_by_layer(dataset: xr.Dataset) -> Figure:
    """Where the FLOPs go: a bar for each pass, in parts for the layers that cost most, per sample or token.

    Networks at the smallest batch, models at the largest. Parts are labelled with their share of the pass; passes too
    small to see are named above.
    """
    at = dataset.isel(batch=-1 if "params" in dataset else 0, optimizer=0)
    per_sample = at.flops / at.batch
    sums = {str(name): float(per_sample.sel({"pass": name}).sum()) for name in at["pass"].values}
    shown = [name for name, total in sums.items() if total > _SHORT * max(sums.values())]
    small = [f"{_words(name)} {count(total)}" for name, total in sums.items() if total > 0 and name not in shown]
    figure, panels = grid_of_panels(1, 1, (6.2, 0.45 * len(shown) + 0.6))
    axes, parts = panels[0][0], _largest(per_sample.sel({"pass": shown}))
    left, totals = np.zeros(len(shown)), np.sum(list(parts.values()), axis=0)
    for (name, values), colour in zip(parts.items(), (*COLOURS, "#444444"), strict=False):
        bars = axes.barh([*map(_words, shown)], values, left=left, color=colour, label=name, zorder=2)
        shares = [f"{v / t:.0%}" if v > 0.05 * max(totals) else "" for v, t in zip(values, totals, strict=True)]
        axes.bar_label(bars, shares, label_type="center", fontsize=8, color=_readable_on(colour))
        left = left + values
    for row, total in enumerate(totals):
        axes.annotate(count(total), (total, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: count(value))
    where = f"{plain(at.optimizer.item())}, batch {count(at.batch.item())}"
    axes.set(xlabel=f"FLOP per {_unit(dataset)} ({where})")
    note = f"too small to draw: {', '.join(small)}" if small else ""
    return finish(figure, _about(dataset), note, of="layer")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _readable_on(colour: str) -> str:
    """Black or white, whichever stands out more from the colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 150 else "black"


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


def _whole_experts(dataset: xr.Dataset) -> bool:
    """Whether nothing is recomputed or left out of what experts cost, but for the update of those without tokens."""
    method = dataset.isel(optimizer=0)
    update, tokens = float(method.expert_update), method.tokens_per_expert.values
    touched = ratio.touched_only(method.batch.values, method.batch.values / tokens, 1, update=update)
    laws = (ratio.expert(tokens, update=update), touched)
    return any(np.allclose(method.expert_ratio.values, law, rtol=0.02) for law in laws)


def expert_update(dataset: xr.Dataset) -> Figure:
    """What the update adds to an expert's total/forward above 3, against its tokens per step: u/(2 b).

    Dashed: only experts with tokens are updated, under uniform routing; dots: where total/forward is 3.01; dotted: the
    batch that the model was trained with, if it is known.
    """
    figure, panels = grid_of_panels(1, 1, (5.2, 3.0))
    axes = panels[0][0]
    share = float((dataset.tokens_per_expert / dataset.batch)[0])
    last = max(float(dataset.tokens_per_expert.max()), 100 * float(dataset.expert_update.max()))
    tokens = np.geomspace(float(dataset.tokens_per_expert.min()), last, 121)
    for method, colour in colours_of([str(name) for name in dataset.optimizer.values]).items():
        update = float(dataset.expert_update.sel(optimizer=method))
        enough = float(ratio.tokens_for(0.01, update=update))
        touched = ratio.touched_only(tokens / share, 1 / share, 1, update=update) - 3
        every = ratio.expert(tokens, update=update) - 3
        axes.plot(tokens, every, color=colour, label=f"{method}: u = {count(update)} FLOP per weight")
        axes.plot(tokens, touched, "--", color=colour)
        axes.plot(enough, 0.01, "o", ms=5, color=colour, mec="white", mew=0.7, zorder=3)
        axes.annotate(count(enough), (enough, 0.01), (4, 4), textcoords="offset points", fontsize=8)
    if "training_batch" in dataset.attrs:
        seen = dataset.attrs["training_batch"] * share
        axes.axvline(seen, color="0.4", lw=1, ls=":", label=f"as trained: {count(seen)} tokens")
    axes.axhline(0.01, color="0.6", lw=0.7, zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="tokens per expert and step", ylabel="total / forward \N{MINUS SIGN} 3")
    note = "dashed: only experts with tokens are updated; dots: tokens from which total/forward is below 3.01"
    return finish(figure, _about(dataset), note)
