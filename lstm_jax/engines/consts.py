"""Loop constants: inputs of the gates at every step, in addition to params."""

import inspect

from lstm_jax.cell import Cell


def bind_consts(cell: Cell) -> Cell:
    """`cell` with params `(params, consts)`, both passed to its gates.

    Raises:
      ValueError: its gates take no `consts`.
    """
    taken = inspect.signature(cell.gates).parameters.values()
    if not any(p.name == "consts" or p.kind == p.VAR_KEYWORD for p in taken):
        raise ValueError(
            "unroll: consts are given, but this cell's gates do not read any; write "
            "gates(params, carry, u, a, *, consts), or leave them out"
        )

    def carry(params, *args, **options):
        return cell.carry(params[0], *args, **options)

    def project(params, xs, *, keys=None):
        return cell.project(params[0], xs, keys=keys)

    def recur(params, carry):
        return cell.recur(params[0], carry)

    def gates(params, carry, u, a):
        params, consts = params
        return cell.gates(params, carry, u, a, consts=consts)

    return cell._replace(
        carry=carry, project=project, recur=recur, gates=gates, equations=None
    )
