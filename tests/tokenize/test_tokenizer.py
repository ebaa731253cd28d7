import codecs
import json
from pathlib import Path

import pytest
import rustbpe
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.formats.files import open_bytes
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import PATTERN, SPECIAL_TOKENS, BytePairTokenizer, Tokenizer, train

MATERIAL = Path(__file__).parents[3] / "shared" / "material"
TINY = train(["the cat sat on the mat, the other cat did not"] * 3, 275)
SPECIAL = st.sampled_from(SPECIAL_TOKENS)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    assert TINY.decode(TINY.encode(text)) == text


def test_a_character_cut_in_two_is_marked() -> None:
    assert TINY.decode(TINY.encode("a🤔é")[:3]) == "a\ufffd"


@given(st.lists(st.integers(0, 274), max_size=30))
def test_any_ids_are_their_bytes(ids: list[int]) -> None:
    assert b"".join(map(TINY.token_bytes, ids)).decode("utf-8", "replace") == TINY.decode(ids)


@pytest.mark.skipif(not MATERIAL.is_dir(), reason="../shared/material is not there")
@pytest.mark.parametrize("most", [300_000, pytest.param(10**10, marks=pytest.mark.slow)])
def test_every_file_of_the_material_comes_back(tokenizer: BytePairTokenizer, most: int) -> None:
    """Compressed files as what they hold; those that are not UTF-8 as Latin-1, which any bytes are."""
    files = [path for path in sorted(MATERIAL.rglob("*")) if path.is_file()]
    assert files
    for path in files:
        with open_bytes(path) as file:
            data = file.read(most)
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(data)
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        assert tokenizer.decode(tokenizer.encode(text)) == text, path


@given(st.text(st.sampled_from(" \t\n\r\u00a0\u2028.a1")))
def test_any_white_space_comes_back(text: str) -> None:
    assert TINY.decode(TINY.encode(text)) == text


@given(st.lists(SPECIAL | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)).map("".join))
def test_text_of_a_special_token_is_ordinary_text(text: str) -> None:
    ids = TINY.encode(text)
    assert not set(ids) & set(TINY.special.values())
    assert TINY.decode(ids) == text


def test_real_files_come_back_and_are_shorter(tokenizer: BytePairTokenizer, sources: list[str]) -> None:
    encoded = tokenizer.encode_batch(sources)
    assert [tokenizer.decode(ids) for ids in encoded] == sources
    assert sum(map(len, encoded)) < 0.45 * sum(len(text.encode()) for text in sources)


def test_encodes_as_the_trainer_does(sources: list[str]) -> None:
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(sources[:20]), 500, pattern=PATTERN)
    tokenizer = train(sources[:20], 500 + len(SPECIAL_TOKENS))
    for text in sources[20:24]:
        assert tokenizer.encode(text) == trainer.encode(text)


def test_special_tokens_take_the_last_ids(tokenizer: BytePairTokenizer) -> None:
    assert tokenizer.vocab_size == 1024
    assert sorted(tokenizer.special.values()) == list(range(1017, 1024))
    assert tokenizer.decode([tokenizer.bos, tokenizer.eos, tokenizer.pad]) == "<|bos|><|eos|><|pad|>"


def test_digits_stay_in_twos_and_marks_with_their_letters() -> None:
    text = " ".join(["2024 12345 हिन्दी"] * 50)
    tokens = train([text], 281).ranks
    assert b"20" in tokens and not any(token.isdigit() and len(token) > 2 for token in tokens)
    assert " हिन्दी".encode() in tokens


@pytest.mark.parametrize("piece", [" ", "\n", " \n", "a", "!", "1", "\u0301"])
def test_a_million_of_one_character(tokenizer: BytePairTokenizer, piece: str) -> None:
    text = piece * 1_000_000 + "x"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_saved_and_loaded_is_the_same(
    tokenizer: BytePairTokenizer, tmp_path: Path, sources: list[str]
) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded == tokenizer and loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(sources[0]) == tokenizer.encode(sources[0])
    assert len((tmp_path / "ranks.tiktoken").read_text().splitlines()) == 1017


def test_fingerprint_changes_with_pattern_and_ranks(tokenizer: BytePairTokenizer, sources: list[str]) -> None:
    others = [BytePairTokenizer(tokenizer.ranks, r"\s+|\S+"), train(sources[1:], 1024)]
    assert len({tokenizer.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_a_changed_file_is_refused(tokenizer: BytePairTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings | {"pattern": r"\S+|\s+"}))
    with pytest.raises(UserError, match="do not belong together"):
        Tokenizer.load(tmp_path)
    (tmp_path / "ranks.tiktoken").unlink()
    with pytest.raises(UserError, match="ranks.tiktoken is missing"):
        Tokenizer.load(tmp_path)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="at least 263"):
        train(["abc"], 262)
    with pytest.raises(UserError, match="lower vocab_size"):
        train(["abc"], 1000)
    assert train([], 263).decode(train([], 263).encode("żółw")) == "żółw"
