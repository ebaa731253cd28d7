"""Byte-level byte-pair encoding (Sennrich et al. 2016): trained by rustbpe, run by tiktoken.

The ids 0..255 are not bytes in order: an id is the rank of its bytes in `ranks.tiktoken`, and the special
tokens take the last ids. No text encodes to a special token; only `feed` and `chat.render` put them.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import rustbpe
import tiktoken

from jaxtrain.runtime.errors import UserError

SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

# GPT-4's split with three changes: digits in ones and twos (a small vocabulary has no room for a thousand
# triples), combining marks stay with their letters (Devanagari, Thai, Hebrew points), and a run of spaces has
# an end: the regex engine overflows its stack while it steps back through a million of them.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{M}\p{N}]?+[\p{L}\p{M}]+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{M}\p{N}]++[\r\n]*|\s{0,255}[\r\n]|\s{1,256}(?!\S)|\s{1,256}"
)
RANKS, SETTINGS = "ranks.tiktoken", "tokenizer.json"


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back; `decode(encode(text)) == text` for all text without lone surrogates."""

    ranks: dict[bytes, int] = field(repr=False)
    """Bytes of each token to its id, 0..n-1; a lower rank is merged first."""
    pattern: str
    """Regular expression that splits text before merging; no token crosses a split."""

    @cached_property
    def special(self) -> dict[str, int]:
        """Text of each special token to its id, behind the ranks."""
        return {text: len(self.ranks) + i for i, text in enumerate(SPECIAL_TOKENS)}

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return tiktoken.Encoding(
            "jaxtrain", pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=self.special
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.ranks) + len(SPECIAL_TOKENS)

    @property
    def id_dtype(self) -> np.dtype:
        """How an id is stored: two bytes while they suffice, little-endian."""
        return np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")

    @property
    def bos(self) -> int:
        return self.special["<|bos|>"]

    @property
    def eos(self) -> int:
        return self.special["<|eos|>"]

    @property
    def pad(self) -> int:
        return self.special["<|pad|>"]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all that decides the ids; equal fingerprints give equal ids."""
        settings = json.dumps([self.pattern, self.special])
        return hashlib.sha256(self._ranks_text().encode() + settings.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. The text of a special token is ordinary text here."""
        return self._encoding.encode_ordinary(text)

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text` as they are stored, `id_dtype` [tokens]; threads may encode side by side."""
        ids = self._encoding.encode_to_numpy(text, allowed_special=set(), disallowed_special=())
        return ids.astype(self.id_dtype)

    def encode_batch(self, texts: Sequence[str], threads: int | None = None) -> list[list[int]]:
        """The ids of each text, encoded on `threads` threads (default: one a core)."""
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=threads or os.cpu_count() or 1)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self._encoding.decode_bytes(list(ids))

    def save(self, folder: str | Path) -> None:
        """Write `ranks.tiktoken` and `tokenizer.json` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RANKS).write_text(self._ranks_text(), encoding="ascii")
        settings = {"pattern": self.pattern, "special_tokens": self.special, "fingerprint": self.fingerprint}
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer that `save` wrote; a changed or foreign file is an error."""
        folder = Path(folder)
        for name in (RANKS, SETTINGS):
            if not (folder / name).is_file():
                raise UserError(f"no tokenizer at {folder}: {name} is missing; run `jaxtrain tokenize` first")
        lines = (line.split() for line in (folder / RANKS).read_text(encoding="ascii").splitlines())
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tokenizer = cls({base64.b64decode(token): int(rank) for token, rank in lines}, settings["pattern"])
        if tokenizer.fingerprint != settings["fingerprint"]:
            raise UserError(
                f"{folder}: {RANKS} and {SETTINGS} do not belong together; run `jaxtrain tokenize` again"
            )
        return tokenizer

    def _ranks_text(self) -> str:
        return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in self.ranks.items())


def train(texts: Iterable[str], vocab_size: int, pattern: str = PATTERN) -> Tokenizer:
    """Merge the most frequent pair of `texts` until there are `vocab_size` ids, special tokens included."""
    mergeable = vocab_size - len(SPECIAL_TOKENS)
    if mergeable < 256:
        raise UserError(
            f"vocab_size = {vocab_size} has no room for 256 bytes and {len(SPECIAL_TOKENS)} special "
            f"tokens; use at least {256 + len(SPECIAL_TOKENS)}"
        )
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), mergeable, pattern=pattern)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) < mergeable:
        raise UserError(
            f"the text gives only {len(ranks) + len(SPECIAL_TOKENS)} tokens, not vocab_size = "
            f"{vocab_size}; lower vocab_size or give more text"
        )
    return Tokenizer(ranks, pattern)
