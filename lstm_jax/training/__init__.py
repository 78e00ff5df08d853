"""Training of any model: devices, optimizer, steps, checkpoints, the loop."""

from lstm_jax.training.augment import (
    crop,
    cutout,
    flip,
    mixup,
    noise,
    rotate,
    shift,
)
from lstm_jax.training.checkpoint import CheckpointError, Checkpoints
from lstm_jax.training.devices import (
    AcceleratorError,
    check_batch_size,
    data_mesh,
    keep_compiled,
    leave_processes,
    lost_process,
    select_accelerator,
    start_processes,
    wait_for_all,
)
from lstm_jax.training.loop import Diverged, fit
from lstm_jax.training.optimizer import make_optimizer, make_schedule
from lstm_jax.training.profiling import profile
from lstm_jax.training.step import (
    TrainState,
    TrainStep,
    init_state,
    jit_updates,
    make_eval_step,
    make_train_step,
)
from lstm_jax.training.stopping import Stopped, StopSignals

__all__ = [
    "AcceleratorError",
    "CheckpointError",
    "Checkpoints",
    "Diverged",
    "StopSignals",
    "Stopped",
    "TrainState",
    "TrainStep",
    "check_batch_size",
    "crop",
    "cutout",
    "data_mesh",
    "fit",
    "flip",
    "init_state",
    "jit_updates",
    "keep_compiled",
    "leave_processes",
    "lost_process",
    "make_eval_step",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "mixup",
    "noise",
    "profile",
    "rotate",
    "select_accelerator",
    "shift",
    "start_processes",
    "wait_for_all",
]
