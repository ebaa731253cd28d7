"""Which ids stand in each row of the cache, so that a prompt that begins alike need not be read again.

R rows, S slots
"""

from collections.abc import Collection, Sequence

import numpy as np


class Prefixes:
    """What rows hold. It stays when a request ends, until another request takes the row."""

    def __init__(self, rows: int, length: int):
        self._ids_RS = np.zeros((rows, length), np.int32)
        self._count_R = np.zeros(rows, np.int32)
        self._turn_R = np.zeros(rows, np.int64)
        self._turns = 0

    def begin(self, row: int, prompt: Sequence[int]) -> None:
        """The row holds a prompt but for its last token, which is yet to be taken."""
        self._ids_RS[row, : len(prompt)] = prompt
        self._count_R[row] = len(prompt) - 1
        self.touch(row)

    def add(self, row: int, token: int) -> None:
        """A token was sampled, so the one before it is in the row now."""
        self._count_R[row] += 1
        if self._count_R[row] < self._ids_RS.shape[1]:
            self._ids_RS[row, self._count_R[row]] = token

    def touch(self, row: int) -> None:
        self._turns += 1
        self._turn_R[row] = self._turns

    def longest(self, prompt: Sequence[int]) -> tuple[int, int]:
        """The row that holds the most of a prompt's beginning, and how many tokens that is.

        Never the whole prompt: its last token has to be taken for the first of the answer.
        """
        wanted = np.asarray(prompt[:-1], np.int32)
        same_RS = self._ids_RS[:, : len(wanted)] == wanted
        counts = np.minimum(np.logical_and.accumulate(same_RS, axis=1).sum(axis=1), self._count_R)
        row = int(counts.argmax())
        return row, int(counts[row])

    def least(self, rows: Collection[int], source: int, shared: int) -> int:
        """Of `rows`, the one to lose: `source` where a prompt goes on with all of it, else the oldest."""
        if source in rows and 0 < shared == self._count_R[source]:
            return source
        return min(rows, key=lambda row: self._turn_R[row])
