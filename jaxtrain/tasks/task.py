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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain.runtime import distributed
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.environment import Environment, Episode, Reply
from jaxtrain.tasks.graders import Grader

Row = dict[str, Any]
Split = Literal["heldout", "practice"]
DATA = "data/quickstart"
"""The data folder where none is named."""
GRADED_AT_ONCE = 16
"""Answers."""
ENDINGS = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".csv", ".parquet")
"""Of a data file: an object a line; an object whose `examples` are the rows; a table."""


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
    """The model answers in words, and what it wrote is graded."""

    prompt: str
    graders: Mapping[str, Grader]
    """By metric: what the text is worth, between 0 and 1 (`graders.py`)."""
    chat: bool = False
    """The prompt is a user's message in the model's chat template; else the model writes on from it."""
    stops: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    tokens: int = 256
    """Most tokens of an answer."""
    tools: tuple[Callable[..., Any], ...] = ()
    """Functions that the model may call before it answers; a chat then (`environment.described`)."""
    turns: int = 1
    """Most answers, calls of tools among them."""
    seconds: float = 60.0
    """Most time that the tools take together."""
    chance: float = 0.0

    def behind(self, text: str) -> "Exercise":
        return replace(self, prompt=text + self.prompt)

    def grade(self, text: str) -> dict[str, float]:
        return {name: grader(text) for name, grader in self.graders.items()}

    def begin(self) -> Environment:
        """A world in which every answer is the last."""
        return _Asked(self.prompt)


@dataclass(frozen=True)
class _Asked:
    prompt: str

    def start(self) -> str:
        return self.prompt

    def step(self, said: str) -> Reply:
        return Reply(done=True)


Question = Item | Blank | Exercise | Episode


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
class Task:
    """A benchmark: `load` gives its items."""

    name: str
    version: int
    """Raised by one when a change of prompt or grader moves scores."""
    metric: str
    """The number to quote: `accuracy`, `accuracy_per_byte`, `accuracy_unconditional`, or a grade's name."""
    path: str = ""
    """The data file, relative to the data folder; its ending may be any of ENDINGS."""
    practice: str = ""
    """Another like it, of rows that are in no score: what reinforcement learning practises on."""
    make: Callable[[Split], Iterable[Row]] | None = None
    """A program that makes the rows, where no files hold them."""
    parse: Callable[[Row], Question]
    """One row to an item; KeyError, TypeError or ValueError where it does not fit."""
    reward: Mapping[str, float] = field(default_factory=dict)
    """Weights of grades in the reward of practice; empty: `metric` alone."""
    hub: tuple[str, str | None, str] | None = None
    """Repository, config and split of the Hugging Face hub with rows of the same fields."""
    shots: Shots | None = None
    counts: Callable[[], Mapping[str, float]] = dict
    """What its graders counted so far, such as a judge's questions; logged with the grades."""

    @property
    def paths(self) -> dict[str, str]:
        """The task's data files by what they hold."""
        found = {"heldout": self.path, "practice": self.practice}
        return {name: path for name, path in found.items() if path} | (
            {"examples": self.shots.path} if self.shots and self.shots.path else {}
        )

    def file(self, data: str | Path = DATA, which: str = "heldout") -> Path:
        """A file of `paths` in the data folder; UserError where it is missing."""
        path = self.paths[which]
        named = (Path(data) / (bare(path) + ending) for ending in ENDINGS)
        if found := next((file for file in named if file.is_file()), None):
            return found
        hub = f", or `hub`, which fetches {' '.join(filter(None, self.hub))}" if self.hub else ""
        raise UserError(
            f"task {self.name} has no data at {Path(data) / path}; give the data folder that holds {path} "
            f"(data/quickstart in the repository has some){hub}; or leave the task out"
        )

    def rows(self, data: str | Path = DATA, split: Split = "heldout") -> list[Row]:
        """The questions as they stand in the file, in its order."""
        if self.make is not None:
            return list(self.make(split))
        if split not in self.paths:
            raise UserError(
                f"task {self.name} has nothing to practise on; give it a file beside the one that is "
                "measured: Task(practice=...)"
            )
        rows = read_rows(self.file(data, split))
        return rows[self.shots.count :] if self.shots and not self.shots.path else rows

    def load(self, data: str | Path = DATA, most: int | None = None, split: Split = "heldout") -> list[Any]:
        """The items, the first `most`, in the order of the file; UserError names what does not fit."""
        items = []
        before = self._before(data)
        for number, row in enumerate(self.rows(data, split)[:most], 1):
            try:
                item = self.parse(row)
                items.append(item.behind(before(row)) if before else item)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                where = self.name if self.make else self.file(data, split)
                raise UserError(
                    f"{where}, line {number} is no {self.name} item ({type(error).__name__}: {error}); "
                    "mend the line or restore the file"
                ) from error
        if not items:
            raise UserError(f"task {self.name} has no items; give it a file, or a `make`, that has some")
        return items

    def _before(self, data: str | Path) -> Callable[[Row], str] | None:
        """Of a question's row: what stands before it."""
        shots = self.shots
        if shots is None:
            return None
        examples = read_rows(self.file(data, "examples" if shots.path else "heldout"))

        def before(row: Row) -> str:
            alike = examples if not shots.by else [one for one in examples if one[shots.by] == row[shots.by]]
            return shots.heading(row) + "".join(shots.render(one) + "\n\n" for one in alike[: shots.count])

        return before


