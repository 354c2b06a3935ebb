"""The loss law that a domain follows inside one expert, and what repeated tokens are worth to it.

Each expert is a dense model: what it has for a domain, `moesim.domains.learning`, plays the parameters and the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.laws.law import Law
from moesim.numerics.derivative import Jet, slope_of, value_of
from moesim.registry import Policies
from moesim.settings import number, truth
from moesim.variables import POSITIVE, VARIABLES, check

# Below `first_tokens` (effective tokens of a domain in an expert) no law holds: the loss stays at its value there.
# `pooled` (None: as the curve says): the law is that of a corpus of many domains, not of one domain by itself.
curves = Policies("curve", {"first_tokens": 1e4, "pooled": None})
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
_LARGE = 1e300  # parameters or tokens without limit
_PARAMS = {name for name, row in VARIABLES.items() if row.unit == "parameter"}


@dataclass(frozen=True)
class Curve:
    """Loss (nat/token) of an expert that has `params` for a domain after `tokens` effective tokens of it.

    `values` holds numbers or arrays (seed, part, 1). Below `first_tokens` the loss stays at its value there: no law
    holds at no data. Above `bound`, the loss of an untrained model, it does not go. `pooled`: tokens are those of a
    corpus of many domains, as laws are fitted, and not a domain's own.
    """

    function: Callable[..., Any]
    values: Values
    first_tokens: float = 1e4
    bound: float = np.inf
    pooled: bool = True

    def loss(self, params: Any, tokens: Any) -> Any:
        """Loss for arrays that broadcast."""
        loss = np.asarray(self.unbounded(params, tokens))
        return np.clip(loss, -np.inf, self.bound, out=loss) if loss.ndim else float(min(loss, self.bound))

    def unbounded(self, params: Any, tokens: Any) -> Any:
        """What the law says, however bad."""
        # Between two bounds numpy is three times as fast as above one.
        params, tokens = np.clip(params, 1.0, np.inf), np.clip(tokens, self.first_tokens, np.inf)
        return self.function(params, tokens, **self.values)

    def gain(self, params: Any, tokens: Any) -> np.ndarray:
        """Loss removed by one more effective token: minus the derivative of the law by tokens, above the bound too."""
        at = np.maximum(tokens, self.first_tokens)
        return -slope_of(self.function(np.maximum(params, 1.0), Jet(at, {"tokens": 1.0}), **self.values), "tokens")

    def cast(self, dtype: Any) -> Curve:
        """The curve with its arrays in another precision."""
        values = {name: value.astype(dtype) if np.ndim(value) else value for name, value in self.values.items()}
        return replace(self, values=values)

    def placed(self, leaf: np.ndarray, group: np.ndarray) -> Curve:
        """The curve with lists (one value per original domain) laid out as (seed, leaf, 1)."""
        values = {name: _laid_out(name, value, leaf, group) for name, value in self.values.items()}
        return replace(self, values=values)

    def lowest(self, params: Any) -> Any:
        """Loss with unlimited tokens."""
        return self.function(params, _LARGE, **self.values)

    def exponent(self) -> Any:
        """The data exponent a where the loss falls as tokens^-a to its floor, from two points of it; else 0 or NaN.

        A number or an array (seed, domain, 1). Taken at `first_tokens`, where the data term is largest.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            first, later = (
                self.unbounded(_LARGE, self.first_tokens * times) - self.lowest(_LARGE) for times in (1.0, 10.0)
            )
            return -np.log10(later / first)


def _laid_out(name: str, value: Any, leaf: np.ndarray, group: np.ndarray) -> Any:
    if not np.ndim(value):
        return value
    if len(value) != group.max() + 1:
        raise InputError(f"curve: {name} has {len(value)} values for {group.max() + 1} domains; give one or one each")
    return np.asarray(value, dtype=float)[group][leaf][:, :, None]


def curve_of(config: Any) -> Curve:
    """The Curve of a config: `policy` (law unless given) with its own keys, and `first_tokens`."""
    policy, shared = curves.build({"policy": "law", **config} if isinstance(config, Mapping) else config)
    first = number(POSITIVE)("curve", "first_tokens", shared["first_tokens"])
    made, pooled = policy(), shared["pooled"]
    return replace(made, first_tokens=first, pooled=made.pooled if pooled is None else truth("curve", "pooled", pooled))


@curves
def law(*, name: Any = "hoffmann2022", coefficients: Mapping | None = None, token_unit: float = 1.0) -> Curve:
    """Any law of `moesim.laws` by the `name` (or path) of its coefficient file, or a Law itself.

    `coefficients` replaces some of them; each may be a list with one value per domain. Every parameter count of the law
    takes the expert's capacity per domain; sparsity is 0 and there is one expert. Tokens are counted in `token_unit`:
    with 1e8 the data term B of Hoffmann's law is what 1e8 tokens leave, whatever the exponent.
    """
    from moesim.laws.load import load_law

    replaced = dict(coefficients or {})
    chosen = name.with_coefficients(**replaced) if isinstance(name, Law) else load_law(name, **replaced)
    names, function = chosen.inputs, chosen.form.function
    if extra := [name for name in names if name not in _PARAMS and name not in _DENSE and name != "tokens"]:
        raise InputError(f"curve law: {chosen.name} needs {extra[0]!r}, which a single expert does not have")
    if "tokens" not in names:
        raise InputError(f"curve law: {chosen.name} does not depend on tokens, so nothing would be learned")
    check("curve law", "token_unit", token_unit, POSITIVE)

    def evaluate(params, tokens, **values):
        inputs = {name: params if name in _PARAMS else _DENSE.get(name) for name in names}
        return function(**{**inputs, "tokens": tokens if token_unit == 1.0 else tokens / token_unit}, **values)

    return Curve(evaluate, dict(chosen.coefficients))


def _quanta(params, tokens, floor, data_scale, threshold):
    # The difference is zero with slope 1: a token of an unsolved quantum gains its part of the step.
    unsolved = data_scale * (1.0 - (tokens - value_of(tokens)) / threshold)
    return floor + np.where(tokens >= threshold, 0.0, unsolved)


@curves
def quanta(*, floor: Any = 0.0, data_scale: Any = 1.0, threshold: Any = 1e7) -> Curve:
    """floor + data_scale until a domain has `threshold` tokens of its own, then floor (Michaud et al. 2023)."""
    return Curve(_quanta, dict(locals()), pooled=False)


def worth_of(config: Any) -> Callable[[Any, Any], Any]:
    """Effective tokens of (tokens drawn, unique tokens) by a repetition: `name` of its file, and coefficients.

    The same forms as in planning; parameters in excess do not count here (an expert's capacity is its own term).
    """
    from moesim.laws.load import load_repetition

    own = {"name": config} if isinstance(config, str) else dict(config)
    chosen = load_repetition(own.pop("name", "none"), excess="none", **own)
    form, values = chosen.form, chosen.coefficients
    fixed = {"params": 1.0, "taught_params": 1.0, "density": 1.0}

    def effective(tokens, unique):
        inputs = {**fixed, "tokens": tokens, "unique_tokens": unique}
        return form.function(**{key: inputs[key] for key in form.inputs}, **values)

    added = effective(2.0, 1.0).penalty
    if callable(added) or np.any(added):
        raise InputError(f"world: repetition {chosen.name} adds to the loss, by a whole corpus; use world.overfit")
    return lambda tokens, unique: effective(tokens, unique).tokens
