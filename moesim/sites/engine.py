"""The simulator of sites: ticks over arrays of sites, seed by seed, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.laws.law import Law
from moesim.registry import Policy
from moesim.settings import number, one_of, setting, whole
from moesim.sites.place import Site, column, generator, names_of, speeds, weights
from moesim.sites.presence import Up
from moesim.sites.protocols import Flow, Team, Tick
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, SHARE

if TYPE_CHECKING:
    import xarray as xr

PARTS = ("up", "working", "waiting", "sending")
SUMS = (*PARTS, "tokens", "bytes", "cost", "energy", "slack_cost", "slack_energy")
"""What is summed over sites in each round, and over rounds of each site."""
# What a run is told by: prefix and dims of its variables.
_KINDS = {"rounds": ("", "round"), "sites": ("site_", "site"), "all": ("trace_", "round", "site")}
_HOUR, _KWH = 3600.0, 3.6e6
_CELLS = 1e7
_ROUNDING = 1e-12  # of a tick


@dataclass(frozen=True)
class Run:
    """How long, how often, and the model."""

    params: float = setting(1e10, number(POSITIVE))  # in place of a model
    active_params: float | None = setting(None, number(POSITIVE))  # null: params
    flops_per_token: float | None = setting(None, number(POSITIVE))  # null: 6 active_params
    sparsity: float = setting(0.0, number(SHARE))  # for laws that take it
    state_bytes: float = setting(16.0, number(POSITIVE))  # a parameter: weights, gradients, optimiser
    memory_share: float = setting(1.0, number(FRACTION))  # of the state that one site holds
    batch: float = setting(1048576.0, number(POSITIVE))  # tokens of one site's step
    sequence: int = setting(2048, whole())
    hours: float = setting(240.0, number(POSITIVE))
    tick_minutes: float = setting(20.0, number(POSITIVE))
    seeds: int = setting(4, whole())
    seed: int = setting(0, whole(0))
    target_loss: float | None = setting(None, number(NON_NEGATIVE))
    record: str = setting("sums", one_of("sums", "all"))

    @property
    def acting(self) -> float:
        """Parameters that act on a token."""
        return self.active_params or self.params

    @property
    def token_cost(self) -> float:
        """FLOP to train on a token."""
        return self.flops_per_token or 6.0 * self.acting

    @property
    def ticks(self) -> np.ndarray:
        """Seconds of each tick; the last may be shorter."""
        whole_ticks = int(np.ceil(self.hours * 60.0 / self.tick_minutes - 1e-9))
        ends = np.minimum(np.arange(1, whole_ticks + 1) * self.tick_minutes * 60.0, self.hours * _HOUR)
        return np.diff(np.concatenate([[0.0], ends]))


def simulated(run: Run, groups: Mapping[str, Site], protocol: Policy, law: Law) -> xr.Dataset:
    """Sums by (seed, round) and totals by (seed, site) as in `conf/sites.yaml`; `record=all` by (seed, round, site)."""
    import xarray as xr

    seconds, names = run.ticks, names_of(groups)
    cells = run.seeds * len(seconds) * len(names)
    if run.record == "all" and cells > _CELLS:
        raise InputError(f"sites: record=all of {cells:.3g} cells; it takes at most {_CELLS:.0e}: record=sums")
    fitting = fits(run, groups)
    seeds = run.seed + np.arange(run.seeds)
    told = [_one(run, groups, protocol, law, int(seed), fitting) for seed in seeds]
    found = {
        prefix + name: (("seed", *dims), np.stack([each[kind][name] for each in told]))
        for kind, (prefix, *dims) in _KINDS.items()
        for name in told[0][kind]
    }
    coords = {"seed": seeds, "round": np.arange(len(seconds)), "site": names, "hours": ("round", _ends(seconds))}
    data = xr.Dataset(found, coords).assign(weight=("site", weights(groups)), fits=("site", fitting))
    return data.assign(_to_target(data, run.target_loss))


def _ends(seconds: np.ndarray) -> np.ndarray:
    return np.cumsum(seconds) / _HOUR


def _to_target(data: xr.Dataset, target: float | None) -> dict[str, Any]:
    """Hours and cost when the loss is first at the target; NaN where it never is."""
    if target is None:
        return {}
    there = data.loss <= target
    first, reached = there.argmax("round"), there.any("round")
    spent = {"hours_to_target": data.hours, "cost_to_target": data.cost.cumsum("round")}
    return {name: value.isel(round=first).where(reached).reset_coords(drop=True) for name, value in spent.items()}


def fits(run: Run, groups: Mapping[str, Site]) -> np.ndarray:
    """Which simulated sites can hold their part; InputError where none can, with the bytes that lack."""
    needed = run.params * run.state_bytes * run.memory_share
    there = column(groups, "memory") * column(groups, "devices")
    if (there < needed).all():
        lack = needed - there.max()
        raise InputError(
            f"sites: a part of {needed:.4g} bytes fits on no site: the largest lacks {lack:.4g} bytes; "
            "give a smaller model, memory_share or state_bytes"
        )
    return there >= needed


def _team(run: Run, groups: Mapping[str, Site], seed: int) -> Team:
    flops = column(groups, "flops") * column(groups, "devices") * column(groups, "mfu")
    up, down, latency = (column(groups, name) for name in ("up", "down", "latency"))
    rate = flops * speeds(groups, seed) / run.token_cost
    return Team(run.params, run.batch, rate, up, down, latency, weights(groups))


def _presence(groups: Mapping[str, Site], seed: int, seconds: float) -> Iterator[Up]:
    """Ticks of all sites side by side."""
    parts = [group.presence(generator(seed, name, 1), group.simulated, seconds) for name, group in groups.items()]
    while True:
        ups = [next(part) for part in parts]
        yield Up(np.concatenate([up.seconds for up in ups]), np.concatenate([up.stops for up in ups]))


def _one(run: Run, groups: Mapping[str, Site], protocol: Policy, law: Law, seed: int, fitting: np.ndarray):
    """Kind -> name -> values of one seed."""
    seconds, team, bill = run.ticks, _team(run, groups, seed), Bill(groups)
    ticks = _presence(groups, seed, float(seconds[0]))
    by_round = {name: np.zeros(len(seconds)) for name in SUMS}
    by_site = {name: np.zeros(len(team.rate)) for name in SUMS}
    whole = {name: np.zeros((len(seconds), len(team.rate))) for name in SUMS} if run.record == "all" else {}
    quality = np.zeros((len(seconds), 3))
    done = memory = 0.0
    for i, length in enumerate(seconds):
        up = next(ticks)
        share = np.where(fitting, np.minimum(up.seconds / seconds[0], 1.0), 0.0)
        flow = protocol(team, Tick(float(length), share, up.stops, done, memory))
        spent = bill(flow, share, float(length), float(np.sum(seconds[:i])) / _HOUR)
        for name, values in spent.items():
            by_round[name][i] = np.sum(values * team.weight)
            by_site[name] += values * team.weight
            if whole:
                whole[name][i] = values * team.weight
        done, memory = done + by_round["tokens"][i], flow.memory
        quality[i] = flow.multiplier, flow.kept, flow.gain
    by_round["loss"] = _loss(run, law, by_round["tokens"], quality)
    return {"rounds": by_round, "sites": by_site, "all": whole}


class Bill:
    """What a tick costs: rent while up, depreciation always, watts by state; slack is what is up and not at work."""

    def __init__(self, groups: Mapping[str, Site]):
        names = ("devices", "depreciation", "watts", "idle_watts", "tariff")
        self.devices, self.depreciation, self.watts, self.idle, self.tariff = (column(groups, n) for n in names)
        self.prices = [group.price for group in groups.values()]
        self.sizes = [group.simulated for group in groups.values()]

    def __call__(self, flow: Flow, share: np.ndarray, seconds: float, hour: float) -> dict[str, np.ndarray]:
        prices = np.repeat([price[int(hour) % len(price)] for price in self.prices], self.sizes)
        slack, per_hour = share - flow.working, self.devices * seconds / _HOUR
        slack = np.where(slack > _ROUNDING, slack, 0.0)
        idle = slack * self.idle * self.devices * seconds / _KWH
        energy = flow.working * self.watts * self.devices * seconds / _KWH + idle
        cost = (share * prices + self.depreciation) * per_hour + energy * self.tariff
        values = (share, flow.working, flow.waiting, flow.sending)
        return {
            **{name: value * seconds / _HOUR for name, value in zip(PARTS, values, strict=True)},
            "tokens": flow.tokens,
            "bytes": flow.bits / 8.0,
            "cost": cost,
            "energy": energy,
            "slack_cost": slack * (prices + self.depreciation) * per_hour + idle * self.tariff,
            "slack_energy": idle,
        }


def _loss(run: Run, law: Law, tokens: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """The law at the effective tokens so far, times the multiplier that their mean had, less what parts gain."""
    processed = np.cumsum(tokens)
    there = processed > 0
    mean = np.cumsum(tokens * quality[:, 0]) / np.where(there, processed, 1.0)
    effective = np.where(there, np.cumsum(tokens * quality[:, 1]), 1.0)
    known = {
        "total_params": run.params,
        "active_params": run.acting,
        "sparsity": run.sparsity,
        "tokens": effective,
        "compute": effective * run.token_cost,
    }
    if lacking := [name for name in law.inputs if name not in known]:
        raise InputError(f"sites: law {law.name} takes {lacking[0]}, which a run here does not have; choose another")
    level = law(**{name: known[name] for name in law.inputs})
    return np.where(there, level * mean - quality[:, 2], np.nan)
