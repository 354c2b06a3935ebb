"""The one loop: sample -> route -> learn -> time -> restructure -> place -> record.

The clock comes before the edits: the tokens of a step met the experts and the placement that were there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from moesim.balance import branches, placement, routing, sampling, structure
from moesim.balance.setting import Setting
from moesim.balance.state import State, fitted
from moesim.domains import learning
from moesim.domains.tree import similarity
from moesim.hardware import step as clock
from moesim.hardware.placed import Placement
from moesim.numerics.memory import keep_freed


def start(given: Setting) -> State:
    """The state before the first step: a router that leans to each expert's own part of the tree, nothing learned."""
    world, seeds = given.world, len(given.streams.seeds)
    shape, pair = (seeds, world.domains, given.run.experts), (seeds, given.run.experts)
    alive = np.ones(pair, dtype=bool)
    zeros, blank = np.zeros(pair), np.zeros(seeds)
    of_domains = ("common_learned", "common_trained", "pending", "waiting", "loss", "seen", "made", "drawn")
    even = alive * (given.tokens * given.active / given.run.experts)
    state = State(
        step=0,
        scores=_first_scores(given),
        rest=np.zeros(shape if given.structure.grows else (1, 1, 1), given.dtype),
        bias=zeros,
        learned=np.zeros(shape, given.dtype),
        trained=np.zeros(shape, given.dtype),
        assigned=np.zeros(shape, given.dtype),
        probability=np.zeros(shape, given.dtype),
        expert_loss=np.zeros(shape, given.dtype),
        dropped=blank,
        load=zeros,
        mean_load=even,
        hot=np.zeros(pair, dtype=int),
        alive=alive,
        frozen=np.zeros(pair, dtype=bool),
        parent=np.full(pair, -1),
        born=np.zeros(pair, dtype=int),
        bond=np.broadcast_to(np.arange(pair[1]), pair),
        copies=alive.astype(int),
        mixture=world.natural,
        placement=Placement(np.zeros((seeds, 0), dtype=int), np.zeros((seeds, 0))),
        **dict.fromkeys(of_domains, np.zeros(shape[:2])),
        splits=np.zeros(seeds, dtype=int),
        migrated=np.zeros((seeds, given.devices)),
        planned=blank,
        wall_clock=blank,
        tree=branches.planted(given),
    )
    state = replace(state, probability=_chances(given, state, given.tokens * world.natural))
    return placement.place(given.placing, state, given, np.ones(seeds, dtype=bool), start=True)


def _first_scores(given: Setting) -> np.ndarray:
    """Every expert leans to its own part of the tree, by affinity x ln(experts per active one) / ln 16.

    So scaled, the share that a domain's favourite gets does not depend on how many experts there are (0.50 to 0.54 from
    16 to 256 experts with 4 domains each). Parts of a domain share its score and noise, twins each other's.
    """
    run, rule, world = given.run, given.routing, given.world
    many, domains = run.experts // run.twins, len(world.names)
    home = np.minimum((np.arange(many) + 0.5) * domains / many, domains - 1).astype(int)
    lean = rule.affinity * np.log(run.experts / run.active_experts) / np.log(16.0) * similarity(domains, 1.0, 0.5, home)
    first = np.stack([lean + rule.noise * _noise(rng, lean.shape, rule.common) for rng in given.streams["router"]])
    return world.each(np.repeat(first, run.twins, axis=2)).astype(given.dtype)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], common: float) -> np.ndarray:
    """Standard normal numbers (domain, expert); domains have the part `common` of their variance alike."""
    own = rng.standard_normal(shape)
    return own if common == 0.0 else np.sqrt(1.0 - common) * own + np.sqrt(common) * rng.standard_normal(shape[1:])


def _wandering(given: Setting, state: State) -> np.ndarray:
    """Standard normal numbers (seed, part, expert) of a seed and a step: what two policies share meets the same."""
    shape, part, out = (state.scores.shape[2], len(given.world.names)), given.routing.common, []
    for seed in given.streams.seeds:
        own, alike = (np.random.default_rng([seed, state.step, stream]) for stream in (3, 4))
        each = np.sqrt(1.0 - part) * own.standard_normal(shape).T
        out.append(each + np.sqrt(part) * alike.standard_normal(shape[0]))
    return given.world.each(np.stack(out))


