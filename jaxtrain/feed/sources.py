"""Open an artifact of tokenize: token records and conversations by index, their lengths, the mixture."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grain
import numpy as np

from jaxtrain import artifact
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer

KINDS = ("documents", "heldout", "conversations")


class TokenRecords:
    """Documents of one source: `records[i]` is int32 [lengths[i]], without special tokens."""

    def __init__(self, folder: Path, dtype: np.dtype):
        self.lengths: np.ndarray = np.load(folder / "lengths.npy", allow_pickle=False)
        self._source = grain.sources.ArrayRecordDataSource([str(folder / "00000.arrayrecord")])
        self._dtype = dtype
        if len(self._source) != len(self.lengths):
            raise UserError(
                f"{folder}: {len(self._source)} records but {len(self.lengths)} lengths; "
                "run `jaxtrain tokenize` again"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.frombuffer(self._source[index], self._dtype).astype(np.int32)


class ConversationRecords(TokenRecords):
    """Conversations of one source, rendered: `records[i]` is int32 ids and uint8 mask, both [lengths[i]]."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        data, length = self._source[index], int(self.lengths[index])
        ids = np.frombuffer(data, self._dtype, count=length).astype(np.int32)
        return ids, np.frombuffer(data, np.uint8, offset=length * self._dtype.itemsize)


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
            raise UserError(
                f"{folder} was encoded by another tokenizer than the model's; "
                "encode it with the model's tokenizer, or train a model on it"
            )
        return data

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder / "tokenizer")

    @cached_property
    def mixture(self) -> dict[str, float]:
        """Weight of each document source; they sum to 1."""
        weights = json.loads((self.folder / "mixture.json").read_text())
        return {source: weight for source, weight in sorted(weights.items()) if weight > 0}

    def names(self, kind: str) -> list[str]:
        """Sources of `documents`, `heldout` or `conversations`, sorted."""
        assert kind in KINDS, kind
        return sorted(path.parent.name for path in (self.folder / kind).glob("*/lengths.npy"))

    def documents(self, source: str) -> TokenRecords:
        return TokenRecords(self._path("documents", source), self.tokenizer.id_dtype)

    def heldout(self, source: str) -> TokenRecords:
        return TokenRecords(self._path("heldout", source), self.tokenizer.id_dtype)

    def conversations(self, source: str) -> ConversationRecords:
        return ConversationRecords(self._path("conversations", source), self.tokenizer.id_dtype)

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
