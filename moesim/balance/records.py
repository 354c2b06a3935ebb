"""What a run leaves: records along the way, the last state, and how far each was from the best possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.balance import bounds, branches, metrics, structure
from moesim.balance.setting import Setting, setting
from moesim.balance.simulate import rehearse, start, trajectory
from moesim.balance.state import State, fitted
from moesim.hardware import step as clock
from moesim.hardware.footprint import fullest
from moesim.hardware.placed import Placement
from moesim.output.progress import Advance, progress

# A block of seeds whose (seed, domain, expert) arrays stay in a core's cache is stepped at once.
CELLS_IN_CACHE = 2**19
WINDOW = 100  # steps whose loads count as those of the present router


@dataclass
class Recent:
    """Loads of the last steps under the present router: of a seed whose experts changed, those since."""

    loads: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=WINDOW))
    alive: np.ndarray | None = None

    def add(self, load: np.ndarray, alive: np.ndarray) -> None:
        """Take in a step's loads (seed, expert), of the experts that were there."""
        if self.alive is not None:
            changed = (alive != self.alive).any(axis=1)
            if changed.any():
                self.loads = deque((np.where(changed[:, None], 0.0, old) for old in self.loads), maxlen=WINDOW)
        self.alive = alive
        self.loads.append(load)

    def total(self) -> np.ndarray:
        """Their sum (seed, expert)."""
        return np.sum(self.loads, axis=0)


def record(given: Setting, state: State, parts: Mapping[str, np.ndarray], total: np.ndarray) -> dict[str, np.ndarray]:
    """What a record keeps, domains in the order of their names; `total` (seed, expert) is the load of the last steps.

    Times in `parts` are means since the last record; loads, losses and placement are those that the step met.
    """
    placed = Placement(parts["slots"], np.ones(parts["slots"].shape))
    copies = placed.copies(given.most_experts)
    world, there, speed = given.world, copies > 0, given.machine.cluster.speed
    received = parts["received"]
    busy = parts["compute"] + parts["dense"] * given.machine.cluster.busy_share + parts["update"]
    hardest = bounds.makespan_bound(parts["load"], copies, speed)
    dropped = state.dropped / (given.tokens * given.active)
    fastest = clock.least_step_seconds(given.machine, given.tokens, given.active, 1.0 - dropped)
    return {
        "loads": state.load,
        "device_loads": received,
        "device_busy": parts["busy"],
        "max_over_mean": metrics.max_over_mean(received),
        "max_vio": metrics.over_there(state.load, there, metrics.max_violation),
        "max_vio_global": metrics.over_there(total, there, metrics.max_violation),
        "balancedness": metrics.balancedness(received),
        "gini": metrics.over_there(state.load, there, metrics.gini),
        "drop_share": dropped,
        "utilisation": busy / parts["step_time"],
        "idle_share": 1.0 - parts["compute"] / (parts["compute"] + parts["wait"]),
        "step_time": parts["step_time"],
        **{f"time_{name}": parts[name] for name in clock.PARTS},
        "tokens": np.full(state.seeds, given.tokens * state.step),
        "wall_clock": state.wall_clock,
        **_losses(given, state),
        "sampling_weight": world.in_order(state.mixture),
        "experts_alive": there.sum(axis=1),
        "splits": state.splits,
        "alive": there,
        "frozen_share": (state.frozen & there).sum(axis=1) / there.sum(axis=1),
        "regret_balance": (received / speed).max(axis=1) / hardest - 1.0,
        "regret_time": parts["step_time"] / fastest - 1.0,
        **_memory(given, parts),
        "copies": copies,
        "shared_devices": placed.together(given.most_experts, given.devices),
        **branches.told(given, state),
    }


def _losses(given: Setting, state: State) -> dict[str, np.ndarray]:
    world = given.world
    weights = {"micro_loss": world.natural, "macro_loss": world.macro, "target_loss": world.target}
    each = world.means(state.loss)
    return {
        **{name: (weight * state.loss).sum(axis=1) for name, weight in weights.items()},
        "tail_loss": metrics.tail_loss(each, world.in_order(world.natural)),
        "domain_loss": each,
    }


