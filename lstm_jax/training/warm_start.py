"""Initialization from pretrained weights, freezing and learning-rate multipliers."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax


class WarmStart(NamedTuple):
    """Which leaves were loaded, by path, such as "layer_0/w_h".

    Attributes:
      loaded: copied unchanged.
      resized: of an output layer with other classes, copied by column.
      skipped: leaves of the donor without a counterpart of the same shape.
      new: leaves of the network that keep their initial values.
    """

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]


def flatten_params(params: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, such as "layer_0/w_h"."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def warm_start(
    params: Any,
    donor: Mapping[str, Any],
    *,
    output: str = "head",
    columns: Mapping[int, int] | None = None,
) -> tuple[Any, WarmStart]:
    """Copies those leaves of another network that match by path and shape.

    Args:
      params: freshly initialized.
      donor: leaves by path, as from `flatten_params`.
      output: path of the output layer; its leaves may differ in their last axis.
      columns: columns of the output layer to copy, {index here: index in the donor}, if
        the classes or their order differ; None: they are the same.

    Returns:
      (params, WarmStart); the params keep their dtypes.
    """
    ours, filled = flatten_params(params), {}
    loaded, resized = [], []
    for path, leaf in ours.items():
        given = donor.get(path)
        filled[path] = leaf
        if given is None:
            continue
        if columns is None or not path.startswith(f"{output}/"):
            if np.shape(given) == np.shape(leaf):
                filled[path] = np.asarray(given, leaf.dtype)
                loaded.append(path)
        elif columns and np.shape(given)[:-1] == np.shape(leaf)[:-1]:
            partly = np.array(leaf)
            partly[..., list(columns)] = np.asarray(given)[..., list(columns.values())]
            filled[path] = partly
            resized.append(path)
    used = {*loaded, *resized}
    about = WarmStart(
        tuple(loaded),
        tuple(resized),
        tuple(path for path in donor if path not in used),
        tuple(path for path in ours if path not in used),
    )
    return jax.tree.unflatten(jax.tree.structure(params), list(filled.values())), about


def lr_multipliers(params: Any, multipliers: Mapping[str, float]) -> Any:
    """The learning-rate factor of each leaf, as a tree like `params`.

    Args:
      params: the tree.
      multipliers: factors by regular expression, searched in the path of each leaf
        ("layer_0/", "head|norm"); the last match wins. 0 freezes a leaf. Leaves
        without a match have the factor 1.

    Raises:
      ValueError: a pattern is not a regular expression, or matches no path.
    """
    paths = list(flatten_params(params))
    factors = dict.fromkeys(paths, 1.0)
    for pattern, factor in multipliers.items():
        try:
            found = [path for path in paths if re.search(pattern, path)]
        except re.error as error:
            raise ValueError(
                f"freeze, lr-multipliers: {pattern!r} is not a valid regex: {error}"
            ) from error
        if not found:
            tops = dict.fromkeys(path.partition("/")[0] for path in paths)
            raise ValueError(
                f"freeze, lr-multipliers: {pattern!r} matches no parameter; "
                f"parameter paths begin with {', '.join(tops)}"
            )
        factors |= dict.fromkeys(found, factor)
    return jax.tree.unflatten(jax.tree.structure(params), list(factors.values()))


def scale_by_path(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies updates by `lr_multipliers`; in a chain last, or before an average."""

    def init(params):
        lr_multipliers(params, multipliers)  # raises early if a pattern is wrong
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        factors = lr_multipliers(updates, multipliers)
        return jax.tree.map(lambda u, f: u * f, updates, factors), state

    return optax.GradientTransformation(init, update)


def freeze(params: Any, multipliers: Mapping[str, float]) -> Any:
    """Stops the gradient of params whose factor is 0.

    This saves the computation of updates that would be discarded.
    """
    factors = lr_multipliers(params, multipliers)
    return jax.tree.map(
        lambda p, f: p if f else jax.lax.stop_gradient(p), params, factors
    )
