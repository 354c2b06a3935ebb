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
# The same 14 sites on three continents for a day: what share of the time up is work, and which loss is reached?

# %%
for protocol in ("data_parallel", "diloco", "streaming", "decoupled"):
    data = moesim.sites.simulate(site="three_continents", protocol=protocol, hours=24, seeds=2)
    at_work = float(data.working.sum() / data.up.sum())
    print(f"{protocol:>13}  {at_work:4.0%} at work, {float(data.loss.isel(round=-1).mean()):.3f} nat/token")

# %% [markdown]
# Every protocol gives its own account of who waits when:

# %%
moesim.plot.timeline(moesim.sites.simulate(site="eight_servers", protocol="frozen_stem", params=1e9, hours=24, seeds=2))

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
# moesim sites experiment=levels_given_away     # how many levels of a tree can be cut off
# moesim sites experiment=unequal_machines      # trees cut to the speed of unequal servers
# moesim flops experiment=log_width             # does a tree cost the logarithm of its width?
# ```
