"""`moesim laws`: the catalogue of laws and repetitions, and one of them whole."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from moesim.config import SUFFIXES, choices, read
from moesim.errors import InputError
from moesim.forms import Form
from moesim.laws.law import FORMS
from moesim.laws.load import law_from, repetition_from
from moesim.laws.repetition import REPETITIONS
from moesim.output.text import plain
from moesim.registry import known
from moesim.variables import VARIABLES

_GROUPS: dict[str, Mapping[str, Form]] = {"law": FORMS, "repetition": REPETITIONS}
_FROM = {"law": law_from, "repetition": repetition_from}


def catalogue() -> str:
    """Every law and repetition: name, inputs, data range and source, one line each."""
    return "\n\n".join(_group(group, forms) for group, forms in _GROUPS.items())


def page(name: str) -> str:
    """One law or repetition whole: its formula, source, definitions, coefficients, data range and caveats.

    A name that both groups have gives both. Raises InputError for an unknown name and for what a file may not hold.
    """
    if name.endswith(SUFFIXES):
        return _page_of_file(name)
    found = [group for group in _GROUPS if name in choices(group)]
    if not found:
        raise InputError(f"no law or repetition {name!r}; {known(_all(), name)}, or the path of a .yaml file")
    return "\n\n".join(_page(group, name, read(group, name)) for group in found)


def _page_of_file(name: str) -> str:
    """The page of a file of one's own, checked as it is when a verb takes it; values still to come are left out."""
    content = read("law", name)
    form = content.get("form")
    found = [group for group, forms in _GROUPS.items() if isinstance(form, str) and form in forms]
    for group in found or ["law"]:
        values = content.get("coefficients")
        given = {n: 1.0 if v is None else v for n, v in values.items()} if isinstance(values, Mapping) else values
        _FROM[group](name, {**content, "coefficients": given})
    return "\n\n".join(_page(group, name, content) for group in found)


def _all() -> list[str]:
    return sorted({name for group in _GROUPS for name in choices(group)})


def _group(group: str, forms: Mapping[str, Form]) -> str:
    rows = [(name, read(group, name)) for name in choices(group)]
    wide = max(len(name) for name, _ in rows)
    lines = [
        f"{name:<{wide}}  {_inputs(forms[content['form']])}\n{'':<{wide}}  {_origin(content)}" for name, content in rows
    ]
    return f"{group}=NAME  (inputs; source; data range)\n" + "\n".join(lines)


def _inputs(form: Form) -> str:
    return ", ".join(form.inputs)


def _origin(content: Mapping[str, Any]) -> str:
    ranges = "; ".join(f"{name} {_range(bounds)}" for name, bounds in (content.get("data_range") or {}).items())
    return content.get("source", "") + (f" | {ranges}" if ranges else "")


def _range(bounds: Any) -> str:
    low, high = map(plain, bounds)
    return low if low == high else f"{low} to {high}"


def _page(group: str, name: str, content: Mapping[str, Any]) -> str:
    form = _GROUPS[group][content["form"]]
    body = {
        "form": f"{form.name}({_inputs(form)}): {form.source}",
        "": inspect.getdoc(form.function) or "",
        "source": content.get("source", ""),
        "marking": content.get("marking", ""),
        "coefficients": [
            f"{n} = {v}  [{form.coefficients[n].unit}]" for n, v in (content.get("coefficients") or {}).items()
        ],
        "excess": content.get("excess", ""),
        "taught": str(content.get("taught", "")),
        "definitions": [f"{n}: {text}" for n, text in (content.get("definitions") or {}).items()],
        "data range": [
            f"{n}: {_range(bounds)} {VARIABLES[n].unit}" for n, bounds in (content.get("data_range") or {}).items()
        ],
        "caveats": content.get("caveats") or [],
    }
    return f"{group}={name}\n" + "\n".join(_section(title, text) for title, text in body.items() if text)


def _section(title: str, text: str | list[str]) -> str:
    lines = text.splitlines() if isinstance(text, str) else text
    if title and isinstance(text, str):
        return f"  {title}: {text}"
    return "\n".join([f"  {title}:"] * bool(title) + [f"    {line}".rstrip() for line in lines])
