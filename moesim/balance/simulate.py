"""The one loop: sample -> route -> learn -> restructure -> place -> time -> record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance import bounds, metrics, placement, routing, sampling, structure
from moesim.balance.placement import Placing
from moesim.balance.routing import Routing
from moesim.balance.sampling import Sampling
from moesim.balance.state import Placement, State, Streams
from moesim.balance.structure import Structure
from moesim.domains import learning
from moesim.domains import world as worlds
from moesim.domains.tree import similarity
from moesim.domains.world import World
from moesim.errors import InputError
from moesim.hardware import step as clock
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, SHARE, check

if TYPE_CHECKING:
    import xarray as xr

# A block of seeds whose (seed, domain, expert) arrays stay in a core's cache is stepped at once.
CELLS_IN_CACHE = 2**18
GROUPS = ("world", "routing", "structure", "sampling", "placement", "cluster")
OTHERS = ("figures", "plugins", "choices", "experiment", "verb")  # keys of a config that say nothing about the run
DEFAULTS = {
    "steps": 1000,
    "tokens_per_step": 2.0**22,
    "seeds": 4,
    "seed": 0,
    "experts": 16,
    "active_experts": 1,
    "max_experts": None,
    "capacity": 1e8,
    "forgetting": 0.0,
    "selective": 0.0,
    "load_memory": 0.9,
    "learn_every": 1,
    "record_every": 10,
    "target_loss": None,
    "policies": None,
    "sweep": None,
}


@dataclass(frozen=True)
class Setting:
    """What stays the same during a run: the pieces, the sizes, the random streams."""

    world: World
    routing: Routing
    structure: Structure
    sampling: Sampling
    placing: Placing
    cluster: clock.Cluster
    streams: Streams
    experts: int
    most_experts: int
    active: int
    steps: int
    tokens: float
    capacity: float
    forgetting: float
    selective: float
    load_memory: float
    learn_every: int

    @property
    def slots(self) -> int:
        """Expert copies that the machine holds."""
        return self.cluster.slots

    @property
    def devices(self) -> int:
        """Devices of the expert-parallel group."""
        return self.cluster.devices

    @property
    def nodes(self) -> int:
        """Nodes of the expert-parallel group."""
        return self.cluster.nodes

    def params(self, state: State) -> np.ndarray:
        """Capacity per domain served (seed, expert)."""
        served = learning.domains_served(self.world, state.assigned, state.assigned.sum(axis=1))
        return self.capacity / np.maximum(served, 1.0)


def _whole(config: Mapping[str, Any], name: str) -> int:
    value = check("balance", name, config[name], AT_LEAST_ONE)
    if int(value) != value:
        raise InputError(f"balance: {name}={value:g}; it takes a whole number of 1 or more")
    return int(value)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with defaults filled in; InputError for unknown keys and missing groups."""
    for key in config:
        if key not in DEFAULTS and key not in GROUPS and key not in OTHERS:
            raise InputError(f"balance: unknown key {key!r}; it takes {', '.join([*GROUPS, *DEFAULTS])}")
    for group in GROUPS:
        if not isinstance(config.get(group), Mapping):
            raise InputError(f"balance: no settings for {group!r}; choose one, {group}=NAME")
    return {**DEFAULTS, **config}


def setting(config: Mapping[str, Any], seeds: tuple[int, ...]) -> Setting:
    """The Setting of a config for a block of seeds; every bad value is an InputError here, before the first step."""
    config = complete(config)
    numbers = {name: _whole(config, name) for name in ("steps", "experts", "active_experts")}
    tokens = float(check("balance", "tokens_per_step", config["tokens_per_step"], POSITIVE))
    cluster = clock.build(config["cluster"])
    shape = structure.build(config["structure"])
    most = _most_experts(config, cluster, numbers["experts"], shape.grows)
    if numbers["active_experts"] > numbers["experts"]:
        raise InputError(
            f"balance: active_experts={numbers['active_experts']} is more than experts={numbers['experts']}; give fewer"
        )
    for name, domain in {"forgetting": SHARE, "selective": NON_NEGATIVE, "load_memory": SHARE}.items():
        check("balance", name, config[name], domain)
    return Setting(
        worlds.build(config["world"], seeds, tokens * numbers["steps"]),
        routing.build(config["routing"]),
        shape,
        sampling.build(config["sampling"]),
        placement.build(config["placement"]),
        cluster,
        Streams.of(seeds),
        numbers["experts"],
        most,
        numbers["active_experts"],
        numbers["steps"],
        tokens,
        float(check("balance", "capacity", config["capacity"], POSITIVE)),
        float(config["forgetting"]),
        float(config["selective"]),
        float(config["load_memory"]),
        _whole(config, "learn_every"),
    )


