"""Plans of packing: which pieces of which records make each row of T tokens.

A plan is computed from the records' lengths alone, so row n can be read without reading the rows before it.
Neither plan crops: every token is in exactly one row (best-fit: Ding et al. 2024, arXiv 2404.10830).
"""

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Piece = tuple[int, int, int]
"""record, start, stop: the tokens start..stop-1 of a record."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Rows of pieces; `plan[n]` is the list of pieces of row n, in order."""

    pieces: np.ndarray
    """int64 [pieces, 3]: record, start, stop."""
    row_ends: np.ndarray
    """int64 [rows]: row n is pieces[row_ends[n - 1]:row_ends[n]]."""
    length: int
    """Tokens a row has room for, T."""
    tokens: int
    """Tokens of all records."""

    def __len__(self) -> int:
        return len(self.row_ends)

    def __getitem__(self, row: int) -> list[Piece]:
        begin = self.row_ends[row - 1] if row else 0
        return [(r, a, b) for r, a, b in self.pieces[begin : self.row_ends[row]].tolist()]

    @property
    def placed(self) -> int:
        """Tokens that are in a row."""
        return int((self.pieces[:, 2] - self.pieces[:, 1]).sum())

    @property
    def share_cropped(self) -> float:
        """Share of the records' tokens that are in no row."""
        return 1 - self.placed / self.tokens if self.tokens else 0.0

    @property
    def share_padded(self) -> float:
        """Share of the rows' room that is left empty."""
        return 1 - self.placed / (len(self) * self.length) if len(self) else 0.0


def concat_and_split(lengths: Sequence[int] | np.ndarray, length: int) -> Plan:
    """All records end to end, cut every `length` tokens; only the last row has padding."""
    lengths = np.asarray(lengths, np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.union1d(ends, np.append(np.arange(length, total, length), total))  # where a piece ends
    cuts = cuts[cuts > 0]
    records = np.searchsorted(ends, cuts, side="left")
    begins = np.concatenate([[0], cuts[:-1]]) - (ends - lengths)[records] if len(cuts) else cuts
    stops = cuts - (ends - lengths)[records] if len(cuts) else cuts
    row_of = (cuts - 1) // length
    row_ends = np.flatnonzero(np.diff(row_of, append=-1)) + 1
    return Plan(np.stack([records, begins, stops], 1), row_ends, length, total)


def best_fit(lengths: Sequence[int] | np.ndarray, length: int) -> Plan:
    """The longest piece first, each into the fullest row that has room; every row starts with a whole piece.

    Records longer than `length` are cut into pieces of `length` and a rest. Ties go to the older row.
    O(n log n): rows with equal room wait in a queue; the rooms in use are a sorted list of at most `length`.
    """
    lengths = np.asarray(lengths, np.int64)
    pieces = _cut(lengths, length)
    sizes = pieces[:, 2] - pieces[:, 1]
    order = np.argsort(-sizes, kind="stable")
    row_of = np.zeros(len(pieces), np.int64)
    waiting: list[deque[int]] = [deque() for _ in range(length + 1)]  # by room left
    rooms: list[int] = []  # those with a row waiting, ascending
    rows = 0
    for piece, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        at = bisect.bisect_left(rooms, size)
        if at == len(rooms):
            row, room = rows, length
            rows += 1
        else:
            room = rooms[at]
            row = waiting[room].popleft()
            if not waiting[room]:
                rooms.pop(at)
        row_of[piece] = row
        if left := room - size:
            if not waiting[left]:
                bisect.insort(rooms, left)
            waiting[left].append(row)
    by_row = order[np.argsort(row_of[order], kind="stable")]
    row_ends = np.cumsum(np.bincount(row_of, minlength=rows)) if rows else np.zeros(0, np.int64)
    return Plan(pieces[by_row], row_ends, length, int(lengths.sum()))


def _cut(lengths: np.ndarray, length: int) -> np.ndarray:
    """Pieces of at most `length` of every record that has tokens: int64 [pieces, 3]."""
    counts = -(-lengths // length)
    records = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(records)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = nth * length
    return np.stack([records, starts, np.minimum(starts + length, lengths[records])], 1)
