from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.overlap import Phrases, item_texts, plain_words, read_items

BENCHMARKS = Path(__file__).parents[2] / "data/quickstart/benchmarks"
LONG = "Which one of these two old wooden boats would reach the far side of the lake first, and why?"
SHORT = "What is the colour of a very ripe banana?"  # 9 words


def test_a_quotation_is_found_whatever_its_case_and_punctuation():
    phrases = Phrases([LONG, SHORT])
    assert phrases.find(f"Q: {LONG.upper()} A: the first") is not None
    assert phrases.find("He asked -- what is the colour, of a very ripe BANANA -- and left") == (
        "what is the colour of a very ripe banana"
    )


def test_thirteen_words_of_a_long_item_are_enough_and_twelve_are_not():
    phrases, words = Phrases([LONG]), plain_words(LONG)
    assert phrases.find("so " + " ".join(words[3:16]) + " so") == " ".join(words[3:16])
    assert phrases.find("so " + " ".join(words[3:15]) + " so") is None


def test_part_of_a_short_item_or_a_very_short_item_is_no_quotation():
    phrases = Phrases([SHORT, "What is the capital of France?"])
    assert phrases.find("What is the colour of a very ripe plum?") is None
    assert phrases.find("What is the capital of France?") is None


def test_a_paraphrase_is_no_quotation():
    text = "Two old boats made of wood set out; which would be first on the far shore of the lake, and why?"
    assert Phrases([LONG]).find(text) is None


def test_each_long_item_of_the_quickstart_benchmarks_is_found_in_a_page_that_quotes_it():
    for path in sorted(BENCHMARKS.glob("*.jsonl.gz")):
        items = [item for item in read_items(path) if len(plain_words(item)) >= 8]
        phrases = Phrases(items)
        assert len(items) > 300
        assert all(phrases.find(f"Some words before it. {item} And some after.") for item in items), path.name


def test_a_blank_is_filled_with_either_option():
    row = {"sentence": "Ann beat Eve as _ ran.", "option1": "Ann", "option2": "Eve", "answer": "1"}
    assert list(item_texts(row)) == ["Ann beat Eve as Ann ran.", "Ann beat Eve as Eve ran."]


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="nowhere.jsonl"):
        list(read_items("nowhere.jsonl"))
