"""Cleaning, step by step: a record is dropped for one reason, that of the first step to reject it.

Texts pass through in shards (shards.py); of all records together only some facts are in memory.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from jaxtrain import artifact
from jaxtrain.clean import balance, chat, dedup, prose, shards, substrings
from jaxtrain.clean.balance import Balance
from jaxtrain.clean.census import Census
from jaxtrain.clean.filter import Filter
from jaxtrain.clean.lists import Quotes
from jaxtrain.clean.quality import Code
from jaxtrain.clean.shards import Facts, Filters
from jaxtrain.clean.write import write_source
from jaxtrain.config import Stage
from jaxtrain.document import source_files
from jaxtrain.engine import EMBEDDED
from jaxtrain.fields import Operational
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say


@dataclass(frozen=True, kw_only=True)
class CleanConfig(Stage):
    """Cleaning of everything that one collect artifact holds."""

    VERSION: ClassVar[int] = 3

    documents: str
    """Folder of the collect artifact."""
    filters: Annotated[dict[str, tuple[Filter, ...]], tyro.conf.Suppress] = field(default_factory=dict)
    """What each source passes through, in order; a source that is not named, `prose()`, and one of
    conversations `chat()` (jaxtrain/clean). Of two duplicates that of the source named first is kept."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Weight of each source of documents in training; any scale. Empty for conversations alone."""
    similarity: float = dedup.SIMILARITY
    """Least Jaccard similarity (0 to 1) of the word 5-grams of near duplicates; of conversations that of all
    turns and that of the answers alone, so an answer of fewer than five words makes none."""
    repeated_words: int = 0
    """Passages of this many words or more that stood before are cut out; 0: none, 50: usual."""
    heldout_bytes: int = 400_000
    """UTF-8 bytes of documents to hold out for evaluation, shared out by weight, code at most a fifth."""
    balance: Balance = Balance()
    """How `mixture` becomes the weights of training."""
    engine: Operational[str] = EMBEDDED
    """Where the work is done: `embedded`, `ray` (a local Ray) or `ray://HOST:PORT`. The results are equal."""
    workers: Operational[int] = 0
    """Shards at work at once; 0: one a core."""


WORKING = "working"


def run(config: CleanConfig) -> Path:
    """The clean artifact of `config`; UserError where its sources or files of filters do not exist."""
    artifact.require(config.documents, "collect")
    steps = [step for of in config.filters.values() for step in of]
    inputs = {"documents": config.documents} | {path: path for step in steps for path in step.files()}
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder), resume=True)


def _write(config: CleanConfig, folder: Path) -> artifact.Counts:
    filters = _filters(config)
    quotes = [step for of in filters["documents"].values() for step in of if isinstance(step, Quotes)]
    for phrases in {step.benchmarks: step.phrases()[0] for step in quotes}.values():
        say(f"clean: {len(phrases):,} benchmark phrases")
    census = Census(filters["documents"])
    both = []
    with _timed("examine"):
        for kind, of in filters.items():
            found = shards.list_shards(Path(config.documents), kind, of, folder / WORKING)
            shards.examine_all(found, of, config.engine, config.workers, f"clean: shards of {kind}")
            both.append(Facts(found, of))
    documents, conversations = both
    census.step("collected", [(facts, np.ones(len(facts.id_R), bool)) for facts in both], collected=True)
    census.step("examined", _left(both))
    with _timed("exact duplicates"):
        for facts in both:
            facts.drop_exact()
    census.step("exact duplicates removed", _left(both))
    with _timed("near duplicates"):
        for facts in both:
            facts.drop_near(config.similarity)
    census.step("near duplicates removed", _left(both))
    if config.repeated_words:
        with _timed("repeated passages"):
            substrings.cut_repeats(documents, config.repeated_words)
        census.step("repeated passages removed", _left(both))
    for facts in both:
        _tell(config, facts)
    with _timed("hold out"):
        mixture = _hold_out(config, documents)
    census.step("kept", _left(both))
    with _timed("write"):
        counts = _write_all(folder, both, census)
    described = census.found(documents, conversations)
    (folder / "mixture.json").write_text(json.dumps(mixture, indent=2, sort_keys=True) + "\n")
    (folder / "funnel.json").write_text(json.dumps(counts["funnel"], indent=2, sort_keys=True) + "\n")
    (folder / "census.json").write_text(json.dumps(described, sort_keys=True, ensure_ascii=False) + "\n")
    shutil.rmtree(folder / WORKING)
    return counts


