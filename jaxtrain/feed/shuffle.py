"""A keyed permutation of any size, and the two datasets made of it: epochs of rows, a mixture of sources.

Grain's own shuffle is not used: at sizes that are powers of two it spreads rows too evenly to be random.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import grain
import numpy as np

from jaxtrain.runtime.errors import UserError

ROUNDS = 6
BLOCK = 4096  # rows; each block of the mixture has every source in its exact proportion
ENDLESS = 2**53  # rows; Grain divides lengths as floats, which are exact up to here
_U64 = 2**64 - 1


def key(*parts: str | int) -> int:
    """64 bits that name a stream of randomness, for example `key(seed, "wiki", epoch)`."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def splitmix64(x: int) -> int:
    """Mix 64 bits (Steele et al. 2014, "Fast splittable pseudorandom number generators")."""
    x = (x + 0x9E3779B97F4A7C15) & _U64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _U64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _U64
    return x ^ (x >> 31)


class Permutation:
    """A bijection of 0..size-1, chosen by `key`, without a table: `permutation[i]` in constant memory.

    A Feistel network on the smallest number of bits that holds `size`, walked until the value lies below it
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    def __init__(self, size: int, key: int):
        bits = max(4, (size - 1).bit_length())
        self.size = size
        self._widths = (bits // 2, bits - bits // 2)
        self._keys = [splitmix64(key ^ splitmix64(i)) for i in range(ROUNDS)]

    def __getitem__(self, index: int) -> int:
        assert 0 <= index < self.size
        index = self._encrypt(index)
        while index >= self.size:
            index = self._encrypt(index)
        return index

    def _encrypt(self, value: int) -> int:
        high, low = self._widths
        left, right = value >> low, value & ((1 << low) - 1)
        for i, round_key in enumerate(self._keys):
            width = self._widths[i % 2]  # the halves trade places, and with them their widths
            left, right = right, left ^ (splitmix64(right ^ round_key) & ((1 << width) - 1))
        return left << low | right


class Epochs(grain.MapDataset):
    """The parent's rows again and again without end, each epoch in a new order."""

    def __init__(self, parent: grain.MapDataset, seed: int, name: str):
        super().__init__(parent)
        self._size = len(parent)
        self._order = lru_cache(2)(lambda epoch: Permutation(self._size, key(seed, name, epoch)))

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, at = divmod(index, self._size)
        return self._parent[self._order(epoch)[at]]


class Mixture(grain.MapDataset):
    """Rows of endless parents: every block of `BLOCK` rows has each parent's share, sources in random order.

    Each parent is read in its own order, so a source ends an epoch before it begins the next.
    """

    def __init__(self, parents: Sequence[grain.MapDataset], weights: dict[str, float], seed: int):
        super().__init__(parents)
        self._counts = np.array(block_counts(weights))
        self._seed = seed
        self._block = lru_cache(4)(self._arrange)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        block, at = divmod(index, BLOCK)
        sources, nth = self._block(block)
        source = int(sources[at])
        return self.parents[source][block * int(self._counts[source]) + int(nth[at])]

    def _arrange(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of a block its source, and how many rows of that source come before it."""
        order = Permutation(BLOCK, key(self._seed, "mixture", block))
        sources = np.repeat(np.arange(len(self._counts)), self._counts)[[order[i] for i in range(BLOCK)]]
        is_source = sources == np.arange(len(self._counts))[:, None]
        return sources, np.cumsum(is_source, 1)[sources, np.arange(BLOCK)] - 1


def block_counts(weights: dict[str, float]) -> list[int]:
    """Rows of each source in a block; they sum to `BLOCK`."""
    total = sum(weights.values())
    ends = np.round(np.cumsum(list(weights.values())) / total * BLOCK).astype(int)
    counts = np.diff(ends, prepend=0).tolist()
    for source, count in zip(weights, counts, strict=True):
        if not count:
            raise UserError(
                f"mixture.json: the weight of {source} is below 1 in {BLOCK}; raise it or drop the source"
            )
    return counts
