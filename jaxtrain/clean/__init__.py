"""Raw records to clean ones, with one reason for every drop.

In: the artifact of collect. Out: documents and conversations kept, documents held out for evaluation,
every dropped record whole with its reason, and the weights of the mixture (docs/formats.md, 2 clean).

Below are lists of filters for pages, prose, code and conversations. A config may take one as it is, change it
or write its own.

run.py            the config and the order of the steps
shards.py         records examined shard by shard, and the facts of all together
filter.py         what a filter is; one record on its way through a list of them
text.py           filters: encoding, Unicode and whitespace normal form; boilerplate lines
signals.py        words, and numbers measured on a text; stop_words.txt
quality.py        filters: the published rules
writing.py        filter: running text or shuffled words, broken encoding
language.py       filter: which language a text is in
turns.py          filter: the order of a conversation, refusals
lists.py          filters: blocked URLs, licences, listed words, quoted benchmarks
gibberish.py      filter: perplexity of characters
classifier.py     filter: probabilities of a classifier
personal.py       filter: addresses, numbers and keys replaced by placeholders
dedup.py          exact and near duplicates
substrings.py     repeated passages
balance.py        held-out documents and the weights of the mixture
census.py         what the records were like before and after
write.py          what is kept, held out, dropped
"""

from jaxtrain.clean.classifier import Classifier
from jaxtrain.clean.filter import Filter, Range, Record, judge, limit
from jaxtrain.clean.gibberish import Gibberish
from jaxtrain.clean.language import Language
from jaxtrain.clean.lists import BlockedUrls, License, ListedWords, Quotes
from jaxtrain.clean.personal import Personal
from jaxtrain.clean.quality import C4, Code, FineWeb, GopherQuality, GopherRepetition
from jaxtrain.clean.text import Boilerplate, C4Lines, Normalize
from jaxtrain.clean.turns import Turns
from jaxtrain.clean.writing import Writing

__all__ = ["Filter", "Range", "Record", "judge", "limit"]
__all__ += ["chat", "code", "prose", "web"]
__all__ += ["Boilerplate", "C4Lines", "Normalize", "Personal"]
__all__ += ["C4", "Code", "FineWeb", "GopherQuality", "GopherRepetition", "Turns", "Writing"]
__all__ += ["BlockedUrls", "Classifier", "Gibberish", "Language", "License", "ListedWords", "Quotes"]


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
