"""How sites train together: what each does with a tick of its time.

A protocol is a function of the team and of one tick. Rates are those of a steady round among the sites that are up: a
site takes `steps` steps, waits for the slowest where there is a barrier, and sends what is not hidden.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.hardware.chip import all_reduce_bytes
from moesim.registry import Policies
from moesim.sites.links import BACKWARD
from moesim.sites.quality import PER_DOUBLING, kept, multiplier, overfitted, parts_gain
from moesim.variables import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, Domain, check

protocol = Policies("protocol")
_BELOW = Domain("0 or more and below 1", 0, 1, lower_open=False)
_FULL = 16.0  # bits of a parameter that is sent whole


class Team(NamedTuple):
    """What does not change in a run: of the model, and of each simulated site."""

    params: float
    batch: float  # tokens of a site's step
    rate: np.ndarray  # tokens/s
    up: np.ndarray  # bit/s
    down: np.ndarray
    latency: np.ndarray  # s
    weight: np.ndarray  # sites that it stands for


class Tick(NamedTuple):
    """A tick: its seconds, share of it that each site is up, how often each went down, tokens of the run before it.

    `memory`: what the protocol kept from the tick before.
    """

    seconds: float
    share: np.ndarray
    stops: np.ndarray
    done: float
    memory: float = 0.0


class Flow(NamedTuple):
    """What a tick gave, of one site of each kind: shares of the tick, tokens that count, bits sent; and its quality."""

    working: np.ndarray
    waiting: np.ndarray
    sending: np.ndarray
    tokens: np.ndarray
    bits: np.ndarray
    multiplier: float = 1.0  # of the loss
    kept: float = 1.0  # effective share of the tokens, for the law
    gain: float = 0.0  # nat
    memory: float = 0.0  # for the next tick


def _nothing(tick: Tick) -> Flow:
    zero = np.zeros(len(tick.share))
    return Flow(zero, tick.share, zero, zero, zero)


def _restarted(flow: Flow, tick: Tick, restart: float) -> Flow:
    """The flow with `restart` seconds of waiting each time that a site went down, at most what its tick has left."""
    check("protocol", "restart", restart, NON_NEGATIVE)
    lost = np.minimum(tick.stops * restart, tick.share * tick.seconds)
    left = 1.0 - np.divide(lost, tick.share * tick.seconds, out=np.zeros(len(lost)), where=tick.share > 0)
    working, sending = flow.working * left, flow.sending * left
    waiting = np.maximum(tick.share - working - sending, 0.0)
    return flow._replace(
        working=working, sending=sending, waiting=waiting, tokens=flow.tokens * left, bits=flow.bits * left
    )


def replicas(team: Team, tick: Tick) -> float:
    """Sites that are up, on average over the tick."""
    return float(np.sum(team.weight * tick.share))


def _last(times: np.ndarray, weight: np.ndarray, needed: float | None) -> float:
    """The time at which `needed` (all) sites are done; infinite where fewer are there."""
    if needed is None:
        return float(times.max())
    order = np.argsort(times, kind="stable")
    enough = np.cumsum(weight[order]) >= needed
    return float(times[order][enough.argmax()]) if enough.any() else np.inf


def _together(team: Team, tick: Tick, steps: float, bits: float, fragments: float, overlap: float, needed) -> Flow:
    """Rounds with a barrier and a ring: all wait for the last, and the slowest link stalls all."""
    here = tick.share > 0
    step = team.batch / team.rate
    last = _last(step[here], team.weight[here], needed) if here.any() else np.inf
    if not np.isfinite(last):
        return _nothing(tick)
    taking, copies = here & (step <= last), float(all_reduce_bytes(max(replicas(team, tick), 1.0), 1.0))
    sent = copies * team.params * bits / fragments
    slowest = np.minimum(team.up, team.down)[taking].min()
    transfer = sent / slowest + (team.latency[taking].max() if copies else 0.0)
    window = steps * last / fragments
    stall = max(transfer - (BACKWARD + overlap) * last, 0.0)
    cycle = window + stall
    working = tick.share * np.minimum(steps * step / fragments, window) / cycle
    sending = tick.share * stall / cycle
    waiting = np.maximum(tick.share - working - sending, 0.0)
    rounds = np.where(taking, tick.share * tick.seconds / cycle, 0.0)
    return Flow(working, waiting, sending, rounds * steps * team.batch / fragments, rounds * sent)


def _alone(team: Team, tick: Tick, work: np.ndarray, sent: float, hidden: np.ndarray) -> Flow:
    """Cycles of one's own: `work` seconds, then `sent` bits to a server and as many back."""
    stall = np.maximum(sent / team.up + sent / team.down + (team.latency if sent else 0.0) - hidden, 0.0)
    working = tick.share * work / (work + stall)
    tokens = working * tick.seconds * team.rate
    rounds = tick.share * tick.seconds / (work + stall)
    return Flow(working, np.zeros(len(work)), tick.share - working, tokens, rounds * sent)


