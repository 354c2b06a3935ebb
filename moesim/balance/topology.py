"""Fixed topologies of replicas, as LPLB has them: whose expert each device's redundant slots copy.

Source: deepseek-ai/LPLB (read in shizhengLi/deepseek-lplb-learning, commit ba2936a2): the i-th redundant expert of a
device is a copy of the i-th heaviest of one other device, so that an edge joins exactly two devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from moesim.balance.packing import pack
from moesim.errors import InputError

_CUBE = ((3, 6), (0, 7), (1, 4), (2, 5), (7, 0), (4, 1), (5, 2), (6, 3))


def _ring(devices: int, nodes: int) -> np.ndarray:
    return (np.arange(devices)[:, None] + 1) % devices


def _cubes(devices: int, nodes: int) -> np.ndarray:
    return _repeated(np.array(_CUBE), devices)


def _hypercubes(devices: int, nodes: int) -> np.ndarray:
    place = np.arange(16)
    return _repeated(np.stack([place - place % 4 + (place + 3) % 4, (place + 12) % 16], axis=1), devices)


def _torus(devices: int, nodes: int) -> np.ndarray:
    wide = devices // nodes
    node, place = np.divmod(np.arange(devices), wide)
    return np.stack([(node + 1) % nodes * wide + place, node * wide + (place + 1) % wide], axis=1)


def _repeated(table: np.ndarray, devices: int) -> np.ndarray:
    size = len(table)
    if devices % size:
        raise InputError(f"placement: devices={devices} do not fill groups of {size}; use a multiple, or topology=ring")
    return (table + size * np.arange(devices // size)[:, None, None]).reshape(devices, -1)


TOPOLOGIES: Mapping[str, Callable[[int, int], np.ndarray]] = {
    "ring": _ring,
    "cube": _cubes,
    "hypercube": _hypercubes,
    "torus": _torus,
}
"""Name -> (devices, nodes) -> the device (device, redundant) whose expert each redundant slot copies."""


def wired(
    loads: np.ndarray, slots: int, devices: int, copied_from: np.ndarray, speed: np.ndarray | None = None
) -> np.ndarray:
    """Slots (layer, slot) of experts packed without copies, and of the heaviest of each device copied along edges.

    `loads` (layer, expert); `copied_from` (device, redundant), as far as there is room; `speed` as in `pack`. Slots
    that the edges do not fill evenly stay empty (-1).
    """
    layers, experts = loads.shape
    own, room = -(-experts // devices), slots // devices
    padded = np.pad(loads, ((0, 0), (0, own * devices - experts)))  # with experts of no load, which are none
    device, place = pack(padded, devices, speed)
    home = np.empty((layers, devices, own), dtype=np.int64)
    home[np.arange(layers)[:, None], device, place] = np.arange(own * devices)
    weight = np.take_along_axis(padded, home.reshape(layers, -1), axis=1).reshape(home.shape)
    order = np.lexsort((-weight, home >= experts), axis=-1)
    home = np.take_along_axis(home, order, axis=-1)
    home[home >= experts] = -1
    edges = copied_from.shape[1]
    rounds = min(room - own, own) // edges
    out = np.full((layers, devices, room), -1)
    out[:, :, :own] = home
    for j in range(rounds):
        for edge in range(edges):
            out[:, :, own + j * edges + edge] = home[:, copied_from[:, edge], j * edges + edge]
    return out.reshape(layers, -1)
