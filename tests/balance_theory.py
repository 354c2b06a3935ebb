"""What theory says the simulator must do: optima, thresholds and closed forms that it is checked against."""

from itertools import combinations
from typing import Any

import numpy as np

from moesim.balance.bounds import zmax
from moesim.balance.routing import inclusion, reinforce
from moesim.errors import InputError
from moesim.variables import NON_NEGATIVE, POSITIVE, check


def hall_bound(loads: np.ndarray, slots: np.ndarray, devices: int) -> float:
    """Least possible load of the busiest device: max over device sets S of (load with all copies inside S) / |S|.

    Arguments as for `schedule`, whose optimum it equals. Sets are enumerated up to 16 devices; above that the set is
    improved from the linear programme's own (Dinkelbach's iteration), which ends at the same value.
    """
    homes = _homes(np.asarray(slots), len(loads), devices)
    loads = np.asarray(loads, dtype=float)
    if devices > 16:
        return _dinkelbach(loads, homes)
    masks = (homes.astype(np.int64) @ (1 << np.arange(devices))).astype(np.int64)
    inside = np.zeros(1 << devices)
    np.add.at(inside, masks[loads > 0], loads[loads > 0])
    for bit in range(devices):  # sums over subsets, one device at a time
        view = inside.reshape(-1, 2, 1 << bit)
        view[:, 1] += view[:, 0]
    sizes = np.array([int(s).bit_count() for s in range(1 << devices)])
    return float((inside[1:] / sizes[1:]).max())


