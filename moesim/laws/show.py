"""`moesim laws`: the catalogue of laws and repetitions, and one of them whole."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from moesim.config import choices, read
from moesim.errors import InputError
from moesim.forms import Form
from moesim.laws.law import FORMS
from moesim.laws.repetition import REPETITIONS
from moesim.output.text import plain
from moesim.variables import VARIABLES

_GROUPS: dict[str, Mapping[str, Form]] = {"law": FORMS, "repetition": REPETITIONS}


def catalogue() -> str:
    """Every law and repetition: name, inputs, data range and source, one line each."""
    return "\n\n".join(_group(group, forms) for group, forms in _GROUPS.items())


def page(name: str) -> str:
    """One law or repetition whole: its formula, source, definitions, coefficients, data range and caveats.

    A name that both groups have gives both. Raises InputError for an unknown name.
    """
    found = [group for group in _GROUPS if name in choices(group) or name.endswith((".yaml", ".yml"))]
    if not found:
        raise InputError(f"no law or repetition {name!r}; there are {', '.join(_all())}")
    return "\n\n".join(_page(group, name, read(group, name)) for group in found if _fits(group, name))


def _fits(group: str, name: str) -> bool:
    return read(group, name).get("form") in _GROUPS[group]


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