def _most_experts(config: Mapping[str, Any], cluster: clock.Cluster, experts: int, grows: bool) -> int:
    if cluster.slots < experts:
        raise InputError(
            f"balance: {cluster.slots} slots (devices x slots_per_device) are fewer than experts={experts}; "
            f"give slots_per_device={-(-experts // cluster.devices)} or more"
        )
    most = cluster.slots if config["max_experts"] is None else _whole(config, "max_experts")
    if most < experts or most > cluster.slots:
        raise InputError(f"balance: max_experts={most}; it takes {experts} experts to {cluster.slots} slots")
    return most if grows else experts


def start(given: Setting) -> State:
    """The state before the first step: a router that leans to each expert's own part of the tree, nothing learned."""
    world, seeds = given.world, len(given.streams.seeds)
    shape, pair = (seeds, world.domains, given.most_experts), (seeds, given.most_experts)
    alive = np.broadcast_to(np.arange(given.most_experts) < given.experts, pair).copy()
    zeros, blank = np.zeros(pair), np.zeros(seeds)
    even = alive * (given.tokens * given.active / given.experts)
    state = State(
        step=0,
        scores=_first_scores(given, shape),
        bias=zeros,
        learned=np.zeros(shape),
        pending=np.zeros(shape[:2]),
        assigned=np.zeros(shape),
        probability=np.zeros(shape),
        loss=np.zeros(shape[:2]),
        expert_loss=np.zeros(shape),
        seen=np.zeros(shape[:2]),
        drawn=np.zeros(shape[:2]),
        dropped=blank,
        load=zeros,
        mean_load=even,
        hot=np.zeros(pair, dtype=int),
        alive=alive,
        frozen=np.zeros(pair, dtype=bool),
        parent=np.full(pair, -1),
        born=np.zeros(pair, dtype=int),
        copies=alive.astype(int),
        mixture=world.natural,
        placement=Placement(np.zeros((seeds, 0), dtype=int), np.zeros((seeds, 0))),
        splits=np.zeros(seeds, dtype=int),
        migrated=np.zeros((seeds, given.devices)),
        wall_clock=blank,
    )
    expected = given.tokens * world.natural
    probability = given.routing.assign(_logits(given, state), expected, alive, given.active)
    state = replace(state, probability=probability)
    return placement.place(given.placing, state, given, np.ones(seeds, dtype=bool), start=True)


def _first_scores(given: Setting, shape: tuple[int, ...]) -> np.ndarray:
    scores = np.full(shape, -np.inf)
    home = np.minimum((np.arange(given.experts) + 0.5) * shape[1] / given.experts, shape[1] - 1).astype(int)
    lean = similarity(shape[1], 1.0, 0.5, home)
    for row, rng in enumerate(given.streams["router"]):
        noise = given.routing.noise * rng.standard_normal(lean.shape)
        scores[row, :, : given.experts] = given.routing.affinity * lean + noise
    return scores


def _logits(given: Setting, state: State) -> np.ndarray:
    return routing.logits(state.scores, state.bias, given.routing.temperature)


def sample_step(given: Setting, state: State) -> State:
    """Choose the mixture and draw the step's tokens per domain: expected, or a batch scaled up."""
    mixture, memory = sampling.sample(given.sampling, state, given)
    drawn = given.tokens * mixture
    if given.routing.tokens:
        batch = given.routing.batch
        uniforms = np.stack([rng.random((2, batch)) for rng in given.streams["tokens"]])
        domain = np.stack([routing.draw_domains(q, u) for q, u in zip(mixture, uniforms[:, 0], strict=True)])
        counts = np.stack([np.bincount(row, minlength=mixture.shape[1]) for row in domain])
        drawn = counts * (given.tokens / batch)
        memory = {**memory, "batch": (domain, uniforms[:, 1])}
    return replace(state, mixture=mixture, memory=memory, drawn=drawn)


