"""What `moesim balance` prints: of a run or policies side by side, of a trace replay, of a study over worlds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from moesim.balance.intervals import interval, verdicts
from moesim.balance.study import CLAIM, LOSSES

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
    """Means over seeds at the last step, one line per policy, +- half a 95 % interval for the losses."""
    names = [str(p) for p in data.policy.values] if "policy" in data.dims else ["run"]
    lines = [["policy", *COLUMNS]]
    for name in names:
        own = data.sel(policy=name) if "policy" in data.dims else data
        last = own.isel(step=-1)
        lines.append([name, *(_cell(last[column].values, form) for column, form in COLUMNS.items())])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def _cell(values: np.ndarray, form: str) -> str:
    mean, half = interval(values)
    return form.format(mean) + (f" ±{form.format(half)}" if len(values) > 1 and half > 0 else "")


def study_table(data: xr.Dataset) -> str:
    """Against each policy: in how many worlds split_feed is better, undecided, worse; then mean gaps by axis."""
    axes, rivals = str(data.attrs["axes"]).split(", "), _rivals(data)
    head = "".join(f"{name:>14}" for name in rivals)
    lines = [
        f"{CLAIM} against a policy: worlds better / undecided / worse (95 % interval over seeds)",
        f"{'':32}{head}",
    ]
    lines += [_counts(data, budget, loss) for loss, budget in product(LOSSES, ("tokens", "time"))]
    for budget, said in {"tokens": "tokens", "time": "wall-clock"}.items():
        lines += [
            "",
            f"mean gap in micro loss at equal {said} (nat/token; below 0: {CLAIM} is better)",
            f"{'':32}{head}",
        ]
        gap = data[f"gap_micro_loss_at_equal_{budget}"]
        for axis in axes:
            for value in data[axis].values:
                means = [float(gap.sel({axis: value, "policy": rival}).mean()) for rival in rivals]
                lines.append(f"{axis + f' = {value:g}':>32}" + "".join(f"{mean:>+14.3f}" for mean in means))
    return "\n".join(lines)


def _rivals(data: xr.Dataset) -> list[str]:
    return [str(p) for p in data.policy.values if p != CLAIM]


def _counts(data: xr.Dataset, budget: str, loss: str) -> str:
    gap = data[f"gap_{loss}_at_equal_{budget}"]
    signs = [verdicts(gap.sel(policy=rival).transpose("seed", ...).values) for rival in _rivals(data)]
    cells_ = [f"{(v < 0).sum():d} / {(v == 0).sum():d} / {(v > 0).sum():d}" for v in signs]
    return f"{loss.replace('_', ' ') + ' at equal ' + budget:>32}" + "".join(f"{cell:>14}" for cell in cells_)


def trace_table(data: xr.Dataset) -> str:
    """Per policy: means over the windows after the first, which nothing was planned on."""
    names = [str(p) for p in data.policy.values] if "policy" in data.dims else ["run"]
    columns = (
        "max_over_mean",
        "max_over_mean_hindsight",
        "max_vio",
        "gini",
        "utilisation",
        "step_time",
        "moved_copies",
        "shared_devices",
    )
    lines = ["  ".join(["policy".rjust(12), *(c.rjust(max(len(c), 9)) for c in columns)])]
    for name in names:
        own = (data.sel(policy=name) if "policy" in data.dims else data).isel(step=slice(1, None))
        cells_ = [f"{float(own[c].mean()):.4g}".rjust(max(len(c), 9)) for c in columns]
        lines.append("  ".join([name.rjust(12), *cells_]))
    return "\n".join(lines)
