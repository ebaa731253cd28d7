"""Novels: the twelve in data/quickstart."""

import json
import lzma
from collections import Counter, defaultdict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.collect.books import HEADING, MAX_BYTES, BookSource, sections
from jaxtrain.collect.guard import read_here

NOVELS = Path("data/quickstart/books.jsonl.xz")


def read(path: Path):
    unread = Counter()
    return list(read_here(BookSource(name="books", paths=(str(path),)), unread)), unread


def test_no_word_of_a_novel_is_lost_and_its_chapters_share_a_url():
    chapters, unread = read(NOVELS)
    assert not unread
    texts = defaultdict(list)
    for chapter in chapters:
        texts[chapter.url].append(chapter.text)
        assert 4_000 < len(chapter.text.encode()) < MAX_BYTES + 5_000
    novels = [json.loads(line) for line in lzma.decompress(NOVELS.read_bytes()).splitlines()]
    assert len(novels) == len(texts) == 12
    for novel in novels:
        assert " ".join(texts[novel["id"]]).split() == novel["text"].split()
    assert len({chapter.id for chapter in chapters}) == len(chapters)


def test_chapters_begin_at_their_heading_and_never_end_with_one():
    chapters, _ = read(NOVELS)
    alice = [c.text.split("\n\n")[0] for c in chapters if "Carroll" in c.url]
    assert alice[0] == "CHAPTER I. Down the Rabbit-Hole"
    assert sum(line.startswith("CHAPTER") for line in alice) >= 10
    assert not any(HEADING.fullmatch(c.text.split("\n\n")[-1]) for c in chapters)


def test_plain_text_with_project_gutenbergs_frame(tmp_path):
    novel = tmp_path / "novel.txt"
    novel.write_bytes(
        b"\xef\xbb\xbfThe eBook of X\r\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\n"
        b"Call me Ishmael.\r\nSome years ago.\r\n\r\n"
        b"*** END OF THE PROJECT GUTENBERG EBOOK X ***\r\nLicense terms"
    )
    chapters, _ = read(novel)
    assert [c.text for c in chapters] == ["Call me Ishmael.\nSome years ago."]
    assert chapters[0].url == "novel.txt: novel"


def test_unreadable_works_are_counted(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "text": "Once."}\n{"id": "b"}\nnot json\n{"id": "c", "text": ""}\n')
    chapters, unread = read(bad)
    assert [c.text for c in chapters] == ["Once."]
    assert unread == {"a work without text": 2, "not a JSON object": 1}


@given(
    st.lists(st.sampled_from(["CHAPTER I", "IV", "word " * 40, "long " * 2000, "é" * 3000, "x"]), max_size=40)
)
def test_sections_keep_every_paragraph(paragraphs):
    text = "\n\n".join(paragraphs)
    assert "\n\n".join(sections(text)).split() == text.split()
