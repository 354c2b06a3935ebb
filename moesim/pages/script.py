"""A formula as JavaScript: each output of its graph a function of an array of inputs, from checked nodes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.numerics.trace import OPERATIONS, Graph, Traced, arguments_of, derivative, needed_for

_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_COMPARED = {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}
_COMPARED |= {"equal": "===", "not_equal": "!=="}
_OF_MATH = {"absolute": "abs", "arctan": "atan", "minimum": "min", "maximum": "max"}
_OF_MATH |= {name: name for name in ("sign", "sqrt", "cbrt", "exp", "expm1", "log", "log1p", "log2", "log10")}
_OF_MATH |= {name: name for name in ("tanh", "sin", "cos", "floor", "ceil")}
_ARGUMENTS = {1: "({0})", 2: "({0}, {1})"}
# Operation -> JavaScript of its arguments. What is true is 1, what is false 0.
_WRITTEN = {
    **{name: f"{{0}} {sign} {{1}}" for name, sign in _SIGNS.items()},
    **{name: f"({{0}} {sign} {{1}} ? 1 : 0)" for name, sign in _COMPARED.items()},
    **{name: f"Math.{own}{_ARGUMENTS[OPERATIONS[name].nin]}" for name, own in _OF_MATH.items()},
    "negative": "-{0}",
    "square": "{0} * {0}",
    "reciprocal": "1 / {0}",
    "exp2": "Math.pow(2, {0})",
    "power": "moesim.power({0}, {1})",
    "logaddexp": "moesim.logaddexp({0}, {1})",
    "logical_and": "({0} !== 0 && {1} !== 0 ? 1 : 0)",
    "logical_or": "({0} !== 0 || {1} !== 0 ? 1 : 0)",
    "logical_not": "({0} === 0 ? 1 : 0)",
    "isfinite": "(Number.isFinite({0}) ? 1 : 0)",
    "isinf": "(Math.abs({0}) === Infinity ? 1 : 0)",
    "isnan": "(Number.isNaN({0}) ? 1 : 0)",
    "where": "({0} !== 0 ? {1} : {2})",
}


def script(held: Mapping[str, Any]) -> str:
    """The JavaScript of a formula that was read (planning.formula): an object of functions of an array of inputs.

    `inputs` names the places of the array. Beside the outputs of the graph there are `slope.EXCESS` (of each loss in
    log_size) and `gain`, whose root is the taught size: what a larger model would gain less what more tokens would.
    """
    graph: Graph = held["graph"]
    outputs = dict(graph.outputs)
    for name in [name for name in outputs if name.startswith("loss.")]:
        outputs[f"slope{name.removeprefix('loss')}"] = derivative(outputs[name], "log_size")
    outputs["gain"] = _gain(graph, outputs["once"], outputs["flops_per_token"])
    inputs = graph.inputs
    places = {name: i for i, name in enumerate(inputs)}
    functions = [f"  {json.dumps(name)}: {_function(graph, value, places)}" for name, value in outputs.items()]
    return "{\n  inputs: " + json.dumps(inputs) + ",\n" + ",\n".join(functions) + "\n}"


def _gain(graph: Graph, once: Traced, flops: Traced) -> Traced:
    """dL / d log size at fixed tokens, less what the tokens would add that the same compute buys (laws.wrapped)."""
    grows = derivative(flops, "log_size") / flops
    by_tokens = derivative(once, "tokens") * graph.input("unique_tokens") * grows
    return derivative(once, "log_size") - by_tokens


def _function(graph: Graph, value: Traced, places: Mapping[str, int]) -> str:
    lines = []
    for place in needed_for(graph, [value]):
        node = graph.nodes[place]
        if node[0] != "number":
            lines.append(f"const t{place} = {_expression(graph, node, places)};")
    return f"(v) => {{ {' '.join(lines)} return {_name(graph, value.place)}; }}"


def _expression(graph: Graph, node: tuple, places: Mapping[str, int]) -> str:
    if node[0] == "input":
        return f"v[{places[node[1]]}]"
    names = [_name(graph, place) for place in arguments_of(node)]
    if node[0] == "power" and names[1] in ("2.0", "0.5"):  # as NumPy has them
        return f"{names[0]} * {names[0]}" if names[1] == "2.0" else f"Math.sqrt({names[0]})"
    return _WRITTEN[node[0]].format(*names)


def _name(graph: Graph, place: int) -> str:
    node = graph.nodes[place]
    return f"t{place}" if node[0] != "number" else _number(node[1])


def _number(value: float) -> str:
    if np.isfinite(value):
        return repr(value) if value >= 0 and not np.signbit(value) else f"({value!r})"
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "(-Infinity)"
