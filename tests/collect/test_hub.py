"""Shards from a server that behaves as the Hugging Face hub does: redirects, ranges, ETags, rate limits."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrain.collect.download import Politeness, Refused, fetch

CONFIG = """\
from jaxtrain.collect.download import Politeness
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.tables import TableSource

shards = tuple(f"{hub}/datasets/me/text/resolve/main/shard_{{number:05d}}.parquet" for number in range(2))
config = CollectConfig(
    sources=(TableSource(name="text", paths=shards, folder="kept", politeness=Politeness(pause=0.0)),),
    out="collected",
)
"""


class Hub(ThreadingHTTPServer):
    """The hub, and the place that it redirects to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.version = "1"
        self.refusals: list[dict[str, str]] = []
        """Headers of the answers 429 that come first."""
        self.cuts: list[int] = []
        """Bytes behind which the answers that come first end."""
        self.stalls = ""
        """The file that gets half of itself and no more."""
        self.ended = threading.Event()
        self.asked: list[tuple[str, str | None]] = []
        """Path and range of every request."""


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub, name = self.server, self.path.rpartition("/")[2]
        hub.asked.append((self.path, self.headers.get("Range")))
        if not self.path.startswith("/cdn/"):
            self.answer(302, {"Location": f"http://localhost:{hub.server_port}/cdn/{name}?signed=1"})
        elif hub.refusals:
            self.answer(429, hub.refusals.pop(0))
        elif name.partition("?")[0] not in hub.files:
            self.answer(404, {})
        else:
            name = name.partition("?")[0]
            whole, start = hub.files[name], int(self.headers.get("Range", "bytes=0-")[6:-1])
            body = whole[start:]
            headers = {"ETag": f'"{name} {hub.version}"', "Content-Length": str(len(body))}
            cut = hub.cuts.pop(0) if hub.cuts else len(whole) // 2 if hub.stalls == name else len(body)
            self.answer(206 if start else 200, headers, body[:cut])
            if hub.stalls == name:
                hub.ended.wait()

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the other side was killed
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        for number in range(2):
            texts = [f"Shard {number}, text {row}: " + "all of it counts. " * 20 for row in range(1000)]
            file = pa.BufferOutputStream()
            pq.write_table(pa.table({"text": texts}), file, compression="none", use_dictionary=False)
            server.files[f"shard_0000{number}.parquet"] = file.getvalue().to_pybytes()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


def test_a_file_through_redirects_limits_cuts_and_a_change(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits as long as it is told; a part goes on, unless the file is another by then."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    name, url = "shard_00000.parquet", f"{hub.address}/datasets/me/text/resolve/main/shard_00000.parquet"
    hub.refusals = [{"Retry-After": "7"}, {"RateLimit": '"resolvers";r=0;t=55'}]
    hub.cuts = [1000, 500]
    fetch(url, tmp_path / "one", Politeness(tries=5))
    assert (tmp_path / "one").read_bytes() == hub.files[name]
    assert waits == [1, 7, 55, 8, 16]
    ranges = [asked for path, asked in hub.asked if path.startswith("/cdn/")]
    assert ranges == [None, None, None, "bytes=1000-", "bytes=1500-"]

    hub.cuts = [1000]
    with pytest.raises(Refused, match="no answer after 1 tries"):
        fetch(url, tmp_path / "two", Politeness(tries=1))
    hub.version, hub.files[name] = "2", hub.files["shard_00001.parquet"]
    fetch(url, tmp_path / "two", Politeness(tries=2))
    assert (tmp_path / "two").read_bytes() == hub.files[name]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def collect(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "jaxtrain", "collect", "collect.py"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def test_collect_killed_amid_a_shard_goes_on_with_it(hub: Hub, tmp_path: Path) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for folder in (unbroken, killed):
        folder.mkdir()
        (folder / "collect.py").write_text(CONFIG.format(hub=hub.address))
    with collect(unbroken) as run:
        assert run.stderr is not None and "2,000 documents" in run.stderr.read()

    hub.stalls, half = "shard_00001.parquet", len(hub.files["shard_00001.parquet"]) // 2
    with collect(killed) as run:
        while not any(part.stat().st_size for part in killed.glob("kept/*shard_00001.parquet.part")):
            assert run.poll() is None
            hub.ended.wait(0.01)
        run.kill()
    assert not (killed / "collected").exists()

    hub.stalls, hub.asked = "", []
    with collect(killed) as run:
        assert run.stderr is not None and "2,000 documents" in run.stderr.read()
    (first, asked), (second, again) = hub.asked
    assert first == "/datasets/me/text/resolve/main/shard_00001.parquet" and asked == again
    assert second == "/cdn/shard_00001.parquet?signed=1" and asked is not None
    assert 0 < int(asked.removeprefix("bytes=").removesuffix("-")) <= half
    for file in ("documents/text.parquet", "unread.json", "manifest.json"):
        assert (killed / "collected" / file).read_bytes() == (unbroken / "collected" / file).read_bytes()


def test_what_cannot_be_had_is_one_line_and_what_came_stays(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "collect.py").write_text(CONFIG.format(hub=hub.address))
    first, missing = hub.files.pop("shard_00000.parquet"), hub.files.pop("shard_00001.parquet")
    hub.files["shard_00000.parquet"] = first
    with collect(tmp_path) as run:
        assert run.stderr is not None
        line = run.stderr.read().splitlines()[-1]
    assert run.returncode == 2 and "shard_00001.parquet cannot be had" in line and "goes on with what" in line
    hub.files["shard_00001.parquet"], hub.asked = missing, []
    with collect(tmp_path) as run:
        assert run.stderr is not None and "2,000 documents" in run.stderr.read()
    assert all("shard_00001" in path for path, _ in hub.asked)
