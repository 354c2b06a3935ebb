"""What `moesim balance` prints: of a run or policies side by side, of a trace replay, of a study over worlds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from moesim.balance.figures import ABOUT, COMPARED
from moesim.balance.intervals import interval, verdicts
from moesim.balance.study import BUDGETS, CLAIM, LOSSES
from moesim.output.plots import heading
from moesim.output.text import aligned, coordinate

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {
    "micro_loss": "{:.4f}",
    "macro_loss": "{:.4f}",
    "tail_loss": "{:.4f}",
    "max_over_mean": "{:.3f}",
    "max_vio": "{:.3f}",
    "utilisation": "{:.3f}",
    "drop_share": "{:.3f}",
    "shared_devices": "{:.1f}",
    "experts_alive": "{:.1f}",
    "wall_clock": "{:.4g}",
    "regret_loss": "{:.4f}",
}


def table(data: xr.Dataset) -> str:
    """Means over seeds at the last step, one line per policy, +- half a 95 % interval; first what holds for all."""
    lines = [["policy", *COLUMNS]]
    for name, own in _rows(data):
        last = own.isel(step=-1)
        lines.append([name, *(_cell(last[column].values, form) for column, form in COLUMNS.items())])
    return "\n".join(
        [heading(data, *ABOUT), aligned(lines), *of_trees(data), *without_effect(data), *verdicts_of_memory(data)]
    )


def of_trees(data: xr.Dataset) -> list[str]:
    """A line for each router that is a tree: when its decisions rounded harmlessly, how deep and how even it is."""
    out = []
    for name, own in _rows(data):
        if "hardened" not in own or not np.isfinite(own.decision_entropy).all():
            continue
        last, steps = own.isel(step=-1).mean("seed"), own.hardened.isel(step=-1).values
        done = steps[np.isfinite(steps)]
        hard = f"from step {done.mean():.0f} in {len(done)} of {len(steps)} seeds" if len(done) else "never"
        out.append(
            f"{name}: decisions round harmlessly {hard} (mean entropy {float(last.decision_entropy):.3f} nat at the "
            f"end); {float(last.mean_depth):.2f} decisions above a token's leaf for {float(last.leaf_bits):.2f} bits "
            f"of load; a branch has up to {float(last.node_tilt):.3f} more of the load than its leaves' share"
        )
    return out


def without_effect(data: xr.Dataset) -> list[str]:
    """A line for each structure that might have changed experts and never did."""
    idle = [name for name, own in _rows(data) if int(own.edits.max()) == 0]
    long = f" in {int(data.step.max())} steps" if "step" in data.coords else ""
    return [f"{name}: its structure changed nothing{long}; no expert met its terms when asked" for name in idle]


def verdicts_of_memory(data: xr.Dataset) -> list[str]:
    """A line for each policy that ran out of memory: where first."""
    out = []
    for name, own in _rows(data):
        layer = own.out_of_memory_layer.transpose("step", "seed").values
        if (layer >= 0).any():
            step, seed = (int(i) for i in np.argwhere(layer >= 0)[0])
            first = own.isel(step=step, seed=seed)
            needed, share = float(first.memory), float(first.memory_share)
            out.append(
                f"out of memory: {name}, step {int(first.step)}, seed {int(first.seed)}, device "
                f"{int(first.fullest_device)}, layer {int(layer[step, seed])}: {needed / 1e9:.3g} of "
                f"{needed / share / 1e9:.3g} GB; more microbatches, schedule.recompute=true or better balance need less"
            )
    return out


def _rows(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    if "policy" in data.dims:
        return [(str(name), data.sel(policy=name)) for name in data.policy.values]
    return [("run", data)]


def _cell(values: np.ndarray, form: str) -> str:
    mean, half = interval(values)
    return form.format(mean) + (f" ±{form.format(half)}" if len(values) > 1 and half > 0 else "")


def study_table(data: xr.Dataset) -> str:
    """Against each policy: in how many worlds split_feed is better, undecided, worse; then mean gaps by axis."""
    axes, rivals = str(data.attrs["axes"]).split(", "), _rivals(data)
    counts = [["", *rivals], *(_counts(data, budget, loss) for loss, budget in product(LOSSES, ("tokens", "time")))]
    parts = [
        f"{CLAIM} against a policy: worlds better / undecided / worse (95 % interval over seeds)",
        aligned(counts, 2),
    ]
    for budget, said in {"tokens": "tokens", "time": "wall-clock"}.items():
        gap = data[f"gap_micro_loss_at_equal_{budget}"]
        rows = [["", *rivals]]
        for axis, value in ((name, value) for name in axes for value in data[name].values):
            means = [float(gap.sel({axis: value, "policy": rival}).mean()) for rival in rivals]
            rows.append([f"{axis} = {value:g}", *(f"{mean:+.3f}" for mean in means)])
        parts += [f"mean gap in micro loss at equal {said} (nat/token; below 0: {CLAIM} is better)", aligned(rows, 2)]
    return "\n".join([*parts, *without_effect(data)])


def worlds_table(data: xr.Dataset) -> str:
    """Of a study over sizes and moves, or of a search: gaps to every rival, and to the best one world by world."""
    rivals, parts = _rivals(data), []
    for size in dict.fromkeys(data.size.values.tolist()) if "size" in data.coords else [None]:
        own = data if size is None else data.isel(world=(data.size == size).values)
        first = own.isel(world=[0])
        rows = [["", *rivals], *(_means(first, budget, loss) for loss, budget in product(LOSSES, BUDGETS))]
        title = "the first world" if size is None else f"size {size}, nothing moved"
        parts += [f"{title}: {CLAIM} minus a policy (nat/token, 95 % interval; below 0: better)", aligned(rows, 2)]
        if own.sizes["world"] > 1:
            counts = [["", *rivals], *(_counts(own, budget, loss) for loss, budget in product(LOSSES, BUDGETS))]
            parts += [f"{own.sizes['world']} worlds: better / undecided / worse", aligned(counts, 2)]
    name = "micro_loss_at_equal_time"
    gap = data[f"gap_to_best_{name}"].transpose("seed", "world").values
    order = np.argsort(gap.mean(axis=0), kind="stable")
    rows = [["world", "gap", "best rival"]]
    for i in order:
        rows.append(
            [_where(data, i), "{:+.4f} ±{:.4f}".format(*interval(gap[:, i])), str(data[f"best_rival_{name}"].values[i])]
        )
    parts += ["micro loss at equal wall-clock against the best rival of each world, best first", aligned(rows)]
    return "\n".join([*parts, *_what_distinguishes(data, gap.mean(axis=0)), *without_effect(data)])


def _means(data: xr.Dataset, budget: str, loss: str) -> list[str]:
    gap = data[f"gap_{loss}_at_equal_{budget}"].isel(world=0)
    cells = ["{:+.3f} ±{:.3f}".format(*interval(gap.sel(policy=rival).values)) for rival in _rivals(data)]
    return [f"{loss.replace('_', ' ')} at equal {budget}", *cells]


def _where(data: xr.Dataset, i: int) -> str:
    at = {str(name): float(data[name][i]) for name in data.coords if str(name).startswith("at_")}
    return ", ".join(f"{name[3:]}={value:.3g}" for name, value in at.items()) or str(data.world.values[i])


def _what_distinguishes(data: xr.Dataset, gap: np.ndarray) -> list[str]:
    """Rank correlation of the gap with every axis of a search."""
    from scipy.stats import rankdata

    axes = [str(name) for name in data.coords if str(name).startswith("at_")]
    if not axes:
        return []
    found = {axis[3:]: float(np.corrcoef(rankdata(data[axis].values), rankdata(gap))[0, 1]) for axis in axes}
    rows = [["axis", "rank correlation with the gap"]]
    rows += [[axis, f"{r:+.2f}"] for axis, r in sorted(found.items(), key=lambda pair: -abs(pair[1]))]
    return ["what distinguishes worlds (above 0: the larger, the worse for the claim)", aligned(rows)]


def _rivals(data: xr.Dataset) -> list[str]:
    return [str(p) for p in data.policy.values if p != CLAIM]


def _counts(data: xr.Dataset, budget: str, loss: str) -> list[str]:
    gap = data[f"gap_{loss}_at_equal_{budget}"]
    signs = [verdicts(gap.sel(policy=rival).transpose("seed", ...).values) for rival in _rivals(data)]
    said = f"{loss.replace('_', ' ')} at equal {budget}"
    return [said, *(f"{(v < 0).sum():d} / {(v == 0).sum():d} / {(v > 0).sum():d}" for v in signs)]


def trace_table(data: xr.Dataset) -> str:
    """Per policy: means over the windows after the first, which nothing was planned on."""
    columns = (
        "max_over_mean",
        "max_over_mean_hindsight",
        "max_over_mean_bound",
        "max_vio",
        "gini",
        "utilisation",
        "step_time",
        "moved_copies",
        "shared_devices",
    )
    lines = [["policy", *columns]]
    for name, own in _rows(data):
        lines.append([name, *(f"{float(own[c].isel(step=_judged(own)).mean()):.4g}" for c in columns)])
    return "\n".join([heading(data, *ABOUT), aligned(lines), *verdicts_of_memory(data)])


def compared(data: xr.Dataset) -> str:
    """A multirun in one table: a row for each job that is done, its choices first, mean over seeds at the last step.

    Of a trace the mean over the windows after the first.
    """
    dims = [str(dim) for dim in data.job_status.dims]
    columns = [name for name in COMPARED if name in data]
    jobs = data.stack(job=dims)
    rows = [[*dims, *columns]]
    for i in np.flatnonzero((jobs.job_status == "done").values):
        job = jobs.isel(job=i)
        last = {name: _told(job[name], "layer_max_over_mean" in data) for name in columns}
        values = [_cell(value[np.isfinite(value)], COLUMNS.get(name, "{:.4g}")) for name, value in last.items()]
        rows.append([*(coordinate(dim, job[dim].item()) for dim in dims), *values])
    return aligned(rows)


def _judged(data: xr.Dataset | xr.DataArray) -> slice:
    """Windows that a plan had a past to go by; the only one if there is but one."""
    return slice(min(1, data.sizes["step"] - 1), None)


def _told(values: xr.DataArray, replayed: bool) -> np.ndarray:
    if replayed and values.name != "wall_clock":
        return values.isel(step=_judged(values)).mean("step").values
    return values.isel(step=-1).values
