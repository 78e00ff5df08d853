"""A linear model with noisy inputs: enough to test everything about training."""

import jax
import jax.numpy as jnp
import numpy as np

FEATURES, OUTPUTS = 5, 3


def params(seed=0):
    """Weights [5, 3] and bias [3], NumPy float32."""
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(FEATURES, OUTPUTS)).astype(np.float32),
        "b": rng.normal(size=OUTPUTS).astype(np.float32),
    }


def batch_at(step, size=16):
    """A regression batch, a pure function of the step; every fifth row is padding."""
    rng = np.random.default_rng(1000 + step)
    inputs = rng.normal(size=(size, FEATURES)).astype(np.float32)
    true = np.linspace(-1, 1, FEATURES * OUTPUTS, dtype=np.float32)
    mask = (np.arange(size) % 5 != 4).astype(np.float32)
    targets = inputs @ true.reshape(FEATURES, OUTPUTS) + np.float32(0.5)
    return {"inputs": inputs, "targets": targets, "mask": mask}


def noise(keys):
    """[B, F], one draw per example."""
    return jax.vmap(lambda key: jax.random.normal(key, (FEATURES,)))(keys)


def loss_fn(params, batch, keys):
    """Masked squared error of noisy inputs."""
    inputs = batch["inputs"] + jnp.float32(0.1) * noise(keys)
    error = jnp.square(inputs @ params["w"] + params["b"] - batch["targets"])
    total = jnp.sum(error.sum(-1) * batch["mask"])
    count = batch["mask"].sum()
    largest = jnp.sum(error.max(-1) * batch["mask"])
    return (total, count), {"largest": (largest, count)}
