"""Settings as dataclasses: the default of a key, and what it takes, stand once, at its field.

    @dataclass(frozen=True)
    class Schedule:
        microbatches: float = setting(8.0, number(POSITIVE))

`read` makes one from a config mapping and refuses unknown keys and bad values by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

import numpy as np

from moesim.errors import InputError, nearest
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, REAL, SHARE, Domain, check

T = TypeVar("T")


def known(names: Iterable[Any], name: Any) -> str:
    """What an error says of the names there are: "it takes a, b, c; did you mean a?"."""
    listed = sorted(map(str, names))
    return f"it takes {', '.join(listed) or 'none'}{nearest(name, listed)}"


Takes = Callable[[str, str, Any], Any]


def setting(default: Any = MISSING, takes: Takes | None = None) -> Any:
    """A field with its default (none: the key must be given) and what it takes; None is taken where it is default."""
    return field(default=default, metadata={"takes": takes})


def number(domain: Domain = REAL) -> Takes:
    """One number within a domain."""

    def take(owner: str, name: str, value: Any) -> float:
        if np.ndim(value):
            raise InputError(f"{owner}: {name}={value!r} is not one number; it takes {domain.text}")
        return check(owner, name, value, domain)

    return take


def whole(least: int = 1) -> Takes:
    """A whole number of `least` or more."""

    def take(owner: str, name: str, value: Any) -> int:
        good = not isinstance(value, bool) and isinstance(value, int | float | np.number)
        if not good or not np.isfinite(value) or value != int(value) or value < least:
            raise InputError(f"{owner}: {name}={value!r}; it takes a whole number of {least} or more")
        return int(value)

    return take


def truth(owner: str, name: str, value: Any) -> bool:
    """True or false, nothing that merely looks like one."""
    if not isinstance(value, bool):
        raise InputError(f"{owner}: {name}={value!r}; it takes true or false")
    return value


def numbers(domain: Domain) -> Takes:
    """A list of numbers within a domain."""

    def take(owner: str, name: str, value: Any) -> tuple[float, ...]:
        if not isinstance(value, list | tuple | np.ndarray):
            raise InputError(f"{owner}: {name}={value!r}; it takes a list, each of {domain.text}")
        return tuple(check(owner, name, one, domain) for one in value)

    return take


def one_of(*names: str) -> Takes:
    """One of some words."""

    def take(owner: str, name: str, value: Any) -> str:
        if value not in names:
            raise InputError(f"{owner}: {name}={value!r}; it takes {' or '.join(names)}")
        return value

    return take


def defaults(cls: type) -> dict[str, Any]:
    """The keys that have a default, and the default."""
    return {f.name: f.default for f in fields(cls) if f.default is not MISSING}


def read(cls: type[T], owner: str, config: Mapping[str, Any]) -> T:
    """An object of a dataclass of settings; InputError for an unknown or missing key and for a bad value."""
    if not isinstance(config, Mapping):
        raise InputError(f"{owner}: {config!r}; it takes a mapping of {', '.join(f.name for f in fields(cls))}")
    rows = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in config:
        if key not in rows:
            raise InputError(f"{owner}: unknown key {key!r}; {known(rows, key)}")
    values = {}
    for key, row in rows.items():
        if key not in config and row.default is MISSING:
            raise InputError(f"{owner}: no value for {key!r}; give {owner}.{key}=VALUE")
        value, takes = config.get(key, row.default), row.metadata.get("takes")
        optional = value is None and row.default is None
        values[key] = value if takes is None or optional else takes(owner, key, value)
    return cls(**values)


_ANY = Domain("a number", lower_open=False, upper_open=False)
# Types of the options of a policy that say what they take: a float in a domain, a whole number of 1 or more.
Positive = NonNegative = Share = Fraction = float
Count = int
_ANNOTATED: Mapping[str, Takes] = {
    "int": whole(0),
    "Count": whole(),
    "float": number(_ANY),
    "Positive": number(POSITIVE),
    "NonNegative": number(NON_NEGATIVE),
    "Share": number(SHARE),
    "Fraction": number(FRACTION),
    "bool": truth,
}


def by_annotation(owner: str, annotations: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values whose argument is annotated with a type named above, checked to be that; the others as they are."""
    out = dict(values)
    for name, value in values.items():
        said = annotations.get(name, "")
        kind, _, other = str(getattr(said, "__name__", said)).partition(" | ")
        if kind in _ANNOTATED and not (other == "None" and value is None):
            out[name] = _ANNOTATED[kind](owner, name, value)
    return out
