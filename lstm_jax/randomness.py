"""Randomness of a run: which cells are stochastic, keys per example and step."""

import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell, at_least_float32, project_step, step
from lstm_jax.engines.jaxpr_analysis import depends_on
from lstm_jax.keys import Keys, typed_key


def is_stochastic(
    cell: Cell, params: Any, feature_shape: tuple[int, ...], dtype: Any = jnp.float32
) -> bool:
    """Whether anything that `cell` computes from an input depends on a key.

    Found by tracing a step without a batch. If that is inconclusive, as for a cell
    with a loop in its step, the result is True.

    Args:
      cell: any cell.
      params: its params.
      feature_shape: shape of one input.
      dtype: of the input.
    """

    # Shapes alone: wherever params live on a mesh, what is drawn is the same.
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    leaves, tree = jax.tree.flatten(params)
    about = tree, tuple(leaves), tuple(feature_shape), jnp.dtype(dtype)
    parts = tuple(map(_weak, cell))
    try:
        hash(parts)
    except TypeError:  # of a callable that cannot be found again
        return _is_stochastic.__wrapped__(parts, *about)
    return _is_stochastic(parts, *about)


def _weak(part: Any) -> Any:
    """A weak reference, which does not keep a closure alive, or `part` itself."""
    try:
        return weakref.ref(part)
    except TypeError:  # a number, None, or a callable such as an attrgetter
        return part


@lru_cache(maxsize=1024)
def _is_stochastic(
    parts: tuple, tree: Any, leaves: tuple, feature_shape: tuple[int, ...], dtype: Any
) -> bool:
    """`is_stochastic`, cached; `parts` are those of a cell, from `_weak`."""
    live = (part() if isinstance(part, weakref.ref) else part for part in parts)
    cell, state_dtype = Cell(*live), at_least_float32(dtype)  # as in `unroll`

    def one_step(key, params, x):
        key_carry, key = jax.random.split(key)
        carry = cell.carry(params, (), feature_shape, state_dtype, key=key_carry)
        keys = Keys.of(key, 1)
        u = project_step(cell, params, x, Keys(keys.per_sequence, keys.per_step[0]))
        return step(cell, params, carry, u)

    x = jax.ShapeDtypeStruct(feature_shape, dtype)
    return depends_on_key(one_step, tree.unflatten(leaves), x)


def depends_on_key(run: Callable, *args: Any) -> bool:
    """Whether an output of `run(key, *args)` depends on the key, by tracing."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return depends_on(run, key, *args)[0]


def key_for(
    cells: tuple[Cell, ...], params: tuple[Any, ...], xs: jax.Array | None, key: Any
) -> jax.Array | None:
    """`key` as a typed key; None if no cell uses randomness.

    Engines then run as in evaluation, which may be faster.

    Raises:
      ValueError: `key` is neither one key nor one per example of `xs`.
    """
    if key is None:
        return None
    key = typed_key(key)
    if xs is None:
        return key
    check_key(key, xs.shape[1 : xs.ndim - cells[0].feature_ndim])

    def draws(cell, params):
        shape = xs.shape[xs.ndim - cell.feature_ndim :]
        return is_stochastic(cell, params, shape, jax.typeof(xs).dtype)

    return key if any(map(draws, cells, params)) else None


def check_key(key: jax.Array, batch_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless a typed key is one, or one per example."""
    if key.shape not in ((), batch_shape):
        raise ValueError(
            f"unroll: key has shape {key.shape}; pass one key, (), or one for "
            f"each example, [*B] = {batch_shape}"
        )


def per_example(cell: Cell, batch_ndim: int) -> Cell:
    """The cell, with the randomness of each example from the example's own key.

    An example's randomness then depends neither on the rest of the batch nor on how the
    batch is split over devices.

    Args:
      cell: any cell.
      batch_ndim: number of batch axes, and of axes of the keys that `carry` and
        `project` take.
    """

    def over_batch(run, in_axes, out_axes):
        for _ in range(batch_ndim):
            run = jax.vmap(run, in_axes, out_axes)
        return run

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        if key is None:
            return cell.carry(params, batch_shape, feature_shape, dtype)

        def start(key):
            return cell.carry(params, (), feature_shape, dtype, key=key)

        return over_batch(start, 0, 0)(key)

    def project(params, xs, *, keys=None):
        if keys is None:
            return cell.project(params, xs), None

        def of_example(xs, keys):
            return cell.project(params, xs, keys=keys)

        lead = keys.per_step.ndim - batch_ndim  # the axis of time, if there is one
        axis = None if xs is None else lead
        u = over_batch(of_example, (axis, Keys(0, lead)), lead)(xs, keys)
        return u, _NoInput() if xs is None else None

    def gates(params, carry, u, a):
        u, no_input = u
        keys = any(map(_is_key, jax.tree.leaves((carry, u))))
        if not keys and no_input is None:
            return cell.gates(params, carry, u, a)

        def of_example(carry, u, a):
            return cell.gates(params, carry, u, a)

        return over_batch(of_example, 0, 0)(carry, u, a)

    return cell._replace(carry=carry, project=project, gates=gates, equations=None)


class _NoInput(NamedTuple):
    """Marks that `u` has batch axes only, without the state's feature axes.

    Without input it may be just a bias. A pytree without leaves.
    """


def step_dropout(
    xs: jax.Array, rate: float, key: jax.Array, first_step: Any = 0
) -> jax.Array:
    """Inverted dropout of a sequence, with a separate key for each step.

    One draw of 32 random bits is used for two numbers, because drawing is a good part
    of a small network's step. The rate is rounded to a multiple of 2**-16.

    Args:
      xs: `[T, *B, ...]`.
      rate: dropout rate, in [0, 1).
      key: typed; one, `()`, or one per example, `[*B]`.
      first_step: index in its sequence of the first step of `xs`.
    """
    if rate == 0:
        return xs
    keys = Keys.of(key, xs.shape[0], first_step).per_step
    return example_dropout(xs, rate, keys)


def example_dropout(xs: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
    """Inverted dropout of an array, with one key per entry of its leading axes.

    Args:
      xs: `[*N, ...]`.
      rate: as in `step_dropout`.
      keys: typed, `[*N]`.
    """
    if rate == 0:
        return xs
    dropped = min(round(rate * 2**16), 2**16 - 1)
    scale = 2**16 / (2**16 - dropped)

    def drop(key, x):
        words = jax.random.bits(key, (-(-x.shape[0] // 2), *x.shape[1:]))
        halves = jnp.concatenate([words >> 16, words & 0xFFFF])[: x.shape[0]]
        keep = halves >= dropped
        return jnp.where(keep, x * jnp.asarray(scale, x.dtype), jnp.zeros_like(x))

    for _ in range(keys.ndim):
        drop = jax.vmap(drop)
    return drop(keys, xs)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
