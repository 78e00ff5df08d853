"""Regularizers: dropout, recurrent dropout and zoneout; active in training only."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell


def dropout(cell: Cell, rate: float, *, variational: bool = False) -> Cell:
    """Dropout on the inputs of a cell.

        x̃_t = m_t x_t / (1 - rate)        m_t ~ Bernoulli(1 - rate)

    Drawn per example and feature; without keys this is the cell itself.

    Args:
      cell: any cell.
      rate: probability that a feature is zeroed, in [0, 1).
      variational: one mask m for all steps of a sequence, instead of one per step.

    Returns:
      A `Cell` with the params and the carry of `cell`.

    Raises:
      ValueError: if `rate` is outside [0, 1).

    Reference: Srivastava et al. 2014; inputs only: Zaremba et al. 2014; `variational`:
    Gal & Ghahramani 2016, with one mask for all gates.
    """
    rate = _checked("dropout", rate)

    def project(params, xs, *, keys=None):
        if keys is None:
            return cell.project(params, xs)
        own, inner = keys.fold_in(0), keys.fold_in(1)
        if xs is None or rate == 0:
            return cell.project(params, xs, keys=inner)

        def draw(key):
            return jax.random.bernoulli(key, 1 - rate, xs.shape[1:])

            # The mask of step t depends on the key of step t only, so that streaming
            # frame by frame equals the whole sequence.

        keep = draw(own.per_sequence) if variational else jax.vmap(draw)(own.per_step)
        return cell.project(params, _dropped(xs, keep, rate), keys=inner)

    return cell._replace(project=project, equations=None)


class RecurrentDropoutCarry(NamedTuple):
    """The carry of the wrapped cell, and a mask of the same structure for `recur`.

    `mask` is None in evaluation, and None for leaves that are not floating.
    """

    cell: Any
    mask: Any


def recurrent_dropout(cell: Cell, rate: float) -> Cell:
    """Dropout on the state in the recurrent projection, one mask per sequence.

        a_t = recur(m carry_tm1 / (1 - rate))        m ~ Bernoulli(1 - rate)

    The state itself is not masked: of an LSTM, h is masked in the product, while c is
    kept. The mask is drawn per example when the carry is made, from its key, and is
    part of it: a carry passed to the next chunk of a sequence keeps its mask, and
    `resets` restore the same one. Without a key there is no mask; a run needs a key if
    and only if its carry was made with one.

    Args:
      cell: a cell whose `recur` reads the state.
      rate: dropout rate, in [0, 1).

    Returns:
      A `Cell` with the params of `cell` and carry `RecurrentDropoutCarry`.

    Raises:
      ValueError: `rate` is outside [0, 1); at init, `recur` returns nothing; in a run,
        there is a key but no mask in the carry, or a mask but no key.

    Reference: Gal & Ghahramani 2016, with one mask for all gates.
    """
    rate = _checked("recurrent_dropout", rate)

    def init(key, feature_shape, dtype=jnp.float32):
        params = cell.init(key, feature_shape, dtype)
        state = cell.carry(params, (), feature_shape, dtype)
        if not jax.tree.leaves(jax.eval_shape(cell.recur, params, state)):
            raise ValueError(
                "recurrent_dropout: this cell's recur returns nothing, so there is "
                "nothing to drop; its recurrent half is in its gates"
            )
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        if key is None:
            state = cell.carry(params, batch_shape, feature_shape, dtype)
            return RecurrentDropoutCarry(state, None)
        own, inner = jax.random.split(key)
        state = cell.carry(params, batch_shape, feature_shape, dtype, key=inner)
        leaves, tree = jax.tree.flatten(state)
        keys = jax.random.split(own, len(leaves))
        mask = [
            jax.random.bernoulli(k, 1 - rate, leaf.shape)
            if _is_floating(leaf)
            else None
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return RecurrentDropoutCarry(state, jax.tree.unflatten(tree, mask))

    def project(params, xs, *, keys=None):
        u = cell.project(params, xs, keys=keys)
        return u, None if keys is None else _Training()

    def recur(params, carry):
        if carry.mask is None:
            return cell.recur(params, carry.cell)

        def hide(keep, leaf):
            return leaf if keep is None else _dropped(leaf, keep, rate)

        seen = jax.tree.map(hide, carry.mask, carry.cell, is_leaf=lambda m: m is None)
        return cell.recur(params, seen)

    def gates(params, carry, u, a):
        u, training = u
        if training is not None and carry.mask is None:
            raise ValueError(
                "recurrent_dropout: there is a key, but the carry was made without one "
                "and holds no mask, so nothing would be dropped; make it with "
                "cell.carry(..., key=key), or pass no carry"
            )
        if training is None and carry.mask is not None:
            raise ValueError(
                "recurrent_dropout: the carry was made with a key and holds a mask, "
                "but there is no key; pass key=key to continue training, or "
                "carry._replace(mask=None) to evaluate"
            )
        new, y = cell.gates(params, carry.cell, u, a)
        return carry._replace(cell=new), y

    output = cell.output and (lambda carry: cell.output(carry.cell))
    return Cell(init, carry, project, recur, gates, cell.feature_ndim, output=output)


class _Training(NamedTuple):
    """Marks in `u` that there are keys; a pytree without leaves."""


def zoneout(cell: Cell, rate: Any) -> Cell:
    """Zoneout: units of the state randomly keep their old value.

        carry_t = m_t carry_tm1 + (1 - m_t) new_t        m_t ~ Bernoulli(rate)

    Drawn per example, unit and step; without keys the expectation is used, `rate` for
    m_t. An output that is part of the new carry according to `Cell.output` (h of an
    LSTM or a GRU) is zoned out, too; any other is unchanged. Leaves that are not
    floating are always updated.

    Args:
      cell: any cell.
      rate: probability that a unit keeps its value, in [0, 1]: for all leaves, or a
        tree like the carry, such as `LSTMCarry(c=0.5, h=0.05)`.

    Returns:
      A `Cell` with the params and the carry of `cell`.

    Raises:
      ValueError: if a rate is outside [0, 1], or the tree does not fit the carry.

    Reference: Krueger et al. 2017.
    """
    for one in jax.tree.leaves(rate):
        if not 0 <= one <= 1:
            raise ValueError(f"zoneout: rate={rate!r}, but a rate lies in [0, 1]")
    rate = jax.tree.map(float, rate)

    def project(params, xs, *, keys=None):
        if keys is None:
            return cell.project(params, xs), None
        own, inner = keys.fold_in(0), keys.fold_in(1)
        return cell.project(params, xs, keys=inner), own.per_step

    def gates(params, carry, u, a):
        u, key = u
        new, y = cell.gates(params, carry, u, a)
        olds, tree = jax.tree.flatten(carry)
        news = jax.tree.leaves(new)
        keys = [None] * len(olds) if key is None else jax.random.split(key, len(olds))
        zoned = map(zone, rates_of(carry), keys, olds, news)
        zoned = jax.tree.unflatten(tree, list(zoned))
        return zoned, cell.output(zoned).astype(y.dtype) if cell.output else y

    def rates_of(carry):
        try:
            spread = jax.tree.broadcast(rate, carry)
        except ValueError as error:
            raise ValueError(
                f"zoneout: rate={rate!r} does not fit the carry "
                f"{jax.tree.structure(carry)}; pass one number, or a tree like it"
            ) from error
        return jax.tree.leaves(spread)

    def zone(rate, key, old, new):
        if not _is_floating(old):
            return new
        new = new.astype(old.dtype)
        if key is None:
            return rate * old + (1 - rate) * new
        keep = jax.random.bernoulli(key, rate, old.shape)
        # Sharded like the state, as `where` requires on a mesh with explicit axes.
        keep |= old > jnp.inf  # nowhere
        return jnp.where(keep, old, new)

    return cell._replace(project=project, gates=gates, equations=None)


def _checked(caller: str, rate: float) -> float:
    if not 0 <= rate < 1:
        raise ValueError(f"{caller}: rate={rate!r}, but it lies in [0, 1)")
    return float(rate)


def _dropped(x: jax.Array, keep: jax.Array, rate: float) -> jax.Array:
    """`x` where `keep`, scaled so that its mean stays, else 0."""
    return jnp.where(keep, x / (1 - rate), 0)


def _is_floating(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
