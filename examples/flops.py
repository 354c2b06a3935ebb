# %% [markdown]
# # Flops: what a model holds and costs
#
# `moesim flops` counts parameters and FLOPs of a network or a transformer, by layer and by pass: forward, gradients
# of inputs, gradients of weights, update. Counts are exact; conventions of the field stand beside them by name.

# %% tags=["remove-cell"]
# %matplotlib inline

# %% language="sh"
# moesim flops model=mixtral_8x7b tokens=1e12 batch=4194304 optimizer=adamw figures=false

# %% [markdown]
# Any `config.json` of about eighty families is read: `moesim flops model=path/to/config.json`.
#
# ## Two models side by side

# %% language="sh"
# moesim flops compare=[mixtral_8x7b,llama3_8b] figures=false

# %% [markdown]
# ## In Python

# %%
import moesim
from moesim.models.transformer import Transformer

model = Transformer.from_config(
    {
        "model_type": "mixtral",
        "hidden_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "intermediate_size": 3584,
        "vocab_size": 32000,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
)
print(f"{model.total_params:,} parameters, {model.active_params:,} of them active")
print(f"{model.forward_flops(4096):.4g} FLOP forward, {model.training_flops(4096):.4g} to train, for each token")

# %% [markdown]
# ## How much more than the forward pass?
#
# The backward pass costs once to three times the forward pass, usually twice: total/forward = 3 - phi + r + u P/(B
# F), where phi is the share of the first layer (it needs no gradient of its input), r what is recomputed, and the
# last term the update, which matters at small batches alone.

# %%
counted = moesim.flops("onenet", batch=[1, 16, 256, 4096], optimizer=["sgd", "adamw"])
counted.total_to_forward.to_pandas().round(3)

# %% [markdown]
# An expert sees only its share of the batch, so its update weighs more, and attention grows with the sequence:

# %%
sequences = moesim.flops("deepseek_v3", sequence=[4096, 32768, 131072], batch=4194304, optimizer="adamw")
print(sequences.flops_per_token.sel(convention=["exact", "6nd", "palm"]).to_pandas().map("{:.4g}".format))
moesim.plot.flops_by_sequence(sequences)

# %% [markdown]
# ## With a chip: seconds and memory
#
# ```sh
# moesim flops model=deepseek_v3 tokens=14.8e12 chip=h800 clock.devices=2048
# moesim flops network=onenet 'batch={geomspace: [1, 4096, 13]}'
# moesim flops network=resnet50 batch='[1, 64]'
# moesim flops model=llama4_maverick as=executed              # what runs, where that is more than what is trained
# moesim flops compare=[fff,fff_hard,fff_dense,fff_flat]      # a fast feedforward tree, soft and hard, and its rivals
# ```
