"""What recorded loads say about the free parameters of `balance`, with intervals, and what they do not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.runs import load_runs
from moesim.lab import router
from moesim.lab.compared import SETTING, Interval, equivalents, frame, last, mean, penalties, ratio, reported
from moesim.lab.probed import kinship, parting
from moesim.lab.tables import in_words, named, told_by
from moesim.output.store import open_result

if TYPE_CHECKING:
    import xarray as xr

HOT = 2.0
"""A hotspot is an expert with so many times the mean load (facts of small models: it forms in 4 to 16 steps)."""

NOT_IDENTIFIED = {
    "rho": "a transfer probe shows which domains are kin, not what a token of one is worth to another",
    "reinforcement": "shares are functions of log shares, so the rate at which use brings use cannot be told from them",
    "decay": "noise in the levels of loads looks like decay",
}
"""Parameters of `balance` that loads do not determine, and why."""

ROUTER = ("noise", "common", "popularity", "reach", "wander")
"""What is read of a router that nothing balances, with one active expert (see `router`)."""


SHIPPED = "lab_loads"


def recorded(source: Any) -> xr.Dataset:
    """Loads: `lab_loads` (shipped), a Dataset or file, or a run's folder with loads.nc and probes.nc."""
    import xarray as xr

    if isinstance(source, xr.DataArray):
        return source.to_dataset(name="loads")
    if not isinstance(source, str | Path | xr.Dataset):
        raise InputError(
            f"lab: loads={type(source).__name__}; give a Dataset, its file, a folder of moesim lab, or {SHIPPED}"
        )
    if isinstance(source, xr.Dataset):
        return source
    if source == SHIPPED:
        return open_result(Path(__file__).parents[1] / "data" / f"{SHIPPED}.nc")
    if not Path(source).is_dir():
        return open_result(source)
    parts = [open_result(path) for name in ("loads", "probes") if (path := Path(source, f"{name}.nc")).is_file()]
    if not parts:
        raise InputError(f"lab: no loads.nc in {source}; give a folder of moesim lab, its loads.nc or {SHIPPED}")
    return xr.merge(parts, join="outer", compat="override")


def calibrate(loads: Any, runs: Any = None, *, level: float = 0.9) -> dict[str, Interval | str]:
    """Estimates from recorded loads, each with an interval over trajectories and layers of one setting.

    `loads`: as `recorded` takes them, or any Dataset with `loads` (or these alone) over window, layer, expert (and
    trajectory, domain), `window_step` (the step that ends each window) beside. Gives, in words of the table:
    `load_spread` (standard deviation over experts of the log share, last quarter of the windows), `load_drift` (root
    mean square change of it from window to window, less the noise of counting), `max_over_mean` of the loads (last
    quarter), `hotspot_step` (first step by which a
    window has an expert of twice the mean load; inf where none has), `domain_information` (bit that the expert tells
    about the domain, last window), `half_step` (first step by which an expert has half of all tokens); of trajectories
    that nothing balances those of ROUTER, in words of `moesim.balance.routing`: `noise` and `common` of the first
    scores, `popularity` (reinforcement per step of what is used, were nothing else at work), `reach` of the scores,
    `wander` of them per step; of splits (`moesim.lab.probes`, merged) `weights_part` and `domains_part`, bytes until
    twins differ, and `twin_share` of the lesser one at the end; of transfers, merged too, `kin, A to B` (see
    `probed.kinship`); of `runs` (a table that `load_runs` takes, with a dense
    ladder) `capacity_share` and `excess_share` by setting and arm, over seeds: what a Mixture can hold by its loss on
    fresh data, and what of it is in excess by its penalty (see `compared.equivalents`); and, for each parameter of
    NOT_IDENTIFIED and what is not there, the reason.
    Raises InputError for loads that are negative or lack a dim.
    """
    data = recorded(loads)
    counts, steps = counts_of(data)
    each = described(counts, steps)
    found: dict[str, Interval | str] = {
        name: (_within if name.endswith("_step") else mean)(values.ravel(), level) for name, values in each.items()
    }
    tried = _twins(data, level) | _kin(data, level)
    return found | _router(data, counts, steps, level) | tried | _shares(runs, level) | NOT_IDENTIFIED


