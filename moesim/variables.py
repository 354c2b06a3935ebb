"""The table of variables: one name, unit, symbol and domain for each quantity, wherever it appears."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Domain:
    """An interval of the real line; `text` says it in words for error messages."""

    text: str
    lower: float = -inf
    upper: float = inf
    lower_open: bool = True
    upper_open: bool = True

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Whether each value lies in the interval (NaN never does)."""
        above = values > self.lower if self.lower_open else values >= self.lower
        return above & (values < self.upper if self.upper_open else values <= self.upper)


REAL = Domain("any finite number")
POSITIVE = Domain("a number above 0", 0)
NON_NEGATIVE = Domain("0 or more", 0, lower_open=False)
AT_LEAST_ONE = Domain("1 or more", 1, lower_open=False)
SHARE = Domain("0 or more and below 1", 0, 1, lower_open=False)
FRACTION = Domain("above 0 and at most 1", 0, 1, upper_open=False)
POSITIVE_OR_INF = Domain("a number above 0, or inf for unlimited", 0, upper_open=False)


@dataclass(frozen=True)
class Variable:
    """A row of the table: unit, long name, symbol and domain of one quantity."""

    unit: str
    long_name: str
    symbol: str
    domain: Domain = POSITIVE


VARIABLES = {
    "compute": Variable("FLOP", "training compute", "C"),
    "active_params": Variable("parameter", "active parameters", "N_a"),
    "total_params": Variable("parameter", "total parameters", "N"),
    "low_params": Variable("parameter", "fewest active parameters within the tolerance of the best loss", "N_a"),
    "high_params": Variable("parameter", "most active parameters within the tolerance of the best loss", "N_a"),
    "parabola_active_params": Variable("parameter", "active parameters at the vertex of a fitted parabola", "N_a"),
    "parabola_epochs": Variable("1", "passes over the unique tokens at the vertex of a fitted parabola", "D/U"),
    "active_nonembedding_params": Variable("parameter", "active parameters without embeddings", "N_a"),
    "nonembedding_params": Variable("parameter", "total parameters without embeddings", "N"),
    "sparsity": Variable("1", "inactive share of the routed experts", "S", SHARE),
    "experts": Variable("1", "routed experts per MoE layer", "E", AT_LEAST_ONE),
    "active_experts": Variable("1", "active routed experts per token", "K", POSITIVE),
    "shared_experts": Variable("1", "shared experts per MoE layer", "K_s", NON_NEGATIVE),
    "granularity": Variable("1", "granularity: dense d_ff / expert d_ff", "G"),
    "activation_ratio": Variable("1", "active share of all experts, shared ones counted", "A", FRACTION),
    "shared_ratio": Variable("1", "shared share of the active experts", "S", SHARE),
    "density": Variable("1", "share of the weights that acts on a token", "q", FRACTION),
    "tokens": Variable("token", "tokens processed", "D"),
    "unique_tokens": Variable("token", "unique tokens available", "U", POSITIVE_OR_INF),
    "epochs": Variable("1", "epochs", "D/U", NON_NEGATIVE),
    "flops_per_token": Variable("FLOP/token", "training FLOPs per token", "F"),
    "loss": Variable("nat/token", "loss", "L"),
    "accuracy": Variable("1", "share of a task's questions answered right", "acc", FRACTION),
    "flops": Variable("FLOP", "FLOPs of one optimiser step", "F", NON_NEGATIVE),
    "step_flops": Variable("FLOP", "FLOPs of one optimiser step, all layers and passes", "F", NON_NEGATIVE),
    "run_flops": Variable("FLOP", "training FLOPs of a whole run", "C", NON_NEGATIVE),
    "weights": Variable("parameter", "weights", "P", NON_NEGATIVE),
    "active_weights": Variable("parameter", "weights that act on one sample", "P_a", NON_NEGATIVE),
    "batch": Variable("sample", "samples or tokens per optimiser step", "B"),
    "depth": Variable("1", "intermediate layers", "n", NON_NEGATIVE),
    "total_to_forward": Variable("1", "FLOPs of an optimiser step / FLOPs of its forward pass", "", AT_LEAST_ONE),
    "backward_to_forward": Variable("1", "FLOPs of backward pass and update / of the forward pass", "", NON_NEGATIVE),
    "tokens_per_expert": Variable("token", "tokens that one expert sees per optimiser step", "b"),
    "expert_ratio": Variable("1", "FLOPs of an expert's step / of its forward pass", "", AT_LEAST_ONE),
    "expert_backward": Variable("1", "FLOPs of an expert's backward pass and update / of its forward pass", ""),
    "expert_update": Variable("FLOP/parameter", "FLOPs of an expert's update per weight", "u", NON_NEGATIVE),
    "sequence": Variable("token", "tokens per sequence", "T", NON_NEGATIVE),
    "layers": Variable("1", "layers", "L"),
    "d_model": Variable("1", "width", "d"),
    "batch_tokens": Variable("token", "tokens per optimiser step", "B"),
    "step_seconds": Variable("s", "time of an optimiser step", "t", NON_NEGATIVE),
    "mfu": Variable("1", "model FLOPs utilisation", "MFU", NON_NEGATIVE),
    "hours": Variable("h", "wall-clock of the run, failures included", "", NON_NEGATIVE),
    "device_hours": Variable("h", "device-hours of the run", "", NON_NEGATIVE),
    "cost": Variable("$", "cost of the run", "", NON_NEGATIVE),
    "energy": Variable("kWh", "energy of the run", "", NON_NEGATIVE),
    "chosen_sparsity": Variable("1", "sparsity of a choice", "S", SHARE),
    "equal_flop_sparsity": Variable("1", "best sparsity at the FLOPs of the best run", "S", SHARE),
    "tflops_per_device": Variable("TFLOP/s", "model FLOPs per second and device", "", NON_NEGATIVE),
    "kv_bytes": Variable("byte/token", "keys and values that attention keeps", "", NON_NEGATIVE),
    "decode_rate": Variable("token/s", "most tokens decoded, all devices", "", NON_NEGATIVE),
    "streams": Variable("1", "sequences decoded at once", "n"),
    "step_part": Variable("s", "time of a step, by part", "t", NON_NEGATIVE),
    "forward_seconds": Variable("s", "time of a forward pass", "t", NON_NEGATIVE),
    "measured_mfu": Variable("1", "model FLOPs utilisation, as measured", "MFU", NON_NEGATIVE),
    "margin_time": Variable("nat/token", "penalty of gating at which dense is as good, at equal time", "", REAL),
    "margin_flops": Variable("nat/token", "penalty of gating at which dense is as good, at equal FLOPs", "", REAL),
    "margin_experts": Variable("1", "share of the experts that must be effective, at equal time", "", FRACTION),
    "goodput": Variable("1", "share of the time that is useful", "", FRACTION),
    "gain": Variable("nat/token", "lower loss with a quarter more of a resource", "", NON_NEGATIVE),
    "odds": Variable("1", "share of laws, readings, draws that find it better", "", NON_NEGATIVE),
    "leverage": Variable("1", "efficiency leverage: dense FLOPs / MoE FLOPs at equal loss", "EL"),
    "draw": Variable("1", "draw of the uncertain coefficients", "", NON_NEGATIVE),
    "loads": Variable("token", "token assignments per step", "", NON_NEGATIVE),
    "device_loads": Variable("token", "token assignments per step and device", "", NON_NEGATIVE),
    "device_busy": Variable("s", "time a device works on experts", "", NON_NEGATIVE),
    "max_over_mean": Variable("1", "busiest device / mean device", "", NON_NEGATIVE),
    "max_vio": Variable("1", "MaxVio of the step: (max - mean)/mean over experts", "", NON_NEGATIVE),
    "max_vio_global": Variable("1", "MaxVio of the loads of the last 100 steps", "", NON_NEGATIVE),
    "balancedness": Variable("1", "mean device / busiest device", "", NON_NEGATIVE),
    "gini": Variable("1", "Gini coefficient of expert loads", "", NON_NEGATIVE),
    "drop_share": Variable("1", "share of assignments dropped", "", NON_NEGATIVE),
    "utilisation": Variable("1", "share of the step that a mean device computes", "", NON_NEGATIVE),
    "idle_share": Variable("1", "share of the expert time that a mean device waits", "", NON_NEGATIVE),
    "step_time": Variable("s", "time of a step, mean since the last record", "", NON_NEGATIVE),
    "wall_clock": Variable("s", "wall-clock", "", NON_NEGATIVE),
    "micro_loss": Variable("nat/token", "loss by natural frequency", "", NON_NEGATIVE),
    "macro_loss": Variable("nat/token", "mean loss over domains", "", NON_NEGATIVE),
    "target_loss": Variable("nat/token", "loss that the sampler aims at", "", NON_NEGATIVE),
    "tail_loss": Variable("nat/token", "mean loss of the rarest tenth of the domains", "", NON_NEGATIVE),
    "domain_loss": Variable("nat/token", "loss of a domain", "", NON_NEGATIVE),
    "sampling_weight": Variable("1", "share of the tokens drawn from a domain", "", NON_NEGATIVE),
    "experts_alive": Variable("1", "experts", "", NON_NEGATIVE),
    "splits": Variable("1", "splits so far", "", NON_NEGATIVE),
    "edits": Variable("1", "steps so far that changed experts or their copies, -1: none may", "", REAL),
    "alive": Variable("1", "whether an expert is there", "", NON_NEGATIVE),
    "frozen_share": Variable("1", "share of experts without weight updates", "", NON_NEGATIVE),
    "copies": Variable("1", "slots that hold an expert", "", NON_NEGATIVE),
    "regret_balance": Variable("1", "busiest device above its lower bound", "", REAL),
    "regret_time": Variable("1", "step time above its lower bound", "", REAL),
    "regret_loss": Variable("nat/token", "target loss above its lower bound at these tokens", "", REAL),
    "parent": Variable("1", "expert that this one was split from, -1 if none", "", REAL),
    "born": Variable("step", "step at which an expert was split off", "", NON_NEGATIVE),
    "separation_steps": Variable("step", "steps until a split expert stood apart", "", NON_NEGATIVE),
    "regret_schedule": Variable("1", "busiest device above the best sharing among replicas, last step", "", REAL),
    "regret_lpt": Variable("1", "busiest device above LPT of the same copies, last step", "", REAL),
    "regret_floor": Variable("1", "MaxVio above the noise floor of random routing, last step", "", REAL),
    "tree_depth": Variable("1", "levels of decisions above the leaves", "", NON_NEGATIVE),
    "leaf_samples": Variable("1", "samples of a batch that a leaf sees once decisions are hard", "", NON_NEGATIVE),
    "sample_forward": Variable("FLOP", "forward pass of a sample", "", NON_NEGATIVE),
    "sample_training": Variable("FLOP", "forward and backward pass of a sample", "", NON_NEGATIVE),
    "accuracy_lost": Variable("point", "accuracy lost to a dense layer as wide, as published", "", NON_NEGATIVE),
    "decision_entropy": Variable("nat", "mean entropy of a decision of the router's trees", "", NON_NEGATIVE),
    "rounding": Variable("1", "share of the tokens that rounded decisions send elsewhere", "", NON_NEGATIVE),
    "node_tilt": Variable("1", "most that a branch's share of the load is above that of its leaves", "", NON_NEGATIVE),
    "mean_depth": Variable("1", "decisions above the leaf of a token", "", NON_NEGATIVE),
    "leaf_bits": Variable("bit", "entropy of the leaves' loads, mean over trees", "", NON_NEGATIVE),
    "hardened": Variable("step", "steps until decisions round harmlessly", "", NON_NEGATIVE),
    "natural_weight": Variable("1", "natural frequency of a domain", "", NON_NEGATIVE),
    "domain_tokens": Variable("token", "tokens drawn from a domain", "", NON_NEGATIVE),
    "domain_epochs": Variable("1", "passes over a domain", "", NON_NEGATIVE),
    "expert_tokens": Variable("token", "assignments of the last step", "", NON_NEGATIVE),
    "tokens_to_target": Variable("token", "tokens until the target loss", "", NON_NEGATIVE),
    "time_to_target": Variable("s", "time until the target loss", "", NON_NEGATIVE),
    "shared_devices": Variable("1", "copies that share a device with another of their expert", "", NON_NEGATIVE),
    "memory": Variable("byte", "memory of the fullest device", "", NON_NEGATIVE),
    "memory_weights": Variable("byte", "experts' weights and gradients on it", "", NON_NEGATIVE),
    "memory_optimizer": Variable("byte", "experts' optimiser state on it", "", NON_NEGATIVE),
    "memory_activations": Variable("byte", "experts' activations on it", "", NON_NEGATIVE),
    "memory_buffers": Variable("byte", "exchange buffers on it", "", NON_NEGATIVE),
    "memory_share": Variable("1", "memory of the fullest device / of a chip", "", NON_NEGATIVE),
    "fullest_device": Variable("1", "device that holds most", "", NON_NEGATIVE),
    "out_of_memory_layer": Variable("1", "layer at which its memory runs out, -1 if never", "", REAL),
    "layer_max_over_mean": Variable("1", "busiest device / mean device of a layer", "", NON_NEGATIVE),
    "max_over_mean_hindsight": Variable(
        "1", "busiest / mean device, EPLB on the loads themselves: no bound", "", NON_NEGATIVE
    ),
    "max_over_mean_bound": Variable(
        "1", "busiest / mean device, no placement in these slots is below", "", NON_NEGATIVE
    ),
    "moved_copies": Variable("1", "copies fetched by devices", "", NON_NEGATIVE),
    "up": Variable("h", "site-hours up", "", NON_NEGATIVE),
    "working": Variable("h", "site-hours at work", "", NON_NEGATIVE),
    "waiting": Variable("h", "site-hours waiting for others or without work", "", NON_NEGATIVE),
    "sending": Variable("h", "site-hours stalled by sending", "", NON_NEGATIVE),
    "bytes": Variable("byte", "bytes sent by sites", "", NON_NEGATIVE),
    "slack_cost": Variable("$", "cost of time up and not at work", "", NON_NEGATIVE),
    "slack_energy": Variable("kWh", "energy of time up and not at work", "", NON_NEGATIVE),
    "hours_to_target": Variable("h", "wall-clock until the target loss", "", NON_NEGATIVE),
    "cost_to_target": Variable("$", "cost until the target loss", "", NON_NEGATIVE),
    "loss_factor": Variable("1", "loss of replicas / of one, so far", "", POSITIVE),
    "parts_gain": Variable("nat/token", "loss that parts gain by their own data", ""),
    "site_step": Variable("s", "a step of a site of mean speed", "", POSITIVE),
    "best_levels": Variable("1", "levels to cut off for the lowest loss", "", NON_NEGATIVE),
    "finished": Variable("1", "share of seeds that were done", "", NON_NEGATIVE),
    "bandwidth": Variable("bit/s", "bandwidth of each link", "W"),
    "days": Variable("d", "days of the run", ""),
    "at_work": Variable("1", "share of the time up that is work", "", NON_NEGATIVE),
    "idle_that_pays": Variable("s", "idling from which a low-power mode pays", "", NON_NEGATIVE),
    "weight": Variable("1", "sites that a simulated one stands for", "", NON_NEGATIVE),
    "fits": Variable("1", "whether a site can hold its part of the model", "", NON_NEGATIVE),
}

