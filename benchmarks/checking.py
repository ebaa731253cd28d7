"""What it costs to compare artifacts with their manifests, which each stage does with what it reads.

python benchmarks/checking.py runs/quickstart     writes benchmarks/results/checking.json

Beside the seconds that the stage itself took. At once: what is compared when an artifact is opened; all: with
the shards of records and of checkpoints, which are compared when each is first read.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import record

from jaxtrain import artifact, integrity

LARGE = 1 << 30  # bytes of a file by itself


def seconds(work: Callable[[], Any]) -> float:
    integrity._digest.cache_clear()  # each process compares a file once
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main(run: Path) -> None:
    stages = {}
    for folder in sorted(run.iterdir(), key=lambda path: int(path.name.split("_")[0])):
        manifest = artifact.read_manifest(folder)
        assert manifest is not None, f"{folder} is not finished"
        files, took = manifest["files"], artifact.read_cost(folder)["seconds"]
        at_once = seconds(lambda folder=folder: integrity.check(folder))
        every = seconds(lambda folder=folder, files=files: integrity.problems(folder, files))
        stages[folder.name] = {
            "megabytes": round(sum(entry["size"] for entry in files.values()) / 1e6, 2),
            "milliseconds_at_once": round(1000 * at_once, 2),
            "milliseconds_all": round(1000 * every, 2),
            "seconds_of_the_stage": took,
        }
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large"
        with large.open("wb") as file:
            file.truncate(LARGE)
        rate = LARGE / 1e6 / seconds(lambda: integrity.digest(large))
    whole = sum(stage["milliseconds_all"] for stage in stages.values()) / 1000
    found = {
        "load_average": os.getloadavg()[0],
        "megabytes_a_second": round(rate),
        "share_of_the_run": whole / sum(stage["seconds_of_the_stage"] for stage in stages.values()),
    }
    record("checking", [], {**found, "stages": stages})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
