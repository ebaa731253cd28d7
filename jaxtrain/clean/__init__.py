"""Raw records to clean ones, with one reason for every drop.

In: the artifact of collect. Out: documents and conversations kept, documents held out for evaluation,
every dropped record whole with its reason, and the weights of the mixture (docs/formats.md, 2 clean).

run.py            the config and the order of the steps
text.py           encoding, Unicode and whitespace normal form; boilerplate lines
language.py       which language a text is in
quality.py        signals (numbers) of a text, and the published rules over them; `judge`
personal.py       e-mail and IP addresses, phone and card numbers replaced by placeholders
contamination.py  texts that quote a benchmark
dedup.py          exact and near duplicates
balance.py        held-out documents and the weights of the mixture
"""

from jaxtrain.clean.quality import Verdict, judge

__all__ = ["Verdict", "judge"]
