"""Open an artifact of tokenize: token records and conversations by index, their lengths, the mixture."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from jaxtrain import artifact, integrity
from jaxtrain.integrity import AGAIN
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer

WAITED = 8 << 30
"""Bytes of shards that are compared with their manifest before they are read; more are beside the reading."""
AT_RANDOM = "readahead_buffer_size:0,max_parallelism:0"


class _Shard:
    """One ArrayRecord file.

    Every record has a checksum of its own. The file is also compared with the manifest when a record of it is
    first read: before that, or, of a large set, beside the reading, which would else wait for minutes.
    """

    compared = 0
    """Bytes that this process has waited for, in all."""
    beside = ThreadPoolExecutor(2, "sha256")

    def __init__(self, path: Path):
        self.path = path
        with self._readable():
            self._reader = ArrayRecordReader(str(path), AT_RANDOM)
            self.count: int = self._reader.num_records()
        self._check: Future[None] | None = None

    def read(self, indices: list[int]) -> list[bytes]:
        if self._check is None:
            _Shard.compared += self.path.stat().st_size
            self._check = self.beside.submit(integrity.check_file, self.path)
            if _Shard.compared <= WAITED:
                self._check.result()
        if self._check.done():
            self._check.result()
        with self._readable():
            return self._reader.read(indices)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, IndexError) as error:
            problem = str(error).splitlines()[0][:200]
            raise UserError(f"{self.path} cannot be read ({problem}); {AGAIN.format('tokenize')}") from error


class TokenRecords:
    """Documents, source after source: `records[i]` is int32 [lengths[i]], without special tokens."""

    def __init__(self, folders: Sequence[Path], dtype: np.dtype):
        self.dtype = dtype
        lengths = [np.load(folder / "lengths.npy", allow_pickle=False) for folder in folders]
        self.lengths: np.ndarray = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self._shards = [_Shard(path) for folder in folders for path in sorted(folder.glob("*.arrayrecord"))]
        self._ends = np.cumsum([shard.count for shard in self._shards], dtype=np.int64)
        found = int(self._ends[-1]) if len(self._ends) else 0
        if found != len(self.lengths):
            for shard in self._shards:
                integrity.check_file(shard.path)
            where = ", ".join(map(str, folders))
            wrong = f"{found} records but {len(self.lengths)} lengths"
            raise UserError(f"{where}: {wrong}; run `jaxtrain tokenize` again")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.frombuffer(self.stored(np.array([index]))[0], self.dtype).astype(np.int32)

    def stored(self, indices: np.ndarray) -> list[bytes]:
        """The records as they lie on disk, in the order asked for: one call a file, not one a record."""
        shards = np.searchsorted(self._ends, indices, side="right")
        found: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            inside = indices[here] - (self._ends[shard - 1] if shard else 0)
            for at, record in zip(here.tolist(), self._shards[shard].read(inside.tolist()), strict=True):
                found[at] = record
        return found


class ConversationRecords(TokenRecords):
    """Conversations, rendered: `records[i]` is int32 ids and uint8 mask, 1 where the assistant speaks."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        (data,), length = self.stored(np.array([index])), int(self.lengths[index])
        ids = np.frombuffer(data, self.dtype, count=length).astype(np.int32)
        return ids, np.frombuffer(data, np.uint8, offset=length * self.dtype.itemsize)


@dataclass(frozen=True)
class TokenData:
    """A finished artifact of tokenize."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path, tokenizer_fingerprint: str | None = None) -> "TokenData":
        """Errors: UserError where no artifact stands, or its tokenizer is another than the one expected."""
        artifact.require(folder, "tokenize")
        data = cls(Path(folder))
        if tokenizer_fingerprint not in (None, data.tokenizer.fingerprint):
            other = f"{folder} was encoded by another tokenizer than the model's"
            raise UserError(f"{other}; encode it with the model's tokenizer, or train a model on it")
        return data

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder)

    @cached_property
    def mixture(self) -> dict[str, float]:
        """Weight of each document source; they sum to 1."""
        weights = json.loads((self.folder / "mixture.json").read_text())
        return {source: weight for source, weight in sorted(weights.items()) if weight > 0}

    def names(self, kind: str) -> list[str]:
        """Sources of the folder of that name, such as `documents`, sorted."""
        return sorted(path.parent.name for path in (self.folder / kind).glob("*/lengths.npy"))

    def documents(self, source: str) -> TokenRecords:
        return TokenRecords([self._path("documents", source)], self.tokenizer.id_dtype)

    def heldout(self, source: str) -> TokenRecords:
        return TokenRecords([self._path("heldout", source)], self.tokenizer.id_dtype)

    def conversations(self, *sources: str) -> ConversationRecords:
        folders = [self._path("conversations", source) for source in sources]
        return ConversationRecords(folders, self.tokenizer.id_dtype)

    def lengths(self, kind: str, source: str) -> np.ndarray:
        """int64 [records], read without opening the records."""
        return np.load(self._path(kind, source) / "lengths.npy", allow_pickle=False)

    def heldout_bytes(self, source: str) -> int:
        """UTF-8 bytes of a source's held-out text."""
        return int(np.load(self._path("heldout", source) / "bytes.npy", allow_pickle=False).sum())

    def _path(self, kind: str, source: str) -> Path:
        if source not in self.names(kind):
            there = ", ".join(self.names(kind)) or "none"
            raise UserError(f"{self.folder} has no {kind} of a source {source!r}; there are: {there}")
        return self.folder / kind / source
