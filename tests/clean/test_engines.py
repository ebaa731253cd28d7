"""The same bytes from one process, from two, from a killed run made again, and from Ray."""

import dataclasses
import gc
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxtrain.clean import GopherQuality, Normalize, Personal
from jaxtrain.clean.run import CleanConfig, run
from jaxtrain.document import Document, record_id, write_records

WORDS = ["the", "of", "and", "river", "stone", "market", "evening", "to", "window", "village", "that", "with"]


def text(number: int) -> str:
    """A page of its own words; every third is nearly the one before."""
    base = number - (number % 3 == 2)
    lines = [
        " ".join(
            f"{WORDS[(base * 7 + i * j) % 12]}{base}x{i}" if j % 2 else WORDS[(i + j) % 12] for j in range(12)
        )
        for i in range(12)
    ]
    return ".\n".join(lines) + (f". And {number} was the last." if base != number else ".")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> CleanConfig:
    """3,000 documents in three shards."""
    folder = tmp_path_factory.mktemp("engines") / "1_collect"
    documents = [
        Document(id=record_id("web", str(i)), text=text(i), source="web", url=f"http://a.example/{i}")
        for i in range(3000)
    ]
    write_records(folder / "documents/web.parquet", Document, documents)
    (folder / "manifest.json").write_text(json.dumps({"stage": "collect", "fingerprint": "0"}))
    return CleanConfig(
        documents=str(folder),
        filters={"web": (Normalize(), GopherQuality(), Personal())},
        mixture={"web": 1},
        repeated_words=50,
        workers=1,
        heldout_bytes=20_000,
        out=str(folder.parent / "one"),
    )


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "cost.json"
    }


@pytest.fixture(scope="module")
def one(config) -> dict[str, str]:
    folder = run(config)
    funnel = json.loads((folder / "funnel.json").read_text())["web"]
    assert funnel["dropped"].get("near duplicate", 0) > 900 and funnel["kept"] > 1000
    return contents(folder)


# Daft leaves the pipe of a worker's output to the collector of garbage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_processes(config, one, tmp_path):
    again = run(dataclasses.replace(config, workers=2, out=str(tmp_path / "two")))
    gc.collect()
    assert contents(again) == one


SCRIPT = """
import json, sys
from jaxtrain import config as configs
from jaxtrain.clean.run import run
run(configs.load(sys.argv[1]))
"""


def write_config(config: CleanConfig, path: Path) -> Path:
    path.write_text(
        "from jaxtrain.clean.balance import Balance\n"
        "from jaxtrain.clean import *\nfrom jaxtrain.clean.run import CleanConfig\n\n"
        f"config = {config!r}\n"
    )
    return path


def start(config: CleanConfig, path: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(write_config(config, path))])


@pytest.mark.parametrize("shards_done", [1, 2])
def test_killed_between_shards_and_run_again(config, one, tmp_path, shards_done):
    out = tmp_path / "killed"
    changed = dataclasses.replace(config, out=str(out))
    process = start(changed, tmp_path / "config.py")
    deadline = time.monotonic() + 120
    working = Path(f"{out}.partial/working/documents")
    while len(list(working.glob("*.parquet"))) < shards_done:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = {path: path.stat().st_mtime_ns for path in working.glob("*.parquet")}
    assert contents(run(changed)) == one
    assert done, "no shard was left to be taken over"


@pytest.mark.slow
def test_ray(config, one, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (pip install 'jaxtrain[cluster]')")
    out = tmp_path / "ray"
    process = start(
        dataclasses.replace(config, engine="ray", workers=2, out=str(out)), tmp_path / "config.py"
    )
    assert process.wait(timeout=540) == 0
    assert contents(out) == one