# What the time of a training step is made of.
TIME_PARTS = {
    "compute": "experts, mean device",
    "wait": "waiting for the slowest device",
    "all_to_all": "all-to-all",
    "dense": "everything but experts",
    "bubble": "pipeline bubble",
    "sync": "gradients of replicas and groups",
    "update": "weight update",
    "migration": "moving experts",
}
VARIABLES |= {
    f"time_{part}": Variable("s", f"time of a step: {t}", "t", NON_NEGATIVE) for part, t in TIME_PARTS.items()
}

# The ways to count the parameters of a model.
SIZES = ("total_params", "active_params", "nonembedding_params", "active_nonembedding_params")

_PREFIXES = {"optimal_": "compute-optimal ", "best_": "at the best sparsity: ", "gap_": "split_feed minus policy: "}
_PREFIXES |= {"scan_": "best run of each sparsity: "}
_SUFFIXES = {"_at_equal_tokens": " at equal tokens", "_at_equal_time": " at equal wall-clock"}


def check(owner: str, name: str, value: Any, domain: Domain) -> Any:
    """`value` as float, float array or DataArray if it is numeric and inside `domain`; InputError otherwise."""
    values = np.asarray(value)
    numbers = values.dtype.kind in "iuf" or (values.dtype.kind == "O" and all(map(_is_number, values.flat)))
    if not numbers:
        raise InputError(f"{owner}: {name}={value!r} is not a number; it takes {domain.text}")
    values = values.astype(float, copy=False)
    good = domain.contains(values)
    if not good.all():
        raise InputError(f"{owner}: {name}={values[~good].flat[0]:g} is outside its domain; it takes {domain.text}")
    if hasattr(value, "dims"):
        return value.astype(float)
    return values if values.ndim else float(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


# Whose data a run may lie outside of: the bits of `*extrapolated_by`.
OUTSIDE = {"law": 1, "repetition": 2, "anchor": 4}


def stamp(dataset: xr.Dataset) -> xr.Dataset:
    """Write unit and long name of the table on every variable and coordinate that the table knows; in place."""
    for name, array in dataset.variables.items():
        prefix = next((p for p in _PREFIXES if str(name).startswith(p)), "")
        suffix = next((s for s in _SUFFIXES if str(name).endswith(s)), "")
        row = VARIABLES.get(str(name).removeprefix(prefix).removesuffix(suffix))
        if row is not None:
            said = _PREFIXES.get(prefix, "") + row.long_name + _SUFFIXES.get(suffix, "")
            array.attrs = {"units": row.unit, "long_name": said}
        if str(name).endswith("extrapolated_by"):
            masks = np.array([*OUTSIDE.values()], np.uint8)
            array.attrs = {
                "long_name": "outside the data of",
                "flag_masks": masks,
                "flag_meanings": " ".join(OUTSIDE),
            }
    return dataset
