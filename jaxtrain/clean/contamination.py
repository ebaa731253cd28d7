"""Texts that quote a benchmark must not be trained on: a score on what was read before means nothing."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jaxtrain.clean.filter import Filter, Record
from jaxtrain.tasks.overlap import Phrases, read_items

REASON = "benchmark overlap"


class Benchmarks:
    """The phrases of several benchmark files, told apart by their names, or paths where two share a name."""

    def __init__(self, paths: Iterable[str]) -> None:
        paths = list(dict.fromkeys(paths))
        stems = {path: Path(path).name.split(".")[0] for path in paths}
        count = Counter(stems.values())
        items = {path: list(read_items(path)) for path in paths}
        self._phrases = {
            stems[path] if count[stems[path]] == 1 else path: Phrases(found) for path, found in items.items()
        }
        self._all = Phrases(item for found in items.values() for item in found)

    def __len__(self) -> int:
        return len(self._all)

    def find(self, text: str) -> str:
        """The name of the first benchmark that `text` quotes, or an empty string."""
        if self._all.find(text) is None:
            return ""
        return next(name for name, phrases in self._phrases.items() if phrases.find(text) is not None)


@dataclass(frozen=True)
class Quotes(Filter):
    """Drops texts that quote an item of a benchmark."""

    benchmarks: tuple[str, ...]
    """Files of its items: `.jsonl`, `.jsonl.gz` or `.parquet`."""

    def files(self) -> tuple[str, ...]:
        return self.benchmarks

    def judge(self, record: Record) -> str:
        record.detail = load(self.benchmarks).find(record.text)
        return REASON if record.detail else ""


@cache
def load(paths: tuple[str, ...]) -> Benchmarks:
    """The phrases of the files at these paths; UserError where one is missing or malformed."""
    return Benchmarks(paths)
