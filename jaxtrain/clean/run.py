"""Cleaning, step by step: a record is dropped for one reason, that of the first step to reject it.

Texts pass through in shards (shards.py); of all records together only some facts are in memory.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from jaxtrain import artifact
from jaxtrain.clean import balance, dedup, presets, shards, substrings
from jaxtrain.clean.balance import Balance
from jaxtrain.clean.census import Census
from jaxtrain.clean.filter import Filter
from jaxtrain.clean.lists import Quotes
from jaxtrain.clean.quality import Code
from jaxtrain.clean.shards import Facts, Filters, signal_names
from jaxtrain.clean.write import write_source
from jaxtrain.document import source_files
from jaxtrain.engine import EMBEDDED
from jaxtrain.fields import Operational
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Cleaning of everything that one collect artifact holds."""

    VERSION: ClassVar[int] = 3

    documents: str
    """Folder of the collect artifact."""
    filters: Annotated[dict[str, tuple[Filter, ...]], tyro.conf.Suppress] = field(default_factory=dict)
    """What each source passes through, in order; a source that is not named, `prose()`, and one of
    conversations `chat()` (clean/presets.py). Of two duplicates that of the source named first is kept."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Weight of each source of documents in training; any scale. Empty for conversations alone."""
    similarity: float = dedup.SIMILARITY
    """Least Jaccard similarity (0 to 1) of the word 5-grams of near duplicates; of conversations that of all
    turns and that of the answers alone, so an answer of fewer than five words makes none."""
    repeated_paragraphs: bool = False
    """Paragraphs of five words or more that stood before are cut out."""
    repeated_lines: bool = False
    """Lines of five words or more that stood before are cut out."""
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
    out: str
    """Output folder."""


configs: tuple[type, ...] = (CleanConfig,)
WORKING = "working"


def run(config: CleanConfig) -> Path:
    """The clean artifact of `config`; UserError where its sources or files of filters do not exist."""
    artifact.require(config.documents, "collect")
    steps = [step for of in config.filters.values() for step in of]
    inputs = {"documents": config.documents} | {path: path for step in steps for path in step.files()}
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder), resume=True)


def _write(config: CleanConfig, folder: Path) -> artifact.Counts:
    of_documents, of_conversations = _filters(config)
    quotes = [step for of in of_documents.values() for step in of if isinstance(step, Quotes)]
    for phrases in {step.benchmarks: step.phrases()[0] for step in quotes}.values():
        say(f"clean: {len(phrases):,} benchmark phrases")
    census = Census(of_documents)
    documents, conversations = both = [
        _step(f"examine {kind}", lambda kind=kind, filters=filters: _examine(config, kind, filters, folder))
        for kind, filters in (("documents", of_documents), ("conversations", of_conversations))
    ]

    def counted(step: str) -> None:
        census.step(step, [(facts, facts.alive_R) for facts in both])

    census.step("collected", [(facts, np.ones(len(facts.id_R), bool)) for facts in both], collected=True)
    counted("examined")
    for facts in both:
        _step("exact duplicates", facts.drop_exact)
    counted("exact duplicates removed")
    for facts in both:
        _step("near duplicates", lambda facts=facts: facts.drop_near(config.similarity))
    counted("near duplicates removed")
    for name, units in _repeats(config):
        _step(f"repeated {name}", lambda units=units: substrings.cut_repeats(documents, units))
        counted(f"repeated {name} removed")
    for facts in both:
        _tell(config, facts)
    heldout_R, mixture = _step("hold out", lambda: _hold_out(config, documents, of_documents))
    census.step("kept", [(documents, documents.alive_R & ~heldout_R), (conversations, conversations.alive_R)])
    none_R = np.zeros(len(conversations.id_R), bool)
    of_both = ((documents, heldout_R, of_documents), (conversations, none_R, of_conversations))
    counts = _step("write", lambda: _write_all(folder, of_both, census))
    found = census.found(documents, conversations)
    (folder / "mixture.json").write_text(json.dumps(mixture, indent=2, sort_keys=True) + "\n")
    (folder / "funnel.json").write_text(json.dumps(counts["funnel"], indent=2, sort_keys=True) + "\n")
    (folder / "census.json").write_text(json.dumps(found, sort_keys=True, ensure_ascii=False) + "\n")
    shutil.rmtree(folder / WORKING)
    return counts


