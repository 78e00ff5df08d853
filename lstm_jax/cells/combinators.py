"""Cells made of cells; the carry of layers is the tuple of their carries."""

from operator import itemgetter

import jax
import jax.numpy as jnp
from jax import lax

from lstm_jax.cell import Cell, project_step, step
from lstm_jax.cells.dense import check_width, wide_product
from lstm_jax.initializers import Initializer
from lstm_jax.validation import check_count


def stack(*cells: Cell) -> Cell:
    """Stacked layers as one cell: each reads the output of the one below, per step.

    For streaming, where the whole stack advances frame by frame. Over a given sequence,
    unrolling layer by layer is equivalent, and lets each layer project all of its
    inputs at once.

    Args:
      *cells: bottom layer first, at least one.

    Returns:
      A `Cell` whose params and carry are tuples with one entry per layer, and whose
      output is that of the top layer.

    Raises:
      ValueError: if no cell is given, or their inputs differ in rank.
    """
    return _layers("stack", cells, skips=False)


def densely_connected(*cells: Cell) -> Cell:
    """Layers that read the input and all outputs below; outputs are concatenated.

        x^l = [x; y^1; ...; y^(l-1)]        y = [y^1; ...; y^L]

    In one step, as in `stack`; concatenated along the last axis.

    Args:
      *cells: bottom layer first, at least one. Their outputs may differ from each
        other and from the input in the last axis only.

    Returns:
      A `Cell` whose params and carry are tuples with one entry per layer, and whose
      output has the features of all layers.

    Raises:
      ValueError: if no cell is given, their inputs differ in rank, what is to be
        joined differs in an axis before the last, or there is no input.

    Reference: Graves 2013, section 2; Huang et al. 2017, eq. 2.
    """
    return _layers("densely_connected", cells, skips=True)


def _layers(caller: str, cells: tuple[Cell, ...], skips: bool) -> Cell:
    """`stack` or, with `skips`, `densely_connected`."""
    if not cells:
        raise ValueError(f"{caller}: no cells; pass at least one, bottom layer first")
    bottom, *upper = cells
    ranks = [cell.feature_ndim for cell in cells]
    if len(set(ranks)) > 1:
        raise ValueError(
            f"{caller}: cells read features of ranks {ranks}; all must be equal"
        )

    def joined_shape(shapes):
        """Shape of `[x, y^1, ...]` concatenated: a layer's input, or the output."""
        if not skips or len(shapes) == 1:
            return shapes[-1]
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(
                f"{caller}: cannot join arrays of shapes {shapes}; all axes but the "
                "last must be equal"
            )
        return (*shapes[-1][:-1], sum(shape[-1] for shape in shapes))

    def join(seen):
        if not skips or len(seen) == 1:
            return seen[-1]
        return jnp.concatenate([s.astype(seen[-1].dtype) for s in seen], axis=-1)

    def init(key, feature_shape, dtype=jnp.float32):
        params, shapes = [], [feature_shape]
        for cell, k in zip(cells, jax.random.split(key, len(cells)), strict=True):
            shape = joined_shape(shapes)
            params.append(cell.init(k, shape, dtype))
            shapes.append(output_shape(cell, params[-1], shape, dtype))
        joined_shape(shapes)  # raises if outputs do not fit
        return tuple(params)

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        keys = [None] * len(cells) if key is None else jax.random.split(key, len(cells))
        carries, shapes = [], [feature_shape]
        for cell, p, k in zip(cells, params, keys, strict=True):
            shape = joined_shape(shapes)
            carries.append(cell.carry(p, batch_shape, shape, dtype, key=k))
            shapes.append(output_shape(cell, p, shape, dtype))
        return tuple(carries)

    def project(params, xs, *, keys=None):
        if skips and xs is None:
            raise ValueError(f"{caller}: xs is None, but every layer reads the input")
        seen = xs if skips else None
        if keys is None:
            return bottom.project(params[0], xs), seen, None
        return bottom.project(params[0], xs, keys=keys.fold_in(0)), seen, keys.stacked()

    def recur(params, carry):
        return tuple(
            c.recur(p, s) for c, p, s in zip(cells, params, carry, strict=True)
        )

    def gates(params, carry, u, a):
        u, x, keys_t = u
        new, y = bottom.gates(params[0], carry[0], u, a[0])
        carries, seen = [new], [x, y]
        for layer, cell in enumerate(upper, start=1):
            own = None if keys_t is None else keys_t.fold_in(layer)
            u = project_step(cell, params[layer], join(seen), own)
            new, y = cell.gates(params[layer], carry[layer], u, a[layer])
            carries.append(new)
            seen.append(y)
        return tuple(carries), join(seen[1:])

    def output(carry):
        parts = zip(cells, carry, strict=True)
        return join([cell.output(state) for cell, state in list(parts)[first:]])

    first = 0 if skips else -1
    if not all(cell.output for cell in cells[first:]):
        output = None
    return Cell(init, carry, project, recur, gates, ranks[0], output=output)


