"""Blocked URLs and listed words."""

from pathlib import Path

import pytest

from jaxtrain.clean import BlockedUrls, ListedWords, judge
from jaxtrain.clean.filter import Record
from jaxtrain.runtime.errors import UserError


@pytest.fixture
def blocked(tmp_path: Path) -> BlockedUrls:
    (tmp_path / "list.txt").write_text("# bad ones\nbad.example  # why\nwww.worse.example\nCasino\n\n")
    return BlockedUrls((str(tmp_path / "list.txt"),))


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        ("https://bad.example/x", True),
        ("https://www.deep.BAD.example:80/x", True),
        ("http://worse.example", True),
        ("https://good.example/online-casino/win", True),
        ("https://notbad.example/", False),
        ("https://good.example/casinos", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_domains_with_those_below_and_words(blocked, url, holds):
    assert blocked.judge(Record({"text": "", "url": url})) == ("blocked url" if holds else "")


def test_listed_words_phrases_and_scripts_without_spaces(tmp_path):
    (tmp_path / "en.txt").write_text("Darn\nvery bad thing\n")
    (tmp_path / "zh.txt").write_text("坏人\n")
    lists = ListedWords((str(tmp_path),))
    assert lists.count("Darn, a darned darn! A very bad thing.") == (5, 8)
    # the run is one word, of four characters
    assert judge("这是坏人", lists).signals["listed_words"] == pytest.approx(2 / 5)
    assert judge("", lists).signals["listed_words"] == 0
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        judge("text", ListedWords((str(tmp_path / "nowhere.txt"),)))
