"""A stack of layers: FLOPs of every layer and pass of one training step, from code or from a short YAML file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any

from moesim.config import read
from moesim.errors import InputError
from moesim.models import attention, feedforward, layers, recurrent, residual, tree
from moesim.models.layers import NOTHING, Layer, Passes, Shape, image
from moesim.models.operations import Cost, Counting, choose, counting, whole
from moesim.models.optimizers import optimizer
from moesim.models.ratio import ALWAYS, Updating
from moesim.output.text import Page, brief, count, shown

LAYERS: Mapping[str, type[Layer]] = {
    "linear": layers.Linear,
    "conv2d": layers.Conv2d,
    "relu": layers.ReLU,
    "pool": layers.Pool,
    "global_average": layers.GlobalAverage,
    "norm": layers.Norm,
    "loss": layers.Loss,
    "embedding": layers.Embedding,
    "unembedding": layers.Unembedding,
    "attention": attention.Attention,
    "latent_attention": attention.LatentAttention,
    "indexer": attention.Indexer,
    "delta_net": recurrent.DeltaNet,
    "mamba": recurrent.Mamba,
    "mamba2": recurrent.Mamba2,
    "altup": residual.AltUp,
    "laurel": residual.Laurel,
    "mlp": feedforward.MLP,
    "router": feedforward.Router,
    "experts": feedforward.Experts,
    "moe": feedforward.MoE,
    "fff": tree.FFF,
}

_BLOCK = frozenset({"linear", "last", "scores", "values", "state"})
RECOMPUTE: Mapping[str, Collection[str]] = {
    "none": frozenset(),
    "full": _BLOCK | {"head"},
    "blocks": _BLOCK,
    "checkpoint": _BLOCK - {"last"},
    "core": frozenset({"scores", "values"}),
    "flash": frozenset({"scores"}),
}
"""What is computed once more in the backward pass.