def _memory(given: Setting, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fullest device: all layers of a stage are alike."""
    slots, depth = parts["slots"], int(np.ceil(given.machine.depth))
    held = (slots >= 0).reshape(len(slots), given.devices, -1).sum(axis=-1)
    alike = (np.broadcast_to(a[:, None], (len(slots), depth, given.devices)) for a in (held, parts["received"]))
    return fullest(given.machine, *alike)


@dataclass(frozen=True)
class Outcome:
    """A run of one block of seeds: the records stacked as (seed, step, ...), the last state and its setting."""

    records: dict[str, np.ndarray]
    steps: np.ndarray
    final: State
    setting: Setting
    separation: np.ndarray
    regrets: dict[str, np.ndarray]


def run_block(config: Mapping[str, Any], seeds: tuple[int, ...], advance: Advance = lambda steps: None) -> Outcome:
    """Run the seeds of one block side by side; `advance` is told of every step."""
    given = setting(config, seeds)
    rows, steps, recent, parts, state = [], [], Recent(), {}, start(given)
    apart = np.full((len(seeds), given.most_experts), np.nan)
    timed, window, count = ("step_time", *clock.PARTS), {}, 0
    edits, before = np.full(len(seeds), 0 if given.structure.grows else -1), state.copies
    for state, parts in trajectory(given):
        edits, before = edits + (state.copies != fitted(before, state.experts)).any(axis=1), state.copies
        there = Placement(parts["slots"], parts["slots"]).copies(given.most_experts) > 0
        recent.add(fitted(state.load, given.most_experts), there)
        window, count = {name: window.get(name, 0.0) + parts[name] for name in timed}, count + 1
        if state.step % given.run.record_every == 0 or state.step in (1, given.steps):
            state = state.widened(given.most_experts)
            means = {name: time / count for name, time in window.items()}  # so that rare costs count
            rows.append({**record(given, state, {**parts, **means}, recent.total()), "edits": edits})
            steps.append(state.step)
            window, count = {}, 0
            if given.structure.grows:
                apart = np.where(np.isnan(apart) & (structure.separation(state) > 0.5), state.step - state.born, apart)
        advance(len(seeds))
    records = {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}
    records |= _loss_regret(given, records)
    final = _final_regrets(given, state, parts, records)
    return Outcome(records, np.array(steps), state, given, apart, final)


def _loss_regret(given: Setting, records: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Target loss above the least that these tokens allow, at a few records and the last (NaN between)."""
    loss = records["target_loss"]
    regret = np.full(loss.shape, np.nan)
    for i in np.unique(np.linspace(0, loss.shape[1] - 1, 4).astype(int)):
        regret[:, i] = loss[:, i] - bounds.least_loss(given, records["tokens"][:, i])
    return {"regret_loss": regret}


def _final_regrets(
    given: Setting, state: State, parts: Mapping[str, np.ndarray], records: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The last step against the other bounds, (seed,) each.

    Busiest device against the Hall bound of its placement and against LPT of the same copies on any device; MaxVio
    against the noise floor of random routing (NaN for expected tokens, which have no noise).
    """
    copies, speed = records["copies"][:, -1], given.machine.cluster.speed
    busiest = (records["device_loads"][:, -1] / speed).max(axis=1)
    met = zip(parts["load"], parts["slots"], strict=True)
    hall = [bounds.schedule(load, row, given.devices, speed)[1] for load, row in met]
    each = parts["load"] / np.maximum(copies, 1)
    lpt = [bounds.lpt(np.repeat(row, count), speed) for row, count in zip(each, copies, strict=True)]
    floor = np.full(state.seeds, np.nan)
    if given.routing.tokens:
        alive = (copies > 0).sum(axis=1)
        floor = np.array([bounds.sampling_floor(given.batch * given.active / n, int(n), given.active) for n in alive])
    return {
        "regret_schedule": busiest / np.array(hall) - 1.0,
        "regret_lpt": busiest / np.array(lpt) - 1.0,
        "regret_floor": records["max_vio"][:, -1] - floor,
    }


def blocks_of(seeds: tuple[int, ...], cells: int) -> list[tuple[int, ...]]:
    """Seeds in blocks whose arrays of `cells` numbers each stay in cache."""
    size = max(1, CELLS_IN_CACHE // max(cells, 1))
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def outcomes(config: Mapping[str, Any], advance: Advance | None = None) -> list[Outcome]:
    """Run all seeds of a config, block by block; says how far it is unless `advance` is given to do so."""
    probe = setting(config)
    rehearse(probe)
    seeds = tuple(range(probe.run.seed, probe.run.seed + probe.run.seeds))
    blocks = blocks_of(seeds, probe.world.domains * probe.run.experts)
    if advance is not None:
        return [run_block(config, block, advance) for block in blocks]
    with progress(len(seeds) * probe.steps, "step") as shown:
        return [run_block(config, block, shown) for block in blocks]
