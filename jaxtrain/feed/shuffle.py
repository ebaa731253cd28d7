"""Which row of which source stands where: a keyed permutation, epochs of it, and a mixture of sources.

All of it is index arithmetic on whole arrays: nothing is stored that grows with the data or the step.
Grain's own shuffle is not used: at sizes that are powers of two it spreads rows too evenly to be random.
"""

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from jaxtrain.runtime.errors import UserError

ROUNDS = 6
BLOCK = 4096  # rows; each block of the mixture has every source in its exact proportion
_U64 = 2**64 - 1

Words = TypeVar("Words", int, np.ndarray)
"""64 bits, or a uint64 array of them."""


def key(*parts: str | int) -> int:
    """64 bits that name a stream of randomness, for example `key(seed, "wiki", epoch)`."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def splitmix64(x: Words) -> Words:
    """Mix 64 bits (Steele et al. 2014, "Fast splittable pseudorandom number generators")."""
    x = (x + 0x9E3779B97F4A7C15) & _U64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _U64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _U64
    return x ^ (x >> 31)


class Permutation:
    """A bijection of 0..size-1, chosen by `key`, without a table: `permutation[i]` in constant memory.

    A Feistel network on the smallest number of bits that holds `size`, walked until the value lies below it
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). `i` is an int64 array.
    """

    def __init__(self, size: int, key: int):
        bits = max(4, (size - 1).bit_length())
        self.size = size
        self._widths = (bits // 2, bits - bits // 2)
        self._keys = [splitmix64(key ^ splitmix64(i)) for i in range(ROUNDS)]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        assert not len(indices) or (indices.min() >= 0 and indices.max() < self.size)
        values = self._encrypt(indices.astype(np.uint64))
        while len(outside := np.flatnonzero(values >= self.size)):
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, value: np.ndarray) -> np.ndarray:
        high, low = self._widths
        left, right = value >> low, value & ((1 << low) - 1)
        for i, round_key in enumerate(self._keys):
            width = self._widths[i % 2]  # the halves trade places, and with them their widths
            left, right = right, left ^ (splitmix64(right ^ round_key) & ((1 << width) - 1))
        return left << low | right


class Epochs:
    """The rows of a source again and again without end, each epoch in a new order."""

    def __init__(self, rows: int, seed: int, name: str):
        self._rows, self._seed, self._name = rows, seed, name

    def __getitem__(self, nth: np.ndarray) -> np.ndarray:
        """Of each nth row to be read, which row of the source it is; both int64 [n]."""
        epochs, places = np.divmod(nth, self._rows)
        rows = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = Permutation(self._rows, key(self._seed, self._name, epoch))[places[here]]
        return rows


class Mixture:
    """Which source a row comes from: every block of `BLOCK` rows has each source's share, in random order.

    phases: (first row, weight of each source), ascending from row 0; a source may be absent from some. Each
        source is read in its own order, so it ends an epoch before it begins the next, in whatever phase.
    """

    def __init__(self, phases: Sequence[tuple[int, Mapping[str, float]]], sources: Sequence[str], seed: int):
        assert phases[0][0] == 0 and all(a[0] < b[0] for a, b in zip(phases, phases[1:], strict=False))
        self._firsts = [first for first, _ in phases]
        self._counts = np.array([block_counts(weights, sources) for _, weights in phases])
        self._seed = seed
        self._block = lru_cache(8)(self._arrange)
        # Rows of each source before the phase, less those that the phase's own weights would have given.
        self._offsets = [np.zeros(len(sources), np.int64)]
        for phase, first in enumerate(self._firsts[1:]):
            gained = self._before(phase, first) - self._before(phase + 1, first)
            self._offsets.append(self._offsets[-1] + gained)

    def __getitem__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each row its source, and how many rows of that source come before it; all int64 [n]."""
        sources, nth = np.empty_like(rows), np.empty_like(rows)
        phases = np.searchsorted(self._firsts, rows, side="right") - 1
        blocks, places = np.divmod(rows, BLOCK)
        for phase, block in sorted(set(zip(phases.tolist(), blocks.tolist(), strict=True))):
            here = (phases == phase) & (blocks == block)
            sources[here], inside = (of[places[here]] for of in self._block(phase, block))
            before = self._offsets[phase] + block * self._counts[phase]
            nth[here] = before[sources[here]] + inside
        return sources, nth

    def rows_of_each(self, rows: int) -> np.ndarray:
        """How many of the first `rows` rows come from each source; int64 [sources]."""
        phase = bisect.bisect_right(self._firsts, rows) - 1
        return self._offsets[phase] + self._before(phase, rows)

    def _before(self, phase: int, row: int) -> np.ndarray:
        """Rows of each source before `row`, had the phase's weights always been in force."""
        block, place = divmod(row, BLOCK)
        sources, _ = self._block(phase, block)
        return block * self._counts[phase] + np.bincount(sources[:place], minlength=len(self._counts[phase]))

    def _arrange(self, phase: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of a block its source, and how many rows of that source come before it."""
        order = Permutation(BLOCK, key(self._seed, "mixture", block))[np.arange(BLOCK)]
        counts = self._counts[phase]
        sources = np.repeat(np.arange(len(counts)), counts)[order]
        is_source = sources == np.arange(len(counts))[:, None]
        return sources, np.cumsum(is_source, 1)[sources, np.arange(BLOCK)] - 1


def block_counts(weights: Mapping[str, float], sources: Sequence[str]) -> list[int]:
    """Rows of each source in a block; they sum to `BLOCK`. A source without a weight has none."""
    shares = [weights.get(source, 0.0) for source in sources]
    ends = np.round(np.cumsum(shares) / sum(shares) * BLOCK).astype(int)
    counts = np.diff(ends, prepend=0).tolist()
    for source, share, count in zip(sources, shares, counts, strict=True):
        if share and not count:
            raise UserError(f"mixture: the weight of {source} is below 1 in {BLOCK}; raise it or drop it")
    return counts
