"""Texts that quote a benchmark must not be trained on: a score on what was read before means nothing."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jaxtrain.tasks.overlap import Phrases, read_items

REASON = "benchmark overlap"


class Benchmarks:
    """The phrases of several benchmark files, told apart by the names of the files."""

    def __init__(self, paths: Iterable[str]) -> None:
        named = {Path(path).name.split(".")[0]: path for path in paths}
        self._phrases = {name: Phrases(read_items(path)) for name, path in named.items()}
        self._all = Phrases(item for path in named.values() for item in read_items(path))

    def __len__(self) -> int:
        return len(self._all)

    def find(self, text: str) -> str:
        """The name of the first benchmark that `text` quotes, or an empty string."""
        if self._all.find(text) is None:
            return ""
        return next(name for name, phrases in self._phrases.items() if phrases.find(text) is not None)


@cache
def load(paths: tuple[str, ...]) -> Benchmarks:
    """The phrases of the files at these paths; UserError where one is missing or malformed."""
    return Benchmarks(paths)
