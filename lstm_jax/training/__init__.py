"""Training of any model: devices, optimizers, steps, checkpoints and the loop."""

from typing import TYPE_CHECKING, Any

from lstm_jax.training.affine import Affine, random_affine
from lstm_jax.training.augment import (
    crop,
    cutmix,
    cutout,
    erase,
    flip,
    mixup,
    noise,
    rotate,
    translate,
    warp,
    zoom,
)
from lstm_jax.training.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    ReduceOnPlateau,
)
from lstm_jax.training.devices import (
    AcceleratorError,
    abort_process,
    are_cores,
    barrier,
    check_batch_size,
    data_mesh,
    device_memory,
    enable_compilation_cache,
    enough_cores,
    lost_process,
    select_accelerator,
    split_cpu,
    start_processes,
)
from lstm_jax.training.ema import average_weights, weights
from lstm_jax.training.loop import Diverged, fit, stacker
from lstm_jax.training.optimizer import make_optimizer, make_schedule
from lstm_jax.training.photometric import color_jitter, rand_augment
from lstm_jax.training.plateau import rate_scale, scale_on_plateau
from lstm_jax.training.profiling import profile
from lstm_jax.training.seeds import init_seeds, make_seeds_step
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
    flatten_params,
    freeze,
    lr_multipliers,
    scale_by_path,
    warm_start,
)

if TYPE_CHECKING:
    from lstm_jax.training.checkpoint import CheckpointError, Checkpoints


def __getattr__(name: str) -> Any:
    if name in ("CheckpointError", "Checkpoints"):  # Orbax takes a while to import
        from lstm_jax.training import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
