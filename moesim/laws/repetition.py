"""What a repeated token, and a parameter too many, is still worth.

A repetition form turns (params, tokens) into what they are worth when only `unique_tokens` are distinct, and may add a
penalty to the loss. `taught_params` are what the unique tokens can teach: what exceeds them is excess. Two choices are
open, since science does not know: which parameters of a sparse model are counted (`excess`: none, active or total),
and against what (`taught`): `own`, the law's optimum for one pass over the unique tokens at this sparsity; `dense`, the
same at sparsity 0, a property of the data; or a number of parameters for each unique token. In every case all
parameters lose worth alike, total and active ones by the same factor, so that nothing depends on which a law is
written in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.forms import Coefficient, Form, outside
from moesim.output.text import Page, brief, shown
from moesim.registry import Registry
from moesim.variables import NON_NEGATIVE, POSITIVE_OR_INF, REAL


@dataclass(frozen=True)
class Repeating(Form):
    """A repetition's form; `ends`: the coefficients that say after how many repeats tokens, and parameters, have none
    of their worth left, where the loss has a kink; `counts`: the only `excess` that it can be read with, if any."""

    ends: tuple[str, ...] = ()
    counts: str = ""


REPETITIONS: Registry[Repeating] = Registry("repetition")
EXCESS = ("none", "active", "total")
TAUGHT = ("own", "dense")
_INPUTS = ("params", "tokens", "unique_tokens", "taught_params", "density")


class Effective(NamedTuple):
    """What parameters and tokens are worth, and what is added to the loss (nat/token; or a function of the loss)."""

    params: Any
    tokens: Any
    penalty: Any = 0.0


def repetition(source: str, /, *, ends: tuple[str, ...] = (), counts: str = "", **coefficients: Coefficient):
    """Register a repetition form: a function of (params, tokens, unique_tokens, ...) that returns Effective."""

    def register(function):
        form = Repeating.of(function, source, coefficients, ends=ends, counts=counts)
        if unknown := [name for name in form.inputs if name not in _INPUTS]:
            raise TypeError(f"{form.name}: input {unknown[0]!r} is not one of {_INPUTS}")
        REPETITIONS.add(form)
        return function

    return register


def repeats(amount, unique):
    """How often the unique amount is used again: amount/unique - 1, not below 0 (0 if unique is unlimited)."""
    return np.maximum(amount / unique - 1.0, 0.0)


def decayed(times, scale):
    """Worth of `times` repeats of decaying value: scale (1 - exp(-times/scale)), or `times` if scale is inf."""
    finite = np.minimum(scale, 1e300)  # not np.where, which would strip a DataArray of its dims
    return -finite * np.expm1(-times / finite)


@repetition("no penalty: a repeated token is worth a new one")
def none(params, tokens, unique_tokens):
    """Every token counts in full, however often it was seen."""
    return Effective(params, tokens)


@repetition(
    "Muennighoff et al. 2023, arXiv:2305.16264, eqs. 5-7",
    R_D=Coefficient(typical=(2.0, 40.0), domain=POSITIVE_OR_INF),
    R_N=Coefficient(typical=(2.0, 200.0), domain=POSITIVE_OR_INF),
)
def muennighoff2023(params, tokens, unique_tokens, taught_params, *, R_D, R_N):
    """D' = U + U R_D (1 - exp(-(D/U - 1)/R_D)), and N' from N and the taught parameters likewise with R_N.

    `R_D`, `R_N`: repeats after which the value of one more has fallen to 1/e; inf means no decay. For D <= U nothing
    repeats and D' = D. The excess is measured against the parameters that all U unique tokens can teach; the authors
    take min(U, D) tokens there, which is the same in every run with D >= U, as all of theirs have. Fitted on 182
    runs, 7M-9B parameters, 1-9000 epochs.
    """
    N, D, U = np.minimum(params, taught_params), np.minimum(tokens, unique_tokens), unique_tokens
    return Effective(
        N * (1.0 + decayed(repeats(params, taught_params), R_N)), D * (1.0 + decayed(repeats(tokens, U), R_D))
    )


def _geometric(amount, unique, delta):
    again = (1.0 - delta) * (1.0 - (1.0 - delta) ** repeats(amount, unique)) / delta
    return np.minimum(amount, unique) * (1.0 + again)


@repetition(
    "Muennighoff et al. 2023, arXiv:2305.16264, geometric variant of the authors' notebook",
    delta_D=Coefficient(typical=(0.003, 0.1)),
    delta_N=Coefficient(typical=(0.01, 0.8)),
)
def muennighoff2023_geometric(params, tokens, unique_tokens, taught_params, *, delta_D, delta_N):
    """D' = U (1 - (1 - delta_D)^(D/U)) / delta_D, and N' likewise: each repeat is worth (1 - delta) of the last."""
    return Effective(_geometric(params, taught_params, delta_N), _geometric(tokens, unique_tokens, delta_D))


@repetition(
    "Muennighoff et al. 2023, arXiv:2305.16264, 'negative decay' variant of the authors' notebook",
    ends=("d_star", "n_star"),
    d_star=Coefficient(typical=(1e2, 1e5), domain=POSITIVE_OR_INF),
    n_star=Coefficient(typical=(1e2, 1e5), domain=POSITIVE_OR_INF),
)
def muennighoff2023_exponent(params, tokens, unique_tokens, taught_params, *, d_star, n_star):
    """The exponents decay: D^-beta becomes D^(-beta max(0, 1 - R_D/d_star)), N likewise; the loss can rise.

    Written as D' = D^max(0, 1 - R_D/d_star), which is the same and holds for every law. D and N are counted in
    tokens and parameters, so the coefficients hold for these units only.
    """
    fade_N = np.maximum(0.0, 1.0 - repeats(params, taught_params) / n_star)
    fade_D = np.maximum(0.0, 1.0 - repeats(tokens, unique_tokens) / d_star)
    return Effective(params * params ** (fade_N - 1.0), tokens * tokens ** (fade_D - 1.0))  # exact where none fades


@repetition(
    "Wu et al. 2026, arXiv:2606.01155, repetition part",
    gamma_N=Coefficient(typical=(2.0, 30.0)),
    gamma_D=Coefficient(typical=(2.0, 30.0)),
    c11=Coefficient(typical=(0.1, 3.0), domain=REAL),
    c12=Coefficient(typical=(0.1, 3.0), domain=REAL),
    c21=Coefficient(typical=(0.1, 3.0), domain=REAL),
    c22=Coefficient(typical=(0.1, 3.0), domain=REAL),
)
def wu2026(params, tokens, unique_tokens, taught_params, density, *, gamma_N, gamma_D, c11, c12, c21, c22):
    """Muennighoff's form whose scales depend on the inactive share q = 1 - density.

    R_N = gamma_N (1 + c11 q - c21 q^2), R_D = gamma_D (1 + c12 q - c22 q^2). Fitted on weight-sparse models, density
    1/16 to 1, at most 16 epochs.
    """
    q = 1.0 - density
    R_N, R_D = gamma_N * (1.0 + c11 * q - c21 * q**2), gamma_D * (1.0 + c12 * q - c22 * q**2)
    return muennighoff2023(params, tokens, unique_tokens, taught_params, R_D=R_D, R_N=R_N)


@repetition(
    "Lovelace et al. 2026, arXiv:2605.01640",
    P=Coefficient("nat/token", typical=(1e-4, 1.0), domain=NON_NEGATIVE),
    delta=Coefficient(typical=(0.3, 3.0)),
    kappa=Coefficient(typical=(0.3, 3.0)),
)
def lovelace2026(params, tokens, unique_tokens, *, P, delta, kappa):
    """Repeats count in full, but overfitting adds P R^delta (N/U)^kappa with R = D/U - 1: the loss can rise.

    No coefficients are published; give them or fit them.
    """
    N, U = params, np.minimum(unique_tokens, tokens)
    return Effective(params, tokens, P * repeats(tokens, unique_tokens) ** delta * (N / U) ** kappa)


@repetition(
    "Lovelace et al. 2026, arXiv:2605.01640, with a share of the idle parameters counted: ours",
    counts="active",
    P=Coefficient("nat/token", typical=(1e-4, 1.0), domain=NON_NEGATIVE),
    delta=Coefficient(typical=(0.3, 3.0)),
    kappa=Coefficient(typical=(0.3, 3.0)),
    idle=Coefficient(typical=(0.0, 1.0), domain=REAL),
)
def lab2026(params, tokens, unique_tokens, density, *, P, delta, kappa, idle):
    """Overfitting adds P R^delta (n/U)^kappa with R = D/U - 1 and n = N_a (N/N_a)^idle: the loss can rise.

    N_a: active parameters, density = N_a/N. With `idle` 0 only active parameters overfit; with 1 all do, which is also
    what experts pay that each see 1/E of the unique tokens: n/(U/E) of one is N/U. Small models lie between.
    """
    return lovelace2026(params * density**-idle, tokens, unique_tokens, P=P, delta=delta, kappa=kappa)._replace(
        params=params
    )


@repetition(
    "Bryant and Liu 2026, arXiv:2605.09189; the overfitting term, put around any law: ours",
    L0=Coefficient("nat/token", typical=(9.0, 12.0)),
    c=Coefficient(typical=(1e-4, 1e2)),
    gamma=Coefficient(typical=(0.1, 1.5)),
    delta=Coefficient(typical=(0.1, 1.5)),
)
def bryant2026(params, tokens, unique_tokens, *, L0, c, gamma, delta):
    """L' = L + (L0 - L) u/(1 + u) with u = c N^gamma / U^delta: overfitting leads towards the untrained loss L0.

    It follows parameters and unique tokens, not epochs; a model that passes once over U tokens pays it as well. With
    unlimited unique tokens u = 0 and nothing changes. L0 is the log of the vocabulary.
    """
    overfit = c * params**gamma * unique_tokens**-delta
    return Effective(params, tokens, lambda loss: (L0 - loss) * (overfit / (1.0 + overfit)))


_SIZES = {
    "active": ("active_params", "active_nonembedding_params"),
    "total": ("total_params", "nonembedding_params"),
    "none": (),
}
_ALL_SIZES = (*_SIZES["total"], *_SIZES["active"])


@shown
@dataclass(frozen=True)
class Repetition:
    """A repetition form with coefficient values, the parameters that are counted, and what they are counted against.

    `excess` is none, active or total; `taught` own, dense, or parameters for each unique token (module docstring).
    `data_range` maps a variable to the (lowest, highest) value in the runs behind the coefficients.
    """

    name: str
    form: Repeating
    coefficients: Mapping[str, Any]
    excess: str = "total"
    source: str = ""
    marking: str = ""
    caveats: tuple[str, ...] = field(default=())
    taught: str | float = "own"
    data_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self):
        if self.excess not in EXCESS:
            raise InputError(f"repetition {self.name}: excess={self.excess!r}; it takes {', '.join(EXCESS)}")
        if self.form.counts not in ("", self.excess):
            raise InputError(f"repetition {self.name}: excess={self.excess!r}; it takes {self.form.counts}")
        measured = "taught_params" in self.form.inputs or not self.form.coefficients
        if self.excess == "none" and "params" in self.form.inputs and not measured:
            raise InputError(f"repetition {self.name}: excess='none' leaves nothing of it; it takes active, total")
        object.__setattr__(self, "taught", _checked_taught(self.name, self.taught))
        object.__setattr__(self, "coefficients", self.form.check_coefficients(self.name, self.coefficients))

    @property
    def needs_taught_params(self) -> bool:
        """Whether the excess must be measured against the parameters that the unique tokens can teach."""
        return self.excess != "none" and "taught_params" in self.form.inputs

    def _page(self) -> Page:
        what = f"Repetition {self.name}: {self.form.name}, excess {self.excess}, taught {self.taught}"
        return [what, self.coefficients, brief(self.source)]

    def with_coefficients(self, **values: Any) -> Repetition:
        """The same repetition with some coefficients replaced."""
        return replace(self, coefficients={**self.coefficients, **values})

    def outside(self, quantities: Mapping[str, Any]) -> Any:
        """Whether any of the quantities lies outside the repetition's data range (None if it names none of them)."""
        return outside(self.data_range, quantities)

    def counted(self, quantities: Mapping[str, Any]) -> Any:
        """The parameters that are counted: active or total, whichever is chosen (the other if one is missing)."""
        return quantities[self._counted_name(quantities)]

    def _counted_name(self, quantities: Mapping[str, Any]) -> str:
        return next(name for name in (*_SIZES[self.excess], *_ALL_SIZES) if name in quantities)

    def apply(
        self, quantities: Mapping[str, Any], taught_params: Any = np.inf, coefficients: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Any]:
        """Effective quantities and the penalty on the loss: a number or array, or a function of the loss.

        `quantities` maps variables to values; tokens, unique_tokens and some parameters must be among them.
        `taught_params` are of the counted kind. With excess `none` only the tokens change.
        """
        values = {"unique_tokens": np.inf, "density": 1.0, **quantities, "taught_params": taught_params}
        values["params"] = 1.0 if self.excess == "none" else self.counted(quantities)
        picked = {name: values[name] for name in self.form.inputs}
        effective = self.form.function(**picked, **(coefficients or self.coefficients))
        out = {**quantities, "tokens": effective.tokens}
        if self.excess == "none":
            return out, 0.0
        worth = effective.params / values["params"]
        scaled = {name: quantities[name] * worth for name in _ALL_SIZES if name in quantities}
        return {**out, **scaled, self._counted_name(quantities): effective.params}, effective.penalty


def _checked_taught(name: str, taught: Any) -> Any:
    if isinstance(taught, str) and taught in TAUGHT:
        return taught
    if isinstance(taught, int | float) and not isinstance(taught, bool) and 0.0 < taught < np.inf:
        return float(taught)
    choices = f"{', '.join(TAUGHT)}, or a number above 0 of parameters for each unique token"
    raise InputError(f"repetition {name}: taught={taught!r}; it takes {choices}")
