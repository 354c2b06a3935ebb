"""How much of the time replicas compute when they exchange their parameters over slow links, in closed form.

Replicas take `steps_between` steps of `step_seconds`, then average what they hold. With `fragments` P (Streaming
DiLoCo, Douillard et al. 2025, arXiv:2501.18512) a P-th of the parameters goes at a time, P times as often. It is hidden
behind the backward pass of a step (two thirds of it) and, with `overlap_steps`, behind so many steps more. What is not
hidden stalls. With w = H T/P seconds of work between sends of V = 2 (M - 1)/M N b/P bit,

    stall = max(0, V/W - (2/3 + tau) T),    utilisation = w/(w + stall).

Against the 75 bandwidths of the paper's Table 4 (nodes of a grid of ratio 1.21): median ratio 1.06, 72 within 1.25; the
others are cells of 99 %, where the last step of the grid decides. Data parallel is `steps_between=1`. Where a send
begins only when the steps are done, as in INTELLECT-1, `backward=0`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from moesim.hardware.chip import all_reduce_bytes
from moesim.variables import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, Domain, check

BACKWARD = 2 / 3
"""Share of a step that is its backward pass, behind which a send is hidden."""
_SHARE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)


class _Send(NamedTuple):
    bits: Any  # of one send on one link
    work: Any  # seconds between sends
    hidden: Any  # seconds of a send that cost nothing


def compute_utilisation(
    params: Any,
    step_seconds: Any,
    steps_between: Any,
    bits: Any = 16,
    bandwidth: Any = 1e9,
    fragments: Any = 1,
    overlap_steps: Any = 0,
    replicas: Any = 2,
    backward: Any = BACKWARD,
) -> Any:
    """Share of the wall-clock in which replicas compute; numbers or arrays that broadcast.

    `params` of the model, `step_seconds` of compute of one step, `bits` sent for a parameter, `bandwidth` of each link
    in bit/s, `replicas` that average in a ring (one sends nothing), `backward`: share of a step behind which a send is
    hidden. Raises InputError outside the domains.
    """
    send = _send(params, step_seconds, steps_between, bits, fragments, overlap_steps, replicas, backward)
    stall = np.maximum(send.bits / check("sites", "bandwidth", bandwidth, POSITIVE_OR_INF) - send.hidden, 0.0)
    return at_work(send.work, stall)


def bandwidth_for(
    utilisation: Any,
    params: Any,
    step_seconds: Any,
    steps_between: Any,
    bits: Any = 16,
    fragments: Any = 1,
    overlap_steps: Any = 0,
    replicas: Any = 2,
    backward: Any = BACKWARD,
) -> Any:
    """The bandwidth of each link, in bit/s, from which replicas compute `utilisation` of the time.

    The inverse of `compute_utilisation`, with its arguments; for a utilisation of 1 the least that hides every send.
    """
    send = _send(params, step_seconds, steps_between, bits, fragments, overlap_steps, replicas, backward)
    wanted = check("sites", "utilisation", utilisation, FRACTION)
    return send.bits / ((1.0 / wanted - 1.0) * send.work + send.hidden)


def at_work(work: Any, stall: Any) -> Any:
    """Share of the time that is work, for rounds of `work` seconds and `stall` seconds of waiting."""
    return work / (work + stall)


def ring_seconds(params: Any, bits: Any, bandwidth: Any, replicas: Any, latency: Any = 0.0) -> Any:
    """Seconds in which replicas average all parameters in a ring: 2 (M - 1)/M N b/W and the latency."""
    return all_reduce_bytes(replicas, 1.0) * params * bits / bandwidth + latency


def server_seconds(params: Any, bits: Any, up: Any, down: Any, latency: Any = 0.0) -> Any:
    """Seconds of a report to a server and of its answer: N b (1/up + 1/down) and the latency."""
    return params * bits * (1.0 / up + 1.0 / down) + latency


def _send(params, step_seconds, steps_between, bits, fragments, overlap_steps, replicas, backward) -> _Send:
    N, T, H, P, M, tau, b, hidden = (
        check("sites", name, value, domain)
        for name, value, domain in (
            ("params", params, POSITIVE),
            ("step_seconds", step_seconds, POSITIVE),
            ("steps_between", steps_between, AT_LEAST_ONE),
            ("fragments", fragments, AT_LEAST_ONE),
            ("replicas", replicas, AT_LEAST_ONE),
            ("overlap_steps", overlap_steps, NON_NEGATIVE),
            ("bits", bits, POSITIVE),
            ("backward", backward, _SHARE),
        )
    )
    return _Send(all_reduce_bytes(M, 1.0) * N * b / P, H * T / P, (hidden + tau) * T)
