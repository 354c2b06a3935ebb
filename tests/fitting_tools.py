"""What the tests of fitting share: synthetic runs of every law."""

import numpy as np
import xarray as xr

from moesim import config
from moesim.fitting import fit as fitting
from moesim.fitting.model import target_of
from moesim.laws import FORMS

_LOGS = {
    "total_params": (7.5, 10.0),
    "active_params": (7.5, 9.5),
    "nonembedding_params": (7.5, 10.0),
    "tokens": (9.0, 11.5),
    "compute": (18.5, 21.5),
    "granularity": (0.0, 1.2),
    "activation_ratio": (-2.0, 0.0),
    "loss": (-0.3, 0.3),
}
_CHOICES = {
    "sparsity": [0.0, 0.25, 0.5, 0.75, 0.9, 0.95],
    "density": [1.0, 0.5, 0.25, 0.125, 0.0625],
    "experts": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
    "active_experts": [1.0, 2.0, 4.0, 8.0, 16.0],
    "shared_ratio": [0.0, 0.1, 0.25, 0.5],
}


def fit(*arguments, draws=0, **settings):
    """`moesim.fit` without draws unless they are asked for, to save time."""
    return fitting.fit(*arguments, draws=draws, **settings)


def one_file_of_each_form():
    """The first coefficient file of every form in conf/law that predicts loss."""
    files = {}
    for name in config.choices("law"):
        files.setdefault(config.read("law", name)["form"], name)
    return [name for form, name in files.items() if FORMS[form].predicts == "loss"]


def synthetic(law, n=300, noise=0.0, seed=0, repetition="none", **more):
    """Runs of a law: inputs spread over ordinary ranges, log-normal scatter of the loss; Dataset like load_runs'."""
    rng, target = np.random.default_rng(seed), target_of(law, repetition)
    inputs = {}
    for name in target.inputs:
        if name in _LOGS:
            inputs[name] = 10.0 ** rng.uniform(*_LOGS[name], n)
        elif name in _CHOICES:
            inputs[name] = rng.choice(_CHOICES[name], n)
    if "unique_tokens" in target.inputs:
        inputs["unique_tokens"] = inputs["tokens"] / rng.choice([1.0, 2.0, 4.0, 8.0, 16.0, 64.0], n)
    true = target.at(inputs)({**target.known, **more})
    inputs[target.predicts] = true * np.exp(noise * rng.standard_normal(n))
    return xr.Dataset({k: ("run", v) for k, v in inputs.items()}, coords={"row": ("run", np.arange(1, n + 1))})
