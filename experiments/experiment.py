"""A configuration made concrete, once: data, task, network, optimizer, and its steps.

Every command works on an `Experiment`: training, many seeds, folds, the learning-rate
finder, reports, prediction and export.
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
from experiments.errors import UsageError
from experiments.models import MODELS
from experiments.options import Config
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax import data, tasks, training
from lstm_jax.keys import fold_in

RESIDENT = 512 * 2**20  # bytes of training inputs that are kept on the devices


class Experiment:
    """What a run is made of; each part is made when it is first asked for.

    Args:
      config: of the run.
      spec: what was measured when the run was trained; None measures it.
      dataset: the data; None loads what the configuration names.
      labels: names that have a label already, in their order; others come after them.
    """

    def __init__(
        self,
        config: Config,
        spec: DataSpec | None = None,
        *,
        dataset: data.Dataset | None = None,
        labels: Sequence[str] = (),
    ):
        self.config = config
        self.kind = TASKS[config.task.name]
        self.model_kind = MODELS[config.model.name]
        self._spec, self._dataset = spec, dataset
        self._labels = labels or (spec.classes if spec else ())

    # Data

    @cached_property
    def dataset(self) -> data.Dataset:
        """The examples; of a fold its split, with noise below where it is asked for."""
        return self._dataset or load_data(self.config, self._labels)

    @cached_property
    def spec(self) -> DataSpec:
        """What the network must remember of its data."""
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
        """Whether the training inputs are kept on the devices."""
        if self.kind.bucketed:  # of widths that differ from batch to batch
            return False
        if self.config.data_placement == "auto":
            return self.split.inputs.nbytes <= RESIDENT
        return self.config.data_placement == "resident"

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Widths that training examples are padded to, where these differ."""
        return self.kind.widths(self.config, self.dataset, training=True)

    @property
    def training_widths(self) -> tuple[int, ...]:
        """Those of `widths` that the training examples need."""
        found = self.widths
        if not found:
            return ()
        return found[: data.bucket_of(self.split.lengths.max(), found) + 1]

    @cached_property
    def eval_widths(self) -> tuple[int, ...]:
        """The same of an evaluation."""
        return self.kind.widths(self.config, self.dataset, training=False)

    @property
    def per_dispatch(self) -> int:
        """Updates that the devices do in a row, at most."""
        return 1 if self.kind.bucketed else self.config.steps_per_execution

    def feed(self) -> dict[str, Any]:
        """Whence `training.fit` has its batches, those of this process."""
        return dict(
            batch_at=self.batches((jax.process_index(), jax.process_count())),
            per_dispatch=self.per_dispatch,
            read=map if self.resident else data.prefetch,
        )

    def batches(self, share: tuple[int, int] = (0, 1), seed: int | None = None):
        """`step -> batch` of training, of one process among several.

        A batch also has `progress`, the share of the run that is over.
        """
        config, split = self.config, self.split
        size = config.batch_size
        options = dict(seed=config.seed if seed is None else seed, share=share)
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
        """The training examples, where they are kept on the devices."""
        return arrays(self.split) if self.resident else None

    def eval_size(self, devices: int = 1) -> int:
        """Examples of an evaluation's batch, a multiple of the devices."""
        return -(-self.kind.eval_size(self.config, self.dataset) // devices) * devices

    def eval_batches(
        self, split: data.Split, devices: int = 1, share: tuple[int, int] = (0, 1)
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches in which every example of a split is once; the last one is padded."""
        size = self.eval_size(devices)
        return data.eval_batches(split, size, share=share, widths=self.eval_widths)

    def in_order(self, split: data.Split, outputs: list, devices: int = 1):
        """The outputs of `eval_batches`, in the order of the examples."""
        return data.in_order(split, self.eval_size(devices), outputs, self.eval_widths)

    # Length of a run

    @cached_property
    def length(self) -> tuple[int, int]:
        """Steps of the run, and from one validation to the next.

        Here, and nowhere else, epochs become steps.
        """
        return length(self.config, len(self.split.inputs))

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.length[0]

    @property
    def eval_every(self) -> int:
        """Steps from one validation to the next."""
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
          key: of the random ones.
          pretrained: whether params that a file has come from there.
        """
        found = self.model_kind.pretrained(self.config) if pretrained else {}
        return self._init(key) | found

    @cached_property
    def _init(self) -> Callable:
        module, shape = self.network.module, self.network.input_shape

        @jax.jit  # of the network's answers nothing is computed
        def init(key):
            return module.init(key, jnp.zeros((1, *shape), jnp.float32))["params"]

        return init

    def apply(self, params: Any, batch: dict, keys: jax.Array | None = None):
        """The forward pass, of training, evaluation and prediction alike.

        Args:
          params: of the network.
          batch: `inputs [B, ...]`, uint8 or features; where there are any, `lengths`.
          keys: of the examples, for dropout; None in evaluation.

        Returns:
          `(outputs, extra loss [B] or None)`.
        """
        inputs = self.spec.normalize(batch["inputs"], batch.get("lengths"))
        return self.network.call(params, inputs, batch, keys)

    def outputs(self, params: Any, inputs: Any, keys: jax.Array | None = None):
        """The network's outputs for inputs `[B, ...]` as they come."""
        return self.apply(params, dict(inputs=inputs), keys)[0]

    def predictions(self, params: Any, batch: dict) -> jax.Array:
        """What the task answers with to a batch."""
        return self.task.predict(self.apply(params, batch)[0])

    def loss(self, params: Any, batch: dict, keys: jax.Array):
        """`((loss, count), metrics)` of a batch, augmented."""
        config, batch, goal = self.config, dict(batch), self.task
        params = training.freeze(params, self._lr_multipliers)
        inputs, pairs = batch["inputs"], None
        if not self.spec.features:
            change = augmentation.changes(config)
            inputs, pairs = change(inputs, fold_in(keys, 0))
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
        """`(metrics, predictions)` of a batch, compiled by those who call it."""
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
        """Means of metrics over a split, and its predictions, in its order.

        Args:
          step: `evaluate`, compiled.
          params: of the network.
          split: of the data set.
          devices: that share a batch.
          share: this process's number, and how many there are.
          stop: asked before each batch; where it says yes, both results are None.
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
        """Predictions and targets of a split that can be compared."""
        return self.kind.align_targets(split, predictions)

    # Optimizer and state

    @cached_property
    def schedule(self):
        """The learning rate by step."""
        return optimization.schedule(self.config, self.steps)

    @cached_property
    def _lr_multipliers(self) -> dict[str, float]:
        return optimization.lr_multipliers(self.config)

    @cached_property
    def optimizer(self):
        """The update rule, with the schedule of the run."""
        return optimization.optimizer(self.config, self.schedule)

    def train_step(self, mesh: Mesh, tx: optax.GradientTransformation | None = None):
        """The update on a mesh, by the optimizer of the run or by another one."""
        return training.make_train_step(
            self.loss,
            tx or self.optimizer,
            mesh,
            optimization.parallel(self.config, mesh.devices),
            data=self.resident_data(),
            accumulate=self.config.grad_accum_steps,
        )

    def state_shapes(self):
        """The shapes of a training state, whatever the length of the run."""

        def blank():
            key = jax.random.key(0)
            params = self.init(key)
            rate = optimization.schedule(self.config, steps=1)
            tx = optimization.optimizer(self.config, rate)
            return training.TrainState(np.int32(0), params, tx.init(params), key)

        return jax.eval_shape(blank)


def arrays(split: data.Split) -> dict[str, np.ndarray]:
    """What a split has, by name."""
    return {name: a for name, a in split._asdict().items() if a is not None}


def length(config: Config, examples: int) -> tuple[int, int]:
    """Steps of a run on so many examples, and from validation to validation."""
    per_epoch = data.steps_per_epoch(examples, config.batch_size)
    steps = config.steps or max(1, round(config.epochs * per_epoch))
    return steps, config.eval_every or max(per_epoch, -(-steps // 20))


def load_data(config: Config, labels: Sequence[str] = ()) -> data.Dataset:
    """The data set of a configuration, as its task learns it."""
    options, kind = config.data, TASKS[config.task.name]
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
        raise UsageError("data.noise_rows goes below pictures; these are clips")
    rng = np.random.default_rng(options.split_seed)

    def noisy(split: data.Split) -> data.Split:
        n, _, w, c = split.inputs.shape
        noise = rng.integers(0, 256, (n, options.noise_rows, w, c), np.uint8)
        return split._replace(inputs=np.concatenate([split.inputs, noise], axis=1))

    return dataset._replace(splits={k: noisy(s) for k, s in dataset.splits.items()})
