"""In sixteen languages the default filters keep a paragraph of prose and drop what is no writing."""

import random
import runpy
from pathlib import Path

import pytest

from jaxtrain.clean import Writing, judge, prose
from jaxtrain.clean.signals import Words, common_words, count_sentences
from jaxtrain.clean.writing import broken_sentences

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/languages.py"))
LINES = Path(__file__).with_name("paragraphs.txt").read_text(encoding="utf-8").splitlines()
PROSE = dict(line.split(": ", 1) for line in LINES)


@pytest.mark.parametrize("language", PROSE)
def test_prose_is_kept_and_noise_is_dropped_or_mended(language):
    text = PROSE[language]
    verdict = judge(text, *prose(language))
    assert verdict.keep, (verdict.reason, verdict.signals)
    assert judge(text, *prose()).keep, "in any language"
    found = BENCHMARK["outcome"](text, language, BENCHMARK["vocabulary"]([text], language), random.Random(0))
    assert set(found.values()) == {True}, found


@pytest.mark.parametrize(
    ("language", "sound", "broken"),
    [
        ("zh", "他说：「我明天去。」她笑了。", "」他说：我明「天去。她笑了。"),
        ("zh", "船又多又慢。我们等着。", "船 又 多 又 慢。 我 们 等 着。"),
        ("ja", "船は遅かった。私たちは待っている。", "船遅かったは。待っている私たちは。"),
    ],
)
def test_spaces_lonely_brackets_and_last_particles_tell_lists_and_shuffled_words(language, sound, broken):
    assert broken_sentences(Words(sound, language)) == 0
    assert broken_sentences(Words(broken, language)) > Writing().broken_sentences[1]


def test_at_least_thirty_languages_have_common_words():
    assert len(common_words()) >= 50 and set(PROSE) <= set(common_words())
    assert all(len(known.words) >= 10 and 0.04 < known.share < 0.5 for known in common_words().values())


def test_words_without_spaces_are_counted_by_characters_and_sentences_by_the_marks_of_the_script():
    assert Words("这是一个很长的句子", "zh").quality()["words"] == pytest.approx(9 * 2 / 3)
    mixed = Words("我们用 Debian 写字", "zh")
    assert (
        mixed.quality()["words"] == pytest.approx(1 + 5 * 2 / 3)
        and mixed.quality()["mean_word_length"] is None
    )
    assert Words("ที่นี่ดี", "th").split == ["ที่", "นี่", "ดี"]
    assert count_sentences("你好。我很好！你呢？", "zh") == 3
    assert count_sentences("यह एक है। वह दो है।", "hi") == 2
    assert count_sentences("Es kostet 3.50 Euro. Gut!", "de") == 2
    assert count_sentences("วันนี้ฝนตก พรุ่งนี้แดดออก", "th") == 2
