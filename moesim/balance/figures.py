"""Figures of `moesim balance`: of a run, of policies side by side, of a trace replay and of a study over worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.intervals import interval
from moesim.errors import InputError
from moesim.models.tree import HARMLESS
from moesim.output.plots import COLOURS, DASHES, colours_of, finish, grid_of_panels, heading, titled
from moesim.output.text import count, plain
from moesim.variables import TIME_PARTS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABOUT = ("world", "routing", "structure", "sampling", "placement")
_SMALL = 0.01  # of the longest step: a part of the time that is too short to see
COMPARED = ("micro_loss", "macro_loss", "max_over_mean", "utilisation", "wall_clock", "step_time")  # of a multirun
_MARKERS = "osD^vX*P"
# Policies of the study in words.
POLICIES = {
    "static": "experts left alone",
    "eplb": "hot experts replicated (EPLB)",
    "hybrid": "split what divides, replicate the rest",
    "hybrid_feed": "the same, and feed the idle",
    "split_feed": "split the hotspots, feed the idle",
}


def draw(data: xr.Dataset) -> dict[str, Figure]:
    """Every figure that the Dataset has the variables for, by file name."""
    if "world" in data.dims:
        return {loss_: worlds(data, loss_) for loss_ in ("micro_loss", "macro_loss")}
    if "axes" in data.attrs:
        return {loss_: study(data, loss_) for loss_ in ("micro_loss", "macro_loss")}
    if "window" in data.coords:
        return {"trace": trace(data)}
    makers = {"loss": loss, "balance": balance, "time": time, "serves": serves, "family": family, "sampling": sampling}
    makers |= {"tree": tree} if "decision_entropy" in data else {}
    return {name: make(data) for name, make in makers.items()}


def _policies(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    if "policy" not in data.dims:
        return [("", data)]
    return [(str(name), data.sel(policy=name)) for name in data.policy.values]


def _styles(data: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Policy -> colour, dashes (for lines that coincide) and label."""
    shades = colours_of([name for name, _ in _policies(data)])
    return {
        name: {"color": colour, "ls": DASHES[i % len(DASHES)], "label": name or None}
        for i, (name, colour) in enumerate(shades.items())
    }


def _finish(figure: Figure, data: xr.Dataset, note: str = "") -> Figure:
    return finish(figure, heading(data, *ABOUT), note, of="policy" if "policy" in data.dims else "")


def _bands(data: xr.Dataset) -> str:
    return f"bands: 95 % t interval over {data.sizes['seed']} seeds" if data.sizes["seed"] > 1 else "one seed"


# What a quantity can be; 0 and more unless said.
_POSSIBLE = {"max_over_mean": (1.0, np.inf), "utilisation": (0.0, 1.0)}


