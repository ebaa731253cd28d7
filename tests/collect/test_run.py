"""The stage as a user runs it."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jaxtrain import config as configs
from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig, run
from jaxtrain.collect.web import WebSource
from jaxtrain.document import Conversation, Document, read_records
from jaxtrain.runtime.errors import UserError


@pytest.fixture(scope="module")
def quickstart():
    return configs.load("configs/quickstart/1_collect.py")


@pytest.fixture(scope="module")
def collected(quickstart, tmp_path_factory):
    return run(replace(quickstart, out=str(tmp_path_factory.mktemp("runs") / "collect")))


def test_the_quickstart_holds_what_its_config_promises(collected):
    manifest = json.loads((collected / "manifest.json").read_text())
    counts = manifest["counts"]
    assert {name for name, c in counts.items() if "documents" in c} == {"web", "wiki", "code", "books"}
    assert sum(c["bytes"] for c in counts.values() if "documents" in c) > 11_000_000
    assert counts["dolly"]["conversations"] + counts["alpaca"]["conversations"] > 1_900
    unread = json.loads((collected / "unread.json").read_text())
    assert {name: sum(reasons.values()) for name, reasons in unread.items()} == {
        name: c["unread"] for name, c in counts.items()
    }
    ids = set()
    for kind, place in ((Document, "documents"), (Conversation, "conversations")):
        for path in sorted((collected / place).iterdir()):
            records = list(read_records(path, kind))
            assert len(records) == counts[path.stem][place]
            assert all(record.source == path.stem and record.license for record in records)
            ids.update(record.id for record in records)
    assert len(ids) == sum(c.get("documents", 0) + c.get("conversations", 0) for c in counts.values())


def test_a_second_run_gives_the_same_bytes(quickstart, collected, tmp_path):
    again = run(replace(quickstart, out=str(tmp_path / "again")))
    for path in sorted(p for p in collected.rglob("*") if p.is_file() and p.name != "cost.json"):
        assert path.read_bytes() == (again / path.relative_to(collected)).read_bytes(), path


def test_the_same_page_twice_is_counted(tmp_path):
    crawl = tmp_path / "twice.warc.gz"
    crawl.write_bytes(Path("data/quickstart/web.warc.gz").read_bytes() * 2)
    config = CollectConfig(sources=(WebSource(name="web", paths=(str(crawl),)),), out=str(tmp_path / "out"))
    counts = json.loads((run(config) / "manifest.json").read_text())["counts"]
    assert counts["web"]["documents"] == 132
    unread = json.loads((tmp_path / "out/unread.json").read_text())["web"]
    assert unread["the same page or file again"] == 132


def test_mistakes_are_told_in_one_line(tmp_path):
    chats = ChatSource(name="chats", paths=("data/quickstart/alpaca.json",))
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match="two sources are named 'chats'"):
        run(CollectConfig(sources=(chats, chats), out=out))
    with pytest.raises(UserError, match=r"source 'chats': no file at absent\.jsonl"):
        run(CollectConfig(sources=(replace(chats, paths=("absent.jsonl",)),), out=out))
    with pytest.raises(UserError, match="source 'chats' has no paths"):
        run(CollectConfig(sources=(replace(chats, paths=()),), out=out))
    empty = tmp_path / "empty.warc.gz"
    empty.write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="nothing could be read from any source: .*no readable WARC record"):
        run(CollectConfig(sources=(WebSource(name="web", paths=(str(empty),)),), out=out))
    assert not Path(out).exists(), "a failed stage leaves no artifact"


def test_out_can_be_overridden_on_the_command_line(quickstart):
    assert configs.override(quickstart, ["--out", "elsewhere"]) == replace(quickstart, out="elsewhere")