def due(given: Setting, state: State) -> bool:
    """Whether losses are brought up to date in this step: every `learn_every`, before and after experts change.

    Always where a step has its own draws, drops or forgetting.
    """
    edits = given.structure.grows and state.step % given.structure.every <= 1
    rule = given.routing
    exact = (
        rule.tokens or rule.assign.traits["sees_tokens"] or given.forgetting > 0 or np.isfinite(rule.capacity_factor)
    )
    return state.step % given.learn_every == 0 or edits or exact or state.step == given.steps - 1


def route_step(given: Setting, state: State) -> State:
    """Assign tokens to experts and drop what exceeds capacity; between updates only the loads are needed."""
    if not due(given, state):
        return _loaded(given, state, (state.drawn[:, None, :] @ state.probability)[:, 0])
    probability = given.routing.assign(_logits(given, state), state.drawn, state.alive, given.active)
    state = _credited(state)
    assigned, load = _assigned(given, state, probability)
    return _loaded(given, replace(state, assigned=assigned, probability=probability), load)


def _credited(state: State) -> State:
    """The state with pending tokens learned, by the routing under which they came."""
    if not state.pending.any():
        return state
    learned = state.learned + state.probability * (state.pending[:, :, None] * ~state.frozen[:, None, :])
    return replace(state, learned=learned, pending=np.zeros(state.pending.shape))


