# %% [markdown]
# # Balance: what the experts do during the run
#
# `moesim balance` simulates sample, route, learn, time, restructure, place in one loop: domains with frequencies and
# a similarity tree, experts that follow a loss law, routers that make the rich richer, and a cluster in which every
# layer waits for its slowest device. A **split** makes a new expert that learns on its own; a **replica** shares
# weights and changes only the clock.
#
# What it may be trusted with: loads and clocks, which are checked against published ones. What experts *learn* rests
# on invariants and on parameters that nobody has measured at scale: move them (see [the
# findings](../findings/splitting.md)).

# %% tags=["remove-cell"]
# %matplotlib inline

# %% [markdown]
# ## Four policies on the same draws

# %% language="sh"
# moesim balance -m structure=fixed,split sampling=natural,feed_idle steps=200 seeds=2 figures=false

# %% [markdown]
# Each row is the mean over seeds, with the half width of an interval. `max_over_mean` is the busiest device over the
# mean one: at 2 the cluster waits half of the time. Feeding idle experts levels the load and with it the clock, and
# pays in `micro_loss`, the loss on text as it comes, since it repeats what is rare.
#
# ## In Python
#
# `policies` puts rivals side by side along a dim, with common random numbers.

# %%
import moesim

data = moesim.simulate(
    experts=16,
    steps=200,
    seeds=2,
    policies={
        "static": {},
        "eplb": {"placement": "eplb"},
        "loss_free": {"routing": "loss_free"},
        "split_feed": {"structure": "split", "sampling": "feed_idle"},
    },
)
last = data[["micro_loss", "macro_loss", "max_over_mean", "wall_clock"]].isel(step=-1).mean("seed")
last.to_dataframe().round(3)

# %%
moesim.plot.loss(data)

# %% [markdown]
# Left against tokens, right against wall-clock. A policy that wins by tokens can lose by the clock, and the other way
# round. Each run also reports its **regret**: how far its balance, its clock and its loss lie above what is possible.

# %%
data[["regret_balance", "regret_time", "regret_loss"]].isel(step=-1).mean("seed").to_dataframe().round(3)

# %% [markdown]
# ## The balancer alone
#
# EPLB, as published: copies of hot experts, packed on devices.

# %%
balanced = moesim.balance.eplb(
    [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]], replicas=16, groups=4, nodes=2, devices=8
)
balanced

# %% [markdown]
# ## Recorded loads
#
# A placement planned on one window is judged on the next. The trace that is shipped holds OLMoE's and Mixtral's
# counts over corpora, so moving from one to the other is the hard case.

# %% language="sh"
# moesim balance world=trace placement=eplb cluster.slots_per_device=9 figures=false

# %% [markdown]
# Your own dumps: `world=trace world.path=path/to/dumps active_experts=8`. [Which placement wins](../workloads.md) has
# loads that move.
#
# ## Policies of your own
#
# A policy is a function. From Python it needs no name (`moesim.simulate(sampling=my_function)`), see [bring your
# own](../own.md). More to ask:
#
# ```sh
# moesim balance world=workload world.kind=rotating cluster.slots_per_device=9
# moesim balance -m structure=fixed,split,split_or_replicate sampling=natural,feed_idle
# moesim balance world.rho=0.1 routing=loss_free steps=20 seeds=2
# moesim balance chip=h800 cluster=deepseek_v3 expert=deepseek_v3 schedule=deepseek_v3 steps=20 seeds=2
# ```
