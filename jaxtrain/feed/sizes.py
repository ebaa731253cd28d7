"""Batches that grow: how many rows the batch of a step has, and which rows of the stream they are."""

from dataclasses import dataclass

from jaxtrain.runtime.errors import UserError


@dataclass(frozen=True)
class BatchSizes:
    """Rows of the batch of every step. The arrays are as large at every step: empty rows fill them."""

    full: int
    smaller: tuple[tuple[int, int], ...] = ()
    """(steps, rows): the first so many steps have batches of so few rows; both ascend."""

    def __post_init__(self) -> None:
        found = [(0, 0), *self.smaller]
        if any(a[0] >= b[0] or a[1] >= b[1] for a, b in zip(found, found[1:], strict=False)):
            raise UserError(f"batch ramp: steps and rows have to grow from 0 on, not {self.smaller}")
        if found[-1][1] >= self.full:
            raise UserError(f"batch ramp: {found[-1][1]} rows are not less than the full {self.full}")

    def rows(self, step: int) -> int:
        """Of the batch of step `step`, counted from 0."""
        return next((rows for steps, rows in self.smaller if step < steps), self.full)

    def first(self, step: int) -> int:
        """Rows of all batches before it."""
        total = done = 0
        for steps, rows in self.smaller:
            total += (min(step, steps) - done) * rows
            done = min(step, steps)
        return total + (step - done) * self.full
