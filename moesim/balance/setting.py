"""From a config to what stays the same during a run; every bad value is refused here, before the first step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from moesim.balance import branches, placement, routing, sampling, structure
from moesim.balance.placement import Placing
from moesim.balance.routing import Routing
from moesim.balance.sampling import Sampling
from moesim.balance.state import State, Streams
from moesim.balance.structure import Structure
from moesim.domains import learning
from moesim.domains import world as worlds
from moesim.domains.learning import Capacity
from moesim.domains.world import World
from moesim.errors import InputError
from moesim.hardware import step as clock
from moesim.hardware.step import Cluster, Machine
from moesim.settings import known, number, one_of, read, whole
from moesim.settings import setting as key
from moesim.variables import NON_NEGATIVE, POSITIVE, SHARE, Domain

_UP_TO_ONE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)

POLICIES = ("world", "routing", "structure", "sampling", "placement")
GROUPS = (*POLICIES, *clock.GROUPS)
AROUND = ("policies", "sweep", "workers")  # keys of what runs are made for, not of one run
OTHERS = ("figures", "choices", "experiment", "verb", "plugins")  # keys of a config that say nothing about the run


@dataclass(frozen=True)
class Run:
    """The keys of a run beside its groups, with their defaults.

    `seeds` run side by side on common random numbers, the first is `seed`. `tokens_per_step` (token). `experts` routed
    experts per layer at the start, `active_experts` of them for each token, `max_experts` the most that splits may make
    (None: as many as the cluster has slots). `twins`: so many neighbouring experts share score and noise of the router
    at the start. `shared_experts`: more of the same size, for every token; `shared_factor`: the part of each expert's
    weights that all have in common. `capacity`: parameters of one expert over all layers, or give expert.d_expert.
    `focus`: how an expert's parameters for a domain grow as it serves fewer (1: in proportion). `inertia`: tokens
    per active parameter over which an expert's capacity follows a change of its data (unmeasured: sweep). `forgetting`:
    share of a domain forgotten per token of another. `selective`: no weight updates for experts whose expected gain is
    below this part of the mean gain (0: off), where gradients of `gradient_noise` tokens are half noise. `precision`:
    double, or single for arrays by expert and domain (loads stay double; losses within 1e-6 nat/token of double over
    200 steps, 1e-4 where experts are split, by benchmarks/balance.py). `load_memory`: moving average of loads that
    placement sees. `learn_every`: steps between updates of router and losses; experience
    grows every step. `target_loss` (nat/token): reports tokens and time until it is reached. `policies`, `sweep`: side
    by side, and over worlds, which `workers` processes share.
    """

    steps: int = key(1000, whole())
    tokens_per_step: float = key(2.0**22, number(POSITIVE))
    seeds: int = key(4, whole())
    seed: int = key(0, whole(0))
    experts: int = key(16, whole())
    active_experts: int = key(1, whole())
    max_experts: int | None = key(None, whole())
    twins: int = key(1, whole())
    shared_experts: int = key(0, whole(0))
    shared_factor: float = key(0.0, number(SHARE))
    capacity: float | None = key(None, number(POSITIVE))
    focus: float = key(0.5, number(_UP_TO_ONE))
    inertia: float = key(0.25, number(POSITIVE))
    forgetting: float = key(0.0, number(SHARE))
    selective: float = key(0.0, number(NON_NEGATIVE))
    gradient_noise: float = key(1e5, number(NON_NEGATIVE))
    precision: str = key("double", one_of("double", "single"))
    load_memory: float = key(0.9, number(SHARE))
    learn_every: int = key(1, whole())
    record_every: int = key(10, whole())
    target_loss: float | None = key(None, number())
    policies: Any = None
    sweep: Any = None
    workers: int = key(1, whole())

    def __post_init__(self):
        if self.active_experts > self.experts:
            raise InputError(
                f"balance: active_experts={self.active_experts} is more than experts={self.experts}; give fewer"
            )
        if self.experts % self.twins:
            raise InputError(f"balance: twins={self.twins} do not divide experts={self.experts}; give a divisor")


@dataclass(frozen=True)
class Setting:
    """What stays the same during a run: the pieces, the sizes, the random streams."""

    world: World
    routing: Routing
    structure: Structure
    sampling: Sampling
    placing: Placing
    machine: Machine
    run: Run
    streams: Streams
    most_experts: int

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.run.steps

    @property
    def tokens(self) -> float:
        """Tokens of a step."""
        return self.run.tokens_per_step

    @property
    def active(self) -> int:
        """Experts of a token."""
        return self.run.active_experts

    @property
    def batch(self) -> int:
        """Tokens that are drawn one by one in a step, where they are."""
        return self.routing.batch or max(round(self.tokens), 1)

    @property
    def slots(self) -> int:
        """Expert copies that the cluster holds per layer."""
        return self.machine.cluster.slots

    @property
    def devices(self) -> int:
        """Devices of the expert-parallel group."""
        return self.machine.cluster.devices

    @property
    def nodes(self) -> int:
        """Nodes of the expert-parallel group."""
        return self.machine.cluster.nodes

    @property
    def capacity(self) -> Capacity:
        """Parameters that act on a token."""
        run = self.run
        size, active, shared = self.machine.expert.params, run.active_experts, run.shared_experts
        return Capacity(size, active, shared, run.shared_factor, run.focus, run.inertia, run.twins)

    @property
    def dtype(self) -> type:
        """Of arrays by domain and expert."""
        return np.float32 if self.run.precision == "single" else np.float64

    def effective(self, state: State) -> np.ndarray:
        """The effective number of domains (seed, 1), where the tokens so far were natural ones."""
        return learning.effective_number(self.world, self.capacity.total, state.common_learned.sum(axis=1))

    def abilities(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and effective tokens of every expert for every domain (seed, domain, expert)."""
        if state.tree is not None:
            place = state.tree.tree // self.run.twins
            return learning.abilities(
                self.world, self.capacity, state.known, self.effective(state), state.probability, place=place
            )
        family = state.bond if (state.bond != np.arange(state.bond.shape[1])).any() else None
        return learning.abilities(
            self.world, self.capacity, state.known, self.effective(state), state.probability, family
        )


