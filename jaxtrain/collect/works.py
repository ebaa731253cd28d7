"""Files of one text each, and JSON records of such, as works: `text`, `title`, `author`, `language`, …"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jaxtrain.collect.source import FileSource, Step
from jaxtrain.document import Document
from jaxtrain.formats.encoding import codec, decode
from jaxtrain.formats.epub import read_epub, read_tei
from jaxtrain.formats.files import Unread, kind_of, read_bytes, shown
from jaxtrain.formats.pdf import read_pdf
from jaxtrain.formats.rows import rows

Work = dict[str, Any]
PLAIN = (".txt", ".md", ".markdown", ".rst")
ALONE = (*PLAIN, ".epub", ".xml", ".tei", ".pdf")
"""Files of one work each."""
ENDS = (*ALONE, ".jsonl", ".json", ".parquet")
FIELDS = ("text", "title", "author", "lang", "language", "url", "id", "first_edition")
"""Fields of a record that are read."""
# ISO 639-2 codes, of which both forms are in use, and their ISO 639-1.
_CODES = """
ara=ar bul=bg cat=ca ces=cs cze=cs dan=da deu=de ger=de ell=el gre=el eng=en spa=es est=et fas=fa
per=fa fin=fi fra=fr fre=fr gle=ga heb=he hin=hi hrv=hr hun=hu hye=hy arm=hy ind=id isl=is ice=is
ita=it jpn=ja kat=ka geo=ka kor=ko lat=la lit=lt lav=lv nld=nl dut=nl nor=no nob=nb nno=nn pol=pl
por=pt ron=ro rum=ro rus=ru slk=sk slo=sk slv=sl srp=sr swe=sv tha=th tur=tr ukr=uk vie=vi zho=zh
chi=zh
"""
_SHORT = dict(pair.split("=") for pair in _CODES.split())


@dataclass(frozen=True, kw_only=True)
class TextSource(FileSource):
    """Files of one text each: plain text, Markdown, PDF, EPUB, TEI. A document a file."""

    ends: ClassVar = ALONE

    def read_file(self, path: Path, unread: Unread) -> Iterator[Step]:
        """A step for each work; one without text is counted."""
        for number, work in enumerate(_works(path, unread, codec(self.encoding)), 1):
            if not isinstance(work.get("text"), str) or not work["text"].strip():
                unread["a work without text"] += 1
                continue
            language = re.split("[-_]", str(work.get("language") or work.get("lang") or ""))[0].lower()
            work |= {
                "number": number,
                "language": _SHORT.get(language, language if len(language) == 2 else ""),
                "meta": {key: work[key] for key in ("title", "author") if work.get(key)},
            }
            run = partial(self.documents, work, shown(path))
            yield Step(f"work {number}", run, len(work["text"]))

    def documents(self, work: Work, file: str) -> Iterator[Document]:
        """Those of one work in the file of this name."""
        yield self.document(
            f"{file}\0{work['number']}\0{work['text']}",
            work["text"].strip("\n"),
            url=str(work.get("url") or file),
            language=work["language"],
            license=self.license,
            meta=work["meta"],
        )


def _works(path: Path, unread: Unread, encoding: str) -> Iterable[Work]:
    kind = kind_of(path.name)
    if kind in PLAIN:
        text = decode(read_bytes(path, unread), encoding).replace("\r\n", "\n").replace("\r", "\n")
        return [{"title": Path(shown(path)).stem, "text": text}]
    reader = {".epub": read_epub, ".xml": read_tei, ".tei": read_tei, ".pdf": read_pdf}.get(kind)
    return reader(path, unread) if reader else rows(path, unread, FIELDS, encoding)
