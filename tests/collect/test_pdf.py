"""PDF files of several writers, beside the text that they were made of."""

import difflib
import json
import lzma
import re
import textwrap
import zlib
from collections import Counter
from pathlib import Path

import matplotlib
import pytest
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph

from jaxtrain.collect import guard
from jaxtrain.collect.works import TextSource

DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    with lzma.open("data/quickstart/books.jsonl.xz", "rt") as file:
        text = json.loads(next(file))["text"]
    return [" ".join(p.split()) for p in text.split("\n\n") if len(p) > 300][5:35]


def read(path: Path) -> tuple[str, Counter[str]]:
    unread = Counter()
    found = list(guard.read(TextSource(name="t", paths=(str(path),)), unread))
    return "\n".join(d.text for d in found), unread


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def assert_same_words(found: str, source: str) -> None:
    """95 of 100 words of the source in their order, and one of 100 that is not of it."""
    one, other = words(source), words(found)
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    same = sum(block.size for block in blocks)
    assert same >= 0.95 * len(one) and len(other) - same <= 0.01 * len(other) + 1, (
        same,
        len(one),
        len(other),
    )


def typeset(path: Path, paragraphs: list[str], columns: int = 1, **options) -> None:
    """Paragraphs in columns below a header, above the number of the page."""
    document = BaseDocTemplate(str(path), pagesize=A4, **options)
    width = (A4[0] - 100) / columns
    frames = [Frame(50 + n * width, 50, width - 10, 740) for n in range(columns)]

    def furniture(canvas, document) -> None:
        canvas.drawString(60, 820, "A header on every page")
        canvas.drawString(290, 20, f"Page {document.page} of 9")

    document.addPageTemplates(PageTemplate(frames=frames, onPage=furniture))
    document.build(
        [Paragraph(p, ParagraphStyle("p", fontSize=10, alignment=4, spaceAfter=8)) for p in paragraphs]
    )


@pytest.mark.parametrize("columns", [1, 2])
def test_text_in_reading_order_without_headers_and_numbers(tmp_path, paragraphs, columns):
    typeset(tmp_path / "a.pdf", paragraphs, columns)
    text, unread = read(tmp_path / "a.pdf")
    assert_same_words(text, " ".join(paragraphs))
    assert not unread and "A header" not in text and "Page" not in words(text)
    assert text.count("\n\n") >= 0.8 * len(paragraphs), "paragraphs stay apart"


@pytest.mark.parametrize("hyphen", ["-", "\u2010", "\xad"])
def test_words_cut_at_the_end_of_a_line_are_whole_again(tmp_path, paragraphs, hyphen):
    pdfmetrics.registerFont(TTFont("DejaVu", str(DEJAVU)))
    canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=A4)
    source = re.sub(r"[-—]", " ", " ".join(paragraphs[:6]))
    lines, cut, line = [], 0, ""
    for word in source.split():
        if len(line) + len(word) > 60 and len(word) > 6 and word.isalpha() and word.islower():
            lines.append(f"{line}{word[:3]}{hyphen}")
            line, cut = f"{word[3:]} ", cut + 1
        elif len(line) + len(word) > 70:
            lines.append(line)
            line = f"{word} "
        else:
            line += f"{word} "
    for number, part in enumerate([*lines, line]):
        if number and number % 45 == 0:
            canvas.showPage()
        canvas.setFont("DejaVu", 10)
        canvas.drawString(50, 780 - 15 * (number % 45), part)
    canvas.save()
    text, _ = read(tmp_path / "a.pdf")
    lost = Counter(words(source)) - Counter(words(text))
    assert cut > 20 and lost.total() <= 0.05 * cut, lost


def test_scripts_from_right_to_left_come_in_the_order_of_their_letters(tmp_path):
    pdfmetrics.registerFont(TTFont("DejaVu", str(DEJAVU)))
    line = "בראשית ברא אלהים את השמים ואת הארץ"
    canvas = Canvas(str(tmp_path / "a.pdf"))
    canvas.setFont("DejaVu", 12)
    canvas.drawRightString(500, 700, line[::-1])  # as it is seen
    canvas.save()
    assert read(tmp_path / "a.pdf")[0] == line


def test_pages_of_another_writer(tmp_path, paragraphs):
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"pdf.fonttype": 42}), PdfPages(tmp_path / "a.pdf") as pages:
        for text in paragraphs[:4]:
            figure = Figure(figsize=(8, 11))
            figure.text(0.1, 0.9, "\n".join(textwrap.wrap(text.replace("$", ""), 60)), va="top")
            pages.savefig(figure)
    assert_same_words(read(tmp_path / "a.pdf")[0], " ".join(paragraphs[:4]))


def test_what_cannot_be_read_is_counted_by_name(tmp_path, paragraphs, monkeypatch):
    monkeypatch.setattr(guard, "MEMORY", 200_000_000)
    typeset(tmp_path / "whole.pdf", paragraphs[:3])
    typeset(tmp_path / "locked.pdf", paragraphs[:3], encrypt="secret")
    data = (tmp_path / "whole.pdf").read_bytes()
    (tmp_path / "cut.pdf").write_bytes(data[: len(data) // 2])
    canvas = Canvas(str(tmp_path / "picture.pdf"))
    canvas.rect(10, 10, 300, 300, fill=1)
    canvas.save()
    # A page whose content unpacks to more than that.
    packer = zlib.compressobj(9)
    stream = b"".join([*(packer.compress(b" " * 10**7) for _ in range(40)), packer.flush()])
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    body = b"".join(b"%d 0 obj%s endobj\n" % (n, o) for n, o in enumerate(objects, 1))
    (tmp_path / "bomb.pdf").write_bytes(b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF")
    unread = Counter()
    found = list(guard.read(TextSource(name="t", paths=(str(tmp_path),)), unread))
    assert [d.url for d in found] == ["whole.pdf"]
    for name in ("locked", "cut", "picture", "bomb"):
        assert any(reason.startswith(f"{name}.pdf") for reason in unread), unread
    assert unread["locked.pdf is encrypted"] == 1
