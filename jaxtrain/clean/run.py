"""Cleaning, step by step: a record is dropped for one reason, that of the first step to reject it.

Texts pass through in shards (shards.py); of all records together only some facts are in memory.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxtrain import artifact
from jaxtrain.clean import balance, contamination, dedup, examine, personal, quality, shards, substrings
from jaxtrain.clean.balance import Balance
from jaxtrain.clean.census import Census
from jaxtrain.clean.examine import Examination, Rules
from jaxtrain.clean.shards import Facts
from jaxtrain.clean.write import write_source
from jaxtrain.document import source_files
from jaxtrain.engine import EMBEDDED
from jaxtrain.fields import Operational
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Cleaning of everything that one collect artifact holds."""

    VERSION: ClassVar[int] = 1

    documents: str
    """Folder of the collect artifact."""
    rules: dict[str, Rules]
    """For each source of documents. Of two duplicates that of the source named first here is kept."""
    mixture: dict[str, float]
    """Weight of each source of documents in training; any scale."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes to keep."""
    conversation_language_score: float = 0.2
    """Least probability that a conversation is in one of `languages`; low: turns are short, some are code."""
    benchmarks: tuple[str, ...] = ()
    """Files (`.jsonl.gz`) whose items must not be in the training data."""
    blocked_urls: tuple[str, ...] = ()
    """Text files of domains and words, one a line; a page whose URL has one is dropped."""
    word_lists: tuple[str, ...] = ()
    """Text files or folders of listed words, one entry a line; `rules` limit their share."""
    reference: tuple[str, ...] = ()
    """Text files of good writing: how a text's characters surprise after them is a signal of gibberish."""
    classifiers: dict[str, str] = field(default_factory=dict)
    """Name to folder of a classify artifact: a signal `score_NAME`, which `rules` may limit; with more than
    two labels, such as topics, a signal `score_NAME_LABEL` for each."""
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


def run(config: CleanConfig) -> Path:
    """The clean artifact of `config`; UserError where its sources, benchmarks or presets do not exist."""
    artifact.require(config.documents, "collect")
    files = (*config.benchmarks, *config.blocked_urls, *config.word_lists, *config.reference)
    files = (*files, *config.classifiers.values())
    inputs = {"documents": config.documents} | {path: path for path in files}
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder), resume=True)


def _write(config: CleanConfig, folder: Path) -> artifact.Counts:
    collected, working = Path(config.documents), folder / "working"
    _check(config, {path.stem for path in source_files(collected / "documents")})
    say(f"clean: {len(contamination.load(config.benchmarks)):,} benchmark phrases")
    documents = _step("examine documents", lambda: _examine(config, "documents", list(config.rules), working))
    chats = [path.stem for path in source_files(collected / "conversations")]
    conversations = _step("examine conversations", lambda: _examine(config, "conversations", chats, working))
    if both := sorted(set(chats) & set(config.rules)):
        raise UserError(
            f"{both[0]} names documents and conversations; give one of them another name in collect"
        )
    both = (documents, conversations)
    signals = examine.signal_names(config.classifiers, bool(config.word_lists), bool(config.reference))
    census = Census(config.rules, config.classifiers, signals)
    census.step("collected", [(facts, np.ones(len(facts.id_R), bool)) for facts in both], collected=True)
    census.step("examined", _alive(both))
    for facts in both:
        _step("exact duplicates", facts.drop_exact)
    census.step("exact duplicates removed", _alive(both))
    for facts in both:
        _step("near duplicates", lambda facts=facts: facts.drop_near(config.similarity))
    census.step("near duplicates removed", _alive(both))
    for name, units in _repeats(config):
        _step(f"repeated {name}", lambda units=units: substrings.cut_repeats(documents, units))
        census.step(f"repeated {name} removed", _alive(both))
    if not documents.alive_R.any():
        raise UserError(_nothing_left(config, documents))
    heldout_R, mixture = _step("hold out", lambda: _hold_out(config, documents))
    kept_R = documents.alive_R & ~heldout_R
    census.step("kept", [(documents, kept_R), (conversations, conversations.alive_R)])
    counts = _step("write", lambda: _write_all(folder, documents, conversations, heldout_R, signals, census))
    (folder / "mixture.json").write_text(json.dumps(mixture, indent=2, sort_keys=True) + "\n")
    (folder / "funnel.json").write_text(json.dumps(counts["funnel"], indent=2, sort_keys=True) + "\n")
    found = census.found(documents, conversations)
    (folder / "census.json").write_text(json.dumps(found, sort_keys=True, ensure_ascii=False) + "\n")
    shutil.rmtree(working)
    return counts


def _alive(kinds: tuple[Facts, ...]) -> list[tuple[Facts, np.ndarray]]:
    return [(facts, facts.alive_R) for facts in kinds]


