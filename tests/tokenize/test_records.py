"""Records of every kind, in shards, the same on any number of cores and after a kill."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from jaxtrain.document import Conversation, write_records
from jaxtrain.tokenize import records
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.run import TokenizeConfig, run
from jaxtrain.tokenize.tokenizer import Tokenizer

WriteClean = Callable[..., Path]


def stored(folder: Path) -> list[list[bytes]]:
    """The records of each file of a source."""
    readers = [ArrayRecordReader(str(path)) for path in sorted(folder.glob("*.arrayrecord"))]
    return [list(reader.read_all()) if reader.num_records() else [] for reader in readers]


def stage(clean: Path, out: str = "tokens") -> Path:
    return run(TokenizeConfig(documents=str(clean), out=str(clean.parent / out), vocab_size=400))


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_a_large_source_is_written_in_shards_by_several_processes(
    write_clean: WriteClean, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_up = [text[i : i + 300] for text in sources for i in range(0, len(text), 300)]
    pieces = list(islice(cycle(cut_up), 3000))  # how much there is depends on the Python
    clean = write_clean({"code": pieces}, conversations={"chat": [[("user", "Hi"), ("assistant", "Ho")]] * 3})
    whole = stage(clean, "whole")
    assert [len(shard) for shard in stored(whole / "documents/code")] == [3000]
    monkeypatch.setattr(records, "GROUPS_A_SHARD", 1)
    cut = stage(clean, "cut")  # the source's fingerprint does not know of the patch, but `out` is another
    shards = stored(cut / "documents/code")
    assert [len(shard) for shard in shards] == [1024, 1024, 952]
    assert sum(shards, []) == stored(whole / "documents/code")[0]
    for name in ("documents/code/lengths.npy", "conversations/chat/00000.arrayrecord"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert manifest(cut)["counts"] == manifest(whole)["counts"]


def test_one_thread_writes_the_same_bytes_as_many(
    write_clean: WriteClean, sources: list[str], tmp_path: Path
) -> None:
    clean = write_clean({"code": sources})
    tokenizer = Tokenizer.load(stage(clean) / "tokenizer")
    source, files = clean / "documents" / "code.parquet", []
    for threads in (1, 7):
        target = tmp_path / f"{threads}.arrayrecord"
        written = records._write_shard(source, tokenizer, range(1), target, threads)
        assert written.lengths == [len(tokenizer.encode(text)) for text in sources]
        files.append(target.read_bytes())
    assert files[0] == files[1]


def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(
    write_clean: WriteClean, sources: list[str]
) -> None:
    clean = write_clean({"a": sources[:5], "b": sources[5:8]}, {"a": sources[8:9]})
    undisturbed = manifest(stage(clean, "undisturbed"))
    program = (
        "import os, signal, sys; import numpy as np; from jaxtrain.tokenize.run import *\n"
        "real, left = np.save, [{}]\n"
        "def save(*arguments):\n"
        "    real(*arguments); left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "np.save = save; run(TokenizeConfig(documents=sys.argv[1], out=sys.argv[2], vocab_size=400))"
    )
    for moment in (1, 3):  # of four arrays
        out = clean.parent / f"killed{moment}"
        command = [sys.executable, "-c", program.format(moment), str(clean), str(out)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert not out.exists() and (Path(f"{out}.partial") / "documents/a/lengths.npy").is_file()
        assert manifest(stage(clean, out.name)) == undisturbed


def messages(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_tools_are_rendered_with_their_conversations(write_clean: WriteClean, sources: list[str]) -> None:
    called = [{"function": {"name": "add", "arguments": '{"x": 2}'}}]
    talk = [
        *messages("user", "2 and 2?"),
        {"role": "assistant", "content": "", "tool_calls": called},
        *messages("tool", "4"),
        *messages("assistant", "It is 4."),
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    clean = write_clean({"code": sources[:8]})
    record = Conversation(id="0" * 16, messages=talk, source="sums", tools=tools)
    unfinished = Conversation(id="1" * 16, messages=talk[::3], source="sums")
    open_call = Conversation(id="2" * 16, messages=[*talk[:2], talk[3]], source="sums")
    path = clean / "conversations" / "sums.parquet"
    write_records(path, Conversation, [record, unfinished, open_call])
    out = stage(clean)
    ids, mask = render(talk, Tokenizer.load(out / "tokenizer"), tools=tools)
    (found, _), counts = (
        stored(out / "conversations/sums")[0],
        manifest(out)["counts"]["conversations"]["sums"],
    )
    assert np.frombuffer(found[: 2 * len(ids)], "<u2").tolist() == ids and list(found[2 * len(ids) :]) == mask
    assert counts["bytes"] == sum(map(len, ['2 and 2?add({"x": 2})4It is 4.', "2 and 2?It is 4."]))
    ((reason, dropped),) = counts["dropped"].items()
    assert "a tool call without its answer" in reason and dropped == 1
