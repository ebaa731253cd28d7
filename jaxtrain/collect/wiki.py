"""MediaWiki XML dumps (export format 0.10 and 0.11) to the text of their articles.

What a reader of the page sees as running text stays: prose, headings, lists, quotations. Boxes, tables,
footnotes, pictures, categories and the link lists at the end go. Names of namespaces come from the dump
itself, so any language works.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from jaxtrain.collect.files import DAMAGED, Unread, find, open_bytes
from jaxtrain.document import Document, record_id

DROPPED_TAGS = {"ref", "references", "table", "gallery", "timeline", "score", "imagemap", "hiero", "chem"}
ENGLISH_NAMESPACES = {"file", "image", "media", "category"}  # understood by the MediaWiki of every language
# Templates that stand for words of the sentence ({1}: first parameter). All others are boxes and footnotes.
WORDS = {
    "lang": "{2}",
    "transl": "{2}",
    "nowrap": "{1}",
    "nobr": "{1}",
    "quote": "{1}",
    "blockquote": "{1}",
    "cquote": "{1}",
    "abbr": "{1}",
    "small": "{1}",
    "em": "{1}",
    "math": "{1}",
    "mvar": "{1}",
    "sc": "{1}",
    "smallcaps": "{1}",
    "linktext": "{1}",
    "visible anchor": "{1}",
    "vanchor": "{1}",
    "frac": "{1}/{2}",
    "as of": "As of {1}",
    "circa": "c. {1}",
    "c.": "c. {1}",
    "sup": "{1}",
    "sub": "{1}",
    "val": "{1}",
    "ipa": "{1}",
    "'": "'",
    "ndash": "–",
    "mdash": "—",
    "spaced ndash": " – ",
    "snd": " – ",
}
RANGES = {"-", "–", "to", "and", "or", "by", "x", "+/-", "±"}  # between the numbers of {{convert|5|to|9|km}}
APPARATUS = {
    "see also",
    "references",
    "external links",
    "further reading",
    "notes",
    "footnotes",
    "citations",
    "notes and references",
    "sources",
}
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z-]+)?:")
MENDS = (  # what the text shows where something was taken out
    (re.compile(r"__[A-Z]+__"), ""),
    (re.compile(r"<ref\b[^>]*>.*?</ref>|</?[a-z]+\b[^<>\n]*>"), ""),  # left by markup that does not nest
    (re.compile(r"\[\[[^\]\n]*\||\[\[|\]\]"), ""),
    (re.compile(r"'''(?=s\b)"), "'"),
    (re.compile(r"'{2,}(?![\w(])"), ""),
    (re.compile(r"[ \t\xa0]+"), " "),
    (re.compile(r"\( ?(?:[,;:] ?)+"), "("),
    (re.compile(r"(?: ?[,;:])* ?\)"), ")"),
    (re.compile(r" ?\(\)"), ""),
    (re.compile(r" +([,.;])(?=\s|$)"), r"\1"),
    (re.compile(r"^ ?(?:- ?)*- ?", re.MULTILINE), "- "),
    (re.compile(r"^(?:- ?|- ?[,;:.] .*|[|!{}].*)$", re.MULTILINE), ""),
    (re.compile(r"^ +| +$", re.MULTILINE), ""),
)


@dataclass(frozen=True, kw_only=True)
class WikiSource:
    """Articles of a wiki."""

    name: str
    """Name of the source and of its file."""
    paths: tuple[str, ...]
    """Dump files or glob patterns (`pages-articles.xml.bz2`)."""
    license: str = "CC-BY-SA-3.0"
    """SPDX identifier of the wiki's text."""


def read_wiki(source: WikiSource, unread: Unread) -> Iterator[Document]:
    """A document an article (namespace 0), in the order of the dump; `unread` counts the rest by reason."""
    for path in find(source.name, source.paths):
        try:
            with open_bytes(path) as file:
                yield from _articles(file, source, unread)
        except (*DAMAGED, ElementTree.ParseError) as error:
            unread[f"{path.name} is damaged from here on: {type(error).__name__}"] += 1


