"""A model as data: its loss and its quantities as a graph of operations, with all that a page needs to solve it.

The Python functions are run once on values that remember (numerics.trace); nothing of a law is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.laws.repetition import EXCESS
from moesim.numerics.trace import Graph, Untraceable

if TYPE_CHECKING:
    from moesim.planning.model import Model

SHOWN = ("active_params", "total_params", "flops_per_token", "experts", "tokens")
_PARTS = {"law": "coefficients", "repetition": "coefficients", "architecture": "fields"}
_MOST_DRAWS = 200
_KEYS = {"names", "values", "vary", "about", "known", "log_size", "power", "excess", "taught", "measured", "ends"}


def carried(model: Model, centre: Model | None = None) -> dict[str, str]:
    """The attribute `formula` of a result: what `formula` gives as JSON, or why it cannot be given."""
    try:
        held = {"refused": model.one_sided} if model.one_sided else formula(model, centre)
    except Untraceable as error:
        held = {"refused": str(error)}
    return {"formula": json.dumps(held)}


def formula(model: Model, centre: Model | None = None) -> dict[str, Any]:
    """A model as plain data.

    `graph` (numerics.trace) of log_size, compute, sparsity, unique_tokens, tokens, taught_params and every coefficient
    (`law.E`): for each excess that the repetition can count, `loss.EXCESS` and what it counts, `counted.EXCESS`;
    `once`, the law alone at given tokens and compute, of which the taught size is an optimum; and every quantity that
    is shown or that a data range names. `values` of the coefficients, with those that `vary` along a dim at their
    median, or as the `centre` has them; what is known about the parts; and what the solvers need. Untraceable names the
    law, repetition or architecture that cannot be written as such a graph.
    """
    names = [f"{part}.{name}" for part, name, _ in _named(model)]
    vary = {f"{part}.{name}": _varying(value) for part, name, value in _named(model) if np.ndim(value)}
    return {
        "graph": _graph(model, names).data(),
        "names": {part: getattr(model, part).name for part in _PARTS},
        "values": {f"{part}.{name}": float(np.median(value)) for part, name, value in _named(centre or model)},
        "vary": {name: held for name, held in vary.items() if held},
        "about": {f"{part}.{name}": _about(model, part, name) for part, name, _ in _named(model)},
        "known": {part: _known(getattr(model, part)) for part in _PARTS},
        **_to_solve(model),
    }


def _named(model: Model) -> list[tuple[str, str, Any]]:
    return [(part, name, v) for part, key in _PARTS.items() for name, v in getattr(getattr(model, part), key).items()]


def _graph(model: Model, names: list[str]) -> Graph:
    graph = Graph()
    given = ("log_size", "compute", "sparsity", "unique_tokens", "taught_params", "tokens")
    log_size, compute, sparsity, unique, taught, tokens = map(graph.input, given)
    cell = {"compute": compute, "sparsity": sparsity, "unique_tokens": unique, "taught_params": taught}
    cell |= {name: graph.input(name) for name in names}
    at = _traced("architecture", model, lambda: model.at(log_size, cell))
    law, form = model.law_coefficients(cell), model.law.form
    once = {**at, "tokens": tokens}
    found = {name: at[name] for name in _asked(model) if name in at}
    found["once"] = _traced("law", model, lambda: form.function(**{name: once[name] for name in form.inputs}, **law))
    for one in _each_excess(model):
        excess = one.repetition.excess
        found[f"counted.{excess}"] = one.repetition.counted(at)
        found[f"loss.{excess}"] = _traced("repetition", one, partial(one.loss, log_size, cell))
    for name, value in found.items():
        graph.outputs[name] = graph.of(value)
    return graph


def _asked(model: Model) -> list[str]:
    """The quantities that are shown or that a data range names."""
    ranges = [*model.law.data_range, *model.repetition.data_range]
    return [name for name in dict.fromkeys((*SHOWN, *ranges)) if name not in ("compute", "sparsity", "unique_tokens")]


def _each_excess(model: Model) -> Iterator[Model]:
    """The model with each excess that its repetition can count, its own first."""
    for excess in dict.fromkeys((model.repetition.excess, *EXCESS)):
        with suppress(InputError):
            yield model.counting(excess)


def _traced(part: str, model: Model, run: Any) -> Any:
    """What `run()` gives; whatever it cannot do with values that remember is told of the part by name."""
    name = getattr(model, part).name
    try:
        return run()
    except Untraceable as error:
        raise Untraceable(f"{part} {name}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise Untraceable(f"{part} {name}: cannot be written as a formula ({' '.join(str(error).split())})") from None


def _varying(value: Any) -> dict[str, Any] | None:
    """The dim and the values of a coefficient with one dim."""
    dims = [str(dim) for dim in getattr(value, "dims", ("values",))]
    if np.ndim(value) != 1:
        return None
    return {"dim": dims[0], "values": [float(v) for v in np.asarray(value)[:_MOST_DRAWS]]}


def _about(model: Model, part: str, name: str) -> dict[str, Any]:
    """Unit, domain and typical range of a coefficient."""
    held = getattr(model, part).form.coefficients[name]
    domain = held.domain
    return {"unit": held.unit, "typical": list(held.typical), "domain": [_bound(domain.lower), _bound(domain.upper)]}


def _bound(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _known(part: Any) -> dict[str, Any]:
    """What is known about a law, a repetition or an architecture, as texts and ranges."""
    texts = {name: str(getattr(part, name, "") or "") for name in ("source", "marking")}
    lists = {"caveats": [str(text) for text in getattr(part, "caveats", ())]}
    definitions = {str(n): str(text) for n, text in getattr(part, "definitions", {}).items()}
    ranges: Mapping[str, Any] = getattr(part, "data_range", {})
    return {
        **texts,
        **lists,
        "definitions": definitions,
        "data_range": {name: [float(low), float(high)] for name, (low, high) in ranges.items()},
    }


def _to_solve(model: Model) -> dict[str, Any]:
    repetition, grid = model.repetition, model.architecture.log_size
    return {
        "log_size": [float(grid[0]), float(grid[-1]), len(grid)],
        "power": model.architecture.power,
        "flops": model.architecture.flops,
        "excess": repetition.excess,
        "taught": repetition.taught,
        "measured": "taught_params" in repetition.form.inputs,
        "repeats": bool(repetition.form.coefficients),
        "ends": [f"repetition.{name}" for name in repetition.form.ends],
    }


def read(text: str) -> dict[str, Any]:
    """The data of the attribute `formula`, with its graph checked; InputError where it is not what moesim writes."""
    from moesim.numerics import trace

    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("formula: not readable as JSON") from None
    if not isinstance(held, dict) or not isinstance(held.get("refused", held.get("graph")), str | dict):
        raise InputError("formula: holds no graph")
    if "refused" in held:
        raise Untraceable(f"{held['refused']}; the page without what the law computes: live=false")
    graph = trace.read(held["graph"])
    if not set(held) >= _KEYS or not set(graph.outputs) >= {*SHOWN[:3], "once", f"loss.{held['excess']}"}:
        raise InputError("formula: holds less than a page needs; make the result again with this version")
    return {**held, "graph": graph}
