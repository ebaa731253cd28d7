"""A task: a data file of benchmark items, the prompt that each becomes, and how it is graded.

A task of your own is a file with a `task`; name the file in EvaluateConfig's `tasks`:

    from jaxtrain.tasks.task import Item, Task

    def parse(row):
        return Item(
            contexts=(f"The capital of {row['country']} is",) * len(row["cities"]),
            continuations=tuple(f" {city}" for city in row["cities"]),
            answer=row["answer"],
        )

    task = Task(name="capitals", version=1, metric="accuracy", path="capitals.jsonl", parse=parse)
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.graders import Grader

Row = dict[str, Any]
DATA = "data/quickstart"
"""The data folder where none is named."""
ENDINGS = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".csv", ".parquet")
"""Of a data file: an object a line; an object whose `examples` are the rows; a table."""


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

    def behind(self, text: str) -> "Item":
        """The same question after `text`."""
        return replace(self, contexts=tuple(text + context for context in self.contexts))


@dataclass(frozen=True, kw_only=True)
class Blank:
    """The end of a text is to be foretold: right where every token of it is the model's first guess."""

    context: str
    continuation: str
    """Begins with the space that joins it to the context."""
    chance: float = 0.0

    def behind(self, text: str) -> "Blank":
        return replace(self, context=text + self.context)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """The model writes on from the prompt, and what it wrote is graded."""

    prompt: str
    graders: Mapping[str, Grader]
    """By metric: what the text is worth, between 0 and 1 (`graders.py`)."""
    stops: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    tokens: int = 256
    """Most tokens of an answer."""
    chance: float = 0.0

    def behind(self, text: str) -> "Exercise":
        return replace(self, prompt=text + self.prompt)

    def grade(self, text: str) -> dict[str, float]:
        return {name: grader(text) for name, grader in self.graders.items()}


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Solved examples that stand before every question: the first of a file."""

    count: int
    render: Callable[[Row], str]
    """A row as a question with its answer."""
    path: str = ""
    """The examples' file; without one the first rows of the task's own, which then are no questions."""
    split: str = "train"
    """Of the hub, in the task's repository."""
    by: str = ""
    """A field: the examples are those rows that agree with the question in it."""
    heading: Callable[[Row], str] = lambda row: ""
    """Of a question's row: what stands before the examples."""


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Kind]):
    """A benchmark: `load` gives its items."""

    name: str
    version: int
    """Raised by one when a change of prompt or grader moves scores."""
    metric: str
    """The number to quote: `accuracy`, `accuracy_per_byte`, `accuracy_unconditional`, or a grade's name."""
    path: str
    """The data file, relative to the data folder; its ending may be any of ENDINGS."""
    parse: Callable[[Row], Kind]
    """One row to an item; KeyError, TypeError or ValueError where it does not fit."""
    hub: tuple[str, str | None, str] | None = None
    """Repository, config and split of the Hugging Face hub with rows of the same fields."""
    shots: Shots | None = None

    def files(self, data: str | Path = DATA) -> list[Path]:
        """The task's file in the data folder, and that of its examples where there is one; UserError for one
        that is missing."""
        paths = [self.path, *([self.shots.path] if self.shots and self.shots.path else [])]
        return [self._find(Path(data), path) for path in paths]

    def rows(self, data: str | Path = DATA) -> list[Row]:
        """The questions as they stand in the file, in its order."""
        rows = read_rows(self.files(data)[0])
        return rows[self.shots.count :] if self.shots and not self.shots.path else rows

    def load(self, data: str | Path = DATA, most: int | None = None) -> list[Kind]:
        """The items, the first `most`, in the order of the file; UserError names what does not fit."""
        file, items = self.files(data)[0], []
        before = self._before(data)
        for number, row in enumerate(self.rows(data)[:most], 1):
            try:
                item = self.parse(row)
                items.append(item.behind(before(row)) if before else item)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise UserError(
                    f"{file}, line {number} is no {self.name} item ({type(error).__name__}: {error}); "
                    "mend the line or restore the file"
                ) from error
        return items

    def _before(self, data: str | Path) -> Callable[[Row], str] | None:
        """Of a question's row: what stands before it."""
        shots = self.shots
        if shots is None:
            return None
        examples = read_rows(self.files(data)[-1])

        def before(row: Row) -> str:
            alike = examples if not shots.by else [one for one in examples if one[shots.by] == row[shots.by]]
            return shots.heading(row) + "".join(shots.render(one) + "\n\n" for one in alike[: shots.count])

        return before

    def _find(self, data: Path, path: str) -> Path:
        named = (data / (bare(path) + ending) for ending in ENDINGS)
        if found := next((file for file in named if file.is_file()), None):
            return found
        hub = f"; the hub has it as {' '.join(map(str, self.hub))}" if self.hub else ""
        raise UserError(
            f"task {self.name} has no data at {data / path}{hub}; give the data folder that holds {path} "
            "(data/quickstart in the repository has some), or leave the task out"
        )


def bare(path: str) -> str:
    """The path of a data file without its ending."""
    return re.sub(f"({'|'.join(map(re.escape, ENDINGS))})$", "", path)


def read_rows(file: Path) -> list[Row]:
    """The rows of a data file; UserError names the line that is no row."""
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file).to_pylist()
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = raw.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise UserError(f"{file} is damaged ({error}); restore it") from error
    if file.suffix == ".csv":
        rows: list[Row] = list(csv.DictReader(io.StringIO(text)))
    elif ".jsonl" in file.suffixes:
        rows = [_parse(file, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        rows = _parse(file, 1, text)["examples"]
    if not rows:
        raise UserError(f"{file} is empty; restore it")
    return rows


def _parse(file: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise UserError(
            f"{file}, line {number} is no item ({error}); mend the line or restore the file"
        ) from error
    return row


def chance(items: Sequence[Question]) -> float:
    """Expected score of a guesser on these items (the questions of a task may differ in choices)."""
    return sum(item.chance for item in items) / len(items)
