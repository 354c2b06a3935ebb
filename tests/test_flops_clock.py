"""Time beside FLOPs: `moesim flops chip=...`."""

import numpy as np
import pytest

import moesim
from moesim.counting.clocked import GRADIENTS, Clock, measured
from moesim.data import shipped
from moesim.errors import InputError
from moesim.models.transformer import Transformer
from moesim.settings import defaults

V3 = {"devices": 2048, "precision": "fp8", "layout": {"pipeline": 16, "expert": 64}}


def test_a_model_on_a_chip_is_its_step_beside_its_counts():
    data = moesim.flops("deepseek_v3", batch=4096, optimizer="sgd", tokens=14.8e12, chip="h800", clock=V3)
    step = moesim.step_time("deepseek_v3", chip="h800", devices=2048, precision="fp8", batch=15360, layout=V3["layout"])
    assert float(data.step_seconds) == pytest.approx(step.seconds)
    assert data.step_part.sum() == pytest.approx(step.seconds)
    assert float(data.device_hours) == pytest.approx(step.device_hours(14.8e12, 15360 * 4096))
    assert float(data.device_hours) == pytest.approx(2.664e6, rel=0.25)
    assert float(data.hours) == pytest.approx(float(data.device_hours) / 2048)
    assert float(data.kv_bytes) == 70272
    assert data.attrs["fits"] == "False"


def test_utilisation_and_rate_are_two_words_for_one():
    """DeepSeek-V3: 272.8e9 tokens a day on 2048 H800 are 38.9 % of the 16-bit peak (its report, causal)."""
    rate = 272.8e9 / 86400 / 2048
    clock = {**V3, "precision": "bf16", "tokens_per_second": rate}
    data = moesim.flops("deepseek_v3", batch=4096, optimizer="sgd", chip="h800", clock=clock)
    with_modules = Transformer.load("deepseek_v3").training_flops(4096, mtp=True)
    assert float(data.measured_mfu) == pytest.approx(rate * with_modules / 989e12)
    plain = Transformer.load("deepseek_v3").training_flops(4096)
    assert float(data.measured_mfu) * plain / with_modules == pytest.approx(0.389, abs=0.002)


@pytest.mark.parametrize(("how", "backward"), [("hand_written", 2.5), ("automatic_old", 10.0), ("counted", None)])
def test_a_network_takes_its_forward_pass_and_its_gradients(how, backward):
    data = moesim.flops("resnet50", batch=[1, 64], optimizer="sgd", chip="v100", clock={"devices": 1, "gradients": how})
    forward = data.flops.sel({"pass": "forward"}).sum("layer").values / (0.3 * 125e12)
    np.testing.assert_allclose(data.forward_seconds.values, forward)
    more = data.backward_to_forward.values if backward is None else backward
    np.testing.assert_allclose(data.step_seconds.values, forward * (1 + more))
    assert set(GRADIENTS) == {"hand_written", "automatic_old", "counted"}


def test_what_has_been_measured():
    rows = shipped("utilisation.csv")
    assert all(0 < float(row["mfu"]) < 1 and row["source"] for row in rows)
    assert "GPT-3" in measured("v100")
    assert measured("custom") == ""


REFUSED = [
    ({"chip": "h1000"}, "no 'h1000'"),
    ({"chip": "h100", "clock": {"device": 1}}, "unknown key 'device'"),
    ({"chip": "h100", "clock": {"gradients": "magic"}}, "no 'magic'; there are counted"),
    ({"chip": "h100", "model": ["onenet", "convnet"]}, "takes one network or model"),
    ({"chip": "h100", "model": "llama3_8b", "sequence": [1024, 2048]}, "takes one network or model"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED)
def test_bad_input_is_refused(given, says):
    with pytest.raises(InputError, match=says):
        moesim.flops(given.pop("model", "onenet"), batch=1, **given)


def test_the_verb_shows_times(command):
    code, out, _ = command("flops", "model=qwen3_30b_a3b", "chip=h100", "clock.devices=16", "figures=false")
    assert code == 0
    for said in ("s a step", "on the fullest device (fits: True)", "decoding:", "published MFU"):
        assert said in out
    code, _, err = command("flops", "clock.devices=2")
    assert code == 2
    assert "without chip=NAME" in err


def test_the_primary_config_says_what_the_code_does():
    from moesim.config import shipped as config

    assert config("flops")["clock"] == defaults(Clock)
