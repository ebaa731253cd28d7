"""The pipe between a program that nobody has read and the judge of it: plain values, bounded, as JSON.

A message is its length in four bytes, then JSON. What JSON has no word for stands as `[kind, …]`. Nothing
that arrives is run: a value comes out as one of the built-in types, or there is an error.
"""

import json
import os
from typing import Any

LONGEST = 1 << 20
"""Bytes of a message from the program."""
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(TypeError):
    """Of a value that may not cross; its text is the name of the value's type."""


def pack(value: Any) -> Any:
    """A plain value as JSON has it; subclasses go as what they derive from. NotPlain for any other."""
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        # not decimal, which Python limits to 4,300 digits
        return ["int", hex(value)]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    for kind, of in _CONTAINERS.items():
        if isinstance(value, of):
            return [kind, *map(pack, value)]
    if isinstance(value, dict):
        return ["dict", *([pack(key), pack(held)] for key, held in value.items())]
    raise NotPlain(type(value).__name__)


def unpack(value: Any) -> Any:
    """What was packed; ValueError, TypeError or KeyError for anything else."""
    if value is None or type(value) in (bool, str, float):
        return value
    if type(value) is not list:
        raise ValueError("not a packed value")
    kind, *held = value
    if kind == "int":
        return int(held[0], 16)
    if kind == "bytes":
        return bytes.fromhex(held[0])
    if kind == "dict":
        return {unpack(key): unpack(item) for key, item in held}
    return _CONTAINERS[kind](map(unpack, held))


class Pipe:
    """One end: a descriptor to read from and one to write to."""

    def __init__(self, read: int, write: int):
        self._read, self._write = read, write

    def send(self, message: Any) -> None:
        """OSError where the other end is gone."""
        # ASCII: a lone surrogate crosses as it is
        text = json.dumps(message).encode("ascii")
        rest = memoryview(len(text).to_bytes(4, "big") + text)
        while rest:
            self._wait(self._write)
            rest = rest[os.write(self._write, rest) :]

    def receive(self) -> Any:
        """The next message; EOFError where the other end is gone."""
        return json.loads(self._take(int.from_bytes(self._take(4), "big")))

    def _take(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            self._wait(self._read)
            chunk = os.read(self._read, min(count - len(found), 1 << 16))
            if not chunk:
                raise EOFError
            found += chunk
        return bytes(found)

    def _wait(self, descriptor: int) -> None:
        """Until there is something to read, or room to write."""