`full`: everything (8 N instead of 6 N); `blocks`: every block but not the head; `checkpoint`: the same without the last
product of a dense feed-forward layer, because torch.utils.checkpoint stops once all saved tensors exist (a mixture of
experts ends in a product whose result the router's gradient needs); `core`: the attention core (Megatron-LM's selective
recomputation); `flash`: Q K^T, as FlashAttention's backward does.
"""


@dataclass(frozen=True)
class Entry:
    """A layer at its place: `copies` of it in a row with weights of their own, each applied `applied` times.

    `applied` above 1 is weight sharing: computed as often, updated once.
    """

    name: str
    layer: Layer
    copies: int = 1
    applied: int = 1
    updating: Updating = ALWAYS

    def __post_init__(self):
        whole(self.name, 0, copies=self.copies, applied=self.applied)

    @property
    def trained(self) -> float:
        """Share of the tokens whose gradient reaches its weights (0 without trained weights)."""
        has = self.copies * self.applied and any(tensor.trained for tensor in self.layer.tensors)
        return self.updating.weight_gradient if has else 0

    def parts(self) -> dict[str, Layer]:
        """Row name -> layer; a composite layer has one row for each part."""
        return {f"{self.name}.{part}".rstrip("."): layer for part, layer in self.layer.parts.items()}

    def cost(self, layer: Layer, batch: Any, rule: Counting, upstream: float) -> Cost:
        """FLOP of forward, input and weight gradients of all copies; `upstream`: share of tokens trained before it.

        Only the first application of the first copy stands directly behind what came before. Shares are nested: the
        tokens that one layer does without are among those that a layer with a smaller share does without.
        """
        instances = self.copies * self.applied
        if not instances:
            return Cost(0 * batch, 0 * batch, 0 * batch)
        passed = self.updating.input_gradient
        within = min(passed, max(upstream, self.trained))
        entering = (min(passed, upstream) + (instances - 1) * within) * batch
        inside = within * instances * batch
        one = layer.compute(batch * self.applied, rule, entering, inside)
        weight_gradient = one.weight_gradient * self.updating.weight_gradient
        return Cost(one.forward * self.copies, one.input_gradient, weight_gradient * self.copies)


@shown
@dataclass(frozen=True)
class Network:
    """Layers in the order of the forward pass.

    A gradient of a layer's input is needed only if something before it is trained; apart from the first layer with
    weights the order does not matter.
    """

    name: str
    entries: tuple[Entry, ...]
    description: str = ""
    source: str = ""

    def __post_init__(self):
        names = [entry.name for entry in self.entries]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{self.name}: two layers are called {repeated[0]!r}; give them different names")

    @classmethod
    def of(cls, name: str, *stack: Layer) -> Network:
        """A stack from code; layers are named by their kind and place."""
        return cls(name, tuple(Entry(f"{type(x).__name__.lower()}{i}", x) for i, x in enumerate(stack, 1)))

    def _page(self) -> Page:
        what = f"Network {self.name}: {len(self.entries)} layers, {count(self.weights)} weights"
        return [what, brief(self.description), brief(self.source)]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(entry.copies * entry.layer.weights for entry in self.entries)

    @property
    def active_weights(self) -> int:
        """Number of weights that act on one sample."""
        return sum(entry.copies * entry.layer.active_weights for entry in self.entries)

    def rows(self) -> dict[str, tuple[Entry, Layer]]:
        """Row name -> its entry and layer."""
        return {name: (entry, layer) for entry in self.entries for name, layer in entry.parts().items()}

    def upstream(self) -> dict[str, float]:
        """Entry name -> largest share of tokens for which something before it is trained."""
        shares, seen = {}, 0.0
        for entry in self.entries:
            shares[entry.name] = seen if 0 < seen < 1 else int(seen)
            seen = max(seen, entry.trained)
        return shares

    def flops(
        self,
        batch: Any,
        *,
        optimizer: Any = "sgd",
        counting: str = "matmul",
        touched_only: bool = False,
        recompute: str = "none",
    ) -> dict[str, Passes]:
        """FLOP by pass for each row of the stack, for one training step on `batch` samples (number or array).

        `optimizer`: name, FLOP per weight, or Optimizer. `counting`: matmul, pointwise or scalar. `touched_only`:
        update only the experts that the batch is expected to use. `recompute`: a row of RECOMPUTE. With an int batch
        and whole optimiser FLOP the counts are exact integers.
        """
        rule, method, kinds = _rule(counting), _optimizer(optimizer), choose("recompute", recompute, RECOMPUTE)
        upstream = self.upstream()

        def one(entry: Entry, layer: Layer) -> Passes:
            samples = batch * entry.applied
            cost = entry.cost(layer, batch, rule, upstream[entry.name])
            update = layer.update(samples, method, touched_only) * entry.copies * entry.updating.update
            again = layer.again(samples, rule, kinds) * entry.copies if entry.applied else 0 * batch
            return Passes(*cost, update, again)

        return {name: one(*row) for name, row in self.rows().items()}

    def total(self, batch: Any, **settings: Any) -> Passes:
        """FLOP by pass of the whole stack; settings as for `flops`."""
        return reduce(Passes.plus, self.flops(batch, **settings).values(), NOTHING)

    def ratio(self, batch: Any, **settings: Any) -> Any:
        """FLOP of a training step over FLOP of its forward pass."""
        passes = self.total(batch, **settings)
        return passes.total / passes.forward

    def with_updating(self, rules: Mapping[str, Updating | Mapping[str, float]]) -> Network:
        """The same stack, its layers updated selectively: rules map a layer name or pattern (`moe*`) to Updating.

        Later rules win. Raises InputError for a pattern that fits no layer or an unknown share.
        """
        entries = self.entries
        for pattern, rule in rules.items():
            if not any(fnmatchcase(entry.name, pattern) for entry in entries):
                names = ", ".join(entry.name for entry in entries)
                raise InputError(f"updating: no layer fits {pattern!r}; there are {names}")
            new = rule if isinstance(rule, Updating) else _updating(pattern, rule)
            entries = tuple(replace(e, updating=new) if fnmatchcase(e.name, pattern) else e for e in entries)
        return replace(self, entries=entries)

    @classmethod
    def load(cls, name: str | Path, **parameters: int) -> Network:
        """The network of `conf/network/NAME.yaml`, or of a YAML file given by its path."""
        return cls.from_spec(Path(name).stem, read("network", name), **parameters)

    @classmethod
    def from_spec(cls, name: str, spec: Mapping[str, Any], **parameters: int) -> Network:
        """A stack from a mapping: `input` (a width or [channels, height, width]), `layers`, and `parameters`.

        A layer is a name (`relu`), or a mapping of that name to its settings with, if wanted, `name`, `copies`,
        `applied` and `updating`. What a layer is given follows from the one before. A setting that is the name of a
        parameter takes its value; numbers beside `input` are parameters too. Raises InputError for anything unknown or
        missing, and for a parameter that no layer uses.
        """
        values = parameters_of(name, spec)
        _only(f"{name}: parameters", parameters, values)
        values.update(parameters)
        shape, items = _shape(name, spec.get("input")), spec.get("layers")
        if not isinstance(items, list) or not items:
            raise InputError(f"{name}: layers={items!r}; it takes a list of layers")
        entries: list[Entry] = []
        if unused := [key for key in values if key not in _texts(items)]:
            raise InputError(f"{name}: no layer uses the parameter {unused[0]!r}; name it in a layer's settings")
        for item in items:
            new, shape = _entries(name, item, shape, values, len(entries))
            entries += new
        return cls(name, tuple(entries), str(spec.get("description", "")), str(spec.get("source", "")))


_rule, _optimizer = counting, optimizer
_KNOWN = ("description", "source", "input", "parameters", "layers")


def parameters_of(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a stack from a mapping, with their values; InputError for a key that is no number."""
    numbers = {key: value for key, value in spec.items() if key not in _KNOWN and isinstance(value, int | float)}
    _only(name, spec, {*_KNOWN, *numbers})
    values = spec.get("parameters") or {}
    if not isinstance(values, Mapping):
        raise InputError(f"{name}: parameters={values!r}; it takes a mapping of names to whole numbers")
    return numbers | dict(values)