def _articles(file: IO[bytes], source: WikiSource, unread: Unread) -> Iterator[Document]:
    base, language, hidden = "", "", set(ENGLISH_NAMESPACES)
    root = None
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        tag = element.tag.rpartition("}")[2]
        if root is None:
            root = element
            language = element.get("{http://www.w3.org/XML/1998/namespace}lang", "")
        elif event == "start":
            continue
        elif tag == "base":
            base = (element.text or "").rpartition("/")[0]
        elif tag == "namespace" and element.get("key") in ("6", "14"):
            hidden.add((element.text or "").lower())
        elif tag == "page":
            page = {child.tag.rpartition("}")[2]: child.text or "" for child in element.iter()}
            redirect = any(child.tag.endswith("}redirect") or child.tag == "redirect" for child in element)
            root.clear()  # a dump has millions of pages
            if redirect or page.get("ns") != "0":
                unread["redirect" if redirect else f"namespace {page.get('ns')}"] += 1
                continue
            text = article_text(page.get("text", ""), hidden)
            if not text:
                unread["no prose: a disambiguation or empty page"] += 1
                continue
            title = page["title"]
            yield Document(
                id=record_id(source.name, title),
                text=f"{title}\n\n{text}",
                source=source.name,
                url=f"{base}/{quote(title.replace(' ', '_'))}",
                language=language,
                license=source.license,
                created=page.get("timestamp", ""),
                meta={"title": title},
            )


def article_text(markup: str, hidden_namespaces: set[str]) -> str:
    """Plain text of MediaWiki markup; links to `hidden_namespaces` (lower case) are left out."""
    text = _render(mwparserfromhell.parse(markup), hidden_namespaces)
    for pattern, mended in MENDS:
        text = pattern.sub(mended, text)
    lead, *rest = re.split(r"^\x02(\d)(.*)$", text, flags=re.MULTILINE)
    kept: list[tuple[int, str]] = []
    for level, title, body in reversed(list(zip(rest[::3], rest[1::3], rest[2::3], strict=True))):
        body = body.strip()
        last_lists = not kept and not _has_prose(body)  # link lists at the end, whatever their language
        apparatus = last_lists or title.strip().lower() in APPARATUS
        above_kept = bool(kept) and kept[-1][0] > int(level)
        if not apparatus and (body or above_kept):
            kept.append((int(level), f"{title.strip()}\n\n{body}"))
    if not kept and (not lead.strip() or lead.rstrip().endswith(":")):  # "Ada may refer to:"
        return ""
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join([lead, *(section for _, section in reversed(kept))])).strip()


def _has_prose(body: str) -> bool:
    return any(line and not line.startswith("- ") for line in body.split("\n"))


def _render(code: Wikicode | None, hidden: set[str]) -> str:
    """Text of the nodes; a heading becomes a line of \\x02, its level and its title."""
    text = ""
    for node in code.nodes if code else ():
        match node:
            case nodes.Text():
                text += node.value
            case nodes.Wikilink():
                text += _link(node, hidden)
            case nodes.ExternalLink():
                text += _render(node.title, hidden) if node.brackets else ""
            case nodes.Template():
                text += _template(node, hidden)
            case nodes.Heading():
                text += f"\n\x02{node.level}{_render(node.title, hidden)}\n"
            case nodes.HTMLEntity():
                text += node.normalize()
            case nodes.Tag():
                text += _tag(node, hidden, line_start=not text or text.endswith(("\n", "- ")))
    return text


def _link(node: nodes.Wikilink, hidden: set[str]) -> str:
    target = str(node.title).strip()
    if ":" in target and target.partition(":")[0].strip().lower() in hidden:
        return ""
    if node.text is None and INTERLANGUAGE.match(target):
        return ""
    return _render(node.text, hidden) if node.text is not None else target.lstrip(":")


def _template(node: nodes.Template, hidden: set[str]) -> str:
    name = str(node.name).strip().lower().replace("_", " ")
    values = {str(p.name).strip(): p.value for p in node.params}
    if name in ("convert", "cvt"):
        words: list[str] = []
        for index in range(1, len(values) + 1):  # up to the unit
            words.append(_render(values.get(str(index)), hidden).strip())
            if (
                not words[-1].replace(",", "").replace(".", "").lstrip("-−").isdigit()
                and words[-1] not in RANGES
            ):
                break
        return " ".join(words)
    pattern = "{1}" if name.startswith("lang-") else WORDS.get(name, "")
    return re.sub(r"\{(\d)\}", lambda match: _render(values.get(match[1]), hidden).strip(), pattern)


def _tag(node: nodes.Tag, hidden: set[str], line_start: bool) -> str:
    name, markup = str(node.tag).strip().lower(), node.wiki_markup
    if name in DROPPED_TAGS:
        return ""
    if markup in ("*", "#"):
        return "- "
    if markup in (";", ":"):
        return "" if line_start else ": "  # "; term : definition"
    if name == "math":
        return f"${str(node.contents).strip()}$"
    return "\n" if name == "br" else _render(node.contents, hidden)
