"""Cleaning, step by step: a record is dropped for one reason, that of the first step to reject it."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain import artifact, engine
from jaxtrain.clean import balance, contamination, dedup, examine, personal, quality
from jaxtrain.clean.examine import Row, Rules
from jaxtrain.document import Conversation, Document, schema, source_files, write_rows
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say, track

DROPPED = pa.schema([(name, pa.string()) for name in ("id", "source", "url", "reason", "text")])


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Cleaning of everything that one collect artifact holds."""

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
    heldout_bytes: int = 400_000
    """UTF-8 bytes of documents to hold out for evaluation, shared out by weight, code at most a fifth."""
    out: str
    """Output folder."""


configs: tuple[type, ...] = (CleanConfig,)


@dataclass(kw_only=True)
class Entry:
    """A record on its way through the steps."""

    row: Row
    """As collected."""
    cleaned: Row
    """What `examine` made of it."""
    reason: str
    """Why it was dropped; empty while it stands."""
    heldout: bool = False
    source: str = field(init=False)
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.source = self.row["source"]
        self.bytes = len(self.cleaned["text"].encode())

    @property
    def collected_text(self) -> str:
        return self.row["text"] if "text" in self.row else examine.transcript(self.row["messages"])


def run(config: CleanConfig) -> Path:
    """The clean artifact of `config`; UserError where its sources, benchmarks or presets do not exist."""
    artifact.require(config.documents, "collect")
    inputs = {"documents": config.documents} | {path: path for path in config.benchmarks}
    return artifact.produce(config, inputs=inputs, write=lambda folder: _write(config, folder))


def _write(config: CleanConfig, folder: Path) -> artifact.Counts:
    collected = Path(config.documents)
    _check(config, {path.stem for path in source_files(collected / "documents")})
    phrases = contamination.load(config.benchmarks)
    say(f"clean: {len(phrases):,} benchmark phrases")

    def examine_documents() -> list[Entry]:
        return [
            entry
            for source, rules in track(config.rules.items(), "clean: documents")
            for entry in _examine(
                collected / "documents" / f"{source}.parquet",
                partial(examine.document, rules=rules, languages=config.languages, phrases=phrases),
                examine.DOCUMENT_RESULT,
            )
        ]

    def examine_conversations() -> list[Entry]:
        judge = partial(
            examine.conversation,
            language_score=config.conversation_language_score,
            languages=config.languages,
            phrases=phrases,
        )
        files = track(source_files(collected / "conversations"), "clean: conversations")
        return [entry for path in files for entry in _examine(path, judge, examine.CONVERSATION_RESULT)]

    documents = _step("examine documents", examine_documents)
    conversations = _step("examine conversations", examine_conversations)
    for kind in (documents, conversations):
        _step(
            "exact duplicates",
            lambda kind=kind: _drop_duplicates(kind, dedup.exact_duplicates, "exact duplicate"),
        )
    # Not for conversations: two questions about one long passage are no duplicates.
    _step("near duplicates", lambda: _drop_duplicates(documents, dedup.near_duplicates, "near duplicate"))
    if not any(not entry.reason for entry in documents):
        raise UserError(_nothing_left(config, documents))
    mixture = _step("hold out", lambda: _balance(config, documents))
    return _step("write", lambda: _write_all(folder, documents, conversations, mixture))


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


def _examine(path: Path, function: Callable[[Row], Row], returns: pa.Schema) -> list[Entry]:
    table = pq.read_table(path)
    cleaned = engine.map_rows(table, function, returns).to_pylist()
    return [
        Entry(row=row, cleaned=result, reason=result["reason"])
        for row, result in zip(table.to_pylist(), cleaned, strict=True)
    ]


def _drop_duplicates(entries: list[Entry], find: Callable[[list[str]], list[int]], reason: str) -> None:
    alive = [entry for entry in entries if not entry.reason]
    for row in find([dedup.normalize(entry.cleaned["text"]) for entry in alive]):
        alive[row].reason = reason