def _texts(value: Any) -> set[str]:
    """Every text among the values of a nest of mappings and lists."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    below = {text for each in inner for text in _texts(each)}
    return below | ({value} if isinstance(value, str) else set())


def _updating(name: str, shares: Any) -> Updating:
    accepted = [field.name for field in fields(Updating)]
    if not isinstance(shares, Mapping):
        raise InputError(f"updating: {name}={shares!r}; it takes a mapping of {', '.join(accepted)} to shares")
    _only(f"updating: {name}", shares, accepted)
    return Updating(**shares)


def _only(owner: str, given: Collection[str], accepted: Collection[str]) -> None:
    for key in given:
        if key not in accepted:
            raise InputError(f"{owner}: unknown key {key!r}; it takes {', '.join(sorted(accepted)) or 'none'}")


def _shape(owner: str, value: Any) -> Shape:
    shape = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(shape) not in (1, 3) or value is None:
        raise InputError(f"{owner}: input={value!r}; it takes a width or [channels, height, width]")
    whole(f"{owner}: input", 1, **{f"input[{i}]": n for i, n in enumerate(shape)})
    return shape


_STAGE = ("channels", "blocks", "stride")  # settings of a stage of residual blocks; the first two must be there
_PLACE = ("name", "copies", "applied", "updating")


def _entries(owner: str, item: Any, shape: Shape, values: Mapping[str, Any], place: int) -> tuple[list[Entry], Shape]:
    """The entries of one item of a YAML list, and the shape behind them."""
    item = {item: {}} if isinstance(item, str) else item
    kinds = [key for key in item if key not in _PLACE] if isinstance(item, Mapping) else []
    if len(kinds) != 1:
        raise InputError(f"{owner}: {item!r} is not a layer; it takes one of {', '.join([*LAYERS, *BLOCKS])}")
    kind, at = kinds[0], {key: _value(item[key], values) for key in _PLACE if key in item}
    label = at.pop("name", f"{kind}{place + 1}")
    if not isinstance(label, str) or not isinstance(item[kind] or {}, Mapping):
        raise InputError(f"{owner}: {item!r} is not a layer; it takes a text as name and a mapping of settings")
    settings = {key: _value(value, values) for key, value in (item[kind] or {}).items()}
    if "updating" in at:
        at["updating"] = _updating(label, at["updating"])
    if kind in BLOCKS:
        _only(f"{owner}: {kind}", settings, _STAGE)
        whole(f"{owner}: {kind}", 1, **{**dict.fromkeys(_STAGE[:2]), **settings})
        named, shape = BLOCKS[kind](shape, **settings)
        return [Entry(f"{label}.{name}", layer, **at) for name, layer in named], shape
    if kind not in LAYERS:
        raise InputError(f"{owner}: no layer {kind!r}; there are {', '.join([*LAYERS, *BLOCKS])}")
    layer = LAYERS[kind].on(shape, **settings)
    return [Entry(label, layer, **at)], layer.output(shape)


def _value(value: Any, values: Mapping[str, Any]) -> Any:
    return values.get(value, value) if isinstance(value, str) else value


_MOST_BLOCKS = 10_000
Named = list[tuple[str, Layer]]


def _convolution(name: str, shape: Shape, *settings: int) -> tuple[Named, Shape]:
    """Convolution without bias and its batch norm."""
    outputs, kernel, stride = settings
    channels, height, width = image("residual stage", shape)
    conv = layers.Conv2d(channels, outputs, kernel, (height, width), stride, kernel // 2, bias=False)
    shape = conv.output(shape)
    return [(f"conv{name}", conv), (f"bn{name}", layers.Norm(outputs, bias=True, rows=shape[1] * shape[2]))], shape


def _residual(convolutions: Callable[[int, int], list[tuple[int, int, int]]], expansion: int):
    """A stage of residual blocks, in the notation of torchvision.models.resnet."""

    def stage(shape: Shape, channels: int, blocks: int, stride: int = 1) -> tuple[Named, Shape]:
        named: Named = []
        if blocks > _MOST_BLOCKS:
            raise InputError(f"residual stage: blocks={blocks}; it takes at most {_MOST_BLOCKS}")
        for block in range(blocks):
            step, before, added = (stride if block == 0 else 1), shape, []
            for place, settings in enumerate(convolutions(channels, step), 1):
                new, shape = _convolution(str(place), shape, *settings)
                added += [*new, (f"relu{place}", layers.ReLU(prod(shape)))]
            if step != 1 or before[0] != channels * expansion:
                added += _convolution("_downsample", before, channels * expansion, 1, step)[0]
            named += [(f"{block}.{name}", layer) for name, layer in added]
        return named, shape

    return stage


BLOCKS: Mapping[str, Callable[..., tuple[Named, Shape]]] = {
    "basic": _residual(lambda c, step: [(c, 3, step), (c, 3, 1)], 1),
    "bottleneck": _residual(lambda c, step: [(c, 1, 1), (c, 3, step), (4 * c, 1, 1)], 4),
}
