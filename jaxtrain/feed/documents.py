"""The documents of a run: packed in rows, mixed by weight, in batches that may grow, counted beforehand."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxtrain.feed import rows
from jaxtrain.feed.packing import best_fit, concat_and_split
from jaxtrain.feed.rows import Packed
from jaxtrain.feed.shuffle import Epochs, Mixture
from jaxtrain.feed.sources import TokenData
from jaxtrain.runtime.errors import UserError

Packing = Literal["best_fit", "concat_and_split"]
PACKINGS = {"best_fit": best_fit, "concat_and_split": concat_and_split}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Proportions of the sources from a step on."""

    step: int
    """First step that has them, above 0."""
    weights: dict[str, float]
    """Weight of each source, in any scale; a source that is not named has none."""


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
        return next((size for steps, size in self.smaller if step < steps), self.full)

    def first(self, step: int) -> int:
        """Rows of all batches before it."""
        total = done = 0
        for steps, size in self.smaller:
            total += (min(step, steps) - done) * size
            done = min(step, steps)
        return total + (step - done) * self.full


@dataclass(frozen=True)
class Need:
    """What a run takes of one source."""

    tokens: int
    """Tokens there, `<|bos|>` and `<|eos|>` included."""
    epochs: float
    """How often the run reads the source."""
    share_padded: float
    """Share of its rows' room that is left empty."""
    share_headless: float
    """Share of its tokens that stand in a row without their document's beginning, which was too long."""

    @property
    def needed(self) -> int:
        """Tokens that the run trains on."""
        return round(self.tokens * self.epochs)

    def __str__(self) -> str:
        return (
            f"{self.tokens:>14,} tokens, {self.needed:>14,} needed: {self.epochs:.2f} epochs; "
            f"padded {self.share_padded:.1%}, without their document's beginning {self.share_headless:.1%}"
        )


@dataclass(frozen=True)
class Documents:
    """The document sources of a tokenize artifact as one endless stream of rows."""

    data: TokenData
    length: int
    """Tokens a row, T."""
    sources: list[str]
    packed: list[Packed]
    epochs: list[Epochs]
    mixture: Mixture
    sizes: BatchSizes

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        batch_size: int,
        length: int,
        seed: int,
        packing: Packing = "best_fit",
        curriculum: Sequence[Phase] = (),
        smaller: tuple[tuple[int, int], ...] = (),
    ) -> "Documents":
        """batch_size: rows of the global batch. length: T, tokens a row. curriculum: proportions that take
        over from those of `mixture.json`. smaller: (steps, rows) of a ramp, as `BatchSizes` has them.

        Errors: UserError where a source with a weight has no tokens, or a phase is not as it has to be.
        """
        data = TokenData.open(folder)
        sizes = BatchSizes(batch_size, smaller)
        phases = [(0, data.mixture)] + [(sizes.first(phase.step), phase.weights) for phase in curriculum]
        _check(phases, data)
        sources = list(data.mixture)
        sources += sorted({name for _, weights in phases for name in weights} - set(sources))
        packed = []
        for source in sources:
            records = data.documents(source)
            if not len(records):
                empty = f"{data.folder}: source {source!r} has a weight in the mixture but no tokens"
                raise UserError(f"{empty}; collect some of it or take it out of the mixture")
            plan = PACKINGS[packing](records.lengths + 2, length)
            packed.append(Packed(plan, rows.documents(records, data.tokenizer)))
        epochs = [Epochs(len(p.plan), seed, name) for p, name in zip(packed, sources, strict=True)]
        return cls(data, length, sources, packed, epochs, Mixture(phases, sources, seed), sizes)

    def draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of the stream its source and its row in the source's plan; all int64 [n]."""
        sources, nth = self.mixture[numbers]
        row_of = np.empty_like(nth)
        for source in np.unique(sources).tolist():
            here = sources == source
            row_of[here] = self.epochs[source][nth[here]]
        return sources, row_of

    def records(self, step: int) -> list[dict[str, str | int]]:
        """What the batch of a step is made of: row, source, record and the part of it, piece by piece."""
        found: list[dict[str, str | int]] = []
        numbers = np.arange(self.sizes.first(step), self.sizes.first(step + 1))
        for row, (source, place) in enumerate(zip(*self.draw(numbers), strict=True)):
            for record, start, stop in self.packed[source].plan[int(place)]:
                of = {"row": row, "source": self.sources[source], "record": record}
                found.append({**of, "start": start, "stop": stop})
        return found

    def needs(self, steps: int, max_epochs: float) -> dict[str, Need]:
        """What `steps` steps take of each source.

        Errors: UserError where a source would be read more than `max_epochs` times: beyond four, repeats are
        worth ever less than new text (Muennighoff et al. 2023, arXiv 2305.16264).
        """
        drawn = self._drawn(steps)
        found = {}
        for source, packed, count in zip(self.sources, self.packed, drawn.tolist(), strict=True):
            plan = packed.plan
            headless = plan.pieces[plan.pieces[:, 1] > 0]
            share = float((headless[:, 2] - headless[:, 1]).sum() / plan.tokens)
            found[source] = Need(plan.tokens, count / len(plan), plan.share_padded, share)
        most = np.array([max_epochs * len(packed.plan) for packed in self.packed])
        if np.any(drawn > most):
            source, need = max(found.items(), key=lambda item: item[1].epochs)
            is_beyond = lambda n: bool(np.any(self._drawn(n + 1) > most))  # noqa: E731
            enough = bisect.bisect_left(range(steps), True, key=is_beyond)
            raise UserError(
                f"{steps} steps read {source} {need.epochs:.1f} times ({need.needed:,} tokens of "
                f"{need.tokens:,}); take at most {enough} steps, collect more, lower its weight in the "
                f"mixture, or raise max_epochs = {max_epochs:g}"
            )
        return found

    def _drawn(self, steps: int) -> np.ndarray:
        """Rows of each source in the first `steps` steps; int64 [sources]."""
        return self.mixture.rows_of_each(self.sizes.first(steps))


def _check(phases: Sequence[tuple[int, Mapping[str, float]]], data: TokenData) -> None:
    firsts = [first for first, _ in phases]
    if sorted(set(firsts)) != firsts:
        raise UserError("curriculum: every phase needs a step above 0 and above that of the phase before it")
    for first, weights in phases:
        where = "curriculum" if first else f"{data.folder}/mixture.json"
        if unknown := sorted(set(weights) - set(data.names("documents"))):
            there = ", ".join(data.names("documents"))
            raise UserError(f"{where}: no documents of {', '.join(unknown)} are there, but of: {there}")
        if min(weights.values(), default=0) < 0 or not sum(weights.values()) > 0:
            raise UserError(f"{where}: weights must not be negative, and at least one must be above 0")
