"""The one loop: sample -> route -> learn -> time -> restructure -> place -> record.

The clock comes before the edits: the tokens of a step met the experts and the placement that were there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moesim.balance import placement, routing, sampling, structure
from moesim.balance.setting import Setting
from moesim.balance.state import State
from moesim.domains import learning
from moesim.domains.tree import similarity
from moesim.hardware import step as clock
from moesim.hardware.placed import Placement


def start(given: Setting) -> State:
    """The state before the first step: a router that leans to each expert's own part of the tree, nothing learned."""
    world, seeds = given.world, len(given.streams.seeds)
    shape, pair = (seeds, world.domains, given.most_experts), (seeds, given.most_experts)
    alive = np.broadcast_to(np.arange(given.most_experts) < given.run.experts, pair).copy()
    zeros, blank = np.zeros(pair), np.zeros(seeds)
    even = alive * (given.tokens * given.active / given.run.experts)
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
        planned=blank,
        wall_clock=blank,
    )
    expected = given.tokens * world.natural
    probability = given.routing.assign(_logits(given, state), expected, alive, given.active)
    state = replace(state, probability=probability)
    return placement.place(given.placing, state, given, np.ones(seeds, dtype=bool), start=True)


def _first_scores(given: Setting, shape: tuple[int, ...]) -> np.ndarray:
    scores = np.full(shape, -np.inf)
    home = np.minimum((np.arange(given.run.experts) + 0.5) * shape[1] / given.run.experts, shape[1] - 1).astype(int)
    lean = similarity(shape[1], 1.0, 0.5, home)
    for row, rng in enumerate(given.streams["router"]):
        noise = given.routing.noise * rng.standard_normal(lean.shape)
        scores[row, :, : given.run.experts] = given.routing.affinity * lean + noise
    return scores


def _logits(given: Setting, state: State) -> np.ndarray:
    return routing.logits(state.scores, state.bias, given.routing.temperature)


def sample_step(given: Setting, state: State) -> State:
    """Choose the mixture and draw the step's tokens per domain: expected, or a batch scaled up."""
    mixture, memory = sampling.sample(given.sampling, state, given)
    drawn = given.tokens * mixture
    if given.routing.tokens:
        pairs = zip(mixture, given.streams.seeds, strict=True)
        counts = np.stack([routing.draw_domains(q, given.batch, seed, state.step) for q, seed in pairs])
        drawn = counts * (given.tokens / given.batch)
    return replace(state, mixture=mixture, memory=memory, drawn=drawn)


def due(given: Setting, state: State) -> bool:
    """Whether losses are brought up to date in this step: every `learn_every`, before and after experts change.

    Always where a step has its own draws, drops or forgetting.
    """
    edits = given.structure.grows and state.step % given.structure.every <= 1
    rule = given.routing
    own = rule.tokens or rule.assign.traits["sees_tokens"]
    exact = own or given.run.forgetting > 0 or np.isfinite(rule.capacity_factor)
    return state.step % given.run.learn_every == 0 or edits or exact or state.step == given.steps - 1


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
        scale = given.tokens / given.batch
        pairs = zip(probability, np.round(state.drawn / scale), given.streams.seeds, strict=True)
        assigned = np.stack([routing.draw_experts(p, n, seed, state.step) for p, n, seed in pairs]) * scale
    load = assigned.sum(axis=1)
    if np.isfinite(given.routing.capacity_factor):
        room = given.routing.capacity_factor * given.tokens * given.active / state.alive.sum(axis=1, keepdims=True)
        kept = np.minimum(1.0, room / np.maximum(load, 1e-300))
        assigned, load = assigned * kept[:, None, :], load * kept
    return assigned, load


def _loaded(given: Setting, state: State, load: np.ndarray) -> State:
    wanted = given.tokens * given.active
    dropped = wanted - load.sum(axis=1)
    mean_load = given.run.load_memory * state.mean_load + (1.0 - given.run.load_memory) * load
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
    learned = learning.learn(state.learned, state.assigned, worth, state.frozen, given.run.forgetting)
    params = given.params(state)
    expert_loss = learning.expert_losses(world, learned, params)
    probability = _meant(state)
    loss = learning.domain_losses(probability, expert_loss)
    rule = given.routing
    scores, bias = state.scores, state.bias
    if state.step % given.run.learn_every:
        return replace(state, learned=learned, loss=loss, expert_loss=expert_loss, seen=seen)
    if rule.reinforcement or rule.decay:
        stride = given.run.learn_every
        reward = rule.reward(probability, expert_loss, loss)
        share = probability if given.active == 1 else probability / given.active
        scores = routing.reinforce(scores, share, reward, stride * rule.reinforcement, stride * rule.decay, rule.reach)
    scores, bias = rule.control(scores, bias, probability, state.load, state.drawn, state.alive)
    frozen = state.frozen
    if given.run.selective > 0 and state.step % given.structure.every == 0:
        gains = learning.expert_gains(world, learned, params, state.assigned, state.load)
        frozen = learning.nothing_left(gains, state.alive, given.run.selective)
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
    """Add the step's time to the clock; the parts go to the record, with the slots that its tokens met."""
    machine, factor = given.machine, given.routing.capacity_factor
    room = factor * given.tokens * given.active / state.alive.sum(axis=1)
    state = replace(state, placement=placement.serve(given.placing, state.placement, state.load, machine.cluster.speed))
    met = (state.placement, state.load, state.frozen, given.tokens, given.active, state.migrated)
    parts = clock.step_seconds(machine, *met, room=room, planned=state.planned, behind=given.placing.overlap)
    total = np.sum([parts[name] for name in clock.PARTS], axis=0)
    parts |= {"step_time": total, "slots": state.placement.slots}
    return replace(state, wall_clock=state.wall_clock + total), parts


def step(given: Setting, state: State) -> tuple[State, dict[str, np.ndarray]]:
    """One step of all seeds of a block."""
    state = learn_step(given, route_step(given, sample_step(given, state)))
    state, parts = time_step(given, state)
    edited = structure.restructure(given.structure, state, given)
    changed = (edited.copies != state.copies).any(axis=1)
    return replace(placement.place(given.placing, edited, given, changed), step=state.step + 1), parts


def rehearse(given: Setting) -> None:
    """Ask each policy once, the structure with everyone hot, and forget it: what is refused is refused now."""
    state = sample_step(given, start(given))
    given.routing.control(state.scores, state.bias, state.probability, state.load, state.drawn, state.alive)
    if given.structure.grows:
        demand = structure.natural_demand(state, given.world.natural)
        given.structure.policy(structure.View(state, given, 0, np.flatnonzero(state.alive[0]), demand))


def trajectory(given: Setting) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """States after each step, with the parts of its time."""
    state = start(given)
    for _ in range(given.steps):
        state, parts = step(given, state)
        yield state, parts
