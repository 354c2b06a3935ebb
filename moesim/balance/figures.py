"""Figures of a run, of policies side by side, of a trace replay and of a study; no pyplot, no global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.intervals import interval
from moesim.errors import InputError
from moesim.variables import TIME_PARTS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Named = tuple[str, "Figure"]

# Colours that stay apart in grey and for most colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1)), (0, (6, 1, 1, 1)), "-", (0, (3, 3)))


def _figure(rows: int, columns: int, width: float = 4.6, height: float = 3.4) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=130)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.5)
    return figure, axes


def _policies(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    if "policy" not in data.dims:
        return [("", data)]
    return [(str(name), data.sel(policy=name)) for name in data.policy.values]


def _band(axis: Axes, x: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    """Mean over seeds (first axis) with its 95 % interval; each colour has its dashes, for lines that coincide."""
    stats = np.array([interval(column) for column in values.T])
    dashes = _DASHES[COLOURS.index(colour) % len(_DASHES)]
    axis.plot(x, stats[:, 0], label=label or None, color=colour, linewidth=1.6, linestyle=dashes)
    axis.fill_between(x, stats[:, 0] - stats[:, 1], stats[:, 0] + stats[:, 1], color=colour, alpha=0.2, linewidth=0)


def _legend(axis: Axes, **kwargs: Any) -> None:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(frameon=False, fontsize=8, **kwargs)


def of_run(data: xr.Dataset) -> list[Named]:
    """Every figure of a run or of policies side by side, by name."""
    makers: dict[str, Callable[[xr.Dataset], Figure]] = {
        "loss": loss,
        "balance": balance,
        "time": time_parts,
        "serves": serves,
        "family": family,
        "sampling": weights,
    }
    return [(name, make(data)) for name, make in makers.items()]


def loss(data: xr.Dataset) -> Figure:
    """Micro and macro loss against tokens and against wall-clock."""
    figure, axes = _figure(2, 2)
    for row, (name, label) in enumerate({"micro_loss": "micro loss", "macro_loss": "macro loss"}.items()):
        for (policy, own), colour in zip(_policies(data), COLOURS * 9, strict=False):
            values = own[name].values
            _band(axes[row, 0], own.tokens.values[0], values, policy, colour)
            hours = own.wall_clock.values / 3600.0
            grid = np.linspace(hours[:, 0].max(), hours[:, -1].min(), 200)
            at = np.array([np.interp(grid, h, v) for h, v in zip(hours, values, strict=True)])
            _band(axes[row, 1], grid, at, policy, colour)
        _window(axes[row, 0], data, name)
        axes[row, 1].set_ylim(axes[row, 0].get_ylim())
        axes[row, 0].set_ylabel(f"{label} (nat/token)")
        axes[row, 0].set_xlabel("tokens")
        axes[row, 1].set_xlabel("wall-clock (h)")
    axes[0, 0].set_title("at equal tokens", fontsize=10)
    axes[0, 1].set_title("at equal wall-clock", fontsize=10)
    _legend(axes[0, 0])
    return figure


def _window(axis: Axes, data: xr.Dataset, name: str) -> None:
    """Show the part of a falling curve after its first tenth, where policies differ."""
    late = data[name].isel(step=slice(max(1, data.sizes["step"] // 10), None))
    low, high = float(late.min()), float(late.max())
    axis.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def balance(data: xr.Dataset) -> Figure:
    """Busiest over mean device, MaxVio of experts, utilisation and number of experts over the run."""
    figure, axes = _figure(2, 2)
    labels = {
        "max_over_mean": "busiest / mean device",
        "utilisation": "utilisation",
        "max_vio": "MaxVio of experts",
        "experts_alive": "experts",
    }
    for axis, (name, label) in zip(axes.flat, labels.items(), strict=True):
        for (policy, own), colour in zip(_policies(data), COLOURS * 9, strict=False):
            _band(axis, own.step.values, own[name].values.astype(float), policy, colour)
        axis.set_ylabel(label)
        axis.set_xlabel("step")
    axes[0, 0].axhline(1.0, color="0.5", linewidth=0.8, linestyle=":")
    axes[0, 1].set_ylim(0, 1)
    axes[1, 1].yaxis.get_major_locator().set_params(integer=True)
    _legend(axes[0, 1], loc="lower right")
    return figure


def time_parts(data: xr.Dataset) -> Figure:
    """Mean step time by part, one bar per policy."""
    figure, axes = _figure(1, 1, width=6.0)
    axis, names = axes[0, 0], [name or "run" for name, _ in _policies(data)]
    left = np.zeros(len(names))
    for (part, label), colour in zip(TIME_PARTS.items(), COLOURS, strict=False):
        width = np.array([float(own[f"time_{part}"].mean()) for _, own in _policies(data)])
        axis.barh(names, width, left=left, label=label, color=colour, height=0.7)
        left += width
    axis.invert_yaxis()
    axis.set_xlabel("time of a step (s), mean of the run")
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def serves(data: xr.Dataset) -> Figure:
    """Which expert serves which domain in the last step (first seed): share of a domain's tokens."""
    shown = _policies(data)[:4]
    figure, axes = _figure(1, len(shown), width=4.2, height=4.2)
    for axis, (policy, own) in zip(axes[0], shown, strict=True):
        first = own.isel(seed=0)
        order = np.argsort(-first.natural_weight.values, kind="stable")
        tokens = first.expert_tokens.transpose("domain", "expert").values[order]
        share = tokens / np.maximum(tokens.sum(axis=1, keepdims=True), 1e-300)
        there = np.flatnonzero(first.alive.isel(step=-1).values)
        ranked = there[np.argsort(share[:, there].argmax(axis=0), kind="stable")]
        image = axis.imshow(share[:, ranked], aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xlabel("expert, by its main domain")
        axis.set_title(policy, fontsize=10)
        axis.grid(visible=False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel("domain, most frequent first")
    figure.colorbar(image, ax=axes[0, -1], label="share of the domain's tokens")
    return figure


def family(data: xr.Dataset) -> Figure:
    """The family tree of experts (first seed): when each was split off, from whom, and how much it carries."""
    shown = [(name, own.isel(seed=0)) for name, own in _policies(data)]
    grown = [(name, own) for name, own in shown if (own.parent.values >= 0).any()] or shown[:1]
    figure, axes = _figure(1, min(len(grown), 3), width=4.8, height=4.4)
    for axis, (policy, own) in zip(axes[0], grown, strict=False):
        _tree(axis, own)
        axis.set_title(policy, fontsize=10)
    axes[0, 0].set_ylabel("expert, children above their parent")
    return figure


def _tree(axis: Axes, own: xr.Dataset) -> None:
    parent, born = own.parent.values.astype(int), own.born.values
    height = {expert: i for i, expert in enumerate(_depth_first(parent, own.alive.isel(step=-1).values))}
    steps, loads = own.step.values, own.loads.transpose("step", "expert").values
    scale = loads.sum(axis=1).mean() / max(len(height), 1)
    for expert, y in height.items():
        seen = steps >= born[expert]
        width = np.clip(1.2 * loads[seen, expert].mean() / scale, 0.3, 6.0)
        axis.hlines(y, born[expert], steps[-1], color=COLOURS[0] if parent[expert] < 0 else COLOURS[1], linewidth=width)
        if parent[expert] in height:
            axis.vlines(born[expert], height[parent[expert]], y, color="0.4", linewidth=0.8)
    axis.set_yticks(list(height.values()), [str(e) for e in height], fontsize=6)
    axis.set_xlabel("step (line width: mean load)")
    if not (parent >= 0).any():
        axis.text(0.5, 0.5, "no expert was split", transform=axis.transAxes, ha="center", color="0.4")


def _depth_first(parent: np.ndarray, there: np.ndarray) -> list[int]:
    def below(expert: int) -> list[int]:
        return [expert, *(e for child in np.flatnonzero(parent == expert) for e in below(int(child)))]

    line = [e for root in np.flatnonzero(parent < 0) for e in below(int(root))]
    return [e for e in line if there[e] or e in parent]


def weights(data: xr.Dataset) -> Figure:
    """Share of all drawn tokens against natural frequency (first seed)."""
    figure, axes = _figure(1, 1, width=5.0, height=4.2)
    axis = axes[0, 0]
    lowest, highest = np.inf, 0.0
    for i, (policy, own) in enumerate(_policies(data)):
        first = own.isel(seed=0)
        x, y = first.natural_weight.values, first.domain_tokens.values / first.domain_tokens.values.sum()
        axis.scatter(
            x, y, s=12, alpha=0.8, color=COLOURS[i % len(COLOURS)], marker="osD^vX*P"[i % 8], label=policy or None
        )
        lowest, highest = min(lowest, x.min()), max(highest, x.max())
    axis.plot([lowest, highest], [lowest, highest], color="0.5", linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("natural frequency of a domain")
    axis.set_ylabel("share of the tokens drawn")
    _legend(axis)
    return figure


def of_trace(data: xr.Dataset) -> list[Named]:
    """Busiest over mean device per window, beside the best that hindsight allows."""
    figure, axes = _figure(1, 2)
    windows = [str(w) for w in data.window.values]
    for (policy, own), colour in zip(_policies(data), COLOURS * 9, strict=False):
        line = own.isel(seed=0)
        axes[0, 0].plot(
            windows, line.max_over_mean.values, marker="o", markersize=4, label=policy or "replayed", color=colour
        )
        axes[0, 1].plot(windows, line.utilisation.values, marker="o", markersize=4, color=colour)
    hindsight = _policies(data)[0][1].max_over_mean_hindsight.isel(seed=0).values
    axes[0, 0].plot(windows, hindsight, color="0.5", linestyle=":", label="EPLB with hindsight")
    axes[0, 0].set_ylabel("busiest / mean device")
    axes[0, 1].set_ylabel("utilisation")
    axes[0, 1].set_ylim(0, 1)
    for axis in axes[0]:
        axis.set_xlabel("window; planned on the one before")
        axis.tick_params(axis="x", rotation=45 if max(map(len, windows)) > 3 else 0)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False, fontsize=8
    )
    return [("trace", figure)]


_PLAIN = {
    "rho": "transfer between domains (rho)",
    "skew": "skew of domain frequencies (Zipf s)",
    "exponent": "learning exponent a",
    "indivisible": "largest indivisible share",
    "temperature": "router temperature",
    "experts": "experts",
    "dense_ratio": "balanced / expert time",
}


def of_study(data: xr.Dataset) -> list[Named]:
    """For micro and macro loss: split_feed minus each policy along every axis, at equal tokens and equal wall-clock."""
    names = str(data.attrs["axes"]).split(", ")
    return [(loss_, _gaps(data, names, loss_)) for loss_ in ("micro_loss", "macro_loss")]


def _gaps(data: xr.Dataset, names: Sequence[str], loss_: str) -> Figure:
    figure, axes = _figure(2, len(names), width=3.4, height=3.0)
    rivals = [str(p) for p in data.policy.values if p != "split_feed"]
    if not rivals:
        raise InputError("figures: the study has no policy besides split_feed; add one to policies")
    for row, budget in enumerate(("tokens", "time")):
        gap = data[f"gap_{loss_}_at_equal_{budget}"]
        for axis, name in zip(axes[row], names, strict=True):
            for i, rival in enumerate(rivals):
                own = gap.sel(policy=rival).mean([n for n in names if n != name]).transpose("seed", name).values
                stats = np.array([interval(column) for column in own.T])
                x = np.arange(len(data[name])) + 0.08 * (i - (len(rivals) - 1) / 2)
                axis.errorbar(x, stats[:, 0], stats[:, 1], color=COLOURS[i], marker="osD^vX"[i % 6], markersize=4,
                              linewidth=1.2, capsize=2, label=f"against {rival}")  # fmt: skip
            axis.axhline(0.0, color="0.3", linewidth=0.8)
            axis.set_xticks(np.arange(len(data[name])), [f"{v:g}" for v in data[name].values])
            axis.set_xlabel(_PLAIN.get(name, name))
        limit = max(abs(v) for axis in axes[row] for v in axis.get_ylim())
        for axis in axes[row]:
            axis.set_ylim(-limit, limit)
        axes[row, 0].set_ylabel(
            f"split+feed minus policy,\n{loss_.replace('_', ' ')} (nat/token)\nat equal {_SAID[budget]}"
        )
    axes[0, 0].text(
        0.03, 0.92, "below 0: split+feed is better", transform=axes[0, 0].transAxes, fontsize=8, color="0.35"
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(rivals), frameon=False, fontsize=9)
    return figure


_SAID = {"tokens": "tokens", "time": "wall-clock"}
