"""Places where a model is trained: what their devices and links do, when they are there, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from moesim import config as files
from moesim.errors import InputError
from moesim.settings import number, read, setting, whole
from moesim.sites.presence import Presence, availability
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, check

_ABOUT = ("description", "source", "groups")
# Keys of a site that its chip fills in -> the key of the chip.
_OF_CHIP = {"flops": "flops", "memory": "memory", "price": "price", "watts": "watts_busy", "idle_watts": "watts_idle"}


def _prices(owner: str, name: str, value: Any) -> tuple[float, ...]:
    """$ an hour: one number, or a list of hourly ones (a day of 24, or longer) that begins anew at its end."""
    return tuple(np.atleast_1d(check(owner, name, value, NON_NEGATIVE)).tolist())


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
    failures_per_hour: float = setting(0.0, number(NON_NEGATIVE))  # of one device that is up
    price: Any = field(default=(0.0,), metadata={"takes": _prices})  # $ a device-hour that is up
    depreciation: float = setting(0.0, number(NON_NEGATIVE))  # $ a device-hour, up or not
    watts: float = setting(0.0, number(NON_NEGATIVE))  # of a device at work
    idle_watts: float = setting(0.0, number(NON_NEGATIVE))  # up and waiting
    sending_watts: float | None = setting(None, number(NON_NEGATIVE))  # up and sending; null: idle_watts
    down_watts: float = setting(0.0, number(NON_NEGATIVE))  # not up
    tariff: float = setting(0.0, number(NON_NEGATIVE))  # $/kWh

    @property
    def simulated(self) -> int:
        """How many simulated sites there are."""
        return max(1, round(self.sites / self.weight))

    @property
    def presence(self) -> Presence:
        """When the sites are up."""
        return availability.only(self.availability)()

    @property
    def sending(self) -> float:
        """Watts of a device whose site sends."""
        return self.idle_watts if self.sending_watts is None else self.sending_watts

    def mean_price(self, start: float, hours: float) -> float:
        """$ a device-hour, on average over `hours` from the hour `start` of the run."""
        return (_paid(self.price, start + hours) - _paid(self.price, start)) / hours


def _paid(prices: tuple[float, ...], hour: float) -> float:
    """$ of a device up to that hour."""
    whole_hours = int(hour)
    laps, rest = divmod(whole_hours, len(prices))
    return laps * sum(prices) + sum(prices[:rest]) + (hour - whole_hours) * prices[rest]


def everywhere(config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The config of a site with these keys changed, in groups that have their own too."""
    groups = config.get("groups")
    if not isinstance(groups, Mapping) or not all(isinstance(own or {}, Mapping) for own in groups.values()):
        return {**config, **changes}
    kept = {name: {key: v for key, v in (own or {}).items() if key not in changes} for name, own in groups.items()}
    return {**config, "groups": kept, **changes}  # among them other groups


def groups_of(config: Mapping[str, Any]) -> dict[str, Site]:
    """Name -> equal sites, from a mapping of the keys of Site with, where sites differ, `groups` of other values.

    `chip`: the name of a file in conf/chip, whose peak, memory, price and watts hold unless the site has its own.
    Raises InputError for an unknown or missing key, a value out of its domain, and where there are no groups.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"site: {config!r}; it takes the name of a file in conf/site, a path, or a mapping")
    common = {key: value for key, value in config.items() if key not in _ABOUT}
    own = config.get("groups") or {"all": {}}
    if not isinstance(own, Mapping) or not all(isinstance(changes or {}, Mapping) for changes in own.values()):
        raise InputError(f"site: groups={own!r}; it takes {{NAME: {{KEY: VALUE}}}}")
    return {str(name): _site({**common, **(changes or {})}) for name, changes in own.items()}


def _site(config: Mapping[str, Any]) -> Site:
    given = dict(config)
    chip = given.pop("chip", None)
    filled = {} if chip is None else files.read("chip", chip)
    return read(Site, "site", {**{key: filled[name] for key, name in _OF_CHIP.items() if name in filled}, **given})


def canonical(groups: Mapping[str, Site]) -> dict[str, Site]:
    """The groups in an order that does not depend on their names or on the order in which they are given."""
    return dict(sorted(groups.items(), key=lambda item: repr(item[1])))


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


def generators(groups: Mapping[str, Site], seed: int, purpose: int) -> list[np.random.Generator]:
    """The draws of each group for a purpose, whatever its name and whatever other groups there are.

    Groups whose sites come and go by the same laws have draws of their own, in the order of `groups`.
    """
    kinds = [repr((group.availability, group.simulated)) for group in groups.values()]
    return [
        np.random.default_rng([seed, crc32(kind.encode()), kinds[:i].count(kind), purpose])
        for i, kind in enumerate(kinds)
    ]


def speeds(groups: Mapping[str, Site], seed: int) -> np.ndarray:
    """Speed of each simulated site over that of its group's mean: lognormal of mean 1."""
    return np.concatenate(
        [
            np.exp(rng.normal(-(group.spread**2) / 2, group.spread, group.simulated))
            for rng, group in zip(generators(groups, seed, 0), groups.values(), strict=True)
        ]
    )
