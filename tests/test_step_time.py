"""The time and memory of training steps: published rows, each part by hand, and what must hold of any step."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moesim
from moesim.errors import InputError
from moesim.hardware import memory, training
from moesim.hardware.chip import Chip, chip_of
from moesim.hardware.exchange import LIBRARIES, Library, Link
from moesim.hardware.failures import checkpoint_interval, goodput
from moesim.hardware.layout import RECOMPUTE, SCHEDULES, Grid, Layout
from moesim.hardware.published import other_residuals, step_residuals
from moesim.hardware.release import RELEASES, Release, release_of
from moesim.hardware.serving import decode_rate, kv_bytes
from moesim.hardware.work import work_of
from moesim.models.transformer import Transformer

DEEPSEEK = {"pipeline": 16, "expert": 64}


# Published steps (Megatron-Bridge): median within 12 %, four rows in five within 20 %, none beyond 35 %.
def test_steps_take_as_long_as_published():
    errors = np.abs([row.error for row in step_residuals()])
    assert len(errors) == 25
    assert np.median(errors) < 0.12
    assert np.mean(errors < 0.20) >= 0.8
    assert errors.max() < 0.35


def test_the_page_of_residuals_is_what_the_code_gives():
    page = (Path(__file__).parent.parent / "docs" / "hardware.md").read_text()
    for row in [*step_residuals(), *other_residuals()]:
        assert f"| {row.name} | {row.measured:.4g} | {row.predicted:.4g} | {row.error:+.0%} |" in page


def test_a_release_has_at_most_six_constants_and_the_newest_is_taken():
    numbers = [name for name, kind in Release.__annotations__.items() if kind == "float"]
    assert len(numbers) <= 6
    assert release_of(None) is release_of("26.08") is RELEASES["26.06"]
    assert release_of("26.04.01") is RELEASES["26.04"]


def test_a_larger_domain_speeds_up_deepseek_v3():
    rates = {
        row.name.split()[2]: row
        for row in step_residuals()
        if row.name.startswith("deepseek_v3, 256 ") and row.group == "26.04.01"
    }
    assert rates["gb200"].predicted / rates["b200"].predicted > 1.15
    assert rates["gb200"].measured / rates["b200"].measured == pytest.approx(1.28, abs=0.01)


LLAMA = {"chip": "h100", "sequence": 8192, "batch": 2048}
# Rows of other software: (call, published TFLOP/s); Llama 3, arXiv:2407.21783, table 4; DeepSeek-V3, arXiv:2412.19437.
OTHERS = {
    "llama, 8192": (("llama3_405b", {**LLAMA, "devices": 8192}, {"tensor": 8, "pipeline": 16, "interleave": 2}), 430),
    "llama, 16384": (("llama3_405b", {**LLAMA, "devices": 16384}, {"tensor": 8, "pipeline": 16, "interleave": 4}), 400),
    "deepseek": (("deepseek_v3", {"chip": "h800", "devices": 2048, "precision": "fp8", "batch": 15360}, DEEPSEEK), 385),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_runs_within_a_quarter(name):
    (model, setting, layout), published = OTHERS[name]
    assert moesim.step_time(model, layout=layout, **setting).tflops_per_device == pytest.approx(published, rel=0.25)


@pytest.mark.parametrize(
    ("name", "tokens", "sequence", "hours"),
    [("deepseek", 14.8e12, 4096, 2.664e6), ("llama, 16384", 15.6e12, 8192, 30.84e6)],
)
def test_device_hours_of_whole_runs(name, tokens, sequence, hours):
    (model, setting, layout), _ = OTHERS[name]
    step = moesim.step_time(model, layout=layout, **setting)
    assert step.device_hours(tokens, setting["batch"] * sequence) == pytest.approx(hours, rel=0.25)


@pytest.mark.parametrize("layout", [{"tensor": 8, "pipeline": 4}, {"pipeline": 16}])
def test_fine_experts_reach_two_thirds_of_the_utilisation_of_a_dense_sister(layout):
    common = {"chip": "h800", "devices": 2048}
    sparse = moesim.step_time("deepseek_v2", batch=9216, layout={"pipeline": 16, "expert": 8}, **common)
    dense = moesim.step_time("deepseek_67b", batch=4608, layout=layout, **common)
    assert sparse.mfu / dense.mfu == pytest.approx(0.67, abs=0.15)  # 25.2 % and 37.6 %
    assert sparse.mfu == pytest.approx(0.252, rel=0.25)


# By hand: 100 FLOP/s (16 bits), memory without limit, links of 10 and 5 byte/s, 2 devices in a domain.
CHIP = Chip(
    flops=100.0,
    flops_8bit=200.0,
    memory_bandwidth=1e300,
    scale_up=10.0,
    scale_out=5.0,
    memory=1e6,
    domain=2,
    peak_share=1.0,
)
PLAIN = Release(rows=0.0, core=0.5, passes=0.0, exposed=1.0, launches=0.0, library="by_hand")
# 4 layers, d 2, one head of 2: attention has 4 x 4 weights, the MLP 2 x 2 x 3; the head 2 x 5.
DENSE = Transformer(layers=4, d_model=2, heads=1, vocabulary=5, d_ff=3, gated=False, name="dense")
# The same with 4 experts of width 3 of which 2 act; the router has 2 x 4 weights.
MOE = Transformer(
    layers=4, d_model=2, heads=1, vocabulary=5, experts=4, active_experts=2, d_expert=3, gated=False, name="moe"
)


@pytest.fixture(autouse=True)
def by_hand_library(monkeypatch):
    monkeypatch.setitem(LIBRARIES, "by_hand", Library(Link(1.0), Link(1.0)))


def parts(model, layout, devices=1, batch=8, sequence=4, release=PLAIN, chip=CHIP, imbalance=1.0, precision="bf16"):
    work = work_of(model, sequence)
    setup = training.Setup.of(work, chip, devices, precision, release, imbalance)
    grid = Grid.of([Layout.of(layout)], work, devices, batch)
    return {name: float(value[0]) for name, value in training.step_parts(setup, grid).items()}


_GEMM = 6 * (4 * (16 + 12) + 10)  # FLOP of a dense token, forward and backward
_THIN, _SLOW = replace(PLAIN, rows=2.0), replace(CHIP, memory_bandwidth=14.0)
BY_HAND = {
    # 8 x 4 tokens of 732 FLOP at 100 FLOP/s
    "products": (DENSE, {}, {}, 32 * _GEMM / 100),
    # the layers run at 8 bits and 200 FLOP/s, the head at 16
    "products, 8 bits": (DENSE, {}, {"precision": "fp8"}, 32 * 6 * (112 / 200 + 10 / 100)),
    "products, tensor": (DENSE, {"tensor": 2}, {"devices": 2}, 32 * _GEMM / 100 / 2),
    "products, data": (DENSE, {}, {"devices": 2}, 32 * _GEMM / 100 / 2),
    # 3 stages of 4 layers: the fullest has two
    "products, three stages": (DENSE, {"pipeline": 3}, {"devices": 3}, 32 * _GEMM / 100 / 2),
    # 2 experts of 12 weights a token, 4 layers
    "experts": (MOE, {}, {}, 32 * 6 * 4 * 24 / 100),
    # a group of 2 of a micro-batch's 4 tokens: [2, 2] x [2, 3] takes 1 + 2 (1/2 + 1/2 + 1/3) times as long
    "experts, thin": (MOE, {}, {"release": _THIN}, 32 * 6 * 4 * 24 / 100 * (1 + 2 * (1 + 1 / 3))),
    # over two devices twice as many rows: 1 + 2 (1/4 + 1/2 + 1/3)
    "experts, spread": (MOE, {"expert": 2}, {"devices": 2, "release": _THIN}, 32 * 24 * 12 / 100 * (1 + 13 / 6)),
    "experts, uneven": (MOE, {}, {"imbalance": 1.5}, 32 * 6 * 4 * 24 / 100),
    # 4 layers x 4 x 1 x 2 x (4/2) FLOP a token forward, 3.5 times that in all, at 50 FLOP/s
    "attention": (DENSE, {}, {}, 32 * 4 * 4 * 2 * 2 * 3.5 / 50),
    # 2 (1 - 1/4) = 1.5 of 2 devices: 4 tokens x 2 x 2 byte x 1.5 / 10 byte/s, four times in 4 layers, 4 micro-batches
    "exchange": (MOE, {"expert": 2}, {"devices": 2}, 4 * 4 * 4 * (16 * 1.5 / 10)),
    "exchange, hidden": (MOE, {"expert": 2}, {"devices": 2, "release": replace(PLAIN, exposed=0.25)}, 64 * 2.4 / 4),
    # the busiest: half of experts and exchange on top
    "imbalance": (MOE, {"expert": 2}, {"devices": 2, "imbalance": 1.5}, 0.5 * (32 * 6 * 4 * 12 / 100 + 64 * 2.4)),
    # 5 collectives of 4 tokens x 2 x 2 byte x 1/2 in two blocks of 4 layers at .82 x 10 byte/s, 8 micro-batches
    "tensor_parallel": (DENSE, {"tensor": 2}, {"devices": 2}, 8 * 8 * 5 * 8 / 8.2),
    # beyond the domain of 2: 12 byte at .82 x 5
    "tensor_parallel, far": (DENSE, {"tensor": 4}, {"devices": 4}, 8 * 8 * 5 * 12 / 4.1),
    # each passes on 2 tokens of 4 x 4 values of 2 byte: forward, again backward, gradients
    "context_parallel": (DENSE, {"context": 2}, {"devices": 2}, 8 * 3 * 2 * 16 * 2 / 8.2),
    # one of two stages waits once for half a micro-batch: products and attention of 4 tokens
    "pipeline": (DENSE, {"pipeline": 2}, {"devices": 2}, 2 * (_GEMM / 100 + 128 * 1.75 / 50) + 2 * 8 * 16 / 8.2),
    "pipeline, interleaved": (
        DENSE, {"pipeline": 2, "interleave": 2}, {"devices": 2}, _GEMM / 100 + 128 * 1.75 / 50 + 2 * 2 * 8 * 16 / 8.2
    ),
    # 132 weights (norms: 18, tables 10 each) held by both: sum gradients, gather weights, each 2 byte x 1/2
    "data_parallel": (DENSE, {}, {"devices": 2}, 2 * 2 * (112 + 18 + 10) / 2 / 8.2),
    "data_parallel, zero 3": (DENSE, {"zero": 3}, {"devices": 2}, (1 + 2 * 4) * 2 * (112 + 18 + 10) / 2 / 8.2),
    # 28 byte of each weight at 14 byte/s, half each
    "optimizer": (DENSE, {}, {"devices": 2, "chip": _SLOW}, 28 * 140 / 14 / 2),
    "optimizer, whole": (DENSE, {"zero": 0}, {"devices": 2, "chip": _SLOW}, 28 * 140 / 14),
    "launch": (DENSE, {}, {"release": replace(PLAIN, launches=5e4)}, 8 * 4 * 0.25),
    "launch, chip": (MOE, {"expert": 2}, {"devices": 2, "chip": replace(CHIP, launch=0.5)}, 4 * 4 * 3 * 2 * 0.5),
    # a forward pass again: products and attention
    "recompute": (DENSE, {"recompute": "full"}, {}, 32 * (_GEMM / 3 / 100 + 64 / 50)),
    "recompute, core": (DENSE, {"recompute": "core"}, {}, 32 * 64 / 50),
    # one pass over inputs (each once) and outputs: attention 2+2+2+2 | 2+2, MLP 2+3 | 3+2, head 2+5 values of 2 byte
    "elementwise": (
        DENSE, {}, {"release": replace(PLAIN, passes=1.0), "chip": replace(CHIP, memory_bandwidth=6.0)},
        3 * 32 * 2 * (4 * (12 + 10) + 7) / 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_part_by_hand(name):
    model, layout, setting, expected = BY_HAND[name]
    assert parts(model, layout, **setting)[name.split(",")[0]] == pytest.approx(expected, rel=1e-9)


# Idle time of 4 stages with F = 1, B = 2, W = 1; micro-batches in flight (DualPipe README; arXiv:2401.10241).
IDLE = {"1f1b": (9, 4), "zb1p": (3, 4), "zb2p": (0, 8), "zbv": (0, 4), "dualpipe": (2, 5)}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_idle_and_hold_what_their_papers_say(name):
    schedule, (idle, flying) = SCHEDULES[name], IDLE[name]
    assert schedule.bubble(4.0, 1.0, 1.0, 2.0, 1.0) == idle
    assert schedule.in_flight(4.0, 1.0) == flying
    assert schedule.copies == (2.0 if name == "dualpipe" else 1.0)


def held(model, layout, devices=1, batch=8, sequence=4):
    work = work_of(model, sequence)
    grid = Grid.of([Layout.of(layout)], work, devices, batch)
    return {name: float(value[0]) for name, value in memory.memory_parts(work, grid, 2.0).items()}


_KEPT = 2 * 4 * (12 + 10)  # bytes of a dense token in 4 layers
# Layout, devices -> weights, gradients, optimizer, activations of DENSE: 150 weights, 4 tokens of a sequence.
HELD = {
    "alone": ({}, 1, (300, 300, 1800, 4 * (_KEPT + 6 * 5))),
    "zero 0": ({"zero": 0}, 2, (300, 300, 1800, 4 * (_KEPT + 30))),
    "zero 1": ({}, 2, (300, 300, 900, 4 * (_KEPT + 30))),
    "zero 2": ({"zero": 2}, 2, (300, 150, 900, 4 * (_KEPT + 30))),
    "zero 3": ({"zero": 3}, 2, (150, 150, 900, 4 * (_KEPT + 30))),
    "tensor": ({"tensor": 2}, 2, (150, 150, 900, 2 * (_KEPT + 30))),
    # half the layers and one table; two micro-batches in flight
    "pipeline": ({"pipeline": 2}, 2, (150, 150, 900, 2 * 4 * _KEPT / 2)),
    # two copies of the layers, three in flight
    "dualpipe": ({"pipeline": 2, "schedule": "dualpipe"}, 2, (280, 280, 1680, 3 * 4 * _KEPT / 2)),
    # inputs of 4 layers, and one layer at work
    "full": ({"recompute": "full"}, 1, (300, 300, 1800, 4 * (2 * 2 * 4 + _KEPT / 4 + 30))),
    # without what the activation function gives: 3 values a layer
    "selective": ({"recompute": "selective"}, 1, (300, 300, 1800, 4 * (_KEPT - 2 * 4 * 3 + 30))),
}


@pytest.mark.parametrize("name", HELD)
def test_memory_by_hand(name):
    layout, devices, expected = HELD[name]
    assert list(held(DENSE, layout, devices).values()) == pytest.approx(expected)


def test_experts_are_shared_among_their_devices():
    alone, spread, twice = held(MOE, {}), held(MOE, {"expert": 2}, 2), held(MOE, {"expert": 2}, 4)
    routed = 4 * 4 * 12
    assert alone["weights"] - spread["weights"] == 2 * routed / 2
    assert alone["optimizer"] / 12 - spread["optimizer"] / 12 == pytest.approx(
        (alone["weights"] / 2 - routed) / 2 + routed / 2
    )
    assert spread["optimizer"] > twice["optimizer"]


def test_sixteen_bytes_a_parameter():
    model = Transformer.load("deepseek_v3")
    step = moesim.step_time(model, chip="h100", devices=1, batch=1, sequence=1, layout={})
    states = sum(step.memory_parts[name] for name in ("weights", "gradients", "optimizer"))
    assert states == 16 * model.network(mtp=True).weights
    assert 16 * model.total_params == pytest.approx(10.7e12, rel=0.005)
    assert not step.fits


# Published: DeepSeek-V3 and Llama; gpt-oss before windowing.
@pytest.mark.parametrize(
    ("name", "size"), [("deepseek_v3", 70272), ("llama3_405b", 516096), ("llama3_70b", 327680), ("gpt_oss_120b", 73728)]
)
def test_bytes_of_keys_and_values(name, size):
    assert kv_bytes(Transformer.load(name)) == size


def test_decode_ceilings():
    rates = decode_rate("deepseek_v3", "h200", 8, np.array([1, 8, 64, 512]), "fp8")
    np.testing.assert_allclose(rates, [1048, 1886, 4205, 29340], rtol=1e-3)
    np.testing.assert_allclose(decode_rate("llama3_70b", "h100", 8, np.array([1, 64]), "fp8"), [386, 24.7e3], rtol=2e-3)
    compute = 8 * 1979e12 / Transformer.load("deepseek_v3").forward_flops()
    assert decode_rate("deepseek_v3", "h200", 8, 1e6, "fp8") == pytest.approx(compute)
    alone, long = (decode_rate("llama3_8b", "h100", context=c) for c in (0, 100_000))
    assert 1 / long - 1 / alone == pytest.approx(1e5 * 131072 / 3.35e12)


def test_goodput_of_young_and_daly():
    assert checkpoint_interval(1.0, 1e6) == pytest.approx(np.sqrt(2e6), rel=1e-3)  # Young
    assert checkpoint_interval(0.02, 1.0) == pytest.approx(0.2 * (1 + 0.1 / 3 + 0.01 / 9) - 0.02)
    assert checkpoint_interval(3.0, 1.0) == 1.0
    assert goodput(10.0, np.inf) == 1.0
    best = checkpoint_interval(60.0, 1e4)
    shares = goodput(60.0, 1e4, 300.0, best * np.array([0.5, 1.0, 2.0]))
    assert shares.argmax() == 1
    assert goodput(1.0, 1e6) == pytest.approx(1 - np.sqrt(2 * 1.0 / 1e6), abs=1e-5)  # what is lost: sqrt(2 w / M)
    assert goodput(60.0, 1e4, 300.0) == pytest.approx(goodput(60.0, 1e4) * np.exp(-0.03))


STEP = {"chip": "h100", "batch": 512}


@given(
    st.sampled_from(sorted(RECOMPUTE)), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4])
)
def test_time_is_additive_and_scales(recompute, pipeline, tensor, micro_batch):
    layout = {"recompute": recompute, "pipeline": pipeline, "tensor": tensor, "expert": 4, "micro_batch": micro_batch}
    model, chip = Transformer.load("qwen3_30b_a3b"), chip_of("h100")
    names = ("flops", "memory_bandwidth", "scale_up", "scale_out")
    fast = replace(chip, **{name: 2 * getattr(chip, name) for name in names}, start=chip.start / 2)
    given = {"devices": 16, "batch": 512, "layout": layout}
    slow, quick = (moesim.step_time(model, chip=one, **given) for one in (chip, fast))
    assert quick.parts == pytest.approx({name: value / 2 for name, value in slow.parts.items()})
    step = moesim.step_time(model, devices=16, layout=layout, **STEP)
    assert step.seconds == pytest.approx(sum(step.parts.values()))
    assert step.memory == pytest.approx(sum(step.memory_parts.values()))
    tokens = 512 * 4096
    assert step.tflops_per_device * 1e12 * 16 * step.seconds == pytest.approx(tokens * model.training_flops(4096))
    assert step.mfu == pytest.approx(step.tflops_per_device / 989)
    assert step.tokens_per_second * 16 * step.seconds == pytest.approx(tokens)


def test_uneven_loads_cost_time():
    layout = {"expert": 8}
    even, uneven = (
        moesim.step_time("qwen3_30b_a3b", devices=16, layout=layout, imbalance=i, **STEP) for i in (1.0, 1.5)
    )
    routed = even.parts["experts"] + even.parts["exchange"]
    assert uneven.seconds - even.seconds == pytest.approx(0.5 * routed)
    data = moesim.simulate(steps=20, experts=8)
    spread = float(data.max_over_mean.mean())
    assert moesim.step_time(
        "qwen3_30b_a3b", devices=16, layout=layout, imbalance=data, **STEP
    ).seconds == pytest.approx(even.seconds + (spread - 1) * routed)


def test_a_sequence_is_counted_once_with_its_modules():
    step = moesim.step_time("deepseek_v3", chip="h800", devices=2048, batch=15360, layout=DEEPSEEK)
    flops = Transformer.load("deepseek_v3").training_flops(4096, mtp=True)
    assert step.tflops_per_device * 1e12 * 2048 * step.seconds == pytest.approx(15360 * 4096 * flops)


@pytest.mark.parametrize(("chip", "lacks"), [("custom", "flops"), ("rtx_4090", "scale_out"), ("a100", "flops_8bit")])
def test_what_needs_a_missing_number_is_nan_with_the_reason(chip, lacks):
    step = moesim.step_time("mixtral_8x7b", chip=chip, devices=16, batch=64, precision="fp8", layout={"expert": 8})
    assert np.isnan([step.seconds, step.mfu, step.tflops_per_device]).all()
    assert lacks in step.reason
    assert step.memory > 0


def test_a_chip_of_unknown_memory_neither_fits_nor_does_not():
    step = moesim.step_time("mixtral_8x7b", chip={"flops": 1e15}, devices=16, batch=64, layout={"expert": 8})
    assert step.fits is None
    assert "fullest device: the chip's memory is not known" in str(step)


REFUSED = [
    ({"layout": {"tensors": 2}}, "unknown key 'tensors'"),
    ({"layout": {"tensor": 0}}, "tensor=0; it takes a whole number"),
    ({"layout": {"zero": 4}}, "zero=4; it takes 0, 1, 2 or 3"),
    ({"layout": {"recompute": "some"}}, "recompute='some'; it takes none or core"),
    ({"layout": {"tensor": 8, "pipeline": 4}}, "tensor x pipeline x context = 32 of devices=16"),
    ({"layout": {"expert": 3}}, "expert=3 does not divide the 16 devices"),
    ({"layout": {"expert": 32}}, "expert=32 does not divide the 16 devices"),
    ({"layout": {"tensor": 3}}, "tensor=3 does not divide heads=32"),
    ({"layout": {"pipeline": 16, "interleave": 8}}, "pipeline x interleave = 128 of 48 layers"),
    ({"layout": {"schedule": "zb1p", "interleave": 2, "pipeline": 2}}, "interleave=2 under schedule=zb1p"),
    ({"layout": {}, "devices": 0}, "devices=0; it takes a whole number"),
    ({"layout": {}, "imbalance": 0.5}, "imbalance=0.5 is outside"),
    ({"layout": {}, "release": "25.01"}, "no constants for '25.01'"),
    ({"layout": {}, "chip": "h1000"}, "no 'h1000'"),
    ({"layout": {}, "precision": "int4"}, "no 'int4'"),
]


@pytest.mark.parametrize(("over", "says"), REFUSED)
def test_bad_input_is_refused(over, says):
    with pytest.raises(InputError, match=says):
        moesim.step_time("qwen3_30b_a3b", **{**STEP, "devices": 16, **over})


# The search.
def test_the_search_finds_what_fits_and_says_why_others_lose():
    step = moesim.step_time("deepseek_v3", chip="gb200", devices=256, batch=4096, precision="mxfp8")
    assert step.fits
    given = moesim.step_time(
        "deepseek_v3", chip="gb200", devices=256, batch=4096, precision="mxfp8", layout=step.layout
    )
    assert given.seconds == pytest.approx(step.seconds)
    assert any(line.startswith("expert=") and "exchange" in line for line in step.others)
    for change in ({"expert": 32}, {"recompute": "full"}, {"micro_batch": 1}):
        other = moesim.step_time(
            "deepseek_v3", chip="gb200", devices=256, batch=4096, precision="mxfp8", layout={**step.layout, **change}
        )
        assert other.seconds >= step.seconds or not other.fits


def test_more_devices_never_cost_more_time():
    counts = [8, 12, 16, 24, 31, 32, 48, 64, 100, 128, 200, 256, 1000]
    steps = [moesim.step_time("qwen3_30b_a3b", chip="h100", devices=n, batch=256) for n in counts]
    seconds = [step.seconds for step in steps]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(seconds))
    assert all(0 <= step.idle_devices < n for step, n in zip(steps, counts, strict=True))


def test_a_model_that_fits_nowhere_says_what_would_help():
    with pytest.raises(
        InputError, match=r"fits on no layout of 8 devices: .* bytes too many; 256 devices .* or a chip"
    ):
        moesim.step_time("deepseek_v3", chip="h100", devices=8, batch=64)
    assert moesim.step_time("deepseek_v3", chip="h100", devices=256, batch=256).fits


@pytest.mark.parametrize(
    ("chip", "devices", "precision", "lacks"),
    [("rtx_4090", 4096, "bf16", "scale_out"), ("a100", 1024, "fp8", "flops_8bit")],
)
def test_a_layout_without_a_time_is_better_than_one_that_does_not_fit(chip, devices, precision, lacks):
    step = moesim.step_time("deepseek_v3", chip=chip, devices=devices, batch=4096, precision=precision)
    assert step.fits
    assert np.isnan(step.seconds)
    assert lacks in step.reason
