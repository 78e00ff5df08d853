"""A training step (forward, backward, clipping, Adam) here, in Flax and in PyTorch."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
from jax import lax

from experiments.benchmarks import peers
from experiments.benchmarks.options import Speed
from experiments.benchmarks.timing import Timed, measure
from lstm_jax import lstm, unroll
from lstm_jax.models import SequenceClassifier, sequences


def speed(options: Speed) -> dict[str, float]:
    """Images per second by library, medians of interleaved rounds."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.steps, options.inputs)
    xs = rng.standard_normal(shape, np.float32)
    labels = rng.integers(0, 10, options.batch, np.int32)
    made = {
        "lstm_jax": partial(_ours, options, xs, labels, "vjp"),
        "lstm_jax, engine=scan": partial(_ours, options, xs, labels, "scan"),
        "flax nn.RNN, LSTMCell": partial(_flax, options, xs, labels, "LSTMCell"),
        "flax nn.RNN, OptimizedLSTMCell": partial(
            _flax, options, xs, labels, "OptimizedLSTMCell"
        ),
        "torch nn.LSTM": partial(_torch, options, xs, labels),
    }
    found = measure(made, options.rounds, rng)
    for name, reason in found.refused.items():
        print(f"{name}: {reason}")
    times = {name: found.seconds[name] / options.repeat for name in found.seconds}
    rates = {k: options.batch / float(np.median(v)) for k, v in times.items()}
    print(
        f"training step, B={options.batch} T={options.steps} F={options.inputs} "
        f"D={options.features}, float32; {options.rounds} rounds"
    )
    for name, rate in rates.items():
        ratio = float(np.median(times[name] / times["lstm_jax"]))
        print(f"  {name:<32}{rate:>10,.0f} images/s   lstm_jax: {ratio:.2f} x as fast")
    alone = measure(_parts(options, xs), options.rounds, rng).seconds
    parts = (f"{name} {1000 * np.median(s):.1f} ms" for name, s in alone.items())
    whole = 1000 * options.batch / rates["lstm_jax"]
    print(f"  step of lstm_jax {whole:.1f} ms; of it: {', '.join(parts)}")
    return rates


def _parts(options: Speed, xs) -> dict[str, Callable[[], Timed]]:
    """Parts of the step: the forward pass, and its matrix products."""
    cell = lstm(options.features)
    params = cell.init(jax.random.key(0), (options.inputs,))
    xs = xs.swapaxes(0, 1)  # [T, B, F]

    def products(params):
        def body(h, x_t):
            z = x_t @ params["w_x"] + h @ params["w_h"]
            return z[:, : options.features], None

        h = jax.numpy.zeros((options.batch, options.features))
        return lax.scan(body, h, xs)[0]

    parts = {
        "forward": lambda params: unroll(cell, params, xs).ys,
        "its matrix products": products,
        "input projection": lambda params: xs @ params["w_x"] + params["b"],
    }

    def timed(part):
        run = jax.jit(part)
        return Timed(lambda: jax.block_until_ready(run(params)))

    return {name: partial(timed, part) for name, part in parts.items()}


def _jax_steps(options: Speed, model: nn.Module, xs, labels) -> Timed:
    """`options.repeat` training steps of a network."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    params = model.init(jax.random.key(0), xs)
    state = [params, tx.init(params)]

    def loss(params):
        logits = model.apply(params, xs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params, opt_state):
        grads = jax.grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(step, donate_argnums=(0, 1))

    def run() -> None:
        for _ in range(options.repeat):
            state[:] = step(*state)
        jax.block_until_ready(state)

    return Timed(run)


def _ours(options: Speed, xs, labels, engine: str) -> Timed:
    cells = (lstm(options.features),)
    model = SequenceClassifier(sequences.rows(), cells, 10, engine=engine)
    images = xs[..., None]  # [B, T, F, 1]: each step is a row
    return _jax_steps(options, model, images, labels)


def _flax(options: Speed, xs, labels, cell: str) -> Timed:
    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, xs):
            ys = nn.RNN(getattr(nn, cell)(options.features))(xs)
            return nn.Dense(10)(ys[:, -1])

    return _jax_steps(options, Classifier(), xs, labels)


def _torch(options: Speed, xs, labels) -> Timed:
    import torch

    model = peers.torch_classifier(options.inputs, options.features, 10)
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    xs, labels = torch.from_numpy(xs), torch.from_numpy(labels).long()

    def run() -> None:
        for _ in range(options.repeat):
            peers.torch_step(model, adam, xs, labels, clip=1.0)

    return Timed(run)
