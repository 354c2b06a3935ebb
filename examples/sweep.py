# %% [markdown]
# # Sweep: which run for so much compute and so much data
#
# You have compute `C` and only so many unique tokens `U`. How many active parameters, how sparse, how many epochs?
# `moesim sweep` takes a **law** (the loss of a run on fresh tokens), a **repetition** (what a token is worth that was
# seen before), an **architecture** (how parameters and FLOPs are counted) and a **space** of axes, solves for the
# best run in every cell, and says where that leaves the data behind its laws.

# %% tags=["remove-cell"]
# %matplotlib inline

# %% [markdown]
# ## On the command line
#
# Each choice is a name, and each number a key; `moesim sweep --help` lists them.

# %% language="sh"
# moesim sweep space.compute=[1e20,1e21] figures=false

# %% [markdown]
# Reading it from the top:
#
# * **best sparsity**: the compute-optimal run when sparsity is free as well. `upper bound` says that the loss was
#   still falling at the largest sparsity tried, so the number is a limit of the search and no optimum.
# * **loss, active parameters, epochs** of the best run at each given sparsity `S`, the inactive share of the experts.
# * **within 0.01 nat/token of it**: isoFLOP curves are flat. The range tells how exact the size has to be.
# * **a parabola reads**: what the usual fit of a parabola to runs would report. It is biased, and by how much stands
#   here.
# * **a star** marks what lies outside the data behind the law, the repetition, or what its excess is measured by.
#   With 2e9 tokens and 1e20 FLOP every run does: nobody has published one.
# * **the band**: the same question under a light and a heavy reading of repetition. Where the two disagree, the
#   answer is not known. [How to choose](../choose.md) has the evidence for each.
#
# ## In Python
#
# The same function with the same defaults gives an xarray Dataset.

# %%
import moesim

heavy = moesim.load_repetition("muennighoff2023", excess="total", taught="dense")
runs = moesim.optimum(
    "abnar2025",
    repetition=heavy,
    compute=[1e19, 1e20, 1e21],
    sparsity=[0, 0.75, 0.9, 0.98],
    unique_tokens=[2e9, 2e10, float("inf")],
)
runs.best_sparsity.to_pandas()

# %% [markdown]
# Every name has its unit, and a status says what kind of optimum a cell holds ([all
# variables](../reference/variables.md)).

# %%
print(runs.best_sparsity_status.to_pandas())
print(runs.optimal_active_params.attrs)

# %% [markdown]
# The curves behind an optimum: `sweep` evaluates the whole grid and keeps the optima beside it.

# %%
model = moesim.Model("abnar2025", heavy)
grid = moesim.sweep(model, compute=[1e20, 1e21], sparsity=[0, 0.9, 0.98], unique_tokens=[2e9, float("inf")])
moesim.plot.isoflop(grid)

# %% [markdown]
# With unlimited data (bottom) sparser is better at every budget. With 2e9 tokens (top), total parameters counted, the
# order turns round: repeating wears out the many parameters of the sparse model first. Dashes are outside the data.
#
# ## What is unknown can be an axis
#
# `R_D` says how many repeats are worth something. Published values go from 2.9 to 31.5, so look at all of them:

# %%
import numpy as np

repeats = moesim.load_repetition("muennighoff2023", R_D=np.linspace(3, 32, 7))
spread = moesim.optimum("abnar2025", repetition=repeats, compute=1e20, unique_tokens=2e9)
print(spread.best_sparsity.dims)
print(np.round(spread.best_sparsity.values, 2))

# %% [markdown]
# ## Other ways to ask
#
# At fixed memory, for a fixed number of tokens, under other laws and readings, side by side:
#
# ```sh
# moesim sweep space.total_params='[1e9, 1e10]'               # the best sparsity at fixed memory
# moesim sweep space.compute=null space.tokens='[2e10, 1e11]' # the best run for so many tokens
# moesim sweep 'compare={law: [abnar2025, ludziejewski2025], excess: [none, total]}'
# moesim sweep repetition.coefficients.R_D='{linspace: [3, 32, 30]}'
# moesim sweep law=ludziejewski2025 architecture=ludziejewski2025 space.compute='{geomspace: [1e20, 1e22, 9]}'
# moesim sweep experiment=parabola_epochs      # what isoFLOP studies would read
# moesim sweep experiment=sparsity_readings    # S counts experts, not parameters: how far apart are the readings?
# ```