@protocol
def data_parallel(team: Team, tick: Tick, *, bits: float = _FULL, restart: float = 0.0) -> Flow:
    """Every step is averaged among the sites that are up; no loss is lost to it."""
    check("protocol", "bits", bits, POSITIVE)
    return _restarted(_together(team, tick, 1.0, bits, 1.0, 0.0, None), tick, restart)


@protocol
def diloco(
    team: Team,
    tick: Tick,
    *,
    steps: float = 100.0,
    bits: float = _FULL,
    fragments: float = 1.0,
    overlap: float = 0.0,
    quorum: int | None = None,
    restart: float = 0.0,
) -> Flow:
    """Averages every `steps` steps (Douillard et al. 2023, arXiv:2311.08105), in `fragments`, behind `overlap` steps.

    `quorum`: sites that a round waits for; what the others did in it is lost.
    """
    for name, value in (("steps", steps), ("fragments", fragments)):
        check("protocol", name, value, AT_LEAST_ONE)
    check("protocol", "bits", bits, POSITIVE)
    check("protocol", "overlap", overlap, NON_NEGATIVE)
    if quorum is not None and not 1 <= quorum <= team.weight.sum():
        raise InputError(
            f"protocol: quorum={quorum} of {team.weight.sum():g} sites; it takes 1 to as many as there are"
        )
    flow = _restarted(_together(team, tick, steps, bits, fragments, overlap, quorum), tick, restart)
    M = replicas(team, tick) if quorum is None else min(replicas(team, tick), quorum)
    return flow._replace(multiplier=float(multiplier(M, team.params, steps)), kept=float(kept(bits)))


@protocol
def asynchronous(
    team: Team,
    tick: Tick,
    *,
    steps: float = 100.0,
    bits: float = _FULL,
    overlap: float = 0.0,
    copies: float = 1.0,
    success: float = 1.0,
    stale: float = 0.0,
    restart: float = 0.0,
) -> Flow:
    """Each site goes its own pace and swaps parameters with a server every `steps` steps; nobody waits.

    `copies` of each piece of work are done, of which a share `success` comes back (volunteers check one another with
    2). `stale`: share of the tokens that is lost because others have moved on: not measured, 0 unless given.
    """
    for name, value in (("steps", steps), ("copies", copies)):
        check("protocol", name, value, AT_LEAST_ONE)
    check("protocol", "bits", bits, POSITIVE)
    check("protocol", "success", success, FRACTION)
    check("protocol", "stale", stale, _BELOW)
    step = team.batch / team.rate
    hidden = check("protocol", "overlap", overlap, NON_NEGATIVE) * step
    flow = _restarted(_alone(team, tick, steps * step, team.params * bits, hidden), tick, restart)
    learners = replicas(team, tick) / copies
    factor = float(multiplier(learners, team.params, steps))
    share = float(kept(bits)) * (1.0 - stale)
    return flow._replace(tokens=flow.tokens * success / copies, multiplier=factor, kept=share)


def _heads(team: Team, parts: int) -> np.ndarray:
    """Share of each simulated site that trains a part: of the fastest, one site each."""
    if parts > len(team.rate):
        raise InputError(f"protocol: {parts} parts for {len(team.rate)} simulated sites; it takes fewer levels")
    chosen = np.zeros(len(team.rate))
    fastest = np.argsort(-team.rate, kind="stable")[:parts]
    chosen[fastest] = 1.0 / team.weight[fastest]
    return chosen