def readout(
    cell: Cell,
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.glorot_uniform(),
) -> Cell:
    """A cell with a linear output layer.

        y = cell(x) W + b

    Applied to the last axis, that is a 1x1 convolution for images. It can give a cell
    outputs of the shape of its inputs, as `autoregressive` requires.

    Args:
      cell: any cell.
      features: of the output, >= 1.
      use_bias: False leaves out b.
      kernel_init: draws W `[D, features]`; b starts from 0.

    Returns:
      A `Cell` with the carry of `cell` and params {"cell", "w", "b"}.

    Raises:
      ValueError: if `features` < 1.
    """
    check_width("readout", features)

    def init(key, feature_shape, dtype=jnp.float32):
        key_cell, key_w = jax.random.split(key)
        params = {"cell": cell.init(key_cell, feature_shape, dtype)}
        width = output_shape(cell, params["cell"], feature_shape, dtype)[-1]
        params["w"] = kernel_init(key_w, (width, features), dtype)
        return params | ({"b": jnp.zeros(features, dtype)} if use_bias else {})

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return cell.carry(params["cell"], batch_shape, feature_shape, dtype, key=key)

    def project(params, xs, *, keys=None):
        return cell.project(params["cell"], xs, keys=keys)

    def recur(params, carry):
        return cell.recur(params["cell"], carry)

    def gates(params, carry, u, a):
        carry, y = cell.gates(params["cell"], carry, u, a)
        out = wide_product(y, params["w"])
        out = out + params["b"].astype(out.dtype) if use_bias else out
        return carry, out.astype(y.dtype)

    return Cell(init, carry, project, recur, gates, feature_ndim=cell.feature_ndim)


def residual(cell: Cell) -> Cell:
    """A cell with a residual connection.

        y = x + cell(x)

    Without input (`xs=None`, an input of zeros) it is the cell alone.

    Args:
      cell: its inputs and outputs must have the same shape.

    Returns:
      A `Cell` with the params and the carry of `cell`.

    Raises:
      ValueError: at init, if input and output differ in shape.

    Reference: He et al. 2016, eq. 1; between LSTM layers: Wu et al. 2016.
    """

    def init(key, feature_shape, dtype=jnp.float32):
        params = cell.init(key, feature_shape, dtype)
        _check_shapes_kept("residual", cell, params, feature_shape, dtype)
        return params

    def project(params, xs, *, keys=None):
        return cell.project(params, xs, keys=keys), xs

    def gates(params, carry, u, a):
        u, x = u
        carry, y = cell.gates(params, carry, u, a)
        return carry, y if x is None else x.astype(y.dtype) + y

    return Cell(init, cell.carry, project, cell.recur, gates, cell.feature_ndim)


