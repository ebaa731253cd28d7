"""Byte-level byte-pair encoding (Sennrich et al. 2016): trained by rustbpe, run by tiktoken.

The ids 0..255 are not bytes in order: an id is the rank of its bytes in `ranks.tiktoken`, and the special
tokens take the last ids. No text encodes to a special token; only `feed` and `chat.render` put them.
"""

import base64
import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import rustbpe
import tiktoken

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import read_object
from jaxtrain.tokenize.templates import OWN

SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

# GPT-4's split with three changes: digits in ones and twos (a small vocabulary has no room for a thousand
# triples), combining marks stay with their letters (Devanagari, Thai, Hebrew points), and a run of spaces has
# an end: the regex engine overflows its stack while it steps back through a million of them.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{M}\p{N}]?+[\p{L}\p{M}]+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{M}\p{N}]++[\r\n]*|\s{0,255}[\r\n]|\s{1,256}(?!\S)|\s{1,256}"
)
RANKS, SETTINGS = "ranks.tiktoken", "tokenizer.json"
DATE = "2024-07-26"
"""What a template hears that asks for today's: the one of Llama 3.1's for programs without a clock."""
FOLDER = "tokenizer"
"""Where an artifact of this project has its tokenizer."""
FOREIGN = {
    "tokenizer.model": "SentencePiece's tokenizer.model",
    "vocab.json": "vocab.json and merges.txt",
    "vocab.txt": "vocab.txt",
    "tekken.json": "Mistral's tekken.json",
}
"""Files of tokenizers that are not read → what they are called."""


