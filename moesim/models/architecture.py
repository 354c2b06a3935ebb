"""From size and sparsity to everything a law or a cost may ask: total and active parameters, experts, FLOPs per token.

A counting rule is a plain function of (size, sparsity) whose keyword-only arguments are the fields of the architecture.
Size is continuous (active parameters or width), so that planning can sweep and minimise over it; the map from active or
total parameters back to size is solved.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from moesim.config import read
from moesim.errors import InputError
from moesim.forms import Coefficient, Form
from moesim.numerics.elementwise import crossing, secant, shape_of
from moesim.output.text import Page, brief, shown
from moesim.registry import Registry
from moesim.variables import NON_NEGATIVE


@dataclass(frozen=True)
class CountingRule(Form):
    """A form of (size, sparsity) with the ascending log sizes that searches scan and what the size is."""

    log_size: np.ndarray = field(default_factory=lambda: np.empty(0))
    size_is: str = "d_model"


ARCHITECTURES: Registry[CountingRule] = Registry("architecture")


def architecture(source: str, /, *, size: tuple[float, float], size_is: str = "d_model", **fields: Coefficient):
    """Register a counting rule; `size` is the (smallest, largest) size that searches consider, `size_is` its name."""

    def register(function):
        grid = np.linspace(np.log(size[0]), np.log(size[1]), 97)
        ARCHITECTURES.add(CountingRule.of(function, source, fields, log_size=grid, size_is=size_is))
        return function

    return register


@architecture(
    "the naive reading: sparsity is the inactive share of all parameters",
    size=(1e3, 1e15),
    size_is="active_params",
    active_experts=Coefficient(typical=(1, 8)),
    granularity=Coefficient(typical=(1, 16)),
    shared_experts=Coefficient(typical=(0, 2), domain=NON_NEGATIVE),
)
def proportional(size, sparsity, *, active_experts, granularity, shared_experts):
    """N_a = size, N = N_a / (1 - S), 6 N_a FLOPs per token; attention and embeddings are taken to be as sparse."""
    total = size / (1.0 - sparsity)
    return {
        "active_params": size,
        "total_params": total,
        "active_nonembedding_params": size,
        "nonembedding_params": total,
        "flops_per_token": 6.0 * size,
        "experts": active_experts / (1.0 - sparsity),
        "active_experts": active_experts,
        "granularity": granularity,
        "shared_experts": shared_experts,
    }


@architecture(
    "a standard decoder with MoE feed-forward layers; if attended is 1, FLOPs as in Abnar et al. 2025, "
    "arXiv:2501.12370, eq. 9, but for the router (6 a weight here, 14 there)",
    size=(1e-2, 3e5),
    active_experts=Coefficient(typical=(1, 8)),
    granularity=Coefficient(typical=(1, 16)),
    shared_experts=Coefficient(typical=(0, 2), domain=NON_NEGATIVE),
    moe_every=Coefficient(typical=(1, 4)),
    aspect=Coefficient(typical=(32, 128)),
    ffn_ratio=Coefficient(typical=(2, 4)),
    ffn_matrices=Coefficient(typical=(2, 3)),
    vocabulary=Coefficient("token", typical=(3e4, 2.6e5)),
    embeddings=Coefficient(typical=(1, 2), domain=NON_NEGATIVE),
    context=Coefficient("token", typical=(1e3, 1e5), domain=NON_NEGATIVE),
    attended=Coefficient(typical=(0.5, 1.0), domain=NON_NEGATIVE),
)
def moe_transformer(
    size, sparsity, *, active_experts, granularity, shared_experts, moe_every, aspect, ffn_ratio, ffn_matrices,
    vocabulary, embeddings, context, attended,
):  # fmt: skip
    """Attention, embeddings, router and shared experts act on every token; only routed experts are sparse.

    size = d_model; layers = d_model / `aspect`; d_ff = `ffn_ratio` d_model with `ffn_matrices` matrices (3: gated);
    every `moe_every`-th layer holds experts = active_experts / (1 - S) experts of width d_ff / `granularity`;
    `embeddings` matrices of vocabulary x d_model (1: tied, 2: untied). Training FLOPs per token: 6 per weight that
    multiplies, plus 12 layers d_model context x `attended` for the attention core (0.5: causal, 1: full mask).
    Norms and biases are left out.
    """
    d, layers = size, size / aspect
    experts = active_experts / (1.0 - sparsity)
    dense, expert = ffn_matrices * ffn_ratio * d**2, ffn_matrices * ffn_ratio * d**2 / granularity
    always = 4.0 * d**2 + (1.0 - 1.0 / moe_every) * dense + (shared_experts * expert + experts * d) / moe_every
    active = layers * (always + active_experts * expert / moe_every)
    total = layers * (always + experts * expert / moe_every)
    return {
        "active_params": active + embeddings * vocabulary * d,
        "total_params": total + embeddings * vocabulary * d,
        "active_nonembedding_params": active,
        "nonembedding_params": total,
        "flops_per_token": 6.0 * (active + vocabulary * d) + 12.0 * layers * d * context * attended,
        "experts": experts,
        "active_experts": active_experts,
        "granularity": granularity,
        "shared_experts": shared_experts,
    }


@architecture(
    "Ludziejewski et al. 2025, arXiv:2502.05172: top-1 experts in every layer, d_model = 64 layers",
    size=(1e-2, 3e5),
    vocabulary=Coefficient("token", typical=(3e4, 2.6e5)),
)
def ludziejewski2025(size, sparsity, *, vocabulary):
    """size = d_model; N_a = 2 d V + 13 n d^2, N = 2 d V + (4 + 9 E) n d^2, E = 1 / (1 - S); 6 N_a FLOPs per token."""
    d, layers, experts = size, size / 64.0, 1.0 / (1.0 - sparsity)
    active, total, embedding = 13.0 * layers * d**2, (4.0 + 9.0 * experts) * layers * d**2, 2.0 * d * vocabulary
    return {
        "active_params": active + embedding,
        "total_params": total + embedding,
        "active_nonembedding_params": active,
        "nonembedding_params": total,
        "flops_per_token": 6.0 * (active + embedding),
        "experts": experts,
        "active_experts": 1.0,
        "granularity": 1.0,
        "shared_experts": 0.0,
    }


@architecture(
    "Krajewski et al. 2024, arXiv:2402.07871: no embeddings, d_model = 64 layers",
    size=(1.0, 3e5),
    granularity=Coefficient(typical=(1, 16)),
    flops_per_weight=Coefficient("FLOP", typical=(6, 6)),
    flops_per_route=Coefficient("FLOP", typical=(14, 14)),
)
def krajewski2024(size, sparsity, *, granularity, flops_per_weight, flops_per_route):
    """size = d_model; N_a = 12 d^2 n, N = d^2 (8 E + 4) n with expansion E = 1 / (1 - S); G E experts, G active.

    FLOPs per token (12 d^2 c_f + d E G c_r) n, the router included: c_f = `flops_per_weight`, c_r =
    `flops_per_route`.
    """
    d, layers, expansion = size, size / 64.0, 1.0 / (1.0 - sparsity)
    active, total = 12.0 * d**2 * layers, (8.0 * expansion + 4.0) * d**2 * layers
    return {
        "active_params": active,
        "total_params": total,
        "active_nonembedding_params": active,
        "nonembedding_params": total,
        "flops_per_token": flops_per_weight * active + flops_per_route * d * expansion * granularity * layers,
        "experts": granularity * expansion,
        "active_experts": granularity,
        "granularity": granularity,
        "shared_experts": 0.0,
    }


# FLOPs per token: as the counting rule has them, or 6 per active parameter.
_FLOPS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "exact": lambda at: at["flops_per_token"],
    "6N": lambda at: 6.0 * at["active_params"],
}


_RATIOS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "activation_ratio": lambda at: (
        (at["active_experts"] + at["shared_experts"]) / (at["experts"] + at["shared_experts"])
    ),
    "shared_ratio": lambda at: at["shared_experts"] / (at["active_experts"] + at["shared_experts"]),
    "density": lambda at: at["active_params"] / at["total_params"],
}


@shown
@dataclass(frozen=True)
class Architecture:
    """A counting rule with the values of its fields and the choice of how training FLOPs per token are counted."""

    name: str
    form: CountingRule
    fields: Mapping[str, Any] = field(default_factory=dict)
    flops: str = "exact"

    def __post_init__(self):
        if self.flops not in _FLOPS:
            raise InputError(f"architecture {self.name}: flops={self.flops!r}; it takes {', '.join(_FLOPS)}")
        object.__setattr__(self, "fields", self.form.check_coefficients(f"architecture {self.name}", self.fields))

    @property
    def log_size(self) -> np.ndarray:
        """Ascending grid of log size that searches scan."""
        return self.form.log_size

    @property
    def power(self) -> int:
        """How active parameters grow with the size: as themselves, or as width cubed (at most)."""
        return 1 if self.form.size_is == "active_params" else 3

    @property
    def source(self) -> str:
        """Where the counting rule is from."""
        return self.form.source

    def _page(self) -> Page:
        what = f"Architecture {self.name}: {self.form.name}, FLOPs per token {self.flops}"
        return [what, self.fields, brief(self.source)]

    def with_fields(self, **values: Any) -> Architecture:
        """The same architecture with some fields replaced."""
        return replace(self, fields={**self.fields, **values})

    def describe(
        self, log_size: Any, sparsity: Any, fields: Mapping[str, Any] | None = None, wanted: Container[str] = _RATIOS
    ) -> dict[str, Any]:
        """Every quantity of the architecture at a size and sparsity (arrays broadcast; see the counting rule).

        Of the ratios only those `wanted`.
        """
        at = self.form.function(np.exp(log_size), sparsity, **(fields or self.fields))
        ratios = {name: ratio(at) for name, ratio in _RATIOS.items() if name in wanted}
        return {**at, "sparsity": sparsity, "flops_per_token": _FLOPS[self.flops](at), **ratios}

    def size_of(self, name: str, context: Mapping[str, Any], fields: Callable[[Mapping[str, Any]], Any]) -> np.ndarray:
        """Log size at which quantity `name` (say total_params) has the value that the context gives it.

        `context` also holds the sparsity and fields that vary, `fields(context)` all fields. Not finite where no
        size in the range has that value.
        """

        if name == self.form.size_is:
            return np.log(context[name])

        def surplus(x, cell):
            return np.log(self.describe(x, cell["sparsity"], fields(cell))[name] / cell[name])

        start = np.full(shape_of(context), self.log_size[len(self.log_size) // 2])
        found, done = secant(surplus, context, start, 1.0, within=1e-13)
        found = np.where((found < self.log_size[0]) | (found > self.log_size[-1]), np.inf, found)
        return found if done.all() else np.where(done, found, crossing(surplus, context, self.log_size))


def architecture_from(name: str, content: Mapping[str, Any], **fields: Any) -> Architecture:
    """The Architecture that a config mapping describes (keys: form, fields, flops); `fields` override."""
    form = ARCHITECTURES.find(content.get("form"), f"architecture {name}")
    return Architecture(name, form, {**(content.get("fields") or {}), **fields}, str(content.get("flops", "exact")))


def load_architecture(name: str, flops: str | None = None, **fields: Any) -> Architecture:
    """The architecture of `conf/architecture/NAME.yaml` or of a YAML file; keyword arguments override its fields."""
    content = read("architecture", name)
    return architecture_from(name, {**content, **({"flops": flops} if flops else {})}, **fields)
