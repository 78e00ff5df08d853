# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lstm-jax/lstm_jax/blob/main/notebooks/quickstart.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/lstm-jax/lstm_jax/blob/main/notebooks/quickstart.ipynb)

# %% [markdown]
# # Digit classification with an LSTM
# Train a network, look at its errors, classify your own drawing, then define your own
# recurrent cell. Any machine works; for a TPU, see `tpu.ipynb`.

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
# ## Train
# The preset `digits`: two bidirectional LSTM layers over the rows and the columns of
# 8x8 scans. The table at the end compares it with a support-vector machine, which is
# hard to beat on images this small. The preset's default of 2,000 steps is more
# accurate.

# %%
from experiments import train

run = train(
    "digits",
    steps=20 if FAST else 500,
    eval_every=50,
    run_dir="runs/quickstart",
    overwrite=True,  # without it, a run in this folder is resumed
)

# %% [markdown]
# ## Results

# %%
# %matplotlib inline
run.curves()

# %%
run.confusion()

# %% [markdown]
# Some test images, errors first:

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from experiments.experiment import Experiment

experiment = Experiment(run.config)
test = experiment.dataset.splits["test"]
outputs = jax.jit(experiment.outputs)(run.params, test.inputs)
predictions = np.asarray(outputs).argmax(-1)
correct = predictions == test.targets

fig, axes = plt.subplots(2, 8, figsize=(10, 3))
order = np.argsort(correct, kind="stable")[: axes.size]
for ax, i in zip(axes.flat, order, strict=True):
    ax.imshow(test.inputs[i, :, :, 0], cmap="gray")
    title = f"{predictions[i]}"
    if not correct[i]:
        title += f", not {test.targets[i]}"
    ax.set_title(title, color="black" if correct[i] else "crimson")
    ax.axis("off")

# %% [markdown]
# ## Your own image
# Draw a digit with `#`. Image files of any size work, too: a bright digit on black that
# fills the image.

# %%
from PIL import Image

drawing = """
..####..
.##..##.
.....##.
...###..
.....##.
......##
.##..##.
..####..
"""
pixels = np.array([[255 * (dot == "#") for dot in row] for row in drawing.split()])
path = run.directory / "mine.png"
Image.fromarray(pixels.astype(np.uint8)).save(path)

(prediction,) = run.predict(path)

fig, (left, bars) = plt.subplots(1, 2, figsize=(8, 2.4), width_ratios=(1, 3))
left.imshow(pixels, cmap="gray")
left.axis("off")
bars.bar(prediction["probabilities"].keys(), prediction["probabilities"].values())
title = f"{prediction['label']}, confidence {100 * prediction['confidence']:.0f} %"
bars.set(ylim=(0, 1), title=title)
plt.show()

# %% [markdown]
# ## Your own cell
# A cell is five pure functions; its params are a pytree. This one has only a forget
# gate (van der Westhuizen & Lasenby 2018):
#
# $$f_t, g_t = x_t W_x + h_{t-1} W_h \qquad
# h_t = \sigma(f_t)\, h_{t-1} + (1 - \sigma(f_t)) \tanh g_t$$

# %%
import jax.numpy as jnp

from lstm_jax import Cell, lstm, residual, stack, unroll


def forgetful(features):
    def init(key, feature_shape, dtype=jnp.float32):
        draw, (key_x, key_h) = (
            jax.nn.initializers.glorot_uniform(),
            jax.random.split(key),
        )
        return {
            "w_x": draw(key_x, (*feature_shape, 2 * features), dtype),
            "w_h": draw(key_h, (features, 2 * features), dtype),
        }

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return jnp.zeros((*batch_shape, features), dtype)

    def project(params, xs, *, keys=None):
        return xs @ params["w_x"]

    def recur(params, h):
        return h @ params["w_h"]

    def gates(params, h, u, a):
        f, g = jnp.split(u + a, 2, axis=-1)
        h = jax.nn.sigmoid(f) * h + jax.nn.sigmoid(-f) * jnp.tanh(g)
        return h, h  # the next carry, and the output

    return Cell(init, carry, project, recur, gates)


# %% [markdown]
# It works with all combinators and engines. Here the sequences have 0 to 8 valid rows;
# outputs past the length are zero.

# %%
cell = stack(forgetful(32), residual(lstm(32)))
params = cell.init(jax.random.key(0), (8,))

xs = jnp.asarray(test.inputs[:36, :, :, 0] / 255).swapaxes(0, 1)  # [T, B, F]
lengths = jnp.arange(36) // 4  # [B]
ys, carry = unroll(cell, params, xs, lengths=lengths)  # [T, B, D]

fig, ax = plt.subplots(figsize=(8, 2.2))
ax.imshow(jnp.linalg.norm(ys, axis=-1))
ax.set(title="norm of the outputs", xlabel="image", ylabel="row")
plt.show()

# %% [markdown]
# `engine="vjp"` derives the backward pass from the five functions. It computes each
# weight gradient once, after the loop, with half of the memory and equal results:


# %%
def loss(params, engine):
    ys, _ = unroll(cell, params, xs, lengths=lengths, engine=engine)
    return jnp.mean(jnp.square(ys))


with jax.default_matmul_precision("highest"):
    scan, vjp = (jax.grad(loss)(params, engine) for engine in ("scan", "vjp"))
jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), scan, vjp
)
print("the gradients are equal:", [leaf.shape for leaf in jax.tree.leaves(vjp)])

# %% [markdown]
# Next: [the library](https://github.com/lstm-jax/lstm_jax/blob/main/docs/library.md)
# for all cells, combinators, engines and Flax modules;
# [the README](https://github.com/lstm-jax/lstm_jax) for your own images, video and
# text; `lstm_jax/cell.py` for the contract of a cell.
