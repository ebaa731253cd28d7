"""Passages that stood before, runs of so many words or more, cut out of texts.

Lee et al. 2022 (arXiv 2107.06499) find repeated runs with a suffix array; here every run of n words has a
64-bit key, and a key that is seen again is a repeat. The first place, in the order in which copies
are preferred, keeps its text. Keys are sorted a part at a time: memory is bounded by `PART` keys
(400 MB), the working folder takes 16 bytes a word.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain.classify.words import windows, word_spans
from jaxtrain.clean.shards import Facts
from jaxtrain.document import PARQUET

PART = 1 << 23  # keys in memory at once
REASON = "repeated passages"


def runs(text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every run of `length` words its key (uint64) and its place in the text (int64[n, 2], characters)."""
    hashes, spans = word_spans(text)
    keys = windows(hashes, length)
    return keys, np.stack([spans[: len(keys), 0], spans[length - 1 :, 1]], axis=1)


def cut_repeats(facts: Facts, length: int) -> None:
    """Cut repeated runs out of the documents that are alive; one that has less than half left is dropped."""
    rank_R = np.empty(len(facts.order_R), np.int64)
    rank_R[facts.order_R] = np.arange(len(rank_R))
    folder = facts.shards[0].working / "repeats" if facts.shards else Path()
    repeated = _repeated(folder, facts, rank_R, length)
    begins = np.searchsorted(repeated, np.arange(len(rank_R) + 1) << 32)
    for shard, start, end in zip(facts.shards, facts.starts_S, facts.starts_S[1:], strict=False):
        ranks = rank_R[start:end]
        if not (begins[ranks + 1] > begins[ranks]).any():
            continue
        texts = shard.examined()["text"].to_pylist()
        for i, rank in enumerate(ranks.tolist()):
            if begins[rank + 1] == begins[rank]:
                continue
            _, spans = runs(texts[i], length)
            kept = _without(texts[i], spans[repeated[begins[rank] : begins[rank + 1]] & 0xFFFFFFFF])
            if len(kept) < len(texts[i]) / 2:
                facts.reason_R[start + i] = REASON
            else:
                texts[i] = kept
                facts.bytes_R[start + i] = len(kept.encode())
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), shard.file("cut"), **PARQUET)


def _repeated(folder: Path, facts: Facts, rank_R: np.ndarray, length: int) -> np.ndarray:
    """The places (rank << 32 | number of the run), sorted, whose key stands at an earlier place."""
    folder.mkdir(exist_ok=True)
    parts = max(1, int(facts.bytes_R[facts.alive_R].sum()) // 4 // PART)  # hardly a word has fewer bytes
    files = [(folder / f"{part}.units").open("wb") for part in range(parts)]
    for shard, start in zip(facts.shards, facts.starts_S, strict=False):
        for row, text in enumerate(shard.examined()["text"].to_pylist(), start):
            keys, _ = runs(text if facts.reason_R[row] == "" else "", length)
            places = np.arange(len(keys)) + (rank_R[row] << 32)
            pairs = np.stack([keys, places.view(np.uint64)], axis=1)
            for part, file in enumerate(files):
                pairs[keys % np.uint64(parts) == part].tofile(file)
    found = []
    for file in files:
        file.close()
        keys, places = np.fromfile(file.name, np.uint64).reshape(-1, 2).T
        order = np.lexsort((places, keys))
        again = keys[order[1:]] == keys[order[:-1]]
        found.append(places[order[1:][again]].astype(np.int64))
        Path(file.name).unlink()
    return np.sort(np.concatenate(found))


def _without(text: str, spans: np.ndarray) -> str:
    """The text outside of the spans, which are sorted and may overlap."""
    kept, at = [], 0
    for start, end in spans.tolist():
        kept.append(text[at : max(start, at)])
        at = max(at, end)
    return "".join([*kept, text[at:]]).strip()
