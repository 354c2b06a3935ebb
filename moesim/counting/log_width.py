"""`moesim flops experiment=log_width`: does a tree make a wide layer cost the logarithm of its width, and what is lost?

The same leaves as one dense layer, as a flat mixture of which a linear router takes one, and as a tree: soft in
training, hard after it; and a dense layer no larger than a path of the tree, which costs as little. Counts are those of
the networks fff, fff_hard, fff_dense and fff_flat; times those of their matrix products on a chip; what accuracy is
lost is what has been published, vision alone, shown as data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.config import read
from moesim.data import shipped
from moesim.errors import InputError
from moesim.hardware.chip import Chip, chip_of, gemm_seconds
from moesim.models.network import Network
from moesim.models.tree import Tree, accuracy_lost, samples_per_leaf
from moesim.numerics.axes import axis
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.output.text import aligned, count, full, plain
from moesim.variables import AT_LEAST_ONE, check, stamp

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

KINDS = ("dense", "flat", "tree soft", "tree hard", "dense path")
"""The leaves as one layer, as a flat mixture, as a tree; and the dense layer that is as large as a path."""
MEASURED = (1, 7)
"""Levels at which the accuracy of a tree has been published."""
_VALUE_BYTES = 2.0
_ALIKE = 0.6  # of a dense layer's neurons: a path of so many and no more is about as large


def run(config: Mapping[str, Any]) -> Result:
    """The table, the figure and the counts along `widths` (neurons of all leaves)."""
    data = compared(config)
    drawn = {"log_width": figure(data)} if config.get("figures", True) else {}
    return Result(data, table(data), figures=drawn)


def compared(config: Mapping[str, Any]) -> xr.Dataset:
    """FLOP per sample and seconds per batch of every kind (kind, width), what a leaf sees and what has been lost."""
    import xarray as xr

    shape, batch = _shape(config["network"]), _batch(config["batch"])
    widths = np.atleast_1d(axis("widths", config["widths"])).astype(float)
    trees = [_tree(width, shape) for width in widths]
    depth = np.array([tree.depth for tree in trees], dtype=float)
    counts = np.array([[_counts(kind, tree, shape["input"]) for tree in trees] for kind in KINDS], dtype=float)
    by_kind = ("kind", "width")
    data = {
        "tree_depth": ("width", depth),
        "leaf_samples": ("width", samples_per_leaf(batch, depth)),
        "sample_forward": (by_kind, counts[..., 0]),
        "sample_training": (by_kind, counts[..., 1]),
        "accuracy_lost": (("series", "width"), np.array([_lost(depth, stacked) for stacked in (False, True)])),
    }
    if config.get("chip") is not None:
        chip = chip_of(config["chip"])
        seconds = [[seconds_of(kind, tree, shape["input"], batch, chip) for tree in trees] for kind in KINDS]
        data["forward_seconds"] = (by_kind, np.array(seconds))
    coords = {"kind": list(KINDS), "width": widths, "series": ["layer alone", "in a vision transformer"]}
    told = {"batch": batch, **shape}
    made = stamp(xr.Dataset(data, coords, told))
    return signed(made.assign({name: ("row", values) for name, values in _published().items()}), "flops", config)


def _shape(network: Any) -> dict[str, int]:
    spec = dict(network or {})
    if not {"depth", "leaf_width"} <= set(spec):
        raise InputError("widths: of a network that is no tree; give network=fff")
    return {"input": int(spec["input"]), **{key: int(spec.get(key, 1)) for key in ("node_width", "leaf_width")}}


def _batch(value: Any) -> float:
    values = np.atleast_1d(axis("batch", value))
    if len(values) > 1:
        raise InputError("widths: takes one batch, of all samples of a step; give batch=NUMBER")
    return float(check("flops", "batch", values[0], AT_LEAST_ONE))


def _tree(width: float, shape: Mapping[str, int]) -> Tree:
    depth = np.log2(width / shape["leaf_width"])
    if depth < -1e-9 or abs(depth - round(depth)) > 1e-9:
        raise InputError(
            f"widths: {plain(width)} is not leaf_width={shape['leaf_width']} x a power of two; give such widths"
        )
    return Tree(round(depth), shape["node_width"], shape["leaf_width"])


def _network(kind: str, tree: Tree, inputs: int) -> Network:
    file, own = {
        "dense": ("fff_dense", {"width": tree.training_width}),
        "flat": ("fff_flat", {"leaves": tree.leaves, "leaf_width": tree.leaf_width}),
        "tree soft": ("fff", {"depth": tree.depth, "node_width": tree.node_width, "leaf_width": tree.leaf_width}),
        "tree hard": ("fff_hard", {"depth": tree.depth, "node_width": tree.node_width, "leaf_width": tree.leaf_width}),
        "dense path": ("fff_dense", {"width": tree.inference_size}),
    }[kind]
    return Network.from_spec(file, {**read("network", file), "input": inputs}, **own)


def _counts(kind: str, tree: Tree, inputs: int) -> tuple[float, float]:
    """FLOP per sample of the forward pass, and of a training step without the update."""
    passes = _network(kind, tree, inputs).total(1)
    return passes.forward, passes.forward + passes.input_gradient + passes.weight_gradient


def beside(network: Any) -> str:
    """Counts per sample of the leaves of a network that is one tree, in every kind; empty for another network."""
    layers = network.get("layers") or []
    if len(layers) != 1 or "fff" not in layers[0] or not isinstance(network.get("depth"), int):
        return ""
    shape = _shape(network)
    tree = Tree(network["depth"], shape["node_width"], shape["leaf_width"])
    rows = [[f"the same {tree.leaves} leaves", "weights", "active", "forward", "input gradient", "weight gradient"]]
    for kind in KINDS:
        made = _network(kind, tree, shape["input"])
        passes = made.total(1)
        counts = (made.weights, made.active_weights, passes.forward, passes.input_gradient, passes.weight_gradient)
        rows.append([kind, *map(full, counts)])
    return "\n" + aligned(rows) + "\n"


def seconds_of(kind: str, tree: Tree, inputs: int, batch: float, chip: Chip) -> float:
    """Seconds of a forward pass of `batch` samples: each matrix product reads its weights and values and is launched.

    Of experts and of the nodes of a level those weights are read that the batch meets, which is even. A hard tree takes
    its levels one after another.
    """
    flops, moved = np.array(_products(kind, tree, float(inputs), batch), dtype=float).T
    return float(np.sum(gemm_seconds(chip, flops, moved * _VALUE_BYTES, _VALUE_BYTES) + chip.launch))


def _products(kind: str, tree: Tree, d: float, batch: float) -> list[tuple[float, float]]:
    """FLOP and values moved of each product."""

    def product(inputs: float, outputs: float, of: float = 1.0) -> tuple[float, float]:
        met = of * (1.0 - (1.0 - 1.0 / of) ** batch) if of > 1 else 1.0
        return 2.0 * batch * inputs * outputs, met * inputs * outputs + batch * (inputs + outputs)

    def layer(width: float, of: float = 1.0) -> list[tuple[float, float]]:
        return [product(d, width, of), product(width, d, of)]

    def decisions(nodes: float, together: float) -> list[tuple[float, float]]:
        inner = tree.node_width * together
        return [product(d, inner, nodes), *([product(inner, together, nodes)] if tree.node_width > 1 else [])]

    return {
        "dense": lambda: layer(tree.training_width),
        "flat": lambda: [product(d, tree.leaves), *layer(tree.leaf_width, tree.leaves)],
        "tree soft": lambda: [*(decisions(1, tree.nodes) if tree.nodes else []), *layer(tree.training_width)],
        "tree hard": lambda: [
            *(one for level in range(tree.depth) for one in decisions(2.0**level, 1)),
            *layer(tree.leaf_width, tree.leaves),
        ],
        "dense path": lambda: layer(tree.inference_size),
    }[kind]()


def _lost(depth: np.ndarray, stacked: bool) -> np.ndarray:
    """Points lost, NaN at levels that nobody has published."""
    inside = (depth >= MEASURED[0]) & (depth <= MEASURED[1])
    return np.where(inside, accuracy_lost(depth, stacked=stacked), np.nan)


_NUMBERS = ("depth", "leaf_width", "training_width", "accuracy", "lost", "epochs", "speedup")


def _published() -> dict[str, Any]:
    """Columns of the published rows, named published_*."""
    rows = shipped("fff_published.csv")
    numbers = {name: np.array([float(row[name] or "nan") for row in rows]) for name in _NUMBERS}
    words = {name: np.array([row[name] for row in rows]) for name in ("data_set", "kind", "table", "mark")}
    return {f"published_{name}": values for name, values in {**words, **numbers}.items()}


def per_level(data: xr.Dataset) -> dict[str, tuple[int, float, float]]:
    """Of each data set: rows of trees, points lost per level (least squares through 0), and the most off that line."""
    out = {}
    trees = data.where(np.isfinite(data.published_lost) & (data.published_kind == "tree"), drop=True)
    for name in dict.fromkeys(trees.published_data_set.values.tolist()):
        own = trees.where(trees.published_data_set == name, drop=True)
        deep, lost = own.published_depth.values, own.published_lost.values
        slope = float(deep @ lost / (deep @ deep))
        out[name] = (len(deep), slope, float(np.abs(lost - slope * deep).max()))
    return out


def table(data: xr.Dataset) -> str:
    """Costs by width; how they grow; what was lost per level; the published rows."""
    lines = [["width", "levels", "samples a leaf", *KINDS, "soft training", "lost", "stacked"]]
    for width in data.width.values:
        at = data.sel(width=width)
        flops = [count(float(at.sample_forward.sel(kind=kind))) for kind in KINDS]
        lost = [_points(float(value)) for value in at.accuracy_lost.values]
        training = count(float(at.sample_training.sel(kind="tree soft")))
        sizes = [f"{width:.0f}", f"{float(at.tree_depth):.0f}", f"{float(at.leaf_samples):.4g}"]
        lines.append([*sizes, *flops, training, *lost])
    parts = [
        f"FLOP per sample forward, inputs {data.attrs['input']}, leaves {data.attrs['leaf_width']} wide; soft training "
        f"is forward and backward; batch {data.attrs['batch']:.0f}; points of accuracy lost to the dense layer of that "
        "width, along the published lines (a layer alone; stacked in a vision transformer)",
        aligned(lines),
    ]
    if "forward_seconds" in data:
        clock = [["microseconds forward", *KINDS]]
        clock += [
            [f"{w:.0f}", *(f"{1e6 * float(s):.4g}" for s in data.forward_seconds.sel(width=w))] for w in data.width
        ]
        parts.append(aligned(clock))
    parts += [_growth(data), _levels(data), _rows(data)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _points(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "not measured"


def _growth(data: xr.Dataset) -> str:
    first, last = data.isel(width=0), data.isel(width=-1)
    wider = float(last.width / first.width)
    if wider == 1.0:
        return ""
    grown = [f"{kind} {float((last.sample_forward / first.sample_forward).sel(kind=kind)):.3g}" for kind in KINDS]
    return f"{wider:.4g} x the width costs in FLOP forward x: " + ", ".join(grown)


def _levels(data: xr.Dataset) -> str:
    rows = [["points lost per level at equal training width", "rows", "mean", "most off"]]
    rows += [[name, str(n), f"{slope:.2f}", f"{off:.1f}"] for name, (n, slope, off) in per_level(data).items()]
    return aligned(rows) + "\nat equal inference size: " + "; ".join(_alike(data))


def _alike(data: xr.Dataset) -> list[str]:
    """Of each data set the best tree of about the inference size of its smallest dense layer, and that."""
    out = []
    for name in dict.fromkeys(data.published_data_set.values.tolist()):
        own = data.where(data.published_data_set == name, drop=True)
        path = (own.published_depth + own.published_leaf_width).values  # the published nodes are one neuron wide
        size = own.published_training_width.where(own.published_kind == "dense").min().item()
        about = np.flatnonzero((path >= _ALIKE * size) & (path <= size))
        if not len(about):
            continue
        best = about[np.argmax(own.published_accuracy.values[about])]
        dense = own.published_accuracy.where((own.published_kind == "dense") & (own.published_training_width == size))
        tree = f"{path[best]:.0f} neurons on a path {own.published_accuracy.values[best]:g}"
        out.append(f"{name}, {tree}, a dense layer of {size:.0f} {dense.max().item():g}")
    return out


def _rows(data: xr.Dataset) -> str:
    cells = [
        ["published (arXiv:2308.14711)", "kind", "levels", "leaf", "width", "accuracy", "lost", "epochs", "speedup"]
    ]
    for i in range(data.sizes["row"]):
        at = {name: data[f"published_{name}"].values[i] for name in ("data_set", "kind", *_NUMBERS)}
        cells.append(
            [str(at["data_set"]), str(at["kind"]), *("" if np.isnan(at[n]) else f"{at[n]:g}" for n in _NUMBERS)]
        )
    return aligned(cells)


def figure(data: xr.Dataset) -> Figure:
    """FLOP and time against the width of all leaves; points lost against levels, as published."""
    from moesim.output.plots import COLOURS, DASHES, finish, grid_of_panels

    timed = "forward_seconds" in data
    drawn, panels = grid_of_panels(1, 2 + timed, (3.2, 2.8))
    shown = [("sample_forward", "FLOP per sample, forward", 1.0)]
    shown += [("forward_seconds", f"microseconds for {data.attrs['batch']:.0f} samples", 1e6)] if timed else []
    for axes, (name, label, unit) in zip(panels[0], shown, strict=False):
        for i, kind in enumerate(KINDS):
            style = {"color": COLOURS[i], "ls": DASHES[i], "marker": ".", "label": kind}
            axes.plot(data.width, unit * data[name].sel(kind=kind), **style)
        axes.set(xscale="log", yscale="log", xlabel="neurons of all leaves", ylabel=label)
    lost, deep = panels[0][-1], np.array([0.0, *MEASURED])
    for i, (name, (_, slope, _)) in enumerate(per_level(data).items()):
        own = data.where((data.published_data_set == name) & (data.published_kind == "tree"), drop=True)
        style = {"color": COLOURS[i], "ls": "", "marker": "so^Dv"[i], "ms": 4}
        lost.plot(own.published_depth, own.published_lost, **style, label=f"{name}: {slope:.2f} points a level")
        lost.plot(deep, slope * deep, color=COLOURS[i], lw=0.8)
    lost.set(xlabel="levels", ylabel="points of accuracy lost to dense", ylim=(0, None))
    return finish(drawn, "a tree of leaves, its rivals, and what has been published (arXiv:2308.14711)")
