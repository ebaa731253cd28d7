"""Bytes to text: by the byte order mark, as declared, as valid UTF-8, else as detected; never broken.

Labels are those of the WHATWG Encoding Standard, which browsers go by, and each is read as its superset there
(`gb2312` as GB 18030, `latin1` as Windows-1252).
"""

import codecs
import re
from contextlib import suppress

# Those of UTF-32 begin with those of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
}
_SUPERSETS = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "iso8859-11": "cp874"}
# Text in these may by chance be valid UTF-8; in an encoding of one byte a character it is not.
_OF_SEVERAL_BYTES = {"gb18030", "cp932", "cp949", "big5", "big5hkscs", "euc_jp", "iso2022_jp", "utf-16-be"}
_SAMPLE = 1 << 17


def codec(label: str) -> str:
    """Python's name of an encoding that a label of the WHATWG, or Python itself, knows; empty: none does."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    name = map_encoding_to_html5(label.strip().lower(), fallback_utf8=False)
    if name is None:
        try:
            found = codecs.lookup(label)
        except (LookupError, UnicodeError, ValueError):
            return ""
        return found.name if found._is_text_encoding and found.name not in ("undefined", "idna") else ""
    return _SUPERSETS.get(name, name)


def decode(data: bytes, encoding: str = "", html: bool = False) -> str:
    """Text of `data`; UnicodeDecodeError where no encoding fits.

    encoding: Python's name of the one that is declared. Declarations are often wrong: valid UTF-8 that is no
        ASCII is taken for that, and where the declared encoding does not fit another is detected.
    html: look for `<meta charset>` too.
    """
    if mark := mark_of(data):
        return data.decode(mark)
    if not encoding or encoding not in _OF_SEVERAL_BYTES:
        try:
            text = data.decode()
            if not (encoding or html) or not data.isascii() and "\0" not in text[:_SAMPLE]:
                return text
        except UnicodeDecodeError as error:
            # A few broken bytes in a long text are damage, not another encoding.
            if encoding in ("utf-8", "") and is_mostly_utf8(data, error):
                return data.decode("utf-8", "replace" if html else "strict")
    for name in filter(None, (encoding, detect(data, html))):
        with suppress(UnicodeDecodeError):
            return data.decode(name)
    if html:
        from resiliparse.parse.encoding import bytes_to_str

        return bytes_to_str(data, encoding or detect(data, html) or "utf-8", "replace")
    raise UnicodeDecodeError(encoding or "utf-8", data[:16], 0, 1, "no encoding fits")


def is_mostly_utf8(data: bytes, error: UnicodeDecodeError) -> bool:
    """Whether the bytes around are UTF-8: of a hundred characters that are no ASCII one is broken."""
    text = data[max(0, error.start - _SAMPLE) : error.start + _SAMPLE].decode("utf-8", "replace")
    broken, whole = text.count("\ufffd"), sum(map("\x80".__le__, text))
    return broken * 100 <= whole


def mark_of(data: bytes) -> str:
    """The encoding that a byte order mark names, or two letters of UTF-16; empty without them."""
    if letters := re.match(rb"(\0[^\0]){2}|([^\0]\0){2}", data):
        return "utf-16-be" if letters[1] else "utf-16-le"
    return next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")


def detect(data: bytes, html: bool = False) -> str:
    """Python's name of the encoding that a text is probably in; empty where nothing speaks for one."""
    from resiliparse.parse.encoding import detect_encoding

    # What is compatible with HTML5 does not know Korean.
    return codec(detect_encoding(data, from_html_meta=html, html5_compatible=False) or "")
