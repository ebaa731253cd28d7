"""What a model can be made to recite of its training text.

Extraction: of a training text a model is given k tokens; it is extracted where greedy continuation gives the
next 32 exactly (Carlini et al. 2023, arXiv:2202.07646). Greedy continuation gives them exactly where each of
them is the first guess behind those before it, which one forward pass shows. Held-out text is the control:
what it gives is foretold, not remembered.

Canaries: lines with a drawn number, planted a known number of times. Exposure is log2 of how far the model
ranks the planted number above others of its kind (Carlini et al. 2019, arXiv:1802.08232): 0 to 1 where it
knows nothing, log2(references + 1) where it ranks the planted one first. `jaxtrain evaluate plant` writes
both kinds of planted text, for collect, and what was planted, for evaluate.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.document import Document, read_records
from jaxtrain.evaluate.benchmarks import standard_error
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.feed.loader import heldout_sources
from jaxtrain.feed.sources import TokenData
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.tasks.interval import wilson_interval

SUFFIX = 32  # tokens that have to come word for word
CANARY = "The number of the locker of {name} is {number}."
NAMES = "Ada Boris Chen Dana Emil Farah Goran Hana Igor Jana Kofi Lena Milo Nina Omar Petra".split()  # noqa: SIM905
DIGITS = 6
PLANTED, PLANTED_DOCUMENTS = "planted.json", "planted.jsonl"
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class MemorizationConfig:
    """Which texts a model is asked to go on with."""

    sequences: int = 0
    """Of training text, and as many of held-out text; 0: none."""
    prefixes: tuple[int, ...] = (32, 64, 128)
    """Tokens that are given."""
    planted: str = ""
    """Folder that `jaxtrain evaluate plant` wrote and training saw: texts and canaries by their count."""
    references: Count = 1023
    """Numbers that a canary's is ranked among; exposure is at most log2 of one more."""


@dataclass(frozen=True, kw_only=True)
class PlantConfig:
    """Take texts out of a set of documents and repeat them known numbers of times, with canaries."""

    documents: str
    """Parquet file of documents (`documents/<source>.parquet` of a collect artifact) to cut texts from."""
    out: str
    """Folder to write: planted.jsonl for collect's `files`, planted.json for evaluate."""
    counts: tuple[int, ...] = (1, 4, 16, 64)
    """How often a text, and a canary, stands in planted.jsonl."""
    texts: int = 16
    """Texts of each count; as many more are kept out, as a control."""
    canaries: int = 4
    """Canaries of each count; as many more are kept out."""
    characters: int = 1000
    """Of a text."""
    seed: int = 0
    """Of the choice and the order."""


def plant(config: PlantConfig) -> None:
    """Write `planted.jsonl` (shuffled) and `planted.json` (count 0: the control)."""
    rng = random.Random(config.seed)
    pieces = [
        record.text[at : at + config.characters]
        for record in read_records(config.documents, Document)
        for at in range(0, len(record.text) - config.characters, config.characters)
    ]
    counts = [0, *config.counts]
    if len(pieces) < config.texts * len(counts):
        raise UserError(
            f"{config.documents} gives {len(pieces)} texts of {config.characters} characters; "
            f"{config.texts * len(counts)} are needed: lower --texts or --characters"
        )
    if config.canaries * len(counts) > len(NAMES) ** 2:
        raise UserError(f"--canaries {config.canaries} is more than there are names; give a smaller number")
    names = [f"{first} {last}" for first in NAMES for last in NAMES]
    chosen, named = rng.sample(pieces, config.texts * len(counts)), rng.sample(names, len(names))
    planted: dict[str, Rows] = {"texts": [], "canaries": []}
    documents = []
    for place, count in enumerate(counts):
        for text in chosen[place * config.texts : (place + 1) * config.texts]:
            planted["texts"].append({"text": text, "count": count})
            documents += [text] * count
        for name in named[place * config.canaries : (place + 1) * config.canaries]:
            number = f"{rng.randrange(10**DIGITS):0{DIGITS}}"
            planted["canaries"].append({"name": name, "number": number, "count": count})
            documents += [CANARY.format(name=name, number=number)] * count
    rng.shuffle(documents)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "key": str(at)}) + "\n" for at, text in enumerate(documents)]
    (folder / PLANTED_DOCUMENTS).write_text("".join(lines), encoding="utf-8")
    (folder / PLANTED).write_text(json.dumps(planted, indent=1) + "\n", encoding="utf-8")


