"""BPE training time, encoding throughput beside bare tiktoken, and bytes per token beside gpt2 and cl100k.

.venv/bin/python benchmarks/corpus.py CORPUS NAME=PATTERN ...
TIKTOKEN_CACHE_DIR=... .venv/bin/python benchmarks/tokenizer.py CORPUS SOURCE NAME=PATTERN ...

A tokenizer of 32,768 is trained on 50 MB of SOURCE. The NAME=PATTERN are texts for the table, named as for
corpus.py; the held-out documents of every source of CORPUS are in it too. docs/formats.md says how OpenAI's
encodings come into TIKTOKEN_CACHE_DIR.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import tiktoken
from corpus import texts
from record import record

from jaxtrain.document import read_rows, source_files
from jaxtrain.tokenize.records import write_source
from jaxtrain.tokenize.tokenizer import Tokenizer, train

SAMPLE = 50_000_000  # bytes
ROUNDS = 5
THREADS = 2
TABLE = 2_000_000  # bytes of each text in the table


def read(path: Path, most: int) -> list[str]:
    """Texts of a Parquet file up to `most` bytes."""
    taken, size = [], 0
    for row in read_rows(path, ["text"]):
        if size >= most:
            break
        taken.append(row["text"])
        size += len(row["text"].encode())
    return taken


def timed_training(sample: list[str]) -> tuple[Tokenizer, float]:
    begun = time.perf_counter()
    tokenizer = train(sample, 32_768)
    return tokenizer, time.perf_counter() - begun


def throughput(source: Path, tokenizer: Tokenizer) -> dict[str, float]:
    """Seconds for one Parquet file: bare tiktoken on its texts in memory, and reading, encoding, writing."""
    folder = Path(tempfile.mkdtemp())
    whole = read(source, 10**12)
    size = sum(len(text.encode()) for text in whole)
    bare = tiktoken.Encoding(
        "bare", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens={}
    )
    ways = {
        "bare": lambda n: bare.encode_ordinary_batch(whole, num_threads=THREADS),
        "stage": lambda n: write_source(source, folder / str(n), tokenizer),
    }
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for n in range(ROUNDS):
        for way, encode in ways.items():
            begun = time.perf_counter(), time.process_time()
            encode(n)
            wall[way].append(time.perf_counter() - begun[0])
            cpu[way].append(time.process_time() - begun[1])
    shutil.rmtree(folder)
    found = {"megabytes": size / 1e6}
    for way in ways:
        found |= {f"{way}_MB_s": size / statistics.median(wall[way]) / 1e6}
        found |= {f"{way}_cpu_seconds": statistics.median(cpu[way])}
    for name, times in (("wall", wall), ("cpu", cpu)):
        ratios = [b / s for b, s in zip(times["bare"], times["stage"], strict=True)]
        found |= {f"stage_over_bare_{name}": statistics.median(ratios)}
    return {name: round(value, 3) for name, value in found.items()}


def table(samples: dict[str, list[str]], ours: Tokenizer) -> dict[str, dict[str, float]]:
    """UTF-8 bytes per token of each text under each encoding."""
    encoders = {name: tiktoken.get_encoding(name).encode_ordinary for name in ("gpt2", "cl100k_base")}
    encoders["ours"] = ours.encode
    rows = {}
    for name, sample in samples.items():
        size = sum(len(text.encode()) for text in sample)
        rows[name] = {e: round(size / sum(map(len, map(f, sample))), 3) for e, f in encoders.items()}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("source")
    parser.add_argument("texts", nargs="*")
    arguments = parser.parse_args()
    source = arguments.corpus / "documents" / f"{arguments.source}.parquet"
    sample = read(source, SAMPLE)
    tokenizer, seconds = timed_training(sample)
    samples = {
        f"heldout {path.stem}": read(path, TABLE) for path in source_files(arguments.corpus / "heldout")
    }
    for name, pattern in (text.split("=", 1) for text in arguments.texts):
        samples[name] = list(islice(texts(name, pattern), 500))
    found = {
        "training": {
            "source": arguments.source,
            "megabytes": sum(len(text.encode()) for text in sample) / 1e6,
            "vocab_size": tokenizer.vocab_size,
            "seconds": round(seconds, 1),
        },
        "encoding": throughput(source, tokenizer),
        "bytes_per_token": table(samples, tokenizer),
    }
    record("tokenizer", ["tiktoken", "rustbpe", "array-record", "pyarrow"], found)


if __name__ == "__main__":
    main()
