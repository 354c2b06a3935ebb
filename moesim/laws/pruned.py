"""Published loss laws of weight-sparse models: the density is the share of the weights that are not zero."""

from __future__ import annotations

from moesim.laws.dense import DATA, EXPONENT, FLOOR, SIZE
from moesim.laws.law import Coefficient, law
from moesim.variables import NON_NEGATIVE, REAL


@law(
    "Frantar et al. 2023, arXiv:2309.08520, joint law in S, N and D",
    a_S=Coefficient(typical=(1.0, 500.0)),
    b_S=Coefficient(typical=(0.2, 2.0)),
    c_S=Coefficient(typical=(1.0, 1e3)),
    b_N=EXPONENT,
    a_D=Coefficient("token", typical=(1e8, 1e9)),
    b_D=Coefficient(typical=(0.1, 1.0)),
    c=Coefficient("nat/token", typical=(0.3, 5.0), domain=NON_NEGATIVE),
)
def frantar2023(active_params, tokens, density, *, a_S, b_S, c_S, b_N, a_D, b_D, c):
    """L = (a_S (1-S)^b_S + c_S)/N^b_N + (a_D/D)^b_D + c, with 1 - S = density.

    N: non-zero parameters, without embeddings; S: weight sparsity; D: tokens (images for ViT). A sparse model is
    worth a dense one of ((a_S + c_S)/(a_S density^b_S + c_S))^(1/b_N) times its non-zero parameters.
    """
    N, D = active_params, tokens
    return (a_S * density**b_S + c_S) * N**-b_N + (a_D / D) ** b_D + c


@law(
    "Wu et al. 2026, arXiv:2606.01155, one-epoch part (authors' notebook)",
    E=FLOOR,
    A=SIZE,
    B=DATA,
    alpha=EXPONENT,
    epsilon=Coefficient(typical=(-0.2, 0.2), domain=REAL),
    mu=Coefficient(typical=(0.2, 2.0)),
    c=Coefficient(typical=(-0.5, 0.0), domain=REAL),
)
def wu2026(active_params, tokens, density, *, E, A, B, alpha, epsilon, mu, c):
    """L = E + A f(s)/N^alpha + B/D^alpha with f(s) = s^epsilon + c (1-s)^mu of the density s.

    N: non-zero parameters. Behind it: models of 15M-1.92B raw parameters, density 1/16-1, at most 41.6B tokens. How
    it wears off when tokens repeat is the repetition form `wu2026`.
    """
    N, D = active_params, tokens
    return E + A * (density**epsilon + c * (1.0 - density) ** mu) * N**-alpha + B * D**-alpha