def repeat(cell: Cell, layers: int) -> Cell:
    """A stack of equal layers, traced and compiled once for all of them.

        y^0 = x        y^l = cell_l(y^(l-1))        y = y^L

    Equal to `stack(cell, ..., cell)`, including carry and keys, but a step loops over
    the layers. For many layers, where compiling a stack takes long. The loop copies
    every state and projects each layer within its step, including the bottom one, so a
    stack of few layers runs faster.

    Args:
      cell: its inputs and outputs must have the same shape.
      layers: L, >= 1.

    Returns:
      A `Cell` with the params of `cell`, each leaf `[L, ...]`, and a tuple of L
      carries, bottom layer first.

    Raises:
      ValueError: if `layers` < 1; at init, if input and output differ in shape.
    """
    check_count("repeat", "layers", layers, "layers")

    # Batch axes lead in every leaf of the carry; within a step leaves are [L, ...].
    def stacked(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def unstacked(tree):
        return tuple(jax.tree.map(itemgetter(at), tree) for at in range(layers))

    def init(key, feature_shape, dtype=jnp.float32):
        keys = jax.random.split(key, layers)
        params = jax.vmap(lambda k: cell.init(k, feature_shape, dtype))(keys)
        bottom = jax.tree.map(itemgetter(0), params)
        _check_shapes_kept("repeat", cell, bottom, feature_shape, dtype)
        return params

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        def one(params, key):
            return cell.carry(params, batch_shape, feature_shape, dtype, key=key)

        keys = None if key is None else jax.random.split(key, layers)
        return unstacked(jax.vmap(one, axis_size=layers)(params, keys))

    def project(params, xs, *, keys=None):
        return xs, None if keys is None else keys.stacked()

    def recur(params, carry):
        return unstacked(jax.vmap(cell.recur, axis_size=layers)(params, stacked(carry)))

    def gates(params, carry, u, a):
        x, keys_t = u

        def layer(x, inputs):
            own_params, own_carry, own_a, index = inputs
            own_keys = None if keys_t is None else keys_t.fold_in(index)
            own_u = project_step(cell, own_params, x, own_keys)
            own_carry, y = cell.gates(own_params, own_carry, own_u, own_a)
            return y, own_carry

        indices = jnp.arange(layers, dtype=jnp.uint32)
        inputs = (params, stacked(carry), stacked(a), indices)
        bottom = jax.tree.map(itemgetter(0), inputs)
        y, _ = jax.eval_shape(layer, x, bottom)
        x = jnp.zeros(y.shape, y.dtype) if x is None else x.astype(y.dtype)
        y, carries = lax.scan(layer, x, inputs)
        return unstacked(carries), y

    output = cell.output and (lambda carry: cell.output(carry[-1]))
    return Cell(init, carry, project, recur, gates, cell.feature_ndim, output=output)


def learned_carry(cell: Cell) -> Cell:
    """A cell with a learned initial state.

    Params: `{"cell": params of the cell, "carry": its carry without batch axes}`; the
    latter is initialized with the cell's own carry, usually zeros. All sequences share
    it. Leaves that are not floating, such as masks, are not learned.

    Args:
      cell: any cell.

    Returns:
      A `Cell` with the carry of `cell`.
    """

    def init(key, feature_shape, dtype=jnp.float32):
        def learnable(leaf):
            return leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else None

        params = cell.init(key, feature_shape, dtype)
        start = cell.carry(params, (), feature_shape, dtype)
        return {"cell": params, "carry": jax.tree.map(learnable, start)}

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        def start(learned, own):
            if learned is None:
                return own
            return jnp.broadcast_to(learned, own.shape).astype(own.dtype)

        own = cell.carry(params["cell"], batch_shape, feature_shape, dtype, key=key)
        return jax.tree.map(start, params["carry"], own, is_leaf=lambda x: x is None)

    def project(params, xs, *, keys=None):
        return cell.project(params["cell"], xs, keys=keys)

    def recur(params, carry):
        return cell.recur(params["cell"], carry)

    def gates(params, carry, u, a):
        return cell.gates(params["cell"], carry, u, a)

    output = cell.output
    return Cell(init, carry, project, recur, gates, cell.feature_ndim, output=output)


def vmapped(cell: Cell, batch_ndim: int) -> Cell:
    """N cells that differ only in their params, as one, each with its own batch.

    Params, carry and batch have a leading axis N: xs `[T, N, *B, F]`.

    Args:
      cell: any cell; apply combinators to it before `vmapped`.
      batch_ndim: number of batch axes of each.

    Returns:
      A `Cell` without randomness and without `init`: stack the params of N cells.
    """

    def init(key, feature_shape, dtype=jnp.float32):
        raise NotImplementedError("vmapped: stack the params of each cell")

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        def start(params):
            return cell.carry(params, batch_shape[1:], feature_shape, dtype)

        return jax.vmap(start)(params)

    def project(params, xs, *, keys=None):
        at = xs.ndim - cell.feature_ndim - batch_ndim - 1
        return jax.vmap(cell.project, in_axes=(0, at), out_axes=at)(params, xs)

    def recur(params, carry):
        return jax.vmap(cell.recur)(params, carry)

    def gates(params, carry, u, a):
        return jax.vmap(cell.gates)(params, carry, u, a)

    output = cell.output and jax.vmap(cell.output)
    options = dict(output=output, params_batch_ndim=1 + cell.params_batch_ndim)
    return Cell(init, carry, project, recur, gates, cell.feature_ndim, **options)


def output_shape(cell: Cell, params, feature_shape, dtype) -> tuple[int, ...]:
    """Feature shape of one output, by tracing a step without a batch.

    `feature_shape` is None for a run without inputs.
    """

    # Without a batch there is nothing that may stay sharded as params are.
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)

    def one_step(params):
        x = None if feature_shape is None else jnp.zeros(feature_shape, dtype)
        state = cell.carry(params, (), feature_shape, dtype)
        return step(cell, params, state, cell.project(params, x))[1]

    return jax.eval_shape(one_step, params).shape


def _check_shapes_kept(caller: str, cell: Cell, params, feature_shape, dtype) -> None:
    shape = output_shape(cell, params, feature_shape, dtype)
    if shape != tuple(feature_shape):
        raise ValueError(
            f"{caller}: the cell reads {tuple(feature_shape)} and puts out {shape}; "
            "these must be equal: choose its features so"
        )
