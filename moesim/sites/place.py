"""Places where a model is trained: what their devices and links do, when they are there, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from moesim.errors import InputError
from moesim.settings import number, read, setting, whole
from moesim.sites.presence import Presence, availability
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, check

_ABOUT = ("description", "source", "groups")


def _prices(owner: str, name: str, value: Any) -> Any:
    """$ an hour: one number, or a list of hourly ones that begins anew at its end."""
    return np.atleast_1d(check(owner, name, value, NON_NEGATIVE))


@dataclass(frozen=True)
class Site:
    """Equal sites: numbers of one device, and the link and the times of one site."""

    flops: float = setting(takes=number(POSITIVE))  # FLOP/s, peak
    memory: float = setting(takes=number(POSITIVE))  # byte
    up: float = setting(takes=number(POSITIVE))  # bit/s of the site's link
    down: float = setting(takes=number(POSITIVE))
    sites: int = setting(1, whole())
    devices: int = setting(1, whole())  # of a site
    mfu: float = setting(0.4, number(FRACTION))
    latency: float = setting(0.0, number(NON_NEGATIVE))  # s, there and back
    spread: float = setting(0.0, number(NON_NEGATIVE))  # sigma of the logarithm of speeds between sites, mean speed 1
    weight: int = setting(1, whole())  # sites that one simulated site stands for
    availability: Any = field(default="always")
    price: Any = field(default=0.0, metadata={"takes": _prices})  # $ a device-hour that is up
    depreciation: float = setting(0.0, number(NON_NEGATIVE))  # $ a device-hour, up or not
    watts: float = setting(0.0, number(NON_NEGATIVE))  # of a device at work
    idle_watts: float = setting(0.0, number(NON_NEGATIVE))  # up and not at work
    tariff: float = setting(0.0, number(NON_NEGATIVE))  # $/kWh

    @property
    def simulated(self) -> int:
        """How many simulated sites there are."""
        return max(1, round(self.sites / self.weight))

    @property
    def presence(self) -> Presence:
        """When the sites are up."""
        return availability.only(self.availability)()


def groups_of(config: Mapping[str, Any]) -> dict[str, Site]:
    """Name -> equal sites, from a mapping of the keys of Site with, where sites differ, `groups` of other values.

    Raises InputError for an unknown or missing key, a value out of its domain, and where there are no groups.
    """
    common = {key: value for key, value in config.items() if key not in _ABOUT}
    own = config.get("groups") or {"all": {}}
    if not isinstance(own, Mapping) or not all(isinstance(changes or {}, Mapping) for changes in own.values()):
        raise InputError(f"site: groups={own!r}; it takes {{NAME: {{KEY: VALUE}}}}")
    return {str(name): read(Site, "site", {**common, **(changes or {})}) for name, changes in own.items()}


def names_of(groups: Mapping[str, Site]) -> list[str]:
    """A label for each simulated site: its group, and its place in it where there are several."""
    return [
        f"{name} {i}" if group.simulated > 1 else name for name, group in groups.items() for i in range(group.simulated)
    ]


def column(groups: Mapping[str, Site], name: str) -> np.ndarray:
    """A number of the groups, for each simulated site."""
    return np.concatenate([np.full(group.simulated, float(getattr(group, name))) for group in groups.values()])


def weights(groups: Mapping[str, Site]) -> np.ndarray:
    """Sites that each simulated one stands for; together they are all sites."""
    return np.concatenate([np.full(group.simulated, group.sites / group.simulated) for group in groups.values()])


def generator(seed: int, name: str, purpose: int) -> np.random.Generator:
    """The draws of a group for a purpose, whatever other groups there are."""
    return np.random.default_rng([seed, crc32(name.encode()), purpose])


def speeds(groups: Mapping[str, Site], seed: int) -> np.ndarray:
    """Speed of each simulated site over that of its group's mean: lognormal of mean 1."""
    return np.concatenate(
        [
            np.exp(generator(seed, name, 0).normal(-(group.spread**2) / 2, group.spread, group.simulated))
            for name, group in groups.items()
        ]
    )
