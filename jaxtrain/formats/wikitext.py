"""MediaWiki markup to plain text.

What a reader of the page sees as running text stays: prose, headings, lists, quotations, code as it is
written. Boxes, tables, footnotes, pictures, categories and the link lists at the end go.
"""

import html
import re
from collections import Counter

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

DROPPED_TAGS = {"ref", "references", "table", "gallery", "timeline", "score", "imagemap", "hiero", "chem"}
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_VERBATIM = re.compile(r"<(nowiki|pre|syntaxhighlight|source|math|code|tt|kbd)\b([^<>]*)>", re.I)
VOID = {"br", "hr", "wbr", "references"}
# Templates that stand for words of the sentence ({1}: first parameter, {-1}: last). Those that say a number
# are known by it; all others are boxes and footnotes.
_FIRST = """
nowrap nobr quote blockquote cquote zitat цитата abbr small em math mvar sc smallcaps linktext vanchor sup sub
val ipa code mono kbd samp ill lien link-interwiki nihongo
"""
WORDS = {
    **dict.fromkeys(("lang", "langue", "transl"), "{2}"),
    **dict.fromkeys(_FIRST.split(), "{1}"),
    **{"visible anchor": "{1}", "w": "{-1}", "frac": "{1}/{2}", "as of": "As of {1}", "'": "'"},
    **dict.fromkeys(("circa", "c."), "c. {1}"),
    **{"ndash": "–", "mdash": "—", "spaced ndash": " – ", "snd": " – "},
}
CONVERTED = re.compile(r"(?:[^|]*\|(?:[-–x±]|to|and|or|by|\+/-)\|)*[^|]*(?:\|[^|]+)?")
"""`5|to|9|km` of {{convert|5|to|9|km|mi}}."""
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z-]+)?:")
PICTURE = re.compile(
    r"[^:\n]+:.*\.(?:jpe?g|png|svg|gif|tiff?|webp|og[agv]|web[mp]|djvu|pdf|midi?|wav|mp3|flac|opus|mpe?g|xcf|stl)\s*",
    re.I | re.S,
)
"""A file in any language: namespaces have aliases that a dump does not name."""
NUMBER = re.compile(r"[-−+±~≈]?\d[\d\s.,'’/:\xa0\u202f]*")
NUMBERED = re.compile("r|rp|p|pp|page|sfn|ref|refn|note|coord|coordinate|age|isbn|issn")
"""Templates whose number is none of the sentence."""
CENTURY = re.compile(r"(?:[IVXLC]+|\d+)(?:er|re|e|ère|ème|º|ª)?(?:[ _]\w+)?")
_OUT = "\x03"
"""Stands where something was taken out."""
_CODE = "\ue100"
"""Stands for a piece of code, with its number and another one behind it."""
_OPENS = {"}}": "{{", "]]": "[[", "|}": "{|"}
_DEEP = 30  # elements within each other; the parser gives up at 40, and takes long for it
_TOKEN = re.compile(
    r"(?P<open>\{\{|\[\[|^[ :*#]*\{\|)|(?P<close>\}\}|\]\]|^[ \t]*\|\}(?!\}))"
    r"|(?P<out>\[)(?=(?:https?:|ftp:|mailto:)?//|mailto:)|(?P<end>\])|(?P<line>\n)"
    r"|<(?P<slash>/?)(?P<tag>[A-Za-z]{1,20})\b(?:[^<>\n\"]|\"[^<>\"\n]*\"|\n)*?(?P<single>/?)>"
    r"|(?P<stray><(?=[A-Za-z/]))",
    re.M,
)
_MENDS = (  # what the text shows where something was taken out
    (re.compile(r"__[A-Z]+__"), ""),
    (re.compile(r"</?[a-z]+\b[^<>\n]*>"), ""),  # left by markup that does not nest
    (re.compile(r"\[\[|\]\]"), ""),
    (re.compile(r"[ \t\xa0]+"), " "),
    (re.compile(r"^ ?(?:- ?)*- ?", re.M), "- "),
    (re.compile(r"^(?:- ?|- ?[,;:] .*|[|!{}].*)$", re.M), ""),
    (re.compile(r"^ +| +$", re.M), ""),
)
_BRACKETS = re.compile(rf" ?\(([^()\n{_OUT}]*{_OUT}[^()\n]*)\)")


