"""What travels between devices in one step, read from the compiled program."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxtrain.plan import hlo
from jaxtrain.plan.hlo import ARRAY

KINDS = (
    *("all-gather", "all-reduce", "reduce-scatter", "ragged-all-to-all", "all-to-all"),
    "collective-permute",
)
WIDTHS = {"pred": 1, "bf16": 2, "f16": 2, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}

COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All collectives of one kind over one set of mesh axes, in a step."""

    kind: str
    axes: tuple[str, ...]
    """Empty where the program names groups that are no lines of the mesh."""
    devices: int
    """That take part in one."""
    count: int
    size: int
    """Bytes of the whole arrays (gathered, or before they are scattered), summed over all times."""

    @property
    def sent(self) -> int:
        """Bytes that a device sends in a ring: size · (n − 1) / n, all-reduce twice that, a permute size."""
        if self.kind == "collective-permute":
            return self.size
        turns = 2 if self.kind == "all-reduce" else 1
        return round(self.size * turns * (self.devices - 1) / self.devices)


def read(text: str, mesh: dict[str, int]) -> list[Traffic]:
    """Traffic of a program by kind and axes, the largest first. mesh: devices along each axis, in order.

    A loop's body counts as often as its condition says. XLA for TPUs shows an asynchronous collective
    several times, on its start, on its end and in what it is fused with: its channel counts once a loop.
    A ragged exchange counts by the smaller side, room for one device's rows and not for all that may come.
    """
    computations, of_tpu = hlo.computations(text), ":T(" in text  # arrays in tiles
    times = _times(computations)
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    seen = set()
    for name, lines in computations.items():
        loop, often = times.get(name, (name, 0))
        for line in lines if often else ():
            found = COLLECTIVE.search(line)
            if not found:
                continue
            channel = re.search(r"channel_id=(\d+)", line)
            key = (loop, channel[1] if channel and of_tpu else line)
            if key in seen:
                continue
            seen.add(key)
            group = _group(line, math.prod(mesh.values()))
            size = _size(found[1], started=found[3] is not None)
            size *= len(group) if found[2] == "reduce-scatter" else 1
            if found[2] == "ragged-all-to-all":
                size = min(size, _array(*ARRAY.findall(found[1])[0]))
            across = found[2] == "collective-permute"  # a pair may lie along no line of the mesh
            if len(group) > 1 or across:
                entry = sums[found[2], axes_of(group, mesh, across=across), len(group)]
                entry[0] += often
                entry[1] += often * size
    traffic = [
        Traffic(kind=kind, axes=axes, devices=n, count=count, size=size)
        for (kind, axes, n), (count, size) in sums.items()
    ]
    return sorted(traffic, key=lambda one: -one.sent)


def axes_of(group: Iterable[int], mesh: dict[str, int], across: bool = False) -> tuple[str, ...]:
    """The mesh axes along which the places of `group` differ, if they are all places along those.

    across: a few of those places will do.
    """
    shape = tuple(mesh.values())
    group = np.array(list(group))
    places = np.stack(np.unravel_index(group, shape), axis=1)
    varies = [len(set(column)) for column in places.T]
    names = tuple(name for name, n in zip(mesh, varies, strict=True) if n > 1)
    return names if across or math.prod(varies) == len(group) else ()


def _times(computations: dict[str, list[str]]) -> dict[str, tuple[str, int]]:
    """Of each computation that is reached: the loop body it is part of, and how often that runs."""
    entry = next(name for name in computations if name.startswith("ENTRY "))
    found = {entry: (entry, 1)}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        loop, often = found[name]
        for line in computations[name]:
            for how, called in hlo.calls(line, computations):
                inner = how in ("body", "branch")
                turns = hlo.trips(line, computations) if how == "body" else 1
                if called not in found:
                    found[called] = (called if inner else loop, often * turns)
                    waiting.append(called)
    return found


def _size(types: str, started: bool) -> int:
    """Bytes of a result. Of a started collective (operands, results, …) the results alone."""
    arrays = [_array(kind, dims) for kind, dims in ARRAY.findall(types)]
    if not started or not types.startswith("("):
        return sum(arrays)
    if not types.startswith("(("):
        return arrays[1] if len(arrays) > 1 else arrays[0]
    return sum(_array(*one) for one in ARRAY.findall(types.split("), ")[-1]))


def _array(kind: str, dims: str) -> int:
    bits = re.search(r"\d+", kind)
    width = WIDTHS.get(kind) or (max(1, int(bits[0]) // 8) if bits else 1)
    return width * math.prod(int(n) for n in dims.split(",") if n)


def _group(line: str, devices: int) -> list[int]:
    """Places in the mesh of the first devices that take part together."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", line):  # some devices may keep what they have
        sent = [[int(n) for n in pair] for pair in re.findall(r"(\d+),(\d+)", pairs[1])]
        return next((pair for pair in sent if pair[0] != pair[1]), sent[0])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return [int(n) for n in listed[1].split(",")]
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, dims = ([int(n) for n in part.split(",")] for part in iota.group(1, 2))
        order = [int(n) for n in iota[3].split(",")] if iota[3] else list(range(len(dims)))
        return np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)[0].tolist()
    if named := re.search(
        r"replica_groups=mesh\[(.*?)\](?:<=\[([\d,]+)\](?:T\(([\d,]+)\))?)? \{(.*?)\}", line
    ):
        return _named(named[1], named[2], named[3], named[4])
    return list(range(devices))  # no groups are named: all


def _named(axes: str, dims: str | None, turned: str | None, group: str) -> list[int]:
    """`mesh['a'=4,'b'=2] {'a'}`: the places along `a` where the other axes are at their first."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes)}
    places = np.arange(math.prod(sizes.values()))
    if dims:
        order = [int(n) for n in turned.split(",")] if turned else None
        places = places.reshape([int(n) for n in dims.split(",")]).transpose(order)
    places = places.reshape(tuple(sizes.values()))
    whole = [name for name, part in re.findall(r"'([^']+)'(:\(\d+\)\d+)?", group) if not part]
    parts = re.findall(r"'([^']+)':\((\d+)\)(\d+)", group)  # 'a':(before)size is a part of an axis
    for at, name in enumerate(sizes):
        keep = np.arange(sizes[name]) if name in whole else np.zeros(1, int)
        for part, before, size in parts:
            if part == name:
                step = sizes[name] // int(before) // int(size)
                keep = np.arange(int(size)) * step
        places = np.take(places, keep, axis=at)
    return places.ravel().tolist()
