"""The simulator of sites: ticks over arrays of sites, seed by seed, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.laws.law import Law
from moesim.registry import Policy
from moesim.settings import number, one_of, setting, whole
from moesim.sites.chooser import Chooser
from moesim.sites.flows import SHARE as WHOLE
from moesim.sites.flows import Flow, Team, Tick
from moesim.sites.place import Site, canonical, column, generators, names_of, speeds, weights
from moesim.sites.presence import Up
from moesim.sites.quality import Quality
from moesim.sites.shards import Shards, even, of_world
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, SHARE

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
    d_model: float = setting(4096.0, number(POSITIVE))
    layers: float = setting(32.0, number(POSITIVE))
    shared_share: float = setting(0.3, number(WHOLE))  # of the parameters, that is no experts
    state_bytes: float = setting(16.0, number(POSITIVE))  # a parameter: weights, gradients, optimiser
    memory_share: float = setting(1.0, number(FRACTION))  # of the state that one site holds
    batch: float = setting(1048576.0, number(POSITIVE))  # tokens of one site's step
    sequence: int = setting(2048, whole())
    unique_tokens: float = setting(np.inf, number(POSITIVE_OR_INF))  # without a world
    hours: float = setting(240.0, number(POSITIVE))
    tick_minutes: float = setting(20.0, number(POSITIVE))
    rented: int | None = setting(None, whole())  # sites at a time, the cheapest for their FLOP; null: all that are up
    stay: float = setting(0.1, number(SHARE))  # a rented site is left for one that is cheaper by more than this share
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


class Setting(NamedTuple):
    """Everything that a run is made of."""

    run: Run
    groups: Mapping[str, Site]
    protocol: Policy
    law: Law
    quality: Quality = Quality()
    world: Mapping[str, Any] | None = None


def simulated(asked: Setting) -> xr.Dataset:
    """Sums by (seed, round) and totals by (seed, site) as in `conf/sites.yaml`; `record=all` by (seed, round, site)."""
    import xarray as xr

    run, given = asked.run, asked.groups
    asked = asked._replace(groups=canonical(given))
    seconds, names = run.ticks, names_of(asked.groups)
    cells = run.seeds * len(seconds) * len(names)
    if run.record == "all" and cells > _CELLS:
        raise InputError(f"sites: record=all of {cells:.3g} cells; it takes at most {_CELLS:.0e}: record=sums")
    fitting = fits(asked)
    seeds = run.seed + np.arange(run.seeds)
    told = [_one(asked, int(seed), fitting) for seed in seeds]
    found = {
        prefix + name: (("seed", *dims), np.stack([each[kind][name] for each in told]))
        for kind, (prefix, *dims) in _KINDS.items()
        for name in told[0][kind]
    }
    coords = {"seed": seeds, "round": np.arange(len(seconds)), "site": names, "hours": ("round", _ends(seconds))}
    of_sites = {"weight": weights(asked.groups), "fits": fitting, "bandwidth": _links(asked.groups)}
    of_sites["site_step"] = run.batch * run.token_cost / _flops(asked.groups)
    data = xr.Dataset(found, coords).assign({name: ("site", values) for name, values in of_sites.items()})
    return data.assign(_to_target(data, run.target_loss)).assign_attrs(params=run.params).sel(site=names_of(given))


def _links(groups: Mapping[str, Site]) -> np.ndarray:
    return np.minimum(column(groups, "up"), column(groups, "down"))


def _flops(groups: Mapping[str, Site]) -> np.ndarray:
    """FLOP/s that a site of mean speed uses."""
    return column(groups, "flops") * column(groups, "devices") * column(groups, "mfu")


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


def fits(asked: Setting) -> np.ndarray:
    """Which simulated sites can hold their part; InputError where none can, with the bytes that lack.

    A protocol that parts the model checks for itself.
    """
    there = column(asked.groups, "memory") * column(asked.groups, "devices")
    if not asked.protocol.traits.get("whole", True):
        return np.ones(len(there), dtype=bool)
    needed = asked.run.params * asked.run.state_bytes * asked.run.memory_share
    if (there < needed).all():
        lack = needed - there.max()
        raise InputError(
            f"sites: a part of {needed:.4g} bytes fits on no site: the largest lacks {lack:.4g} bytes; "
            "give a smaller model, memory_share or state_bytes"
        )
    return there >= needed


def team_of(asked: Setting, seed: int) -> Team:
    """The sites of a seed, with their speeds, and what there is to learn."""
    run, groups = asked.run, asked.groups
    devices = column(groups, "devices")
    rate = _flops(groups) * speeds(groups, seed) / run.token_cost
    weight = weights(groups)
    return Team(
        run.params,
        run.batch,
        run.state_bytes,
        run.d_model,
        run.layers,
        run.shared_share,
        rate,
        column(groups, "up"),
        column(groups, "down"),
        column(groups, "latency"),
        weight,
        column(groups, "memory") * devices,
        devices,
        column(groups, "failures_per_hour") * devices / _HOUR,
        asked.quality,
        _shards(asked, seed, float(np.sum(rate * weight)) * run.hours * _HOUR),
    )


def _shards(asked: Setting, seed: int, tokens: float) -> Shards:
    return even(asked.run.unique_tokens) if asked.world is None else of_world(asked.world, seed, tokens)


def _presence(groups: Mapping[str, Site], seed: int, seconds: float) -> Iterator[Up]:
    """Ticks of all sites side by side."""
    draws = zip(groups.values(), generators(groups, seed, 1), strict=True)
    parts = [group.presence(rng, group.simulated, seconds) for group, rng in draws]
    while True:
        yield Up(*map(np.concatenate, zip(*(next(part) for part in parts), strict=True)))


def _failed(groups: Mapping[str, Site], team: Team, seed: int, seconds: float) -> Callable[[np.ndarray], np.ndarray]:
    """Draws of the failures of a site's devices in a tick, on average over the sites that each stands for."""
    draws = generators(groups, seed, 2)
    ends = np.cumsum([group.simulated for group in groups.values()])[:-1]
    expected = team.failures * team.weight * seconds

    def drawn(share: np.ndarray) -> np.ndarray:
        each = zip(draws, np.split(expected * share, ends), strict=True)
        return np.concatenate([rng.poisson(mean) for rng, mean in each]) / team.weight

    return drawn if expected.any() else np.zeros_like


