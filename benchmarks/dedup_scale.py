"""Time and memory of deduplication, from Parquet to clusters, of synthetic documents.

    python benchmarks/dedup_scale.py [documents ...] --out benchmarks/results/dedup_scale.json

Of 10k, 100k and 1M documents, 30 % are near duplicates. Each size runs in a process of its own; memory is the
proportional set size of it and of its two workers together, looked at four times a second. A document has 90
words of a vocabulary of 50,000 (Zipf), a near duplicate is an earlier one with one word replaced: five to ten
of its 86 five-grams, a similarity of about .9.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain.clean import dedup
from jaxtrain.clean.shards import Facts, Shard, list_shards, write_facts
from jaxtrain.document import Document, record_id, write_records
from jaxtrain.engine import run_tasks

WORDS, VOCABULARY, COPIES = 90, 50_000, 0.3


def documents(count: int):
    rng = np.random.Generator(np.random.PCG64(11))
    names = np.array([f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}w{i}" for i in range(VOCABULARY)])
    recent: list[np.ndarray] = []
    for number in range(count):
        if recent and rng.random() < COPIES:
            words = recent[rng.integers(len(recent))].copy()
            words[rng.integers(WORDS)] = rng.integers(VOCABULARY)
        else:
            words = np.minimum(rng.zipf(1.3, WORDS), VOCABULARY) - 1
            recent.append(words)
            if len(recent) > 20_000:
                recent.pop(0)
        text = "\n".join(" ".join(line) for line in names[words].reshape(-1, 10))
        yield Document(id=record_id("made", str(number)), text=text, source="made", url=f"made:{number}")


def memory(pid: int) -> int:
    """Bytes of a process and those below it."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(map(memory, map(int, (task / "children").read_text().split())))
    except (OSError, ValueError):  # it ended meanwhile
        pass
    return total


def sketch_shard(task: dict) -> dict:
    """Runs on a worker: what the clean stage writes of a shard for deduplication, and nothing else of it."""
    shard = Shard("documents", "made", Path(task["path"]), task["group"], Path(task["working"]))
    rows = shard.collected().to_pylist()
    results = [{"text": row["text"], "reason": ""} for row in rows]
    shard.file("").parent.mkdir(parents=True, exist_ok=True)
    write_facts(shard, rows, results)
    pq.write_table(pa.table({"reason": [""] * len(rows)}), shard.file("parquet"))
    return {}


def deduplicate(folder: Path) -> None:
    found = list_shards(folder, "documents", ["made"], folder / "working")
    tasks = [{"path": str(s.path), "group": s.group, "working": str(s.working)} for s in found]
    run_tasks(sketch_shard, tasks, workers=2, what="sketches")
    facts = Facts(found, {"made": ()})
    facts.drop_exact()
    facts.drop_near(dedup.SIMILARITY)
    counts = Counter(facts.reason_R.tolist())
    (folder / "counts.json").write_text(json.dumps({**counts, "bytes": int(facts.bytes_in_R.sum())}))


def measure(count: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_records(folder / "documents/made.parquet", Document, documents(count))
        begun, most = time.monotonic(), 0
        process = subprocess.Popen([sys.executable, __file__, "--deduplicate", name])
        while process.poll() is None:
            most = max(most, memory(process.pid))
            time.sleep(0.25)
        assert process.returncode == 0
        seconds = time.monotonic() - begun
        counts = json.loads((folder / "counts.json").read_text())
    return {
        "documents": count,
        "bytes": counts["bytes"],
        "seconds": round(seconds, 1),
        "megabytes_peak": round(most / 1e6),
        "kept": counts[""],
        "exact_duplicates": counts.get("exact duplicate", 0),
        "near_duplicates": counts.get("near duplicate", 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out")
    parser.add_argument("--deduplicate")
    arguments = parser.parse_args()
    if arguments.deduplicate:
        deduplicate(Path(arguments.deduplicate))
        return
    results = [measure(count) for count in arguments.documents]
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "results": results,
    }
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out:
        Path(arguments.out).write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
