"""What there is to learn: domains with frequency, unique tokens, evaluation weight and place in a similarity tree.

Source of the ranges: Zipf exponents 0.8 to 1.2 and the other defaults are free parameters to sweep, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from moesim.data import shipped
from moesim.domains import tree
from moesim.domains.curves import Curve, curve_of, worth_of
from moesim.domains.overfit import Overfit
from moesim.errors import InputError
from moesim.registry import Policies
from moesim.settings import defaults, number, read, setting, truth, whole
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, SHARE, Domain, check

_VOCABULARY = Domain("a number above 1", lower=1.0)
_ALIKE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)


@dataclass(frozen=True)
class Domains:
    """Natural frequency, unique tokens of each part, and the domain that it is a part of; names of the domains."""

    frequency: np.ndarray
    unique: np.ndarray
    names: tuple[str, ...]
    group: np.ndarray


@dataclass(frozen=True)
class World:
    """The domains as the simulator sees them: their parts, in leaf order of the similarity tree.

    `natural`, `unique`, `macro`, `target` (seed, part): frequency, unique tokens, equal weights of the domains, and the
    weights of the loss that samplers aim at. `group` (seed, part): which domain along the tree a part belongs to;
    `position` (seed, domain): where along the tree each domain stands, in the order of `names`. `rho` and `decay` say
    what domains share, `part_similarity` what parts of one domain do. `worth` maps (tokens drawn, unique tokens) to
    effective tokens, `overfit` what repeats cost.
    """

    names: tuple[str, ...]
    natural: np.ndarray
    unique: np.ndarray
    macro: np.ndarray
    target: np.ndarray
    group: np.ndarray
    position: np.ndarray
    rho: float
    decay: float
    part_similarity: float
    curve: Curve
    worth: Callable[[Any, Any], Any]
    overfit: Overfit = Overfit()  # noqa: RUF009

    @property
    def domains(self) -> int:
        """Number of parts of domains: what a router can tell apart."""
        return self.natural.shape[1]

    @property
    def parted(self) -> bool:
        """Whether any domain has several parts."""
        return self.domains > len(self.names)

    @cached_property
    def ordinary(self) -> np.ndarray:
        """How ordinary a part is in the natural stream (seed, part): frequencies times similarities."""
        return self.mix(self.natural)

    @cached_property
    def effective(self) -> np.ndarray:
        """The effective number of domains (seed, 1) of order 1 - a, with the curve's data exponent a (0: it has none).

        Similarity-sensitive: (sum_k p_k (Z p)_k^-a)^(1/a); Leinster and Cobbold 2012, eq. 1.
        """
        a = np.nan_to_num(np.mean(self.curve.exponent()))
        log = np.log(np.where(self.natural > 0, self.ordinary, 1.0))
        if not a > 1e-6:
            return np.exp(-(self.natural * log).sum(axis=1, keepdims=True))
        return (self.natural * np.exp(-a * log)).sum(axis=1, keepdims=True) ** (1.0 / a)

    @cached_property
    def _first(self) -> list[np.ndarray]:
        return [np.searchsorted(row, np.arange(len(self.names))) for row in self.group]

    def whole(self, values: np.ndarray) -> np.ndarray:
        """Sums over the parts of each domain: (seed, part, ...) -> (seed, domain along the tree, ...)."""
        if not self.parted:
            return values
        return np.stack([np.add.reduceat(v, first, axis=0) for v, first in zip(values, self._first, strict=True)])

    def each(self, values: np.ndarray) -> np.ndarray:
        """The value of its domain for each part: (seed, domain along the tree, ...) -> (seed, part, ...)."""
        if not self.parted:
            return values
        return np.take_along_axis(values, self.group.reshape(*self.group.shape, *(1,) * (values.ndim - 2)), axis=1)

    def shared_out(self, weights: np.ndarray) -> np.ndarray:
        """Weights of domains along the tree, shared among their parts by frequency: (seed, part)."""
        if not self.parted:
            return weights
        return self.each(weights / np.maximum(self.whole(self.natural), 1e-300)) * self.natural

    def mix(self, values: np.ndarray) -> np.ndarray:
        """Similarities times values along axis 1: what each part has when others lend it theirs."""
        if not self.parted:
            return tree.mix(values, self.rho, self.decay)
        whole = self.whole(values)
        mixed = self.each(tree.mix(whole, self.rho, self.decay))
        apart = 1.0 - self.part_similarity
        return mixed if apart == 0.0 else mixed - apart * (self.each(whole) - values)

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """Sums over the parts of each domain, (seed, part, ...), in the order of `names`."""
        index = self.position.reshape(*self.position.shape, *(1,) * (values.ndim - 2))
        return np.take_along_axis(self.whole(values), index, axis=1)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means over the parts of each domain, which are equal, in the order of `names`."""
        return self.in_order(values) / self.in_order(np.ones(self.natural.shape))


