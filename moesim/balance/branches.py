"""A router that is a tree of small decisions, its experts the leaves (Belcak & Wattenhofer 2023, arXiv:2308.14711).

For K active experts there are K trees side by side; expert e stands in tree e mod K. The logit of a decision is how
much more a domain likes one branch than the other, the difference of the logarithms of their leaves' summed weights: so
rounded decisions over tokens that differ are the flat router, with one place for each tree. Soft, every leaf computes
and learns from every token, by the product of the decisions above it; hardening makes them steeper until they round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moesim.balance.routing import BIAS_WORTH, Routing, controls, logits, routing
from moesim.balance.state import fitted
from moesim.errors import InputError
from moesim.models.tree import HARMLESS, decision_entropy, huffman, region_leak
from moesim.settings import number, one_of, read, setting, whole
from moesim.variables import NON_NEGATIVE, POSITIVE, Domain

if TYPE_CHECKING:
    from moesim.balance.setting import Setting
    from moesim.balance.state import State

EVERY = 10
"""Steps between looks at how hard decisions are."""
_DEEPEST = 44  # levels that a place, a float64, tells apart
_LOWEST = -60.0  # logits further below the best of their tree are taken as so far
_LIGHTEST = 2.0**-24  # of its tree's load: no leaf is taken as lighter, which bounds the depth of Huffman's tree
_HALF = Domain("0 to 0.5", 0, 0.5, lower_open=False, upper_open=False)


@dataclass(frozen=True)
class Rule:
    """The options of `routing=tree`, checked; their defaults and meaning stand at `tree`."""

    entropy: float = setting(takes=number(NON_NEGATIVE))
    begin: int = setting(takes=whole(0))
    rise: int = setting(takes=whole())
    rate: float = setting(takes=number(NON_NEGATIVE))
    gain: float = setting(takes=number(POSITIVE))
    leak: float = setting(takes=number(_HALF))
    training: str = setting(takes=one_of("rounded", "soft", "hard"))
    adapt: int = setting(takes=whole(0))

    def weight(self, step: int) -> float:
        """Weight of the decisions' entropy in the loss at a step."""
        return self.entropy * float(np.clip((step - self.begin) / self.rise, 0.0, 1.0))


class Level(NamedTuple):
    """One level of decisions over leaves in order: `branch` (leaf,) is the branch that each is below.

    `starts` (branch,) its first leaf; `node` (branch,) the decision above it and `first` (node,) the first branch of
    that; `forked` (branch,): whether the decision has two.
    """

    branch: np.ndarray
    starts: np.ndarray
    node: np.ndarray
    first: np.ndarray
    forked: np.ndarray

    def sums(self, leaves: np.ndarray) -> np.ndarray:
        """Sums (..., branch) of values (..., leaf)."""
        return np.add.reduceat(leaves, self.starts, axis=-1)

    def shares(self, branches: np.ndarray) -> np.ndarray:
        """Values (..., branch) over their decision's sum; even where there is nothing."""
        whole = np.add.reduceat(branches, self.first, axis=-1)[..., self.node]
        return np.where(whole > 0, branches / np.where(whole > 0, whole, 1.0), 0.5 + 0.5 * ~self.forked)

    def chances(self, weights: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
        """Chances (seed, domain, branch) that a decision takes the branch."""
        return self.shares(self.sums(weights) ** sharpness[:, None, None].astype(weights.dtype))

    def logits(self, weights: np.ndarray) -> np.ndarray:
        """Logits (..., decision) of those with two branches."""
        logs = np.log(self.sums(weights))
        right = np.flatnonzero(self.forked)[1::2]
        return logs[..., right] - logs[..., right - 1]

    def tilt(self, load: np.ndarray) -> np.ndarray:
        """Share of its decision's load (seed, leaf) less that of its leaves (seed, branch)."""
        return self.shares(self.sums(load)) - self.shares(self.sums(np.ones(load.shape)))


def _steps(keys: np.ndarray) -> np.ndarray:
    """Where a sorted array (n,) takes a new value."""
    return np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))


def _level(above: np.ndarray, keys: np.ndarray) -> Level:
    starts = _steps(keys)
    first = _steps(above[starts])
    branches = np.diff(np.append(first, len(starts)))
    node = np.repeat(np.arange(len(first)), branches)
    leaves = np.diff(np.append(starts, len(keys)))
    return Level(np.repeat(np.arange(len(starts)), leaves), starts, node, first, branches[node] == 2)


