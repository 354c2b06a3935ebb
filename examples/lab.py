# %% [markdown]
# # Lab: small real Mixtures of Experts
#
# Hardly any public run varies sparsity and repetition together. `moesim lab` trains small decoders that do, on two
# CPU cores: dense models, Mixtures of Experts, and the Mixture with all its experts always on. Losses are in nat per
# byte, and models have 25 to 560 thousand parameters, so **signs and sizes of differences** are what may be read from
# them.
#
# Training needs PyTorch: `pip install 'moesim[lab]'`. Its runs are shipped, so this page needs none.

# %% tags=["remove-cell"]
# %matplotlib inline

# %% [markdown]
# ## What repetition cost them
#
# `kept=lab_text` makes the tables of the shipped runs again.

# %% language="sh"
# moesim lab kept=lab_text figures=false

# %% [markdown]
# The `penalty` is the loss above that of the same model on fresh bytes. At this rate it is hardly there up to 16
# passes. At 64 and a weight decay of 0.1 the Mixture pays more than the dense model of its active size and less
# than that of its total size; with rate and decay tuned for each, the three pay a quarter to a third of a nat, in
# the same order, with small differences. [What that means](../findings/small_models.md) for large models is open.
#
# ## The runs are a table of runs

# %%
import moesim

runs = moesim.load_runs("lab_text")
recipe = (runs.weight_decay == 0.1) & (runs.learning_rate == 0.01) & (runs.cooldown == 0) & (runs.seed < 100)
usual = recipe & (runs.d_model == 32) & (runs.attention_scale == 0.25)
heavy = runs.where(usual & (runs.unique_tokens == 2**15), drop=True)
heavy.to_dataframe().groupby(["arm", "epochs"]).loss.mean().unstack().round(3)

# %% [markdown]
# A verb reads what another writes, so they are fitted like any others. Five kinds of fresh runs do not determine five
# coefficients, and the fit says so.

# %%
fresh = usual & (runs.unique_tokens == runs.tokens) & (runs.tokens > 2.6e5)
moesim.fit("hoffmann2022", runs.isel(run=fresh), draws=0)

# %% [markdown]
# ## Train your own
#
# ```sh
# moesim lab                                    # a few minutes on two cores: synthetic bytes, three arms
# moesim lab experiment=lab_repetition          # the question above; about two CPU-hours, goes on where it was killed
# moesim lab corpus=files corpus.path=path/to/texts experts=[1,8,32]
# moesim lab balancing=[none,loss_free] seeds=3 # with and without balancing, with intervals over seeds
# moesim lab probes=[split,transfer,forced]     # what an expert split in two does, what domains give one another
# moesim lab calibrate='outputs/lab/<date>/<time>'  # what loads say about the parameters of balance
# moesim lab experiment=lab_reality             # the simulator, calibrated on some seeds, against the others
# ```
