"""What runs can tell: which coefficients they determine, and which trade off against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

IDENTIFIED, WEAK, NOT_IDENTIFIED, NO_EFFECT = "identified", "weak", "not identified", "no effect"

# Width of a 95 % interval in x (a factor e^width for a positive coefficient, half typical ranges for a real one)
# from which a coefficient counts as weakly, or as not identified: a factor of 2 says its first digit, of 100 nothing.
_WEAK, _NOT = np.log(2.0), np.log(100.0)
# Correlation from which knowing the other coefficient would more than halve the interval: (1 - 0.9^2)^0.5 = 0.44.
_TRADE_OFF = 0.9


@dataclass(frozen=True)
class Identification:
    """For each free coefficient: a verdict, the width of its 95 % interval in x, and the one it trades off most with.

    `correlation` (p, p) is that of the draws if there are, else of the covariance, along the transformed coefficients.
    """

    names: tuple[str, ...]
    verdict: tuple[str, ...]
    width: np.ndarray
    correlation: np.ndarray
    partner: tuple[str, ...]

    def trade_offs(self) -> list[tuple[str, str, float]]:
        """Pairs of coefficients whose correlation is at least 0.9 in size, strongest first."""
        p = len(self.names)
        pairs = [(self.names[i], self.names[j], float(self.correlation[i, j])) for i in range(p) for j in range(i)]
        strong = [(b, a, c) for a, b, c in pairs if abs(c) >= _TRADE_OFF]
        return sorted(strong, key=lambda pair: -abs(pair[2]))

    def messages(self) -> Iterator[str]:
        """A line for each coefficient that is not well identified."""
        for j, (name, verdict) in enumerate(zip(self.names, self.verdict, strict=True)):
            if verdict == NO_EFFECT:
                yield f"{name} has no effect on the loss of any run: its value means nothing; fix it"
            elif verdict != IDENTIFIED:
                trade = f"; trades off with {self.partner[j]}" if self.partner[j] else ""
                yield f"{name} is {_WORDS[verdict]} by the runs{trade}"


_WORDS = {WEAK: "only weakly identified", NOT_IDENTIFIED: "not identified"}


def student(task: Any, level: float) -> float:
    """Half the width of a two-sided interval in standard errors: Student's t of runs less coefficients."""
    from scipy.special import stdtrit

    freedom = max(int(task.group.max()) + 1 - len(task.parameters.free), 1)
    return float(stdtrit(freedom, 0.5 + level / 2))


def identify(task: Any, x: np.ndarray, local: Any, draws: np.ndarray, profiles: Any) -> Identification:
    """The verdicts of a fit at x, from its local spread, its draws (draws, p) and its profiles if there are."""
    names, p = task.parameters.free, len(x)
    width = 2.0 * student(task, 0.95) * local.error
    correlation = local.correlation if p else np.zeros((0, 0))
    if len(draws) > 20:
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        width, correlation = np.maximum(high - low, np.where(np.isinf(width), np.inf, 0.0)), _correlation(draws)
    if profiles is not None:
        width = np.where(np.isfinite(profiles.interval).all(axis=1), width, np.inf)
    effect = np.sqrt(np.mean(task.effects(x) ** 2, axis=0)) if p else np.zeros(0)
    at_edge = (x <= task.parameters.lower) | (x >= task.parameters.upper)
    verdict = tuple(_verdict(width[j], effect[j], at_edge[j]) for j in range(p))
    return Identification(names, verdict, width, correlation, tuple(_partner(names, correlation, j) for j in range(p)))


def _verdict(width: float, effect: float, at_edge: bool) -> str:
    if effect < 1e-12 and not at_edge:
        return NO_EFFECT
    if width >= _NOT or (effect < 1e-9 and at_edge):
        return NOT_IDENTIFIED
    return WEAK if width >= _WEAK else IDENTIFIED


def _partner(names: tuple[str, ...], correlation: np.ndarray, j: int) -> str:
    others = np.where(np.arange(len(names)) == j, 0.0, np.abs(np.nan_to_num(correlation[j])))
    best = int(np.argmax(others)) if len(others) else 0
    return names[best] if len(others) and others[best] >= _TRADE_OFF else ""


def _correlation(draws: np.ndarray) -> np.ndarray:
    centred = draws - draws.mean(axis=0)
    size = np.sqrt(np.mean(centred**2, axis=0))
    size = np.where(size > 0, size, 1.0)
    return (centred / size).T @ (centred / size) / len(draws)
