"""Memory of the devices that hold placed experts, layer by layer, and where it runs out."""

from __future__ import annotations

import numpy as np

from moesim.hardware.step import Machine

KINDS = ("weights", "optimizer", "activations", "buffers")


def footprint(machine: Machine, held: np.ndarray, received: np.ndarray) -> dict[str, np.ndarray]:
    """Bytes (row, layer, device) of each of KINDS, for copies `held` and assignments `received` in a step, so shaped.

    Weights with their gradients, and the optimiser's state (shared among the groups if it is sharded), stay. Of each
    assignment of the microbatches in flight, as many as the pipeline has stages, its input, output and what lies
    between are kept for the backward pass (its input alone with `recompute`). Buffers hold what arrives and leaves in a
    microbatch; the layers use them in turn.
    """
    expert, schedule, cluster = machine.expert, machine.schedule, machine.cluster
    copies = held * expert.weights
    sharers = cluster.groups if schedule.sharded_optimizer else 1
    rows = received / schedule.microbatches
    inner = 0.0 if schedule.recompute else expert.d_model + expert.matrices * expert.width
    flying = min(cluster.stages, schedule.microbatches)
    return {
        "weights": copies * (schedule.value_bytes + schedule.gradient_bytes),
        "optimizer": copies * schedule.optimizer_bytes / sharers,
        "activations": rows * flying * schedule.value_bytes * (expert.d_model + inner),
        "buffers": rows * expert.d_model * (schedule.dispatch_bytes + schedule.combine_bytes),
    }


def fullest(machine: Machine, held: np.ndarray, received: np.ndarray) -> dict[str, np.ndarray]:
    """What the fullest device holds (row,): `memory` and its kinds in bytes, `fullest_device`, and the verdict.

    `memory_share` of the chip's memory (NaN where that is unknown). `out_of_memory_layer`: the layer of that device
    whose states, or then activations, no longer fit; -1 if all do. Everything but experts takes `dense_memory`.
    """
    parts = footprint(machine, held, received)
    limit = machine.chip.memory - machine.schedule.dense_memory
    states = np.cumsum(parts["weights"] + parts["optimizer"], axis=1)
    used = states[:, -1:] + np.cumsum(parts["activations"], axis=1) + parts["buffers"]
    most = used.max(axis=1)
    device = most.argmax(axis=1)
    row = np.arange(len(most))
    over = np.concatenate([states, used], axis=1)[row, :, device] > limit
    layer = np.where(over.any(axis=1), over.argmax(axis=1) % used.shape[1], -1)
    total = {name: part[row, :, device] for name, part in parts.items()}
    memory = most[row, device] + machine.schedule.dense_memory
    return {
        "memory": memory,
        **{
            f"memory_{name}": part.max(axis=1) if name == "buffers" else part.sum(axis=1)
            for name, part in total.items()
        },
        "memory_share": memory / machine.chip.memory,
        "fullest_device": device,
        "out_of_memory_layer": layer,
    }
