"""Reads the arrays of a checkpoint into NumPy, independent of devices."""

import asyncio
import contextlib
import pathlib
from collections.abc import Coroutine, Iterable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lstm_jax.training.checkpoint_errors import CheckpointError
from lstm_jax.training.warm_start import flatten_params


def read_state(directory: pathlib.Path, template: Any, step: int) -> Any:
    """Reads a saved state.

    Args:
      directory: the directory of the saved arrays.
      template: a tree like the state; only shape and dtype of its leaves are used.
      step: the step of the checkpoint, for messages.

    Raises:
      CheckpointError: the state does not fit the template.
      Exception: the files cannot be read; the type depends on the damage.
    """
    with contextlib.closing(_reader()) as reader:
        metadata = reader.metadata(directory)
        saved = flatten_params(getattr(metadata, "tree", metadata))
        if not saved:
            raise FileNotFoundError("files are missing")
    blank = jax.tree.map(_numpy_blank, template)
    _check_fit(step, saved, flatten_params(blank))
    as_numpy = jax.tree.map(
        lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), blank
    )
    with contextlib.closing(_reader()) as reader:
        args = ocp.args.PyTreeRestore(item=blank, restore_args=as_numpy)
        state = reader.restore(directory, args=args)
    return jax.tree.map(_data_to_key, template, state)


def keys_as_data(state: Any) -> Any:
    """The state with typed PRNG keys replaced by their key data, integers."""
    return jax.tree.map(_key_to_data, state)


class _Reads:
    """Mixin for Orbax's array handlers: a failed read waits for all pending reads.

    Orbax's own handlers raise at the first error, and the event loop is closed while
    other reads are pending. Their threads then print "RuntimeError: Event loop is
    closed" to stderr.
    """

    def __init__(self, in_flight: set[asyncio.Task]):
        super().__init__()
        self._in_flight = in_flight  # shared by all handlers of a reader

    async def metadata(self, infos):
        own = super().metadata
        return await self._each(own([info]) for info in infos)

    async def deserialize(self, infos, args=None):
        own, args = super().deserialize, args or [ocp.RestoreArgs()] * len(infos)
        pairs = zip(infos, args, strict=True)
        return await self._each(own([info], [arg]) for info, arg in pairs)

    async def _each(self, reads: Iterable[Coroutine]) -> list:
        tasks = [asyncio.ensure_future(read) for read in reads]
        self._in_flight.update(tasks)
        while waiting := {task for task in self._in_flight if not task.done()}:
            await asyncio.wait(waiting)
        self._in_flight.difference_update(tasks)
        # Retrieves the exceptions of all tasks; asyncio would log the others.
        for error in [task.exception() for task in tasks]:
            if error is not None:
                raise error
        return [array for task in tasks for array in task.result()]


class _NumpyHandler(_Reads, ocp.type_handlers.NumpyHandler):
    pass


class _ArrayHandler(_Reads, ocp.type_handlers.ArrayHandler):
    pass


def _reader() -> ocp.PyTreeCheckpointHandler:
    """An Orbax handler that reads a saved state into NumPy arrays."""
    in_flight = set()
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _NumpyHandler(in_flight)), (jax.Array, _ArrayHandler(in_flight))
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_to_data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _numpy_blank(leaf) -> np.ndarray:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.empty(leaf.shape, leaf.dtype)


def _data_to_key(leaf, data):
    if not _is_key(leaf):
        return data
    return jax.random.wrap_key_data(data, impl=_key_impl(leaf.dtype))


def _key_impl(dtype) -> str:
    """The name of the PRNG implementation of a typed key."""
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        if (
            jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype
            == dtype
        ):
            return name
    raise CheckpointError(f"checkpoint: keys of type {dtype} cannot be restored")


def _check_fit(step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    def refuse(what: str) -> None:
        raise CheckpointError(
            f"checkpoint {step} does not fit: {what}; use the model and optimizer that "
            "it was saved with"
        )

    for name, leaf in wanted.items():
        shape = tuple(leaf.shape)
        if name not in saved:
            refuse(f"it has no {name}, which this model needs with shape {shape}")
        if (found := tuple(saved[name].shape)) != shape:
            refuse(f"{name} has shape {found}, but this model needs {shape}")
    for name in sorted(saved.keys() - wanted.keys()):
        refuse(f"this model has no {name} (shape {tuple(saved[name].shape)})")