def _filters(config: CleanConfig) -> tuple[Filters, Filters]:
    """Of the sources of documents and of conversations; UserError where the config does not fit them."""
    documents, chats = (
        [path.stem for path in source_files(Path(config.documents) / kind)]
        for kind in ("documents", "conversations")
    )
    if both := sorted(set(chats) & set(documents)):
        raise UserError(
            f"{both[0]} names documents and conversations; give one of them another name in collect"
        )
    for name, known in (("filters", documents + chats), ("mixture", documents)):
        if unknown := sorted(set(getattr(config, name)) - set(known)):
            has = f"{config.documents} has {', '.join(sorted(known))}"
            raise UserError(f"`{name}` names {', '.join(unknown)}, but {has}")
    if missing := sorted(set(documents) - set(config.mixture)):
        raise UserError(f"{config.documents} has {', '.join(missing)}, which `mixture` does not name; add it")
    weights = config.mixture.values()
    if documents and (min(weights) < 0 or not sum(weights)):
        raise UserError("`mixture` needs weights of at least 0, and one above 0")
    ordered = sorted({*documents, *chats}, key=[*config.filters, *documents, *chats].index)
    return (
        {source: config.filters.get(source, presets.prose()) for source in ordered if source in documents},
        {source: config.filters.get(source, presets.chat()) for source in ordered if source in chats},
    )


def _examine(config: CleanConfig, kind: str, filters: Filters, folder: Path) -> Facts:
    found = shards.list_shards(Path(config.documents), kind, filters, folder / WORKING)
    shards.examine_all(found, filters, config.engine, config.workers, f"clean: shards of {kind}")
    return Facts(found, {source: i for i, source in enumerate(filters)})


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


def _step(name: str, work: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    result = work()
    say(f"clean: {name}, {time.monotonic() - begun:.1f} s")
    return result


def _repeats(config: CleanConfig) -> Iterator[tuple[str, Callable[[str], substrings.Units]]]:
    if config.repeated_paragraphs:
        yield "paragraphs", substrings.parts_between("\n\n")
    if config.repeated_lines:
        yield "lines", substrings.parts_between("\n")
    if config.repeated_words:
        yield "passages", substrings.runs_of(config.repeated_words)


def _hold_out(config: CleanConfig, documents: Facts, filters: Filters) -> tuple[np.ndarray, dict[str, float]]:
    """Which rows are held out, and the mixture of what is left; the rest of their urls is dropped."""
    heldout_R = np.zeros(len(documents.id_R), bool)
    mixture = balance.mixture(config.mixture, _bytes(documents, documents.alive_R))
    shares = balance.heldout_shares(
        mixture, config.heldout_bytes, lambda source: any(isinstance(step, Code) for step in filters[source])
    )
    held = [np.zeros(0, np.uint64)]
    for source, share in shares.items():
        own = documents.rows_of(source)
        rows = np.arange(own.start, own.stop)[documents.alive_R[own]]
        chosen, is_part = balance.hold_out(source, documents.group_R[rows], documents.bytes_R[rows], share)
        heldout_R[rows[chosen]] = True
        if not is_part:
            held.append(documents.group_R[rows[chosen]])
    surplus_R = documents.alive_R & ~heldout_R & documents.url_R
    surplus_R &= np.isin(documents.group_R, np.concatenate(held))
    if surplus_R.any():
        say(f"clean: {surplus_R.sum():,} more documents of the works held out are dropped: heldout surplus")
    documents.reason_R[surplus_R] = "heldout surplus"
    left = _bytes(documents, documents.alive_R & ~heldout_R)
    return heldout_R, balance.plan(config.mixture, left, config.balance) if left else {}


def _bytes(documents: Facts, rows_R: np.ndarray) -> dict[str, int]:
    """UTF-8 bytes of some rows, by source."""
    slices = {source: documents.rows_of(source) for source in documents.sources}
    return {source: int(documents.bytes_R[own][rows_R[own]].sum()) for source, own in slices.items()}


def _write_all(
    folder: Path, kinds: Iterable[tuple[Facts, np.ndarray, Filters]], census: Census
) -> artifact.Counts:
    """kinds: of each the facts, which rows are held out, and the filters of its sources."""
    counts: dict[str, dict[str, Any]] = {"funnel": {}, "personal": {}}
    quoted: Counter[str] = Counter()
    for facts, held_R, filters in kinds:
        for source in facts.sources:
            written = write_source(folder, facts, source, held_R, signal_names(filters), census)
            counts["funnel"][source], counts["personal"][source], quotes = written
            quoted += quotes
    return {**counts, "benchmarks": dict(quoted)}