def measure(scorer: Scorer, config: MemorizationConfig, data: str, what: str = "") -> dict[str, Rows]:
    """`extraction` rows (by `text`, `count` and `prefix`) and `exposure` rows (by `count`)."""
    asked: list[tuple[str, int | None, list[list[int]]]] = []
    rows: dict[str, Rows] = {}
    if config.sequences:
        need = min(max(config.prefixes) + SUFFIX, scorer.length)
        asked += [(text, None, ids) for text, ids in _sequences(data, config.sequences, need).items()]
    if config.planted:
        path = Path(config.planted) / PLANTED
        if not path.is_file():
            raise UserError(f"{path} is missing; write it with `jaxtrain evaluate plant`")
        planted = json.loads(path.read_text(encoding="utf-8"))
        counts = sorted({text["count"] for text in planted["texts"]})
        for count in counts:
            texts = [text["text"] for text in planted["texts"] if text["count"] == count]
            ids = [[*scorer.start, *scorer.tokenizer.encode(text)] for text in texts]
            asked.append(("planted", count, ids))
        rows["exposure"] = exposures(scorer, planted["canaries"], config.references, what)
    extraction = [
        row
        for text, count, ids in asked
        for prefix in config.prefixes
        for row in _extraction(scorer, ids, text, count, prefix, what)
    ]
    return rows | ({"extraction": extraction} if asked else {})


def _sequences(data: str, count: int, tokens: int) -> dict[str, list[list[int]]]:
    """The beginnings of `count` documents of that length at least, evenly from all, of both kinds."""
    opened, found = TokenData.open(data), {}
    kinds = {
        "training": [opened.documents(name) for name in opened.names("documents")],
        "held-out": [opened.heldout(name) for name in heldout_sources(data)],
    }
    for text, sources in kinds.items():
        long = [(records, at) for records in sources for at in np.flatnonzero(records.lengths >= tokens)]
        step = max(1, len(long) // count)
        found[text] = [
            [opened.tokenizer.bos, *records[int(at)][: tokens - 1].tolist()]
            for records, at in long[::step][:count]
        ]
    return found


def _extraction(
    scorer: Scorer, ids: Sequence[list[int]], text: str, count: int | None, prefix: int, what: str
) -> Rows:
    """A row, or none where no text is so long."""
    pairs = [(one[:prefix], one[prefix : prefix + SUFFIX]) for one in ids if len(one) >= prefix + SUFFIX]
    if not pairs or prefix + SUFFIX > scorer.length + 1:
        return []
    found = scorer.likelihoods(pairs, f"{what} {text} text behind {prefix} tokens")
    extracted = sum(likelihood.is_greedy for likelihood in found)
    low, high = wilson_interval(extracted, len(pairs))
    nats = float(np.mean([likelihood.nats for likelihood in found])) / SUFFIX
    given = {"text": text, "count": count, "prefix": prefix, "sequences": len(pairs)}
    rate = {"rate": extracted / len(pairs), "low": low, "high": high}
    return [{**given, **rate, "nats_per_token": -nats}]


def exposures(scorer: Scorer, canaries: Rows, references: int, what: str = "") -> Rows:
    """Mean exposure of the canaries of each count, with its standard error; count 0 was never trained on."""
    rng = random.Random(0)
    others = [f"{number:0{DIGITS}}" for number in rng.sample(range(10**DIGITS), references)]
    pairs = []
    for canary in canaries:
        before, after = CANARY.format(name=canary["name"], number="#").split("#")
        numbers = [canary["number"], *others]
        pairs += [(before.rstrip(), f" {number}{after}") for number in numbers]
    nats = np.array([found.nats for found in scorer.pairs(pairs, f"{what} canaries")])
    by_canary = nats.reshape(len(canaries), references + 1)
    ranks = 1 + (by_canary[:, 1:] > by_canary[:, :1]).sum(axis=1)
    exposure = np.log2(references + 1) - np.log2(ranks)
    counts = np.array([canary["count"] for canary in canaries])
    rows, most = [], float(np.log2(references + 1))
    for count in np.unique(counts).tolist():
        of = exposure[counts == count]
        told = {"exposure": float(of.mean()), "standard_error": standard_error(of), "most": most}
        rows.append({"count": count, "canaries": len(of), **told})
    return rows
