"""A formula as data: run once on values that remember what is done to them, it gives a graph of operations.

>>> graph = Graph()
>>> N, A = graph.input("N"), graph.input("A")
>>> graph.outputs["loss"] = A * N**-0.3
>>> evaluated(read(graph.data()), {"N": 1e9, "A": 400.0})["loss"]

Only the operations of OPERATIONS can stand in a graph: one that was read from a file can compute numbers, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from moesim.errors import InputError
from moesim.numerics.derivative import PARTIALS

_PLAIN = (
    np.negative, np.absolute, np.sign, np.add, np.subtract, np.multiply, np.divide, np.power, np.square, np.sqrt,
    np.reciprocal, np.cbrt, np.exp, np.exp2, np.expm1, np.log, np.log1p, np.log2, np.log10, np.tanh, np.sin, np.cos,
    np.arctan, np.logaddexp, np.minimum, np.maximum, np.less, np.less_equal, np.greater, np.greater_equal, np.equal,
    np.not_equal, np.logical_and, np.logical_or, np.logical_not, np.isfinite, np.isinf, np.isnan, np.floor, np.ceil,
)  # fmt: skip
# Name -> what it does to numbers.
OPERATIONS: dict[str, Any] = {ufunc.__name__: ufunc for ufunc in _PLAIN} | {"where": np.where}
_ARITY = {name: 3 if name == "where" else f.nin for name, f in OPERATIONS.items()}
_LIKE = {np.float_power: np.power, np.bitwise_and: np.logical_and, np.bitwise_or: np.logical_or}
_LIKE |= {np.invert: np.logical_not, np.fabs: np.absolute}
_FLAT = {"sign", "floor", "ceil", "isfinite", "isinf", "isnan", "logical_and", "logical_or", "logical_not"}
_FLAT |= {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_MOST = 20_000  # operations of a formula

# What a formula may not do -> how an error says it.
_BRANCH = "branches on a value: write np.where(condition, a, b) instead of if, and & instead of and"
_NUMBER = "needs a value as a plain number (math, float(), an array): use functions of NumPy"


class Untraceable(InputError):
    """A formula does what a graph cannot hold."""


class Graph:
    """Operations in order: each node is ("input", name), ("number", value) or (operation, places of its arguments)."""

    def __init__(self) -> None:
        self.nodes: list[tuple] = []
        self.outputs: dict[str, Traced] = {}
        self._places: dict[tuple, int] = {}

    def input(self, name: str) -> Traced:
        """The value that goes by this name."""
        return self.node("input", name)

    def node(self, *node: Any) -> Traced:
        """The value of a node, which is kept once however often it is asked for."""
        key = (node[0], repr(node[1])) if node[0] == "number" else node
        if key not in self._places:
            self._places[key] = len(self.nodes)
            self.nodes.append(node)
        return Traced(self, self._places[key])

    def apply(self, name: str, *arguments: Any) -> Traced:
        """An operation on values and numbers."""
        return self.node(name, *(self.of(argument).place for argument in arguments))

    def of(self, value: Any) -> Traced:
        """A value of this graph from one, or from a number; Untraceable for anything else."""
        if isinstance(value, Traced):
            return value
        if np.ndim(value) or not isinstance(np.asarray(value).item(), bool | int | float):
            raise Untraceable(f"takes {type(value).__name__} of shape {np.shape(value)} into its formula, not a number")
        return self.node("number", float(value))

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs, in the order in which they were asked for."""
        return [node[1] for node in self.nodes if node[0] == "input"]

    def data(self) -> dict[str, Any]:
        """The graph as plain data, without what no output needs."""
        needed = needed_for(self, self.outputs.values())
        places = {old: new for new, old in enumerate(needed)}
        nodes = [_moved(self.nodes[old], places) for old in needed]
        return {"nodes": nodes, "outputs": {name: places[value.place] for name, value in self.outputs.items()}}


class Traced(NDArrayOperatorsMixin):
    """A value of a formula, by its place in the graph; functions of NumPy on it add nodes."""

    __slots__ = ("graph", "place")
    __array_priority__ = 2000

    def __init__(self, graph: Graph, place: int):
        self.graph, self.place = graph, place

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *arguments: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise Untraceable(f"uses numpy.{ufunc.__name__}.{method} with {', '.join(options) or 'no options'}")
        if ufunc is np.positive:
            return self
        alike = _LIKE.get(ufunc, ufunc)
        if OPERATIONS.get(alike.__name__) is not alike:
            raise Untraceable(f"uses {ufunc.__name__}, which a page cannot compute; it takes {', '.join(OPERATIONS)}")
        return self.graph.apply(alike.__name__, *arguments)

    def __array_function__(self, func: Any, types: Any, arguments: tuple, options: dict) -> Any:
        if func is np.where and len(arguments) == 3:
            condition, a, b = arguments
            if not isinstance(condition, Traced):
                return a if condition else b
            return self.graph.apply("where", condition, a, b)
        if func is np.clip and len(arguments) == 3 and not options:
            value, low, high = arguments
            return np.minimum(np.maximum(value, low), high)
        raise Untraceable(f"uses numpy.{func.__name__}, which a page cannot compute; it takes {', '.join(OPERATIONS)}")

    def __bool__(self) -> bool:
        raise Untraceable(_BRANCH)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise Untraceable(_NUMBER)

    def __float__(self) -> float:
        raise Untraceable(_NUMBER)

    __int__ = __index__ = __complex__ = __round__ = __float__  # type: ignore[assignment]

    def __iter__(self) -> Any:
        raise Untraceable(_NUMBER)

    def __hash__(self) -> int:
        return hash(self.place)


