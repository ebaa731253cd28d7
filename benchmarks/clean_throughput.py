"""Filters and MinHash beside datatrove 0.10.1 on the same documents, one process each, in alternation.

    python benchmarks/clean_throughput.py FILE.jsonl.gz [--out RESULT.json]

Needs datatrove with spaCy (its English splitter) beside this project. Figures are UTF-8 megabytes a second of
processor time, the median of alternating runs. `datatrove, our splitter` has our word splitter in place of
spaCy, which tells the pipeline's speed from the splitter's.
"""

import argparse
import gzip
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxtrain.clean import C4, C4Lines, FineWeb, GopherQuality, GopherRepetition, dedup, judge, signals

RUNS = 3
PAGE = (GopherQuality(), GopherRepetition(), FineWeb(), C4Lines(), C4())


def ours_filters(texts: list[str]) -> None:
    """All four rules, those of C4 last, on the lines that it leaves."""
    for text in texts:
        judge(text, *PAGE)


def ours_minhash(texts: list[str]) -> None:
    for text in texts:
        dedup.sketch(text)


def datatrove() -> dict[str, Callable[[list[str]], None]]:
    document = importlib.import_module("datatrove.data").Document
    filters = importlib.import_module("datatrove.pipeline.filters")
    signature = importlib.import_module("datatrove.pipeline.dedup.minhash").MinhashDedupSignature
    built = [
        filters.GopherQualityFilter(),
        filters.GopherRepetitionFilter(),
        filters.C4QualityFilter(),
        filters.FineWebQualityFilter(char_duplicates_ratio=0.1),
    ]
    hasher = signature("/tmp")

    def run_filters(texts: list[str]) -> None:
        for text in texts:
            for filter in built:
                filter.filter(document(text=text, id=""))

    def run_minhash(texts: list[str]) -> None:
        for text in texts:
            if (shingles := hasher.get_shingles(text)).size:
                hasher.get_signature(shingles)

    return {"filters": run_filters, "minhash": run_minhash}


def put_our_splitter() -> None:
    for module in ("gopher_quality_filter", "gopher_repetition_filter", "fineweb_quality_filter"):
        loaded = importlib.import_module(f"datatrove.pipeline.filters.{module}")
        loaded.split_into_words = lambda text, language: signals.split_words(text)
    sentences = importlib.import_module("datatrove.pipeline.filters.c4_filters")
    sentences.split_into_sentences = lambda text, language: [""] * signals.count_sentences(text)


def speeds(work: dict[str, Callable[[list[str]], None]], texts: list[str], runs: int) -> dict[str, float]:
    """Megabytes a second of each, in alternation: A B C A B C …"""
    size, seconds = sum(len(text.encode()) for text in texts) / 1e6, {name: [] for name in work}
    for _ in range(runs):
        for name, function in work.items():
            begun = time.process_time()
            function(texts)
            seconds[name].append(time.process_time() - begun)
    return {name: size / statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    with gzip.open(arguments.file, "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    ours = {"filters": ours_filters, "minhash": ours_minhash}
    theirs = datatrove()
    warm = {**ours, **{f"datatrove {name}": work for name, work in theirs.items()}}
    speeds(warm, texts[:20], 1)
    found = speeds(warm, texts, RUNS)
    put_our_splitter()
    again = speeds(
        {"filters again": ours_filters, "datatrove filters, our splitter": theirs["filters"]}, texts, RUNS
    )
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "documents": len(texts),
        "megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "megabytes_a_second": {name: round(speed, 3) for name, speed in (found | again).items()},
        "ratios": {
            "filters": round(found["filters"] / found["datatrove filters"], 1),
            "minhash": round(found["minhash"] / found["datatrove minhash"], 1),
            "filters, our splitter in both": round(
                again["filters again"] / again["datatrove filters, our splitter"], 1
            ),
        },
    }
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out:
        Path(arguments.out).write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
