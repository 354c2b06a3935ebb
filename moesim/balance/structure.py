"""Changing the experts: split, replicate, merge, prune, grow.

A split makes a new expert: it starts as a copy and then learns on its own. A replica is the same expert in one more
slot: it shares weights and changes only the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.balance.state import State, fitted
from moesim.domains import tree
from moesim.errors import InputError
from moesim.registry import Policies, Policy
from moesim.settings import NonNegative, Share, defaults, number, read, setting, whole
from moesim.variables import AT_LEAST_ONE, POSITIVE, check

ways = Policies("split way")
criteria = Policies("split criterion")

# What changes the experts of one seed.
Edit = Callable[[State], State]


@dataclass(frozen=True)
class Structure:
    """How experts change: `policy` (view) -> edits of one seed, asked `every` steps.

    An expert is hot once the natural demand for it, per copy, has been above `threshold` x the mean for `patience`
    windows in a row. Demand is the load that natural sampling would give (a sampler that feeds idle experts hides
    hotspots, it does not make them go away), over the speed of the devices that serve it.
    """

    policy: Policy
    every: int = setting(100, whole())
    threshold: float = setting(1.15, number(AT_LEAST_ONE))
    patience: int = setting(1, whole())

    @property
    def grows(self) -> bool:
        """Whether the policy may change the experts."""
        return self.policy.traits["grows"]


# A member that `grows` may change the experts; one that does not is never asked.
structure = Policies("structure", defaults(Structure), grows=True)


def build(config: Any) -> Structure:
    """The Structure of a config: a name, a function or a mapping."""
    policy, shared = structure.build(config)
    return read(Structure, "structure", {**shared, "policy": policy})


@dataclass(frozen=True)
class View:
    """What a structure policy sees of one seed: state, row of the seed, who is hot, and `demand` (seed, expert).

    Demand is as many tokens as at speed 1 would take the devices of an expert (`pace` (seed, expert)) as long.
    """

    state: State
    setting: Any
    row: int
    hot: np.ndarray
    demand: np.ndarray
    pace: Any = 1.0

    @property
    def alive(self) -> np.ndarray:
        """Indices of the experts that are there."""
        return np.flatnonzero(self.state.alive[self.row])

    def room(self, edits: list) -> int:
        """Slots that no copy of an expert needs yet, after these edits."""
        return self.setting.slots - int(self.state.copies[self.row].sum()) - len(edits)

    def vacant(self) -> list[int]:
        """Expert indices that nobody uses."""
        return np.flatnonzero(~fitted(self.state.alive[self.row], self.setting.most_experts)).tolist()

    def load(self, experts: Any) -> Any:
        """Demand for some experts."""
        return self.demand[self.row, experts]

    def flow(self, expert: int) -> np.ndarray:
        """Natural demand for an expert by domain (domain,)."""
        pace = np.broadcast_to(self.pace, self.demand.shape)[self.row, expert]
        return self.setting.world.natural[self.row] * self.state.probability[self.row, :, expert] / pace


def natural_demand(state: State, natural: np.ndarray) -> np.ndarray:
    """Load of each expert per token (seed, expert) if domains came at their natural frequency."""
    return np.einsum("sk,ske->se", natural, state.probability) * state.alive


def overload(state: State, demand: np.ndarray) -> np.ndarray:
    """Demand for an expert per copy, over the mean of all copies (seed, expert); 0 for experts not there."""
    copies = np.where(state.alive, state.copies, 0)
    fair = demand.sum(axis=1, keepdims=True) / copies.sum(axis=1, keepdims=True)
    return np.where(state.alive, demand / np.maximum(copies, 1) / np.maximum(fair, 1e-300), 0.0)


def restructure(policy: Structure, state: State, setting: Any) -> State:
    """The state after this step's edits; unchanged between windows."""
    if not policy.grows or state.step == 0 or state.step % policy.every:
        return state
    pace = state.placement.pace(state.alive.shape[1], setting.machine.cluster.speed)
    demand = natural_demand(state, setting.world.natural) / pace
    burden = overload(state, demand)
    state = parted(state)
    state = replace(state, hot=np.where(burden > policy.threshold, state.hot + 1, 0))
    for row in range(state.seeds):
        hot = np.flatnonzero(state.hot[row] >= policy.patience)
        hot = hot[np.argsort(-burden[row, hot], kind="stable")]
        for edit in policy.policy(View(state, setting, row, hot, demand, pace)):
            state = edit(state)
    return state


