"""Raw records to clean ones, with one reason for every drop.

In: the artifact of collect. Out: documents and conversations kept, documents held out for evaluation,
every dropped record whole with its reason, and the weights of the mixture (docs/formats.md, 2 clean).

run.py            the config and the order of the steps
shards.py         records examined shard by shard, and the facts of all together
filter.py         what a filter is; one record on its way through a list of them
presets.py        lists of filters for pages, prose, code and conversations
text.py           encoding, Unicode and whitespace normal form; boilerplate lines
signals.py        words, and numbers measured on a text; stop_words.txt
quality.py        filters: normal form, the published rules
writing.py        filter: running text or shuffled words, broken encoding
language.py       filter: which language a text is in
turns.py          filter: the order of a conversation, refusals
urls.py           filters: blocked domains and words of a URL, licences
toxicity.py       filter: listed words
gibberish.py      filter: perplexity of characters
classifier.py     filter: probabilities of a classifier
contamination.py  filter: texts that quote a benchmark
personal.py       filter: addresses, numbers and keys replaced by placeholders
dedup.py          exact and near duplicates
substrings.py     repeated paragraphs, lines and passages
balance.py        held-out documents and the weights of the mixture
census.py         what the records were like before and after
write.py          what is kept, held out, dropped
"""

from jaxtrain.clean.classifier import Classifier
from jaxtrain.clean.contamination import Quotes
from jaxtrain.clean.filter import Filter, Range, Record, Verdict, judge, limit
from jaxtrain.clean.gibberish import Gibberish
from jaxtrain.clean.language import Language
from jaxtrain.clean.personal import Personal
from jaxtrain.clean.presets import chat, code, prose, web
from jaxtrain.clean.quality import (
    C4,
    Boilerplate,
    C4Lines,
    Code,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    Normalize,
)
from jaxtrain.clean.toxicity import ListedWords
from jaxtrain.clean.turns import Turns
from jaxtrain.clean.urls import BlockedUrls, License
from jaxtrain.clean.writing import Writing

__all__ = [
    "C4",
    "BlockedUrls",
    "Boilerplate",
    "C4Lines",
    "Classifier",
    "Code",
    "Filter",
    "FineWeb",
    "Gibberish",
    "GopherQuality",
    "GopherRepetition",
    "Language",
    "License",
    "ListedWords",
    "Normalize",
    "Personal",
    "Quotes",
    "Range",
    "Record",
    "Turns",
    "Verdict",
    "Writing",
    "chat",
    "code",
    "judge",
    "limit",
    "prose",
    "web",
]
