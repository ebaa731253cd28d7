"""The collect stage: every source of the config becomes one file of documents or conversations."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from jaxtrain import artifact
from jaxtrain.collect.books import BookSource, read_books
from jaxtrain.collect.chats import ChatSource, read_chats
from jaxtrain.collect.code import CodeSource, read_code, root_of
from jaxtrain.collect.crawl import CommonCrawlSource, SiteSource, read_common_crawl, read_site
from jaxtrain.collect.files import Unread, find, is_url
from jaxtrain.collect.tables import TableSource, read_table, table_files
from jaxtrain.collect.web import WebSource, read_web
from jaxtrain.collect.wiki import WikiSource, read_wiki
from jaxtrain.document import Conversation, Document, Record, write_records
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say, track

Source = (
    WebSource
    | CommonCrawlSource
    | SiteSource
    | WikiSource
    | CodeSource
    | BookSource
    | TableSource
    | ChatSource
)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to read."""

    VERSION: ClassVar[int] = 1

    sources: Annotated[tuple[Source, ...], tyro.conf.Suppress]
    """The sources; edit them in the file, they are no options of the command line."""
    out: str
    """Output folder."""


configs: tuple[type, ...] = (CollectConfig,)


def run(config: CollectConfig) -> Path:
    """Read every source; UserError where two share a name, a path is absent, or nothing at all was read."""
    names = Counter(source.name for source in config.sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two sources are named {twice[0]!r}; each needs its own name")
    return artifact.produce(config, inputs=_inputs(config), write=lambda folder: _write(config, folder))


def read(source: Source, unread: Unread) -> Iterator[Record]:
    """The records of any source."""
    match source:
        case WebSource():
            return read_web(source, unread)
        case CommonCrawlSource():
            return read_common_crawl(source, unread)
        case SiteSource():
            return read_site(source, unread)
        case TableSource():
            return read_table(source, unread)
        case WikiSource():
            return read_wiki(source, unread)
        case CodeSource():
            return read_code(source, unread)
        case BookSource():
            return read_books(source, unread)
        case ChatSource():
            return read_chats(source, unread)


def _inputs(config: CollectConfig) -> dict[str, Path]:
    inputs: dict[str, Path] = {}
    for source in config.sources:
        if isinstance(source, CodeSource):
            inputs[source.name] = root_of(source)
        elif isinstance(source, TableSource):  # what lies behind a URL counts by its name
            for path in filter(lambda path: not is_url(path), table_files(source)):
                inputs[f"{source.name}/{path}"] = Path(path)
        elif not isinstance(source, CommonCrawlSource | SiteSource):  # the config says what they fetch
            for number, path in enumerate(find(source.name, source.paths), 1):
                inputs[f"{source.name}/{number}/{path.name}"] = path
    return inputs


def _write(config: CollectConfig, folder: Path) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    unread: dict[str, dict[str, int]] = {}
    for source in config.sources:
        reasons: Unread = Counter()
        total: Counter[str] = Counter()
        chats = isinstance(source, ChatSource)
        kind, place = (Conversation, "conversations") if chats else (Document, "documents")
        records = track(_counted(read(source, reasons), reasons, total), f"collect {source.name}")
        write_records(folder / place / f"{source.name}.parquet", kind, records)
        counts[source.name] = {place: total["records"], "bytes": total["bytes"], "unread": reasons.total()}
        unread[source.name] = dict(sorted(reasons.items()))
        say(
            f"collect {source.name}: {total['records']:,} {place}, {total['bytes'] / 1e6:.1f} MB"
            + "".join(f"; {count} × {reason}" for reason, count in reasons.most_common(3))
        )
    if not any(c.get("documents") or c.get("conversations") for c in counts.values()):
        raise UserError(f"nothing could be read from any source: {json.dumps(unread)}")
    (folder / "unread.json").write_text(
        json.dumps(unread, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )
    return counts


def _counted(records: Iterator[Record], unread: Unread, total: Counter[str]) -> Iterator[Record]:
    """Pass each id once, and count records and bytes of UTF-8."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            unread["the same page, file or conversation again"] += 1
            continue
        seen.add(record.id)
        texts = [record.text] if isinstance(record, Document) else [m["content"] for m in record.messages]
        total["records"] += 1
        total["bytes"] += sum(len(text.encode()) for text in texts)
        yield record
