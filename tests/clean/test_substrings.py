"""Repeated passages, against a search of all places by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.clean import shards, substrings
from jaxtrain.clean.text import Normalize
from jaxtrain.document import Document, record_id, write_records


def facts_of(folder: Path, texts: list[str]) -> shards.Facts:
    """The facts of documents ranked in the order given."""
    ids = sorted(record_id("web", str(i)) for i in range(len(texts)))
    documents = [Document(id=id, text=text, source="web") for id, text in zip(ids, texts, strict=True)]
    write_records(folder / "documents/web.parquet", Document, documents)
    parts = shards.list_shards(folder, "documents", ["web"], folder / "working")
    shards.examine_all(parts, {"web": (Normalize(code=True),)}, "embedded", 1, "shards")
    facts = shards.Facts(parts, {"web": ()})
    return facts


def texts_after(facts: shards.Facts) -> list[str]:
    return [text for shard in facts.shards for text in shard.examined()["text"].to_pylist()]


def words(start: int, count: int) -> str:
    return " ".join(f"w{i}" for i in range(start, start + count))


def test_a_run_of_fifty_words_is_cut_from_the_later_text_and_49_stay(tmp_path):
    texts = [
        f"First text. {words(0, 50)} and more of it, {words(1000, 60)}.",
        f"Second {words(2000, 80)}. {words(0, 50).upper()}! Then {words(3000, 80)}",
        f"Third {words(1000, 49)} and {words(4000, 30)}",
    ]
    facts = facts_of(tmp_path, texts)
    substrings.cut_repeats(facts, 50)
    after = texts_after(facts)
    assert after[0] == texts[0] and after[2] == texts[2]
    assert after[1] == f"Second {words(2000, 80)}. ! Then {words(3000, 80)}"
    assert facts.bytes_R.tolist() == [len(text) for text in after]


def test_a_text_that_is_mostly_repeated_is_dropped_with_its_reason(tmp_path):
    facts = facts_of(tmp_path, [words(0, 100), f"New words {words(0, 99)}"])
    substrings.cut_repeats(facts, 50)
    assert facts.reason_R.tolist() == ["", substrings.REASON]


def test_it_is_the_same_in_many_parts(tmp_path, monkeypatch):
    texts = [words(10 * i, 90) + f" end {i} " + words(5000 + 200 * i, 90) for i in range(30)]
    results = []
    for part in (1 << 23, 100):
        monkeypatch.setattr(substrings, "PART", part)
        folder = tmp_path / str(part)
        facts = facts_of(folder, texts)
        substrings.cut_repeats(facts, 50)
        results.append((texts_after(facts), facts.reason_R.tolist()))
    assert results[0] == results[1]
    assert results[0][0] != texts


@settings(max_examples=25)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=20).map(" ".join), min_size=1, max_size=5))
def test_places_are_those_found_by_hand(tmp_path_factory, texts):
    length, seen, expected = 4, set(), set()
    for rank, text in enumerate(texts):
        split = text.split()
        for place in range(len(split) - length + 1):
            run = tuple(split[place : place + length])
            if run in seen:
                expected.add(rank << 32 | place)
            seen.add(run)
    folder = tmp_path_factory.mktemp("repeats")
    facts = facts_of(folder, texts)
    found = substrings._repeated(folder / "r", facts, np.arange(len(texts)), length)
    assert found.tolist() == sorted(expected)


@pytest.mark.parametrize(
    ("spans", "left"),
    [([], "0123456789"), ([(0, 3), (2, 5)], "56789"), ([(1, 9), (3, 4)], "09"), ([(0, 10)], "")],
)
def test_overlapping_spans(spans, left):
    assert substrings._without("0123456789", np.array(spans, np.int64).reshape(-1, 2)) == left
