"""`Experiment`: data, task, network, optimizer and steps of one configuration.

All commands use it: training, multi-seed training, cross-validation, the learning-rate
range test, reports, prediction and export.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from experiments import augmentation, optimization
from experiments.choices import MOST_STEPS
from experiments.errors import UsageError
from experiments.models import model_kind
from experiments.options import Config
from experiments.spec import DataSpec
from experiments.tasks import task_kind
from lstm_jax import data, tasks, training
from lstm_jax.keys import fold_in

RESIDENT = 512 * 2**20  # bytes; up to this, training inputs stay in device memory


class Experiment:
    """The parts of a run, each created when it is first used.

    Args:
      config: of the run.
      spec: the `DataSpec` of a trained run; None: measured on the training split.
      dataset: the data; None: loaded as the configuration says.
      labels: class names whose labels are fixed, in order; new ones are appended.
      progress: as in `data.load`.
    """

    def __init__(
        self,
        config: Config,
        spec: DataSpec | None = None,
        *,
        dataset: data.Dataset | None = None,
        labels: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ):
        self.config = config
        self.kind = task_kind(config)
        self.model_kind = model_kind(config)
        self._spec, self._dataset = spec, dataset
        self._labels = labels or (spec.classes if spec else ())
        self._progress = progress

    # Data

    @cached_property
    def dataset(self) -> data.Dataset:
        """The data set, with the split of `config.fold` and rows of noise, if any."""
        return self._dataset or load_data(self.config, self._labels, self._progress)

    @cached_property
    def spec(self) -> DataSpec:
        """Classes, shapes and normalisation of the data."""
        if self._spec is not None:
            return self._spec
        self.kind.check_data(self.config, self.dataset)
        return self.kind.spec(self.config, self.dataset)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Of the data set, as `data.fingerprint` has it."""
        return data.fingerprint(self.dataset)

    @cached_property
    def duplicates(self) -> data.Duplicates:
        """Copies among the examples, within splits and across them."""
        return data.find_duplicates(self.dataset)

    @property
    def split(self) -> data.Split:
        """The training examples."""
        return self.dataset.splits["train"]

    @cached_property
    def resident(self) -> bool:
        """Whether the training inputs stay in device memory."""
        if self.kind.bucketed:  # widths differ between batches
            return False
        if self.config.data_placement == "auto":
            return self.split.inputs.nbytes <= RESIDENT
        return self.config.data_placement == "resident"

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Padded widths of training examples; () where all have the same width."""
        return self.kind.widths(self.config, self.dataset, training=True)

    @property
    def training_widths(self) -> tuple[int, ...]:
        """The `widths` up to that of the widest training example."""
        found = self.widths
        if not found:
            return ()
        return found[: data.bucket_of(self.split.lengths.max(), found) + 1]

    @cached_property
    def eval_widths(self) -> tuple[int, ...]:
        """Padded widths in evaluation; () where all examples have the same width."""
        return self.kind.widths(self.config, self.dataset, training=False)

    @property
    def steps_per_execution(self) -> int:
        """Maximum number of updates per dispatch."""
        return 1 if self.kind.bucketed else self.config.steps_per_execution

    def feed(self) -> dict[str, Any]:
        """Arguments of `training.fit`: the batches of this process, and how to read."""
        return dict(
            batch_at=self.batches((jax.process_index(), jax.process_count())),
            steps_per_execution=self.steps_per_execution,
            read=map if self.resident else data.prefetch,
        )

    def batches(self, share: tuple[int, int] = (0, 1), seed: int | None = None):
        """The training batches of one process.

        Args:
          share: `(index of the process, number of processes)`.
          seed: of the order of examples; None: `config.seed`.

        Returns:
          `step -> batch`; the batch also has `progress [B]`, the completed fraction of
          the run.
        """
        config, split = self.config, self.split
        size = config.batch_size
        seed = config.seed if seed is None else seed
        options = dict(seed=seed, share=share, **self.kind.sampler(config, split, seed))
        if self.kind.bucketed:
            options["widths"] = self.widths

        def batch_at(step: int) -> dict[str, np.ndarray]:
            if self.resident:
                return data.train_rows(len(split.inputs), size, step=step, **options)
            return data.train_batch(split, size, step=step, **options)

        if self.kind.bucketed:
            batch_at = data.line_batches(split, size, **options)

        def with_progress(step: int) -> dict[str, np.ndarray]:
            batch = batch_at(step)
            return batch | {"progress": np.full_like(batch["mask"], step / self.steps)}

        return with_progress

    def resident_data(self) -> dict[str, np.ndarray] | None:
        """The training examples by field, if they stay in device memory; else None."""
        return arrays(self.split) if self.resident else None

    def eval_size(self, devices: int = 1) -> int:
        """Batch size of evaluation, a multiple of the number of devices."""
        return -(-self.kind.eval_size(self.config, self.dataset) // devices) * devices

    def eval_batches(
        self, split: data.Split, devices: int = 1, share: tuple[int, int] = (0, 1)
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches that contain each example of a split once; the last one is padded."""
        size = self.eval_size(devices)
        return data.eval_batches(split, size, share=share, widths=self.eval_widths)

    def in_order(self, split: data.Split, outputs: list, devices: int = 1):
        """The outputs of `eval_batches`, in the order of the examples."""
        return data.in_order(split, self.eval_size(devices), outputs, self.eval_widths)

    # Length of a run

    @cached_property
    def length(self) -> tuple[int, int]:
        """`(steps, steps between validations)`; the only place that converts epochs."""
        return length(self.config, len(self.split.inputs))

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return self.length[0]

    @property
    def eval_every(self) -> int:
        """Number of steps between validations."""
        return self.length[1]

    # Task and network

    @cached_property
    def task(self) -> tasks.Task:
        """The loss, metrics and figures."""
        return self.kind.objective(self.config, self.spec)

    @cached_property
    def network(self):
        """The network, an `experiments.models.Network`."""
        return self.model_kind.build(self.config, self.spec)

    def init(self, key: jax.Array, *, pretrained: bool = False) -> Any:
        """Initial params.

        Args:
          key: for the random initialisation.
          pretrained: load the params of an encoder with a weights file from there.
        """
        found = self.model_kind.pretrained(self.config) if pretrained else {}
        return self._init(key) | found

    @cached_property
    def _init(self) -> Callable:
        module, shape = self.network.module, self.network.input_shape

        @jax.jit  # removes the forward pass, whose outputs are unused
        def init(key):
            return module.init(key, jnp.zeros((1, *shape), jnp.float32))["params"]

        return init

    def apply(self, params: Any, batch: dict, keys: jax.Array | None = None):
        """The forward pass in training, evaluation and prediction.

        Args:
          params: of the network.
          batch: `inputs [B, ...]`, uint8 pixels or float features; optionally
            `lengths [B]`.
          keys: `[B]`, one per example, for dropout; None in evaluation.

        Returns:
          `(outputs, auxiliary loss [B] or None)`.
        """
        inputs = self.spec.normalize(batch["inputs"], batch.get("lengths"))
        return self.network.call(params, inputs, batch, keys)

    def outputs(self, params: Any, inputs: Any, keys: jax.Array | None = None):
        """The network's outputs for unnormalised `inputs [B, ...]`."""
        return self.apply(params, dict(inputs=inputs), keys)[0]

    def predictions(self, params: Any, batch: dict) -> jax.Array:
        """The task's predictions for a batch."""
        return self.task.predict(self.apply(params, batch)[0])

    def loss(self, params: Any, batch: dict, keys: jax.Array):
        """`((loss, count), metrics)` of a batch, which is augmented here."""
        config, batch, goal = self.config, dict(batch), self.task
        params = training.freeze(params, self._lr_multipliers)
        inputs, pairs = batch["inputs"], None
        if not self.spec.features:
            if self.kind.located:
                batch = augmentation.move(config, self.kind, batch, fold_in(keys, 3))
            change = augmentation.changes(config, moves=not self.kind.located)
            inputs, pairs = change(batch["inputs"], fold_in(keys, 0))
        if config.augment.warp:
            parts = inputs, batch["lengths"], fold_in(keys, 2), config.augment.warp
            inputs, batch["lengths"] = training.warp(*parts)
        batch = self.kind.with_targets(batch | {"inputs": inputs})
        outputs, extra = self.apply(params, batch, fold_in(keys, 1))
        metrics = goal.metrics(outputs, batch)
        if pairs is not None:
            weight, partner = pairs
            other, mask = batch["targets"][partner], batch["mask"]
            ours = goal.loss(outputs, batch | dict(mask=mask * weight))
            theirs = goal.loss(
                outputs, batch | dict(targets=other, mask=mask * (1 - weight))
            )
            return (ours[0] + theirs[0], ours[1] + theirs[1]), metrics
        total, count = goal.loss(outputs, batch)
        if extra is not None:
            total += (extra * batch["mask"]).sum()
        return (total, count), metrics

    def evaluate(self, params: Any, batch: dict):
        """`(metrics, predictions)` of a batch; not yet compiled."""
        batch = self.kind.with_targets(batch)
        outputs, _ = self.apply(params, batch)
        return self.task.metrics(outputs, batch), self.task.predict(outputs)

    def evaluate_split(
        self,
        step: Callable,
        params: Any,
        split: data.Split,
        *,
        devices: int = 1,
        share: tuple[int, int] = (0, 1),
        stop: Callable[[], Any] = lambda: None,
    ) -> tuple[dict[str, float] | None, np.ndarray | None]:
        """Evaluates a split.

        Args:
          step: `evaluate`, compiled.
          params: of the network.
          split: of the data set.
          devices: number of devices that a batch is split over.
          share: `(index of this process, number of processes)`.
          stop: called before each batch; if it returns a true value, evaluation stops.

        Returns:
          `(metrics, predictions)`: means over the split, and predictions in the order
          of its examples; `(None, None)` if stopped.
        """
        sums: dict[str, Any] = {}
        outputs = []
        for batch in self.eval_batches(split, devices, share):
            if stop():
                return None, None
            metrics, predictions = jax.device_get(step(params, batch))
            outputs.append(predictions)
            for name, pair in metrics.items():
                sums[name] = sums.get(name, 0) + np.asarray(pair, np.float64)
        means = {name: float(total / n) for name, (total, n) in sums.items() if n}
        return means, self.in_order(split, outputs, devices)

    def evaluator(self, mesh: Mesh, stop: Callable[[], Any] = lambda: None):
        """`(params, split) -> (metrics, predictions)` on a mesh."""
        return partial(
            self.evaluate_split,
            training.make_eval_step(self.evaluate, mesh),
            devices=mesh.size,
            share=(jax.process_index(), jax.process_count()),
            stop=stop,
        )

    def aligned(self, split: data.Split, predictions: np.ndarray):
        """Predictions and targets of the examples whose target is known."""
        return self.kind.align_targets(split, predictions)

    # Optimizer and state

    @cached_property
    def schedule(self):
        """The learning-rate schedule."""
        return optimization.schedule(self.config, self.steps)

    @cached_property
    def _lr_multipliers(self) -> dict[str, float]:
        return optimization.lr_multipliers(self.config)

    @cached_property
    def optimizer(self):
        """The optimizer, with the schedule of the run."""
        return optimization.optimizer(self.config, self.schedule)

    def train_step(self, mesh: Mesh, tx: optax.GradientTransformation | None = None):
        """The training step on a mesh, with `tx` or the optimizer of the run."""
        return training.make_train_step(
            self.loss,
            tx or self.optimizer,
            mesh,
            optimization.parallel(self.config, mesh.devices),
            data=self.resident_data(),
            grad_accum_steps=self.config.grad_accum_steps,
        )

    def state_shapes(self):
        """The shapes of a training state; they do not depend on the number of steps."""

        def blank():
            key = jax.random.key(0)
            params = self.init(key)
            rate = optimization.schedule(self.config, steps=1)
            tx = optimization.optimizer(self.config, rate)
            return training.TrainState(np.int32(0), params, tx.init(params), key)

        return jax.eval_shape(blank)


