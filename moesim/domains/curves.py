"""The loss law that a domain follows inside one expert, and what repeated tokens are worth to it.

Each expert is a dense model: its capacity, shared among the domains it serves, plays the parameters; its effective
samples of a domain play the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.derivative import Jet, slope_of, value_of
from moesim.registry import Policies
from moesim.variables import VARIABLES

curves = Policies("curve")
Values = Mapping[str, Any]

# What a single dense expert has for every other variable that a law may ask for.
_DENSE = {
    "sparsity": 0.0,
    "experts": 1.0,
    "active_experts": 1.0,
    "shared_experts": 0.0,
    "granularity": 1.0,
    "activation_ratio": 1.0,
    "shared_ratio": 0.0,
    "density": 1.0,
    "unique_tokens": np.inf,
    "epochs": 1.0,
}
_PARAMS = {name for name, row in VARIABLES.items() if row.unit == "parameter"}


@dataclass(frozen=True)
class Curve:
    """Loss (nat/token) of an expert with `params` per domain after `tokens` effective tokens of it.

    `values` holds numbers or arrays (seed, domain, 1). Below `first_tokens` the loss stays at its value there: no law
    holds at no data.
    """

    function: Callable[..., Any]
    values: Values
    first_tokens: float = 1.0

    def loss(self, params: Any, tokens: Any) -> Any:
        """Loss for arrays that broadcast."""
        return self.function(params, np.maximum(tokens, self.first_tokens), **self.values)

    def gain(self, params: Any, tokens: Any) -> np.ndarray:
        """Loss removed by one more effective token: minus the derivative of the law by its tokens."""
        at = np.maximum(tokens, self.first_tokens)
        return -slope_of(self.function(params, Jet(at, {"tokens": 1.0}), **self.values), "tokens")

    def placed(self, leaf: np.ndarray, group: np.ndarray) -> Curve:
        """The curve with lists (one value per original domain) laid out as (seed, leaf, 1)."""
        values = {name: _laid_out(name, value, leaf, group) for name, value in self.values.items()}
        return replace(self, values=values)

    def lowest(self, params: Any) -> Any:
        """Loss with unlimited tokens."""
        return self.function(params, 1e300, **self.values)


def _laid_out(name: str, value: Any, leaf: np.ndarray, group: np.ndarray) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != group.max() + 1:
        raise InputError(f"curve: {name} has {len(value)} values for {group.max() + 1} domains; give one or one each")
    return np.asarray(value, dtype=float)[group][leaf][:, :, None]


def curve_of(config: Values) -> Curve:
    """The Curve of a config mapping: `policy` power, law or quanta, with its own keys and `first_tokens`."""
    own = dict(config)
    first = float(own.pop("first_tokens", 1.0))
    if not first > 0:
        raise InputError(f"curve: first_tokens={first:g}; it takes a number above 0")
    return replace(curves.only(own)(), first_tokens=first)


def _power(params, tokens, floor, capacity_scale, capacity_exponent, data_scale, data_exponent, at_tokens):
    data = data_scale * np.exp(-data_exponent * np.log(tokens if at_tokens == 1.0 else tokens / at_tokens))
    if np.isscalar(capacity_scale) and capacity_scale == 0:
        return floor + data
    return (floor + capacity_scale * params**-capacity_exponent) + data


@curves
def power(
    *,
    floor=1.69,
    capacity_scale=406.4,
    capacity_exponent=0.34,
    data_scale=410.7,
    data_exponent=0.28,
    at_tokens=1.0,
):
    """floor + capacity_scale params^-capacity_exponent + data_scale (tokens/at_tokens)^-data_exponent, in nat/token.

    The defaults are the rounded coefficients of Hoffmann et al. 2022, arXiv:2203.15556, eq. 10; each may be a list
    with one value per domain. capacity_scale=0 leaves the plain data law of a domain.
    """
    return Curve(_power, dict(locals()))


@curves
def law(*, name: str, coefficients: Mapping | None = None):
    """Any law of `moesim.laws` by the `name` (or path) of its coefficient file; `coefficients` replaces some of them.

    Every parameter count of the law takes the expert's capacity per domain; sparsity is 0 and there is one expert.
    """
    from moesim.laws.load import load_law

    chosen = load_law(name, **dict(coefficients or {}))
    names, function = chosen.inputs, chosen.form.function
    if extra := [name for name in names if name not in _PARAMS and name not in _DENSE and name != "tokens"]:
        raise InputError(f"curve law: {chosen.name} needs {extra[0]!r}, which a single expert does not have")
    if "tokens" not in names:
        raise InputError(f"curve law: {chosen.name} does not depend on tokens, so nothing would be learned")

    def evaluate(params, tokens, **values):
        inputs = {name: params if name in _PARAMS else _DENSE.get(name) for name in names}
        return function(**{**inputs, "tokens": tokens}, **values)

    return Curve(evaluate, dict(chosen.coefficients))


def _quanta(params, tokens, floor, data_scale, threshold):
    # The difference is zero with slope 1: a token of an unsolved quantum gains its part of the step.
    unsolved = data_scale * (1.0 - (tokens - value_of(tokens)) / threshold)
    return floor + np.where(tokens >= threshold, 0.0, unsolved)


@curves
def quanta(*, floor=0.0, data_scale=1.0, threshold=1e6):
    """floor + data_scale until a domain has `threshold` tokens, then floor (Michaud et al. 2023, 2303.13506)."""
    return Curve(_quanta, dict(locals()))


def worth_of(config: Values | str) -> Callable[[Any, Any], Any]:
    """Effective tokens of (tokens drawn, unique tokens) by a repetition: `name` of its file, and coefficients.

    The same forms as in planning; parameters in excess do not count here (an expert's capacity is its own term).
    """
    from moesim.laws.load import load_repetition

    own = {"name": config} if isinstance(config, str) else dict(config)
    chosen = load_repetition(own.pop("name", "none"), excess="none", **own)
    form, values = chosen.form, chosen.coefficients
    fixed = {"params": 1.0, "taught_params": 1.0, "density": 1.0}

    def worth(tokens, unique):
        inputs = {**fixed, "tokens": tokens, "unique_tokens": unique}
        return form.function(**{key: inputs[key] for key in form.inputs}, **values).tokens

    return worth