def _logits(given: Setting, state: State) -> np.ndarray:
    if given.routing.temperature == 1.0 and not state.bias.any():
        return state.scores
    return routing.logits(state.scores, state.bias.astype(given.dtype), given.routing.temperature)


def _chances(given: Setting, state: State, tokens: np.ndarray) -> np.ndarray:
    """Probability of being chosen (seed, domain, expert); a bonded pair takes one expert's place, shared by weight."""
    z, own = _logits(given, state), np.arange(state.bond.shape[1])
    bonded = (state.bond != own) & state.alive
    alone = given.active == 1 and not given.routing.assign.traits["sees_tokens"]  # there, weights add up by themselves
    if state.tree is not None:
        return given.routing.assign(z, tokens, state.alive, given.active, state.tree)
    if alone or not bonded.any() or (state.alive.sum(axis=1) - bonded.sum(axis=1) < given.active).any():
        return given.routing.assign(z, tokens, state.alive, given.active)
    joint, parts = z.copy(), {}
    for row in np.flatnonzero(bonded.any(axis=1)):
        pairs = np.flatnonzero(np.isin(state.bond[row], state.bond[row, bonded[row]]) & state.alive[row])
        pairs = pairs[np.argsort(state.bond[row, pairs], kind="stable")]
        firsts, starts, which, sizes = np.unique(state.bond[row, pairs], True, True, True)
        logit = z[row].take(pairs, axis=1)
        nth = (logit.take(starts + np.minimum(n, sizes - 1), axis=1) for n in range(sizes.max()))
        best = reduce(np.maximum, nth)  # of few in a family; reduceat takes ten times as long
        weight = np.exp(logit - best.take(which, axis=1))
        total = weight @ (which[:, None] == np.arange(len(firsts))).astype(weight.dtype)
        parts[row] = pairs, firsts[which], weight / total.take(which, axis=1)
        joint[row][:, pairs], joint[row][:, firsts] = -np.inf, best + np.log(total)
    chosen = np.array(given.routing.assign(joint, tokens, state.alive & ~bonded, given.active))
    for row, (pairs, first, part) in parts.items():
        chosen[row][:, pairs] = chosen[row].take(first, axis=1) * part
    return chosen


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
    probability = _chances(given, state, state.drawn)
    state = _credited(given, state)
    assigned, load = _assigned(given, state, probability)
    return _loaded(given, replace(state, assigned=assigned, probability=probability), load)


def _credited(given: Setting, state: State) -> State:
    """The state with pending tokens learned, by the routing under which they came."""
    if not state.waiting.any():
        return state
    routed = learning.trained_on(state.probability, state.frozen)
    waited, horizon = routed * state.waiting[:, :, None].astype(given.dtype), given.capacity.horizon
    load = waited.sum(axis=1, dtype=np.float64)
    blank = np.zeros(state.pending.shape)
    return replace(
        state,
        learned=state.learned + routed * state.pending[:, :, None].astype(given.dtype),
        trained=learning.trained_after(state.trained, waited, load, horizon),
        common_learned=state.common_learned + state.pending,
        common_trained=_commonly_trained(given, state, state.waiting),
        pending=blank,
        waiting=blank,
    )


