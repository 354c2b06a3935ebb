"""What a protocol is told and what it tells: a team, a tick, a flow; and how sites train together, alone and anew.

Rates are those of a steady round among the sites that are up: a site takes its steps, waits for the slowest where there
is a barrier, and sends what is not hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from moesim.hardware.chip import all_reduce_bytes
from moesim.models.operations import choose
from moesim.sites.links import BACKWARD, server_seconds
from moesim.sites.quality import Quality
from moesim.sites.shards import Shards
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, Domain, check

FULL = 16.0
"""Bits of a parameter that is sent whole."""
SHARE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)


class Team(NamedTuple):
    """What does not change in a run: of the model, of each simulated site, and of the data."""

    params: float
    batch: float  # tokens of a site's step
    state_bytes: float  # a parameter
    d_model: float
    layers: float
    shared: float  # share of the parameters that are no experts
    rate: np.ndarray  # tokens/s
    up: np.ndarray  # bit/s
    down: np.ndarray
    latency: np.ndarray  # s
    weight: np.ndarray  # sites that it stands for
    memory: np.ndarray  # byte
    devices: np.ndarray
    failures: np.ndarray  # of a site, per second up
    quality: Quality
    shards: Shards

    def picked(self, which: np.ndarray) -> Team:
        """Some of the sites."""
        return self._replace(**{name: getattr(self, name)[which] for name in _OF_SITES})


_OF_SITES = ("rate", "up", "down", "latency", "weight", "memory", "devices", "failures")


class Tick(NamedTuple):
    """A tick: its seconds, share of it that each site is up, how often each went down, came up, had a device fail.

    `done`: tokens of the run before it. `memory`: what the protocol kept from the tick before; None at first.
    """

    seconds: float
    share: np.ndarray
    stops: np.ndarray
    starts: np.ndarray
    failures: np.ndarray
    done: float
    memory: Any = None

    def picked(self, which: np.ndarray) -> Tick:
        """Some of the sites."""
        kept = ("share", "stops", "starts", "failures")
        return self._replace(**{name: getattr(self, name)[which] for name in kept})


class Flow(NamedTuple):
    """What a tick gave, of one site of each kind: shares of the tick, tokens that count, bits sent; and its quality.

    `seen` (part,): effective tokens that the parts learned from, with `shares` of the data; None: one part, all tokens
    times `kept`.
    """

    working: np.ndarray
    waiting: np.ndarray
    sending: np.ndarray
    tokens: np.ndarray
    bits: np.ndarray
    multiplier: float = 1.0  # of the loss
    kept: float = 1.0  # effective share of the tokens, for the law
    gain: float = 0.0  # nat
    seen: np.ndarray | None = None
    shares: np.ndarray | None = None
    memory: Any = None  # for the next tick


def nothing(tick: Tick) -> Flow:
    """All wait."""
    zero = np.zeros(len(tick.share))
    return Flow(zero, tick.share, zero, zero, zero, memory=tick.memory)


def replicas(team: Team, tick: Tick) -> float:
    """Sites that are up, on average over the tick."""
    return float(np.sum(team.weight * tick.share))


def slowed(flow: Flow, tick: Tick, left: Any, useful: Any = 1.0) -> Flow:
    """The flow with `left` of its time, the rest waited; and of what it did, `useful` counts."""
    working, sending = flow.working * left, flow.sending * left
    return flow._replace(
        working=working,
        sending=sending,
        waiting=np.maximum(tick.share - working - sending, 0.0),
        tokens=flow.tokens * left * useful,
        bits=flow.bits * left,
    )


def restarted(flow: Flow, tick: Tick, restart: float) -> Flow:
    """The flow with `restart` seconds of waiting each time that a site or a device of it went down.

    At most what its tick has left.
    """
    check("protocol", "restart", restart, NON_NEGATIVE)
    lost = np.minimum((tick.stops + tick.failures) * restart, tick.share * tick.seconds)
    return slowed(flow, tick, 1.0 - np.divide(lost, tick.share * tick.seconds, np.zeros(len(lost)), where=lost > 0))


class Exchange(NamedTuple):
    """What an average costs: bits that each site sends, and seconds until the last has its answer."""

    sent: float
    seconds: float


def _ring(team: Team, bits: float, count: float) -> Exchange:
    sent = float(all_reduce_bytes(count, 1.0)) * bits
    return Exchange(sent, sent / float(np.minimum(team.up, team.down).min()) + float(team.latency.max()))


def _server(team: Team, bits: float, count: float) -> Exchange:
    return Exchange(bits, float(np.max(server_seconds(1.0, bits, team.up, team.down, team.latency))))


def _upload(team: Team, bits: float, count: float) -> Exchange:
    return Exchange(bits, float(np.max(server_seconds(1.0, bits, team.up, np.inf, team.latency))))


EXCHANGES: dict[str, Callable[[Team, float, float], Exchange]] = {
    "ring": _ring,
    "server": _server,
    "upload": _upload,
}
"""How an average is made: in a ring; by a server, up and down; or up only, where the mean comes while all go on."""


class Way(NamedTuple):
    """How sites that train together do it: options of the protocols."""

    steps: float = 1.0
    bits: float = FULL
    fragments: float = 1.0
    overlap: float = 0.0
    backward: float = BACKWARD
    exchange: str = "ring"
    pace: str = "work"

    def checked(self) -> Way:
        """Itself; InputError for values outside their domains."""
        domains = {"steps": AT_LEAST_ONE, "bits": POSITIVE, "fragments": AT_LEAST_ONE, "overlap": NON_NEGATIVE}
        for name, domain in {**domains, "backward": SHARE}.items():
            check("protocol", name, getattr(self, name), domain)
        choose("protocol.exchange", self.exchange, EXCHANGES)
        choose("protocol.pace", self.pace, PACES)
        return self


PACES = {"work": "every site takes the same steps", "time": "every site trains for the same time"}


def last_of(times: np.ndarray, weight: np.ndarray, needed: float | None) -> float:
    """The time at which `needed` (all) sites are done; infinite where fewer are there."""
    if needed is None:
        return float(times.max())
    order = np.argsort(times, kind="stable")
    enough = np.cumsum(weight[order]) >= needed
    return float(times[order][enough.argmax()]) if enough.any() else np.inf


def together(team: Team, tick: Tick, way: Way, needed: float | None = None, sent_params: float | None = None) -> Flow:
    """Rounds with a barrier: all wait for the last (or for `needed` sites), and the slowest link stalls all.

    With the pace `time` the round lasts as long as a site of mean speed takes, and nobody waits. `sent_params`: of
    which an average is made, in place of all.
    """
    here = tick.share > 0
    step = team.batch / team.rate
    if not here.any():
        return nothing(tick)
    mean = team.batch / float(np.average(team.rate[here], weights=(team.weight * tick.share)[here]))
    last = mean if way.pace == "time" else last_of(step[here], team.weight[here], needed)
    if not np.isfinite(last):
        return nothing(tick)
    taking = here & ((step <= last) | (way.pace == "time"))
    own = np.full(len(step), last) if way.pace == "time" else step  # seconds in which a site does its part of a step
    count = float(np.sum((team.weight * tick.share)[taking]))
    size = (team.params if sent_params is None else sent_params) * way.bits / way.fragments
    cost = EXCHANGES[way.exchange](team.picked(taking), size, count) if count > 1 else Exchange(0.0, 0.0)
    window = way.steps * last / way.fragments
    stall = max(cost.seconds - (way.backward + way.overlap) * last, 0.0)
    cycle = window + stall
    working = tick.share * np.minimum(way.steps * own / way.fragments, window) / cycle
    sending = tick.share * stall / cycle
    waiting = np.maximum(tick.share - working - sending, 0.0)
    rounds = np.where(taking, tick.share * tick.seconds / cycle, 0.0)
    tokens = rounds * way.steps * own * team.rate / way.fragments
    return Flow(working, waiting, sending, tokens, rounds * cost.sent, memory=tick.memory)


def alone(team: Team, tick: Tick, work: np.ndarray, sent: float, hidden: np.ndarray, queue: float = 0.0) -> Flow:
    """Cycles of one's own: `work` seconds, then `sent` bits to a server and as many back, and `queue` s there."""
    sent = sent if float(team.weight.sum()) > 1 else 0.0  # one site has nobody to swap with
    waits = team.latency + queue if sent else 0.0
    stall = np.maximum(server_seconds(1.0, sent, team.up, team.down, waits) - hidden, 0.0)
    working = tick.share * work / (work + stall)
    rounds = tick.share * tick.seconds / (work + stall)
    idle = np.zeros(len(team.rate))
    return Flow(working, idle, tick.share - working, working * tick.seconds * team.rate, rounds * sent)