def bare(path: str) -> str:
    """The path of a data file without its ending."""
    return re.sub(f"({'|'.join(map(re.escape, ENDINGS))})$", "", path)


def read_rows(file: Path) -> list[Row]:
    """The rows of a data file; UserError where it has none, or names the line that is no row."""
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        if file.suffix == ".parquet":
            rows: list[Row] = pq.read_table(pa.BufferReader(raw)).to_pylist()
        else:
            rows = _rows_in(file, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise UserError(f"{file} is damaged ({error}); restore it") from error
    if not rows:
        raise UserError(f"{file} is empty; restore it")
    return rows


def _rows_in(file: Path, text: str) -> list[Row]:
    if file.suffix == ".csv":
        # a cell may hold a document; the limit is of the whole process, whoever set it last
        csv.field_size_limit(2**31 - 1)
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        return list(csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True))
    if ".jsonl" in file.suffixes:
        return [_parse(file, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = _parse(file, 1, text).get("examples")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file} has no list `examples` of objects; restore it")
    return rows


def _parse(file: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file}, line {number} is no item ({error}); mend the line or restore the file"
        ) from error
    return row


def grades(items: Sequence[Exercise], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Grades of an answer to each item by metric, float64 [items]; several are graded at once.

    Of several processes the first alone grades: programs, servers and caches are asked once.
    """
    names = list(items[0].graders)
    found = np.zeros((len(items), len(names)))
    if odd := next((item for item in items if set(item.graders) != set(names)), None):
        raise UserError(f"items of one task have one set of graders: {names} and {list(odd.graders)}")
    if jax.process_index() == 0:
        # most wait: for a process of their own, or for a server
        with ThreadPoolExecutor(GRADED_AT_ONCE) as side_by_side:
            each = side_by_side.map(lambda item, text: item.grade(text), items, texts)
            found = np.array([[grade[name] for name in names] for grade in each])
    return dict(zip(names, distributed.from_first(found).T, strict=True))


def chance(items: Sequence[Question]) -> float:
    """Expected score of a guesser on these items (the questions of a task may differ in choices)."""
    return sum(item.chance for item in items) / len(items)


@cache
def nothing(task: str, error: str) -> float:
    """What an answer is worth that the code of a package raises at; said once of each error."""
    say(f"{task}: an answer at which it raises {error} is worth nothing")
    return 0.0
