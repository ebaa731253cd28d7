"""The text of a PDF file in reading order, by PDFium: without headers and page numbers, hyphens mended.

The order is that in which the file draws its text, which for nearly all writers is that of reading: column
behind column, and of scripts from right to left as they are written.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from jaxtrain.formats.files import MAX_RECORD, Unread, Unreadable, read_bytes, shown

MAX_PAGES = 20_000
_EDGE = 3  # lines at the top and the bottom of a page among which furniture is looked for
_MARGIN = 0.15  # share of the page's height in which they are
_HYPHEN = "\ufffe"
"""What PDFium writes for a hyphen at the end of a line, and no line break behind it."""
_HYPHENS = ("-", "\u2010", "\xad")
_FROM_RIGHT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_LIGATURE = re.compile("[اأإآ]ل")
_NUMBER = re.compile(
    r"[\W_]*+(?:[\w.]++ )?[\W_]*+(?:\d+|[ivxlcdm]+)(?: ?(?:/|of|von|de|sur|из) ?\d+)?[\W_]*", re.I
)
_LEADERS = re.compile(r"(?<![.·…‧_])(?<![.·…‧_][ \xa0])(?:[ \xa0]?[.·…‧_]){4,}+[ \xa0]*\w{0,6}$")
_BULLET = re.compile(r"(?:[•‣▪◦●■–—*-]|\d{1,3}[.)]|\(?[a-z]\))[ \xa0]")
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


class Line(NamedTuple):
    """A line of a page and where it begins and ends, as shares of the page's width and height from below."""

    text: str
    left: float
    right: float
    bottom: float