def _homes(slots: np.ndarray, experts: int, devices: int) -> np.ndarray:
    homes = np.zeros((experts, devices), dtype=bool)
    used = np.flatnonzero(slots >= 0)
    homes[slots[used], used // (len(slots) // devices)] = True
    return homes


def _dinkelbach(loads: np.ndarray, homes: np.ndarray) -> float:
    """The bound by repeated best sets for a given ratio; each is a closure, solved as a linear programme."""
    ratio = loads.sum() / homes.shape[1]
    for _ in range(homes.shape[1]):
        value, inside, count = _best_set(loads, homes, ratio)
        if value <= 1e-12 * max(loads.sum(), 1e-300) or count == 0:
            break
        ratio = inside / count
    return float(ratio)


def _best_set(loads: np.ndarray, homes: np.ndarray, ratio: float) -> tuple[float, float, int]:
    """Devices S that maximise load inside S - ratio |S|: variables x_e <= y_g for every home g of expert e."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    experts, devices = homes.shape
    e, g = np.nonzero(homes)
    rows = np.arange(len(e))
    entries = (np.append(np.ones(len(e)), -np.ones(len(e))), (np.append(rows, rows), np.append(e, experts + g)))
    matrix = coo_array(entries, shape=(len(e), experts + devices)).tocsr()
    scale = max(float(loads.sum()), 1e-300)
    cost = np.append(-loads, np.full(devices, ratio)) / scale
    found = linprog(cost, A_ub=matrix, b_ub=np.zeros(len(e)), bounds=(0, 1), method="highs")
    chosen = found.x[experts:] > 0.5
    inside = float(loads[~(homes & ~chosen).any(axis=1)].sum())
    return inside - ratio * chosen.sum(), inside, int(chosen.sum())


def least_makespan(weights: Any, machines: int) -> float:
    """The optimum that LPT approximates, by trying all subsets; for small instances (15 items or fewer)."""
    weights = tuple(map(float, weights))
    if len(weights) > 15:
        raise InputError(f"least_makespan: {len(weights)} items; it tries all subsets, give 15 or fewer")

    def best(items: tuple[float, ...], left: int) -> float:
        if left == 1 or not items:
            return sum(items)
        first, rest, found = items[0], items[1:], float("inf")
        for size in range(len(rest) + 1):
            for others in combinations(range(len(rest)), size):
                own = first + sum(rest[i] for i in others)
                if own < found:
                    remaining = tuple(x for i, x in enumerate(rest) if i not in others)
                    found = min(found, max(own, best(remaining, left - 1)))
        return found

    return best(weights, int(machines))


def gaussian_floor(tokens_per_expert: float, experts: int, active: int = 1) -> float:
    """The floor for many tokens per expert: E[Zmax] sqrt((1 - K/N) / ((1 - 1/N) tokens_per_expert))."""
    spread = (1.0 - active / experts) / ((1.0 - 1.0 / experts) * tokens_per_expert)
    return float(zmax(experts) * np.sqrt(spread))


def drop_fraction(tokens_per_expert: float, capacity_factor: float = 1.0) -> float:
    """Share of tokens dropped when random routing meets a capacity of capacity_factor x the mean; exact for Poisson."""
    from scipy.special import gammainc

    mu = float(check("drop_fraction", "tokens_per_expert", tokens_per_expert, POSITIVE))
    capacity = mu * float(check("drop_fraction", "capacity_factor", capacity_factor, POSITIVE))
    first = int(np.floor(capacity)) + 1  # the smallest count above capacity
    above = gammainc(first, mu)
    at_least_previous = gammainc(first - 1, mu) if first > 1 else 1.0
    return float(at_least_previous - capacity / mu * above)


def collapse_threshold(experts: int, temperature: float, decay: float) -> float:
    """Reinforcement above which even routing is unstable: experts x temperature x decay.

    In dS_i/dt = kappa p_i - decay S_i with p = softmax(S / temperature): continuous for two experts, a jump for more.
    """
    return experts * temperature * decay


def fed_share(reinforcement: float, experts: int, temperature: float, decay: float, start: float = 1e-3) -> float:
    """experts x largest probability that pure reinforcement settles at, from a small preference `start`."""
    scores = np.zeros((1, 1, experts))
    scores[..., 0] = start
    rate = 0.2 / (decay + reinforcement / temperature)
    for _ in range(200_000):
        probability = inclusion(scores / temperature, 1)
        fresh = reinforce(scores, probability, 1.0, rate * reinforcement, rate * decay)
        if np.abs(fresh - scores).max() < 1e-13 * temperature:
            break
        scores = fresh
    return float(experts * probability.max())


def optimal_mixture(weight: Any, scale: Any, exponent: Any, tokens: float = 1.0) -> np.ndarray:
    """The fixed mixture that minimises sum_k weight_k scale_k (tokens q_k)^-exponent_k: domains do not interfere.

    All arguments (domain,) or numbers. With one exponent a it is (weight a scale)^(1/(1+a)), normalised, whatever the
    tokens; with several the common marginal gain is found by bisection.
    """
    weight, scale, a = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (weight, scale, exponent)))
    for name, value in {"weight": weight, "scale": scale}.items():
        check("optimal_mixture", name, value, NON_NEGATIVE)
    check("optimal_mixture", "exponent", a, POSITIVE)
    with np.errstate(divide="ignore"):
        base = np.log(weight * a * scale) - a * np.log(tokens)

    def mixture(price):
        return np.exp((base - price) / (1.0 + a))

    finite = base[np.isfinite(base)]
    reach = (1.0 + a.max()) * (np.log(len(base)) + 1.0)
    low, high = float(finite.max() - reach), float(finite.max() + reach)
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mixture(middle).sum() > 1.0 else (low, middle)
    solved = mixture(high)
    return solved / solved.sum()


def tilt(natural: np.ndarray, part: np.ndarray, bound: Any, least: float = 0.0) -> np.ndarray:
    """The mixture nearest to natural in KL whose expert loads sum_k q_k part_ke stay within `bound`.

    `natural` (domain,), `part` (domain, expert) with rows that sum to 1, `bound` a share of the tokens, one for all
    experts or (expert,). `least`: each domain keeps this part of its natural share, outside the tilt. Solved in the
    dual (convex, unique). Raises InputError naming a domain if no mixture reaches the bound.
    """
    from scipy.optimize import minimize

    p, part = np.asarray(natural, dtype=float), np.asarray(part, dtype=float)
    room = (np.broadcast_to(np.asarray(bound, dtype=float), part.shape[1:]) - least * (p @ part)) / (1.0 - least)
    _check_feasible(p, part, room, bound, least)

    def dual(price):
        exponent = -part @ price
        top = exponent.max()
        weight = p * np.exp(exponent - top)
        total = weight.sum()
        return np.log(total) + top + price @ room, room - weight @ part / total

    start = np.zeros(part.shape[1])
    options = {"maxiter": 5000, "maxfun": 50000, "ftol": 1e-16, "gtol": 1e-12}
    price = minimize(dual, start, jac=True, bounds=[(0, None)] * len(start), method="L-BFGS-B", options=options).x
    exponent = -part @ price
    free = p * np.exp(exponent - exponent.max())
    return least * p + (1.0 - least) * free / free.sum()


def _check_feasible(p, part, room, bound, least) -> None:
    from scipy.optimize import linprog

    domains, experts = part.shape
    matrix = np.hstack([part[p > 0].T, -np.ones((experts, 1))])
    count = int((p > 0).sum())
    total = np.append(np.ones(count), 0.0)[None]
    limits = [(0, None)] * count + [(None, None)]
    found = linprog(np.append(np.zeros(count), 1.0), A_ub=matrix, b_ub=room, A_eq=total, b_eq=[1.0], bounds=limits)
    if found.x[-1] > 1e-9:
        q = np.zeros(domains)
        q[p > 0] = found.x[:-1]
        q = least * p + (1.0 - least) * q
        expert = int(np.argmax(q @ part - np.broadcast_to(np.asarray(bound, dtype=float), (experts,))))
        domain = int(np.argmax((least * p if least else p) * part[:, expert]))
        raise InputError(
            f"tilt: expert {expert} cannot be brought to the load bound {np.max(bound):.3g} (best is "
            f"{(q @ part)[expert]:.3g}): domain {domain} makes it so; raise the bound, or split or replicate its expert"
        )


def quanta_loss(tokens: Any, alpha: float, quanta: int, threshold: float = 1.0, skip: bool = False) -> np.ndarray:
    """Loss left after `tokens` when quantum k has frequency k^-(1+alpha) and is learned once seen `threshold` times.

    Natural sampling learns those with p_k tokens >= threshold; `skip` spends no token on what is learned. Loss falls
    as tokens^-(alpha/(1+alpha)) and tokens^-alpha (Michaud et al. 2023, 2303.13506).
    """
    p = np.arange(1, quanta + 1, dtype=float) ** -(1.0 + alpha)
    p /= p.sum()
    left = np.append(p[::-1].cumsum()[::-1], 0.0)
    tokens = np.asarray(tokens, dtype=float)
    natural = np.searchsorted(-p, -threshold / tokens, side="right")
    solved = np.minimum(np.floor(tokens / threshold), quanta).astype(int) if skip else natural
    return left[solved]


def clone_separation_time(growth: float, noise: float, start: float, apart: float = 1.0) -> float:
    """Steps until clones are `apart`: (1/2g) ln[(apart^2 + s^2/2g) / (start^2 + s^2/2g)], inf if they do not diverge.

    Their distance follows dD = growth D dt + noise dW from `start`. Noise helps only logarithmically.
    """
    check("clone_separation_time", "noise", noise, NON_NEGATIVE)
    if growth <= 0:
        return float("inf")
    spread = noise**2 / (2.0 * growth)
    return float(np.log((apart**2 + spread) / (start**2 + spread)) / (2.0 * growth))


def pair_growth(reinforcement: float, temperature: float, decay: float, probability: float = 1.0) -> float:
    """Growth rate of the distance of two clones that share one choice: reinforcement p / (2 temperature) - decay."""
    return reinforcement * probability / (2.0 * temperature) - decay


def straggling(spread: float, devices: int) -> float:
    """Expected max/mean of device times with coefficient of variation `spread`: 1 + spread E[Zmax]."""
    return 1.0 + spread * zmax(devices)


def utilisation(ratio: Any, balanced_to_expert: float = 1.0) -> Any:
    """Busy share of devices when experts wait for the slowest: (1 + r)/(max/mean + r), r = balanced / expert time."""
    return (1.0 + balanced_to_expert) / (ratio + balanced_to_expert)


def variation(loads: Any) -> np.ndarray:
    """Coefficient of variation: standard deviation over mean."""
    loads = np.asarray(loads, dtype=float)
    return loads.std(axis=-1) / loads.mean(axis=-1)


def top_share(loads: Any, count: int) -> np.ndarray:
    """Share of the load on the `count` most loaded."""
    ordered = np.sort(np.asarray(loads, dtype=float), axis=-1)
    return ordered[..., -count:].sum(axis=-1) / ordered.sum(axis=-1)


def effective_experts(share: Any) -> np.ndarray:
    """exp of the entropy of load shares along the last axis: how many experts work."""
    share = np.asarray(share, dtype=float)
    share = share / share.sum(axis=-1, keepdims=True)
    return np.exp(-(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1))
