"""What runs can tell: which coefficients they determine, and which trade off against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.fitting.bootstrap import percentiles

IDENTIFIED, WEAK, NOT_IDENTIFIED = "identified", "weak", "not identified"
AT_BOUND, VANISHES = "at bound", "term vanishes"
LOOSE = (NOT_IDENTIFIED, AT_BOUND, VANISHES)  # verdicts of coefficients whose draws would stay where they start

# Width of a 95 % interval in x (a factor e^width for a positive coefficient, half typical ranges for a real one)
# from which a coefficient counts as weakly, or as not identified: a factor of 2 says its first digit, of 100 nothing.
_WEAK, _NOT = np.log(2.0), np.log(100.0)
# Correlation from which knowing the other coefficient would more than halve the interval: (1 - 0.9^2)^0.5 = 0.44.
_TRADE_OFF = 0.9
_NOTHING, _FAINT = 1e-9, 1e-6  # effect of a unit of x on a residual that counts as none, and that of a vanishing term


@dataclass(frozen=True)
class Identification:
    """For each free coefficient: a verdict, the width of its 95 % interval in x, the one it trades off most with,
    and whether it is idle: without effect on the loss of any run.

    `correlation` (p, p) is that of the draws if there are, else of the covariance, along the transformed coefficients.
    """

    names: tuple[str, ...]
    verdict: tuple[str, ...]
    width: np.ndarray
    correlation: np.ndarray
    partner: tuple[str, ...]
    idle: np.ndarray

    def trade_offs(self) -> list[tuple[str, str, float]]:
        """Pairs of coefficients whose correlation is at least 0.9 in size, strongest first."""
        p = len(self.names)
        pairs = [(self.names[i], self.names[j], float(self.correlation[i, j])) for i in range(p) for j in range(i)]
        strong = [(b, a, c) for a, b, c in pairs if abs(c) >= _TRADE_OFF]
        return sorted(strong, key=lambda pair: -abs(pair[2]))

    def messages(self) -> Iterator[str]:
        """A line for each coefficient that is not well identified."""
        for j, (name, verdict) in enumerate(zip(self.names, self.verdict, strict=True)):
            if verdict == NOT_IDENTIFIED and self.idle[j]:
                yield f"{name} has no effect on the loss of any run: its value means nothing; fix it"
            elif verdict != IDENTIFIED:
                trade = f"; trades off with {self.partner[j]}" if self.partner[j] else ""
                yield f"{name} {_WORDS[verdict]}{trade}"


_WORDS = {
    WEAK: "is only weakly identified by the runs",
    NOT_IDENTIFIED: "is not identified by the runs: its interval is what they allow, its estimate means nothing",
    AT_BOUND: "is at bound: its interval is one-sided",
    VANISHES: "belongs to a term that vanishes: its value means nothing; fix it, or take a law without the term",
}


def student(task: Any, level: float) -> float:
    """Half the width of a two-sided interval in standard errors: Student's t of runs less coefficients."""
    from scipy.special import stdtrit

    freedom = max(int(task.group.max()) + 1 - len(task.parameters.free), 1)
    return float(stdtrit(freedom, 0.5 + level / 2))


def identify(task: Any, x: np.ndarray, local: Any, draws: np.ndarray, profiles: Any) -> Identification:
    """The verdicts of a fit at x, from its local spread, its draws (draws, p) and its profiles if there are."""
    names, p = task.parameters.free, len(x)
    width = widths(task, local, draws)
    correlation = local.correlation if p else np.zeros((0, 0))
    if len(draws) > 20:
        correlation = _correlation(draws)
    if profiles is not None:
        low, high = profiles.interval.T
        width = np.where(profiles.done, np.where(np.isfinite(low) & np.isfinite(high), width, np.inf), width)
    effect = np.sqrt(np.mean(task.effects(x) ** 2, axis=0)) if p else np.zeros(0)
    edge = (x <= task.parameters.lower) | (x >= task.parameters.upper)
    private = edge & task.parameters.private(x)
    gone = (private & (effect < _FAINT)) | (~edge & (effect < _NOTHING) & edge.any())
    verdict = [
        AT_BOUND if edge[j] else _by_width(width[j]) if effect[j] > _NOTHING else NOT_IDENTIFIED for j in range(p)
    ]
    verdict = tuple(VANISHES if gone[j] else verdict[j] for j in range(p))
    partner = tuple(_partner(names, correlation, j) for j in range(p))
    return Identification(names, verdict, width, correlation, partner, effect <= _NOTHING)


def widths(task: Any, local: Any, draws: np.ndarray) -> np.ndarray:
    """Widths of the 95 % intervals in x: of the draws, else of the local spread; inf where nothing determines x."""
    width = 2.0 * student(task, 0.95) * local.error
    if len(draws) <= 20:
        return width
    low, high = percentiles(draws, 0.95).T
    return np.where(np.isinf(width), np.inf, high - low)


def doubtful(task: Any, x: np.ndarray, local: Any, draws: np.ndarray) -> np.ndarray:
    """Entries whose draws may have stayed where they started, so that only a profile tells their interval: (p,)."""
    edge = (x <= task.parameters.lower) | (x >= task.parameters.upper)
    wide = np.maximum(widths(task, local, draws), 2.0 * student(task, 0.95) * local.error) >= 2.0 * _WEAK
    return edge | wide


def _by_width(width: float) -> str:
    return NOT_IDENTIFIED if width >= _NOT else WEAK if width >= _WEAK else IDENTIFIED


def _partner(names: tuple[str, ...], correlation: np.ndarray, j: int) -> str:
    others = np.where(np.arange(len(names)) == j, 0.0, np.abs(np.nan_to_num(correlation[j])))
    best = int(np.argmax(others)) if len(others) else 0
    return names[best] if len(others) and others[best] >= _TRADE_OFF else ""


def _correlation(draws: np.ndarray) -> np.ndarray:
    centred = draws - draws.mean(axis=0)
    size = np.sqrt(np.mean(centred**2, axis=0))
    size = np.where(size > 0, size, 1.0)
    return (centred / size).T @ (centred / size) / len(draws)
