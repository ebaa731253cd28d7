"""Lists of filters for kinds of sources. A config may take one as it is, change it or write its own."""

from jaxtrain.clean.filter import Filter
from jaxtrain.clean.language import Language
from jaxtrain.clean.personal import Personal
from jaxtrain.clean.quality import C4, Code, FineWeb, GopherQuality, GopherRepetition
from jaxtrain.clean.text import Boilerplate, Normalize
from jaxtrain.clean.turns import Turns
from jaxtrain.clean.writing import Writing


def web(*languages: str) -> tuple[Filter, ...]:
    """Pages, by the rules of Gopher, C4 and FineWeb. In any language if none is named."""
    # C4 wanted no code. Here the rule would cost a quarter of good technical pages, and code is trained on.
    rules = (GopherQuality(), GopherRepetition(), C4(curly_brackets=(None, None)), FineWeb())
    return (Normalize(), Boilerplate(), Language(*languages), *rules, Personal())


def prose(*languages: str) -> tuple[Filter, ...]:
    """Books and articles: running text, by Gopher's rules and ours. In any language if none is named."""
    # In a novel a dash begins a line of dialogue, and a paragraph may end in an ellipsis.
    quality = GopherQuality(bullet_lines=(None, None), ellipsis_lines=(None, None))
    return (Normalize(), Language(*languages), quality, GopherRepetition(), Writing(), Personal())


def code() -> tuple[Filter, ...]:
    """Source code, in which numbers are seldom anybody's."""
    return (Normalize(code=True), Code(), Personal(("email", "ip")))


def chat(*languages: str) -> tuple[Filter, ...]:
    """Conversations. Their language is asked for mildly: turns are short, some are code."""
    return (Normalize(), Turns(), Language(*languages, least=0.2), Personal())
