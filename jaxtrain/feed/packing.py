"""Plans of packing: which pieces of which records make each row of T tokens.

A plan is computed from the records' lengths alone, so row n can be read without reading the rows before it.
Neither plan crops: every token is in exactly one row (best-fit: Ding et al. 2024, arXiv 2404.10830).
"""

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
        begin, end = self._bounds[row : row + 2]
        return [(r, a, b) for r, a, b in self.pieces[begin:end].tolist()]

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of these rows, one row behind the other: int64 [n, 3], and n of each row.

        A row behind the last has no pieces.
        """
        begins = self._bounds[np.minimum(rows, len(self))]
        counts = self._bounds[np.minimum(rows + 1, len(self))] - begins
        return self.pieces[ranges(begins, counts)], counts

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.concatenate([[0], self.row_ends])

    @property
    def placed(self) -> int:
        """Tokens that are in a row."""
        return int((self.pieces[:, 2] - self.pieces[:, 1]).sum())

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

    Records longer than `length` are cut into pieces of `length` and a rest. Among rows with equal room, the
    one that has waited longest. All pieces of one size are placed together, so the steps in Python grow
    with `length` and not with the number of records.
    """
    lengths = np.asarray(lengths, np.int64)
    pieces = _cut(lengths, length)
    sizes = pieces[:, 2] - pieces[:, 1]
    order = np.argsort(-sizes, kind="stable")
    row_of = np.zeros(len(pieces), np.int64)
    waiting = _Waiting()
    rows = 0
    for equal in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1) if len(pieces) else []:
        size = int(sizes[equal[0]])
        while len(equal):
            room = waiting.smallest(size)
            if room is None:
                room = length
                each = room // size
                chosen = np.arange(rows, rows + -(-len(equal) // each))
                rows += len(chosen)
            else:
                each = room // size  # its first piece makes a row the fullest that has room for the next
                chosen = waiting.take(room, -(-len(equal) // each))
            placed = min(len(equal), each * len(chosen))
            row_of[equal[:placed]] = np.repeat(chosen, each)[:placed]
            in_last = placed - each * (len(chosen) - 1)
            waiting.add(room - each * size, chosen[:-1])
            waiting.add(room - in_last * size, chosen[-1:])
            equal = equal[placed:]
    by_row = order[np.argsort(row_of[order], kind="stable")]
    row_ends = np.cumsum(np.bincount(row_of, minlength=rows)) if rows else np.zeros(0, np.int64)
    return Plan(pieces[by_row], row_ends, length, int(lengths.sum()))


class _Waiting:
    """Rows with room left: by room, first come first served."""

    def __init__(self) -> None:
        self._rows: dict[int, deque[np.ndarray]] = {}
        self._rooms: list[int] = []  # those with a row waiting, ascending

    def smallest(self, size: int) -> int | None:
        """The least room that holds `size`."""
        at = bisect.bisect_left(self._rooms, size)
        return self._rooms[at] if at < len(self._rooms) else None

    def add(self, room: int, rows: np.ndarray) -> None:
        if not room or not len(rows):
            return
        if room not in self._rows:
            self._rows[room] = deque()
            bisect.insort(self._rooms, room)
        self._rows[room].append(rows)

    def take(self, room: int, most: int) -> np.ndarray:
        """The first `most` rows with exactly this room, or all there are."""
        queue, taken = self._rows[room], []
        while queue and most:
            rows = queue.popleft()
            if len(rows) > most:
                queue.appendleft(rows[most:])
                rows = rows[:most]
            taken.append(rows)
            most -= len(rows)
        if not queue:
            del self._rows[room]
            self._rooms.remove(room)
        return np.concatenate(taken)


def ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """begins[0], begins[0] + 1, … (counts[0] numbers), then those from begins[1], and so on."""
    return np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)


def _cut(lengths: np.ndarray, length: int) -> np.ndarray:
    """Pieces of at most `length` of every record that has tokens: int64 [pieces, 3]."""
    counts = -(-lengths // length)
    records = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(records)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = nth * length
    return np.stack([records, starts, np.minimum(starts + length, lengths[records])], 1)
