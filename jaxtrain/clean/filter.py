"""What clean does to one record by itself: a list of filters, one after the other.

A filter is a frozen dataclass. It may change the text of a record, measure signals on it, and drop it for a
reason; a field made by `limit` is the least and the largest value of the signal of its name. A class of your
own in the config file works like those of this room:

    @dataclass(frozen=True)
    class Shouting(Filter):
        capitals: Range = limit("too many capitals", high=0.3)

        def measure(self, record: Record) -> dict[str, float | None]:
            return {"capitals": sum(map(str.isupper, record.text)) / max(len(record.text), 1)}

A finished artifact is known by the names and fields of its filters, not by their code: give a class of your
own a field that you change with the code.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtrain.clean.signals import Words
from jaxtrain.conversation import map_texts, transcript, with_arguments, without_nulls
from jaxtrain.runtime.errors import UserError

Row = dict[str, Any]
Range = tuple[float | None, float | None]
"""The least and the largest value that stay; None where there is no limit."""


@dataclass(frozen=True)
class Limit:
    """What becomes of a record whose signal is outside a range."""

    low: float | None
    high: float | None
    below: str
    """The reason to drop a record that has less."""
    above: str
    """The reason to drop a record that has more."""

    def broken(self, value: float | None) -> str:
        """The reason to drop; empty where the value is in the range or was not measured."""
        if value is None:
            return ""
        if self.low is not None and value < self.low:
            return self.below
        return self.above if self.high is not None and value > self.high else ""


def limit(reason: str, low: float | None = None, high: float | None = None, above: str = "") -> Any:
    """A field of a filter: the range of the signal of its name. `above`: the reason where it is another."""
    return field(default=(low, high), metadata={"below": reason, "above": above or reason})


class Record:
    """A document or a conversation on its way through the filters."""

    def __init__(self, row: Row) -> None:
        self.row = row
        """As collected: `url`, `license` and what else its source gave."""
        self.messages = None if row.get("messages") is None else without_nulls(row["messages"])
        """Of a conversation; None of a document."""
        self.language: str = row.get("language") or ""
        """ISO 639 code, or the programming language; empty where it is not known."""
        self.signals: dict[str, float | None] = {}
        """What the filters measured; None where it cannot be told of this text."""
        self.replaced: Counter[str] = Counter()
        """Personal data by kind."""
        self.reason = ""
        """Why it is dropped; empty where it stays."""
        self.detail = ""
        """What the reason is about, such as the benchmark that is quoted."""
        self._text: str | None = row["text"] if self.messages is None else None
        self._words: Words | None = None

    @property
    def keep(self) -> bool:
        return not self.reason

    @property
    def text(self) -> str:
        """The text as it is now; of a conversation its transcript."""
        if self._text is None:
            self._text = transcript(self.messages or [])
        return self._text

    @property
    def said(self) -> str:
        """The text without roles, tool calls and what tools answer."""
        if self.messages is None:
            return self.text
        return "\n".join(message["content"] for message in self.messages if message["role"] != "tool")

    @property
    def words(self) -> Words:
        """The text split into words, once for all filters."""
        if self._words is None or self._words.language != self.language:
            self._words = Words(self.text, self.language)
        return self._words

    def edit(self, change: Callable[[str], str], arguments: bool = False) -> None:
        """`change` of the text, or of what each message says; of the arguments of tool calls if asked for."""
        self._words = None
        if self.messages is None:
            self._text = change(self.text)
            return
        if arguments:
            self.messages = with_arguments(
                self.messages,
                lambda found: json.dumps(map_texts(json.loads(found), change), ensure_ascii=False),
            )
        self.messages = [{**message, "content": change(message["content"])} for message in self.messages]
        self._text = None


@dataclass(frozen=True)
class Filter:
    """One step of cleaning. A class of its own gives those methods that it needs."""

    def files(self) -> tuple[str, ...]:
        """Files and folders that the filter reads: they are inputs of the artifact."""
        return ()

    def limits(self) -> Mapping[str, Limit]:
        """By signal; in the order in which they are looked at."""
        limited = [item for item in fields(self) if "below" in item.metadata]
        return {item.name: Limit(*getattr(self, item.name), **item.metadata) for item in limited}

    def signals(self) -> tuple[str, ...]:
        """Names of what `measure` gives: columns of the artifact."""
        return tuple(self.limits())

    def change(self, record: Record) -> None:
        """Edit the record before it is measured."""

    def measure(self, record: Record) -> Mapping[str, float | None]:
        """The signals of the record as it is now."""
        return {}

    def judge(self, record: Record) -> str:
        """The reason to drop the record, or an empty string."""
        found = (limit.broken(record.signals.get(name)) for name, limit in self._limits.items())
        return next(filter(None, found), "")

    @cached_property
    def _limits(self) -> Mapping[str, Limit]:
        return self.limits()


def examine(row: Row, filters: Iterable[Filter]) -> Record:
    """The record behind all filters, with the first reason to drop it. Signals are measured in any case."""
    record = Record(row)
    for step in filters:
        step.change(record)
        record.signals.update(step.measure(record))
        record.reason = record.reason or step.judge(record) or ("" if record.text else "empty")
    return record


def judge(text: str, *filters: Filter, language: str = "") -> Record:
    """Pass one text through filters: clean, measure, and keep it or say why not."""
    return examine({"text": text, "language": language, "url": "", "license": ""}, filters)


def read_texts(filter: str, paths: Iterable[str]) -> Iterator[str]:
    """The texts of files, and of folders those of their files; UserError where one cannot be read."""
    for path in map(Path, paths):
        for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
            try:
                yield file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{filter}: {file} cannot be read ({error}); mend its path") from error
