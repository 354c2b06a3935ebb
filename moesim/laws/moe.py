"""Published loss laws of Mixture-of-Experts models."""

from __future__ import annotations

import numpy as np

from moesim.laws.dense import DATA, EXPONENT, FLOOR, SIZE, hoffmann2022
from moesim.laws.law import Coefficient, law
from moesim.variables import NON_NEGATIVE, REAL

START = Coefficient(typical=(1.2, 5.0))
MAXIMUM = Coefficient(typical=(100.0, 1000.0))


def saturated(extra, start, maximum):
    """Clark et al.'s saturating transform: `start` at extra = 0, about start + extra after it, `maximum` in the limit.

    1/y = 1/(extra + 1/(1/start - 1/maximum)) + 1/maximum, with extra = E - 1 for experts.
    """
    return 1.0 / (1.0 / (extra + 1.0 / (1.0 / start - 1.0 / maximum)) + 1.0 / maximum)


@law(
    "Clark et al. 2022, arXiv:2202.01169, bilinear form with saturation (authors' notebook)",
    a=Coefficient(typical=(-0.12, -0.05), domain=REAL),
    b=Coefficient(typical=(-0.2, -0.05), domain=REAL),
    c=Coefficient(typical=(0.005, 0.02), domain=REAL),
    d=Coefficient(typical=(0.9, 1.3), domain=REAL),
    E_start=START,
    E_max=MAXIMUM,
)
def clark2022(active_params, experts, *, a, b, c, d, E_start, E_max):
    """log10 L = a log10 N + b log10 Ê + c log10 N log10 Ê + d, Ê = `saturated`(E - 1).

    N: parameters seen by one token; E: experts of a routed layer, every second layer routed,
    one expert per token. There is no term in tokens: every run saw about 130.5B. Behind it: N 15M-1.3B, E 1-512. No
    loss floor, so it extrapolates worse than laws that have one; beyond N_max = 10^(-b/c) it says that experts
    hurt.
    """
    log_N, log_E = np.log10(active_params), np.log10(saturated(experts - 1.0, E_start, E_max))
    return 10.0 ** (a * log_N + b * log_E + c * log_N * log_E + d)


def clark2022_effective_params(active_params, experts, *, a, b, c, E_start, E_max):
    """Size of the dense model with the loss of a routed one, by clark2022 (same words; the authors' notebook).

    N^(s(Ê)/s(E_start)) (Ê/E_start)^(b/s(E_start)) with the slope s(x) = a + c log10 x.
    """
    expansion = saturated(experts - 1.0, E_start, E_max)
    dense = a + c * np.log10(E_start)
    return active_params ** ((a + c * np.log10(expansion)) / dense) * (expansion / E_start) ** (b / dense)


@law(
    "Krajewski et al. 2024, arXiv:2402.07871, joint law in N, D and G",
    c=FLOOR,
    g=Coefficient(typical=(0.5, 5.0), domain=NON_NEGATIVE),
    gamma=Coefficient(typical=(0.2, 1.0)),
    a=Coefficient(typical=(5.0, 50.0)),
    alpha=Coefficient(typical=(0.08, 0.3)),
    b=Coefficient(typical=(5.0, 100.0)),
    beta=Coefficient(typical=(0.08, 0.3)),
)
def krajewski2024(nonembedding_params, tokens, granularity, *, c, g, gamma, a, alpha, b, beta):
    """L = c + (g/G^gamma + a)/N^alpha + b/D^beta.

    N: total parameters without embeddings; G: granularity, d_ff of the dense block / d_ff of one expert. The
    expansion is fixed at 64 (G x 64 experts per layer, G active), so N stands for one sparsity only. Behind it: N
    129M-3.7B, D 16B-130B, G 1-16. The loss falls with G for ever; what stops it is the cost of routing, which the
    architecture must count.
    """
    N, D, G = nonembedding_params, tokens, granularity
    return c + (g * G**-gamma + a) * N**-alpha + b * D**-beta


@law(
    "Abnar et al. 2025, arXiv:2501.12370, eq. 6",
    a=SIZE,
    alpha=Coefficient(typical=(0.2, 1.0)),
    b=DATA,
    beta=Coefficient(typical=(0.2, 1.0)),
    c=Coefficient(typical=(0.1, 2.0)),
    lam=Coefficient(typical=(-0.5, 0.5), domain=REAL),
    d=Coefficient(typical=(1.0, 100.0)),
    delta=Coefficient(typical=(-0.5, 0.5), domain=REAL),
    gamma=Coefficient(typical=(0.05, 1.0)),
    e=Coefficient("nat/token", typical=(0.5, 2.2), domain=NON_NEGATIVE),
)
def abnar2025(total_params, tokens, sparsity, *, a, alpha, b, beta, c, lam, d, delta, gamma, e):
    """L = a/N^alpha + b/D^beta + c/(1-S)^lambda + d/((1-S)^delta N^gamma) + e; `lam` is lambda.

    N: total parameters; S: inactive share of the experts, not of the parameters. Behind it: budgets 3e19-1e21 FLOP,
    S 0-0.95 (S = 0.98 was held out, R2 there 68 %), one epoch. The published lambda is negative, so that c's term
    falls with S; only d's term opposes sparsity.
    """
    N, D, active = total_params, tokens, 1.0 - sparsity
    size = a * N**-alpha + c * active**-lam + d * active**-delta * N**-gamma + e  # summed first: fewer dims than D's
    return size + b * D**-beta


