"""Looking into recurrent networks: how far back a gradient reaches."""

from lstm_jax.inspect.gradients import carry_gradients, gradient_norms

__all__ = ["carry_gradients", "gradient_norms"]