def _levels(levels: int) -> int:
    if not 0 <= levels <= 20:
        raise InputError(f"protocol: levels={levels}; it takes a whole number from 0 to 20")
    return 2**levels


def _phases(team: Team, tick: Tick, first: int, parts: int, stem: float) -> tuple[float, float, float]:
    """Of a tick: the share in which the stem is trained, its tokens, and the seconds in which the parts then get it."""
    speed = float(team.rate[first] * tick.share[first]) * tick.seconds
    left = max(stem - tick.done, 0.0)
    before = min(left / speed, 1.0) if speed else float(left > 0)
    transfer = (parts - 1) * team.params * _FULL / team.up[first]
    return before, before * speed, min((1.0 - before) * tick.seconds, max(transfer - tick.memory, 0.0))


@protocol
def frozen_stem(
    team: Team,
    tick: Tick,
    *,
    levels: int = 3,
    stem_tokens: float = 1e9,
    gain: float = PER_DOUBLING,
    unique_tokens: float = np.inf,
    overfit: float = 0.0,
) -> Flow:
    """The fastest site trains the first `levels` of the tree; then 2^levels parts go on, one to a site, without a word.

    The parts get the stem once, at the cut, and send nothing after it. Sites without a part stay idle. Loss: that of a
    part's own tokens and the stem's, less `gain` nat for each doubling of the parts, and `overfit` for each e-fold of
    passes beyond 4 that a part makes over its share of the `unique_tokens`.
    """
    parts, stem = _levels(levels), check("protocol", "stem_tokens", stem_tokens, NON_NEGATIVE)
    shard = check("protocol", "unique_tokens", unique_tokens, POSITIVE_OR_INF) / parts
    check("protocol", "overfit", overfit, NON_NEGATIVE)
    heads, centre = _heads(team, parts), _heads(team, 1)
    first = int(centre.argmax())
    before, shared, cut = _phases(team, tick, first, parts, stem)
    alone = 1.0 - before - cut / tick.seconds
    working = tick.share * (before * centre + alone * heads)
    sending = np.minimum(centre * cut / tick.seconds, tick.share - working)
    tokens = working * tick.seconds * team.rate
    total = float(np.sum(tokens * team.weight))
    own = max(tick.done - stem, 0.0) / parts
    return Flow(
        working,
        np.maximum(tick.share - working - sending, 0.0),
        sending,
        tokens,
        centre * cut * team.up[first],
        kept=(shared + (total - shared) / parts) / total if total else 1.0,
        gain=float(parts_gain(parts, own / (stem + own) if own else 0.0, gain) - overfitted(own / shard, overfit)),
        memory=tick.memory + cut,
    )


@protocol
def path_sync(
    team: Team,
    tick: Tick,
    *,
    levels: int = 3,
    d_model: int = 4096,
    layers: int = 32,
    round_seconds: float = 600.0,
    bits: float = _FULL,
    server: float = 1e10,
    gain: float = PER_DOUBLING,
) -> Flow:
    """Each site trains a leaf of the tree and the branches above it, whose change it swaps through a server each round.

    A report holds levels (d_model + 1) layers numbers; `server`: bit/s into it, shared by all.
    """
    parts = _levels(levels)
    sent = path_bits(levels, d_model, layers, bits)
    work = np.full(len(team.rate), check("protocol", "round_seconds", round_seconds, POSITIVE))
    arriving = replicas(team, tick) * sent / check("protocol", "server", server, POSITIVE)
    queue = max(arriving - round_seconds, 0.0)  # the server takes longer than a round for all reports
    flow = _alone(team._replace(latency=team.latency + queue), tick, work, sent, np.zeros(len(work)))
    return flow._replace(kept=1.0 / parts, gain=float(parts_gain(parts, 1.0, gain)))


def path_bits(levels: float, d_model: float, layers: float, bits: float = _FULL) -> float:
    """Bits of the branches on one path: levels (d_model + 1) layers numbers."""
    return levels * (d_model + 1.0) * layers * bits