@law(
    "Ludziejewski et al. 2025, arXiv:2502.05172, joint MoE law",
    a=Coefficient(typical=(5.0, 1e3)),
    alpha=Coefficient(typical=(-0.4, -0.1), domain=REAL),
    delta=Coefficient(typical=(-0.5, 0.1), domain=REAL),
    gamma=Coefficient(typical=(-0.02, 0.03), domain=REAL),
    b=Coefficient(typical=(5.0, 1e3)),
    beta=Coefficient(typical=(-0.4, -0.1), domain=REAL),
    omega=Coefficient(typical=(-0.1, 1.0), domain=REAL),
    zeta=Coefficient(typical=(-0.05, 0.02), domain=REAL),
    E_start=START,
    E_max=MAXIMUM,
    c=FLOOR,
)
def ludziejewski2025(
    active_params, tokens, experts, *, a, alpha, delta, gamma, b, beta, omega, zeta, E_start, E_max, c
):
    """L = a Ê^delta N^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + c, Ê = `saturated`(E - 1).

    N: active parameters, embedding and unembedding counted; E: experts per layer, every layer routed, one expert
    per token. The published alpha and beta are negative. Behind it: more than 280 runs, at most 2.7B active and 5B
    total parameters, E 1-32; RMSE 0.0039 on held-out runs.
    """
    N, D, x = active_params, tokens, np.log(saturated(experts - 1.0, E_start, E_max))
    return a * np.exp(delta * x) * N ** (alpha + gamma * x) + b * np.exp(omega * x) * D ** (beta + zeta * x) + c


def tian2025_leverage(
    compute, active_params, tokens, activation_ratio, granularity, *, a, d, gamma_G, beta_G, A_start, A_max, **dense
):
    """Dense FLOPs / MoE FLOPs at equal loss: EL = Â^(a + d log10 C + gamma_G (log2 G)^2 + beta_G log2 G).

    Â = `saturated`(A) of the activation ratio A, at most 1: a dense model (A = 1) has the leverage 1, where the printed
    transform gives 1 + A_start. It depends on neither active_params nor tokens.
    """
    x = np.log2(granularity)
    share = np.minimum(saturated(activation_ratio, A_start, A_max), 1.0)
    return share ** (a + d * np.log10(compute) + gamma_G * x**2 + beta_G * x)


@law(
    "Tian et al. 2025, arXiv:2507.17702, efficiency leverage",
    reports={"leverage": tian2025_leverage},
    a=Coefficient(typical=(0.5, 2.0), domain=REAL),
    d=Coefficient(typical=(-0.2, 0.0), domain=REAL),
    gamma_G=Coefficient(typical=(0.0, 0.05), domain=REAL),
    beta_G=Coefficient(typical=(-0.3, 0.0), domain=REAL),
    A_start=Coefficient(typical=(1e-3, 0.1)),
    A_max=Coefficient(typical=(10.0, 1e17)),
    E=FLOOR,
    A=SIZE,
    alpha=EXPONENT,
    B=DATA,
    beta=EXPONENT,
)
def tian2025(
    compute,
    active_params,
    tokens,
    activation_ratio,
    granularity,
    *,
    a,
    d,
    gamma_G,
    beta_G,
    A_start,
    A_max,
    E,
    A,
    alpha,
    B,
    beta,
):
    """The dense law at EL times the compute: L = E + A/(N EL^p)^alpha + B/(D EL^(1-p))^beta, p = beta/(alpha+beta).

    The paper gives the leverage EL = Â^(alpha + gamma (log G)^2 + beta log G) with alpha = a + d log C (here
    `gamma_G`, `beta_G`; `tian2025_leverage`, which `Law.report("leverage", ...)` returns). How the extra compute
    splits into parameters and tokens it does not say. It is split here along the dense law's own expansion path N ~
    C^p, so that the compute-optimal MoE at C reaches exactly the loss of the compute-optimal dense model at EL C.

    N: active parameters; activation_ratio: (active + shared)/experts; G = 2 d_model/d_expert; C: training FLOPs, by
    the authors' count those without embeddings. Logarithms are base 10 for C and base 2 for G: not stated, but the
    only pair that reproduces the claims. Behind it: more than 300 models, at most 28B parameters, 3e18-3e20 FLOP.
    """
    leverage = tian2025_leverage(
        compute,
        active_params,
        tokens,
        activation_ratio,
        granularity,
        a=a,
        d=d,
        gamma_G=gamma_G,
        beta_G=beta_G,
        A_start=A_start,
        A_max=A_max,
    )
    p = beta / (alpha + beta)
    N, D = active_params * leverage**p, tokens * leverage ** (1.0 - p)
    return hoffmann2022(N, D, E=E, A=A, alpha=alpha, B=B, beta=beta)


