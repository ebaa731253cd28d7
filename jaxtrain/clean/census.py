"""A census of the records before cleaning and after it, for the report and for `jaxtrain inspect`.

All of it are counts, added up shard by shard in the pass that writes what is kept: no text is read once more
but those of the excerpts, and neither engine nor workers can change a number.

Legend: R records.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from jaxtrain.clean.classifier import Classifier
from jaxtrain.clean.filter import Filter
from jaxtrain.clean.shards import Facts, Filters, signal_names

SHARES = np.linspace(0, 1, 41)
COUNTS = np.array([0.0, *(2.0**n for n in range(21))])
_COUNTED = "words sentences curly_brackets longest_line mean_line_length character_perplexity"
BINS = dict.fromkeys(_COUNTED.split(), COUNTS)
BINS |= {"mean_word_length": np.linspace(0, 20, 41), "stop_words": np.arange(10.0)}
"""Edges of the bins of a signal; of any other `SHARES`. What is beyond the last edge is in the last bin."""
LARGEST, EXCERPT = 5, 200  # clusters that are described; characters of their text
Found = dict[str, Any]


class Census:
    """Counts by source, and what is left after each step."""

    def __init__(self, filters: Filters) -> None:
        """filters: of the sources of documents."""
        self._signals = signal_names(filters)
        known = {step.name: step for of in filters.values() for step in of if isinstance(step, Classifier)}
        self._topics = {name: step.labels() for name, step in known.items() if len(step.labels()) > 2}
        self._steps: list[Found] = []
        self._histograms: dict[str, dict[str, np.ndarray]] = {}
        self._languages: dict[str, Found] = {}
        self._topics_of: dict[str, dict[str, Found]] = {name: {} for name in self._topics}
        self._limits = {source: limits(of) for source, of in filters.items()}

    def step(self, name: str, kinds: Iterable[tuple[Facts, np.ndarray]], collected: bool = False) -> None:
        """Note what stands after a step: of each kind the facts and which rows are left.

        collected: count bytes as they came in, not as they are now.
        """
        left: dict[str, list[int]] = {}
        for facts, left_R in kinds:
            bytes_R = facts.bytes_in_R if collected else facts.bytes_R
            for source in facts.sources:
                own = facts.rows_of(source)
                left[source] = [int(left_R[own].sum()), int(bytes_R[own][left_R[own]].sum())]
        self._steps.append({"step": name, "left": left})

    def count(self, source: str, examined: pa.Table, sizes_R2: np.ndarray, kept_R: np.ndarray) -> None:
        """The records of one shard. sizes_R2: bytes as collected and as cleaned."""
        _tally(self._languages.setdefault(source, {}), examined["language"].to_pylist(), sizes_R2, kept_R)
        for name, labels in self._topics.items():
            columns = [f"score_{name}_{label}" for label in labels]
            if columns[0] in examined.column_names and examined[columns[0]].null_count < len(examined):
                likeliest_R = np.stack([examined[column].to_numpy() for column in columns]).argmax(axis=0)
                topics = [labels[number] for number in likeliest_R.tolist()]
                _tally(self._topics_of[name].setdefault(source, {}), topics, sizes_R2, kept_R)
        if source not in self._limits:  # conversations
            return
        histograms = self._histograms.setdefault(source, {})
        for signal in set(self._signals).intersection(examined.column_names):
            values_R = examined[signal].to_numpy()
            counted = np.stack([_histogram(signal, values_R), _histogram(signal, values_R[kept_R])])
            histograms[signal] = histograms.get(signal, 0) + counted

    def found(self, documents: Facts, conversations: Facts) -> Found:
        """What `census.json` holds."""
        return {
            "steps": self._steps,
            "languages": self._languages,
            "topics": self._topics_of,
            "signals": {
                source: {
                    signal: {"before": both[0].tolist(), "after": both[1].tolist()}
                    for signal, both in histograms.items()
                }
                for source, histograms in self._histograms.items()
                if histograms
            },
            "bins": {signal: BINS.get(signal, SHARES).round(3).tolist() for signal in self._signals},
            "limits": self._limits,
            "copies": [*copies("documents", documents), *copies("conversations", conversations)],
        }


def limits(filters: Iterable[Filter]) -> dict[str, list[float | None]]:
    """Least and largest value of each signal that has a limit; None where one side has none."""
    found = {name: [of.low, of.high] for step in filters for name, of in step.limits().items()}
    return {name: ends for name, ends in found.items() if ends != [None, None]}


def copies(kind: str, facts: Facts) -> list[Found]:
    """Clusters of duplicates: how many there are of each size, the kept record counted, and the largest."""
    found = []
    for reason in ("exact duplicate", "near duplicate"):
        gone = np.flatnonzero(facts.reason_R == reason)
        kept, counts = np.unique(facts.copy_of_R[gone], return_counts=True)
        sizes, clusters = np.unique(counts + 1, return_counts=True)
        largest = kept[np.lexsort((facts.id_R[kept], -counts))[:LARGEST]].tolist()
        about = {"kind": kind, "reason": reason, "copies": len(gone)}
        about["sizes"] = dict(zip(map(str, sizes.tolist()), clusters.tolist(), strict=True))
        about["largest"] = [_described(facts, row, gone[facts.copy_of_R[gone] == row]) for row in largest]
        found += [about] * bool(len(gone))
    return found


def _described(facts: Facts, kept: int, gone: np.ndarray) -> Found:
    """The record that stays of a cluster, its beginning, and the records of the cluster by source."""
    number, place = facts.place(kept)
    text = " ".join(facts.shards[number].examined()["text"][place].as_py().split())
    sources = Counter(facts.shards[facts.place(row)[0]].source for row in (kept, *gone.tolist()))
    return {
        "size": sources.total(),
        "id": f"{facts.id_R[kept]:016x}",
        "source": facts.shards[number].source,
        "sources": dict(sorted(sources.items())),
        "excerpt": text[:EXCERPT] + ("…" if len(text) > EXCERPT else ""),
    }


def _tally(lines: Found, labels: list[str], sizes_R2: np.ndarray, kept_R: np.ndarray) -> None:
    """Add to `[records in, bytes in, records kept, bytes kept]` of each label."""
    for label, (before, after), kept in zip(labels, sizes_R2.tolist(), kept_R.tolist(), strict=True):
        line = lines.setdefault(label, [0, 0, 0, 0])
        for place, value in enumerate((1, before, kept, after * kept)):
            line[place] += value


def _histogram(signal: str, values: np.ndarray) -> np.ndarray:
    """int64 counts of the bins; a value that was not measured is in none."""
    inner = BINS.get(signal, SHARES)[1:-1]
    return np.bincount(inner.searchsorted(values[~np.isnan(values)], "right"), minlength=len(inner) + 1)
