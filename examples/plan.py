# %% [markdown]
# # Plan: which model for so many chips and days
#
# Budgets come as chips and days, not as FLOPs. `moesim plan` searches the size, the sparsity and the layout whose
# loss is lowest at the end of the time, and shows what its rivals reach in the **same time**: a sparse model wastes
# more of each chip, and at equal FLOPs nobody sees that.

# %% tags=["remove-cell"]
# %matplotlib inline

# %% language="sh"
# moesim plan chip=h100 cluster.devices=64 budget.days=30 space.unique_tokens=5e11 figures=false

# %% [markdown]
# * **train ...**: the run, with a `config.json` beside the result that [flops](flops.py) and Hugging Face read.
# * **the choices**: the best, the dense rival, and the next sparser and denser model, each with its own best size.
# * **what binds**: how much lower the loss would be with a quarter more time, data or memory.
# * **loss of the rivals, by law and reading**: other laws disagree. If the signs differ within a column, the choice
#   is not settled by what is published; the odds count them.
#
# Other budgets: `budget.device_hours`, `budget.cost`, `budget.date`, `budget.compute`.
#
# ## In Python

# %%
import moesim

plan = moesim.plan(chip="h100", devices=[8, 64], days=30, unique_tokens=5e11, laws=["abnar2025"])
plan[["sparsity", "active_params", "tokens", "hours", "mfu"]].sel(choice="best").to_dataframe()

# %% [markdown]
# ## One step, part by part
#
# Under a plan lies the time of a training step, whose constants are fitted to published ones ([every
# residual](../hardware.md)).

# %%
step = moesim.step_time("deepseek_v3", chip="h100", devices=1024, batch=16384, precision="bf16")
print(f"{step.seconds:.1f} s, {step.mfu:.1%} of the peak, {step.memory / 1e9:.0f} GB on the fullest device")
for part, seconds in step.parts.items():
    print(f"{part:>16}  {seconds:6.2f} s")

# %% [markdown]
# The layout was searched; give `layout={"tensor": 2, "pipeline": 8, "expert": 64}` to judge one of your own, and
# `step.others` for the next best and why they lose.
#
# ## Questions by name
#
# ```sh
# moesim plan chip=h100 cluster.devices=1024 budget.days=30 space.unique_tokens=5e12
# moesim plan budget.device_hours=2.8e6 chip=h800 serving.tokens=2e13
# moesim plan experiment=iso_time        # where does "sparser is better" stop on 8, 64, 1024, 16384 chips?
# moesim plan experiment=gating          # how bad may a router be before the dense model wins?
# moesim plan experiment=known_runs      # what would have been advised for published budgets?
# ```