def _balance(config: CleanConfig, documents: list[Entry]) -> dict[str, float]:
    """Marks what is held out, drops the rest of their urls, and returns the mixture of what is left."""
    alive = [entry for entry in documents if not entry.reason]
    mixture = balance.mixture(config.mixture, _bytes(alive))
    shares = balance.heldout_shares(
        mixture, config.heldout_bytes, lambda source: config.rules[source].preset == "code"
    )
    for source, share in shares.items():
        entries = {entry.row["id"]: entry for entry in alive if entry.source == source}
        items = [balance.Item(id, entry.row["url"], entry.bytes) for id, entry in entries.items()]
        for id in balance.hold_out(source, items, share):
            entries[id].heldout = True
    urls = {entry.row["url"] for entry in alive if entry.heldout} - {""}
    for entry in alive:
        if not entry.heldout and entry.row["url"] in urls:
            entry.reason = "heldout surplus"
    left = _bytes(entry for entry in alive if not entry.heldout and not entry.reason)
    mixture = balance.mixture(config.mixture, left)
    balance.say_repeats(mixture, left)
    return mixture


def _bytes(entries: Iterable[Entry]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for entry in entries:
        total[entry.source] += entry.bytes
    return dict(total)


def _nothing_left(config: CleanConfig, documents: list[Entry]) -> str:
    reasons = Counter(entry.reason for entry in documents)
    if not reasons:
        return f"{config.documents} holds no documents; look at its unread.json"
    reason, count = reasons.most_common(1)[0]
    return (
        f"none of {len(documents)} documents is left; most, {count}, were dropped for {reason!r}: "
        "mend `rules` or `languages`"
    )


def _write_all(
    folder: Path, documents: list[Entry], conversations: list[Entry], mixture: dict[str, float]
) -> artifact.Counts:
    document_columns = schema(Document, dict.fromkeys(examine.SIGNALS, pa.float32()))
    funnel = {}
    redacted: dict[str, dict[str, int]] = {}
    for kind, entries, columns in (
        ("documents", documents, document_columns),
        ("conversations", conversations, schema(Conversation)),
    ):
        for source in sorted({entry.source for entry in entries}):
            own = [entry for entry in entries if entry.source == source]
            if source in funnel:
                raise UserError(
                    f"{source} names documents and conversations; give one of them another name in collect"
                )
            kept = [entry for entry in own if not entry.reason and not entry.heldout]
            heldout = [entry for entry in own if entry.heldout]
            dropped = [entry for entry in own if entry.reason]
            assert len(own) == len(kept) + len(heldout) + len(dropped), source
            write_rows(folder / kind / f"{source}.parquet", columns, map(_cleaned_row, kept))
            if heldout:
                write_rows(folder / "heldout" / f"{source}.parquet", columns, map(_cleaned_row, heldout))
            write_rows(folder / "dropped" / f"{source}.parquet", DROPPED, map(_dropped_row, dropped))
            funnel[source] = {
                "in": len(own),
                "kept": len(kept),
                "heldout": len(heldout),
                "dropped": dict(sorted(Counter(entry.reason for entry in dropped).items())),
                "bytes_in": sum(len(entry.collected_text.encode()) for entry in own),
                "bytes_kept": sum(entry.bytes for entry in kept),
                "bytes_heldout": sum(entry.bytes for entry in heldout),
            }
            redacted[source] = {
                found: sum(entry.cleaned[f"personal_{found}"] for entry in kept + heldout)
                for found in personal.KINDS
            }
    for name, value in (("funnel.json", funnel), ("mixture.json", mixture)):
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    return {"funnel": funnel, "personal": redacted}


def _cleaned_row(entry: Entry) -> Row:
    names = set(entry.cleaned) - ({"text", "language"} if "messages" in entry.row else set())
    return entry.row | {name: entry.cleaned[name] for name in names}


def _dropped_row(entry: Entry) -> Row:
    return {
        "id": entry.row["id"],
        "source": entry.source,
        "url": entry.row.get("url", ""),
        "reason": entry.reason,
        "text": entry.collected_text,
    }
