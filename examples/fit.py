# %% [markdown]
# # Fit: what your runs say about a law
#
# `moesim fit` fits a law, alone or with a repetition, to a table of runs. It tells how sure each coefficient is, what
# the runs cannot tell, what the fit says about spending a budget, and which run to make next.

# %% tags=["remove-cell"]
# %matplotlib inline

# %% [markdown]
# ## A published table
#
# The points of Hoffmann et al. (2022), Figure 4, as Besiroglu et al. (2024) read them off, are shipped as
# `chinchilla`.

# %% language="sh"
# moesim fit runs=chinchilla law=hoffmann2022 fit.draws=400 figures=false

# %% [markdown]
# Each coefficient has a **verdict**. `identified`: the runs determine it. `weak`: they hardly do; `A` and `alpha`
# trade off with each other, so compare exponents and predictions, not `A`. Others are `not identified`, `at bound`
# and `term vanishes`; such a coefficient has a wide or open interval instead of a narrow wrong one.
#
# The table of budgets is the point of a fit: `N*` and `D*` with intervals, with a star where they lie outside the
# runs. The last lines name the runs that would narrow what is weak.
#
# ## Your own table

# %%
import numpy as np

import moesim

rng = np.random.default_rng(0)
truth = moesim.load_law("hoffmann2022")
params, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(5e7, 2e9, 6), np.geomspace(1e9, 5e10, 5)))
loss = truth(total_params=params, tokens=tokens) * np.exp(0.004 * rng.normal(size=params.size))

fitted = moesim.fit("hoffmann2022", total_params=params, tokens=tokens, loss=loss, draws=300, profiles=True)
fitted

# %% [markdown]
# A file is as good: `moesim.load_runs("mine.csv", columns={"total_params": "n", "tokens": "d"})`, or on the command
# line `runs=mine.csv runs.columns.total_params=n`. [Bring your own](../own.md) lists the kinds of files that are
# read.
#
# Are 30 runs enough? The profile of a coefficient shows how much worse the fit gets when it is held elsewhere.

# %%
moesim.plot.profiles(fitted.to_dataset())

# %% [markdown]
# ## Plan with what was measured
#
# A fit is a law with draws. Whatever takes a law takes it, and every answer gets its spread.

# %%
plan = moesim.optimum(fitted, compute=[1e20, 1e21])
sizes = plan.optimal_active_params
print(sizes.dims)
print(sizes.quantile([0.05, 0.5, 0.95], "draw").to_pandas().map("{:.3g}".format))

# %% [markdown]
# On the command line the file of a fit is a law: `moesim sweep law=outputs/fit/<date>/<time>/fit.nc`.
#
# ## Would it have predicted?
#
# Fit below each cut of compute, predict the runs above it. An interval that covers much less than it says means that
# the law, and not its coefficients, is wrong there.

# %%
chinchilla = moesim.fit("hoffmann2022", "chinchilla", draws=200)
ahead = moesim.rolling(chinchilla, cuts=3)
ahead[["below", "above", "mape", "coverage"]].to_pandas().round(3)

# %% [markdown]
# How often intervals hold the truth has been [measured](../coverage.md). More ways to ask:
#
# ```sh
# moesim fit runs=chinchilla law=hoffmann2022 fit.objective=squared_log fit.draws=100
# moesim fit runs=chinchilla law=hoffmann2022 fit.holdout='{largest_compute: 0.2}' fit.draws=100
# moesim fit runs=datablations law=muennighoff2023 repetition=muennighoff2023 \
#     fit.hold=law fit.draws=0 fit.profiles=false
# moesim fit runs=chinchilla law=hoffmann2022 rolling=4        # fit below each cut of compute, predict above it
# moesim fit runs=chinchilla folds=5 "compare={two: {law: hoffmann2022}, one: {law: gadre2024_redpajama}}"
# moesim fit experiment=datablations_variants                  # forms of repetition on the same 182 runs
# ```
