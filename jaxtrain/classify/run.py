"""The classify stage: labelled documents become a classifier, tested on the fifth that it did not see."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import tyro

from jaxtrain import artifact
from jaxtrain.classify import linear
from jaxtrain.classify.linear import Training
from jaxtrain.config import Stage
from jaxtrain.formats import files
from jaxtrain.formats.files import Unreadable
from jaxtrain.formats.rows import ENDS, rows
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

HELDOUT = 5  # one document of five is held out


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Documents of one label."""

    label: str
    """What they are examples of, for example `toxic`."""
    paths: tuple[str, ...]
    """Parquet, CSV or JSON-lines files, also compressed, or glob patterns."""
    text: str = "text"
    """The column of the text."""
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Column: values, as text. Only rows with one of these values; none: all rows."""


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(Stage):
    """One classifier."""

    examples: Annotated[tuple[Examples, ...], tyro.conf.Suppress]
    """At least two labels. Scores of clean are probabilities of the last one."""
    training: Training = Training()
    """How it is trained."""


def run(config: ClassifyConfig) -> Path:
    """The classifier of `config`; UserError where a label has no documents."""
    if len({example.label for example in config.examples}) < 2:
        raise UserError("`examples` needs two different labels at least")
    inputs = {path: path for example in config.examples for path in _files(example)}
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder))


def _write(config: ClassifyConfig, folder: Path) -> dict[str, Any]:
    labels = list(dict.fromkeys(example.label for example in config.examples))
    texts: dict[str, int] = {}
    for example in config.examples:
        found = [text for path in _files(example) for text in _texts(example, path)]
        if not found:
            where = ", ".join(example.paths)
            raise UserError(f"no document of label {example.label!r} in {where}; mend `only`")
        texts |= dict.fromkeys(found, labels.index(example.label))
    tested = {text for text in texts if is_heldout(text)}
    known = [text for text in texts if text not in tested]
    classifier = linear.train(known, [texts[text] for text in known], labels, config.training)
    linear.save(classifier, folder, config.training)
    true = np.array([texts[text] for text in texts if text in tested])
    guess = np.array([classifier.probabilities(text).argmax() for text in texts if text in tested])
    measured = {label: linear.f1(true == i, guess == i) for i, label in enumerate(labels)}
    for label, of in measured.items():
        precision, recall = of["precision"], of["recall"]
        say(f"classify: {label}, F1 {of['f1']:.3f} (precision {precision:.3f}, recall {recall:.3f})")
    counts = Counter(labels[i] for i in texts.values())
    return {
        "documents": dict(sorted(counts.items())),
        "heldout_documents": len(tested),
        "heldout": measured,
        "heldout_accuracy": float((true == guess).mean()),
    }


def is_heldout(text: str) -> bool:
    """By its hash, so that a text is always on the same side, and a copy of it too."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()[0] % HELDOUT == 0


def _files(example: Examples) -> list[str]:
    return [str(path) for path in files.find(example.label, example.paths, ENDS)]


def _texts(example: Examples, path: str) -> Iterator[str]:
    """UserError where the file is no table, or no row has a column that is asked for."""
    columns, known, unread = (example.text, *example.only), set[str](), Counter[str]()
    try:
        for row in rows(path, unread, columns):
            known |= row.keys()
            is_asked = all(str(row.get(name)) in values for name, values in example.only.items())
            if is_asked and row.get(example.text):
                yield str(row[example.text])
    except (Unreadable, pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a table ({str(error).splitlines()[0]})") from error
    if missing := [name for name in columns if name not in known]:
        raise UserError(f"{path} has no column {missing[0]!r}; mend `text` or `only` of {example.label!r}")
    for reason, count in unread.items():
        say(f"classify: {path}: {count} rows left out: {reason}")
