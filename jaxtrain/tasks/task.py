"""A task: a data file of benchmark items, the prompt that each becomes, and how it is graded."""

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from jaxtrain.runtime.errors import UserError

Metric = Literal["accuracy", "accuracy_per_byte", "preference_accuracy"]


class Question(Protocol):
    """What every kind of item can tell."""

    @property
    def chance(self) -> float:
        """Expected grade of a guess, between 0 and 1."""


Kind = TypeVar("Kind", bound=Question)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A multiple-choice question: choice i is `contexts[i]` followed by `continuations[i]`.

    A model's answer is the choice whose continuation it finds most likely after its context. Most tasks
    have one context for all choices; where the choices fill a blank, the continuation is the same
    instead. Log-likelihoods are of the continuation alone.
    """

    contexts: tuple[str, ...]
    """What the model reads, one a choice; it never ends in a space."""
    continuations: tuple[str, ...]
    """What is scored, one a choice; it begins with the space that joins it to the context."""
    answer: int
    """Index of the right choice."""
    unconditional: str = "Answer:"
    """The context of no question, for scores relative to how likely a choice is by itself."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.continuations) == len(self.contexts):
            raise ValueError(f"{len(self.contexts)} contexts and {len(self.continuations)} continuations")
        if not 0 <= self.answer < len(self.continuations):
            raise ValueError(f"answer {self.answer} is not one of {len(self.continuations)} choices")

    @property
    def lengths(self) -> tuple[int, ...]:
        """UTF-8 bytes of each choice, without the space before it."""
        return tuple(len(text.removeprefix(" ").encode()) for text in self.continuations)

    @property
    def chance(self) -> float:
        return 1 / len(self.continuations)


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Kind]):
    """A benchmark: `load` gives its items."""

    name: str
    version: int
    """Raised by one when a change of prompt or grader moves scores."""
    metric: Metric
    """The number to quote. `accuracy_per_byte` divides log-likelihoods by the bytes of the choice."""
    path: str
    """A `.jsonl.gz` file, relative to the data folder."""
    parse: Callable[[dict[str, Any]], Kind]
    """One JSON row to an item; KeyError, TypeError or ValueError where it does not fit."""

    def file(self, data: str | Path = "data/quickstart") -> Path:
        """The task's file in the data folder; UserError where it is missing."""
        file = Path(data) / self.path
        if not file.is_file():
            raise UserError(
                f"task {self.name} has no data at {file}; give the data folder that holds {self.path} "
                "(data/quickstart in the repository has it), or leave the task out"
            )
        return file

    def load(self, data: str | Path = "data/quickstart") -> list[Kind]:
        """All items, in the order of the file; UserError names the line that does not fit."""
        file, items = self.file(data), []
        try:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        items.append(self.parse(json.loads(line)))
                    except (KeyError, IndexError, TypeError, ValueError) as error:
                        problem = f"{type(error).__name__}: {error}"
                        raise UserError(
                            f"{file}, line {number} is no {self.name} item ({problem}); "
                            "mend the line or restore the file"
                        ) from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{file} is not a whole gzip file ({error}); restore it") from error
        if not items:
            raise UserError(f"{file} is empty; restore it")
        return items


def chance(items: Sequence[Question]) -> float:
    """Expected score of a guesser on these items (the questions of a task may differ in choices)."""
    return sum(item.chance for item in items) / len(items)
