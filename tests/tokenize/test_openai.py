"""OpenAI's encodings by name; their files are fetched, or in TIKTOKEN_CACHE_DIR (docs/formats.md)."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiktoken

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import Tokenizer
from jaxtrain.tokenize.run import TokenizeConfig, run
from jaxtrain.tokenize.tokenizer import BytePairTokenizer

NAMES = ("gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base")
offline = pytest.mark.skipif(
    "TIKTOKEN_CACHE_DIR" not in os.environ, reason="OpenAI's files: set TIKTOKEN_CACHE_DIR (docs/formats.md)"
)


@offline
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_tiktoken(name: str, sources: list[str], tmp_path: Path) -> None:
    ours, reference = BytePairTokenizer.openai(name), tiktoken.get_encoding(name)
    texts = [*sources[:20], "<|endoftext|> żółw 日本語 \U0001f914\n\n  x = 12345", ""]
    assert ours.encode_batch(texts) == reference.encode_ordinary_batch(texts)
    assert [ours.encode_array(text).tolist() for text in texts] == reference.encode_ordinary_batch(texts)
    assert [ours.decode(reference.encode_ordinary(text)) for text in texts] == texts
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path) == ours
    ids = {*ours.ranks.values(), *ours.special.values()}
    assert ids == set(range(ours.vocab_size))  # also where OpenAI's own special token leaves a gap
    assert ours.decode([ours.bos, ours.eos]) == "<|bos|><|eos|>"


@offline
def test_the_stage_encodes_with_it(write_clean: Callable[..., Path], sources: list[str]) -> None:
    clean = write_clean({"code": sources[:4]})
    out = run(TokenizeConfig(documents=str(clean), out=str(clean.parent / "out"), tokenizer="o200k_base"))
    reference = tiktoken.get_encoding("o200k_base").encode_ordinary_batch(sources[:4])
    assert np.load(out / "documents/code/lengths.npy").tolist() == list(map(len, reference))
    assert Tokenizer.load(out / "tokenizer").id_dtype == "<u4"


def test_without_a_file_or_a_network_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delitem(tiktoken.registry.ENCODINGS, "r50k_base", raising=False)
    with pytest.raises(UserError, match="r50k_base could not be fetched .* TIKTOKEN_CACHE_DIR"):
        BytePairTokenizer.openai("r50k_base")


def test_unknown_names_are_refused(write_clean: Callable[..., Path], sources: list[str]) -> None:
    with pytest.raises(UserError, match="no OpenAI encoding 'gpt5'; there are: gpt2, r50k_base"):
        BytePairTokenizer.openai("gpt5")


def test_a_tokenizer_of_another_artifact_is_used(
    write_clean: Callable[..., Path], sources: list[str]
) -> None:
    clean = write_clean({"code": sources[:8]})
    first = run(TokenizeConfig(documents=str(clean), out=str(clean.parent / "first"), vocab_size=400))
    write_clean({"code": sources[8:16]})
    given = str(first / "tokenizer")
    second = run(TokenizeConfig(documents=str(clean), out=str(clean.parent / "second"), tokenizer=given))
    assert Tokenizer.load(second / "tokenizer").fingerprint == Tokenizer.load(given).fingerprint
    encoded = Tokenizer.load(given).encode_batch(sources[8:16])
    assert np.load(second / "documents/code/lengths.npy").tolist() == list(map(len, encoded))