@dataclass(frozen=True)
class Shared:
    """Keys that every world takes.

    What domains share: `rho`, what a token of a sibling domain is worth (unmeasured: sweep 0 to 0.3), times
    `similarity_decay` per level up the tree. How finely a router can cut a domain: `parts`, equal parts of each, more
    where a part would be above the share `atom` of the stream; and `part_similarity`, what those share (1: they are
    alike, 0: as different as domains that share nothing). `vocabulary`: an untrained model has the loss of a uniform
    guess among so many tokens, and none has more. `shuffle`: each seed places the domains differently in the tree.
    `target`: the loss that samplers aim at, micro, macro or one weight per domain. `curve`: the law of the loss.
    `repetition`: what a repeated token is worth; `overfit`: what it costs, see `moesim.domains.overfit`.
    """

    rho: float = setting(0.02, number(SHARE))
    similarity_decay: float = setting(0.5, number(SHARE))
    atom: float = setting(1.0, number(FRACTION))
    parts: int = setting(1, whole())
    part_similarity: float = setting(1.0, number(_ALIKE))
    vocabulary: float = setting(5e4, number(_VOCABULARY))
    shuffle: bool = setting(True, truth)
    target: Any = "micro"
    curve: Any = "law"
    repetition: Any = "muennighoff2023"
    overfit: Any = None


world = Policies("world", defaults(Shared))
MOST_DOMAINS = 2**20


def build(config: Mapping[str, Any], seeds: tuple[int, ...], tokens: float) -> World:
    """The world of a config for these seeds; `tokens` is the length of the run, the default amount of unique tokens.

    Raises InputError for frequencies that are negative or do not sum to 1, and for values outside their domain.
    """
    policy, keys = world.build(config)
    shared = read(Shared, "world", keys)
    whole = policy(tokens)
    domains = divided(whole, shared.atom, shared.parts)
    position = np.stack([_places(len(whole.names), seed, shared.shuffle) for seed in seeds])
    leaf = np.stack([np.argsort(row[domains.group], kind="stable") for row in position])
    count = np.bincount(domains.group)[domains.group]
    there = whole.frequency > 0
    macro = (there / there.sum())[domains.group] / count
    target = _target(shared.target, domains, macro, count)
    curve = replace(curve_of(shared.curve), bound=float(np.log(shared.vocabulary)))
    return World(
        whole.names,
        domains.frequency[leaf],
        domains.unique[leaf],
        macro[leaf],
        target[leaf],
        np.take_along_axis(position, domains.group[leaf], axis=1),
        position,
        shared.rho,
        shared.similarity_decay,
        shared.part_similarity,
        curve.placed(leaf, domains.group),
        worth_of(shared.repetition),
        read(Overfit, "world.overfit", shared.overfit or {}),
    )


def divided(domains: Domains, atom: float, least: int = 1) -> Domains:
    """Domains cut into `least` or more equal neighbouring parts, none above the share `atom` of the natural stream."""
    parts = np.maximum(np.ceil(domains.frequency / atom - 1e-9), least)
    if parts.sum() > MOST_DOMAINS:
        raise InputError(
            f"world: atom={atom:g} and parts={least} make {parts.sum():.3g} domains; "
            f"at most {MOST_DOMAINS} are simulated"
        )
    parts = parts.astype(int)
    group = np.repeat(np.arange(len(parts)), parts)
    shares = 1.0 / parts[group]
    return replace(
        domains,
        frequency=domains.frequency[group] * shares,
        unique=domains.unique[group] * shares,
        group=group,
    )


def _places(count: int, seed: int, shuffle: bool) -> np.ndarray:
    """Where along the tree each domain stands."""
    return np.random.default_rng([seed, 77]).permutation(count) if shuffle else np.arange(count)