def _assigned(given: Setting, state: State, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token assignments kept (seed, domain, expert) and loads (seed, expert): expected, or drawn token by token."""
    assigned = probability * state.drawn[:, :, None]
    if given.routing.tokens:
        scale = given.tokens / given.routing.batch
        pairs = zip(probability, *state.memory["batch"], strict=True)
        assigned = np.stack([routing.draw_experts(p, d, u) for p, d, u in pairs]) * scale
    load = assigned.sum(axis=1)
    if np.isfinite(given.routing.capacity_factor):
        room = given.routing.capacity_factor * given.tokens * given.active / state.alive.sum(axis=1, keepdims=True)
        kept = np.minimum(1.0, room / np.maximum(load, 1e-300))
        assigned, load = assigned * kept[:, None, :], load * kept
    return assigned, load


def _loaded(given: Setting, state: State, load: np.ndarray) -> State:
    wanted = given.tokens * given.active
    dropped = wanted - load.sum(axis=1)
    mean_load = given.load_memory * state.mean_load + (1.0 - given.load_memory) * load
    return replace(
        state,
        load=load,
        dropped=np.where(dropped > 1e-9 * wanted, dropped, 0.0),
        mean_load=load if state.step == 0 else mean_load,
    )


def learn_step(given: Setting, state: State) -> State:
    """Experts learn what they were assigned; losses follow; the router is reinforced and balanced."""
    world = given.world
    worth = learning.fresh_worth(world, state.seen, state.drawn)
    seen = state.seen + state.drawn
    if not due(given, state):
        return replace(state, pending=state.pending + state.drawn * worth, seen=seen)
    learned = learning.learn(state.learned, state.assigned, worth, state.frozen, given.forgetting)
    params = given.params(state)
    expert_loss = learning.expert_losses(world, learned, params)
    probability = _meant(state)
    loss = learning.domain_losses(probability, expert_loss)
    rule = given.routing
    scores, bias = state.scores, state.bias
    if state.step % given.learn_every:
        return replace(state, learned=learned, loss=loss, expert_loss=expert_loss, seen=seen)
    if rule.reinforcement or rule.decay:
        stride = given.learn_every
        reward = rule.reward(probability, expert_loss, loss)
        share = probability if given.active == 1 else probability / given.active
        scores = routing.reinforce(scores, share, reward, stride * rule.reinforcement, stride * rule.decay)
    scores, bias = rule.control(scores, bias, probability, state.load, state.drawn, state.alive)
    frozen = state.frozen
    if given.selective > 0 and state.step % given.structure.every == 0:
        gains = learning.expert_gains(world, learned, params, state.assigned, state.load)
        frozen = learning.nothing_left(gains, state.alive, given.selective)
    return replace(
        state, learned=learned, loss=loss, expert_loss=expert_loss, scores=scores, bias=bias, seen=seen, frozen=frozen
    )


def _meant(state: State) -> np.ndarray:
    """Routing probabilities, with an even spread for domains that no expert chose."""
    missed = state.probability.sum(axis=-1) <= 0
    if not missed.any():
        return state.probability
    return np.where(missed[:, :, None], state.alive[:, None, :], state.probability)


def time_step(given: Setting, state: State) -> tuple[State, dict[str, np.ndarray]]:
    """Add the step's time to the clock; the parts go to the record."""
    parts = clock.step_seconds(
        given.cluster, state.placement, state.load, state.frozen, given.tokens, given.active, state.migrated
    )
    total = np.sum([parts[name] for name in clock.PARTS], axis=0)
    return replace(state, wall_clock=state.wall_clock + total, step=state.step + 1), {**parts, "step_time": total}


def step(given: Setting, state: State) -> tuple[State, dict[str, np.ndarray]]:
    """One step of all seeds of a block."""
    state = learn_step(given, route_step(given, sample_step(given, state)))
    edited = structure.restructure(given.structure, state, given)
    changed = (edited.copies != state.copies).any(axis=1)
    return time_step(given, placement.place(given.placing, edited, given, changed))


def trajectory(given: Setting) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """States after each step, with the parts of its time."""
    state = start(given)
    for _ in range(given.steps):
        state, parts = step(given, state)
        yield state, parts


def record(given: Setting, state: State, parts: Mapping[str, np.ndarray], total: np.ndarray) -> dict[str, np.ndarray]:
    """What a record keeps, domains in the order of their names; `total` (seed, expert) is all load so far.

    Times in `parts` are means since the last record; loads and losses are those of the step.
    """
    world, there = given.world, state.alive
    natural, received = world.natural, parts["received"]
    micro = (natural * state.loss).sum(axis=1)
    busy = parts["compute"] + parts["dense"] + parts["update"]
    hardest = bounds.makespan_bound(state.load, state.placement.copies(there.shape[1]), given.devices)
    return {
        "loads": state.load,
        "device_loads": received,
        "device_busy": parts["busy"],
        "max_over_mean": metrics.max_over_mean(received),
        "max_vio": metrics.over_there(state.load, there, metrics.max_violation),
        "max_vio_global": metrics.over_there(total, there, metrics.max_violation),
        "balancedness": metrics.balancedness(received),
        "gini": metrics.over_there(state.load, there, metrics.gini),
        "drop_share": state.dropped / (given.tokens * given.active),
        "utilisation": busy / parts["step_time"],
        "idle_share": 1.0 - parts["compute"] / (parts["compute"] + parts["wait"]),
        "step_time": parts["step_time"],
        **{f"time_{name}": parts[name] for name in clock.PARTS},
        "tokens": np.full(state.seeds, given.tokens * state.step),
        "wall_clock": state.wall_clock,
        "micro_loss": micro,
        "macro_loss": (world.macro * state.loss).sum(axis=1),
        "target_loss": (world.target * state.loss).sum(axis=1),
        "tail_loss": metrics.tail_loss(state.loss, natural),
        "domain_loss": world.in_order(state.loss),
        "sampling_weight": world.in_order(state.mixture),
        "experts_alive": there.sum(axis=1),
        "splits": state.splits,
        "alive": there,
        "frozen_share": (state.frozen & there).sum(axis=1) / there.sum(axis=1),
        "regret_balance": received.max(axis=1) / hardest - 1.0,
        "regret_time": parts["step_time"] / clock.least_step_seconds(given.cluster, given.tokens, given.active) - 1.0,
        "copies": state.placement.copies(there.shape[1]),
    }


@dataclass(frozen=True)
class Outcome:
    """A run of one block of seeds: the records stacked as (seed, step, ...), the last state and its setting."""

    records: dict[str, np.ndarray]
    steps: np.ndarray
    final: State
    setting: Setting
    separation: np.ndarray
    regrets: dict[str, np.ndarray]


def run_block(config: Mapping[str, Any], seeds: tuple[int, ...], progress: Any = None) -> Outcome:
    """Run the seeds of one block side by side."""
    given = setting(config, seeds)
    every = _whole(complete(config), "record_every")
    rows, steps, total, state = [], [], np.zeros((len(seeds), given.most_experts)), start(given)
    apart = np.full((len(seeds), given.most_experts), np.nan)
    window: list[dict[str, np.ndarray]] = []
    for state, parts in trajectory(given):
        total = total + state.load
        window.append(parts)
        last = state.step == given.steps
        if state.step % every == 0 or last or state.step == 1:
            rows.append(record(given, state, _mean_parts(window), total))
            steps.append(state.step)
            window = []
            if given.structure.grows:
                apart = np.where(np.isnan(apart) & (structure.separation(state) > 0.5), state.step - state.born, apart)
        if progress is not None:
            progress.update(len(seeds))
    records = {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}
    records |= _loss_regret(given, records)
    final = _final_regrets(given, state, records)
    return Outcome(records, np.array(steps), state, given, apart, final)


def _mean_parts(window: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Times averaged over the steps since the last record, so that rare costs count; loads of the last step."""
    timed = ("step_time", *clock.PARTS)
    return {**window[-1], **{name: np.mean([parts[name] for parts in window], axis=0) for name in timed}}


def _loss_regret(given: Setting, records: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Target loss above the least that these tokens allow, at a few records and the last (NaN between)."""
    loss = records["target_loss"]
    regret = np.full(loss.shape, np.nan)
    for i in np.unique(np.linspace(0, loss.shape[1] - 1, 4).astype(int)):
        regret[:, i] = loss[:, i] - bounds.least_loss(given, records["tokens"][:, i])
    return {"regret_loss": regret}


def _final_regrets(given: Setting, state: State, records: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The last step against the other bounds, (seed,) each.

    Busiest device against the Hall bound of its placement and against LPT of the same copies on any device; MaxVio
    against the noise floor of random routing (NaN for expected tokens, which have no noise).
    """
    copies = state.placement.copies(state.bias.shape[1])
    busiest = records["device_loads"][:, -1].max(axis=1)
    hall = [
        bounds.schedule(load, s, given.devices)[1] for load, s in zip(state.load, state.placement.slots, strict=True)
    ]
    each = state.load / np.maximum(copies, 1)
    lpt = [bounds.lpt(np.repeat(row, count), given.devices) for row, count in zip(each, copies, strict=True)]
    floor = np.full(state.seeds, np.nan)
    if given.routing.tokens:
        alive = state.alive.sum(axis=1)
        floor = np.array(
            [bounds.sampling_floor(given.routing.batch * given.active / n, int(n), given.active) for n in alive]
        )
    return {
        "regret_schedule": busiest / np.array(hall) - 1.0,
        "regret_lpt": busiest / np.array(lpt) - 1.0,
        "regret_floor": records["max_vio"][:, -1] - floor,
    }


def blocks_of(seeds: tuple[int, ...], cells: int) -> list[tuple[int, ...]]:
    """Seeds in blocks whose arrays of `cells` numbers each stay in cache."""
    size = max(1, CELLS_IN_CACHE // max(cells, 1))
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def outcomes(config: Mapping[str, Any], progress: Any = None) -> list[Outcome]:
    """Run all seeds of a config, block by block, with a progress bar on a terminal unless one is given."""
    from tqdm import tqdm

    filled = complete(config)
    seeds = tuple(int(filled["seed"]) + i for i in range(_whole(filled, "seeds")))
    probe = setting(config, seeds[:1])
    cells = probe.world.domains * probe.most_experts
    with tqdm(total=len(seeds) * probe.steps, disable=None, leave=False, unit="step") as bar:
        return [run_block(config, block, progress or bar) for block in blocks_of(seeds, cells)]


def simulate(config: Mapping[str, Any], progress: Any = None) -> xr.Dataset:
    """Run a config and return what happened: dims seed, step, expert, device, domain (see `output`)."""
    from moesim.balance.output import dataset

    return dataset(outcomes(config, progress), complete(config))
