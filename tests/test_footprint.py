"""Memory of placed experts on numbers that fit on paper, and the verdict with device and layer."""

import numpy as np
import pytest
from test_balance_run import config
from test_hardware_by_hand import machine

from moesim.balance.run import run
from moesim.hardware.footprint import footprint, fullest

# 10 weights an expert, 2 + 2 bytes and 12 of the optimiser; two microbatches. Two devices, two layers:
# the first holds 2 and 1 copies and receives 8 and 20 assignments, the second 1 and 1, 4 and 4.
HELD, RECEIVED = np.array([[[2.0, 1.0], [1.0, 1.0]]]), np.array([[[8.0, 4.0], [20.0, 4.0]]])


def test_bytes_by_hand():
    parts = footprint(machine(), HELD, RECEIVED)
    np.testing.assert_allclose(parts["weights"], [[[80, 40], [40, 40]]])
    np.testing.assert_allclose(parts["optimizer"], [[[240, 120], [120, 120]]])
    # an assignment keeps 2 values in, 2 out and 5 between, of 2 bytes; half of them at a time
    np.testing.assert_allclose(parts["activations"], [[[4 * 18, 2 * 18], [10 * 18, 2 * 18]]])
    # 2 values of 1 + 2 bytes
    np.testing.assert_allclose(parts["buffers"], [[[24, 12], [60, 12]]])
    made = machine(schedule={"recompute": True, "sharded_optimizer": True}, cluster={"groups": 4})
    parts = footprint(made, HELD, RECEIVED)
    np.testing.assert_allclose(parts["optimizer"], [[[60, 30], [30, 30]]])
    np.testing.assert_allclose(parts["activations"], [[[4 * 4, 2 * 4], [10 * 4, 2 * 4]]])
    # two stages keep both microbatches in flight, eight no more than the two there are
    for stages, flying in ((2, 2), (8, 2)):
        more = footprint(machine(cluster={"stages": stages}), HELD, RECEIVED)
        np.testing.assert_allclose(more["activations"], flying * np.array([[[4 * 18, 2 * 18], [10 * 18, 2 * 18]]]))


# Memory -> layer of the first device: states 320 and 160, activations 72 and 180, buffers 24 and 60.
VERDICTS = {800.0: -1, 792.0: -1, 791.0: 1, 580.0: 1, 576.0: 1, 575.0: 0, 479.0: 1, 320.0: 1, 319.0: 0}


@pytest.mark.parametrize("memory", VERDICTS)
def test_where_memory_runs_out(memory):
    out = fullest(machine(chip={"memory": memory}), HELD, RECEIVED)
    assert out["memory"] == 480 + 252 + 60
    assert out["fullest_device"] == 0
    assert (out["memory_weights"], out["memory_optimizer"]) == (120, 360)
    assert (out["memory_activations"], out["memory_buffers"]) == (252, 60)
    np.testing.assert_allclose(out["memory_share"], 792 / memory)
    assert out["out_of_memory_layer"] == VERDICTS[memory]
    less = fullest(machine(chip={"memory": memory + 5.0}, schedule={"dense_memory": 5.0}), HELD, RECEIVED)
    assert (less["memory"], less["out_of_memory_layer"]) == (797, VERDICTS[memory])


def test_unknown_memory_gives_no_verdict():
    out = fullest(machine(), HELD, RECEIVED)
    assert np.isnan(out["memory_share"])
    assert out["out_of_memory_layer"] == -1


@pytest.mark.parametrize("active", [1, 8])
def test_the_default_world_fits(active):
    """A microbatch is one sequence of 4096 tokens a device: 4,194,304 tokens over 8 devices make 128."""
    result = run(config({"experts": 16, "active_experts": active, "cluster": {"devices": 8}, "figures": False}))
    assert float(result.dataset.memory_share.max()) < 0.75
    assert "out of memory" not in result.table


def test_the_table_says_where(tmp_path):
    policies = {"static": {}, "level": {"routing": "loss_free", "placement": "scheduled"}}
    over = {"policies": policies, "figures": False, "steps": 400, "experts": 16, "cluster": {"devices": 8}}
    over["schedule"] = {"microbatches": 8}  # 65,536 tokens a device at once: activations weigh more than copies
    most = run(config({**over, "policies": {"level": policies["level"]}})).dataset.memory.isel(step=-1).max()
    result = run(config({**over, "chip": {"memory": float(most) * 1.2}}))
    data = result.dataset
    assert (data.memory.sel(policy="level").isel(step=-1) < data.memory.sel(policy="static").isel(step=-1)).all()
    told = [line for line in result.table.splitlines() if line.startswith("out of memory: static")]
    assert len(told) == 1
    assert "device" in told[0]
    assert "layer" in told[0]
    assert (data.out_of_memory_layer.sel(policy="static").isel(step=-1) >= 0).all()
    assert (data.out_of_memory_layer.sel(policy="level").isel(step=-1) == -1).all()
