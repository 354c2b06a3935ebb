"""The one registry of decorated functions: laws, repetitions, architectures, and the policies of the simulator.

A new member is one decorated function: in the package, in a file of one's own (`plugins=[mine.py]`), or in a notebook.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from moesim.errors import InputError
from moesim.settings import by_annotation, known

_REQUIRED = inspect.Parameter.empty


class Member(Protocol):
    """Anything with a name that was made from a function."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...


M = TypeVar("M", bound=Member)


class Registry(dict[str, M]):
    """The members of one kind (law, repetition, routing ...) by name."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def add(self, member: M) -> M:
        """Keep a member under its name; InputError if a function of another module has that name already."""
        there = self.get(member.name)
        if there is not None and there.function.__module__ != member.function.__module__:
            raise InputError(
                f"{self.kind} {member.name}: {there.function.__module__} has that name already; choose another"
            )
        self[member.name] = member
        return member

    def find(self, choice: Any, owner: str | None = None, noun: str = "form") -> M:
        """The member of that name, or that was made from that function; InputError that says what there is."""
        found = self.get(choice) if isinstance(choice, str) else self.of(choice)
        if found is None:
            raise InputError(f"{owner or self.kind}: no {noun} {choice!r}; {known(self, choice)}")
        return found

    def of(self, function: Any) -> M | None:
        """The member made from a function, if it is registered."""
        return next((member for member in self.values() if member.function is function), None)


@dataclass(frozen=True)
class Policy:
    """A function of the simulator with its `options` (keyword-only arguments) chosen and its declared `traits`."""

    kind: str
    name: str
    function: Callable[..., Any]
    traits: Mapping[str, bool] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments, **self.options)

    @property
    def takes(self) -> dict[str, Any]:
        """The options that the function takes, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def with_options(self, options: Mapping[str, Any], shared: Mapping[str, Any]) -> Policy:
        """The policy with these options; InputError for an unknown one (`shared` keys are known too) or a missing."""
        takes, owner = self.takes, f"{self.kind} {self.name}"
        for key in options:
            if key not in takes:
                raise InputError(f"{owner}: unknown option {key!r}; {known([*takes, *shared], key)}")
        missing = [key for key, default in takes.items() if default is _REQUIRED and key not in options]
        if missing:
            raise InputError(f"{owner}: no value for option {missing[0]!r}; give {missing[0]}=VALUE")
        annotations = {p.name: p.annotation for p in inspect.signature(self.function).parameters.values()}
        return replace(self, options=by_annotation(owner, annotations, options))


class Policies(Registry[Policy]):
    """The alternatives behind one piece of the simulator; use it as a decorator, bare or with traits.

    `shared`: keys that every policy of the kind takes, with their defaults. `traits` that a member may declare, with
    what holds for one that declares nothing.
    """

    def __init__(self, kind: str, shared: Mapping[str, Any] | None = None, **traits: bool):
        super().__init__(kind)
        self.shared, self.traits = dict(shared or {}), traits

    def __call__(self, function: Callable[..., Any] | None = None, /, **traits: bool) -> Any:
        """Register a function under its name (without a trailing underscore) and return it unchanged."""
        if function is None:
            return lambda decorated: self(decorated, **traits)
        self.add(self._policy(function, traits))
        return function

    def _policy(self, function: Callable[..., Any], traits: Mapping[str, bool]) -> Policy:
        for trait in traits:
            if trait not in self.traits:
                raise InputError(f"{self.kind} {function.__name__}: no trait {trait!r}; {known(self.traits, trait)}")
        return Policy(self.kind, function.__name__.rstrip("_"), function, {**self.traits, **traits})

    def build(self, config: Any) -> tuple[Policy, dict[str, Any]]:
        """The policy of a config with its options bound, and the values of the keys that all of the kind share.

        A config is a name, a function (registered or not), or a mapping with either as `policy` and options. Raises
        InputError for an unknown policy or option and for a missing one.
        """
        settings = dict(config) if isinstance(config, Mapping) else {"policy": config}
        choice = settings.pop("policy", None)
        unregistered = callable(choice) and self.of(choice) is None
        policy = self._policy(choice, {}) if unregistered else self.find(choice, noun="policy")
        own = {key: value for key, value in settings.items() if key not in self.shared}
        shared = {key: settings.get(key, default) for key, default in self.shared.items()}
        return policy.with_options(own, self.shared), shared

    def only(self, config: Any) -> Policy:
        """The policy of a config, for kinds that share no keys."""
        return self.build(config)[0]