def described(counts: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
    """What these counts (trajectory, window, layer, domain, expert) look like, (trajectory, layer) each."""
    shares = _shares_of(counts)
    late = shares[:, -max(shares.shape[1] // 4, 2) :]
    seen = counts.sum(axis=3)[:, -late.shape[1] :]
    return {
        "load_spread": np.nanstd(np.log(late), axis=-1).mean(axis=1),
        "load_drift": _drift(late, seen),
        "max_over_mean": (np.nanmax(late, axis=-1) * _experts(late)).mean(axis=1),
        "hotspot_step": _first_above(HOT / _experts(shares), shares, steps),
        "half_step": _first_above(0.5, shares, steps),
        "domain_information": _information(counts[:, -1]),
    }


def _router(data: xr.Dataset, counts: np.ndarray, steps: np.ndarray, level: float) -> dict[str, Interval | str]:
    free = np.broadcast_to(data["balancing"] == "none" if "balancing" in data else True, len(counts))
    active = data["active_experts"].values.max() if "active_experts" in data else 1
    missing = "these loads were balanced; train with balancing=none" if not free.any() else ""
    missing = "several experts act on a token; train with active_experts=1" if active > 1 else missing
    own = counts[free]
    own = own[..., np.isfinite(own).all(axis=(0, 1, 2, 3))]
    if missing or not own.size:
        return dict.fromkeys(ROUTER, missing or "these models have different numbers of experts")
    variance, alike = (each.ravel() for each in router.noise(own))
    found: dict[str, Interval] = {
        "noise": _map(lambda v: max(v, 0.0) ** 0.5, mean(variance, level)),
        "common": _map(lambda v: min(max(v, 0.0), 1.0), ratio(alike, variance, level)),
        "popularity": mean(router.growth(own, steps).ravel(), level),
        "reach": mean(router.reach(own).ravel(), level),
        "wander": mean(router.wander(own, steps).ravel(), level),
    }
    return {name: "too few tokens or windows to tell" if np.isnan(v.value) else v for name, v in found.items()}


def _twins(data: xr.Dataset, level: float) -> dict[str, Interval | str]:
    """When the twins of a split part, and how tokens are shared between them, over trajectories and layers."""
    if "twin_cosine" not in data:
        return dict.fromkeys(("weights_part", "domains_part", "twin_share"), "no split; train with probes=[split]")
    tried = data.dropna("trajectory", subset=["twin_share"], how="all")
    when = {str(name): _within(values.values.ravel(), level) for name, values in parting(tried).items()}
    return {**when, "twin_share": mean(tried.twin_share.isel(since=-1).values.ravel(), level)}


def _kin(data: xr.Dataset, level: float) -> dict[str, Interval | str]:
    """How near training on one domain brings each other, over trajectories or repeats."""
    if "tuned_gain" not in data:
        return {"kin": "no transfer; train with probes=[transfer]"}
    kin = kinship(data, level=level)
    if np.isnan(kin.kin).all():
        return {"kin": "a transfer of fewer than four domains, none of which is the usual other"}
    ends = np.stack([kin.kin, kin.low, kin.high], axis=-1)
    names = kin.source.values.tolist()
    return {
        f"kin, {names[i]} to {names[j]}": Interval(*ends[i, j].tolist())
        for i, j in product(range(len(names)), repeat=2)
        if i != j
    }


def _shares(runs: Any, level: float) -> dict[str, Interval | str]:
    """What a Mixture holds, and what of it is in excess, as shares of the way to its total size, by setting."""
    if runs is None:
        return dict.fromkeys(("capacity_share", "excess_share"), "no runs of a dense ladder beside; give kept=lab.nc")
    rows = frame(load_runs(runs) if isinstance(runs, str | Path) else runs)
    rows = rows.assign(epochs=rows.tokens / rows.unique_tokens)
    ends, words = last(reported(rows)), told_by(rows)
    found = {
        "capacity_share": equivalents(ends[np.isinf(ends.pool)], level=level),
        "excess_share": equivalents(last(penalties(reported(rows))), "penalty", level),
    }
    return {
        f"{name}, {arm}, {in_words(words, named(SETTING, setting))}": dense.reason or dense.share
        for name, each in found.items()
        for (*setting, arm), dense in each.items()
    }


def _map(function: Callable[[float], float], found: Interval) -> Interval:
    """The interval of a function that rises."""
    value, low, high = (v if np.isnan(v) else function(v) for v in found[:3])
    return Interval(value, low, high, found.seeds)


def counts_of(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Counts (trajectory, window, layer, domain, expert) and the last step of each window."""
    for dim in ("window", "layer", "expert"):
        if "loads" not in data or dim not in data["loads"].dims:
            raise InputError(f"calibrate: no loads along {dim!r}; give loads over window, layer and expert")
    counts = data["loads"]
    for dim in ("trajectory", "domain"):
        counts = counts if dim in counts.dims else counts.expand_dims(dim)
    values = counts.transpose("trajectory", "window", "layer", "domain", "expert").values.astype(float)
    if (values < 0).any() or counts.sizes["window"] < 2:
        raise InputError("calibrate: loads are negative, or of one window only; give counts of two windows or more")
    steps = data["window_step"].values if "window_step" in data.variables else np.arange(1, values.shape[1] + 1)
    return values, np.asarray(steps, dtype=float)


def _shares_of(counts: np.ndarray) -> np.ndarray:
    """Share of each expert (trajectory, window, layer, expert); experts that are not there are NaN.

    Half a token is added to each, so that an idle expert has a logarithm.
    """
    there = np.isfinite(counts).all(axis=(1, 3), keepdims=True)
    totals = np.where(there, np.nan_to_num(counts), np.nan).sum(axis=3) + 0.5
    return totals / np.nansum(totals, axis=-1, keepdims=True)


def _drift(shares: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Root mean square change of the log share (trajectory, layer), less 1/n + 1/n' of counting n and n' tokens."""
    change = np.diff(np.log(shares), axis=1) ** 2
    n = np.nan_to_num(tokens) + 0.5
    noise = 1 / n[:, 1:] + 1 / n[:, :-1]
    return np.sqrt(np.maximum(np.nanmean(change - noise, axis=(1, 3)), 0.0))


def _experts(shares: np.ndarray) -> np.ndarray:
    return np.isfinite(shares).sum(axis=-1)


def _first_above(most: Any, shares: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """First step by which the largest share was above `most` (trajectory, layer); inf where it never was."""
    hot = np.nanmax(shares, axis=-1) > most
    return np.where(hot.any(axis=1), steps[np.argmax(hot, axis=1)], np.inf)


def _within(steps: np.ndarray, level: float) -> Interval:
    """The median with the range that holds `level` of the trajectories and layers, since some may never get there."""
    tail = (1 - level) / 2
    low, middle, high = np.quantile(steps, [tail, 0.5, 1 - tail], method="inverted_cdf")
    return Interval(float(middle), float(low), float(high), len(steps))


def _information(counts: np.ndarray) -> np.ndarray:
    """Mutual information in bit between domain and expert (trajectory, layer), less its bias of counting.

    The bias is (domains - 1)(experts - 1)/(2 n) nat of n tokens (Miller 1955).
    """
    joint = np.nan_to_num(counts)
    n = joint.sum(axis=(-2, -1), keepdims=True)
    p = joint / n
    expected = p.sum(axis=-1, keepdims=True) * p.sum(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(p > 0, p * np.log2(p / expected), 0.0).sum(axis=(-2, -1))
    used = [(joint.sum(axis=axis) > 0).sum(axis=-1) - 1 for axis in (-1, -2)]
    return np.maximum(bits - used[0] * used[1] / (2 * np.log(2) * n[..., 0, 0]), 0.0)


def told(found: Mapping[str, Interval | str]) -> list[tuple[str, str]]:
    """The estimates as rows of a table."""
    return [(name, value if isinstance(value, str) else f"{value:.5g}") for name, value in found.items()]


def as_dataset(found: Mapping[str, Interval | str]) -> xr.Dataset:
    """The estimates over `parameter`, with `low` and `high`; NaN and a `reason` where not identified."""
    import xarray as xr

    rows = [v if isinstance(v, Interval) else Interval(np.nan, np.nan, np.nan, 0) for v in found.values()]
    columns = {name: ("parameter", np.array([getattr(row, name) for row in rows])) for name in ("value", "low", "high")}
    reasons = ["" if isinstance(v, Interval) else v for v in found.values()]
    return xr.Dataset({**columns, "reason": ("parameter", reasons)}, {"parameter": list(found)})
