"""From coefficients to the numbers a solver moves: transforms by domain, and which are free, fixed, tied or bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.forms import Coefficient
from moesim.numerics.derivative import Jet
from moesim.variables import Domain, check

# How far beyond its typical range a coefficient may drift before it counts as having no limit, in units of x: a
# factor e^25 for a positive one, a million half-widths of the range for a real one.
_REACH_LOG, _REACH_REAL = 25.0, 1e6
_SMALLEST = 1e-6  # of the lower typical value, where a coefficient that must stay above 0 stops on a straight scale


@dataclass(frozen=True)
class Transform:
    """A coefficient as a smooth increasing function of an unbounded x, and back; dc/dx as a function of c."""

    forward: Callable[[Any], Any]
    back: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    reach: float
    spec: Coefficient | None = None

    def __reduce__(self):
        """Pickled as the coefficient it was made for: functions made on the spot have no name to be found by."""
        return transform_of, (self.spec,)


def _real(low: float, high: float, typical: tuple[float, float]) -> Transform:
    middle, half = (typical[0] + typical[1]) / 2.0, (typical[1] - typical[0]) / 2.0
    return Transform(lambda x: middle + half * x, lambda c: (c - middle) / half, lambda c: half + 0.0 * c, _REACH_REAL)


def _above(low: float, high: float, typical: tuple[float, float]) -> Transform:
    if low == 0.0:
        return Transform(np.exp, np.log, lambda c: c, _REACH_LOG)
    return Transform(lambda x: low + np.exp(x), lambda c: np.log(c - low), lambda c: c - low, _REACH_LOG)


def _below(low: float, high: float, typical: tuple[float, float]) -> Transform:
    return Transform(lambda x: high - np.exp(-x), lambda c: -np.log(high - c), lambda c: high - c, _REACH_LOG)


def _between(low: float, high: float, typical: tuple[float, float]) -> Transform:
    width = high - low
    return Transform(
        lambda x: low + width / (1.0 + np.exp(-x)),
        lambda c: np.log((c - low) / (high - c)),
        lambda c: (c - low) * (high - c) / width,
        _REACH_LOG,
    )


# By whether the domain ends below and above.
_TRANSFORMS = {(False, False): _real, (True, False): _above, (False, True): _below, (True, True): _between}


def transform_of(spec: Coefficient) -> Transform:
    """The transform that keeps a coefficient inside its domain, or a straight one whose box does."""
    low, high = spec.domain.lower, spec.domain.upper
    make = _real if _straight(spec) else _TRANSFORMS[isfinite(low), isfinite(high)]
    return replace(make(low, high, spec.typical), spec=spec)


def _straight(spec: Coefficient) -> bool:
    """Whether a positive coefficient moves on a straight scale: exponents and loss floors, of order 1.

    The log of a loss is nearly linear in an exponent itself, which stands before the log of a large number, but not in
    the log of the exponent; and a floor may well be 0. Amplitudes of unknown magnitude move on a log scale.
    """
    positive = spec.domain.lower == 0.0 and not isfinite(spec.domain.upper)
    return positive and spec.typical[1] <= min(10.0, 20.0 * spec.typical[0])


@dataclass(frozen=True)
class Parameters:
    """The coefficients of a target as a vector x of the free ones; the others are fixed, or equal to another one.

    `lower` and `upper` are the box of x; `free` names its entries. Arrays of x have shape (rows, free).
    """

    specs: Mapping[str, Coefficient]
    free: tuple[str, ...]
    fixed: Mapping[str, float]
    tied: Mapping[str, str]
    transforms: tuple[Transform, ...]
    lower: np.ndarray
    upper: np.ndarray
    bounded: frozenset[str]

    @classmethod
    def of(
        cls,
        specs: Mapping[str, Coefficient],
        fixed: Mapping[str, float] | None = None,
        tied: Mapping[str, str] | None = None,
        bounds: Mapping[str, Sequence[float | None]] | None = None,
    ) -> Parameters:
        """Raises InputError for an unknown coefficient, a value outside its domain, or a contradiction."""
        fixed, tied, bounds = dict(fixed or {}), dict(tied or {}), dict(bounds or {})
        for role, names in {"fixed": fixed, "tied": tied, "bounds": bounds}.items():
            _check_names(role, names, specs)
        _check_ties(tied, fixed, specs)
        fixed = {name: float(check("fit.fixed", name, value, specs[name].domain)) for name, value in fixed.items()}
        free = tuple(name for name in specs if name not in fixed and name not in tied)
        for name in bounds:
            if name not in free:
                raise InputError(
                    f"fit.bounds: {name} is fixed or tied; bounds take a free coefficient: {', '.join(free)}"
                )
        transforms = tuple(transform_of(specs[name]) for name in free)
        boxes = [_box(name, specs[name], move, bounds.get(name)) for name, move in zip(free, transforms, strict=True)]
        lower, upper = np.array(boxes).reshape(-1, 2).T
        return cls(specs, free, fixed, tied, transforms, lower, upper, frozenset(bounds))

    @property
    def names(self) -> tuple[str, ...]:
        """All coefficients, in declared order."""
        return tuple(self.specs)

    def owner(self, name: str) -> str:
        """The coefficient that decides this one's value: itself, or the one it is tied to."""
        return self.tied.get(name, name)

    def natural(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The free coefficients by name, each of shape (rows,)."""
        moves = zip(self.free, self.transforms, strict=True)
        return {name: move.forward(x[:, j]) for j, (name, move) in enumerate(moves)}

    def values(self, x: np.ndarray, derive: bool = True) -> dict[str, Any]:
        """Every coefficient by name: (rows, 1), as a Jet in the index of x if `derive`; fixed ones are numbers."""
        moving: dict[str, Any] = {name: value[:, None] for name, value in self.natural(x).items()}
        if derive:
            for j, (name, move) in enumerate(zip(self.free, self.transforms, strict=True)):
                moving[name] = Jet(moving[name], {j: move.slope(moving[name])})
        both = {**moving, **self.fixed}
        return {name: both[self.owner(name)] for name in self.names}

    def table(self, x: np.ndarray) -> np.ndarray:
        """Every coefficient in declared order: (rows, coefficients)."""
        both: dict[str, Any] = {**self.natural(x), **self.fixed}
        return np.stack([np.broadcast_to(both[self.owner(name)], len(x)) for name in self.names], axis=-1)

    def x_of(self, values: Mapping[str, float]) -> np.ndarray:
        """The point x of given coefficients, moved into the box: (free,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            x = [move.back(np.float64(values[name])) for name, move in zip(self.free, self.transforms, strict=True)]
        return np.clip(np.nan_to_num(np.array(x, dtype=float), nan=0.0), self.lower, self.upper)

    def many_x_of(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The points of given free coefficients, each (rows,): (rows, free)."""
        with np.errstate(all="ignore"):
            columns = [move.back(values[n]) for n, move in zip(self.free, self.transforms, strict=True)]
        return np.stack(columns, axis=-1)

    def private(self, x: np.ndarray) -> np.ndarray:
        """Whether each entry of x (p,) stands at an end of its box that neither its domain nor the user has set."""
        low, high = self.open_ends
        return ((x <= self.lower) & low) | ((x >= self.upper) & high)

    @property
    def open_ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether the lower and the upper end of each entry's box is only as far as the solver goes."""
        told = np.array([name in self.bounded for name in self.free], bool)
        straight = np.array([_straight(self.specs[name]) for name in self.free], bool)
        return ~told & ~straight, ~told

    def ends(self, interval: np.ndarray) -> list[tuple[float, float]]:
        """Intervals (p, 2) in x as coefficients; an end where the solver stops is that of the domain."""
        out, told = [], self.bounded
        for j, (name, move) in enumerate(zip(self.free, self.transforms, strict=True)):
            domain, (low, high) = self.specs[name].domain, interval[j]
            pair = np.clip(interval[j], self.lower[j], self.upper[j])
            natural = [float(value) for value in move.forward(pair)]
            if name not in told and low <= self.lower[j]:
                natural[0] = domain.lower
            if name not in told and high >= self.upper[j]:
                natural[1] = domain.upper
            out.append((natural[0], natural[1]))
        return out

    def slopes(self, x: np.ndarray) -> np.ndarray:
        """dc/dx of each free coefficient: (rows, free)."""
        natural = self.natural(x)
        return np.stack([m.slope(natural[n]) for n, m in zip(self.free, self.transforms, strict=True)], axis=-1)

    def typical(self) -> tuple[np.ndarray, np.ndarray]:
        """The typical range of each free coefficient in x."""
        ends = [
            sorted(float(move.back(_inside(self.specs[name], end))) for end in self.specs[name].typical)
            for name, move in zip(self.free, self.transforms, strict=True)
        ]
        low, high = np.array(ends).reshape(-1, 2).T
        return np.clip(low, self.lower, self.upper), np.clip(high, self.lower, self.upper)


def _inside(spec: Coefficient, value: float) -> float:
    """A typical end that lies on the domain's edge, where x would be infinite, a thousandth of the range inside."""
    low, high = spec.domain.lower, spec.domain.upper
    margin = 1e-3 * (spec.typical[1] - spec.typical[0])
    return min(max(value, low + margin if isfinite(low) and value <= low else value), high - margin)


def _box(name: str, spec: Coefficient, move: Transform, bounds: Sequence[float | None] | None) -> tuple[float, float]:
    low, high = (float(move.back(_inside(spec, end))) for end in spec.typical)
    box = (min(low, high) - move.reach, max(low, high) + move.reach)
    if _straight(spec):
        box = float(move.back(_SMALLEST * spec.typical[0] if spec.domain.lower_open else 0.0)), box[1]
    return box if bounds is None else _narrowed(name, spec, move, box, bounds)


def _narrowed(
    name: str, spec: Coefficient, move: Transform, box: tuple[float, float], bounds: Sequence[float | None]
) -> tuple[float, float]:
    """The box within the user's bounds, where null, .inf and the domain's own ends mean no bound."""
    if isinstance(bounds, str) or not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise InputError(f"fit.bounds: {name}={bounds!r}; it takes [lowest, highest], null for none")
    low, high = (
        default if bound is None else float(check("fit.bounds", name, bound, _ANY))
        for bound, default in zip(bounds, (-inf, inf), strict=True)
    )
    if not low < high or high <= spec.domain.lower or low >= spec.domain.upper:
        raise InputError(f"fit.bounds: {name}={list(bounds)}; it takes [lowest, highest] within {spec.domain.text}")
    new_low = float(move.back(low)) if low > spec.domain.lower else box[0]
    new_high = float(move.back(high)) if high < spec.domain.upper else box[1]
    return new_low, new_high


_ANY = Domain("a number or null", lower_open=False, upper_open=False)


def _check_names(role: str, names: Mapping[str, Any], specs: Mapping[str, Coefficient]) -> None:
    for name in names:
        if name not in specs:
            raise InputError(f"fit.{role}: unknown coefficient {name!r}; it takes {', '.join(specs)}")


def _check_ties(tied: Mapping[str, str], fixed: Mapping[str, Any], specs: Mapping[str, Coefficient]) -> None:
    for name, other in tied.items():
        if other not in specs or other == name or other in tied:
            others = ", ".join(n for n in specs if n not in tied)
            raise InputError(
                f"fit.tied: {name}={other!r}; it takes another coefficient that is not tied itself: {others}"
            )
        if name in fixed:
            raise InputError(f"fit.tied: {name} is fixed too; leave one of the two out")
