"""ONNX export, by jax2onnx, in the environment where it is installed."""

import json
import logging
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend import core

from lstm_jax.export.jaxexport import symbolic_inputs

_CALLS = "jit", "pjit"  # calls that are inlined


def model_bytes(
    function: Callable, inputs: list[tuple[tuple, Any]], words: dict[str, Any]
) -> bytes:
    """An ONNX model of a function.

    Args:
      function: maps arrays to one array.
      inputs: as in `jaxexport.symbolic_inputs`.
      words: the model's metadata, each value encoded as JSON.

    Raises:
      ImportError: jax2onnx is not installed.
      NotImplementedError: jax2onnx cannot convert the function; one line.
    """
    import jax2onnx

    # It warns about shapes that it omits from the file; users cannot change that.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        model = jax2onnx.to_onnx(
            forwards(function),
            symbolic_inputs(inputs),
            input_names=["inputs", "lengths"][: len(inputs)],
            output_names=["outputs"],
        )
    except Exception as error:  # jax2onnx raises exceptions of many types
        reason = " ".join(str(error).split())[:200]
        raise NotImplementedError(
            f"jax2onnx cannot convert this network "
            f"({type(error).__name__}: {reason}); .jaxexport holds every network"
        ) from error
    for name, value in words.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    return model.SerializeToString()


def forwards(function: Callable) -> Callable:
    """The function with reversed loops replaced by forward loops.

    jax2onnx supports forward loops only: inputs of a reversed loop are reversed before
    it, and outputs after it.
    """

    def run(*inputs):
        closed = jax.make_jaxpr(function)(*inputs)
        (output,) = _evaluate(closed.jaxpr, closed.consts, inputs)
        return output

    return run


def _evaluate(jaxpr: Any, consts: Any, inputs: Any) -> list[Any]:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(variable):
        literal = isinstance(variable, core.Literal)
        return variable.val if literal else values[variable]

    for eqn in jaxpr.eqns:
        taken, options = [read(v) for v in eqn.invars], eqn.params
        inner = options.get("jaxpr" if eqn.primitive.name in _CALLS else "call_jaxpr")
        if inner is not None:
            made = _evaluate(inner.jaxpr, inner.consts, taken)
        elif eqn.primitive.name == "scan" and options["reverse"]:
            first = options["num_consts"] + options["num_carry"]
            taken[first:] = [lax.rev(x, (0,)) for x in taken[first:]]
            made = eqn.primitive.bind(*taken, **options | {"reverse": False})
            kept = options["num_carry"]
            made = [*made[:kept], *(lax.rev(y, (0,)) for y in made[kept:])]
        else:
            made = eqn.primitive.bind(*taken, **options)
            made = made if eqn.primitive.multiple_results else [made]
        values |= zip(eqn.outvars, made, strict=True)
    return [read(v) for v in jaxpr.outvars]