@law(
    "Zhao et al. 2025, arXiv:2509.23678, joint law",
    e=Coefficient(typical=(0.01, 1.0)),
    f=Coefficient(typical=(1.0, 20.0)),
    m=Coefficient(typical=(1.0, 10.0), domain=REAL),
    n=Coefficient(typical=(-10.0, 0.0), domain=REAL),
    k=Coefficient(typical=(1e-4, 0.1), domain=NON_NEGATIVE),
    h=Coefficient(typical=(1e-3, 0.5), domain=NON_NEGATIVE),
    a=SIZE,
    alpha=EXPONENT,
    b=DATA,
    beta=EXPONENT,
    c=SIZE,
    epsilon=FLOOR,
)
def zhao2025(
    total_params,
    active_params,
    tokens,
    active_experts,
    shared_ratio,
    *,
    e,
    f,
    m,
    n,
    k,
    h,
    a,
    alpha,
    b,
    beta,
    c,
    epsilon,
):
    """L = (eG + f/G + mS² + nS)(1/N^alpha + k/N_a^alpha + h N_a/N) + a/N^alpha + b/D^beta + c/N_a^alpha + epsilon.

    N: total, N_a: active parameters; G: number of active experts (not the granularity); S: shared share of the
    active experts (not the sparsity). Behind it: 446 runs. Best G = sqrt(f/e), S = -n/(2m); at fixed N the best
    N_a/N is inside (0, 1) and falls with N, since h N_a/N taxes active parameters: the loss does not fall with N_a
    without end.
    """
    N, N_a, D, G, S = total_params, active_params, tokens, active_experts, shared_ratio
    layout = e * G + f / G + m * S**2 + n * S
    interaction = N**-alpha + k * N_a**-alpha + h * N_a / N
    return layout * interaction + a * N**-alpha + b * D**-beta + c * N_a**-alpha + epsilon


@law(
    "Hossain et al. 2025, arXiv:2508.06617",
    e=FLOOR,
    gamma=Coefficient(typical=(1e-4, 0.1), domain=REAL),
    a=SIZE,
    alpha=EXPONENT,
    c=Coefficient(typical=(1.0, 1e3)),
    b=DATA,
    beta=EXPONENT,
)
def hossain2025(total_params, tokens, sparsity, *, e, gamma, a, alpha, c, b, beta):
    """L = e (1-S)^gamma + (a (1-S)^alpha + c S)/N^alpha + b/D^beta.

    N: total parameters; S: sparsity. At S = 0 it is hoffmann2022, whose constants it reuses; it was not fitted to
    MoE runs at scale. With a alpha > c, as published, the loss at fixed N falls up to S = 1.
    """
    N, D, active = total_params, tokens, 1.0 - sparsity
    return e * active**gamma + (a * active**alpha + c * sparsity) * N**-alpha + b * D**-beta


@law("Kang et al. 2025 (FLAME-MoE), authors' notebook", E=FLOOR, A=SIZE, alpha=EXPONENT, B=DATA, beta=EXPONENT)
def kang2025(active_params, tokens, *, E, A, alpha, B, beta):
    """L = E + A/N_a^alpha + B/D^beta: hoffmann2022 with active parameters, at one sparsity (8 of 64 experts active)."""
    return hoffmann2022(active_params, tokens, E=E, A=A, alpha=alpha, B=B, beta=beta)


@law(
    "a form for the runs of Li et al. 2026, arXiv:2506.12119, who publish none (ours)",
    E=FLOOR,
    a=Coefficient(typical=(1.0, 1e4)),
    alpha=Coefficient(typical=(0.1, 1.0)),
    c=Coefficient(typical=(1.0, 1e4)),
    gamma=Coefficient(typical=(0.1, 1.0)),
    b=Coefficient(typical=(1.0, 1e5)),
    beta=EXPONENT,
)
def li2026(total_params, active_params, tokens, *, E, a, alpha, c, gamma, b, beta):
    """L = E + a/N^alpha + c/N_a^gamma + b/D^beta: total and active parameters in terms of their own.

    N, N_a: total and active parameters without vocabulary. Made to describe Mixtures of Experts that differ in both;
    with few N, alpha is hardly identified.
    """
    N, N_a, D = total_params, active_params, tokens
    return E + a * N**-alpha + c * N_a**-gamma + b * D**-beta
