"""Raw records to clean ones, with one reason for every drop.

In: the artifact of collect. Out: documents and conversations kept, documents held out for evaluation,
every dropped record whole with its reason, and the weights of the mixture (docs/formats.md, 2 clean).

run.py            the config and the order of the steps
shards.py         records examined shard by shard, and the facts of all together
examine.py        what is done to one record by itself
text.py           encoding, Unicode and whitespace normal form; boilerplate lines
language.py       which language a text is in
signals.py        numbers measured on a text
quality.py        the published rules over them; `judge`
urls.py           blocked domains and words of a URL
toxicity.py       listed words
gibberish.py      perplexity of characters
personal.py       addresses, numbers and keys replaced by placeholders
contamination.py  texts that quote a benchmark
dedup.py          exact and near duplicates
substrings.py     repeated paragraphs, lines and passages
balance.py        held-out documents and the weights of the mixture
census.py         what the records were like before and after
write.py          what is kept, held out, dropped
"""

from jaxtrain.clean.quality import Verdict, judge

__all__ = ["Verdict", "judge"]
