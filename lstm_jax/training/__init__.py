"""Training of any model: devices, optimizer, steps, checkpoints, the loop."""

from typing import TYPE_CHECKING, Any

from lstm_jax.training.augment import (
    crop,
    cutout,
    flip,
    mixup,
    noise,
    rotate,
    shift,
    warp,
)
from lstm_jax.training.averaging import average_weights, weights
from lstm_jax.training.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    ReduceOnPlateau,
)
from lstm_jax.training.devices import (
    AcceleratorError,
    are_cores,
    check_batch_size,
    data_mesh,
    enough_cores,
    keep_compiled,
    leave_processes,
    lost_process,
    select_accelerator,
    split_cpu,
    start_processes,
    wait_for_all,
)
from lstm_jax.training.loop import Diverged, fit, row_of, stacker
from lstm_jax.training.optimizer import make_optimizer, make_schedule
from lstm_jax.training.plateau import observe, rate_scale, scale_on_plateau, waited
from lstm_jax.training.profiling import profile
from lstm_jax.training.seeds import init_seeds, make_seeds_eval, make_seeds_step
from lstm_jax.training.step import (
    TrainState,
    TrainStep,
    init_state,
    jit_updates,
    make_eval_step,
    make_train_step,
    matrix_names,
)
from lstm_jax.training.stopping import Stopped, StopSignals
from lstm_jax.training.warm_start import (
    WarmStart,
    freeze,
    named,
    rate_factors,
    scale_by_path,
    warm_start,
)

if TYPE_CHECKING:
    from lstm_jax.training.checkpoint import CheckpointError, Checkpoints

__all__ = [
    "AcceleratorError",
    "Callback",
    "CheckpointError",
    "Checkpoints",
    "Diverged",
    "EarlyStopping",
    "LambdaCallback",
    "ReduceOnPlateau",
    "StopSignals",
    "Stopped",
    "TrainState",
    "TrainStep",
    "WarmStart",
    "are_cores",
    "average_weights",
    "check_batch_size",
    "crop",
    "cutout",
    "data_mesh",
    "enough_cores",
    "fit",
    "flip",
    "freeze",
    "init_seeds",
    "init_state",
    "jit_updates",
    "keep_compiled",
    "leave_processes",
    "lost_process",
    "make_eval_step",
    "make_optimizer",
    "make_schedule",
    "make_seeds_eval",
    "make_seeds_step",
    "make_train_step",
    "matrix_names",
    "mixup",
    "named",
    "noise",
    "observe",
    "profile",
    "rate_factors",
    "rate_scale",
    "rotate",
    "row_of",
    "scale_by_path",
    "scale_on_plateau",
    "select_accelerator",
    "shift",
    "split_cpu",
    "stacker",
    "start_processes",
    "wait_for_all",
    "warp",
    "waited",
    "warm_start",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in ("CheckpointError", "Checkpoints"):  # Orbax takes a while to import
        from lstm_jax.training import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