def needed_for(graph: Graph, values: Any) -> list[int]:
    """The places of all nodes that these values rest on, ascending."""
    wanted = {value.place for value in values}
    for place in range(len(graph.nodes) - 1, -1, -1):
        if place in wanted:
            wanted.update(arguments_of(graph.nodes[place]))
    return sorted(wanted)


def arguments_of(node: tuple) -> tuple[int, ...]:
    """The places of a node's arguments."""
    return () if node[0] in ("input", "number") else node[1:]


def _moved(node: tuple, places: Mapping[int, int]) -> list[Any]:
    return [node[0], *(places[place] for place in node[1:])] if arguments_of(node) else list(node)


def read(data: Any) -> Graph:
    """The graph of plain data, checked; InputError for an operation or shape that no graph has."""
    graph = Graph()
    nodes = data.get("nodes") if isinstance(data, Mapping) else None
    outputs = data.get("outputs") if isinstance(data, Mapping) else None
    if not isinstance(nodes, list) or not isinstance(outputs, Mapping) or len(nodes) > _MOST:
        raise InputError(f"formula: not nodes and outputs, of at most {_MOST} operations")
    for place, node in enumerate(nodes):
        _check(node, place)
        graph.nodes.append(tuple(node[:1]) + (float(node[1]),) if node[0] == "number" else tuple(node))
        graph._places[("number", repr(graph.nodes[-1][1])) if node[0] == "number" else tuple(node)] = place
    for name, place in outputs.items():
        if not (isinstance(name, str) and _NAME.fullmatch(name) and _is_place(place, len(nodes))):
            raise InputError(f"formula: output {name!r}: {place!r} is not the place of a node")
        graph.outputs[name] = Traced(graph, place)
    return graph


def _is_place(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _check(node: Any, place: int) -> None:
    """InputError unless a node is one of the three kinds and rests on nodes before it."""
    kind = node[0] if isinstance(node, list) and node else None
    good = False
    if kind == "input":
        good = len(node) == 2 and isinstance(node[1], str) and bool(_NAME.fullmatch(node[1]))
    elif kind == "number":
        good = len(node) == 2 and isinstance(node[1], int | float)
    elif isinstance(kind, str) and kind in OPERATIONS:
        good = len(node) == 1 + _ARITY[kind] and all(_is_place(one, place) for one in node[1:])
    if not good:
        raise InputError(f"formula: node {place}: {str(node)[:80]!r} is none that a formula has")


def evaluated(graph: Graph, values: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs at values of the inputs: numbers or arrays that broadcast."""
    found: list[Any] = []
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node[0] in ("input", "number"):
                found.append(values[node[1]] if node[0] == "input" else node[1])
            else:
                found.append(OPERATIONS[node[0]](*(np.asarray(found[place], float) for place in node[1:])))
    return {name: found[value.place] for name, value in graph.outputs.items()}


def derivative(output: Traced, direction: str) -> Traced:
    """The partial derivative of a value in an input, as a value of the same graph."""
    graph = output.graph
    slopes: dict[int, Any] = {}
    for place in needed_for(graph, [output]):
        node = graph.nodes[place]
        if node == ("input", direction):
            slopes[place] = 1.0
        elif moving := [i for i, argument in enumerate(arguments_of(node)) if argument in slopes]:
            slope = _slope(Traced(graph, place), node, slopes, moving)
            if slope is not None:
                slopes[place] = slope
    return graph.of(slopes.get(output.place, 0.0))


def _slope(out: Traced, node: tuple, slopes: Mapping[int, Any], moving: Sequence[int]) -> Any:
    graph, arguments = out.graph, [Traced(out.graph, place) for place in node[1:]]
    if node[0] in _FLAT:
        return None
    if node[0] == "where":
        return graph.apply("where", arguments[0], *(slopes.get(place, 0.0) for place in node[2:]))
    partials = _OWN.get(node[0]) or PARTIALS[OPERATIONS[node[0]]]
    total = None
    for i in moving:
        term = _times(partials[i](out, *arguments), slopes[node[1 + i]])
        total = term if total is None else total + term
    return total


def _times(a: Any, b: Any) -> Any:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, float) and one == 1.0:
            return other
    return a * b


def _power_by_base(out: Traced, x: Traced, y: Traced) -> Any:
    """As numerics.derivative's: y x^(y-1), and 0 where x = 0 unless y = 1."""
    return np.where(x == 0.0, np.where(y == 1.0, 1.0, 0.0), out * y / np.where(x == 0.0, 1.0, x))


# Where the rules of numerics.derivative look at plain arrays.
_OWN = {
    "power": (_power_by_base, lambda out, x, y: out * np.log(np.where(x > 0.0, x, 1.0))),
    "absolute": (lambda out, x: np.sign(x),),
    "minimum": (lambda out, x, y: np.where(x < y, 1.0, 0.0), lambda out, x, y: np.where(x < y, 0.0, 1.0)),
    "maximum": (lambda out, x, y: np.where(y < x, 1.0, 0.0), lambda out, x, y: np.where(y < x, 0.0, 1.0)),
}