class Tokenizer(ABC):
    """Text to ids and back. The text of a special token is ordinary text to `encode`, never that token."""

    names: Mapping[str, str]
    """Text of the tokens `bos`, `eos` and `pad`, where there are such."""
    template: str | None
    """Jinja chat template."""
    date: str = DATE
    """What a template that asks for today's date is told, YYYY-MM-DD."""

    @staticmethod
    def load(folder: str | Path) -> "Tokenizer":
        """The tokenizer of an artifact of this project, of a Hugging Face model, or of a folder of its own.

        Errors: UserError where there is none, or its files were changed.
        """
        folder = Path(folder)
        if (folder / FOLDER).is_dir():
            folder = folder / FOLDER
        if (folder / RANKS).is_file():
            return BytePairTokenizer.load(folder)
        if not (folder / SETTINGS).is_file():
            for name, words in FOREIGN.items():
                if (folder / name).is_file():
                    raise UserError(
                        f"{folder} has only {words}, which is not read; put the model's {SETTINGS} beside it "
                        f"(`AutoTokenizer.from_pretrained(..).save_pretrained(..)` writes one)"
                    )
            raise UserError(
                f"no tokenizer at {folder}: {SETTINGS} is missing; name an artifact of `jaxtrain tokenize`, "
                f"or put the model's {SETTINGS} there"
            )
        if "pattern" in read_object(folder / SETTINGS):
            raise UserError(f"no tokenizer at {folder}: {RANKS} is missing; run `jaxtrain tokenize` again")
        from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer  # which knows this file

        return HuggingFaceTokenizer.load(folder)

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write what `load` reads."""

    def save_in(self, artifact: Path) -> None:
        """Write it where `load` finds it in an artifact of this project."""
        self.save(artifact / FOLDER)

    @property
    @abstractmethod
    def special(self) -> Mapping[str, int]:
        """Text of each special token to its id."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""

    def first_beyond(self, rows: int) -> str:
        """A token of `rows` or above that text or the chat template can give; empty: there is none."""
        return next((text for text, index in self.special.items() if index >= rows), "")

    @abstractmethod
    def id_of(self, role: Literal["bos", "eos", "pad"]) -> int:
        """The token of a role."""

    @property
    def bos(self) -> int:
        """Begins every document."""
        return self.id_of("bos")

    @property
    def eos(self) -> int:
        """Ends every document."""
        return self.id_of("eos")

    @property
    def pad(self) -> int:
        """Fills what is left of a row."""
        return self.id_of("pad")

    @property
    @abstractmethod
    def end(self) -> int:
        """Ends what the assistant says."""

    @property
    def stop(self) -> tuple[int, ...]:
        """Every token behind which an answer is over."""
        return tuple(sorted({self.end, self.eos}))

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of all that decides the ids; equal fingerprints give equal ids."""

    @property
    def id_dtype(self) -> np.dtype:
        """How an id is stored: two bytes while they suffice, little-endian."""
        return np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`."""

    @abstractmethod
    def encode_trusted(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a template's own text, special tokens among them, and where in it each one stands."""

    def opening(self, text: str) -> list[int]:
        """The ids of `text` where a document begins, for a model to go on with."""
        return [self.bos, *self.encode(text)]

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text` as they are stored, `id_dtype` [tokens]; threads may encode side by side."""
        return np.asarray(self.encode(text), self.id_dtype)

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""

    @abstractmethod
    def token_bytes(self, index: int) -> bytes:
        """UTF-8 of what a token is in the middle of a text; a part of a character where it is one."""


@dataclass(frozen=True)
class BytePairTokenizer(Tokenizer):
    """Byte-level BPE; `decode(encode(text)) == text` for all text without lone surrogates."""

    ranks: dict[bytes, int] = field(repr=False)
    """Bytes of each token to its id; a lower rank is merged first."""
    pattern: str
    """Regular expression that splits text before merging; no token crosses a split."""
    names: ClassVar = {"bos": "<|bos|>", "eos": "<|eos|>", "pad": "<|pad|>"}
    template: ClassVar = OWN

    @cached_property
    def special(self) -> dict[str, int]:
        """The ids that the ranks leave free, from below: nearly always those behind them."""
        taken = set(self.ranks.values())
        free = (index for index in count() if index not in taken)
        return dict(zip(SPECIAL_TOKENS, free, strict=False))

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return tiktoken.Encoding(
            "jaxtrain", pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=self.special
        )

    @property
    def vocab_size(self) -> int:
        return len(self.ranks) + len(SPECIAL_TOKENS)

    def id_of(self, role: str) -> int:
        return self.special[f"<|{role}|>"]

    @property
    def end(self) -> int:
        return self.id_of("end")

    @cached_property
    def fingerprint(self) -> str:
        settings = json.dumps([self.pattern, self.special])
        return hashlib.sha256(self._ranks_text().encode() + settings.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def encode_trusted(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Places are those of whole runs of ordinary text: here no mark ever stands within one."""
        ids, places, begin = list[int](), list[tuple[int, int]](), 0
        for run in re.split(f"({'|'.join(map(re.escape, self.special))})", text):
            found = [self.special[run]] if run in self.special else self.encode(run)
            ids += found
            places += [(begin, begin + len(run))] * len(found)
            begin += len(run)
        return ids, places

    def encode_array(self, text: str) -> np.ndarray:
        ids = self._encoding.encode_to_numpy(text, allowed_special=set(), disallowed_special=())
        return ids.astype(self.id_dtype)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=os.cpu_count() or 1)

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids))

    def token_bytes(self, index: int) -> bytes:
        return self._encoding.decode_single_token_bytes(index)

    def save(self, folder: str | Path) -> None:
        """Write `ranks.tiktoken` and `tokenizer.json` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RANKS).write_text(self._ranks_text(), encoding="ascii")
        settings = {"pattern": self.pattern, "special_tokens": self.special, "fingerprint": self.fingerprint}
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def openai(cls, name: str) -> "BytePairTokenizer":
        """OpenAI's encoding of that name, with this project's special tokens in place of its own.

        Its file comes from OpenAI's server, or from the folder TIKTOKEN_CACHE_DIR (docs/formats.md).
        """
        known = ("gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base")
        if name not in known:
            raise UserError(f"no OpenAI encoding {name!r}; there are: {', '.join(known)}")
        try:
            found = tiktoken.get_encoding(name)
        except OSError as error:
            raise UserError(
                f"the file of {name} could not be fetched ({type(error).__name__}); put it into the folder "
                "TIKTOKEN_CACHE_DIR as docs/formats.md says"
            ) from error
        return cls(dict(found._mergeable_ranks), found._pat_str)

    @classmethod
    def load(cls, folder: str | Path) -> "BytePairTokenizer":
        """The tokenizer that `save` wrote; a changed or foreign file is an error."""
        folder = Path(folder)
        lines = (line.split() for line in (folder / RANKS).read_text(encoding="ascii").splitlines())
        settings = read_object(folder / SETTINGS)
        tokenizer = cls({base64.b64decode(token): int(rank) for token, rank in lines}, settings["pattern"])
        if tokenizer.fingerprint != settings["fingerprint"]:
            raise UserError(f"{folder}: its files do not belong together; run `jaxtrain tokenize` again")
        return tokenizer

    def _ranks_text(self) -> str:
        return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in self.ranks.items())


def train(texts: Iterable[str], vocab_size: int, pattern: str = PATTERN) -> BytePairTokenizer:
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
    return BytePairTokenizer(ranks, pattern)
