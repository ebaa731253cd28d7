"""A compiled program as XLA prints it: its computations, how often each runs, and the FLOPs of it all."""

import json
import math
import re
from collections import Counter
from functools import cache

from jaxtrain.model.config import seen_keys
from jaxtrain.model.grouped import rows_of_a_tile

ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
OPENING = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
CALL = re.compile(r"(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")

FREE = re.compile(
    r"Sharding|SPMD|annotate_device_placement|MoveTo|PinTo|TopK|__cub\$|AllocateBuffer|Sort|barrier"
)
"""Custom calls that multiply nothing."""


class UnknownCall(Exception):
    """A custom call whose FLOPs nothing here declares."""


def computations(text: str) -> dict[str, list[str]]:
    """Lines of each, by name; the first to run is called `ENTRY …`."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if opening := OPENING.match(line):
            lines = found.setdefault(("ENTRY " if opening[1] else "") + opening[2], [])
        elif line.startswith(" "):
            lines.append(line)
    return found


def calls(line: str, known: dict[str, list[str]]) -> list[tuple[str, str]]:
    """(how, name) of the computations that a line runs: a loop's `body`, a `branch`, …"""
    found = [(how, called) for how, called in CALL.findall(line) if called in known]
    # the branch of a true predicate last, as where branches are numbered
    found = [("branch" if how.endswith("_computation") else how, called) for how, called in reversed(found)]
    if branches := BRANCHES.search(line):
        found += [("branch", called.strip(" %")) for called in branches[1].split(",")]
    return found


def trips(line: str, known: dict[str, list[str]]) -> int:
    """How often a loop runs: XLA's own word, or the constant that its condition compares with; else 1."""
    if said := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(said[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    body = "\n".join(known.get(condition[1], ())) if condition else ""
    constants = [int(n) for n in re.findall(r"s32\[\]\S* constant\((\d+)\)", body)]
    return constants[0] if len(constants) == 1 else 1


def flops(text: str) -> dict[str, float]:
    """FLOPs of one run on one device: of `dot`, and of each custom call's target by its kernel's formula.

    A loop counts by its trips, of a condition's branches the last, which is what `lax.cond` does where its
    predicate is true. UnknownCall where a custom call is no kernel that is known here.
    """
    known = computations(text)

    @cache
    def of(name: str) -> Counter:
        total: Counter = Counter()
        shapes: dict[str, tuple[int, ...]] = {}
        for line in known[name]:
            if not (found := LINE.match(line)):
                continue
            result, types, kind, rest = found.groups()
            shapes[result] = _dims(types)
            operands = [shapes.get(word, ()) for word in re.findall(r"%([\w.\-]+)", rest.split("), ")[0])]
            if kind == "dot":
                total["dot"] += _dot(shapes[result], operands[0], _numbers(rest, "lhs_contracting_dims"))
            elif kind == "custom-call":
                total += _custom(rest, shapes[result], operands)
            inner = calls(line, known)
            times = trips(line, known) if kind == "while" else 1
            for how, called in inner:
                if how != "branch":
                    total += Counter({one: times * n for one, n in of(called).items()})
            if branches := [of(called) for how, called in inner if how == "branch"]:
                total += branches[-1]
        return total

    return dict(of(next(name for name in known if name.startswith("ENTRY "))))


def _dot(result: tuple[int, ...], left: tuple[int, ...], contracted: list[int]) -> float:
    return 2.0 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def _custom(rest: str, result: tuple[int, ...], operands: list[tuple[int, ...]]) -> Counter:
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    name = target[1] if target else ""
    if name.startswith("__cublas"):
        said = re.search(r'"lhs_contracting_dimensions": *(\[[^\]]*\])', rest)
        return Counter(dot=_dot(result, operands[0], [int(n) for n in json.loads(said[1])] if said else []))
    if name.startswith("__cudnn$fmha"):
        matmuls = 5 if name.endswith("Backward") else 2  # the backward pass scores again
        window = re.search(r'"sliding_window_length": *"?(\d+)', rest)
        (rows, length, heads, width), keys = operands[0], operands[1][1]
        assert length == keys, "of whole rows"
        pairs = rows * heads * length * seen_keys(length, int(window[1]) if window else 0)
        return Counter({name: 2.0 * matmuls * pairs * width})
    if name == "mosaic_gpu_v2":
        return Counter({name: _grouped(result, operands)})
    if FREE.search(name):
        return Counter()
    raise UnknownCall(f"custom call {name!r}: no formula for its FLOPs in plan/hlo.py")


def _grouped(result: tuple[int, ...], operands: list[tuple[int, ...]]) -> float:
    """Of `model.grouped`'s kernels: every row once, and a tile for each border between two experts."""
    (rows, inputs), *_ = (dims for dims in operands if len(dims) == 2)
    (experts, _, _), *_ = (dims for dims in (result, *operands) if len(dims) == 3)
    if len(result) == 3:  # the gradient of the matrices, tiles of 64 rows
        return 2.0 * (rows + 64 * experts) * math.prod(result[1:])
    return 2.0 * (rows + min(128, rows_of_a_tile(rows, experts)) * (experts - 1)) * inputs * result[1]


def _dims(types: str) -> tuple[int, ...]:
    """Of a result; of several the first."""
    found = ARRAY.search(types)
    return tuple(int(n) for n in found[2].split(",") if n) if found else ()


def _numbers(rest: str, name: str) -> list[int]:
    found = re.search(rf"{name}=\{{([\d,]*)\}}", rest)
    return [int(n) for n in found[1].split(",") if n] if found else []
