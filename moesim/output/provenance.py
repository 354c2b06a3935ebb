"""What a Dataset tells of itself: who made it, with which law, from which config; the same from every door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import __version__
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

_AT_MOST = 4096  # values of an axis that a config spells out


def signed(dataset: xr.Dataset, verb: str, config: Mapping[str, Any], **parts: Any) -> xr.Dataset:
    """The Dataset with units and long names, and as attributes its verb, the version of moesim, the config as YAML.

    `parts`: what it rests on (law=Law, repetition=..., world="zipf"); an object gives `law` (its name) and
    `law_source`, a text itself. Every public function that returns a Dataset ends with this; files that a verb
    writes carry the same.
    """
    told = {"verb": verb, "moesim_version": __version__, "config": as_yaml(config)}
    for name, part in parts.items():
        told |= {name: part} if isinstance(part, str) else {name: part.name, f"{name}_source": part.source}
    return stamp(dataset.assign_attrs({name: text for name, text in told.items() if text}))


def as_yaml(config: Mapping[str, Any]) -> str:
    """A config as the YAML text that Datasets carry: numbers, texts, lists and mappings of them."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(_spelled(config), Dumper=dumper, sort_keys=False, allow_unicode=True)


def plain(text: str) -> dict[str, Any]:
    """The config that a result carries; ValueError if it is more or less than plain keys and values."""
    import yaml
    from omegaconf import OmegaConf

    more = (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)
    if "${" in text or any(isinstance(token, more) for token in yaml.scan(text)):
        raise ValueError("config is not plain YAML")
    if not isinstance(yaml.safe_load(text), dict):
        raise ValueError("config is not a mapping")
    content: Any = OmegaConf.to_container(OmegaConf.create(text))
    return content


def _spelled(value: Any) -> Any:
    """The value in words of YAML; what has no spelling there (an object, an array of many values) by its kind."""
    if isinstance(value, Mapping):
        return {str(name): _spelled(inner) for name, inner in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str | bool | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [_spelled(inner) for inner in value]
    try:
        values = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return f"{type(value).__name__} {getattr(value, 'name', getattr(value, '__name__', ''))}".rstrip()
    few = values.ndim < 2 and values.size <= _AT_MOST
    return values.tolist() if few else f"array of {' x '.join(map(str, values.shape))} values"
