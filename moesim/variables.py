"""The table of variables: one name, unit, symbol and domain for each quantity, wherever it appears."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Domain:
    """An interval of the real line; `text` says it in words for error messages."""

    text: str
    lower: float = -inf
    upper: float = inf
    lower_open: bool = True
    upper_open: bool = True

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Whether each value lies in the interval (NaN never does)."""
        above = values > self.lower if self.lower_open else values >= self.lower
        return above & (values < self.upper if self.upper_open else values <= self.upper)


REAL = Domain("any finite number")
POSITIVE = Domain("a number above 0", 0)
NON_NEGATIVE = Domain("0 or more", 0, lower_open=False)
AT_LEAST_ONE = Domain("1 or more", 1, lower_open=False)
SHARE = Domain("0 or more and below 1", 0, 1, lower_open=False)
FRACTION = Domain("above 0 and at most 1", 0, 1, upper_open=False)
POSITIVE_OR_INF = Domain("a number above 0, or inf for unlimited", 0, upper_open=False)


@dataclass(frozen=True)
class Variable:
    """A row of the table: unit, long name, symbol and domain of one quantity."""

    unit: str
    long_name: str
    symbol: str
    domain: Domain = POSITIVE


VARIABLES = {
    "compute": Variable("FLOP", "training compute", "C"),
    "active_params": Variable("parameter", "active parameters", "N_a"),
    "total_params": Variable("parameter", "total parameters", "N"),
    "active_nonembedding_params": Variable("parameter", "active parameters without embeddings", "N_a"),
    "nonembedding_params": Variable("parameter", "total parameters without embeddings", "N"),
    "sparsity": Variable("1", "inactive share of the routed experts", "S", SHARE),
    "experts": Variable("1", "routed experts per MoE layer", "E", AT_LEAST_ONE),
    "active_experts": Variable("1", "active routed experts per token", "K", POSITIVE),
    "shared_experts": Variable("1", "shared experts per MoE layer", "K_s", NON_NEGATIVE),
    "granularity": Variable("1", "granularity: dense d_ff / expert d_ff", "G"),
    "activation_ratio": Variable("1", "active share of all experts, shared ones counted", "A", FRACTION),
    "shared_ratio": Variable("1", "shared share of the active experts", "S", SHARE),
    "density": Variable("1", "share of the weights that acts on a token", "q", FRACTION),
    "tokens": Variable("token", "tokens processed", "D"),
    "unique_tokens": Variable("token", "unique tokens available", "U", POSITIVE_OR_INF),
    "epochs": Variable("1", "epochs", "D/U", NON_NEGATIVE),
    "flops_per_token": Variable("FLOP/token", "training FLOPs per token", "F"),
    "loss": Variable("nat/token", "loss", "L"),
    "flops": Variable("FLOP", "FLOPs of one optimiser step", "F", NON_NEGATIVE),
    "step_flops": Variable("FLOP", "FLOPs of one optimiser step, all layers and passes", "F", NON_NEGATIVE),
    "run_flops": Variable("FLOP", "training FLOPs of a whole run", "C", NON_NEGATIVE),
    "weights": Variable("parameter", "weights", "P", NON_NEGATIVE),
    "active_weights": Variable("parameter", "weights that act on one sample", "P_a", NON_NEGATIVE),
    "batch": Variable("sample", "samples or tokens per optimiser step", "B"),
    "depth": Variable("1", "intermediate layers", "n", NON_NEGATIVE),
    "total_to_forward": Variable("1", "FLOPs of an optimiser step / FLOPs of its forward pass", "", AT_LEAST_ONE),
    "backward_to_forward": Variable("1", "FLOPs of backward pass and update / of the forward pass", "", NON_NEGATIVE),
    "tokens_per_expert": Variable("token", "tokens that one expert sees per optimiser step", "b"),
    "expert_ratio": Variable("1", "FLOPs of an expert's step / of its forward pass", "", AT_LEAST_ONE),
    "expert_backward": Variable("1", "FLOPs of an expert's backward pass and update / of its forward pass", ""),
    "expert_update": Variable("FLOP/parameter", "FLOPs of an expert's update per weight", "u", NON_NEGATIVE),
    "sequence": Variable("token", "tokens per sequence", "T", NON_NEGATIVE),
    "leverage": Variable("1", "efficiency leverage: dense FLOPs / MoE FLOPs at equal loss", "EL"),
    "draw": Variable("1", "draw of the uncertain coefficients", "", NON_NEGATIVE),
}

# The ways to count the parameters of a model.
SIZES = ("total_params", "active_params", "nonembedding_params", "active_nonembedding_params")

_PREFIXES = {"optimal_": "compute-optimal ", "best_": "at the best sparsity: "}


def check(owner: str, name: str, value: Any, domain: Domain) -> Any:
    """`value` as float, float array or DataArray if it is numeric and inside `domain`; InputError otherwise."""
    values = np.asarray(value)
    numbers = values.dtype.kind in "iuf" or (values.dtype.kind == "O" and all(map(_is_number, values.flat)))
    if not numbers:
        raise InputError(f"{owner}: {name}={value!r} is not a number; it takes {domain.text}")
    values = values.astype(float, copy=False)
    good = domain.contains(values)
    if not good.all():
        raise InputError(f"{owner}: {name}={values[~good].flat[0]:g} is outside its domain; it takes {domain.text}")
    if hasattr(value, "dims"):
        return value.astype(float)
    return values if values.ndim else float(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def stamp(dataset: xr.Dataset) -> xr.Dataset:
    """Write unit and long name of the table on every variable and coordinate that the table knows; in place."""
    for name, array in dataset.variables.items():
        prefix = next((p for p in _PREFIXES if str(name).startswith(p)), "")
        row = VARIABLES.get(str(name).removeprefix(prefix))
        if row is not None:
            array.attrs = {"units": row.unit, "long_name": _PREFIXES.get(prefix, "") + row.long_name}
    return dataset
