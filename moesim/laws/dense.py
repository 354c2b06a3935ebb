"""Published loss laws of dense models."""

from __future__ import annotations

from moesim.laws.law import Coefficient, law
from moesim.variables import NON_NEGATIVE

FLOOR = Coefficient("nat/token", typical=(1.2, 2.2), domain=NON_NEGATIVE)
SIZE = Coefficient(typical=(1e1, 1e4))
DATA = Coefficient(typical=(1e1, 1e5))
EXPONENT = Coefficient(typical=(0.2, 0.6))


@law(
    "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5",
    N_c=Coefficient("parameter", typical=(1e13, 1e14)),
    alpha_N=Coefficient(typical=(0.05, 0.15)),
    D_c=Coefficient("token", typical=(1e13, 1e14)),
    alpha_D=Coefficient(typical=(0.05, 0.15)),
)
def kaplan2020(nonembedding_params, tokens, *, N_c, alpha_N, D_c, alpha_D):
    """L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D.

    N: parameters without embeddings. The coefficients belong to this joint form; those of the paper's separate laws
    in N and in D differ. No loss floor: the loss falls to 0. Its compute-optimal N ~ C^0.73 is an artefact of head
    FLOPs, warm-up and untuned hyper-parameters (Porian et al. 2024, arXiv:2406.19146).
    """
    N, D = nonembedding_params, tokens
    return ((N_c / N) ** (alpha_N / alpha_D) + D_c / D) ** alpha_D


@law("Hoffmann et al. 2022, arXiv:2203.15556, eq. 2", E=FLOOR, A=SIZE, alpha=EXPONENT, B=DATA, beta=EXPONENT)
def hoffmann2022(total_params, tokens, *, E, A, alpha, B, beta):
    """L = E + A/N^alpha + B/D^beta (Chinchilla, approach 3).

    N: total parameters, embeddings counted. Compute-optimal at C = 6 N D: N = G (C/6)^(beta/(alpha+beta)) with
    G = (alpha A/(beta B))^(1/(alpha+beta)). Behind it: more than 400 dense models of 70M-16B parameters on 5B-500B
    tokens, one epoch each. A and B are nearly unidentified: compare exponents, E and the loss, not A and B.
    """
    N, D = total_params, tokens
    return E + A * N**-alpha + B * D**-beta


@law("Gadre et al. 2024, arXiv:2403.08540 (authors' code: scaling/laws.py)", E=FLOOR, A=SIZE, B=DATA, alpha=EXPONENT)
def gadre2024(total_params, tokens, *, E, A, B, alpha):
    """L = E + A N^-alpha + B (M N)^-alpha with M = D/N; as printed, E + (a M^eta + b M^-eta) C^-eta, eta = alpha/2.

    N: total parameters. It is hoffmann2022 with alpha = beta, so the best M is the same at every compute. Behind
    it: 104 dense models of 11M-6.9B parameters, M from 5 to 640; one fit per training set (their E are not
    comparable).
    """
    N, M = total_params, tokens / total_params
    return E + A * N**-alpha + B * (M * N) ** -alpha


@law(
    "Bryant and Liu 2026, arXiv:2605.09189",
    L0=Coefficient("nat/token", typical=(9.0, 12.0)),
    E=FLOOR,
    a=Coefficient(typical=(1.0, 1e3)),
    alpha=EXPONENT,
    b=Coefficient(typical=(1.0, 1e4)),
    beta=EXPONENT,
    c=Coefficient(typical=(1e-4, 1e2)),
    gamma=Coefficient(typical=(0.1, 1.5)),
    delta=Coefficient(typical=(0.1, 1.5)),
)
def bryant2026(total_params, tokens, unique_tokens, *, L0, E, a, alpha, b, beta, c, gamma, delta):
    """L = E + (L0 - E) h/(1 + h) with h = a/N^alpha + b/D^beta + c N^gamma/U^delta.

    L0: loss of the untrained model, the log of the vocabulary. The last term is overfitting: it grows with parameters
    for each unique token, not with epochs, so that the loss can rise with N and never exceeds L0.
    """
    N, D, U = total_params, tokens, unique_tokens
    h = a * N**-alpha + b * D**-beta + c * N**gamma * U**-delta
    return E + (L0 - E) * (h / (1.0 + h))