def read_pdf(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The work in a PDF file as a record; Unreadable, by name: locked, broken or of pictures alone."""
    import pypdfium2  # of an extra

    name, data = shown(path), read_bytes(path, unread)
    if b"%%EOF" not in data[-2048:]:
        unread[f"{name} is cut"] += 1
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower() or "security" in str(error).lower()
        raise Unreadable(f"{name} is {'encrypted' if locked else 'no readable PDF file'}") from error
    with document:
        found = document.get_metadata_dict(skip_empty=True)
        pages = list(_pages(document, name, unread))
    if not any(pages):
        raise Unreadable(f"{name} holds no text, but pictures of pages at most")
    yield {
        "title": found.get("Title") or Path(name).stem,
        "author": found.get("Author", ""),
        "text": _joined(_without_furniture(pages)),
    }


def _pages(document: Any, name: str, unread: Unread) -> Iterator[list[Line]]:
    size = 0
    for number in range(min(len(document), MAX_PAGES)):
        try:
            page = document[number]
            width, height = page.get_size()
            text = page.get_textpage()
            size += text.count_chars()
            if size > MAX_RECORD:
                raise Unreadable(f"{name} is longer than {MAX_RECORD // 1_000_000} MB")
            lines = list(_lines(text, max(width, 1.0), max(height, 1.0)))
            text.close()
            page.close()
            yield lines
        except Unreadable:
            raise
        except Exception as error:  # what PDFium finds wrong with one page, the others need not have
            unread[f"a page of {name}: {type(error).__name__}"] += 1
    if len(document) > MAX_PAGES:
        unread[f"{name} has more than {MAX_PAGES:,} pages"] += 1


def _lines(page: Any, width: float, height: float) -> Iterator[Line]:
    at, last = 0, page.count_chars() - 1
    for line in re.split(r"(?<=\n)", page.get_text_range()):
        for found in _LIGATURE.finditer(line):
            # One glyph for two letters, which PDFium turns round with the line.
            if page.get_charbox(at + found.start()) == page.get_charbox(at + found.start() + 1):
                line = line[: found.start()] + found[0][::-1] + line[found.end() :]
        for start, row in _rows(page, at, line) if _FROM_RIGHT.search(line) else [(at, line)]:
            if text := " ".join(row.replace("\0", "").split()):
                first = page.get_charbox(min(start + len(row) - len(row.lstrip()), last))
                final = page.get_charbox(min(start + len(row.rstrip()) - 1, last))
                left, right = min(first[0], final[0]) / width, max(first[2], final[2]) / width
                yield Line(_LEADERS.sub("", text), left, right, final[1] / height)
        at += len(line)


def _rows(page: Any, at: int, line: str) -> list[tuple[int, str]]:
    """Rows, from the top, that PDFium takes for one line where it turns letters round, with their places."""
    cuts: list[tuple[float, int]] = []
    before = 0.0
    for place, letter in enumerate(line):
        if letter.isalnum():
            _, bottom, _, top = page.get_charbox(at + place, loose=True)
            if not cuts or abs(bottom - before) > (top - bottom) / 2:
                cuts.append((bottom, place if cuts else 0))
            before = bottom
    ends = [*(place for _, place in cuts[1:]), len(line)]
    rows = sorted(zip(cuts, ends, strict=True), reverse=True) if cuts else [((0.0, 0), len(line))]
    return [(at + begin, line[begin:end]) for (_, begin), end in rows]


def _without_furniture(pages: list[list[Line]]) -> list[list[Line]]:
    """The pages without what repeats at their edges, numbers aside, and without their numbers."""
    edges = [_edges(lines) for lines in pages]
    seen = Counter(key for edge in edges for key in {_key(line) for line in edge})
    enough = max(2, min(4, len(pages) // 10))
    kept = []
    for lines, edge in zip(pages, edges, strict=True):
        gone = {line for line in edge if seen[_key(line)] >= enough or _NUMBER.fullmatch(line.text)}
        kept.append([line for line in lines if line not in gone])
    return kept


def _edges(lines: list[Line]) -> list[Line]:
    heights = sorted({round(line.bottom, 3) for line in lines})
    low = [h for h in heights[:_EDGE] if h < _MARGIN]
    high = [h for h in heights[-_EDGE:] if h > 1 - _MARGIN]
    return [line for line in lines if round(line.bottom, 3) in {*low, *high}]


def _key(line: Line) -> str:
    return re.sub(r"\d+|\b[ivxlcdm]+\b", "#", line.text.lower())


def _joined(pages: list[list[Line]]) -> str:
    lines = [line._replace(bottom=line.bottom - n) for n, page in enumerate(pages) for line in page]
    if not lines:
        return ""
    pairs = list(zip(lines, lines[1:], strict=False))
    gaps = [gap for before, line in pairs if 0 < (gap := before.bottom - line.bottom) < 0.1]
    usual, right = median(gaps) if gaps else 0.02, max(line.right for line in lines)
    pieces = [lines[0].text]
    for before, line in pairs:
        pieces += [_between(before, line, usual, right), line.text]
    return _mended("".join(pieces))


def _between(before: Line, line: Line, usual: float, right: float) -> str:
    """What stands between two lines: nothing within a word, a space within a paragraph, or line breaks."""
    gap = before.bottom - line.bottom
    goes_on = line.text[:1].islower()
    if before.text.endswith(_HYPHEN) or before.text.endswith(_HYPHENS) and goes_on:
        return "" if before.text.endswith(_HYPHEN) else _HYPHEN
    if gap < 0 or gap > 0.5:  # another column or page
        ended = before.text.rstrip("\"'”’»)]").endswith((".", "!", "?", ":", "。", "！", "？", "؟"))
        return " " if goes_on or not ended and before.right > right - 0.15 else "\n\n"
    if gap > 1.5 * usual:
        return "\n\n"
    if _BULLET.match(line.text) or before.right < right - 0.2 and not goes_on:
        return "\n"
    return "" if _NO_SPACES.match(before.text[-1]) and _NO_SPACES.match(line.text[0]) else " "


def _mended(text: str) -> str:
    """The halves of words put together: with a hyphen where the word has one elsewhere in the text."""
    words = Counter(re.findall(r"\w+(?:-\w+)*", text.lower()))

    def mended(match: re.Match[str]) -> str:
        one, other = match[1], match[2]
        hyphened = f"{one}-{other}".lower()
        return f"{one}-{other}" if words[hyphened] > words[(one + other).lower()] else one + other

    return re.sub(rf"(?<!\w)(\w*)[-\u2010\xad]?{_HYPHEN}(\w*)", mended, text)
