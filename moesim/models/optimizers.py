"""FLOPs of one optimiser update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from moesim.errors import InputError
from moesim.models.operations import Tensor, choose, number, whole


@dataclass(frozen=True)
class Optimizer:
    """FLOP of one update: `per_weight` for every weight, or `per_matrix(rows, columns)` for a hidden weight matrix."""

    name: str
    per_weight: float
    source: str
    per_matrix: Callable[[int, int], Any] | None = None

    def flops(self, tensor: Tensor) -> Any:
        """FLOP to update all copies of a tensor once (0 if no gradient reaches it)."""
        if not tensor.trained:
            return 0
        if self.per_matrix is None or not tensor.matrix:
            return self.per_weight * tensor.size
        return self.per_matrix(tensor.rows, tensor.columns) * tensor.count


def newton_schulz(rows: int, columns: int, steps: int = 5) -> int:
    """FLOP of Muon's Newton-Schulz iteration on one n x m matrix, m <= n: steps (4 m^2 n + 2 m^3).

    Each step is X X^T (2 m^2 n), its square (2 m^3) and a product with X (2 m^2 n): steps (4 m + 2 m^2/n) per weight.
    The few elementwise FLOP of the momentum are left out, as they are below 0.1 % of it. Source: torch.optim.Muon,
    Jordan et al. 2024 (kellerjordan.github.io/posts/muon).
    """
    m, n = sorted((rows, columns))
    return steps * (4 * m * m * n + 2 * m**3)


def muon(steps: int = 5) -> Optimizer:
    """Muon for hidden matrices; embeddings, heads, biases and gains are updated by AdamW, as its authors advise."""
    whole("muon", steps=steps)
    source = "torch.optim.Muon: Newton-Schulz products; AdamW for all but hidden matrices"
    return Optimizer("muon", 14, source, lambda rows, columns: newton_schulz(rows, columns, steps))


_ROWS = (
    Optimizer("sgd", 2, "Hobbhahn & Sevilla 2021, table of operations: W += lr * dW"),
    Optimizer("momentum", 4, "torch.optim.SGD: buffer = mu * buffer + g, then the SGD step"),
    Optimizer("nesterov", 6, "torch.optim.SGD(nesterov): momentum, then g + mu * buffer"),
    Optimizer("rmsprop", 9, "torch.optim.RMSprop, op by op"),
    Optimizer("adagrad", 7, "torch.optim.Adagrad, op by op"),
    Optimizer("adam", 13, "torch.optim.Adam: lerp 3, mul 1, addcmul 3, sqrt 1, div 1, add 1, addcdiv 3"),
    Optimizer("adam_post", 18, "Hobbhahn & Sevilla 2021: 3 + 4 + 3 + 3 + 5"),
    Optimizer("adam_text", 20, "the equations as printed by Kingma & Ba 2015, nothing hoisted: 4 + 5 + 3 + 3 + 5"),
    Optimizer("adam_hoisted", 14, "1 - beta and 1 - beta^t computed once for all weights: 3 + 4 + 1 + 1 + 5"),
    Optimizer("adam_epsilon_hat", 12, "Kingma & Ba 2015, section 2: bias corrections folded into the step size"),
    Optimizer("adamw", 14, "torch.optim.AdamW: Adam's 13 and the decay"),
    Optimizer("adamw_clip", 17, "AdamW and clipping by the global norm: square, add, scale"),
    Optimizer("adamw_clip_scale", 18, "AdamW, clipping and the loss scale: as many as the post's Adam, by accident"),
    muon(),
)
OPTIMIZERS: Mapping[str, Optimizer] = {row.name: row for row in _ROWS}


def optimizer(value: Any) -> Optimizer:
    """An Optimizer by name, from FLOP per weight, or as it is; InputError for anything else."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, Real):
        number("optimizer", flops_per_weight=value)
        return Optimizer(f"{value:g} FLOP/weight", float(value), "given as a number")
    try:
        return choose("optimizer", value, OPTIMIZERS)
    except InputError as error:
        raise InputError(f"{error}; or give FLOP per weight as a number") from None