def plain_text(markup: str, hidden_namespaces: set[str]) -> str:
    """Text of MediaWiki markup; links to `hidden_namespaces` (lower case) are left out.

    A heading becomes a line of \\x02, its level and its title.
    """
    code: list[str] = []
    markup = re.sub("[\x00-\x08\ue100-\ue10f]", "", markup)
    markup = _balanced(_without_code(_COMMENT.sub("", markup), code))
    text = _render(mwparserfromhell.parse(markup, skip_style_tags=True), hidden_namespaces)
    text = re.sub(r"'{3}(?=s\b)", "'", text)
    text = re.sub(r"'{2,5}", lambda quotes: "'" * (len(quotes[0]) == 4), text)
    text = _BRACKETS.sub(_mended_brackets, text).replace(_OUT, "")
    for pattern, mended in _MENDS:
        text = pattern.sub(mended, text)
    text = re.sub(r" ([,.;])(?=\s|$)", r"\1", text, flags=re.M)
    return re.sub(f"{_CODE}(\\d+){_CODE}", lambda match: code[int(match[1])], text)


def _without_code(markup: str, code: list[str]) -> str:
    """The markup with a mark for each piece of code, which goes to `code` as a reader sees it."""
    unclosed = set[str]()
    pieces: list[str] = []
    at, lower = 0, markup.lower()
    while found := _VERBATIM.search(markup, at):
        name, is_single = found[1].lower(), found[2].endswith("/")
        end = -1 if name in unclosed or is_single else lower.find(f"</{name}", found.end())
        if end < 0:
            unclosed |= set() if is_single else {name}
            pieces.append(markup[at : found.end()])
            at = found.end()
            continue
        inside = markup[found.end() : end]
        # Some of these may hold markup.
        is_code = name not in ("code", "tt", "kbd") or not re.search(r"\[\[|\{\{|'{2}", inside)
        pieces += [markup[at : found.start()], f"{_CODE}{len(code)}{_CODE}" if is_code else inside]
        code += [_as_seen(name, inside)] * is_code
        at = lower.find(">", end) + 1 or len(markup)
    return "".join([*pieces, markup[at:]])


def _as_seen(name: str, inside: str) -> str:
    if name == "math":
        return f"${inside.strip()}$"
    if name not in ("syntaxhighlight", "source"):
        inside = html.unescape(re.sub(r"</?nowiki ?/?>", "", inside))
    return inside.strip("\n") if name in ("pre", "syntaxhighlight", "source") else inside


def _balanced(markup: str) -> str:
    """The markup without brackets and tags that lack their other half, which cost the parser square time."""
    dropped: list[tuple[int, int]] = []
    stack: list[tuple[str, re.Match[str]]] = []
    opened: Counter[str] = Counter()
    outward: list[re.Match[str]] = []
    for token in _TOKEN.finditer(markup):
        kind = (token["open"] or token["close"] or "").strip(" :*#\n") or (token["tag"] or "").lower()
        if token["line"]:
            dropped += [other.span("out") for other in outward]
            outward.clear()
        elif token["end"]:
            del outward[-1:]
        elif token["out"]:
            outward.append(token)
        elif token["open"] or token["tag"] and not (token["slash"] or token["single"] or kind in VOID):
            stack.append((kind, token))
            opened[kind] += 1
        elif not (token["stray"] or token["close"] or token["slash"]):  # <br/>
            continue
        elif token["stray"] or not opened[kind := _OPENS.get(kind, kind)]:
            dropped.append(token.span())
        else:
            while (top := stack.pop())[0] != kind:
                opened[top[0]] -= 1
                dropped.append(top[1].span())
            opened[kind] -= 1
            dropped += [top[1].span(), token.span()] * (len(stack) >= _DEEP)
    dropped += [token.span() for _, token in stack] + [token.span("out") for token in outward]
    kept, at = [], 0
    for begin, end in sorted(dropped):
        kept.append(markup[at:begin])
        at = max(at, end)
    return "".join([*kept, markup[at:]])


