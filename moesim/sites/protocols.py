"""How sites that all hold the model train it together: what each does with a tick of its time.

A protocol is a function of the team and of one tick; see `moesim.sites.flows`. Those that part the model are in
`moesim.sites.apart`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.registry import Policies
from moesim.sites.failures import young_daly
from moesim.sites.flows import (
    EXCHANGES,
    FULL,
    SHARE,
    Flow,
    Team,
    Tick,
    Way,
    alone,
    last_of,
    nothing,
    replicas,
    restarted,
    slowed,
    together,
)
from moesim.sites.links import BACKWARD
from moesim.variables import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, check

# `whole`: each site holds the whole model, so that one which cannot does nothing.
protocol = Policies("protocol", whole=True)


@protocol
def data_parallel(
    team: Team,
    tick: Tick,
    *,
    bits: float = FULL,
    backward: float = BACKWARD,
    exchange: str = "ring",
    restart: float = 0.0,
) -> Flow:
    """Every step is averaged among the sites that are up; no loss is lost to it."""
    way = Way(bits=bits, backward=backward, exchange=exchange).checked()
    return restarted(together(team, tick, way), tick, restart)


@protocol
def diloco(
    team: Team,
    tick: Tick,
    *,
    steps: float = 100.0,
    bits: float = FULL,
    fragments: float = 1.0,
    overlap: float = 0.0,
    backward: float = BACKWARD,
    exchange: str = "ring",
    pace: str = "work",
    quorum: int | None = None,
    restart: float = 0.0,
) -> Flow:
    """Averages every `steps` steps (Douillard et al. 2023, arXiv:2311.08105), in `fragments`, behind `overlap` steps.

    `exchange`: ring, server, or upload (see `flows.EXCHANGES`). `pace`: all take the same steps and wait for the
    slowest (work), or train for the same time, each as many as it can (time). `quorum`: sites that a round waits for;
    what the others did in it is lost.
    """
    way = Way(steps, bits, fragments, overlap, backward, exchange, pace).checked()
    if quorum is not None and pace == "time":
        raise InputError("protocol: quorum with pace=time, where nobody waits; it takes pace=work")
    flow = restarted(together(team, tick, way, _quorum(team, quorum)), tick, restart)
    counted = float(np.sum((team.weight * tick.share)[flow.tokens > 0]))  # of equal sites no quorum leaves any out
    return _averaged(flow, team, counted, steps, bits)


def _quorum(team: Team, quorum: int | None) -> int | None:
    if quorum is not None and not 1 <= quorum <= team.weight.sum():
        raise InputError(
            f"protocol: quorum={quorum} of {team.weight.sum():g} sites; it takes 1 to as many as there are"
        )
    return quorum


def _averaged(flow: Flow, team: Team, count: float, steps: float, bits: float) -> Flow:
    """The flow with what `count` replicas and few bits do to the loss."""
    factor = float(team.quality.multiplier(count, team.params, steps))
    return flow._replace(multiplier=factor, kept=float(team.quality.kept(bits)))


@protocol
def decoupled(
    team: Team,
    tick: Tick,
    *,
    steps: float = 100.0,
    bits: float = FULL,
    quorum: int = 1,
    grace: float = 1.0,
    overlap: float = 1.0,
    restart: float = 0.0,
) -> Flow:
    """Averages of at least `quorum` sites, while all go on (Decoupled DiLoCo 2026, arXiv:2604.21428).

    An average is made of the reports that are there when the quorum is, and of those of a time of grace: `grace` of
    what the `overlap` steps leave beyond the exchange. Who is later goes on too, and reports to the next: of its tokens
    the share `quality.stale` is lost. Where fewer are up, all wait.
    """
    way = Way(steps, bits, overlap=overlap).checked()
    check("protocol", "grace", grace, SHARE)
    reports, here = steps * team.batch / team.rate, tick.share > 0
    closes = last_of(reports[here], team.weight[here], _quorum(team, quorum)) if here.any() else np.inf
    if not np.isfinite(closes):
        return nothing(tick)
    hidden = (BACKWARD + overlap) * closes / steps
    count = float(np.sum((team.weight * tick.share)[here & (reports <= closes)]))
    size = team.params * bits
    needed = EXCHANGES["ring"](team.picked(here & (reports <= closes)), size, count).seconds if count > 1 else 0.0
    counted = here & (reports <= closes + grace * max(hidden - needed, 0.0))
    count = float(np.sum((team.weight * tick.share)[counted]))
    cost = EXCHANGES["ring"](team.picked(counted), size, max(count, 1.0))
    stall = max(cost.seconds - hidden, 0.0) if count > 1 else 0.0
    flow = _cycles(team, tick, reports, stall, cost.sent if count > 1 else 0.0)
    flow = flow._replace(tokens=flow.tokens * np.where(counted, 1.0, 1.0 - team.quality.stale))
    return _averaged(restarted(flow, tick, restart), team, count, way.steps, bits)


def _cycles(team: Team, tick: Tick, work: np.ndarray, stall: float, sent: float) -> Flow:
    """Each works for its time, then stalls, over and over."""
    working = tick.share * work / (work + stall)
    sending, zero = tick.share - working, np.zeros(len(work))
    bits = tick.share * tick.seconds / (work + stall) * sent
    return Flow(working, zero, sending, working * tick.seconds * team.rate, bits)


class _Debt(NamedTuple):
    """Seconds that are still to be lost: to work done again, to waiting of all, and of each site by itself."""

    again: float
    all_wait: float
    own: np.ndarray


@protocol
def elastic(
    team: Team,
    tick: Tick,
    *,
    steps: float = 1.0,
    bits: float = FULL,
    checkpoint: float = 60.0,
    every: float | None = None,
    recovery: float = 600.0,
    others: str = "go_on",
    joins: str = "alone",
) -> Flow:
    """Averages every `steps` steps among sites whose devices fail and that come and go, with checkpoints.

    A checkpoint stalls all for `checkpoint` seconds, `every` so many (null: Young's and Daly's best for the failures of
    the devices). A failure loses half an interval, and `recovery` seconds: of all where the `others` stop, who then
    also go back when a site leaves; else of the device alone. Who joins copies the state over its link, `alone` or
    while all wait (as in INTELLECT-1).
    """
    way = Way(steps, bits).checked()
    for name, value, choices in (("others", others, ("go_on", "stop")), ("joins", joins, ("alone", "all"))):
        if value not in choices:
            raise InputError(f"protocol: {name}={value!r}; it takes {' or '.join(choices)}")
    stall, recovery = (
        check("protocol", "checkpoint", checkpoint, POSITIVE),
        check("protocol", "recovery", recovery, NON_NEGATIVE),
    )
    interval = _interval(team, stall, every)
    stops = others == "stop"
    failed = float(np.sum(team.weight * (tick.failures + stops * tick.stops)))
    if failed and not np.isfinite(interval):
        raise InputError("protocol: sites go down, but no failures of devices set an interval; give protocol.every")
    debt = tick.memory or _Debt(0.0, 0.0, np.zeros(len(team.rate)))
    copied = tick.starts * 8.0 * team.params * team.state_bytes / team.down
    wait = debt.all_wait + stops * failed * recovery + (joins == "all") * float(copied.max())
    own = debt.own + (joins == "alone") * copied + (not stops) * tick.failures * recovery / team.devices
    debt = _Debt(debt.again + (failed * interval / 2.0 if failed else 0.0), wait, own)
    flow = _indebted(together(team, tick, way), tick, debt, stall / interval)
    return _averaged(flow, team, replicas(team, tick), steps, bits)


def _interval(team: Team, stall: float, every: float | None) -> float:
    if every is not None:
        return check("protocol", "every", every, POSITIVE)
    rate = float(np.sum(team.weight * team.failures))
    return float(young_daly(stall, rate).interval) if rate else np.inf


def _indebted(flow: Flow, tick: Tick, debt: _Debt, written: float) -> Flow:
    """The flow less `written`, the share of checkpoints, and what the tick can pay of the debt; the rest is kept."""
    seconds = tick.seconds * (1.0 - written)
    waited = min(debt.all_wait, seconds)
    again = min(debt.again, seconds - waited)
    left = (seconds - waited) / tick.seconds
    useful = 1.0 - again / (seconds - waited) if seconds > waited else 0.0
    there = tick.share * tick.seconds
    own = np.minimum(debt.own, there * left * useful)
    of_own = np.divide(own, there * useful, np.zeros(len(own)), where=own > 0)
    paid = slowed(flow, tick, left - of_own, useful)
    return paid._replace(memory=_Debt(debt.again - again, debt.all_wait - waited, debt.own - own))


@protocol(whole=False)
def pipeline(
    team: Team,
    tick: Tick,
    *,
    stages: int | None = None,
    microbatches: int = 8,
    d_model: float | None = None,
    value_bits: float = 16.0,
    steps: float = 100.0,
    bits: float = FULL,
    restart: float = 0.0,
) -> Flow:
    """Replicas that are pipelines of `stages` sites (null: as many as hold the model), averaged every `steps` steps.

    A step takes (microbatches + stages - 1) times the longest stage: its compute, an activation forward and its
    gradient back in `value_bits` (of `d_model`; null: the run's), and the latency. Sites of like speed are piped
    together, anew in each tick.
    """
    S, b = _stages(team, stages), check("protocol", "microbatches", microbatches, AT_LEAST_ONE)
    way = Way(steps, bits).checked()
    wide = check("protocol", "d_model", team.d_model if d_model is None else d_model, POSITIVE)
    moved = team.batch / b * wide * check("protocol", "value_bits", value_bits, POSITIVE) * (S > 1)
    crews = _grouped(team, tick, S)
    if not crews.count:
        return nothing(tick)
    sites, group = crews.sites, crews.group
    compute = team.batch / (b * S * team.rate[sites])
    hop = 2.0 * moved * _most(1.0 / np.minimum(team.up, team.down)[sites], group)
    step = (b + S - 1) * (_most(compute, group) + hop + (S > 1) * _most(team.latency[sites], group))
    cost = EXCHANGES["ring"](team.picked(sites[crews.used > 0]), team.params / S * bits, crews.count)
    single = crews.count <= 1
    stall = 0.0 if single else float(np.max(np.maximum(cost.seconds - BACKWARD * step, 0.0)))
    share, cycle = tick.share[sites] * crews.used, steps * step.max() + stall
    handed = 2.0 * moved * (S - 1) / S  # the first stage gets no activation and the last hands none on
    rounds, sent = share * tick.seconds / cycle, steps * b * handed + (0.0 if single else cost.sent)
    found = np.zeros((4, len(team.rate)))
    rows = (share * steps * b * compute / cycle, share * stall / cycle, rounds * steps * team.batch / S, rounds * sent)
    found[:, sites] = rows
    waiting = np.maximum(tick.share - found[0] - found[1], 0.0)
    flow = restarted(Flow(found[0], waiting, *found[1:]), tick, restart)
    return _averaged(flow, team, crews.count, way.steps, bits)


class _Crews(NamedTuple):
    """Sites in order of speed, the pipeline of each, how much of it is used, and how many pipelines there are."""

    sites: np.ndarray
    group: np.ndarray
    used: np.ndarray
    count: float


def _grouped(team: Team, tick: Tick, stages: int) -> _Crews:
    sites = np.argsort(-team.rate, kind="stable")
    sites = sites[tick.share[sites] > 0]
    amount = (team.weight * tick.share)[sites]
    before = np.cumsum(amount) - amount
    pipelines = float(np.floor(amount.sum() / stages + 1e-9))
    used = np.clip((pipelines * stages - before) / amount, 0.0, 1.0)
    return _Crews(sites, np.unique(np.floor(before / stages + 1e-9), return_inverse=True)[1], used, pipelines)


def _stages(team: Team, stages: int | None) -> int:
    """Stages that hold the model; InputError where they do not, with the bytes that lack."""
    state, most = team.params * team.state_bytes, float(team.memory.min())
    S = int(np.ceil(state / most - 1e-9)) if stages is None else int(check("protocol", "stages", stages, AT_LEAST_ONE))
    if state / S > most * (1 + 1e-9):
        raise InputError(
            f"protocol: a stage of {state / S:.4g} bytes lacks {state / S - most:.4g} bytes on the smallest site; "
            f"give {int(np.ceil(state / most))} stages or more"
        )
    if team.weight.sum() < S:
        raise InputError(f"protocol: {S} stages for {team.weight.sum():g} sites; give a smaller model or more sites")
    return S


def _most(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The largest value of its group, for each."""
    out = np.zeros(group.max() + 1)
    np.maximum.at(out, group, values)
    return out[group]


@protocol
def asynchronous(
    team: Team, tick: Tick, *, steps: float = 100.0, bits: float = FULL, overlap: float = 0.0, restart: float = 0.0
) -> Flow:
    """Each site goes its own pace and swaps parameters with a server every `steps` steps; nobody waits.

    The share `quality.stale` of the tokens is lost because others have moved on: not measured, 0 unless given.
    """
    way = Way(steps, bits, overlap=overlap).checked()
    step = team.batch / team.rate
    flow = alone(team, tick, steps * step, team.params * bits, way.overlap * step)
    flow = _averaged(restarted(flow, tick, restart), team, replicas(team, tick), steps, bits)
    return flow._replace(kept=flow.kept * (1.0 - team.quality.stale))


class _Unit(NamedTuple):
    """Of the unit of work that each site has: seconds done, seconds since it was given."""

    done: np.ndarray
    age: np.ndarray


@protocol
def volunteers(
    team: Team,
    tick: Tick,
    *,
    steps: float = 10.0,
    bits: float = FULL,
    copies: float = 2.0,
    success: float = 1.0,
    deadline_hours: float = np.inf,
) -> Flow:
    """Units of `steps` steps, each given to `copies` hosts, of whose answers a share `success` is right.

    Hosts swap with a server and go their own pace, as in `asynchronous`. A unit that is not back `deadline_hours` after
    it was given is given to another, and what was done of it is lost; a unit counts when it is back.
    """
    Way(steps, bits).checked()
    check("protocol", "copies", copies, AT_LEAST_ONE)
    check("protocol", "success", success, FRACTION)
    deadline = 3600.0 * check("protocol", "deadline_hours", deadline_hours, POSITIVE_OR_INF)
    step = team.batch / team.rate
    flow = alone(team, tick, steps * step, team.params * bits, np.zeros(len(step)))
    if np.isfinite(deadline):
        flow = _delivered(team, tick, flow, steps, deadline)
    flow = _averaged(flow, team, replicas(team, tick) / copies, steps, bits)
    kept = flow.kept * (1.0 - team.quality.stale)
    return flow._replace(tokens=flow.tokens * success / copies, kept=kept)


def _delivered(team: Team, tick: Tick, flow: Flow, steps: float, deadline: float) -> Flow:
    """The flow whose tokens are those of the units that came back in this tick, in time."""
    unit = tick.memory or _Unit(*np.zeros((2, len(team.rate))))
    working = np.divide(flow.working, tick.share, np.ones(len(unit.done)), where=tick.share > 0)
    cycle = steps * team.batch / team.rate / working  # s up, with its sending
    done, age = unit.done + tick.share * tick.seconds, unit.age + tick.seconds
    back = np.floor(done / cycle + 1e-9)
    done = np.maximum(done - back * cycle, 0.0)
    age = np.where(back > 0, np.minimum(done, tick.seconds), age)
    late = age >= deadline
    memory = _Unit(np.where(late, 0.0, done), np.where(late, 0.0, age))
    return flow._replace(tokens=back * steps * team.batch, memory=memory)
