"""The collect stage: every source of the config becomes one file of documents or conversations."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, ClassVar

import tyro

from jaxtrain import artifact
from jaxtrain.collect import guard
from jaxtrain.collect.source import Source
from jaxtrain.config import Stage
from jaxtrain.document import Conversation, Document, Record, record_id, write_records
from jaxtrain.formats.files import Unread, shown
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say, track

VERDICTS = "verdicts.json"


@dataclass(frozen=True, kw_only=True)
class CollectConfig(Stage):
    """What to read."""

    VERSION: ClassVar[int] = 3

    sources: Annotated[tuple[Source, ...], tyro.conf.Suppress]
    """The sources; edit them in the file, they are no options of the command line."""


def run(config: CollectConfig) -> Path:
    """Read every source; UserError where two share a name, a path is absent, or nothing at all was read."""
    names = Counter(source.name for source in config.sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two sources are named {twice[0]!r}; each needs its own name")
    inputs = {name: path for source in config.sources for name, path in _inputs(source)}
    # What a killed run left is kept for its verdicts alone: the files of records are written again.
    return artifact.produce(config, inputs, write=lambda folder: _write(config, folder), resume=True)


def _inputs(source: Source) -> Iterator[tuple[str, Path]]:
    for number, path in enumerate(source.files(), 1):
        yield f"{source.name}/{number}/{shown(path)}", path
    # Of a class of one's own the file, too: the fingerprint knows the source of this package alone.
    if not type(source).__module__.startswith("jaxtrain."):
        own = next(method for method in vars(type(source)).values() if isinstance(method, FunctionType))
        yield f"{source.name}/class", Path(own.__code__.co_filename)


def _write(config: CollectConfig, folder: Path) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    unread: dict[str, dict[str, int]] = {}
    file = folder / VERDICTS
    verdicts: dict[str, guard.Verdicts] = json.loads(file.read_text()) if file.exists() else {}

    def save() -> None:
        file.write_text(json.dumps({name: v for name, v in verdicts.items() if v}, indent=2, sort_keys=True))

    for source in config.sources:
        reasons: Unread = Counter()
        total: Counter[str] = Counter()
        place = "conversations" if source.record_type is Conversation else "documents"
        found = guard.read(source, reasons, verdicts.setdefault(source.name, {}), save)
        records = track(_counted(found, reasons, total), f"collect {source.name}")
        number = write_records(folder / place / f"{source.name}.parquet", source.record_type, records)
        counts[source.name] = {place: number, "bytes": total["bytes"], "unread": reasons.total()}
        unread[source.name] = dict(sorted(reasons.items()))
        lost = [f"{count:,} × {reason}" for reason, count in reasons.most_common(3)]
        lost += [f"{len(reasons) - 3} more reasons in unread.json"] * (len(reasons) > 3)
        size = f"{total['bytes'] / 1e6:.1f} MB"
        say("; ".join([f"collect {source.name}: {number:,} {place}, {size}", *lost]))
    if not any(c.get("documents") or c.get("conversations") for c in counts.values()):
        remedy = "docs/formats.md, 1 collect, has the files and fields that each source reads"
        raise UserError(f"nothing could be read from any source: {json.dumps(unread)}; {remedy}")
    found = json.dumps(unread, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "unread.json").write_text(found + "\n")
    return counts


def _counted(records: Iterator[Record], unread: Unread, total: Counter[str]) -> Iterator[Record]:
    """Pass each id once, and count the bytes of UTF-8."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen and isinstance(record, Document):
            unread["the same page or file again"] += 1
            continue
        if record.id in seen:  # of conversations clean judges which are the same
            record = replace(record, id=record_id(record.source, f"{record.id}\0{len(seen)}"))
        seen.add(record.id)
        texts = [record.text] if isinstance(record, Document) else [m["content"] for m in record.messages]
        total["bytes"] += sum(len(text.encode()) for text in texts)
        yield record