def _one(asked: Setting, seed: int, fitting: np.ndarray):
    """Kind -> name -> values of one seed."""
    run, groups = asked.run, asked.groups
    seconds, team, bill = run.ticks, team_of(asked, seed), Bill(groups)
    ticks, failed = _presence(groups, seed, float(seconds[0])), _failed(groups, team, seed, float(seconds[0]))
    chosen = Chooser(groups, team.rate, run.rented, run.stay)
    starts = np.concatenate([[0.0], np.cumsum(seconds)]) / _HOUR
    by_round = {name: np.zeros(len(seconds)) for name in SUMS}
    by_site = {name: np.zeros(len(team.rate)) for name in SUMS}
    whole = {name: np.zeros((len(seconds), len(team.rate))) for name in SUMS} if run.record == "all" else {}
    flows = []
    done, memory = 0.0, None
    for i, length in enumerate(seconds):
        up = next(ticks)
        share = np.where(fitting, np.minimum(up.seconds / seconds[0], 1.0), 0.0)
        rented, moved = chosen(share, starts[i], float(length) / _HOUR)
        share, short = share * rented, float(length / seconds[0])
        went, came = up.stops * rented + np.maximum(-moved, 0.0), up.starts * rented + np.maximum(moved, 0.0) * (i > 0)
        tick = Tick(float(length), share, went * short, came * short, failed(share) * short, done, memory)
        flow = asked.protocol(team, tick)
        for name, values in bill(flow, share, float(length), starts[i]).items():
            by_round[name][i] = np.sum(values * team.weight)
            by_site[name] += values * team.weight
            if whole:
                whole[name][i] = values * team.weight
        done, memory = done + by_round["tokens"][i], flow.memory
        flows.append(_seen(flow, by_round["tokens"][i], done, team))
    by_round |= _loss(run, asked.law, by_round["tokens"], flows)
    return {"rounds": by_round, "sites": by_site, "all": whole}


