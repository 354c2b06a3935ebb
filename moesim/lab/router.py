"""What a router did, read back from loads by domain in the words of `moesim.balance.routing` (one active expert).

There an expert's log share of a domain is its score plus its bias, up to what all experts have in common: what is put
into the simulator comes back from its own loads, up to the noise of counting and of windows that end late.

Counts are (trajectory, window, layer, domain, expert); each estimate is (trajectory, layer).
"""

from __future__ import annotations

import numpy as np

EARLY = 16
"""Steps in which a router follows its own use, before what it follows has moved."""

_NEARLY = 0.75
_COUNTED = 16


def noise(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance over experts of the first window's log shares, and the covariance of two domains' (what is common).

    From a domain's own variance that of counting is taken, 1/n of n tokens; the covariance has none. Domains weigh by
    the square of their tokens, as rare ones have too few for each expert.
    """
    first = counts[:, 0]
    x, weight = _log_shares(first), _weights(first) ** 2
    weight = weight / weight.sum(axis=-1, keepdims=True)
    own = x.var(axis=-1, ddof=1) - (1.0 / (first + 0.5)).mean(axis=-1)
    mixed = ((weight[..., None] * x).sum(axis=-2) ** 2).sum(axis=-1)
    alone = ((weight[..., None] * x) ** 2).sum(axis=(-2, -1))
    pairs = np.maximum(1.0 - (weight**2).sum(axis=-1), 1e-12)
    return (weight * own).sum(axis=-1), (mixed - alone) / (counts.shape[-1] - 1) / pairs


def growth(counts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How fast log shares grow with shares, per step: use brings use (NaN where the first window is at the end).

    Least squares of the changes from window to window, to step EARLY, on the shares summed between their middles, both
    relative to the mean of experts; of domains whose first expert is not yet nearly as far ahead as it ends.
    """
    kept = max(np.searchsorted(steps, EARLY, side="right"), 2)
    own, half = counts[:, :kept], 0.5 * np.diff(steps[:kept], prepend=0.0)[:, None, None, None]
    share = own / np.maximum(own.sum(axis=-1, keepdims=True), 1.0)
    used = _centred(half[1:] * share[:, 1:] + half[:-1] * share[:, :-1])
    change = np.diff(_log_shares(own), axis=1)
    free = _ahead(own)[:, 1:] < _NEARLY * 2.0 * reach(counts)[:, None, :, None]
    weight = (_weights(own)[:, 1:] * free)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weight * change * used).sum(axis=(1, 3, 4)) / (weight * used**2).sum(axis=(1, 3, 4))


def reach(counts: np.ndarray) -> np.ndarray:
    """Half the distance in log share between a domain's first expert and the mean of its others, in the last quarter.

    Scores that follow their use end so far above and below 0. Domains weigh by their tokens.
    """
    late = counts[:, -max(counts.shape[1] // 4, 1) :].sum(axis=1)
    return 0.5 * (_weights(late) * _ahead(late)).sum(axis=-1)


def wander(counts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How far log shares move in a step by themselves: root mean square of the last quarter's changes, by random walk.

    Between the means of two windows of W steps a walk of variance v per step moves by v (2 W^2 + 1)/(3 W); from what is
    seen counting is taken, 1/n of n tokens. Of experts with _COUNTED tokens of a domain in both windows, relative to
    their mean; NaN where these are fewer than a quarter of all.
    """
    quarter = max(counts.shape[1] // 4, 2)
    late, length = counts[:, -quarter:], np.diff(steps)[1 - quarter :][:, None, None, None]
    seen = (late[:, 1:] >= _COUNTED) & (late[:, :-1] >= _COUNTED)
    many = seen.sum(axis=-1, keepdims=True)
    change = np.where(seen, np.diff(np.log(late + 0.5), axis=1), 0.0)
    apart = np.where(seen, change - change.sum(axis=-1, keepdims=True) / np.maximum(many, 1), 0.0)
    counted = np.where(seen, 1.0 / (late[:, 1:] + 0.5) + 1.0 / (late[:, :-1] + 0.5), 0.0) * (
        1 - 1 / np.maximum(many, 1)
    )
    moved = (apart**2 - counted) * 3.0 * length / (2.0 * length**2 + 1.0)
    weight = _weights(late)[:, 1:, ..., None]
    free = (weight * np.maximum(many - 1, 0)).sum(axis=(1, 3, 4))
    enough = free >= 0.25 * (quarter - 1) * (counts.shape[-1] - 1)
    walked = (weight * moved).sum(axis=(1, 3, 4)) / np.where(enough, free, np.nan)
    return np.sqrt(np.maximum(walked, 0.0))


def _ahead(counts: np.ndarray) -> np.ndarray:
    """Log share of the first expert over the mean of the others'."""
    most = counts.max(axis=-1)
    others = (counts.sum(axis=-1) - most) / (counts.shape[-1] - 1)
    return np.log((most + 0.5) / (others + 0.5))


def _log_shares(counts: np.ndarray) -> np.ndarray:
    return _centred(np.log(counts + 0.5))


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=-1, keepdims=True)


def _weights(counts: np.ndarray) -> np.ndarray:
    """Each domain's share of the tokens."""
    tokens = counts.sum(axis=-1)
    return tokens / np.maximum(tokens.sum(axis=-1, keepdims=True), 1.0)