def run_of(config: Mapping[str, Any]) -> Run:
    """The Run of a config; InputError for an unknown key, a missing group or a bad value."""
    keys = [field.name for field in fields(Run)]
    for name in config:
        if name not in keys and name not in GROUPS and name not in OTHERS:
            raise InputError(f"balance: unknown key {name!r}; {known([*GROUPS, *keys], name)}")
    for group in (*POLICIES, "chip"):
        if config.get(group) is None:
            raise InputError(f"balance: no settings for {group!r}; choose one, {group}=NAME")
    return read(Run, "balance", {name: config[name] for name in keys if name in config})


def setting(config: Mapping[str, Any], seeds: tuple[int, ...] | None = None) -> Setting:
    """The Setting of a config for a block of seeds (the first alone unless given); InputError for every bad value."""
    run, shape = run_of(config), structure.build(config["structure"])
    size = {} if run.capacity is None else {"expert": _sized(config.get("expert") or {}, run.capacity)}
    machine = clock.build({**config, **size}, run.tokens_per_step)
    seeds = (run.seed,) if seeds is None else seeds
    most = _most_experts(run, machine.cluster, shape.grows)
    sampler, router = sampling.build(config["sampling"]), routing.build(config["routing"])
    branches.rule_of(router)
    world = worlds.build(config["world"], seeds, run.tokens_per_step * run.steps)
    sampling.check_reach(sampler, world.unique, run.tokens_per_step * run.steps)
    _check_memory(run, world.domains, most, machine.cluster)
    placing = placement.build(config["placement"])
    return Setting(world, router, shape, sampler, placing, machine, run, Streams.of(seeds), most)


def _sized(expert: Mapping[str, Any], capacity: float) -> dict[str, Any]:
    if expert.get("capacity") is not None:
        raise InputError(
            f"balance: capacity={capacity:g} and expert.capacity={expert['capacity']} are one thing; give one of them"
        )
    return {**expert, "capacity": capacity}


def _most_experts(run: Run, cluster: Cluster, grows: bool) -> int:
    if cluster.slots < run.experts:
        raise InputError(
            f"balance: {cluster.slots} slots (devices x slots_per_device) are fewer than experts={run.experts}; "
            f"give cluster.slots_per_device={-(-run.experts // cluster.devices)} or more"
        )
    most = cluster.slots if run.max_experts is None else run.max_experts
    if most < run.experts or most > cluster.slots:
        raise InputError(f"balance: max_experts={most}; it takes {run.experts} experts to {cluster.slots} slots")
    return most if grows else run.experts


def _check_memory(run: Run, domains: int, experts: int, cluster: Cluster) -> None:
    """InputError if what a run keeps, and its state, are more than the memory of this computer."""
    records = run.steps // run.record_every + 2
    kept = run.seeds * records * (4.0 * experts + 2.0 * cluster.devices + 2.0 * domains + 50.0)
    state = 12.0 * domains * experts + 4.0 * cluster.slots
    needed, there = 8.0 * (2.0 * kept + state), _memory()
    if needed > there:
        raise InputError(
            f"balance: {run.seeds} seeds x {records} records, {experts} experts x {domains} domains need about "
            f"{needed:.2g} bytes of memory, of {there:.2g} here; give fewer seeds or steps, or a larger record_every"
        )


def _memory() -> float:
    """Bytes of memory of this computer; without limit where it does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")