def _target(choice: Any, domains: Domains, macro: np.ndarray, count: np.ndarray) -> np.ndarray:
    named = {"micro": domains.frequency, "macro": macro}
    if isinstance(choice, str):
        if choice not in named:
            raise InputError(f"world: target={choice!r}; it takes micro, macro, or a list of weights, one per domain")
        return named[choice]
    weights = np.asarray(choice, dtype=float)
    if weights.shape != (domains.group.max() + 1,):
        raise InputError(f"world: target has {weights.size} weights for {domains.group.max() + 1} domains")
    return frequencies("target", weights)[domains.group] / count


def frequencies(name: str, values: Any) -> np.ndarray:
    """Frequencies that are not negative and sum to 1 within 1e-6; InputError otherwise."""
    given = np.asarray(check("world", name, values, NON_NEGATIVE), dtype=float)
    if given.ndim != 1 or given.size == 0:
        raise InputError(f"world: {name} has shape {given.shape}; it takes a list, one number per domain")
    if abs(given.sum() - 1.0) > 1e-6:
        raise InputError(f"world: {name} sum to {given.sum():g}; they must sum to 1, divide each by {given.sum():g}")
    return given / given.sum()


def _unique(frequency: np.ndarray, unique_tokens: float | None, tokens: float) -> np.ndarray:
    total = tokens if unique_tokens is None else check("world", "unique_tokens", unique_tokens, POSITIVE_OR_INF)
    return np.where(frequency > 0, frequency, np.nan) * total if np.isfinite(total) else frequency * 0 + np.inf


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"{i}" for i in range(count))


@world
def zipf(tokens, *, domains: int = 64, skew: float = 1.0, unique_tokens: float | None = None) -> Domains:
    """Domain k has frequency proportional to k^-skew; unique tokens in the same proportion (default: one epoch)."""
    if not 1 <= domains <= MOST_DOMAINS:
        raise InputError(f"world zipf: domains={domains}; it takes a whole number from 1 to {MOST_DOMAINS}")
    check("world zipf", "skew", skew, NON_NEGATIVE)
    frequency = np.arange(1, int(domains) + 1, dtype=float) ** -float(skew)
    frequency /= frequency.sum()
    return Domains(frequency, _unique(frequency, unique_tokens, tokens), _numbered(domains), np.arange(domains))


@world
def given(tokens, *, frequency: list, unique_tokens: float | None = None, names: list | None = None) -> Domains:
    """Frequencies from the config; they must sum to 1. `unique_tokens` is the total, shared out by frequency."""
    values = frequencies("frequency", frequency)
    labels = tuple(map(str, names)) if names else _numbered(len(values))
    if len(labels) != len(values):
        raise InputError(f"world given: {len(labels)} names for {len(values)} frequencies; give one name each")
    return Domains(values, _unique(values, unique_tokens, tokens), labels, np.arange(len(values)))


@world
def corpus(tokens: float, *, table: str, frequency: str = "size", tokens_per_unit: float = 1e9) -> Domains:
    """The domains of a real corpus (The Pile, RedPajama, Dolma): `size` is the natural stream, in `tokens_per_unit`.

    `frequency`: `size` for the share of the raw corpus, `train_weight` or `epochs_or_upsample` (size x epochs) for
    the published training mixture.
    """
    rows = [row for row in shipped("domain_sizes.csv") if row["corpus"] == table]
    if not rows:
        known = sorted({row["corpus"] for row in shipped("domain_sizes.csv")})
        raise InputError(f"world corpus: no table {table!r}; it takes {', '.join(known)}")
    size = np.array([float(row["size"]) for row in rows])
    weight = _corpus_weight(rows, size, frequency, table)
    check("world corpus", "tokens_per_unit", tokens_per_unit, POSITIVE)
    return Domains(
        weight / weight.sum(), size * tokens_per_unit, tuple(row["domain"] for row in rows), np.arange(len(rows))
    )


def _corpus_weight(rows: list[dict[str, str]], size: np.ndarray, column: str, table: str) -> np.ndarray:
    if column == "size":
        return size
    if column not in ("train_weight", "epochs_or_upsample") or any(not row[column] for row in rows):
        raise InputError(f"world corpus: {table} has no frequency={column!r}; it takes size, or a column that is full")
    values = np.array([float(row[column]) for row in rows])
    return values if column == "train_weight" else values * size