def _assigned(given: Setting, state: State, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token assignments kept (seed, domain, expert) and loads (seed, expert): expected, or drawn token by token."""
    assigned = probability * state.drawn[:, :, None].astype(given.dtype)
    if given.routing.tokens:
        scale = given.tokens / given.batch
        pairs = zip(probability, np.round(state.drawn / scale), given.streams.seeds, strict=True)
        assigned = np.stack([routing.draw_experts(p, n, seed, state.step) for p, n, seed in pairs]) * scale
    load = assigned.sum(axis=1, dtype=np.float64)
    if np.isfinite(given.routing.capacity_factor):
        room = _room(given, state)[:, None]
        kept = room / np.maximum(load, room)
        assigned, load = assigned * kept[:, None, :], load * kept
    return assigned, load


def _room(given: Setting, state: State) -> np.ndarray:
    """Assignments that an expert takes at most (seed); inf without a capacity factor."""
    return given.routing.capacity_factor * given.tokens * given.active / state.alive.sum(axis=1)


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
    state, worth = _received(given, state)
    if not due(given, state):
        return replace(state, pending=state.pending + state.drawn * worth, waiting=state.waiting + state.drawn)
    before = state.learned
    state = _taught(given, state, worth)
    params, tokens = given.abilities(state)
    state = _judged(given, state, params, tokens)
    if state.step % given.run.learn_every:
        return state
    state = _steered(given, state)
    if given.run.selective > 0 and state.step % given.structure.every == 0:
        gains = learning.expert_gains(given.world, params, tokens, state.assigned)
        heard = learning.heard(gains, state.load, given.run.gradient_noise)
        state = replace(
            state, frozen=before.any(axis=1) & learning.nothing_left(heard, state.alive, given.run.selective)
        )
    return state


def _received(given: Setting, state: State) -> tuple[State, np.ndarray]:
    """The state that has seen the step's tokens, and what one of each domain is worth (seed, domain)."""
    generated = state.memory.get("generated")
    made = np.zeros(state.drawn.shape) if generated is None else generated.share * state.drawn
    real = state.drawn - made
    worth = learning.fresh_worth(given.world, state.seen - state.made, real)
    if generated is not None:
        worth = (real * worth + made * generated.quality) / np.where(state.drawn > 0, state.drawn, 1.0)
    return replace(state, seen=state.seen + state.drawn, made=state.made + made), worth


def _taught(given: Setting, state: State, worth: np.ndarray) -> State:
    world, horizon, forgetting = given.world, given.capacity.horizon, given.run.forgetting
    none = np.zeros((state.seeds, 1), dtype=bool)
    common = learning.learn(world, state.common_learned[:, :, None], state.drawn[:, :, None], worth, none, forgetting)
    taken = learning.trained_on(state.assigned, state.frozen)
    return replace(
        state,
        learned=learning.learn(world, state.learned, state.assigned, worth, state.frozen, forgetting),
        trained=learning.trained_after(state.trained, taken, np.where(state.frozen, 0.0, state.load), horizon),
        common_learned=common[:, :, 0],
        common_trained=_commonly_trained(given, state, state.drawn),
    )


def _commonly_trained(given: Setting, state: State, tokens: np.ndarray) -> np.ndarray:
    return learning.trained_after(state.common_trained, tokens, tokens.sum(axis=1), given.capacity.horizon)


def _judged(given: Setting, state: State, params: np.ndarray, tokens: np.ndarray) -> State:
    """Losses of every expert on every domain, and of each domain, with what its repeats cost."""
    world = given.world
    expert_loss = learning.expert_losses(world, params, tokens)
    probability = _meant(given, state)
    loss = learning.domain_losses(probability, expert_loss)
    if world.overfit.strength > 0:
        loss = np.minimum(loss + learning.penalty(world, given.capacity, state, probability), world.curve.bound)
    return replace(state, loss=loss, expert_loss=expert_loss)


def _steered(given: Setting, state: State) -> State:
    """Router scores and biases after reinforcement and control."""
    rule, stride, scores = given.routing, given.run.learn_every, state.scores
    probability = _meant(given, state)
    if rule.reinforcement or rule.decay:
        reward = rule.reward(probability, state.expert_loss, state.loss.astype(given.dtype))
        rates = (stride * rule.reinforcement, stride * rule.decay)
        scores = routing.reinforce(scores, probability, reward, *rates, rule.reach)
        if state.rest.any():
            scores += stride * rule.decay * state.rest
    if rule.wander:
        scores = scores + (stride**0.5 * rule.wander * _wandering(given, state)).astype(given.dtype)
    bias, met = state.bias, _met(rule, state, probability)
    for _ in range(stride):  # published step sizes are per step
        scores, bias = rule.control(scores, bias, *met)
    return replace(state, scores=scores, bias=bias)


def _met(rule: routing.Routing, state: State, probability: np.ndarray) -> tuple[Any, ...]:
    """What a control sees beside scores and bias."""
    met = (probability, state.load, state.drawn, state.alive)
    return (*met, state.tree) if rule.control.traits["tree"] else met


def _meant(given: Setting, state: State) -> np.ndarray:
    """Routing probabilities, with an even spread for domains that no expert chose, where a router may leave some."""
    if given.routing.assign.traits["drawn"]:
        return state.probability
    missed = state.probability.sum(axis=-1) <= 0
    if not missed.any():
        return state.probability
    return np.where(missed[:, :, None], state.alive[:, None, :], state.probability)


def time_step(given: Setting, state: State) -> tuple[State, dict[str, np.ndarray]]:
    """Add the step's time to the clock; the parts go to the record, with the slots that its tokens met.

    Shared experts and generated tokens count as dense parts.
    """
    machine = given.machine
    served, parts = _timed(given, state, state.load, given.active)
    if state.tree is not None and state.tree.soft.any():
        every = _timed(given, state, state.alive * given.tokens, int(state.alive.sum(axis=1).max()))
        served = placement.where(state.tree.soft, every[0], served)
        parts = {name: np.where(_rows(state.tree.soft, part), every[1][name], part) for name, part in parts.items()}
    parts["dense"] = parts["dense"] + given.run.shared_experts * clock.balanced_seconds(machine, given.tokens, 1)
    if made := state.memory.get("generated"):
        parts["dense"] = parts["dense"] + made.cost * np.sum([parts[name] for name in clock.PARTS], axis=0)
    total = np.sum([parts[name] for name in clock.PARTS], axis=0)
    parts |= {"step_time": total, "slots": served.slots}
    return replace(state, placement=served, wall_clock=state.wall_clock + total), parts


def _rows(chosen: np.ndarray, like: np.ndarray) -> np.ndarray:
    return chosen.reshape(-1, *[1] * (like.ndim - 1))


def _timed(given: Setting, state: State, load: np.ndarray, active: int) -> tuple[Placement, dict[str, np.ndarray]]:
    """Placement and parts of the time where experts compute these loads, of tokens that meet `active` experts each."""
    machine = given.machine
    served = placement.serve(given.placing, state.placement, load, machine.cluster.speed)
    met = (served, load, state.frozen, given.tokens, active, state.migrated)
    late = {"planned": state.planned, "behind": given.placing.overlap}
    parts = clock.step_seconds(machine, *met, room=_room(given, state), chosen=given.active, **late)
    return served, {**parts, "load": fitted(load, given.most_experts)}


def step(given: Setting, state: State) -> tuple[State, dict[str, np.ndarray]]:
    """One step of all seeds of a block."""
    state = learn_step(given, route_step(given, sample_step(given, state)))
    state, parts = time_step(given, state)
    edited = structure.restructure(given.structure, state, given)
    changed = (edited.copies != fitted(state.copies, edited.experts)).any(axis=1)
    placed = placement.place(given.placing, branches.advanced(given, edited), given, changed)
    return replace(placed, step=state.step + 1), parts


def rehearse(given: Setting) -> None:
    """Ask each policy once, the structure with everyone hot, and forget it: what is refused is refused now."""
    state = sample_step(given, start(given))
    given.routing.control(state.scores, state.bias, *_met(given.routing, state, state.probability))
    if given.structure.grows:
        demand = structure.natural_demand(state, given.world.natural)
        given.structure.policy(structure.View(state, given, 0, np.flatnonzero(state.alive[0]), demand))


def trajectory(given: Setting) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
    """States after each step, with the parts of its time."""
    keep_freed()
    state = start(given)
    for _ in range(given.steps):
        state, parts = step(given, state)
        yield state, parts
