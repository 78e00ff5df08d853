"""Fingerprints of data sets, by which a resumed run detects changed data."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_jax.data.dataset import SPLITS, Dataset

FINGERPRINT_FORMAT = 1  # raise it when the hashes change
_HASHED = 1 << 30  # bytes of inputs; larger sets are sampled at even spacing
_LISTED = 4  # number of classes that a message names


def content_hashes(array: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
    """A hash of the content of each example.

    Args:
      array: [N, ...], of any dtype.
      rows: indices of the examples to hash; None: all.

    Returns:
      uint64 [N], 8 bytes of BLAKE2b: among a million different examples, two share a
      hash with a probability below 1e-7.
    """
    rows = range(len(array)) if rows is None else rows
    out = np.empty(len(rows), np.uint64)
    for place, row in enumerate(rows):
        content = np.ascontiguousarray(array[row])
        digest = hashlib.blake2b(content.data, digest_size=8).digest()
        out[place] = int.from_bytes(digest, "little")
    return out


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Classes, counts and content hashes of a data set, as JSON values.

    Of inputs above 1 GiB only a sample is hashed: a change of a few examples may then
    go unnoticed, but a change of counts or classes is always found.

    Returns:
      A dict with "format"; "dataset", the name; "example_shape"; "classes", a list of
      dicts with "name" and, if each example has one class, "examples" (the count) and
      "digest" (of these examples, independent of order); "splits", for each split
      "examples" (the count) and ordered digests of "inputs" and "targets"; and
      "inputs", a digest of all inputs, independent of order.
    """
    total = sum(split.inputs.nbytes for split in dataset.splits.values())
    share = min(1.0, _HASHED / max(total, 1))
    splits, hashes, labels = {}, [], []
    for name in SPLITS:
        inputs, targets, lengths = dataset.splits[name]
        count = max(round(len(inputs) * share), min(len(inputs), 1))
        rows = np.linspace(0, len(inputs) - 1, count).astype(int) if count else []
        found = content_hashes(inputs, rows)
        parts = [content_hashes(targets, rows)]
        parts += [] if lengths is None else [np.asarray(lengths)[rows]]
        splits[name] = {
            "examples": len(inputs),
            "inputs": _in_order(found),
            "targets": _in_order(*parts),
        }
        hashes.append(found)
        labels.append((targets[rows], targets))
    every = np.concatenate(hashes)
    classes: list[dict[str, Any]] = [{"name": name} for name in dataset.classes]
    if all(whole.ndim == 1 and whole.dtype.kind == "i" for _, whole in labels):
        some = np.concatenate([part for part, _ in labels])
        whole = np.concatenate([part for _, part in labels])
        for number, about in enumerate(classes):
            about["examples"] = int((whole == number).sum())
            about["digest"] = _any_order(every[some == number])
    return {
        "format": FINGERPRINT_FORMAT,
        "dataset": dataset.name,
        "example_shape": list(dataset.image_shape),
        "classes": classes,
        "splits": splits,
        "inputs": _any_order(every),
    }


def _in_order(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _any_order(hashes: np.ndarray) -> str:
    return _in_order(np.sort(hashes))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describes what changed between two fingerprints; [] if nothing changed.

    Args:
      old, new: fingerprints, as `fingerprint` returns them.

    Raises:
      KeyError, TypeError, AttributeError: `old` is not a fingerprint.
    """
    lines = []
    counts = [sum(s["examples"] for s in f["splits"].values()) for f in (old, new)]
    if counts[0] != counts[1]:
        lines.append(f"{counts[1]:,} examples instead of {counts[0]:,}")
    shapes = ["x".join(map(str, f["example_shape"])) for f in (old, new)]
    if shapes[0] != shapes[1]:
        lines.append(f"examples of {shapes[1]} instead of {shapes[0]}")
    changed = _class_changes(old["classes"], new["classes"])
    if changed and old["inputs"] == new["inputs"] and counts[0] == counts[1]:
        changed.append("only labels changed, the inputs are the same")
    lines += changed
    if lines:
        return lines
    pairs = [(name, old["splits"][name], new["splits"][name]) for name in SPLITS]
    moved = [name for name, was, now in pairs if was["inputs"] != now["inputs"]]
    sizes = [f"{n} {b['examples']:,}, not {a['examples']:,}" for n, a, b in pairs]
    if any(was["examples"] != now["examples"] for _, was, now in pairs):
        return [f"the splits have other sizes ({'; '.join(sizes)})"]
    if moved and old["inputs"] == new["inputs"]:
        return [
            "the same examples are in another order or in other splits "
            f"({', '.join(moved)})"
        ]
    if moved:
        return [f"the content of examples changed in {', '.join(moved)}"]
    other = [name for name, was, now in pairs if was["targets"] != now["targets"]]
    return [f"the targets changed in {', '.join(other)}"] if other else []


def _class_changes(old: list[dict], new: list[dict]) -> list[str]:
    """Lines on classes that were renamed, reordered, swapped, or changed in content."""
    was, now = ({c["name"]: c for c in classes} for classes in (old, new))
    gone = [name for name in was if name not in now]
    came = [name for name in now if name not in was]
    by_digest = {now[name].get("digest"): name for name in came}
    lines = []
    for name in gone[:_LISTED]:
        other = by_digest.get(was[name].get("digest"))
        renamed = other is not None and was[name].get("digest") is not None
        lines.append(
            f"class {name!r} is now called {other!r}"
            if renamed
            else f"class {name!r} is missing"
        )
        came = [each for each in came if not renamed or each != other]
    lines += [f"class {name!r} is new" for name in came[:_LISTED]]
    hidden = max(len(gone) - _LISTED, 0) + max(len(came) - _LISTED, 0)
    lines += [f"{hidden} more classes changed"] if hidden else []
    same = [name for name in was if name in now]
    if same != [name for name in now if name in was]:
        lines.append("the classes are in another order")
    changed = [n for n in same if was[n].get("digest") != now[n].get("digest")]
    owner = {was[n].get("digest"): n for n in changed}
    swapped = {n: owner[d] for n in changed if (d := now[n].get("digest")) in owner}
    if swapped:
        lines.append(
            "examples moved between classes: "
            + ", ".join(
                f"{n!r} holds what was in {other!r}"
                for n, other in [*swapped.items()][:_LISTED]
            )
        )
    rest = [n for n in changed if n not in swapped]
    told = [
        f"{n!r} has {now[n]['examples']:,} instead of {was[n]['examples']:,}"
        if now[n]["examples"] != was[n]["examples"]
        else f"the content of {n!r} differs"
        for n in rest[:_LISTED]
    ]
    told += [f"{len(rest) - _LISTED} more classes"] if len(rest) > _LISTED else []
    return lines + ([f"changed classes: {', '.join(told)}"] if told else [])
