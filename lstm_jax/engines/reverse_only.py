"""Raises a helpful error for forward-mode derivatives where they are unsupported.

JAX refuses to push a tangent through a `jax.custom_vjp`, but cannot know what would
take one. So what goes into it passes two primitives, both the identity: the derivative
of the first is the second, which reverse mode transposes, and never evaluates. It costs
nothing: neither is there once a program is lowered.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def reverse_only(engine: str, tree: Any) -> Any:
    """`tree`, whose leaves may be differentiated in reverse mode only.

    Forward mode raises a `TypeError` that names `engine` and the one to use.
    """

    def one(leaf):
        real = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return _value_p.bind(leaf, engine=engine) if real else leaf

    return jax.tree.map(one, tree)


def _refuse(*_, engine: str, **__):
    raise TypeError(
        f"unroll: engine={engine!r} has no forward-mode derivatives, such as jax.jvp, "
        'jax.linearize and jax.jacfwd take; use engine="scan"'
    )


def _jvp(primals, tangents, *, engine):
    # The bare value comes out: a derivative of this one passes in forward mode.
    (x,), (tangent,) = primals, tangents
    if type(tangent) is ad.Zero:
        return x, tangent
    return x, _tangent_p.bind(tangent, engine=engine)


_value_p = Primitive("reverse_only")
_value_p.def_impl(lambda x, engine: x)
_value_p.def_abstract_eval(lambda x, engine: x)
ad.primitive_jvps[_value_p] = _jvp
batching.defvectorized(_value_p)
mlir.register_lowering(_value_p, lambda context, x, engine: [x])

_tangent_p = Primitive("reverse_only_tangent")
_tangent_p.def_impl(_refuse)
_tangent_p.def_abstract_eval(lambda tangent, engine: tangent)
batching.primitive_batchers[_tangent_p] = _refuse
mlir.register_lowering(_tangent_p, _refuse)

ad.deflinear2(_tangent_p, lambda cotangent, *_, engine: [cotangent])
