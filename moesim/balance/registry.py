"""A registry of alternatives: a new policy is one decorated function and one YAML that names it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from moesim.errors import InputError

_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Registry:
    """The alternatives behind one piece of the pipeline, by name; their options are keyword-only arguments."""

    group: str
    members: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register a function under its own name (without a trailing underscore) and return it unchanged."""
        self.members[function.__name__.rstrip("_")] = function
        return function

    def options(self, name: str) -> dict[str, Any]:
        """Keyword-only arguments of a member and their defaults."""
        parameters = inspect.signature(self.members[name]).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def build(self, config: Mapping[str, Any] | str) -> Callable[..., Any]:
        """The member named by `config["policy"]` with the other keys bound as its options.

        Raises InputError for an unknown policy, an unknown option or a missing one.
        """
        settings = {"policy": config} if isinstance(config, str) else dict(config)
        name = settings.pop("policy", None)
        if name not in self.members:
            raise InputError(f"{self.group}: no policy {name!r}; it takes {', '.join(sorted(self.members))}")
        options = self.options(name)
        for key in settings:
            if key not in options:
                raise InputError(
                    f"{self.group} {name}: unknown option {key!r}; it takes {', '.join(options) or 'none'}"
                )
        missing = [key for key, default in options.items() if default is _REQUIRED and key not in settings]
        if missing:
            raise InputError(f"{self.group} {name}: no value for option {missing[0]!r}; give {missing[0]}=VALUE")
        return partial(self.members[name], **settings)


def split_keys(config: Mapping[str, Any], common: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys shared by every policy of a group (with their defaults) and the policy's own keys."""
    shared = {key: config.get(key, default) for key, default in common.items()}
    return shared, {key: value for key, value in config.items() if key not in common}
