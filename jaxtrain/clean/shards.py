"""The records of collect in shards: examined one by one on the engine, then looked at together.

A shard is one row group (1,024 records) of one file of collect. Examining it writes what is needed later
beside each other in the working folder, the `.parquet` last; a killed run goes on at the first shard without
one. Of all records together only facts of some 80 bytes each are in memory, never their texts.

Legend: R records, S shards.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrain import engine
from jaxtrain.clean import balance, dedup
from jaxtrain.clean.filter import Filter, Row, examine
from jaxtrain.clean.personal import KINDS
from jaxtrain.conversation import MESSAGES, said, transcript
from jaxtrain.document import PARQUET, parquet
from jaxtrain.runtime.files import flush, publish

SMALL = 2_000_000  # bytes of Parquet that one process has done before two have started
FACTS = {"id": "u8", "group": "u8", "url": "?", "bytes": "i8", "bytes_in": "i8"}
FACTS |= {"worded": "?", "digest": "2u8"}
"""Arrays of a value a record, and their types."""
Filters = Mapping[str, tuple[Filter, ...]]


@dataclass(frozen=True)
class Shard:
    """One row group of one file of collect."""

    kind: str
    """`documents` or `conversations`."""
    source: str
    path: Path
    """The file of collect."""
    group: int
    working: Path
    """The working folder."""

    def file(self, end: str) -> Path:
        return self.working / self.kind / f"{self.source}.{self.group:06d}.{end}"

    def collected(self) -> pa.Table:
        with parquet(self.path) as file:
            return file.read_row_group(self.group)

    def examined(self) -> pa.Table:
        """What examining gave; the text without the passages that were cut out since."""
        table = _read(self.file("parquet"))
        if self.file("cut").exists():
            text = _read(self.file("cut"))["text"]
            table = table.set_column(table.column_names.index("text"), "text", text)
        return table


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    with parquet(path) as file:
        return file.read(columns)


def list_shards(collected: Path, kind: str, sources: Iterable[str], working: Path) -> list[Shard]:
    """The shards of some sources of a kind of records, in order."""
    found = []
    for source in sources:
        path = collected / kind / f"{source}.parquet"
        with parquet(path) as file:
            found += [Shard(kind, source, path, group, working) for group in range(file.num_row_groups)]
    return found


def signal_names(filters: Filters) -> tuple[str, ...]:
    """The signal columns of a kind of records: what the filters of any of its sources measure."""
    return tuple(dict.fromkeys(name for of in filters.values() for step in of for name in step.signals()))


def examine_all(shards: list[Shard], filters: Filters, engine_name: str, workers: int, what: str) -> None:
    """Examine every shard that is not examined yet, on the engine. filters: of each source."""
    tasks = [{"shard": n} for n, shard in enumerate(shards) if not shard.file("parquet").exists()]
    size = sum(path.stat().st_size for path in {shard.path for shard in shards})
    if tasks:
        work = partial(_examine, shards, filters)
        engine.run_tasks(work, tasks, engine_name, workers or int(size < SMALL), what)


def _examine(shards: list[Shard], filters: Filters, task: dict[str, int]) -> dict[str, int]:
    """Runs on a worker, which reads the files of its filters once: one shard to its working files."""
    shard = shards[task["shard"]]
    rows = shard.collected().to_pylist()
    results = [_result(row, filters[shard.source]) for row in rows]
    shard.file("").parent.mkdir(parents=True, exist_ok=True)
    write_facts(shard, rows, results)
    columns = [(name, pa.string()) for name in ("text", "language", "reason", "detail")]
    columns += [(f"personal_{kind}", pa.int32()) for kind in KINDS]
    columns += [(name, pa.float32()) for name in signal_names(filters)]
    columns += [("messages", MESSAGES)] * (shard.kind == "conversations")
    temporary = shard.file("parquet.tmp")
    pq.write_table(pa.Table.from_pylist(results, schema=pa.schema(columns)), temporary, **PARQUET)
    flush(shard.file("npz"))
    publish(temporary, shard.file("parquet"))
    return {}


def _result(row: Row, filters: tuple[Filter, ...]) -> Row:
    record = examine(row, filters)
    return {
        "text": record.text,
        "language": record.language,
        "reason": record.reason,
        "detail": record.detail,
        **{f"personal_{kind}": record.replaced[kind] for kind in KINDS},
        **record.signals,
        "messages": record.messages,
    }


def write_facts(shard: Shard, rows: list[Row], results: list[Row]) -> None:
    """What is needed of all records together. rows: as collected. results: what examining gave."""
    sketches = [dedup.sketch(result["text"]) if not result["reason"] else None for result in results]
    nothing = dedup.Sketch(np.zeros(2, np.uint64), np.zeros(dedup.BANDS, np.uint64), np.zeros(0, np.uint32))
    known = [sketch or nothing for sketch in sketches]
    compared = {"shingles": [sketch.shingles for sketch in known]}
    if shard.kind == "conversations":
        answers = ([said(m) for m in row["messages"] if m["role"] == "assistant"] for row in results)
        compared["answers"] = [dedup.long_shingles("\n\n".join(of)) for of in answers]
    texts = (row["text"] if "text" in row else transcript(row["messages"]) for row in rows)
    columns = {
        "id": [int(row["id"], 16) for row in rows],
        "group": [balance.group_key(row.get("url") or row["id"]) for row in rows],
        "url": [bool(row.get("url")) for row in rows],
        "bytes": [len(result["text"].encode()) for result in results],
        "bytes_in": [len(text.encode()) for text in texts],
        "worded": [sketch is not None for sketch in sketches],
        "digest": [sketch.digest for sketch in known],
    }
    arrays = {name: np.array(column, np.dtype(FACTS[name]).base) for name, column in columns.items()}
    ends = {name: np.cumsum([0, *map(len, of)]) for name, of in compared.items()}
    np.savez(shard.file("npz"), **arrays, **ends)
    np.save(shard.file("bands.npy"), np.stack([sketch.bands for sketch in known], axis=1))
    for name, of in compared.items():
        np.concatenate(of).tofile(shard.file(name))


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


class Facts:
    """What is known of every record of one kind, in the order of the shards."""

    def __init__(self, shards: list[Shard], filters: Filters) -> None:
        """filters: of each source, in the order in which copies of it are preferred."""
        self.shards, self.filters = shards, filters
        for shard in shards:
            shard.file("cut").unlink(missing_ok=True)  # of a killed run
        loaded = [_load(shard.file("npz")) for shard in shards]
        self.starts_S = np.cumsum([0, *(len(facts["id"]) for facts in loaded)])
        self.id_R, self.group_R, self.url_R, self.bytes_R, self.bytes_in_R, self.worded_R, self.digest_R2 = (
            np.concatenate([np.zeros(0, kind), *(facts[name] for facts in loaded)])
            for name, kind in FACTS.items()
        )
        compared = loaded[0].keys() - FACTS.keys() if loaded else ()
        self._ends = {name: [facts[name] for facts in loaded] for name in sorted(compared)}
        reasons = [_read(shard.file("parquet"), ["reason"])["reason"] for shard in shards]
        self.reason_R = np.array([text for column in reasons for text in column.to_pylist()], object)
        own_S = np.array([list(filters).index(shard.source) for shard in shards], np.int64)
        self.order_R = np.lexsort((self.id_R, np.repeat(own_S, np.diff(self.starts_S))))
        """Row numbers in the order in which copies are preferred."""
        self.copy_of_R = np.full(len(self.id_R), -1, np.int64)
        """The row that stays in place of a dropped copy; -1 for all others."""
        self.heldout_R = np.zeros(len(self.id_R), bool)

    @property
    def alive_R(self) -> np.ndarray:
        return self.reason_R == ""

    @property
    def sources(self) -> list[str]:
        return list(dict.fromkeys(shard.source for shard in self.shards))

    def rows_of(self, source: str) -> slice:
        """The rows of one source, which stand together."""
        own = [i for i, shard in enumerate(self.shards) if shard.source == source]
        return slice(int(self.starts_S[own[0]]), int(self.starts_S[own[-1] + 1])) if own else slice(0, 0)

    def drop_exact(self) -> None:
        rows = self.order_R[(self.alive_R & self.worded_R)[self.order_R]]
        self._drop(rows, dedup.exact_copies(self.digest_R2[rows]), "exact duplicate")

    def drop_near(self, similarity: float) -> None:
        if not self.shards:
            return
        alive = (self.alive_R & self.worded_R)[self.order_R]

        def band(number: int) -> np.ndarray:
            files = (np.load(shard.file("bands.npy"), mmap_mode="r") for shard in self.shards)
            return np.concatenate([np.array(bands[number]) for bands in files])[self.order_R]

        def alike(one: int, two: int) -> float:
            return self._similarity(self.order_R[one], self.order_R[two])

        first = dedup.near_copies(len(alive), band, alike, alive, similarity)
        self._drop(self.order_R, first, "near duplicate")

    def _drop(self, rows: np.ndarray, first: np.ndarray, reason: str) -> None:
        copies = first != np.arange(len(rows))
        self.reason_R[rows[copies]] = reason
        self.copy_of_R[rows[copies]] = rows[first[copies]]

    def place(self, row: int) -> tuple[int, int]:
        """The number of the shard of a row, and which of its records it is."""
        number = int(np.searchsorted(self.starts_S, row, "right")) - 1
        return number, row - int(self.starts_S[number])

    def _similarity(self, one: int, two: int) -> float:
        """Of two texts; of two conversations that of their answers where it is less.

        Two questions about one long passage are alike but for a sentence, and no duplicates.
        """
        return min(dedup.jaccard(self._shingles(name, one), self._shingles(name, two)) for name in self._ends)

    def _shingles(self, name: str, row: int) -> np.ndarray:
        number, place = self.place(row)
        start, end = self._ends[name][number][place : place + 2].tolist()
        return np.fromfile(self.shards[number].file(name), np.uint32, end - start, offset=4 * start)

    def each_shard(self, source: str) -> Iterator[tuple[Shard, slice]]:
        """The shards of a source with their rows."""
        for shard, start, end in zip(self.shards, self.starts_S, self.starts_S[1:], strict=False):
            if shard.source == source:
                yield shard, slice(start, end)
