# %% [markdown]
# # Page: a result to play with
#
# `moesim page` writes any result, or several, as **one HTML file**: nothing to install, no server, no request to
# anywhere. Send it by mail, open it from disk.

# %% language="sh"
# moesim sweep space.compute=[1e20,1e21] page=true figures=false hydra.run.dir=mine

# %% [markdown]
# `page=true` writes it beside the result, on any verb. Of a result that is there already, or of several:

# %% language="sh"
# moesim page mine/result.nc

# %% [markdown]
# ## In Python

# %%
import moesim

grid = moesim.sweep("abnar2025", repetition="muennighoff2023", compute=[1e20, 1e21], sparsity=[0, 0.9, 0.98])
path = moesim.page(grid, to="sweep.html")
f"{path.stat().st_size / 1e6:.1f} MB"

# %% [markdown]
# Open such a page: <a href="../live/sweep.html">a sweep</a> at 1e20 and 1e21 FLOP with 2e9 unique tokens,
# <a href="../live/fit.html">a fit</a> of Chinchilla's runs, <a href="../live/balance.html">three policies</a> of a
# balance run, <a href="../live/sites.html">three continents</a> that train together, <a href="../live/lab.html">small
# models</a> that were trained on repeated data.
#
# ## The law is in it
#
# Of sweeps, fits and plans the page computes the law itself: sliders for compute, unique tokens, sparsity and every
# coefficient move the curves and the optimum at once. The formula is not written twice: the Python function is traced
# into an expression, which the result carries as data and the page runs. Your own law works too, if it is made of
# arithmetic; one that cannot be traced is refused by name.
#
# ## Runs of small models
#
# `moesim lab kept=lab_text page=true` makes a page of the shipped runs, as does `moesim lab` of your own: choose a
# corpus and a weight decay (and size, learning rate and pool, where there are several) and see loss and penalty over
# epochs for each arm with every seed, differences of pairs and the excess index with their intervals. All are the
# numbers of the printed tables.
#
# A page runs nothing of the file that it is made from. What a result calls itself is shown as text.
