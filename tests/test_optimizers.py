"""FLOP per weight of one update."""

import pytest

from moesim.errors import InputError
from moesim.models.operations import Tensor
from moesim.models.optimizers import OPTIMIZERS, Optimizer, muon, newton_schulz, optimizer

PER_WEIGHT = {
    "sgd": 2,  # Hobbhahn & Sevilla 2021
    "momentum": 4,
    "nesterov": 6,
    "rmsprop": 9,
    "adagrad": 7,
    "adam": 13,
    "adam_post": 3 + 4 + 3 + 3 + 5,  # the post's count
    "adam_text": 4 + 5 + 3 + 3 + 5,
    "adam_hoisted": 3 + 4 + 1 + 1 + 5,  # a commenter's correction
    "adam_epsilon_hat": 12,  # Kingma & Ba 2015, section 2
    "adamw": 14,
    "adamw_clip": 17,
    "adamw_clip_scale": 18,
}


@pytest.mark.parametrize("name", PER_WEIGHT)
def test_flop_per_weight(name):
    assert OPTIMIZERS[name].flops(Tensor(30, 20, count=4, matrix=True)) == PER_WEIGHT[name] * 30 * 20 * 4
    assert OPTIMIZERS[name].source


def test_muon():
    """steps (4 m + 2 m^2/n) per weight: 46,811 for DeepSeek-V3's expert matrix; vectors and embeddings by AdamW."""
    per_weight = newton_schulz(7168, 2048) / (7168 * 2048)
    assert per_weight == pytest.approx(46_811, abs=0.5)
    assert per_weight == pytest.approx(5 * (4 * 2048 + 2 * 2048**2 / 7168))
    assert newton_schulz(7168, 2048) == newton_schulz(2048, 7168)
    assert muon(10).flops(Tensor(8, 6, matrix=True)) == 2 * muon().flops(Tensor(8, 6, matrix=True))
    assert muon().flops(Tensor(8, 6)) == 14 * 48
    assert muon().flops(Tensor(8, 6, count=3, matrix=True)) == 3 * newton_schulz(8, 6)


def test_untrained_values_cost_nothing():
    assert all(row.flops(Tensor(9, trained=False)) == 0 for row in OPTIMIZERS.values())


def test_by_name_by_number_or_as_it_is():
    assert optimizer("sgd") is OPTIMIZERS["sgd"]
    assert optimizer(5).flops(Tensor(3)) == 15
    mine = Optimizer("mine", 3, "here")
    assert optimizer(mine) is mine


@pytest.mark.parametrize("bad", ["adamm", None, [], True, -1, float("nan"), float("inf")])
def test_bad_optimizers(bad):
    with pytest.raises(InputError, match="optimizer"):
        optimizer(bad)
    with pytest.raises(InputError, match="steps=0"):
        muon(0)
