"""Training of any model: devices, optimizer, steps, checkpoints, the loop."""

from lstm_jax.training.augment import shift
from lstm_jax.training.checkpoint import CheckpointError, Checkpoints
from lstm_jax.training.devices import (
    AcceleratorError,
    check_batch_size,
    data_mesh,
    select_accelerator,
)
from lstm_jax.training.loop import Diverged, fit
from lstm_jax.training.optimizer import make_optimizer, make_schedule
from lstm_jax.training.step import (
    TrainState,
    TrainStep,
    init_state,
    make_eval_step,
    make_train_step,
)

__all__ = [
    "AcceleratorError",
    "CheckpointError",
    "Checkpoints",
    "Diverged",
    "TrainState",
    "TrainStep",
    "check_batch_size",
    "data_mesh",
    "fit",
    "init_state",
    "make_eval_step",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "select_accelerator",
    "shift",
]
