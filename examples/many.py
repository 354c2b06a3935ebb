# %% [markdown]
# # Many runs: collect, rerun, laws
#
# With `-m`, lists of values become jobs, one for each combination. They end as one Dataset.

# %% language="sh"
# moesim sweep -m law=abnar2025,ludziejewski2025 repetition=none,muennighoff2023 \
#     space.compute=[1e20] space.sparsity=[0,0.9] figures=false hydra.sweep.dir=two_laws

# %% [markdown]
# A multirun prints one table of what was varied and writes `collected.nc`, with the choices as dims and a status for
# each job. A job that fails says why and does not stop the others. Use `-m` for choices such as laws or seeds, and
# axes (`space.compute=[...]`) for numbers: a job costs some tenths of a second, a value on an axis some milliseconds.
#
# ## Collect
#
# At any time, also when the run was killed half way, `collect` gathers what is whole; `resume` runs only what is
# missing.

# %% language="sh"
# moesim collect two_laws

# %% language="sh"
# moesim sweep -m law=abnar2025,ludziejewski2025 repetition=none,muennighoff2023 \
#     space.compute=[1e20] space.sparsity=[0,0.9] figures=false resume=two_laws

# %% [markdown]
# ## Rerun
#
# A result carries its config, the coefficients, the version and the seed. `rerun` repeats it and compares bit for
# bit.

# %% language="sh"
# moesim rerun two_laws/0/result.nc

# %% [markdown]
# ## In Python
#
# The same from Python, with a file that is written whole or not at all, and sealed with a checksum.

# %%
import moesim

grid = moesim.sweep("abnar2025", repetition="none", compute=[1e20], sparsity=[0, 0.9])
path = moesim.save(grid, "grid.nc")
again = moesim.open_result(path)
print(again.attrs["law"], again.attrs["moesim_version"], again.sizes)

# %% [markdown]
# ## Laws
#
# `moesim laws` lists every law and repetition; with a name it prints one whole: formula, coefficients, source, the
# range of the data behind it, and what to beware of. [All of them](../reference/laws.md).

# %% language="sh"
# moesim laws abnar2025

# %%
law = moesim.load_law("abnar2025")
law(total_params=18.8e9, tokens=110.2e9, sparsity=0.98)

# %% [markdown]
# ## Side by side, and on a cluster
#
# `pip install 'moesim[joblib]'` or `'moesim[slurm]'`, then:
#
# ```sh
# moesim sweep -m ... hydra/launcher=joblib hydra.launcher.n_jobs=8
# moesim sweep -m ... hydra/launcher=submitit_slurm hydra.launcher.partition=cpu \
#     hydra.launcher.timeout_min=30 hydra.launcher.mem_gb=2
# ```
#
# On Slurm set `mem_gb` (else a job asks for all the memory of its node) and `timeout_min` of 3 or more. A job over
# its limit or cancelled is named, exit 1. After Ctrl-C queued jobs go on: wait for them or `scancel` them before
# resuming.
