"""MediaWiki dumps: the Wikipedia sample in data/quickstart and small crafted ones."""

import bz2
import re
from collections import Counter
from pathlib import Path

import pytest

from jaxtrain.collect.guard import read_here
from jaxtrain.collect.wiki import ENGLISH_NAMESPACES, WikiSource, article_text

DUMP = Path("data/quickstart/wiki.xml.bz2")


def read(path: Path):
    unread = Counter()
    return list(read_here(WikiSource(name="wiki", paths=(str(path),)), unread)), unread


@pytest.fixture(scope="module")
def articles():
    return read(DUMP)


def test_every_page_of_the_dump_is_an_article_or_has_a_reason(articles):
    documents, unread = articles
    pages = bz2.decompress(DUMP.read_bytes()).count(b"<page>")
    assert len(documents) + unread.total() == pages == 206
    assert unread["redirect"] == bz2.decompress(DUMP.read_bytes()).count(b"<redirect ") == 100


def test_articles_read_like_an_encyclopedia(articles):
    documents, _ = articles
    anarchism = documents[0]
    assert anarchism.url == "https://en.wikipedia.org/wiki/Anarchism" and anarchism.language == "en"
    assert anarchism.text.startswith(
        "Anarchism\n\nAnarchism is a political philosophy that advocates self-governed societies based on "
        "voluntary institutions. These are often described as stateless societies,"
    )
    everything = "\n".join(document.text for document in documents)
    assert len(everything) > 2_500_000
    prose = re.sub(r"\$[^$]*\$", "", everything)  # formulas are kept as TeX
    for residue in ("[[", "]]", "{|", "<ref", "</", "File:", "Category:", "thumb|", "()", "\x02"):
        assert prose.count(residue) <= 2, (residue, prose.count(residue))
    assert len(re.findall(r"^(External links|See also)$", prose, re.MULTILINE)) == 0


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''A''' is [[B (letter)|b]] and [[c]]s.", "A is b and cs."),
        (
            "Box.{{Infobox|a=[[File:x.jpg|thumb|text]]}}\n[[File:y.png|thumb|a [[link]] in it]]\nMore.",
            "Box.\n\nMore.",
        ),
        ("Far: {{convert|5|km|mi}}, {{convert|10|to|1,200|km|mi}}.", "Far: 5 km, 10 to 1,200 km."),
        ("Rome ({{IPA-it|ˈroːma}}, {{lang-la|Roma}}) is old<ref>x</ref>.", "Rome (Roma) is old."),
        ("Nothing ({{IPA|en}}) stays.{{cn}}<!-- no -->", "Nothing (en) stays."),
        ("Empty ({{pron|x}}; ) brackets.", "Empty brackets."),
        ("List:\n* one\n** two\n# three\n", "List:\n- one\n- two\n- three"),
        (
            "Text.\n== H ==\nBody.\n== See also ==\n* [[x]]\n== References ==\n{{reflist}}\n",
            "Text.\n\nH\n\nBody.",
        ),
        ("Text.\n== Empty ==\n== H ==\n=== Deep ===\nBody.", "Text.\n\nH\n\nDeep\n\nBody."),
        ("a&nbsp;b &amp; c<br/>d", "a b & c\nd"),
        ("{| class=wikitable\n| cell\n|}\nAfter.", "After."),
        ("Sum <math>x^2</math>.", "Sum $x^2$."),
        ("See [http://a.b words] and [http://c.d].[[Category:Q]]\n[[fr:Quoi]]", "See words and."),
        ("Ada may refer to:\n== People ==\n* [[x]]", ""),
        ("Au {{s|XIX|e}} siècle, {{convert|1+1/2|in|mm}} de long.", "Au XIXe siècle, 1+1/2 in de long."),
        ("Es wurde {{Datum|12|1234}} gegründet.", "Es wurde 12 1234 gegründet."),
    ],
)
def test_markup(markup, text):
    assert article_text(markup, ENGLISH_NAMESPACES) == text


BULGARIAN = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="bg"><siteinfo>
<base>https://bg.wikipedia.org/wiki/X</base><namespaces><namespace key="6">Файл</namespace>
<namespace key="14">Категория</namespace></namespaces></siteinfo>
<page><title>Нов стил</title><ns>0</ns><revision><timestamp>2017-01-01T00:00:00Z</timestamp>
<text>[[Файл:a.jpg|мини]]Календар. [[Категория:Б]]</text></revision></page>
<page><title>Беседа</title><ns>4</ns><revision><text>x</text></revision></page></mediawiki>"""


def test_utf_16_and_namespaces_of_another_language(tmp_path):
    dump = tmp_path / "bg.xml.bz2"
    dump.write_bytes(bz2.compress(BULGARIAN.encode("utf-16")))
    documents, unread = read(dump)
    assert [(d.text, d.language, d.created) for d in documents] == [
        ("Нов стил\n\nКалендар.", "bg", "2017-01-01T00:00:00Z")
    ]
    assert documents[0].url == "https://bg.wikipedia.org/wiki/%D0%9D%D0%BE%D0%B2_%D1%81%D1%82%D0%B8%D0%BB"
    assert unread == {"namespace 4": 1}


def test_a_cut_dump_keeps_what_came_before_and_says_so(tmp_path, articles):
    cut = tmp_path / "cut.xml.bz2"
    cut.write_bytes(DUMP.read_bytes()[:600_000])
    documents, unread = read(cut)
    assert 10 < len(documents) < 100
    assert documents == articles[0][: len(documents)]
    assert unread["cut.xml.bz2 is damaged from here on: EOFError"] == 1


def test_garbage_is_counted(tmp_path):
    bad = tmp_path / "bad.xml"
    bad.write_bytes(b"<mediawiki><page>" + bytes(range(128)))
    assert read(bad) == ([], {"a page that is cut": 1, "bad.xml holds no page of MediaWiki": 1})