def arrays(split: data.Split) -> dict[str, np.ndarray]:
    """The arrays of a split by field name."""
    return {name: a for name, a in split._asdict().items() if a is not None}


def length(config: Config, examples: int) -> tuple[int, int]:
    """`(steps, steps between validations)` of a run on `examples` examples."""
    per_epoch = data.steps_per_epoch(examples, config.batch_size)
    steps = config.steps or max(1, round(config.epochs * per_epoch))
    if steps > MOST_STEPS:
        raise UsageError(
            f"epochs={config.epochs:g} are {steps:,} steps, but a run has at most "
            f"{MOST_STEPS:,}"
        )
    return steps, config.eval_every or max(per_epoch, -(-steps // 20))


def load_data(
    config: Config,
    labels: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> data.Dataset:
    """Loads and prepares the data set of a configuration.

    Args:
      config: of the run.
      labels: class names whose labels are fixed, in order.
      progress: as in `data.load`.
    """
    options, kind = config.data, task_kind(config)
    dataset = data.load(
        options.source,
        data_dir=options.dir,
        manual_dir=options.manual_dir,
        size=kind.load_size(config),
        validation=options.validation,
        frames=options.frames,
        sampling=options.sampling,
        seed=options.split_seed,
        group=options.group,
        target_type=kind.target_type,
        min_per_class=options.min_per_class,
        columns=options.columns,
        encoding=options.encoding,
        arrays=options.arrays,
        follow_outside=options.follow_outside,
        fit=options.fit,
        progress=progress,
    )
    if config.fold is not None:
        share = dict(validation=options.validation, seed=options.split_seed)
        dataset = data.select_fold(dataset, config.folds, config.fold, **share)
    if options.limit is not None:
        dataset = data.subset(dataset, options.limit, options.split_seed)
    dataset = kind.prepare(config, dataset, labels)
    return _with_noise(dataset, options) if options.noise_rows else dataset


def _with_noise(dataset: data.Dataset, options) -> data.Dataset:
    if len(dataset.image_shape) != 3:
        raise UsageError("--data.noise-rows is for images, but these are clips")
    rng = np.random.default_rng(options.split_seed)

    def noisy(split: data.Split) -> data.Split:
        n, _, w, c = split.inputs.shape
        noise = rng.integers(0, 256, (n, options.noise_rows, w, c), np.uint8)
        return split._replace(inputs=np.concatenate([split.inputs, noise], axis=1))

    return dataset._replace(splits={k: noisy(s) for k, s in dataset.splits.items()})
