# ---
# jupyter:
#   accelerator: TPU
#   colab:
#     gpuType: V5E1
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: accelerator,colab,kaggle
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kaggle:
#     accelerator: tpuV5e8
#     isInternetEnabled: true
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lstm-jax/lstm_jax/blob/main/notebooks/tpu.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/lstm-jax/lstm_jax/blob/main/notebooks/tpu.ipynb)

# %% [markdown]
# # Training on one TPU core, or on eight
# The same lines for both: a batch is split over all the cores that there are.
#
# | | how to get a TPU | cores |
# |---|---|---|
# | Colab | *Runtime → Change runtime type → v5e-1 TPU* (or v6e-1) | 1 |
# | Kaggle | *Settings → Accelerator → TPU v5e-8*, and *Internet on* | 8 |

# %% [markdown]
# ## Install
# Around what is there: jax, jaxlib and libtpu stay as this machine brought them.

# %%
import contextlib
import importlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

REPOSITORY = "https://github.com/lstm-jax/lstm_jax"
FAST = bool(os.environ.get("CI"))  # a smoke test: a few steps only


def checkout():
    """The folder of the repository, around this notebook or cloned beside it."""
    here = Path.cwd()
    for folder in (here, *here.parents, here / "lstm_jax"):
        if (folder / "experiments" / "train.py").exists():
            return folder


def versions():
    found = {}
    for name in ("jax", "jaxlib", "libtpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


if checkout() is None:
    subprocess.run(["git", "clone", "-q", "--depth=1", REPOSITORY], check=True)
os.chdir(checkout())
sys.path.insert(0, str(Path.cwd()))  # for this kernel; the next one knows it

before = versions()
keep = " ".join(f"{name}=={version}" for name, version in before.items())
# %pip install -q -e . {keep}
importlib.invalidate_caches()
after = versions()
print("before:", before, "\nafter: ", after)
assert before in ({}, after), "pip replaced jax; start from a fresh machine"

# %% [markdown]
# If pip says that jax does not fit, the machine's is older than 0.7.2: on Kaggle choose
# *Settings → Environment → Always use latest environment*.

# %% [markdown]
# ## Which devices?

# %%
import jax

from lstm_jax import training

# jax.devices(), with clear words where that fails.
devices = training.select_accelerator("auto")
kind = f"{devices[0].device_kind} ({devices[0].platform})"
print(f"jax {jax.__version__} on {len(devices)} x {kind}")
if devices[0].platform != "tpu":
    print(
        "No TPU here. All that follows runs on what there is; for a TPU choose one "
        "as the table above says, then run the cells again."
    )

# %% [markdown]
# ## Train
# In the kernel, over all the devices. The batch must split evenly over them: 128
# pictures, or the next multiple.

# %%
from experiments import train

options = dict(
    steps=20 if FAST else 500,
    batch_size=-(-128 // len(devices)) * len(devices),
    eval_every=50,
    baselines=False,
    overwrite=True,  # without it, a run in its folder goes on
)
run = train("digits", run_dir="runs/tpu-float32", **options)

# %%
# %matplotlib inline
run.curves()

# %% [markdown]
# ## In bfloat16
# What a TPU multiplies natively. The weights, the state between the steps and the sums
# stay float32.

# %%
low = train("digits", run_dir="runs/tpu-bfloat16", precision="bfloat16", **options)

# %%
print(f"{'':<10}{'images/s':>10}{'accuracy':>10}")
for each in (run, low):
    rate = each.report["train"]["images_per_second"]
    accuracy = each.report["test"]["accuracy"]
    print(f"{each.config.precision:<10}{rate:>10,.0f}{accuracy:>10.1%}")

# %% [markdown]
# The rate is a median over the run, without compilation and evaluation; `run.history`
# has them all. A network for 8x8 pictures keeps a TPU mostly waiting: with
# `model__features=1024` and a larger batch the cores have something to do.

# %% [markdown]
# ## One device against all
# The same seed gives the same run on any number of devices, up to rounding: the order
# of the pictures, the initial weights and the dropout of each picture depend on the
# seed alone. `train` is made of these pieces; here they are put together by hand, to
# choose the devices.

# %%
from experiments.experiment import Experiment
from lstm_jax import data

config = run.config
experiment = Experiment(config)


def batch_at(step):
    return data.train_batch(
        experiment.split, config.batch_size, seed=config.seed, step=step
    )


def rehearse(devices, steps=10):
    mesh = training.data_mesh(devices)
    params, tx = experiment.init(jax.random.key(config.seed)), experiment.optimizer
    state = training.init_state(params, tx, jax.random.key(1), mesh)
    step = training.make_train_step(experiment.loss, tx, mesh)
    rows = []
    kept = training.LambdaCallback(on_log=rows.append)
    training.fit(
        state, step, steps=steps, batch_at=batch_at, log_every=1, callbacks=[kept]
    )
    return [row["loss"] for row in rows]


one, every = rehearse(devices[:1]), rehearse(devices)
print(f"{'step':>4}{'1 device':>12}{f'{len(devices)} devices':>12}")
for number, (a, b) in enumerate(zip(one, every, strict=True), start=1):
    print(f"{number:>4}{a:>12.6f}{b:>12.6f}")
difference = max(abs(a - b) / a for a, b in zip(one, every, strict=True))
print(f"largest relative difference: {difference:.1e}")

# %% [markdown]
# ## Why not `!python -m experiments.train`?
# A TPU belongs to one process at a time. This kernel took it when it first asked for
# its devices, above, and keeps it until it ends. `!` starts a second process, which
# says that the TPU is already in use, or quietly runs on the CPU. So call `train(...)`
# in the kernel, as here.
#
# For the command line all the same: restart the kernel, run the install cell, which
# leaves the TPU alone, and then, before any other cell,
#
# ```
# !python -m experiments.train --accelerator=tpu
# ```
