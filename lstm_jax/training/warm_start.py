"""Weights from elsewhere: what fits of them, what stays as it is, what moves slowly."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax


class WarmStart(NamedTuple):
    """What became of each leaf, by its path, such as "layer_0/w_h".

    Attributes:
      loaded: taken as they were.
      resized: of an output layer of other classes, filled by column.
      skipped: theirs, which have no place here, or another shape.
      new: ours, which stay as they were initialised.
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
    """Fills params with what fits of another network's, by path and shape.

    Args:
      params: freshly initialised.
      donor: leaves by path, as `flatten_params` gives them.
      output: where the output layer is; its leaves may differ in their last axis.
      columns: those of the output layer to copy, {ours: theirs}, where its classes are
        others or in another order; None: they are the same.

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
    """A tree like `params`: the factor of the learning rate of each leaf.

    Args:
      params: the tree.
      multipliers: factors by pattern, a regular expression that is found in the path
        of a leaf ("layer_0/", "head|norm"); of several that are found the last holds.
        0 freezes. Leaves that none names have 1.

    Raises:
      ValueError: a pattern is malformed, or found in no path.
    """
    paths = list(flatten_params(params))
    factors = dict.fromkeys(paths, 1.0)
    for pattern, factor in multipliers.items():
        try:
            found = [path for path in paths if re.search(pattern, path)]
        except re.error as error:
            raise ValueError(
                f"freeze, lr-multipliers: {pattern!r} is no pattern: {error}"
            ) from error
        if not found:
            tops = dict.fromkeys(path.partition("/")[0] for path in paths)
            raise ValueError(
                f"freeze, lr-multipliers: {pattern!r} is found in no parameter's path; "
                f"they begin with {', '.join(tops)}"
            )
        factors |= dict.fromkeys(found, factor)
    return jax.tree.unflatten(jax.tree.structure(params), list(factors.values()))


def scale_by_path(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies updates by `lr_multipliers`; the last of a chain but an average."""

    def init(params):
        lr_multipliers(params, multipliers)  # refuses a wrong pattern at once
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        factors = lr_multipliers(updates, multipliers)
        return jax.tree.map(lambda u, f: u * f, updates, factors), state

    return optax.GradientTransformation(init, update)


def freeze(params: Any, multipliers: Mapping[str, float]) -> Any:
    """Params through which no gradient goes where the factor is 0.

    Without it the updates of a frozen leaf would be computed and thrown away.
    """
    factors = lr_multipliers(params, multipliers)
    return jax.tree.map(
        lambda p, f: p if f else jax.lax.stop_gradient(p), params, factors
    )
