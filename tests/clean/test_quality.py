"""Signals against values counted by hand, rules against the published definitions."""

import json
import lzma
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.clean import C4, C4Lines, Code, FineWeb, GopherQuality, GopherRepetition, Normalize, judge, web
from jaxtrain.clean.signals import Words, split_words

BOOKS = Path(__file__).parents[2] / "data/quickstart/books.jsonl.xz"
SENTENCE = "The ship that we saw had to turn back with all of the people and their cargo on board."
PAGE = "\n\n".join(
    f"{SENTENCE} It was {word} in the {word}, and nobody knew what to say of it."
    for word in ("harbour", "evening", "village", "market", "winter", "meadow")
)


def test_words_lose_the_punctuation_at_their_ends():
    assert split_words("“Don't—stop!” he said ( 3.14 ) ...") == [
        "Don't", "stop", "he", "said", "(", "3.14", ")", "...",
    ]  # fmt: skip


def test_signals_of_a_small_text_are_those_counted_by_hand():
    words = Words("# The cat sat...\n- and of #1\n\nthe end.")
    signals = words.quality() | words.lines()
    assert signals["words"] == 8  # The cat sat and of 1 the end; `#` and `-` stand alone, so 10 with them
    assert signals["mean_word_length"] == pytest.approx(21 / 8)
    assert signals["hash_ratio"] == pytest.approx(2 / 10)
    assert signals["ellipsis_ratio"] == pytest.approx(1 / 10)
    assert signals["alphabetic_words"] == pytest.approx(7 / 10)
    assert signals["stop_words"] == 3  # and, of, the; `The` differs
    assert signals["bullet_lines"] == pytest.approx(1 / 4)  # the blank line is a line
    assert signals["ellipsis_lines"] == pytest.approx(1 / 4)
    assert signals["punctuated_lines"] == pytest.approx(2 / 3)
    assert signals["short_lines"] == 1
    assert signals["lines_per_word"] == pytest.approx(3 / 10)


def test_repeated_lines_and_paragraphs_count_from_the_second_on():
    signals = Words("one two\n\none two\n\nthree\nthree\nfour").repetition()
    assert signals["duplicate_paragraphs"] == pytest.approx(1 / 3)
    assert signals["duplicate_paragraph_characters"] == pytest.approx(7 / 34)
    assert signals["duplicate_lines"] == pytest.approx(2 / 5)
    assert signals["duplicate_line_characters"] == pytest.approx(12 / 34)


def plain_top(words: list[str], n: int) -> int:
    grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(grams.values(), default=0)
    return next((len(gram) * count for gram, count in grams.items() if count == most), 0)


def plain_covered(words: list[str], n: int) -> int:
    """Gopher's duplicate n-grams: step over each repeated one, so that no character counts twice."""
    seen, place, covered = set(), 0, 0
    while place <= len(words) - n:
        gram = tuple(words[place : place + n])
        if gram in seen:
            covered, place = covered + len("".join(gram)), place + n
        else:
            seen.add(gram)
            place += 1
    return covered


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=60))
def test_n_gram_signals_are_those_of_a_plain_count(words):
    text = " ".join(words)
    signals = Words(text).repetition()
    for n in (2, 3, 4):
        assert signals[f"top_{n}_gram"] == pytest.approx(plain_top(words, n) / max(len(text), 1))
    for n in range(5, 11):
        assert signals[f"duplicate_{n}_grams"] == pytest.approx(plain_covered(words, n) / max(len(text), 1))


def test_an_ordinary_page_passes_every_family():
    for family in (GopherQuality(), C4(), FineWeb()):
        assert judge(PAGE, family).reason == "", family


def test_the_pages_of_a_novel_pass_all_rules():
    with lzma.open(BOOKS, "rt") as lines:
        novel = json.loads(next(lines))["text"]
    pages = [novel[i : i + 5000] for i in range(0, 400_000, 5000)]
    assert sum(judge(page, *web("en")).keep for page in pages) >= 0.98 * len(pages)


@pytest.mark.parametrize(
    ("text", "family", "reason"),
    [
        (SENTENCE, GopherQuality(), "too few words"),
        ("xylophone " * 60, GopherQuality(), "too few stop words"),
        ("the of " * 40, GopherQuality(), "words too short or too long"),
        ("incomprehensible and supercalifragilistic " * 60, GopherQuality(), "words too short or too long"),
        (PAGE.replace(" ", " # "), GopherQuality(), "too many hashes"),
        (PAGE.replace(" ", " 12345 "), GopherQuality(), "too few alphabetic words"),
        (f"{PAGE}\n\n" * 3, GopherRepetition(), "duplicate paragraphs"),
        (PAGE, GopherRepetition(), "duplicate 5-grams"),
        (PAGE + "\nLorem ipsum dolor sit amet.", C4(), "lorem ipsum"),
        (PAGE + "\nif (x) { return y; } ends here.", C4(), "curly bracket"),
        (SENTENCE, C4(), "too few sentences"),
        (PAGE.replace(".", " ,"), FineWeb(), "too few lines end in punctuation"),
        ("\n".join(["Home page.", "Contact.", "News.", SENTENCE]), FineWeb(), "too many short lines"),
        ("x = 1\n" + "y" * 1001, Code(), "a line too long"),
        ("\n".join(["abc = 5 " * 20] * 5), Code(), "lines too long on average"),
        ("{}[]();;" * 10, Code(), "too few letters and digits"),
        ("# Automatically generated by a tool\nx = 1", Code(), "generated code"),
        ("\u200b \n", Normalize(), "empty"),
    ],
)  # fmt: skip
def test_each_rule_drops_what_it_names(text, family, reason):
    verdict = judge(text, family)
    assert (verdict.keep, verdict.reason) == (False, reason)


def test_fineweb_drops_from_a_tenth_of_repeated_characters_as_in_the_paper():
    lines = [f"This is the line with the number {i} and it ends here." for i in range(100, 120)]
    once, thrice = "\n".join([*lines, lines[0]]), "\n".join([*lines, *lines[:3]])
    assert judge(once, FineWeb()).keep  # 1/21 = 0.05: dropped by 0.01, a default in use elsewhere
    assert judge(thrice, FineWeb()).reason == "duplicate lines"  # 3/23 = 0.13


def test_boilerplate_lines_are_removed_and_the_rest_is_kept():
    verdict = judge(f"Log in\nThis site uses cookies to serve you.\n{PAGE}", C4Lines(), C4())
    assert verdict.keep and verdict.text == PAGE.replace("\n\n", "\n")  # C4 keeps no blank line
