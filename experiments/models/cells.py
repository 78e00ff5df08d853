"""A layer's cell, by the options of `--model`."""

import jax
import jax.numpy as jnp

from lstm_jax import Cell, conv_gru, conv_lstm, gru, initializers, lstm, rnn

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
}
KERNEL_INITS = {
    "glorot": jax.nn.initializers.glorot_uniform,
    "he": jax.nn.initializers.he_normal,
    "lecun": jax.nn.initializers.lecun_normal,
}
RECURRENT_INITS = KERNEL_INITS | {
    "orthogonal": initializers.orthogonal,
    "identity": initializers.identity,
}


def cell(options, steps: int) -> Cell:
    """One layer's cell, for sequences of so many steps."""
    if options.init == "torch":
        inits = initializers.pytorch_defaults(options.features)
    else:
        inits = dict(
            kernel_init=KERNEL_INITS[options.init](),
            recurrent_init=RECURRENT_INITS[options.recurrent_init](),
        )
    features, window = options.features, (options.kernel,) * 2
    forget = options.forget_bias
    if forget == "chrono":
        forget = initializers.chrono(max(steps, 2))
    elif forget == "uniform_gate":
        forget = initializers.uniform_gate()
    if options.cell == "lstm":
        return lstm(features, forget_bias=forget, **inits)
    if options.cell == "conv_lstm":
        return conv_lstm(features, window, forget_bias=forget, **inits)
    if options.cell == "conv_gru":
        return conv_gru(features, window, **inits)
    if options.cell == "gru":
        return gru(features, **inits)
    return rnn(features, activation=ACTIVATIONS[options.activation], **inits)
