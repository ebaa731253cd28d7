"""Texts that quote a benchmark must not be trained on: a score on what was read before means nothing."""

from collections.abc import Iterable
from itertools import chain

from jaxtrain.tasks.overlap import Phrases, read_items

REASON = "benchmark overlap"


def load(benchmarks: Iterable[str]) -> Phrases:
    """The phrases of the benchmark files at these paths; UserError where one is missing or malformed."""
    return Phrases(chain.from_iterable(read_items(path) for path in benchmarks))