class Bill:
    """What a tick costs: rent while up, depreciation always, watts by state; slack is what is up and not at work."""

    def __init__(self, groups: Mapping[str, Site]):
        names = ("devices", "depreciation", "watts", "idle_watts", "sending", "down_watts", "tariff")
        self.devices, self.depreciation, *self.watts, self.tariff = (column(groups, n) for n in names)
        self.groups = groups.values()
        self.sizes = [group.simulated for group in self.groups]

    def __call__(self, flow: Flow, share: np.ndarray, seconds: float, hour: float) -> dict[str, np.ndarray]:
        prices = np.repeat([group.mean_price(hour, seconds / _HOUR) for group in self.groups], self.sizes)
        slack, per_hour = share - flow.working, self.devices * seconds / _HOUR
        slack = np.where(slack > _ROUNDING, slack, 0.0)
        sending = np.minimum(flow.sending, slack)
        busy, idle, sends, down = (watts * self.devices * seconds / _KWH for watts in self.watts)
        slack_energy = (slack - sending) * idle + sending * sends
        energy = flow.working * busy + slack_energy + (1.0 - share) * down
        values = (share, flow.working, flow.waiting, flow.sending)
        return {
            **{name: value * seconds / _HOUR for name, value in zip(PARTS, values, strict=True)},
            "tokens": flow.tokens,
            "bytes": flow.bits / 8.0,
            "cost": (share * prices + self.depreciation) * per_hour + energy * self.tariff,
            "energy": energy,
            "slack_cost": slack * (prices + self.depreciation) * per_hour + slack_energy * self.tariff,
            "slack_energy": slack_energy,
        }


class _Learned(NamedTuple):
    """Of a tick: effective tokens of each part, shares of the parts, multiplier of the loss, and nat gained."""

    seen: np.ndarray
    shares: np.ndarray
    multiplier: float
    gain: float


def _seen(flow: Flow, tokens: float, done: float, team: Team) -> _Learned:
    if flow.seen is not None and flow.shares is not None:
        return _Learned(flow.seen * flow.kept, flow.shares, flow.multiplier, flow.gain)
    unique = float(np.sum(team.shards.unique))
    worth = team.shards.worth(done, unique) - team.shards.worth(done - tokens, unique)
    return _Learned(np.array([worth * flow.kept]), np.ones(1), flow.multiplier, flow.gain)


def _loss(run: Run, law: Law, tokens: np.ndarray, learned: list[_Learned]) -> dict[str, np.ndarray]:
    """The law at the effective tokens of each part so far, averaged by the parts' shares of the data.

    Times the `multiplier` that tokens had on average, less what parts `gain`.
    """
    processed = np.cumsum(tokens)
    there = processed > 0
    mean = np.cumsum(tokens * [each.multiplier for each in learned]) / np.where(there, processed, 1.0)
    effective = np.cumsum([each.seen for each in learned], axis=0)
    shares = np.stack([each.shares for each in learned])
    level = np.where(effective > 0, _level(run, law, np.where(effective > 0, effective, 1.0)), np.nan)
    mixed = np.sum(np.where(shares > 0, level * shares, 0.0), axis=1) / np.sum(shares, axis=1)
    gain = np.array([each.gain for each in learned])
    told = {"loss": mixed * mean - gain, "loss_factor": mean, "parts_gain": gain}
    return {name: np.where(there, values, np.nan) for name, values in told.items()}


def _level(run: Run, law: Law, tokens: np.ndarray) -> np.ndarray:
    known = {
        "total_params": run.params,
        "active_params": run.acting,
        "sparsity": run.sparsity,
        "tokens": tokens,
        "compute": tokens * run.token_cost,
    }
    if lacking := [name for name in law.inputs if name not in known]:
        raise InputError(f"sites: law {law.name} takes {lacking[0]}, which a run here does not have; choose another")
    return law(**{name: known[name] for name in law.inputs})
