"""Packing figures, feed throughput, a far step and memory over many steps, on an artifact of tokenize.

.venv/bin/python benchmarks/feed.py TOKENS
"""

import argparse
import bisect
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from jaxtrain.feed import loader
from jaxtrain.feed.documents import Documents
from jaxtrain.feed.packing import best_fit, concat_and_split
from jaxtrain.feed.sources import TokenData

LENGTH, BATCH = 2048, 32
SECONDS, ROUNDS = 6.0, 5
BUFFER = 1000  # documents that nanochat's loader chooses from
MANY = 100_000  # steps


def cropped_by_buffer(lengths: np.ndarray, length: int) -> float:
    """Share of tokens cropped by the packing that nanochat describes (and reports 34.6 % for).

    Into each row go the longest documents of a buffer that fit; where none fits, the shortest is cropped.
    """
    waiting: list[int] = []
    incoming = iter(lengths[np.random.default_rng(0).permutation(len(lengths))].tolist())
    placed = taken = 0
    while True:
        room = length
        while room:
            while len(waiting) < BUFFER and (size := next(incoming, None)) is not None:
                bisect.insort(waiting, size)
            if not waiting:
                return 1 - placed / taken
            at = bisect.bisect_right(waiting, room) - 1
            size = waiting.pop(max(at, 0))
            placed, taken, room = placed + min(size, room), taken + size, room - min(size, room)


def packing(data: TokenData) -> dict[str, dict[str, float]]:
    """Of each source, and of all documents as one: what the rows hold."""
    sources = {name: data.lengths("documents", name) + 2 for name in data.mixture}
    sources["all"] = np.concatenate(list(sources.values()))
    found = {}
    for name, lengths in sources.items():
        begun = time.perf_counter()
        best = best_fit(lengths, LENGTH)
        seconds = time.perf_counter() - begun
        split = concat_and_split(lengths, LENGTH)
        found[name] = {
            "documents": len(lengths),
            "tokens": best.tokens,
            "longer_than_a_row": float((lengths > LENGTH).mean()),
            "used": 1 - best.share_padded,
            "cropped": 1 - best.placed / best.tokens,
            "cropped_by_buffer_of_1000": cropped_by_buffer(lengths, LENGTH),
            "headless": headless(best.pieces, best.tokens),
            "headless_concat_and_split": headless(split.pieces, split.tokens),
            "seconds": seconds,
        }
    return {name: {key: round(value, 4) for key, value in row.items()} for name, row in found.items()}


def headless(pieces: np.ndarray, tokens: int) -> float:
    """Share of tokens in a row that lacks their document's beginning."""
    return float(np.maximum(pieces[:, 2] - pieces[:, 1], 0)[pieces[:, 1] > 0].sum() / tokens)


def batches(folder: Path, **how: Any) -> Any:
    return loader.document_batches(Documents.open(folder, **how))


def rate(dataset: Any, start: int) -> float:
    """Million tokens a second through `prefetch`, for some seconds from step `start`."""
    stream = loader.prefetch(dataset, start, start + 10**6)
    next(stream)
    begun, tokens = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        tokens += next(stream)["tokens"].size
    found = tokens / (time.perf_counter() - begun) / 1e6
    stream.close()
    return found


def throughput(folder: Path, largest: str) -> dict[str, float]:
    """One source in concat-and-split, one in best-fit, and all sources mixed in best-fit, in alternation."""
    with tempfile.TemporaryDirectory() as temporary:
        one = Path(temporary) / "one"
        shutil.copytree(folder, one, copy_function=os.symlink)
        (one / "mixture.json").unlink()
        (one / "mixture.json").write_text(json.dumps({largest: 1.0}))
        size = {"batch_size": BATCH, "length": LENGTH, "seed": 0}
        ways = {
            "one source, concat_and_split": batches(one, packing="concat_and_split", **size),
            "one source, best_fit": batches(one, **size),
            "all sources mixed, best_fit": batches(folder, **size),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for n in range(ROUNDS):
            for way, dataset in ways.items():
                rates[way].append(rate(dataset, n * 10_000))
    return {way: round(statistics.median(values), 1) for way, values in rates.items()}


def far(folder: Path) -> float:
    """Milliseconds for step 10^9, the first that is asked for."""
    found = batches(folder, batch_size=BATCH, length=LENGTH, seed=0)
    begun = time.perf_counter()
    found[10**9]
    return round((time.perf_counter() - begun) * 1e3, 1)


def memory(folder: Path) -> dict[str, float]:
    """Resident megabytes after the first tenth and the rest of many steps."""
    found = {}
    stream = loader.prefetch(batches(folder, batch_size=2, length=LENGTH, seed=0), 0, MANY)
    for step, _ in enumerate(stream, 1):
        if step in (MANY // 10, MANY):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found[f"after {step} steps"] = round(pages * resource.getpagesize() / 1e6, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("tokens", type=Path)
    folder = parser.parse_args().tokens
    data = TokenData.open(folder)
    largest = max(data.mixture, key=lambda name: data.lengths("documents", name).sum())
    found = {
        "length": LENGTH,
        "batch_size": BATCH,
        "packing": packing(data),
        "million_tokens_a_second": throughput(folder, largest),
        "milliseconds_for_step_1e9": [far(folder) for _ in range(ROUNDS)],
        "resident_megabytes": memory(folder),
    }
    record("feed", ["grain", "array-record", "numpy"], found)


if __name__ == "__main__":
    main()
