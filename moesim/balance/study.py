"""From a config to its answer: one run, policies side by side, a trace, or a study over worlds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import config as files
from moesim.balance import simulate, trace
from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

# Axis of a study -> where its value goes in the config.
AXES = {
    "rho": ("world", "rho"),
    "skew": ("world", "skew"),
    "exponent": ("world", "curve", "data_exponent"),
    "indivisible": ("world", "atom"),
    "temperature": ("routing", "temperature"),
    "experts": ("experts",),
    "dense_ratio": ("cluster", "dense_ratio"),
}
LOSSES = ("micro_loss", "macro_loss", "tail_loss")
CLAIM = "split_feed"


def with_policy(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some groups replaced: a name reads conf/GROUP/NAME.yaml, a mapping replaces single keys."""
    out = {key: value for key, value in config.items() if key not in ("policies", "sweep")}
    for group, choice in changes.items():
        if group not in simulate.GROUPS:
            raise InputError(f"balance: policies: no group {group!r}; it takes {', '.join(simulate.GROUPS)}")
        own = out.get(group, {})
        out[group] = files.read(group, choice) if isinstance(choice, str) else {**own, **choice}
    return out


def compared(config: Mapping[str, Any]) -> xr.Dataset:
    """The run of a config; with `policies`, one run each on common random numbers, along a dim `policy`."""
    policies = config.get("policies")
    one = _replayed if trace.is_trace(config) else _simulated
    if not policies:
        return one({key: value for key, value in config.items() if key not in ("policies", "sweep")})
    import xarray as xr

    runs = [one(with_policy(config, changes or {})) for changes in policies.values()]
    width = max(run.sizes["expert"] for run in runs)
    runs = [_widened(run, width) for run in runs]
    names = xr.DataArray([str(name) for name in policies], dims="policy", name="policy")
    return xr.concat(runs, dim=names, join="exact", coords="minimal", compat="equals", combine_attrs="override")


def _widened(run: xr.Dataset, width: int) -> xr.Dataset:
    """The run with room for `width` experts; those it never had carry no load and are not there."""
    if run.sizes["expert"] == width:
        return run
    fill = {"parent": -1, "separation_steps": np.nan, "alive": False}
    return run.reindex(expert=np.arange(width), fill_value={name: fill.get(str(name), 0) for name in run.data_vars})


def _simulated(config: Mapping[str, Any]) -> xr.Dataset:
    return simulate.simulate(config)


def _replayed(config: Mapping[str, Any]) -> xr.Dataset:
    return trace.replay(config)


def cells(sweep: Mapping[str, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the axes and every combination of their values."""
    for name, values in sweep.items():
        if name not in AXES:
            raise InputError(f"balance: sweep: no axis {name!r}; it takes {', '.join(AXES)}")
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"balance: sweep: {name}={values!r}; it takes a list of values")
    return list(sweep), list(product(*sweep.values()))


def _put(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**config, head: _put(config.get(head, {}), tuple(rest), value) if rest else value}


def study(config: Mapping[str, Any]) -> xr.Dataset:
    """The claim in many worlds: losses of every policy at equal tokens and at equal wall-clock.

    Dims policy, seed and one for each axis of `sweep`. Equal wall-clock is the time that the fastest policy of a world
    takes for all its tokens, seed by seed; the others are read from their curves at that time. `gap_*` is the loss of
    `split_feed` minus a policy's, on the same seeds.
    """
    import xarray as xr
    from tqdm import tqdm

    names, combinations = cells(config["sweep"])
    policies = [str(name) for name in config.get("policies") or {}]
    if CLAIM not in policies or len(policies) < 2:
        raise InputError(
            f"balance: a sweep compares {CLAIM} with other policies; give policies with that name among them"
        )
    results = []
    for values in tqdm(combinations, disable=None, desc="worlds", unit="world"):
        world = dict(config)
        for name, value in zip(names, values, strict=True):
            world = _put(world, AXES[name], value)
        results.append(_ends(compared(world)))
    shape = tuple(len(config["sweep"][name]) for name in names)
    coords = {"policy": policies, "seed": results[0].seed.values, **{n: list(config["sweep"][n]) for n in names}}
    data = {}
    for name in results[0].data_vars:
        values = np.stack([r[name].values for r in results], axis=-1)
        data[name] = (("policy", "seed", *names), values.reshape(*values.shape[:2], *shape), results[0][name].attrs)
    out = xr.Dataset(data, coords=coords, attrs={"title": "moesim balance: split and feed", "axes": ", ".join(names)})
    for budget, loss in product(("tokens", "time"), LOSSES):
        name = f"{loss}_at_equal_{budget}"
        out[f"gap_{name}"] = (out[name].sel(policy=CLAIM, drop=True) - out[name]).transpose(*out[name].dims)
        out[f"gap_{name}"].attrs = {
            "units": "nat/token",
            "long_name": f"{CLAIM} minus policy: {name.replace('_', ' ')}",
        }
    return out


def _ends(data: xr.Dataset) -> xr.Dataset:
    """Losses at the end, and at the time that the fastest policy needed; with what explains them."""
    import xarray as xr

    last = data.isel(step=-1)
    budget = last.wall_clock.min("policy").values
    out = {}
    for loss in LOSSES:
        attrs = data[loss].attrs
        out[f"{loss}_at_equal_tokens"] = (("policy", "seed"), last[loss].transpose("policy", "seed").values, attrs)
        clocks, curves = (data[v].transpose("policy", "seed", "step").values for v in ("wall_clock", loss))
        at = [
            [np.interp(b, t, c) for b, t, c in zip(budget, ts, cs, strict=True)]
            for ts, cs in zip(clocks, curves, strict=True)
        ]
        out[f"{loss}_at_equal_time"] = (("policy", "seed"), np.array(at), attrs)
    for name in ("wall_clock", "max_over_mean", "utilisation", "experts_alive"):
        out[name] = (("policy", "seed"), last[name].transpose("policy", "seed").values.astype(float), data[name].attrs)
    return xr.Dataset(out, coords={"seed": data.seed})


def verdicts(gaps: np.ndarray) -> np.ndarray:
    """-1 where the claim's loss is lower, 1 where higher, 0 where the 95 % interval over seeds (axis 0) holds zero."""
    from scipy.special import stdtrit

    n = len(gaps)
    mean = gaps.mean(axis=0)
    half = stdtrit(n - 1, 0.975) * gaps.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(mean.shape, np.inf)
    return np.where(np.abs(mean) > half, np.sign(mean), 0).astype(int)


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
    )
    lines = ["  ".join(["policy".rjust(12), *(c.rjust(max(len(c), 9)) for c in columns)])]
    for name in names:
        own = (data.sel(policy=name) if "policy" in data.dims else data).isel(step=slice(1, None))
        cells_ = [f"{float(own[c].mean()):.4g}".rjust(max(len(c), 9)) for c in columns]
        lines.append("  ".join([name.rjust(12), *cells_]))
    return "\n".join(lines)