def _examine(config: CleanConfig, kind: str, sources: list[str], working: Path) -> Facts:
    parts = [
        shard
        for source in sources
        for shard in shards.list_shards(kind, Path(config.documents) / kind / f"{source}.parquet", working)
    ]
    examinations = {source: _examination(config, config.rules.get(source)) for source in sources}
    shards.examine_all(parts, examinations, config.engine, config.workers, f"clean: shards of {kind}")
    return Facts(parts, {source: i for i, source in enumerate(sources)})


def _examination(config: CleanConfig, rules: Rules | None) -> Examination:
    return Examination(
        rules=rules or Rules(preset="prose"),  # conversations have no limits of quality
        languages=config.languages,
        conversation_language_score=config.conversation_language_score,
        benchmarks=config.benchmarks,
        blocked_urls=config.blocked_urls,
        word_lists=config.word_lists,
        reference=config.reference,
        classifiers=config.classifiers,
    )


def _check(config: CleanConfig, found: set[str]) -> None:
    for name in ("rules", "mixture"):
        if unknown := sorted(set(getattr(config, name)) - found):
            raise UserError(
                f"`{name}` names {', '.join(unknown)}, but {config.documents} has {', '.join(sorted(found))}"
            )
        if missing := sorted(found - set(getattr(config, name))):
            raise UserError(
                f"{config.documents} has {', '.join(missing)}, which `{name}` does not name; add it"
            )
    for source, rules in config.rules.items():
        quality.preset_named(rules.preset)
        if unknown := sorted(set(rules.scores) - set(examine.score_names(config.classifiers))):
            raise UserError(f"rules[{source!r}].scores names {unknown[0]!r}, which `classifiers` does not")
        if rules.perplexity is not None and not config.reference:
            raise UserError(f"rules[{source!r}].perplexity needs text files in `reference` to judge by")
        if unknown := sorted(set(rules.personal) - set(personal.KINDS)):
            raise UserError(
                f"rules[{source!r}].personal: no kind {unknown[0]!r}; choose of {', '.join(personal.KINDS)}"
            )
    if min(config.mixture.values(), default=0) < 0 or not sum(config.mixture.values()):
        raise UserError("`mixture` needs weights of at least 0, and one above 0")


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


def _hold_out(config: CleanConfig, documents: Facts) -> tuple[np.ndarray, dict[str, float]]:
    """Which rows are held out, and the mixture of what is left; the rest of their urls is dropped."""
    heldout_R = np.zeros(len(documents.id_R), bool)
    mixture = balance.mixture(config.mixture, _bytes(config, documents, documents.alive_R))
    shares = balance.heldout_shares(
        mixture, config.heldout_bytes, lambda source: config.rules[source].preset == "code"
    )
    for source, share in shares.items():
        own = documents.rows_of(source)
        rows = np.arange(own.start, own.stop)[documents.alive_R[own]]
        heldout_R[rows[balance.hold_out(source, documents.group_R[rows], documents.bytes_R[rows], share)]] = (
            True
        )
    held = np.unique(documents.group_R[heldout_R & documents.url_R])
    surplus_R = documents.alive_R & ~heldout_R & documents.url_R & np.isin(documents.group_R, held)
    documents.reason_R[surplus_R] = "heldout surplus"
    left = _bytes(config, documents, documents.alive_R & ~heldout_R)
    return heldout_R, balance.plan(config.mixture, left, config.balance)


def _bytes(config: CleanConfig, documents: Facts, rows_R: np.ndarray) -> dict[str, int]:
    """UTF-8 bytes of some rows, by source."""
    slices = {source: documents.rows_of(source) for source in config.rules}
    return {source: int(documents.bytes_R[own][rows_R[own]].sum()) for source, own in slices.items()}


def _nothing_left(config: CleanConfig, documents: Facts) -> str:
    reasons = Counter(documents.reason_R.tolist())
    if not reasons:
        return f"{config.documents} holds no documents; look at its unread.json"
    reason, count = reasons.most_common(1)[0]
    return (
        f"none of {len(documents.id_R)} documents is left; most, {count}, were dropped for {reason!r}: "
        "mend `rules` or `languages`"
    )


def _write_all(
    folder: Path,
    documents: Facts,
    conversations: Facts,
    heldout_R: np.ndarray,
    signals: tuple[str, ...],
    census: Census,
) -> artifact.Counts:
    counts: dict[str, dict[str, Any]] = {"funnel": {}, "personal": {}, "benchmarks": {}}
    none_R = np.zeros(len(conversations.id_R), bool)
    for facts, held_R, names in ((documents, heldout_R, signals), (conversations, none_R, None)):
        for source in facts.sources:
            counts["funnel"][source], counts["personal"][source], quoted = write_source(
                folder, facts, source, held_R, names, census
            )
            for benchmark, number in quoted.items():
                counts["benchmarks"][benchmark] = counts["benchmarks"].get(benchmark, 0) + number
    return counts
