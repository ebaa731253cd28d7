"""Tokenizers of published models: `tokenizer.json`, run by Hugging Face's `tokenizers`, and chat template.

Needs the extra `huggingface`. Nothing is fetched: a model's folder has all of it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

MODEL, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
ROLES = ("bos", "eos", "pad")


@dataclass(frozen=True)
class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json` and the names of its special tokens."""

    text: str = field(repr=False)
    """Contents of `tokenizer.json`."""
    names: Mapping[str, str]
    """Text of the tokens `bos`, `eos` and `pad`, where the model has them."""
    template: str | None = None
    """Jinja chat template."""

    @classmethod
    def load(cls, folder: str | Path) -> "HuggingFaceTokenizer":
        """Read `tokenizer.json`, `tokenizer_config.json` and, where it is a file, `chat_template.jinja`."""
        folder = Path(folder)
        path = folder / SETTINGS
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        names = {role: _text(settings.get(f"{role}_token")) for role in ROLES}
        template = settings.get("chat_template")
        if isinstance(template, list):  # several by name
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        if (folder / TEMPLATE).is_file():
            template = (folder / TEMPLATE).read_text(encoding="utf-8")
        text = (folder / MODEL).read_text(encoding="utf-8")
        loaded = cls(text, {role: name for role, name in names.items() if name}, template)
        if "eos" not in loaded.names:
            raise UserError(f"{path} names no eos_token; add the token that ends a document")
        for role, name in loaded.names.items():
            if loaded.trusting.token_to_id(name) is None:
                raise UserError(f"{path}: {role}_token {name!r} is not in {MODEL}")
        return loaded

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL).write_text(self.text, encoding="utf-8")
        settings = {f"{role}_token": name for role, name in self.names.items()}
        (folder / SETTINGS).write_text(
            json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if self.template is not None:
            (folder / TEMPLATE).write_text(self.template, encoding="utf-8")

    @cached_property
    def trusting(self) -> "tokenizers.Tokenizer":
        """Takes the text of a special token for that token: for the chat template's own text alone."""
        return self._open()

    @cached_property
    def _plain(self) -> "tokenizers.Tokenizer":
        model = self._open()
        model.encode_special_tokens = True  # means: their text is encoded, as any other
        return model

    def _open(self) -> "tokenizers.Tokenizer":
        try:
            import tokenizers
        except ImportError:
            raise UserError(
                f"{MODEL} needs the package tokenizers; install it with `pip install 'jaxtrain[huggingface]'`"
            ) from None
        model = tokenizers.Tokenizer.from_str(self.text)
        model.no_truncation()
        model.no_padding()
        return model

    @cached_property
    def special(self) -> dict[str, int]:
        """Text of each special token to its id."""
        added = self.trusting.get_added_tokens_decoder()
        return {token.content: index for index, token in sorted(added.items()) if token.special}

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id; a model may have more rows in its embedding."""
        return max(self.trusting.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def bos(self) -> int:
        """Begins a document; `eos` where the model has no such token."""
        return self._id("bos")

    @property
    def eos(self) -> int:
        return self._id("eos")

    @property
    def pad(self) -> int:
        """Fills a row; `eos` where the model has no such token (it carries no weight)."""
        return self._id("pad")

    @cached_property
    def end(self) -> int:
        from jaxtrain.tokenize.template import end_of_turn  # which knows this class

        return end_of_turn(self)

    def _id(self, role: str) -> int:
        index = self.trusting.token_to_id(self.names.get(role, self.names["eos"]))
        assert index is not None
        return index

    @cached_property
    def fingerprint(self) -> str:
        settings = json.dumps([dict(sorted(self.names.items())), self.template])
        return hashlib.sha256(self.text.encode() + settings.encode()).hexdigest()

    @property
    def vocabulary_fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def opening(self, text: str) -> list[int]:
        """As the model's own tokenizer begins a text: with what its post-processor puts, often nothing."""
        return self._plain.encode(text).ids or [self.bos]

    def encode_batch(self, texts: Sequence[str], threads: int | None = None) -> list[list[int]]:
        """`threads` is not asked for here: `tokenizers` uses all cores, or RAYON_NUM_THREADS."""
        return [found.ids for found in self._plain.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._plain.decode(list(ids), skip_special_tokens=False)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        from tokenizers.decoders import DecodeStream

        pending = DecodeStream(skip_special_tokens=False)
        seen: list[int] = []
        told = 0
        for index in ids:
            seen.append(index)
            if text := pending.step(self._plain, index):
                told += len(text)
                yield text
        if rest := self.decode(seen)[told:]:
            yield rest


def _text(token: str | Mapping[str, Any] | None) -> str | None:
    return token["content"] if isinstance(token, Mapping) else token