@lru_cache(maxsize=256)  # asked in every step
def levels(places: bytes) -> tuple[Level, ...]:
    """The levels of leaves at these places (float64, in order), the roots of the trees first."""
    at = np.frombuffer(places)
    keys = [np.zeros(len(at)), np.floor(at)]
    while len(_steps(keys[-1])) < len(at):
        keys.append(np.floor(at * 2.0 ** (len(keys) - 1)))
    return tuple(_level(above, below) for above, below in pairwise(keys))


@dataclass(frozen=True)
class Branches:
    """Where leaves stand and how steep decisions are.

    `place` (seed, expert): a leaf at depth n below tree t holds [place, place + 2^-n) of [t, t + 1), its `depth` is n.
    `gain` (seed,): steepness of a decision, per spread of a domain's tokens; infinite once rounded. `hardened` (seed,):
    steps until the mean entropy of decisions was below HARMLESS, NaN before.
    """

    rule: Rule
    place: np.ndarray
    depth: np.ndarray
    gain: np.ndarray
    hardened: np.ndarray

    @property
    def soft(self) -> np.ndarray:
        """Seeds (seed,) in which every leaf computes every token."""
        return np.isfinite(self.gain)

    @property
    def tree(self) -> np.ndarray:
        """The tree of each leaf (seed, expert)."""
        return np.floor(self.place).astype(int)

    def walks(self, alive: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[Level, ...]]]:
        """Seeds whose trees are alike, their leaves in order and the levels above these, roots first."""
        orders = [np.flatnonzero(there)[np.argsort(at[there])] for there, at in zip(alive, self.place, strict=True)]
        alike: dict[tuple[bytes, bytes], list[int]] = {}
        for seed, order in enumerate(orders):
            alike.setdefault((order.tobytes(), self.place[seed, order].tobytes()), []).append(seed)
        for (_, places), rows in alike.items():
            yield np.array(rows), orders[rows[0]], levels(places)

    def shares(self, z: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Share of a domain's tokens that each leaf gets (seed, domain, expert), from logits; one for every tree.

        Tokens of a domain differ as by logistic noise, so that soft decisions are those of a logit divided by
        sqrt(1 + 1/gain^2) (variances of the noise and of the sigmoid added) and then leak.
        """
        sharp, out = 1.0 / np.sqrt(1.0 + self.gain**-2.0), np.zeros(z.shape, z.dtype)
        leak = np.where(self.soft, self.rule.leak, 0.0)
        for rows, leaves, (roots, *below) in self.walks(alive):
            chosen = np.ix_(rows, np.arange(z.shape[1]), leaves)
            weights, share = _weights(z[chosen], roots), np.ones((), z.dtype)
            for level in below:
                p = level.chances(weights, sharp[rows])
                if leak.any():
                    p = np.where(level.forked, region_leak(p, leak[rows, None, None]), p).astype(z.dtype)
                share = share * p[..., level.branch]
            out[chosen] = share
        return out

    def decisions(self, z: np.ndarray, alive: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Seeds, and the logits of their decisions (seed, domain, decision)."""
        for rows, leaves, (roots, *below) in self.walks(alive):
            weights = _weights(z[np.ix_(rows, np.arange(z.shape[1]), leaves)], roots)
            each = [level.logits(weights) for level in below]
            yield rows, np.concatenate(each, axis=-1) if each else np.zeros((*weights.shape[:2], 0))

    def hardness(self, z: np.ndarray, alive: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean entropy (nat) of a decision over tokens and decisions, and how fast it falls with the gain (seed,)."""
        out = np.zeros((2, len(z)))
        for rows, each in self.decisions(z, alive):
            for row, u in zip(rows, each, strict=True):
                if self.soft[row] and u.size:
                    size, *values = _noisy(float(self.gain[row]))
                    means = [np.interp(np.abs(u), size, value).mean(axis=-1) for value in values]
                    out[:, row] = [mixture[row] @ mean for mean in means]
        return out[0], out[1]

    def widened(self, experts: int) -> Branches:
        """With room for so many leaves."""
        return replace(self, place=fitted(self.place, experts), depth=fitted(self.depth, experts))

    def split(self, row: int, leaf: int, new: int) -> Branches:
        """With a decision in a leaf's place, above it and a new one; InputError where the tree is too deep."""
        place, depth = self.place.copy(), self.depth.copy()
        depth[row, [leaf, new]] = depth[row, leaf] + 1
        if depth[row, leaf] > _DEEPEST:
            raise InputError(
                f"routing tree: a leaf {_DEEPEST} levels deep is to be split once more; give routing.adapt=100, which "
                "makes the tree as deep as loads ask, or structure.threshold a higher number"
            )
        place[row, new] = place[row, leaf] + 0.5 ** depth[row, leaf]
        return replace(self, place=place, depth=depth)

    def last(self, row: int, leaf: int, alive: np.ndarray) -> bool:
        """Whether a leaf is the only one of its tree."""
        tree = self.tree[row]
        return int((alive[row] & (tree == tree[leaf])).sum()) == 1

    def adapted(self, load: np.ndarray, alive: np.ndarray) -> Branches:
        """Huffman's trees for these loads (seed, expert): the hottest leaves nearest to the root."""
        place, depth, tree = self.place.copy(), self.depth.copy(), self.tree
        for row, there in enumerate(alive):
            for one in np.unique(tree[row, there]):
                leaves = np.flatnonzero(there & (tree[row] == one))
                mass = load[row, leaves]
                deep = huffman(np.maximum(mass, max(_LIGHTEST * mass.sum(), 1e-300)))
                order = np.argsort(deep, kind="stable")
                width = 0.5 ** deep[order]
                place[row, leaves[order]], depth[row, leaves] = one + np.cumsum(width) - width, deep
        return replace(self, place=place, depth=depth)


def _weights(z: np.ndarray, roots: Level) -> np.ndarray:
    """Weights of leaves (seed, domain, leaf), 1 for the best of each tree."""
    best = np.maximum.reduceat(z, roots.starts, axis=-1)[..., roots.branch]
    return np.exp(np.maximum(z - best, _LOWEST))


def _noisy(gain: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of a logit; over logistic noise on it, the mean entropy of a decision `gain` as steep, and its fall."""
    size, odds = np.linspace(0.0, 24.0, 97), (np.arange(200) + 0.5) / 200
    y = size[:, None] + np.log(odds / (1.0 - odds))
    p = 1.0 / (1.0 + np.exp(np.clip(-gain * y, -700.0, 700.0)))
    return size, decision_entropy(p).mean(axis=1), (gain * y**2 * p * (1.0 - p)).mean(axis=1)


@routing(drawn=True, sees_tokens=False, tree=True)
def tree(
    z: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    active: int,
    branches: Branches,
    *,
    entropy: float = 3.0,
    begin: int = 0,
    rise: int = 1,
    rate: float = 0.3,
    gain: float = 1.0,
    leak: float = 0.0,
    training: str = "rounded",
    adapt: int = 0,
) -> np.ndarray:
    """A tree of decisions for each active expert, hardened as the paper does, by their entropy in the loss.

    `entropy`: its weight (3 in tables 1 and 2), which rises over `rise` steps from the step `begin` on. It steepens
    decisions from `gain` on by `rate` x weight x what steepness takes from the entropy (the rate of a step is not
    measured: sweep). `leak`: with that probability training takes a decision's other branch (region leak). `training`:
    soft, every leaf computes every token to the end; rounded, until the mean entropy is below .10 nat, where rounding
    is harmless, then one leaf; hard, one leaf from the start. `adapt`: steps between making the trees anew by load,
    Huffman's (0: never).
    """
    return branches.shares(z, alive)


@controls(tree=True)
def nodes(
    scores: np.ndarray,
    bias: np.ndarray,
    probability: np.ndarray,
    load: np.ndarray,
    tokens: np.ndarray,
    alive: np.ndarray,
    branches: Branches,
    *,
    step: float = 1e-3,
    worth: float = BIAS_WORTH,
) -> tuple[np.ndarray, np.ndarray]:
    """Balance at each decision: its bias moves by step x sign(share of the leaves - share of the load) of a branch.

    One unit of bias is `worth` logits; a leaf's is the sum of those above it.
    """
    pull = np.zeros(bias.shape)
    for rows, leaves, (_, *below) in branches.walks(alive):
        there = np.ix_(rows, leaves)
        for level in below:
            tilt = level.tilt(load[there])
            pull[there] += 0.5 * np.where(np.abs(tilt) > 1e-12, np.sign(tilt), 0.0)[:, level.branch]
    return scores, bias - worth * step * pull


def rule_of(router: Routing) -> Rule | None:
    """The options of a tree router, None for another; InputError for a bad value and for what does not go with one."""
    policy = router.assign
    if not policy.traits["tree"]:
        if router.control.traits["tree"]:
            raise InputError(f"control {router.control.name}: routing={policy.name} has no nodes; give routing=tree")
        return None
    rule = read(Rule, "routing tree", {**policy.takes, **policy.options})
    if rule.training != "hard" and np.isfinite(router.capacity_factor):
        raise InputError(
            f"routing tree: capacity_factor={router.capacity_factor:g} with training={rule.training}, in which every "
            "leaf takes every token; give training=hard"
        )
    return rule


def planted(given: Setting) -> Branches | None:
    """The trees at the start, their leaves at as near one depth as their number allows; None for another router."""
    rule = rule_of(given.routing)
    if rule is None:
        return None
    seeds, trees = len(given.streams.seeds), given.active
    place, depth = np.zeros(given.run.experts), np.zeros(given.run.experts, dtype=int)
    for one in range(trees):
        leaves = np.arange(one, given.run.experts, trees)
        deep = int(np.ceil(np.log2(len(leaves))))
        depth[leaves] = np.where(np.arange(len(leaves)) < 2 * len(leaves) - 2**deep, deep, deep - 1)
        width = 0.5 ** depth[leaves]
        place[leaves] = one + np.cumsum(width) - width
    hard = rule.training == "hard"
    return Branches(
        rule,
        np.tile(place, (seeds, 1)),
        np.tile(depth, (seeds, 1)),
        np.full(seeds, np.inf if hard else rule.gain),
        np.full(seeds, 0.0 if hard else np.nan),
    )


def advanced(given: Setting, state: State) -> State:
    """The state with its decisions hardened by a step, and its trees made anew where that is due."""
    branches = state.tree
    if branches is None:
        return state
    rule = branches.rule
    if state.step % EVERY == 0:
        z = logits(state.scores, state.bias, given.routing.temperature)
        entropy, falls = branches.hardness(z, state.alive, state.mixture)
        done = np.isnan(branches.hardened) & (entropy <= HARMLESS)
        hardened = np.where(done, state.step + 1.0, branches.hardened)
        gain = branches.gain + EVERY * rule.rate * rule.weight(state.step) * falls
        rounded = (rule.training == "rounded") & ~np.isnan(hardened)
        branches = replace(branches, gain=np.where(rounded, np.inf, gain), hardened=hardened)
    if rule.adapt and state.step and state.step % rule.adapt == 0:
        branches = branches.adapted(state.mean_load, state.alive)
    return replace(state, tree=branches)


def told(given: Setting, state: State) -> dict[str, np.ndarray]:
    """What a record keeps of the trees (seed,); nothing of another router."""
    branches = state.tree
    if branches is None:
        return {}
    z = logits(state.scores, state.bias, given.routing.temperature)
    hard = replace(branches, gain=np.full(state.seeds, np.inf)).shares(z, state.alive)
    moved = 0.5 * np.abs(hard - branches.shares(z, state.alive)).sum(axis=-1) / given.active
    deep, tilt = np.zeros(state.load.shape), np.zeros(state.seeds)
    for rows, leaves, (_, *below) in branches.walks(state.alive):
        for level in below:
            deep[np.ix_(rows, leaves)] += level.forked[level.branch]
            tilt[rows] = np.maximum(tilt[rows], np.abs(level.tilt(state.load[np.ix_(rows, leaves)])).max(axis=-1))
    load = np.where(state.alive, state.load, 0.0)
    share = load / load.sum(axis=1, keepdims=True)
    return {
        "decision_entropy": branches.hardness(z, state.alive, state.mixture)[0],
        "rounding": (state.mixture * moved).sum(axis=1),
        "node_tilt": tilt,
        "mean_depth": (share * deep).sum(axis=1),
        "leaf_bits": _bits(share) - np.log2(given.active),
        "hardened": branches.hardened,
    }


def _bits(share: np.ndarray) -> np.ndarray:
    """Entropy in bits (seed,)."""
    return -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=-1)