def parted(state: State) -> State:
    """The state in which experts whose data have parted from their parent's are chosen on their own."""
    own = np.broadcast_to(np.arange(state.bond.shape[1]), state.bond.shape)
    if (state.bond == own).all():
        return state
    apart = apartness(state.trained, state.bond) > PARTED
    return replace(state, bond=np.where(apart | ~state.alive, own, state.bond))


def _put(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    out = array.copy()
    out[index] = value
    return out


def split_edit(row: int, parent: int, child: int, share: np.ndarray, temperature: float) -> Edit:
    """An edit that copies `parent` into `child`; the child takes `share` (domain,) of the parent's routing weight.

    Router weights of the pair sum to the parent's in every domain, and it has the parent's one place among those chosen
    until its data part, so nobody else's load changes; both start with all that the parent knew and was trained on.
    """

    def edit(state: State) -> State:
        state = state.widened(child + 1)
        copied = {name: getattr(state, name).copy() for name in ("scores", "rest", "learned", "trained")}
        for name, values in copied.items():
            values[row, :, child] = values[row, :, parent]
            if name in ("scores", "rest"):
                values[row, :, child] += temperature * np.log(share)
                values[row, :, parent] += temperature * np.log1p(-share)
        flow = state.assigned[row, :, parent]
        taken = float((flow * share).sum() / max(flow.sum(), 1e-300))
        load = state.mean_load.copy()
        load[row, [parent, child]] = load[row, parent] * np.array([1.0 - taken, taken])
        return replace(
            state,
            **copied,
            bias=_put(state.bias, (row, child), state.bias[row, parent]),
            mean_load=load,
            alive=_put(state.alive, (row, child), True),
            copies=_put(state.copies, (row, child), 1),
            hot=_put(state.hot, (row, [parent, child]), 0),
            parent=_put(state.parent, (row, child), parent),
            born=_put(state.born, (row, child), state.step),
            bond=_put(state.bond, (row, child), state.bond[row, parent]),
            splits=_put(state.splits, row, state.splits[row] + 1),
            tree=state.tree and state.tree.split(row, parent, child),
        )

    return edit


def replicate_edit(row: int, expert: int) -> Edit:
    """An edit that gives an expert one more slot."""

    def edit(state: State) -> State:
        copies = _put(state.copies, (row, expert), state.copies[row, expert] + 1)
        return replace(state, copies=copies, hot=_put(state.hot, (row, expert), 0))

    return edit


def prune_edit(row: int, expert: int) -> Edit:
    """An edit that removes an expert; its tokens go where the router likes them next. The last of a tree stays."""

    def edit(state: State) -> State:
        if state.tree is not None and state.tree.last(row, expert, state.alive):
            return state
        bond, own = state.bond[row], np.arange(state.bond.shape[1])
        return replace(
            state,
            scores=_put(state.scores, (row, slice(None), expert), -np.inf),
            learned=_put(state.learned, (row, slice(None), expert), 0.0),
            trained=_put(state.trained, (row, slice(None), expert), 0.0),
            rest=_put(state.rest, (row, slice(None), expert), 0.0),
            bond=_put(state.bond, row, np.where((bond == expert) | (own == expert), own, bond)),
            bias=_put(state.bias, (row, expert), 0.0),
            mean_load=_put(state.mean_load, (row, expert), 0.0),
            alive=_put(state.alive, (row, expert), False),
            copies=_put(state.copies, (row, expert), 0),
        )

    return edit


def merge_edit(row: int, kept: int, gone: int, temperature: float) -> Edit:
    """An edit that averages two experts, weighted by load; the merged one inherits both routing weights."""

    def edit(state: State) -> State:
        weight = state.mean_load[row, [kept, gone]] + 1e-300
        both = {name: getattr(state, name).copy() for name in ("learned", "trained")}
        for values in both.values():
            values[row, :, kept] = values[row][:, [kept, gone]] @ (weight / weight.sum())
        pair = state.scores[row][:, [kept, gone]] / temperature
        scores = _put(state.scores, (row, slice(None), kept), temperature * np.logaddexp(pair[:, 0], pair[:, 1]))
        load = _put(state.mean_load, (row, kept), weight.sum())
        return prune_edit(row, gone)(replace(state, **both, scores=scores, mean_load=load))

    return edit


@ways
def along_tree(view: View, expert: int, *, leak: Share = 0.02) -> np.ndarray:
    """Child and parent share the domains along the node of the similarity tree that best halves the load.

    `leak`: the part of a domain that stays on the other side.
    """
    (start, stop), _ = tree.best_cut(view.flow(expert))
    share = np.full(view.state.scores.shape[1], leak)
    share[start:stop] = 1.0 - leak
    return share


@ways
def clone(view: View, expert: int, *, noise: NonNegative = 0.01) -> np.ndarray:
    """The child is a copy whose router differs by `noise` x the spread of the scores; then the two compete.

    Half of every domain goes to each, up to the noise (0.01 in Expert Upcycling, 2604.19835), which its parts share.
    """
    world, scores = view.setting.world, view.state.scores[:, :, expert]
    own = (world.whole(scores) / world.whole(np.ones(scores.shape)))[view.row]
    size = noise * max(float(own.std()), 1e-3)
    draws = view.setting.streams["clones"][view.row].standard_normal(len(own))
    draws = world.each(np.broadcast_to(draws, (len(scores), len(own))))[view.row]
    return 1.0 / (1.0 + np.exp(-size * draws / view.setting.routing.temperature))


@criteria
def load(view: View, expert: int) -> float:
    """Split the most loaded experts first."""
    return float(view.load(expert))


@criteria
def residual(view: View, expert: int) -> float:
    """Split first where load x loss above the domain's floor is largest."""
    state, curve = view.state, view.setting.world.curve
    floor = np.broadcast_to(curve.lowest(1e300), (state.seeds, state.scores.shape[1], 1))[view.row, :, 0]
    return float(view.flow(expert) @ (state.expert_loss[view.row, :, expert] - floor))


@criteria
def divisible(view: View, expert: int) -> float:
    """Split first where load x divisibility is largest; an expert with one indivisible domain counts nothing."""
    return float(view.load(expert)) * cut_quality(view, expert)


def cut_quality(view: View, expert: int) -> float:
    """How well the best cut of the tree halves an expert's load, 0 to 1."""
    return tree.divisibility(tree.best_cut(view.flow(expert))[1])


def _split(view: View, expert: int, child: int, way: Callable):
    share = np.clip(way(view, expert), 1e-9, 1.0 - 1e-9)
    return split_edit(view.row, expert, child, share, view.setting.routing.temperature)


@structure(grows=False)
def fixed(view: View) -> list[Edit]:
    """The experts stay as they are."""
    return []


@structure
def split(view: View, *, by: str = "load", way: Any = "along_tree", at_most: int = 4) -> list[Edit]:
    """Split up to `at_most` hot experts per window, ranked by the criterion `by` (load, residual, divisible).

    `way`: along_tree or clone, with options. Only load counts by default, as in the plain recipe: a hot expert with a
    single domain is split too, and stays hot.
    """
    score, way = criteria.only(by), ways.only(way)
    ranked = sorted(((score(view, e), -int(e)) for e in view.hot), reverse=True)
    edits, vacant = [], view.vacant()
    for value, minus in ranked[:at_most]:
        if vacant and value > 0 and view.room(edits) > 0:
            edits.append(_split(view, -minus, vacant.pop(0), way))
    return edits


@structure
def split_or_replicate(
    view: View, *, divisibility: NonNegative = 0.5, way: Any = "along_tree", at_most: int = 4
) -> list[Edit]:
    """Split a hot expert if the best cut divides its load well (quality `divisibility` or more), else replicate it."""
    way, edits, vacant = ways.only(way), [], view.vacant()
    for expert in view.hot[:at_most]:
        if view.room(edits) <= 0:
            break
        if vacant and cut_quality(view, int(expert)) >= divisibility:
            edits.append(_split(view, int(expert), vacant.pop(0), way))
        else:
            edits.append(replicate_edit(view.row, int(expert)))
    return edits


@structure
def replicate(view: View, *, at_most: int = 4) -> list[Edit]:
    """Give hot experts more slots; nothing is split."""
    return [replicate_edit(view.row, int(e)) for e in view.hot[: min(at_most, max(view.room([]), 0))]]


@structure
def merge(view: View, *, below: NonNegative = 0.5, at_most: int = 1) -> list[Edit]:
    """Merge the two least loaded experts while both are below `below` x the mean load."""
    edits, order = [], view.alive[np.argsort(view.load(view.alive), kind="stable")]
    limit = below * view.demand[view.row].sum() / len(order)
    for first, second in zip(order[: 2 * at_most : 2], order[1 : 2 * at_most : 2], strict=False):
        keeps = len(order) - len(edits) > view.setting.active
        if keeps and view.load(second) < limit:
            edits.append(merge_edit(view.row, int(second), int(first), view.setting.routing.temperature))
    return edits


@structure
def prune(view: View, *, below: NonNegative = 0.1, tail: NonNegative = 0.05, at_most: int = 1) -> list[Edit]:
    """Remove experts with load below `below` x the mean that together carry less than `tail` (LAEP, 2601.14327)."""
    load = view.load(view.alive)
    order = np.argsort(load, kind="stable")
    cold = (load[order] < below * load.mean()) & (np.cumsum(load[order]) < tail * load.sum())
    spare = max(len(load) - view.setting.active, 0)
    return [prune_edit(view.row, int(view.alive[i])) for i in order[cold][: min(at_most, spare)]]


@structure
def grow(view: View, *, factor: float = 2.0, way: Any = "clone", budgets: Any = None) -> list[Edit]:
    """Multiply the experts by `factor` at every window while there is room, most loaded first (staged upcycling).

    `budgets`: only at the first window after each of these numbers of tokens (EMO, 2605.13247).
    """
    if not factor > 1:
        raise InputError(f"structure grow: factor={factor:g}; it takes a number above 1")
    order = view.alive[np.argsort(-view.load(view.alive), kind="stable")]
    vacant, way = view.vacant(), ways.only(way)
    wanted = round(factor * len(order))
    if budgets is not None:
        tokens = check("structure grow", "budgets", list(budgets), POSITIVE)
        passed = int((tokens <= view.setting.tokens * (view.state.step + 1)).sum())
        wanted = round(view.setting.run.experts * factor**passed)
    count = min(max(wanted - len(order), 0), len(order), len(vacant), max(view.room([]), 0))
    return [_split(view, int(e), child, way) for e, child in zip(order[:count], vacant, strict=False)]


# A total variation above this means that the data of two experts have parted.
PARTED = 0.5


def apartness(tokens: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Total variation (seed, expert) between an expert's shares of tokens (seed, domain, expert) and another's."""
    share = tokens / np.maximum(tokens.sum(axis=1, dtype=np.float64), 1e-300)[:, None, :]
    return 0.5 * np.abs(share - np.take_along_axis(share, other[:, None, :], axis=2)).sum(axis=1)


def separation(state: State) -> np.ndarray:
    """How far each expert's domains differ from its parent's (seed, expert): total variation of their token shares."""
    distance = apartness(state.assigned, np.maximum(state.parent, 0))
    return np.where((state.parent >= 0) & state.alive, distance, np.nan)