def _mended_brackets(match: re.Match[str]) -> str:
    inside = re.sub(r"(?<![\s,;:])\s*[,;:](?:\s*[,;:])+", ",", match[1].replace(_OUT, "")).strip(" \t,;:")
    return f"{' ' * match[0].startswith(' ')}({inside})" if inside else ""


def _render(code: Wikicode | None, hidden: set[str]) -> str:
    text = ""
    for node in code.nodes if code else ():
        match node:
            case nodes.Text():
                text += node.value
            case nodes.Wikilink():
                text += _link(node, hidden)
            case nodes.ExternalLink():
                text += (_render(node.title, hidden) or _OUT) if node.brackets else ""
            case nodes.Template():
                text += _template(node, hidden, inline=bool(text.rstrip(" ")) and text[-1] != "\n") or _OUT
            case nodes.Heading():
                text += f"\n\x02{node.level}{_render(node.title, hidden)}\n"
            case nodes.HTMLEntity():
                text += node.normalize()
            case nodes.Tag():
                text += _tag(node, hidden, line_start=not text or text.endswith(("\n", "- ")))
    return text


def _link(node: nodes.Wikilink, hidden: set[str]) -> str:
    target = str(node.title).strip()
    if ":" in target and target.partition(":")[0].strip().lower() in hidden or PICTURE.fullmatch(target):
        return _OUT
    if node.text is None and INTERLANGUAGE.match(target):
        return _OUT
    return _render(node.text, hidden) if node.text is not None else target.lstrip(":")


def _template(node: nodes.Template, hidden: set[str], inline: bool) -> str:
    written = str(node.name).strip().replace("_", " ")
    name = written.lower()
    if name.startswith("formatnum:"):
        return written.partition(":")[2].strip()
    values = {str(p.name).strip(): p.value for p in node.params}
    if name in ("convert", "cvt"):
        said = "|".join(_render(values[key], hidden).strip() for key in "123456" if key in values)
        return CONVERTED.match(said)[0].replace("|", " ")  # type: ignore[index]
    pattern = "{1}" if name.startswith("lang-") else WORDS.get(name)
    if pattern is not None:
        last = str(max((int(key) for key in values if re.fullmatch(r"[1-9]", key)), default=1))
        return re.sub(
            r"\{(-?\d)\}",
            lambda match: _render(values.get(last if match[1] == "-1" else match[1]), hidden).strip(),
            pattern,
        )
    if not inline:  # a box, or the layout of what follows
        return ""
    return _number(name, values, hidden) if values else written * bool(CENTURY.fullmatch(written))


def _number(name: str, values: dict[str, Wikicode], hidden: set[str]) -> str:
    """What a template of any name says that begins with a number: `2000 m` of {{unité|2000|m}}."""
    if NUMBERED.fullmatch(name.rstrip("-")) or not 1 <= len(values) <= 6 or "1" not in values:
        return ""
    words = [_render(values[key], hidden).strip() for key in "12345" if key in values]
    if words[0].isalpha() and CENTURY.fullmatch(joined := "".join(words)):  # {{s|XIX|e}}
        return joined
    if not NUMBER.fullmatch(words[0]) or len(words) > 4:
        return ""
    if len(words) == 3 and all(word.isdigit() for word in words):
        return ".".join(words)  # a date
    # Behind the number its unit or noun, but no code such as DE-NN.
    return " ".join(word for word in words if word and not re.fullmatch(r"[A-Z]{2,}(?:-\w+)*", word))


def _tag(node: nodes.Tag, hidden: set[str], line_start: bool) -> str:
    name, markup = str(node.tag).strip().lower(), node.wiki_markup
    if name in DROPPED_TAGS:
        return _OUT
    if markup in ("*", "#"):
        return "- "
    if markup in (";", ":"):
        return "" if line_start else ": "  # "; term : definition"
    return "\n" if name == "br" else _render(node.contents, hidden)