def band(values: np.ndarray, name: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds (first axis), and the ends of its 95 % interval within what the quantity can be."""
    stats = np.array([interval(column) for column in values.T])
    low, high = _POSSIBLE.get(name, (0.0, np.inf))
    mean, half = stats.T
    return mean, np.clip(mean - half, low, high), np.clip(mean + half, low, high)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, style: dict[str, Any], name: str = "") -> None:
    mean, low, high = band(values, name)
    axes.plot(x, mean, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, lw=0)


def loss(data: xr.Dataset) -> Figure:
    """Micro and macro loss against tokens and against wall-clock. `data`: of `moesim balance` or `moesim.simulate`."""
    figure, panels = grid_of_panels(2, 2, (3.4, 2.5))
    for row, (name, label) in zip(panels, {"micro_loss": "micro", "macro_loss": "macro"}.items(), strict=True):
        for (_, own), style in zip(_policies(data), _styles(data).values(), strict=True):
            values, hours = own[name].values, own.wall_clock.values / 3600.0
            _band(row[0], own.tokens.values[0], values, style)
            grid = np.linspace(hours[:, 0].max(), hours[:, -1].min(), 200)
            at = np.array([np.interp(grid, h, v) for h, v in zip(hours, values, strict=True)])
            _band(row[1], grid, at, style)
        _window(row[0], data, name)
        row[1].set_ylim(row[0].get_ylim())
        row[0].set(ylabel=f"{label} loss (nat/token)", xlabel="tokens")
        row[0].xaxis.set_major_formatter(lambda value, _: count(value))
        row[1].set_xlabel("wall-clock (h)")
    titled(panels[0][0], "at equal tokens")
    titled(panels[0][1], "at equal wall-clock")
    return _finish(figure, data, f"micro: by natural frequency; macro: every domain alike; {_bands(data)}")


def _window(axes: Axes, data: xr.Dataset, name: str) -> None:
    """Show the part of a falling curve after its first tenth, where policies differ."""
    late = data[name].isel(step=slice(max(1, data.sizes["step"] // 10), None))
    low, high = float(late.min()), float(late.max())
    room = 0.04 * max(high - low, 1e-9)
    axes.set_ylim(low - room, high + room)


_BALANCE = {
    "max_over_mean": "busiest / mean device",
    "utilisation": "utilisation",
    "max_vio": "MaxVio of experts",
    "experts_alive": "experts",
}


def _over_steps(data: xr.Dataset, shown: dict[str, str]) -> tuple[Figure, list[Axes]]:
    """Four quantities over the steps of the run, where a policy has them."""
    figure, panels = grid_of_panels(2, 2, (3.4, 2.3))
    flat = [axes for row in panels for axes in row]
    for axes, (name, text) in zip(flat, shown.items(), strict=True):
        for (_, own), style in zip(_policies(data), _styles(data).values(), strict=True):
            if np.isfinite(own[name].values).all():
                _band(axes, own.step.values, own[name].values.astype(float), style, name)
        axes.set(ylabel=text, xlabel="step", xscale="log")  # most happens early
    return figure, flat


_TREE = {
    "decision_entropy": "entropy of a decision (nat)",
    "rounding": "tokens that rounding moves",
    "node_tilt": "most load of a branch above fair",
    "step_time": "time of a step (s)",
}


def tree(data: xr.Dataset) -> Figure:
    """How decisions harden, what rounding them would move, how uneven they are, and what a step takes meanwhile."""
    figure, flat = _over_steps(data, _TREE)
    flat[0].axhline(HARMLESS, color="0.5", lw=0.8, ls=":")
    for axes in flat:
        axes.set_ylim(0, None)
    return _finish(figure, data, f"dotted: below it rounding is harmless; {_bands(data)}")


def balance(data: xr.Dataset) -> Figure:
    """Busiest over mean device, MaxVio of experts, utilisation and number of experts over the run."""
    figure, flat = _over_steps(data, _BALANCE)
    flat[0].axhline(1.0, color="0.5", lw=0.8, ls=":")
    flat[1].set_ylim(0, 1)
    flat[3].locator_params(axis="y", integer=True)
    return _finish(figure, data, _bands(data))


def time(data: xr.Dataset) -> Figure:
    """Mean step time by part: of one run a bar for each part, of several policies a stacked bar for each."""
    runs = _policies(data)
    parts = [f"time_{part}" for part in TIME_PARTS]
    means = {part: np.array([float(own[part].mean()) for _, own in runs]) for part in parts}
    longest = max(np.sum(list(means.values()), axis=0))
    shown = [part for part in parts if means[part].max() > _SMALL * longest]
    words = {f"time_{part}": said for part, said in TIME_PARTS.items()}
    figure, panels = grid_of_panels(1, 1, (5.6, 0.35 * max(len(runs), len(shown) if len(runs) == 1 else 0) + 0.7))
    axes, left = panels[0][0], np.zeros(len(runs))
    for part, colour in zip(shown, COLOURS, strict=False):
        if len(runs) == 1:
            bars = axes.barh([words[part]], means[part], color=colour, height=0.7)
            axes.bar_label(bars, [f" {means[part][0]:.3g} s, {means[part][0] / longest:.0%}"], fontsize=8)
        else:
            axes.barh([n for n, _ in runs], means[part], left=left, label=words[part], color=colour, height=0.7)
        left += means[part]
    axes.invert_yaxis()
    axes.margins(x=0.2 if len(runs) == 1 else 0.02)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time of a step (s), mean of the run")
    rest = [words[part] for part in parts if part not in shown and means[part].max() > 0]
    note = f"too short to draw: {', '.join(rest)}" if rest else ""
    return finish(figure, heading(data, *ABOUT), note)


def serves(data: xr.Dataset) -> Figure:
    """Which expert serves which domain in the last step (first seed): share of a domain's tokens."""
    shown = _policies(data)[:4]
    figure, panels = grid_of_panels(1, len(shown), (3.2, 3.2), sharey=True)
    shares = [_share(own) for _, own in shown]
    whole = all(np.all((share < 0.01) | (share > 0.99)) for share in shares)
    for axes, (policy, _), share in zip(panels[0], shown, shares, strict=True):
        image = axes.imshow(share, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel("expert, by its main domain")
        titled(axes, policy)
        axes.grid(visible=False)
        axes.locator_params(axis="x", integer=True)
    panels[0][0].set_ylabel("domain, most frequent first")
    if not whole:
        figure.colorbar(image, ax=panels[0][-1], label="share of the domain's tokens")
    note = "last step, first seed" + ("; dark: the expert serves the domain alone" if whole else "")
    return finish(figure, heading(data, *ABOUT), note)


def _share(own: xr.Dataset) -> np.ndarray:
    """Share of each domain's tokens (row, most frequent first) that each expert there serves."""
    first = own.isel(seed=0)
    order = np.argsort(-first.natural_weight.values, kind="stable")
    tokens = first.expert_tokens.transpose("domain", "expert").values[order]
    share = tokens / np.maximum(tokens.sum(axis=1, keepdims=True, dtype=float), 1e-300)
    there = np.flatnonzero(first.alive.isel(step=-1).values)
    return share[:, there[np.argsort(share[:, there].argmax(axis=0), kind="stable")]]


def family(data: xr.Dataset) -> Figure:
    """The family tree of experts (first seed): when each was split off, from whom, and how much it carries."""
    shown = [(name, own.isel(seed=0)) for name, own in _policies(data)]
    grown = [(name, own) for name, own in shown if (own.parent.values >= 0).any()] or shown[:1]
    figure, panels = grid_of_panels(1, min(len(grown), 3), (3.8, 3.6))
    for axes, (policy, own) in zip(panels[0], grown, strict=False):
        _tree(axes, own)
        titled(axes, policy)
    panels[0][0].set_ylabel("expert, children above their parent")
    note = "first seed; line width: mean load; orange: split off during the run"
    return finish(figure, heading(data, *ABOUT), note)


def _tree(axes: Axes, own: xr.Dataset) -> None:
    parent, born = own.parent.values.astype(int), own.born.values
    height = {expert: i for i, expert in enumerate(_depth_first(parent, own.alive.isel(step=-1).values))}
    steps, loads = own.step.values, own.loads.transpose("step", "expert").values
    scale = loads.sum(axis=1).mean() / max(len(height), 1)
    for expert, y in height.items():
        seen = steps >= born[expert]
        width = np.clip(1.2 * loads[seen, expert].mean() / scale, 0.3, 6.0)
        axes.hlines(y, born[expert], steps[-1], color=COLOURS[0] if parent[expert] < 0 else COLOURS[1], lw=width)
        if parent[expert] in height:
            axes.vlines(born[expert], height[parent[expert]], y, color="0.4", lw=0.8)
    axes.set_yticks(list(height.values()), [str(e) for e in height], fontsize=6)
    axes.set_xlabel("step")
    if not (parent >= 0).any():
        axes.text(0.5, 0.5, "no expert was split", transform=axes.transAxes, ha="center", color="0.4")


def _depth_first(parent: np.ndarray, there: np.ndarray) -> list[int]:
    def below(expert: int) -> list[int]:
        return [expert, *(e for child in np.flatnonzero(parent == expert) for e in below(int(child)))]

    line = [e for root in np.flatnonzero(parent < 0) for e in below(int(root))]
    return [e for e in line if there[e] or e in parent]


def sampling(data: xr.Dataset) -> Figure:
    """Share of all drawn tokens against natural frequency (first seed)."""
    figure, panels = grid_of_panels(1, 1, (4.4, 3.2))
    axes, ends = panels[0][0], [np.inf, 0.0]
    for i, ((_, own), style) in enumerate(zip(_policies(data), _styles(data).values(), strict=True)):
        first = own.isel(seed=0)
        x, y = first.natural_weight.values, first.domain_tokens.values / first.domain_tokens.values.sum()
        axes.scatter(x, y, s=14, alpha=0.8, color=style["color"], marker=_MARKERS[i % 8], label=style["label"])
        ends = [min(ends[0], x.min()), max(ends[1], x.max())]
    axes.plot(ends, ends, color="0.5", lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log", xlabel="natural frequency of a domain", ylabel="share of the tokens drawn")
    return _finish(figure, data, "first seed; dotted: drawn as frequent as natural")


_TRACE = {
    "max_over_mean": "busiest / mean device",
    "utilisation": "utilisation",
    "step_time": "time of a step (s)",
    "moved_copies": "copies moved before the window",
}


def trace(data: xr.Dataset) -> Figure:
    """Each recorded window under the placement planned on the one before: balance, utilisation, time, moved copies."""
    figure, panels = grid_of_panels(1, 4, (2.7, 2.8))
    windows, runs = [str(w) for w in data.window.values], _policies(data)
    place, height = np.arange(len(windows)), 0.8 / len(runs)
    for axes, (name, text) in zip(panels[0], _TRACE.items(), strict=True):
        for i, ((_, own), style) in enumerate(zip(runs, _styles(data).values(), strict=True)):
            y = place + height * (i - (len(runs) - 1) / 2)
            axes.barh(y, own[name].isel(seed=0), height=height, color=style["color"], label=style["label"])
        axes.set_yticks(place, windows if axes is panels[0][0] else [""] * len(windows))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(text)
    hindsight = runs[0][1].max_over_mean_hindsight.isel(seed=0)
    panels[0][0].plot(hindsight, place, "D", ms=5, color="white", mec="black", label="EPLB with hindsight")
    panels[0][0].set_ylabel("window")
    return _finish(figure, data, "each window is planned on the one before, the first on even loads")


def compared(data: xr.Dataset) -> Figure:
    """A multirun in one figure: loss, balance and time at the last step, a row for each job that is done."""
    dims = [str(dim) for dim in data.job_status.dims]
    jobs = data.stack(job=dims)
    jobs = jobs.isel(job=(jobs.job_status == "done").values)
    labels = [", ".join(map(str, np.atleast_1d(one))) for one in jobs.job.values.tolist()]
    names = [name for name in COMPARED if name in jobs]
    figure, panels = grid_of_panels(1, len(names), (2.3, 0.26 * len(labels) + 0.8), sharey=True)
    place = np.arange(len(labels))
    for axes, name in zip(panels[0], names, strict=True):
        last = jobs[name].isel(step=-1)
        values = last.transpose("job", "seed").values if "seed" in last.dims else last.values[:, None]
        stats = np.array([interval(one[np.isfinite(one)]) for one in values])
        axes.errorbar(stats[:, 0], place, xerr=stats[:, 1], fmt="o", ms=5, capsize=2, color=COLOURS[0])
        unit = data[name].attrs.get("units", "1")
        axes.set_xlabel(name.replace("_", " ") + (f" ({unit})" if unit != "1" else ""))
        axes.locator_params(axis="x", nbins=4)
    panels[0][0].set_yticks(place, labels)
    panels[0][0].invert_yaxis()
    note = f"error bars: 95 % t interval over {data.sizes['seed']} seeds" if data.sizes.get("seed", 1) > 1 else ""
    return finish(figure, f"{', '.join(dims)}: at the last step; {heading(data, *ABOUT)}".rstrip("; "), note)


def worlds(data: xr.Dataset, loss: str = "micro_loss") -> Figure:
    """split_feed minus the best rival in every world of a study, at equal tokens and at equal wall-clock."""
    gaps = {
        said: data[f"gap_to_best_{loss}_at_equal_{b}"] for b, said in (("tokens", "tokens"), ("time", "wall-clock"))
    }
    order = np.argsort(gaps["wall-clock"].mean("seed").values, kind="stable")
    figure, panels = grid_of_panels(1, 2, (3.2, 0.16 * len(order) + 0.8), sharey=True)
    place = np.arange(len(order))
    for axes, (said, gap) in zip(panels[0], gaps.items(), strict=True):
        stats = np.array([interval(column) for column in gap.transpose("world", "seed").values[order]])
        axes.errorbar(stats[:, 0], place, xerr=stats[:, 1], fmt="o", ms=3, capsize=1, lw=0.8, color=COLOURS[0])
        axes.axvline(0.0, color="0.3", lw=0.8)
        axes.set_xlabel(f"gap at equal {said} (nat/token)")
    panels[0][0].set_yticks(place, data.world.values[order].tolist(), fontsize=5)
    panels[0][0].invert_yaxis()
    what = f"{loss.replace('_', ' ')} of split_feed minus that of the best rival of each world; below 0: better"
    return finish(figure, what, f"error bars: 95 % t interval over {data.sizes['seed']} seeds")


_AXES = {
    "rho": "transfer between domains (rho)",
    "skew": "skew of domain frequencies (Zipf s)",
    "exponent": "learning exponent a",
    "indivisible": "largest indivisible share",
    "temperature": "router temperature",
    "experts": "experts",
    "dense_ratio": "balanced / expert time",
}


def study(data: xr.Dataset, loss: str = "micro_loss") -> Figure:
    """split_feed minus each policy along every axis of a study over worlds, at equal tokens and at equal wall-clock.

    `loss`: micro_loss, macro_loss or tail_loss.
    """
    names = str(data.attrs["axes"]).split(", ")
    rivals = [str(p) for p in data.policy.values if p != "split_feed"]
    if not rivals:
        raise InputError("figures: the study has no policy besides split_feed; add one to policies")
    figure, panels = grid_of_panels(2, len(names), (2.8, 2.6), sharey="row", sharex="col")
    shades = colours_of(rivals)
    for row, (budget, said) in zip(panels, {"tokens": "tokens", "time": "wall-clock"}.items(), strict=True):
        for axes, name in zip(row, names, strict=True):
            gap = data[f"gap_{loss}_at_equal_{budget}"].mean([n for n in names if n != name])
            for i, rival in enumerate(rivals):
                stats = [interval(column) for column in gap.sel(policy=rival).transpose("seed", name).values.T]
                x = np.arange(len(data[name])) + 0.1 * (i - (len(rivals) - 1) / 2)
                style = {"color": shades[rival], "marker": _MARKERS[i % 8], "ms": 4, "lw": 1.2, "capsize": 2}
                y, bar = np.array(stats).T
                axes.errorbar(x, y, bar, label=f"{rival}: {POLICIES.get(rival, rival)}", **style)
            axes.axhline(0.0, color="0.3", lw=0.8)
            axes.set_xticks(np.arange(len(data[name])), [plain(v) for v in data[name].values])
            if row is panels[1]:
                axes.set_xlabel(_AXES.get(name, name))
        limit = max(abs(v) for v in row[0].get_ylim())
        row[0].set(ylim=(-limit, limit), ylabel=f"gap at equal {said}\n(nat/token)")
    what = f"{loss.replace('_', ' ')} of split_feed ({POLICIES['split_feed']}) minus that of another policy; below 0:"
    bars = f"mean over all other axes; error bars: 95 % t interval over {data.sizes['seed']} seeds"
    return finish(figure, f"{what} split_feed is better", bars, of="the other policy")
