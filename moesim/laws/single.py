"""Laws of one variable, and what a loss is worth on a task."""

from __future__ import annotations

import numpy as np

from moesim.laws.dense import FLOOR, SIZE
from moesim.laws.law import Coefficient, law
from moesim.variables import FRACTION, SHARE

_SOURCE = "Henighan et al. 2020, arXiv:2010.14701, eq. 1.1"
_SLOPE = Coefficient(typical=(0.03, 0.6))


@law(f"{_SOURCE}, in size", L_inf=FLOOR, A=SIZE, alpha=_SLOPE)
def henighan2020_size(total_params, *, L_inf, A, alpha):
    """L = L_inf + A/N^alpha: loss against size where data do not limit it.

    N: parameters as the runs count them (the paper leaves out embeddings). A is (N_0)^alpha of the paper.
    """
    return L_inf + A * total_params**-alpha


@law(f"{_SOURCE}, in data", L_inf=FLOOR, A=SIZE, alpha=_SLOPE)
def henighan2020_data(tokens, *, L_inf, A, alpha):
    """L = L_inf + A/D^alpha: loss against tokens where size does not limit it. A is (D_0)^alpha of the paper."""
    return L_inf + A * tokens**-alpha


@law(f"{_SOURCE}, in compute", L_inf=FLOOR, A=Coefficient(typical=(1.0, 1e3)), alpha=Coefficient(typical=(0.03, 0.2)))
def henighan2020_compute(compute, *, L_inf, A, alpha):
    """L = L_inf + A/C^alpha: the envelope, the best loss at each budget.

    For a fit each run is the best of its budget. Where two recipes share L_inf and alpha, the speed-up of the better
    one is ((L_worse - L_inf)/(L_better - L_inf))^(1/alpha) at every budget; see `moesim.versus`.
    """
    return L_inf + A * compute**-alpha


@law(
    "Bhagia et al. 2024, arXiv:2412.04403, step 2",
    predicts="accuracy",
    low=Coefficient("1", typical=(0.05, 0.5), domain=SHARE),
    high=Coefficient("1", typical=(0.6, 1.0), domain=FRACTION),
    k=Coefficient("token/nat", typical=(1.0, 20.0)),
    L_0=Coefficient("nat/token", typical=(0.3, 4.0)),
)
def bhagia2024(loss, *, low, high, k, L_0):
    """accuracy = low + (high - low)/(1 + exp(k (L - L_0))), which falls from high to low as the loss rises.

    L: the loss that goes with the task (in the paper bits per byte of the right answers, predicted from N and D by the
    form of hoffmann2022). low: accuracy of guessing. As printed, a/(1 + exp(-k' (L - L_0))) + b with a = low - high,
    k' = k and b = high.
    """
    return low + (high - low) / (1.0 + np.exp(k * (loss - L_0)))
