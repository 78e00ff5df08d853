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
# The same code for both: batches are split over all cores.
#
# | | how to get a TPU | cores |
# |---|---|---|
# | Colab | *Runtime → Change runtime type → v5e-1 TPU* (or v6e-1) | 1 |
# | Kaggle | *Settings → Accelerator → TPU v5e-8*, and *Internet on* | 8 |

# %% [markdown]
# ## Install
# The installed versions of jax, jaxlib and libtpu are kept.

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
    """The folder of the repository: a parent of this notebook, or a clone in it."""
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
sys.path.insert(0, str(Path.cwd()))  # for this kernel, which started before pip

before = versions()
keep = " ".join(f"{name}=={version}" for name, version in before.items())
# %pip install -q -e . {keep}
importlib.invalidate_caches()
after = versions()
print("before:", before, "\nafter: ", after)
assert before in ({}, after), "pip replaced jax; start with a new runtime"

# %% [markdown]
# If pip reports a conflict about jax, the installed version is older than 0.7.2. On
# Kaggle choose *Settings → Environment → Always use latest environment*.

# %% [markdown]
# ## Devices

# %%
import jax

from lstm_jax import training

# jax.devices(), with a clear error message.
devices = training.select_accelerator("auto")
kind = f"{devices[0].device_kind} ({devices[0].platform})"
print(f"jax {jax.__version__} on {len(devices)} x {kind}")
if devices[0].platform != "tpu":
    print(
        "No TPU found. The following cells run on the devices above; for a TPU, see "
        "the table, then run the cells again."
    )

# %% [markdown]
# ## Train
# In the kernel, on all devices. The batch size must be a multiple of their number: 128
# images, or the next multiple.

# %%
from experiments import train

options = dict(
    steps=20 if FAST else 500,
    batch_size=-(-128 // len(devices)) * len(devices),
    eval_every=50,
    baselines=False,
    overwrite=True,  # without it, a run in its folder is resumed
)
run = train("digits", run_dir="runs/tpu-float32", **options)

# %%
# %matplotlib inline
run.curves()

# %% [markdown]
# ## In bfloat16
# The native dtype of a TPU's matrix units. Weights, state and sums stay float32.

# %%
low = train("digits", run_dir="runs/tpu-bfloat16", precision="bfloat16", **options)

# %%
print(f"{'':<10}{'images/s':>10}{'accuracy':>10}")
for each in (run, low):
    rate = each.report["train"]["images_per_second"]
    accuracy = each.report["test"]["accuracy"]
    print(f"{each.config.precision:<10}{rate:>10,.0f}{accuracy:>10.1%}")

# %% [markdown]
# Images/s is a median over the run, without compilation and evaluation; see
# `run.history`. A network for 8x8 images does not use a TPU well; try
# `model__features=1024` and a larger batch.

# %% [markdown]
# ## One device and all devices
# The same seed gives the same run on any number of devices, up to rounding: the order
# of images, the initial weights and the dropout of each image depend only on the seed.
# The following code calls the parts of `train` directly, to choose the devices.

# %%
from experiments.experiment import Experiment
from lstm_jax import data

config = run.config
experiment = Experiment(config)


def batch_at(step):
    return data.train_batch(
        experiment.split, config.batch_size, seed=config.seed, step=step
    )


def losses(devices, steps=10):
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


one, every = losses(devices[:1]), losses(devices)
print(f"{'step':>4}{'1 device':>12}{f'{len(devices)} devices':>12}")
for number, (a, b) in enumerate(zip(one, every, strict=True), start=1):
    print(f"{number:>4}{a:>12.6f}{b:>12.6f}")
difference = max(abs(a - b) / a for a, b in zip(one, every, strict=True))
print(f"largest relative difference: {difference:.1e}")

# %% [markdown]
# ## Why not `!python -m experiments.train`?
# Only one process can use a TPU at a time. This kernel has locked it since the cell
# "Devices", until the kernel ends. `!` starts a second process, which fails because the
# TPU is in use, or runs on the CPU. So call `train(...)` in the kernel.
#
# To use the command line, restart the kernel, run the install cell, which does not use
# the TPU, and then, before any other cell:
#
# ```
# !python -m experiments.train --accelerator=tpu
# ```
