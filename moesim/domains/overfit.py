"""What repeating a domain costs that domain: its loss can rise, so that feeding it has an interior best.

No law of it by domain is published; the form follows Li et al. 2026 (2608.14071) and Lovelace et al. 2026 (2605.01640):

    penalty = strength x floor x repeats^rise x (own parameters / unique tokens)^size x (unique tokens / 1e9)^-fade

The floor is the entropy that is there to be memorised: domains with a low one stand more repeats. Own parameters are
those that the domain occupies: all of them for a corpus alone, a share in a mixture, where as many repeats cost less.
So the best number of repeats falls with size at a fixed stream; it hardly depends on the unique share at a fixed number
of tokens per parameter, and with `fade` a little above the exponent of the data term it rises mildly with size there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim.settings import number, setting
from moesim.variables import NON_NEGATIVE, POSITIVE


@dataclass(frozen=True)
class Overfit:
    """Keys of `world.overfit`; `strength` 0: repeats cost nothing. All are unmeasured: sweep them.

    A strength of 0.03 has a best of five passes over a domain of one token in twenty, for 2e8 parameters and 100 tokens
    for each, as Li et al. found for mathematics.
    """

    strength: float = setting(0.0, number(NON_NEGATIVE))
    rise: float = setting(1.5, number(POSITIVE))
    size: float = setting(0.5, number(NON_NEGATIVE))
    fade: float = setting(0.4, number(NON_NEGATIVE))

    def penalty(self, floor: np.ndarray, repeats: np.ndarray, unique: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """nat/token for passes after the first, a domain's unique tokens, and its own parameters for each of them."""
        known = np.isfinite(unique)
        aged = np.where(known, unique / 1e9, 1.0) ** -self.fade
        return np.where(known, self.strength * floor * repeats**self.rise * dense**self.size * aged, 0.0)

    def slope(self, floor: np.ndarray, repeats: np.ndarray, unique: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """What one more token of a domain adds to its penalty."""
        again = np.where(repeats > 0, repeats * np.where(np.isfinite(unique), unique, 1.0), np.inf)
        return self.penalty(floor, repeats, unique, dense) * self.rise / again
