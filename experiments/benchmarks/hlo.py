"""Analyses compiled HLO text: loops, copies, memory spaces."""

import dataclasses
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Loop:
    """Contents of one iteration of a while loop."""

    depth: int
    """Nesting depth, 0 for an outermost loop."""
    trips: int | None
    """Number of iterations, if known."""
    fusions: int
    copies: int
    all_reduces: int
    custom_calls: tuple[str, ...]
    """Their targets."""
    cycles: int
    """XLA's estimate for a TPU, summed over the body; not a time."""
    longest_copy: int
    """The largest estimate of a copy."""
    weights: int
    """Loop-invariant arrays of the given shapes."""
    weights_in_vmem: int
    """Those of them in a TPU's VMEM."""
    on_host: bool | None = None
    """GPU: whether the host launches each iteration; else a command buffer does."""
    launches: int | None = None
    """GPU: launches by the host in each iteration."""


# Custom calls of the TPU compiler that only allocate or alias memory.
_NO_KERNELS = {"AllocateBuffer", "ConcatBitcast"}


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    root: bool


def loops(text: str, weights: Collection[tuple[int, ...]] = ()) -> list[Loop]:
    """The while loops of a compiled program, in the order in which they run.

    Args:
      text: an HLO module, from `compiled.as_text()`.
      weights: shapes of weights to find, transposed or not.
    """
    computations, entry = _computations(text)
    wanted = {tuple(sorted(shape)) for shape in weights}
    return list(_walk(computations, entry, wanted, depth=0))


def all_reduces(text: str) -> int:
    """The number of all-reduces in a program."""
    return len(re.findall(r" all-reduce(?:-start)?\(", text))


def captured(text: str, found: list[Loop]) -> list[Loop]:
    """Adds to the loops of a GPU program where they run.

    Args:
      text: XLA's dump of the thunk sequence after its passes.
      found: the loops of that program.

    Returns:
      `found` with `on_host` and `launches`; unchanged if the text has other loops.
    """
    placed: list[dict] = []  # one for each loop
    above: list[tuple[int, str, dict]] = []  # (indent, kind, facts of a loop)
    for line in text.splitlines():
        if mark := re.match(r"\s*(condition|body):", line):
            whiles = [facts for _, kind, facts in above if kind == "kWhile"]
            if mark[1] == "body":  # of the innermost loop after its condition
                whiles = [facts for facts in whiles if facts["section"] == "condition"]
            if whiles:
                whiles[-1]["section"] = mark[1]
            continue
        thunk = re.match(r"(\s*)\d+: (k\w+)", line)
        if not thunk:
            continue
        indent, kind = len(thunk[1]), thunk[2]
        while above and above[-1][0] >= indent:
            above.pop()
        if above and above[-1][1] == "kWhile" and above[-1][2]["section"] == "body":
            above[-1][2]["launches"] += 1
        on_host = all(kind != "kCommandBuffer" for _, kind, _ in above)
        facts = {"section": "condition", "launches": 0, "on_host": on_host}
        above.append((indent, kind, facts))
        if kind == "kWhile":
            placed.append(facts)
    if len(placed) != len(found):
        return found
    return [
        dataclasses.replace(
            loop,
            on_host=facts["on_host"],
            launches=facts["launches"] if facts["on_host"] else None,
        )
        for loop, facts in zip(found, placed, strict=True)
    ]


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{\s*$", line):
            name = head[2]
            entry = name if head[1] else entry
            computations[name] = []
        elif name and (instruction := _instruction(line)):
            computations[name].append(instruction)
    return computations, entry


def _instruction(line: str) -> _Instruction | None:
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    call = head and re.compile(r" ([a-z][\w\-]*)\(").search(line, head.end() - 1)
    if not call:
        return None
    operands, _, rest = line[call.end() :].partition(")")
    return _Instruction(
        name=head[2],
        shape=line[head.end() : call.start()],
        opcode=call[1],
        operands=tuple(re.findall(r"%([\w.\-]+)", operands)),
        rest=rest,
        root=bool(head[1]),
    )


def _walk(computations, name: str, wanted: set, depth: int) -> Iterator[Loop]:
    for instruction in computations.get(name, ()):
        if instruction.opcode == "while":
            body = re.search(r"body=%?([\w.\-]+)", instruction.rest)[1]
            yield _loop(instruction, computations[body], wanted, depth)
            yield from _walk(computations, body, wanted, depth + 1)
        elif instruction.opcode in ("call", "conditional"):
            for called in re.findall(r"=\{?%([\w.\-]+)", instruction.rest):
                yield from _walk(computations, called, wanted, depth)


def _loop(caller: _Instruction, body: list[_Instruction], wanted, depth) -> Loop:
    trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', caller.rest)
    weights = [shape for shape in _constants(body) if _dims(shape) in wanted]
    copies = [i for i in body if i.opcode in ("copy", "copy-start")]
    return Loop(
        depth=depth,
        trips=int(trips[1]) if trips else None,
        fusions=sum(i.opcode == "fusion" for i in body),
        copies=len(copies),
        all_reduces=sum(i.opcode in ("all-reduce", "all-reduce-start") for i in body),
        custom_calls=tuple(_custom_calls(body)),
        cycles=sum(map(_cycles, body)),
        longest_copy=max(map(_cycles, copies), default=0),
        weights=len(weights),
        weights_in_vmem=sum("S(1)" in shape for shape in weights),
    )


def _custom_calls(body: list[_Instruction]) -> Iterator[str]:
    for instruction in body:
        if instruction.opcode == "custom-call":
            target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)[1]
            if target not in _NO_KERNELS:
                yield target


def _constants(body: list[_Instruction]) -> list[str]:
    """Shapes of the loop-invariant elements of a loop's state that are read."""
    after = next((i.operands for i in body if i.root and i.opcode == "tuple"), ())
    parameter = next((i.name for i in body if i.opcode == "parameter"), None)
    read = {name for i in body if not i.root for name in i.operands}
    found = []
    for i in body:
        if i.opcode == "get-tuple-element" and i.operands == (parameter,):
            index = int(re.search(r"index=(\d+)", i.rest)[1])
            if after[index : index + 1] == (i.name,) and i.name in read:
                found.append(i.shape)
    return found


def _dims(shape: str) -> tuple[int, ...]:
    dims = re.match(r"\w+\[([\d,]*)\]", shape)
    sizes = [int(n) for n in dims[1].split(",") if n] if dims else []
    return tuple(sorted(n for n in sizes if n > 1))


def _cycles(instruction: _Instruction) -> int:
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    return int(found[1]) if found else 0
