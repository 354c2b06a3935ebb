# %% [markdown]
# # Sites: training across places
#
# Clusters in several places, volunteers, spot machines: what do slow links, failures, waiting and prices leave of a
# run? `moesim sites` simulates sites in ticks: a **site** says what is where and when it is up, a **protocol** who
# sends what.

# %% tags=["remove-cell"]
# %matplotlib inline

# %% language="sh"
# moesim sites site=three_continents protocol=diloco hours=48 figures=false

# %% [markdown]
# Of the time that sites are up, some is work, some waits for others, some is spent sending. `slack` is what the rest
# costs.
#
# ## Which bandwidth does a protocol need?
#
# Closed forms, without a simulation: the links that keep 90 % of the compute, for one hundred billion parameters.

# %%
import moesim

for steps in (1, 30, 100, 500):
    needed = moesim.sites.bandwidth_for(
        utilisation=0.9, params=1e11, step_seconds=4.9, steps_between=steps, fragments=1
    )
    print(f"every {steps:3} steps  {needed / 1e9:8.2f} Gbit/s")

# %% [markdown]
# ## Protocols side by side
#
# At low bandwidth the protocol decides; at high bandwidth what it does to the loss is what is left.

# %%
data = moesim.sites.simulate(site="eight_servers", protocol="diloco", params=1e9, hours=24, seeds=2)
data

# %%
moesim.plot.timeline(data)

# %% [markdown]
# ## Questions by name
#
# How long would published models take on Folding@home of 2020, factor by factor?

# %% language="sh"
# moesim sites experiment=folding_at_home figures=false

# %% [markdown]
# Each column takes the one before it and adds what is lost: use, availability, checking, pipes between hosts,
# sending, and how a model averaged over sites learns. More questions:
#
# ```sh
# moesim sites experiment=stem_path_or_diloco   # DiLoCo or a tree synced by paths, over bandwidths
# moesim sites experiment=cheapest_provider     # which spot zones reach a loss at least cost
# moesim sites experiment=slack                 # what waiting and idling cost
# ```
