"""What there is to learn: domains with frequency, unique tokens, evaluation weight and place in a similarity tree.

Source of the ranges: Zipf exponents 0.8 to 1.2 and the other defaults are free parameters to sweep, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.data import shipped
from moesim.domains import tree
from moesim.domains.curves import Curve, curve_of, worth_of
from moesim.errors import InputError
from moesim.registry import Policies
from moesim.settings import defaults, number, read, setting, truth
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, SHARE, check


@dataclass(frozen=True)
class Domains:
    """Natural frequency, unique tokens and name of each indivisible domain, and the parent domain it is a part of."""

    frequency: np.ndarray
    unique: np.ndarray
    names: tuple[str, ...]
    group: np.ndarray


@dataclass(frozen=True)
class World:
    """The domains as the simulator sees them, in leaf order of the similarity tree.

    `natural`, `unique`, `macro`, `target` (seed, domain): frequency, unique tokens, equal weights of the original
    domains, and the weights of the loss that samplers aim at. `position` (seed, domain): the leaf of each domain, so
    that arrays in leaf order can be read in the order of `names`. `similarity` and `decay` shape the tree; `worth`
    maps (tokens drawn, unique tokens) to effective tokens.
    """

    names: tuple[str, ...]
    natural: np.ndarray
    unique: np.ndarray
    macro: np.ndarray
    target: np.ndarray
    position: np.ndarray
    rho: float
    decay: float
    curve: Curve
    worth: Callable[[Any, Any], Any]

    @property
    def domains(self) -> int:
        """Number of indivisible domains, the leaves of the tree."""
        return self.natural.shape[1]

    def mix(self, values: np.ndarray) -> np.ndarray:
        """What each domain has when similar domains lend it their tokens; along axis 1."""
        return tree.mix(values, self.rho, self.decay)

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """An array (seed, domain, ...) in leaf order, read in the order of `names`."""
        index = self.position.reshape(*self.position.shape, *(1,) * (values.ndim - 2))
        return np.take_along_axis(values, index, axis=1)


@dataclass(frozen=True)
class Shared:
    """Keys that every world takes.

    `rho`: what a sibling domain's token is worth (unmeasured: sweep 0 to 0.3), times `similarity_decay` per level up
    the tree. `atom`: largest share of the stream that no split can divide. `shuffle`: each seed places the domains
    differently in the tree. `target`: the loss that samplers aim at, micro, macro or one weight per domain. `curve`:
    the loss of one domain inside one expert. `repetition`: what a repeated token is worth.
    """

    rho: float = setting(0.02, number(SHARE))
    similarity_decay: float = setting(0.5, number(SHARE))
    atom: float = setting(1.0, number(FRACTION))
    shuffle: bool = setting(True, truth)
    target: Any = "micro"
    curve: Any = "law"
    repetition: Any = "muennighoff2023"


world = Policies("world", defaults(Shared))
MOST_DOMAINS = 2**20


def build(config: Mapping[str, Any], seeds: tuple[int, ...], tokens: float) -> World:
    """The world of a config for these seeds; `tokens` is the length of the run, the default amount of unique tokens.

    Raises InputError for frequencies that are negative or do not sum to 1, and for values outside their domain.
    """
    policy, keys = world.build(config)
    shared = read(Shared, "world", keys)
    domains = divided(policy(tokens), shared.atom)
    position = np.stack([_places(domains, seed, shared.shuffle) for seed in seeds])
    leaf = np.argsort(position, axis=1)
    count = np.bincount(domains.group)[domains.group]
    macro = 1.0 / (count * (domains.group.max() + 1))
    target = _target(shared.target, domains, macro, count)
    return World(
        domains.names,
        domains.frequency[leaf],
        domains.unique[leaf],
        macro[leaf],
        target[leaf],
        position,
        shared.rho,
        shared.similarity_decay,
        curve_of(shared.curve).placed(leaf, domains.group),
        worth_of(shared.repetition),
    )


def divided(domains: Domains, atom: float) -> Domains:
    """Domains cut into equal neighbouring parts, none above the share `atom` of the natural stream.

    `atom` is the largest share of the data that no expert split can divide; 1 leaves every domain whole.
    """
    parts = np.maximum(np.ceil(domains.frequency / atom - 1e-9), 1)
    if parts.sum() > MOST_DOMAINS:
        raise InputError(f"world: atom={atom:g} makes {parts.sum():.3g} domains; at most {MOST_DOMAINS} are simulated")
    parts = parts.astype(int)
    group = np.repeat(np.arange(len(parts)), parts)
    part = np.arange(len(group)) - np.repeat(np.cumsum(parts) - parts, parts)
    names = tuple(
        f"{domains.names[g]}.{i}" if parts[g] > 1 else domains.names[g] for g, i in zip(group, part, strict=True)
    )
    shares = 1.0 / parts[group]
    return replace(
        domains,
        frequency=domains.frequency[group] * shares,
        unique=domains.unique[group] * shares,
        names=names,
        group=group,
    )


def _places(domains: Domains, seed: int, shuffle: bool) -> np.ndarray:
    """Leaf of each domain; parts of one domain stay neighbours."""
    groups = int(domains.group.max()) + 1
    rank = np.random.default_rng([seed, 77]).permutation(groups) if shuffle else np.arange(groups)
    order = np.argsort(rank[domains.group], kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    return position


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
