import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.run import TokenizeConfig, run
from jaxtrain.tokenize.tokenizer import Tokenizer

WriteClean = Callable[..., Path]
HELLO = [("user", "What is in os?"), ("assistant", "Paths and processes.")]


def records(path: Path) -> list[bytes]:
    reader = ArrayRecordReader(str(path / "00000.arrayrecord"))
    return list(reader.read_all()) if reader.num_records() else []


def stage(clean: Path, **fields: int) -> Path:
    config = TokenizeConfig(
        documents=str(clean), out=str(clean.parent / "tokens"), **{"vocab_size": 400, **fields}
    )
    return run(config)


def counts(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())["counts"]


def test_the_artifact_is_as_documented(write_clean: WriteClean, sources: list[str]) -> None:
    kept, heldout = {"code": [*sources[:8], ""], "more": sources[10:14]}, {"code": sources[8:10]}
    out = stage(write_clean(kept, heldout, {"chat": [HELLO, HELLO]}))
    tokenizer = Tokenizer.load(out / "tokenizer")
    for kind, texts in (("documents/code", kept["code"]), ("heldout/code", heldout["code"])):
        stored = [np.frombuffer(record, "<u2").tolist() for record in records(out / kind)]
        assert [tokenizer.decode(ids) for ids in stored] == texts
        assert np.load(out / kind / "lengths.npy").tolist() == list(map(len, stored))
    assert np.load(out / "heldout/code/bytes.npy").tolist() == [len(t.encode()) for t in heldout["code"]]
    (record, _), (length, _) = (
        records(out / "conversations/chat"),
        np.load(out / "conversations/chat/lengths.npy"),
    )
    ids, mask = np.frombuffer(record[: 2 * length], "<u2"), np.frombuffer(record[2 * length :], np.uint8)
    assert tokenizer.decode(ids.tolist()).startswith("<|bos|><|user|>What is in os?<|end|><|assistant|>")
    assert tokenizer.decode(ids[mask == 1].tolist()) == "Paths and processes.<|end|>"
    assert json.loads((out / "mixture.json").read_text()) == {"code": 0.5, "more": 0.5}
    code = counts(out)["documents"]["code"]
    assert code["bytes"] == sum(len(text.encode()) for text in kept["code"])
    assert code["tokens"] == np.load(out / "documents/code/lengths.npy").sum() and code["records"] == 9
    assert code["bytes_per_token"] == pytest.approx(code["bytes"] / code["tokens"], abs=1e-3)


def test_the_same_bytes_from_another_process(
    write_clean: WriteClean, sources: list[str], tmp_path: Path
) -> None:
    clean = write_clean({"code": sources[:8]}, {"code": sources[8:10]}, {"chat": [HELLO]})
    first = stage(clean)
    program = (
        "import sys; from jaxtrain.tokenize.run import *;"
        "run(TokenizeConfig(documents=sys.argv[1], out=sys.argv[2], vocab_size=400))"
    )
    second = tmp_path / "second"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program, str(clean), str(second)], check=True, env=environment)
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_held_out_text_is_not_in_the_tokenizer(write_clean: WriteClean, sources: list[str]) -> None:
    rare = [" zqxwvjk" * 5000]
    out = stage(write_clean({"code": sources[:8]}, heldout={"code": rare}))
    assert not any(b"zq" in token for token in Tokenizer.load(out / "tokenizer").ranks)
    out = stage(write_clean({"code": [*sources[:8], *rare]}))
    assert b" zqxwvjk" in Tokenizer.load(out / "tokenizer").ranks


def test_conversations_are_in_the_tokenizer(write_clean: WriteClean, sources: list[str]) -> None:
    chats = {"chat": [[("user", "?"), ("assistant", " zqxwvjk" * 5000)]]}
    out = stage(write_clean({"code": sources[:8]}, conversations=chats))
    assert b" zqxwvjk" in Tokenizer.load(out / "tokenizer").ranks


def test_the_sample_follows_the_mixture(write_clean: WriteClean, sources: list[str]) -> None:
    pieces = [text[i : i + 500] for text in sources[:40] for i in range(0, len(text), 500)]
    half = len(pieces) // 2
    clean = write_clean({"big": pieces[:half], "small": pieces[half:]}, mixture={"big": 0.8, "small": 0.2})
    taken = counts(stage(clean, sample_bytes=200_000))["sample_bytes"]
    assert taken["documents/big"] == pytest.approx(160_000, rel=0.15)
    assert taken["documents/small"] == pytest.approx(40_000, rel=0.25)


def test_a_conversation_that_cannot_be_rendered_is_counted(
    write_clean: WriteClean, sources: list[str]
) -> None:
    clean = write_clean({"code": sources[:8]}, conversations={"chat": [HELLO, HELLO[:1], HELLO, HELLO[:1]]})
    chat = counts(stage(clean))["conversations"]["chat"]
    assert chat["records"] == 2
    assert chat["dropped"] == {"a conversation without an assistant message has nothing to learn from": 2}


def test_a_mixture_of_other_sources_is_refused(write_clean: WriteClean, sources: list[str]) -> None:
    with pytest.raises(UserError, match="mixture.json names"):
        stage(write_clean({"code": sources[:8]}, mixture={"code": 0.5, "wiki": 0.5}))


def test_without_clean_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished clean artifact"):
        stage(tmp_path / "nowhere")


def test_the_quickstart_config_loads() -> None:
    config = configs.load(Path(__file__).parents[2] / "configs/quickstart/3_tokenize.py")
    assert isinstance(config, TokenizeConfig) and configs.stage_of(config) == "tokenize"
