"""Whatever stands in a config.json, a reference file or a network: a count, or one line that says what is wrong."""

import copy
import json
import random
from pathlib import Path

import pytest

from moesim.config import read
from moesim.errors import InputError
from moesim.models.keys import KEYS
from moesim.models.network import Network
from moesim.models.transformer import Transformer

DATA = Path(__file__).parent / "data"
JUNK = [None, True, False, 0, 1, -1, 3, 1.5, "", "x", "true", [], [0], [1], ["x"], [[1]], {}, {"a": 1}, [1, 0, 1, 1]]
JUNK += [10**12, 10**30, -(10**12), float("nan"), float("inf")]
OWN = {"parameters", "buffers", "flops"}
ROWS = [{k: v for k, v in row.items() if k not in OWN} for row in json.loads((DATA / "huggingface.json").read_text())]
FIELDS = ("variants", "mamba_layers", "layer_embedding", "zero_experts", "indexer_heads", "tied", "gated_experts")


def one_line(build):
    told = ""
    try:
        build()
    except InputError as error:
        told = str(error)
    assert "\n" not in told


@pytest.mark.parametrize("config", ROWS[::4], ids=lambda config: config["model_type"])
def test_config_json(config):
    rng = random.Random(str(config))
    for key in (*config, *rng.sample(sorted(KEYS), 4)):
        for value in rng.sample(JUNK, 3):
            one_line(
                lambda at=key, to=value: Transformer.from_config({**config, at: to}).training_flops(64, "megatron")
            )


@pytest.mark.parametrize("name", ["deepseek_v3", "glam_64b", "switch_base_128", "gpt3_175b"])
def test_reference_files(name):
    for field in (*read("model", name)["transformer"], *FIELDS):
        for value in JUNK:
            spec = read("model", name)
            spec["transformer"][field] = value
            one_line(lambda given=spec: Transformer.from_spec("mine", given).training_flops(64))


def places(value, path=()):
    """Paths to everything in a nest of mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from places(below, (*path, key))


@pytest.mark.parametrize("name", ["convnet", "deeperconvnet", "resnet50"])
def test_networks(name):
    rng, given = random.Random(name), read("network", name)
    for *path, last in places(given):
        for value in rng.sample(JUNK, 3):
            spec = copy.deepcopy(given)
            inner = spec
            for key in path:
                inner = inner[key]
            inner[last] = value
            one_line(lambda changed=spec: Network.from_spec("mine", changed).total(4))


def test_as_many_layers_as_there_may_be():
    config = next(row for row in ROWS if row["model_type"] == "mistral")
    assert Transformer.from_config({**config, "num_hidden_layers": 10**5}).layers == 10**5
    assert Transformer(10**12, 64, 8, 100, d_ff=96).total_params > 10**16
