"""How sites train a model in parts: a stem and what grows on it, the branches on one's path, whole experts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.models.operations import choose
from moesim.sites.flows import FULL, SHARE, Flow, Team, Tick, Way, alone, replicas, restarted, together
from moesim.sites.protocols import protocol
from moesim.variables import NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, check

SHARED = {
    "replicated": "each part has a copy of its own, and trains it",
    "synced": "averaged among all sites in each round",
}
"""What becomes of attention, embeddings and whatever else is on every path."""
_ID = 16.0  # bits of a token's number


def levels_of(levels: int) -> int:
    """Parts of so many levels."""
    if not 0 <= levels <= 20:
        raise InputError(f"protocol: levels={levels}; it takes a whole number from 0 to 20")
    return 2**levels


class _Grown(NamedTuple):
    """What is kept of a frozen stem: who trains what, seconds that the cut took so far, tokens of each part alone."""

    crews: list[np.ndarray]  # for each part, sites of each simulated one
    shares: np.ndarray  # of the data
    unique: np.ndarray  # tokens
    cut: float
    own: np.ndarray


class _Phases(NamedTuple):
    """Seconds of a tick: at the stem, at marking data, at sending stem and marks; and tokens of the stem."""

    stem: float
    marking: float
    sending: float
    tokens: float


@protocol
def frozen_stem(
    team: Team,
    tick: Tick,
    *,
    levels: int = 3,
    stem_tokens: float = 1e9,
    tokens: float = np.inf,
    cut: str = "equal",
    shared: float = 0.0,
    marking: float = 0.0,
    all_sites: bool = False,
    relayed: bool = False,
    steps: float = 100.0,
    bits: float = FULL,
) -> Flow:
    """The fastest site trains the first `levels` of the tree; then 2^levels parts go on without a word.

    The parts get the stem once, at the cut, and send nothing after it. Each goes to one site, the fastest, and the
    others stay idle; or, with `all_sites`, to as many as there are, which average every `steps` steps in `bits`. `cut`:
    a way of `cut.CUTS` to share the data among parts. `shared`: share of a path's parameters that are frozen with the
    stem (0: each part trains a copy of all). `tokens`: of the stem and all parts together; a part that had its share
    stops. `marking`: share of the parameters with which the centre says whose each of these tokens is, at the cut.
    `relayed`: sites hand on the stem as it comes, to all that train, in the time of one copy over the slowest link;
    else the centre sends a copy to each part, one after another.
    """
    parts, way = levels_of(levels), Way(steps, bits).checked()
    stem = check("protocol", "stem_tokens", stem_tokens, NON_NEGATIVE)
    left = check("protocol", "tokens", tokens, POSITIVE_OR_INF) - stem
    check("protocol", "shared", shared, SHARE)
    kept = tick.memory or _planted(team, parts, all_sites, cut)
    centre = int(team.rate.argmax())
    toll = _toll(team, centre, kept.crews, left, marking, relayed)
    phases = _phases(team, tick, centre, max(stem - (tick.done - kept.own.sum()), 0.0), toll, kept.cut)
    later = tick.seconds - phases.stem - phases.marking - phases.sending
    todo = np.maximum(kept.shares * left - kept.own, 0.0) if np.isfinite(left) else np.full(parts, np.inf)
    flow, own = _apart(team, tick._replace(seconds=later), kept.crews, way if all_sites else None, todo)
    flow = _with_stem(team, tick, centre, phases, toll.rate, flow)
    spent = (phases.marking + phases.sending) * float(tick.share[centre])
    grown = kept._replace(cut=kept.cut + spent, own=kept.own + own)
    flow = _grew(team, flow, kept, grown, phases.tokens, stem, shared)
    if not all_sites:
        return flow
    factor = float(team.quality.multiplier(replicas(team, tick) / parts, team.params, steps))
    return flow._replace(multiplier=factor, kept=float(team.quality.kept(bits)))


def _grew(team: Team, flow: Flow, kept: _Grown, grown: _Grown, trained: float, stem: float, shared: float) -> Flow:
    """The flow with what the parts saw of stem and own data, and what they gained."""
    learned = team.shards.learned(grown.own, kept.unique) - team.shards.learned(kept.own, kept.unique)
    return flow._replace(
        gain=_gain(team, kept.shares, grown.own, kept.unique, stem),
        seen=trained + (1.0 - shared) * learned,
        shares=kept.shares,
        memory=grown,
    )


def _planted(team: Team, parts: int, all_sites: bool, cut: str) -> _Grown:
    crews = _crews(team, parts, all_sites)
    shares, unique = team.shards.among(np.array([np.sum(one * team.rate) for one in crews]), cut)
    return _Grown(crews, shares, unique, 0.0, np.zeros(parts))


def _crews(team: Team, parts: int, all_sites: bool) -> list[np.ndarray]:
    """For each part, how many sites of each simulated one train it: the fastest, one each; or all, dealt out."""
    if parts > len(team.rate):
        raise InputError(f"protocol: {parts} parts for {len(team.rate)} simulated sites; it takes fewer levels")
    order = np.argsort(-team.rate, kind="stable")
    chosen = [order[j::parts] if all_sites else order[j : j + 1] for j in range(parts)]
    number = team.weight if all_sites else np.ones(len(order))
    return [np.where(np.isin(np.arange(len(order)), sites), number, 0.0) for sites in chosen]


class _Toll(NamedTuple):
    """What the cut takes: seconds of the centre to mark data, seconds to send, and bit/s of all that send meanwhile."""

    mark: float
    send: float
    rate: float


def _toll(team: Team, centre: int, crews: list[np.ndarray], left: float, marking: float, relayed: bool) -> _Toll:
    """To mark the tokens that are left takes 2 FLOP of 6; stem and marks are sent once."""
    if check("protocol", "marking", marking, SHARE) and not np.isfinite(left):
        raise InputError("protocol: marking without an end; give protocol.tokens, which are to be marked")
    ids = left * _ID if marking else 0.0
    mark = marking * left / (3.0 * team.rate[centre]) if marking else 0.0
    parts, up, stem = len(crews), float(team.up[centre]), team.params * FULL
    ids *= (parts - 1) / parts
    if not relayed:
        return _Toll(mark, ((parts - 1) * stem + ids) / up, up)
    receive = np.sum(crews, axis=0)
    copies = float(receive.sum()) - 1.0
    link = float(np.minimum(team.up, team.down)[receive > 0].min())
    seconds = (stem / link if copies > 0 else 0.0) + ids / up
    return _Toll(mark, seconds, (copies * stem + ids) / seconds if seconds else 0.0)


def _phases(team: Team, tick: Tick, centre: int, stem: float, toll: _Toll, spent: float) -> _Phases:
    """Of a tick, with `stem` tokens to go and so many seconds of the toll `spent`."""
    share, rate = float(tick.share[centre]), float(team.rate[centre])
    needed = (stem / rate, max(toll.mark - spent, 0.0), max(toll.send - max(spent - toll.mark, 0.0), 0.0))
    # seconds of the tick by which each is done; `needed` are seconds in which the centre is up
    done = np.minimum(
        np.cumsum(needed) / share if share else np.where(np.cumsum(needed) > 0, np.inf, 0.0), tick.seconds
    )
    grown, marked, sent = np.diff(done, prepend=0.0).tolist()
    return _Phases(grown, marked, sent, grown * rate * share)


def _apart(
    team: Team, tick: Tick, crews: list[np.ndarray], way: Way | None, todo: np.ndarray
) -> tuple[Flow, np.ndarray]:
    """What all parts do in their time, each up to the tokens that it has `todo`, and the tokens of each."""
    found, own = np.zeros((4, len(team.rate))), np.zeros(len(crews))
    zero = np.zeros(len(team.rate))
    for j, crew in enumerate(crews):
        sites = np.flatnonzero(crew)
        flow = _free(team.picked(sites), tick.picked(sites), way)
        most = float(np.sum(flow.tokens * crew[sites]))
        own[j] = min(most, todo[j])
        shares = np.stack([flow.working, flow.sending, flow.tokens, flow.bits])
        found[:, sites] = shares * (own[j] / most if most else 0.0) * (crew / team.weight)[sites]
    return Flow(found[0], zero, found[1], found[2], found[3]), own


def _free(team: Team, tick: Tick, way: Way | None) -> Flow:
    """Sites that train without a pause, or together."""
    if way is not None:
        return together(team, tick, way)
    zero = np.zeros(len(team.rate))
    return Flow(tick.share, zero, zero, tick.share * tick.seconds * team.rate, zero)


def _with_stem(team: Team, tick: Tick, centre: int, phases: _Phases, rate: float, flow: Flow) -> Flow:
    """The flow of the parts, in shares of the whole tick, and what the centre did before."""
    at = (np.arange(len(team.rate)) == centre) / team.weight[centre]
    apart = 1.0 - (phases.stem + phases.marking + phases.sending) / tick.seconds
    busy = at * tick.share[centre] / tick.seconds
    working = flow.working * apart + busy * (phases.stem + phases.marking)
    sending = flow.sending * apart + busy * phases.sending
    return flow._replace(
        working=working,
        sending=sending,
        waiting=np.maximum(tick.share - working - sending, 0.0),
        tokens=flow.tokens + at * phases.tokens,
        bits=flow.bits + busy * tick.seconds * phases.sending * rate,
    )


def _gain(team: Team, shares: np.ndarray, own: np.ndarray, unique: np.ndarray, stem: float) -> float:
    """Nat that parts gain over one, less what they lose to many passes over their shards."""
    apart = np.divide(own, stem + own, np.zeros(len(own)), where=own > 0)
    passes = np.divide(own, unique, np.zeros(len(own)), where=unique > 0)
    return float(team.quality.parts_gain(shares, apart) - np.sum(shares * team.quality.overfitted(passes)))


@protocol
def path_sync(
    team: Team,
    tick: Tick,
    *,
    levels: int = 3,
    d_model: float | None = None,
    layers: float | None = None,
    round_seconds: float = 600.0,
    bits: float = FULL,
    server: float = 1e10,
    shared: float = 0.0,
    shared_are: str = "replicated",
) -> Flow:
    """Each site trains a leaf of the tree and the branches above it, whose change it swaps through a server each round.

    A report holds levels (d_model + 1) layers numbers of branches (null: those of the run); where there are more sites
    than leaves, also those of the leaf, which these sites average. `shared`: share of a path's parameters that every
    path has (attention, embeddings); replicated, a leaf has a copy of its own; synced, they are in every report. A path
    learns from the mean, over its parameters, of the tokens that these have seen. `server`: bit/s into it, shared by
    all.
    """
    parts = levels_of(levels)
    choose("protocol.shared_are", shared_are, SHARED)
    check("protocol", "shared", shared, SHARE)
    wide, deep = (own if given is None else given for given, own in ((d_model, team.d_model), (layers, team.layers)))
    check("protocol", "d_model", wide, POSITIVE)
    numbers = path_bits(levels, wide, check("protocol", "layers", deep, POSITIVE), 1.0)
    branches = min(numbers / team.params, 1.0)
    synced = shared if shared_are == "synced" else 0.0
    own = max(1.0 - branches - synced, 0.0)
    each = float(team.weight.sum()) / parts
    sent = bits * (numbers + team.params * (synced + (own if each > 1 else 0.0)))
    work = np.full(len(team.rate), check("protocol", "round_seconds", round_seconds, POSITIVE))
    arriving = replicas(team, tick) * sent / check("protocol", "server", server, POSITIVE)
    queue = max(arriving - round_seconds, 0.0)  # the server takes longer than a round for all reports
    flow = alone(team, tick, work, sent, np.zeros(len(work)), queue)
    steps = max(round_seconds * float(np.average(team.rate, weights=team.weight)) / team.batch, 1.0)
    seen = own / parts + synced + branches * _above(levels)
    return flow._replace(
        multiplier=_path_factor(team, replicas(team, tick), parts, steps, own, synced),
        kept=seen * float(team.quality.kept(bits)),
        gain=float(team.quality.parts_gain(np.full(parts, 1.0 / parts), 1.0)),
    )


def _path_factor(team: Team, count: float, parts: int, steps: float, own: float, synced: float) -> float:
    """Multiplier of the loss: sites of one leaf average its share `own` of the parameters, all sites what is synced."""
    beta, there = team.quality.exponent(team.params, steps), max(count, 1.0)
    return float(max(there / parts, 1.0) ** (beta * own) * there ** (beta * synced))


def _above(levels: int) -> float:
    """Share of all tokens that the branches on a path see, on average: those k levels down, 2^-k."""
    return float(np.mean(0.5 ** np.arange(levels))) if levels else 1.0


def path_bits(levels: float, d_model: float, layers: float, bits: float = FULL) -> float:
    """Bits of the branches on one path: levels (d_model + 1) layers numbers."""
    return levels * (d_model + 1.0) * layers * bits


@protocol(whole=False)
def experts(
    team: Team,
    tick: Tick,
    *,
    shared: float | None = None,
    shared_are: str = "synced",
    cut: str = "proportional",
    steps: float = 100.0,
    bits: float = FULL,
    overlap: float = 0.0,
    restart: float = 0.0,
) -> Flow:
    """Each site holds whole experts and trains them where their data are; what is `shared` is averaged.

    `shared`: share of all parameters that are no experts (null: the run's); synced every `steps` steps among the sites
    that are up (one that failed is left out of the mean), or replicated. Its experts, an even part of the rest, never
    leave a site (SPES, arXiv:2602.11543). `cut`: a way of `cut.CUTS` to share the data among sites. An expert learns
    from the mean, over its own and the shared parameters, of the tokens that these have seen, and gains as parts do;
    unmeasured.
    """
    way = Way(steps, bits, overlap=overlap, pace="time").checked()
    choose("protocol.shared_are", shared_are, SHARED)
    share = team.shared if shared is None else check("protocol", "shared", shared, SHARE)
    count = float(team.weight.sum())
    held = team.params * team.state_bytes * (share + (1.0 - share) / count)
    if (team.memory < held).all():
        lack = held - team.memory.max()
        raise InputError(f"protocol: experts of {held:.4g} bytes fit on no site: the largest lacks {lack:.4g} bytes")
    here = tick._replace(share=np.where(team.memory >= held, tick.share, 0.0))
    synced = share if shared_are == "synced" else 0.0
    flow = together(team, here, way, sent_params=team.params * synced)
    flow = restarted(flow, here, restart)._replace(waiting=flow.waiting + tick.share - here.share)
    return _taught(team, here, flow, tick.memory or _held(team, held, cut), synced, way)


class _Held(NamedTuple):
    """Of the sites of each kind: share of the data, unique tokens, and tokens that their experts have learned from."""

    shares: np.ndarray
    unique: np.ndarray
    own: np.ndarray


def _held(team: Team, needed: float, cut: str) -> _Held:
    able = np.flatnonzero(team.memory >= needed)
    shares, unique, own = np.zeros((3, len(team.rate)))
    shares[able], unique[able] = team.shards.among((team.rate * team.weight)[able], cut)
    return _Held(shares, unique, own)


def _taught(team: Team, tick: Tick, flow: Flow, held: _Held, synced: float, way: Way) -> Flow:
    """The flow with what the experts of each site saw, gained and lost."""
    own = held.own + flow.tokens * team.weight
    learned = (team.shards.learned(own, held.unique) - team.shards.learned(held.own, held.unique)) / team.weight
    total, quality = float(np.sum(flow.tokens * team.weight)), team.quality
    passes = np.divide(own, held.unique, np.zeros(len(own)), where=held.unique > 0)
    gain = quality.parts_gain(held.shares, 1.0, team.weight) * (1.0 - synced)
    return flow._replace(
        multiplier=float(quality.multiplier(replicas(team, tick), team.params, way.steps) ** synced),
        kept=float(quality.kept(way.bits)) if synced else 1.0,
        gain=float(gain - np.sum(held.shares * quality.overfitted(passes))),
        seen=synced * total + (1.0 - synced) * learned,
        shares=held.shares,
        memory=held._replace(own=own),
    )