@contextmanager
def _timed(step: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    say(f"clean: {step}, {time.monotonic() - begun:.1f} s")


def _left(both: list[Facts]) -> list[tuple[Facts, np.ndarray]]:
    return [(facts, facts.alive_R & ~facts.heldout_R) for facts in both]


def _filters(config: CleanConfig) -> dict[str, Filters]:
    """Of the sources of documents and of conversations; UserError where the config does not fit them."""
    kinds = {"documents": prose(), "conversations": chat()}
    sources = {kind: [path.stem for path in source_files(Path(config.documents) / kind)] for kind in kinds}
    documents, chats = sources.values()
    if both := sorted(set(chats) & set(documents)):
        raise UserError(f"{both[0]} names documents and conversations; name one of them otherwise in collect")
    for name, known in (("filters", documents + chats), ("mixture", documents)):
        if unknown := sorted(set(getattr(config, name)) - set(known)):
            has = f"{config.documents} has {', '.join(sorted(known))}"
            raise UserError(f"`{name}` names {', '.join(unknown)}, but {has}")
    if missing := sorted(set(documents) - set(config.mixture)):
        raise UserError(f"{config.documents} has {', '.join(missing)}, which `mixture` does not name; add it")
    weights = config.mixture.values()
    if documents and (min(weights) < 0 or not sum(weights)):
        raise UserError("`mixture` needs weights of at least 0, and one above 0")
    order = [*config.filters, *documents, *chats].index
    return {
        kind: {source: config.filters.get(source, usual) for source in sorted(sources[kind], key=order)}
        for kind, usual in kinds.items()
    }


def _tell(config: CleanConfig, facts: Facts) -> None:
    """Say what each source lost and why; UserError where one that has a weight lost all."""
    for source in facts.sources:
        reasons = Counter(facts.reason_R[facts.rows_of(source)].tolist())
        records, kept = reasons.total(), reasons.pop("", 0)
        lost = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(4))
        more = ", …" if len(reasons) > 4 else ""
        say(f"clean: {source} keeps {kept:,} of {records:,}" + (f"; drops {lost}{more}" if lost else ""))
        if not kept and config.mixture.get(source):
            raise UserError(
                f"none of the {records:,} documents of {source} is left, which has a weight in `mixture`; "
                f"dropped were {lost or 'none'}: mend `filters`, or set its weight to 0"
            )
        if 2 * kept < records:
            say(f"clean: {source} LOSES MORE THAN HALF; look at dropped/{source}.parquet and its `filters`")


def _hold_out(config: CleanConfig, documents: Facts) -> dict[str, float]:
    """Choose what is held out, and drop the rest of its urls; the mixture of what is left."""
    mixture = balance.mixture(config.mixture, _bytes(documents, documents.alive_R))
    is_code = {source: any(isinstance(step, Code) for step in of) for source, of in documents.filters.items()}
    held = [np.zeros(0, np.uint64)]
    for source, share in balance.heldout_shares(mixture, config.heldout_bytes, is_code.__getitem__).items():
        own = documents.rows_of(source)
        rows = np.arange(own.start, own.stop)[documents.alive_R[own]]
        chosen, is_part = balance.hold_out(source, documents.group_R[rows], documents.bytes_R[rows], share)
        documents.heldout_R[rows[chosen]] = True
        if not is_part:
            held.append(documents.group_R[rows[chosen]])
    surplus_R = documents.alive_R & ~documents.heldout_R & documents.url_R
    surplus_R &= np.isin(documents.group_R, np.concatenate(held))
    if surplus_R.any():
        say(f"clean: {surplus_R.sum():,} more documents of the works held out are dropped: heldout surplus")
    documents.reason_R[surplus_R] = "heldout surplus"
    left = _bytes(documents, documents.alive_R & ~documents.heldout_R)
    return balance.plan(config.mixture, left, config.balance) if left else {}


def _bytes(documents: Facts, rows_R: np.ndarray) -> dict[str, int]:
    """UTF-8 bytes of some rows, by source."""
    slices = {source: documents.rows_of(source) for source in documents.sources}
    return {source: int(documents.bytes_R[own][rows_R[own]].sum()) for source, own in slices.items()}


def _write_all(folder: Path, kinds: list[Facts], census: Census) -> artifact.Counts:
    counts: dict[str, dict[str, Any]] = {"funnel": {}, "personal": {}}
    quoted: Counter[str] = Counter()
    for facts in kinds:
        for source in facts.sources:
            funnel, personal, quotes = write_source(folder, facts, source, census)
            counts["funnel"][source], counts["personal"][source] = funnel, personal
            quoted += quotes
    return {**counts, "benchmarks": dict(quoted)}
