"""Tokenizers of published models: `tokenizer.json`, run by Hugging Face's `tokenizers`, and chat template.

Needs the extra `huggingface`. Nothing is fetched: a model's folder has all of it.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import read_object, reading
from jaxtrain.tokenize.tokenizer import DATE, Tokenizer

if TYPE_CHECKING:
    import tokenizers

MODEL, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
GENERATION = "generation_config.json"
ROLES = ("bos", "eos", "pad")
ENDOFTEXT = "<|endoftext|>"
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
LETTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
"""GPT-2's printable letter for each byte, in which byte-level vocabularies are written."""
MOST_GROWTH = 64
"""Times as long as it was: what a published normalizer makes of a text at most is far less."""
_BYTES = {letter: byte for byte, letter in LETTERS.items()}


@contextmanager
def _refused() -> Iterator[None]:
    """A panic of the package tokenizers, such as at a regular expression without end, is a UserError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{MODEL} cannot read this text ({error}); use another tokenizer") from None


def _growth(normalizer: Any) -> float:
    """How many times as long a text may become."""
    match normalizer:
        case {"type": "Sequence", "normalizers": [*parts]}:
            return math.prod(map(_growth, parts))
        case {"type": "Replace", "content": str(content)}:
            return max(1, len(content))
    return 1


@dataclass(frozen=True)
class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json` and the names of its special tokens."""

    text: str = field(repr=False)
    """Contents of `tokenizer.json`."""
    names: Mapping[str, str]
    template: str | None = None
    date: str = DATE
    """`template_date` of the settings."""
    stops: tuple[int, ...] = field(default=(), compare=False)
    """Tokens that end an answer by the model's `generation_config.json`."""

    @classmethod
    def load(cls, folder: str | Path) -> "HuggingFaceTokenizer":
        """Read `tokenizer.json` and what stands beside it: settings, template, `generation_config.json`.

        Errors: UserError where no file says what ends a document, or a file is malformed.
        """
        with reading(f"{folder}: its tokenizer"):
            return cls._load(Path(folder))

    @classmethod
    def _load(cls, folder: Path) -> "HuggingFaceTokenizer":
        settings = _read(folder / SETTINGS)
        generation = _read(folder / GENERATION)
        template = settings.get("chat_template")
        if isinstance(template, list):  # several by name
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        if (folder / TEMPLATE).is_file():
            template = (folder / TEMPLATE).read_text(encoding="utf-8")
        if not isinstance(template, str | None):
            raise UserError(f"{folder / SETTINGS}: chat_template is no text: {str(template)[:40]}")
        text = (folder / MODEL).read_text(encoding="utf-8")
        stops = tuple(_ids(generation))
        bare = cls(text, {}, template, settings.get("template_date", DATE), stops)
        sources = (settings, _read(folder / "special_tokens_map.json"))
        names = {role: name for role in ROLES if (name := _name(folder, role, sources))}
        if "eos" not in names:
            names |= bare._eos_of([generation, _read(folder / "config.json")])
        if "eos" not in names:
            raise UserError(f"{folder / SETTINGS} names no eos_token; add the token that ends a document")
        for role, name in names.items():
            if bare.trusting.token_to_id(name) is None:
                raise UserError(f"{folder / SETTINGS}: {role}_token {name!r} is not in {MODEL}")
        return dataclasses.replace(bare, names=names)

    def _eos_of(self, configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """By the id that the model's configs name; else GPT-2's only special token, which no file names."""
        for index in [index for config in configs for index in _ids(config)]:
            if (name := self.trusting.id_to_token(index)) in self.special:
                return {"eos": name}
        return {"bos": ENDOFTEXT, "eos": ENDOFTEXT} if list(self.special) == [ENDOFTEXT] else {}

    def save(self, folder: str | Path) -> None:
        """Write what `load` reads and `transformers.AutoTokenizer` too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL).write_text(self.text, encoding="utf-8")
        settings = {f"{role}_token": name for role, name in self.names.items()}
        if self.date != DATE:
            settings["template_date"] = self.date
        _write_json(folder / SETTINGS, {"tokenizer_class": "PreTrainedTokenizerFast"} | settings)
        _write_json(folder / GENERATION, self.role_ids | {"eos_token_id": list(self.stop)})
        if self.template is not None:
            (folder / TEMPLATE).write_text(self.template, encoding="utf-8")

    @cached_property
    def trusting(self) -> "tokenizers.Tokenizer":
        """Takes the text of a special token for that token: for the chat template's own text alone."""
        return _opened(self.text, is_trusting=True)

    @cached_property
    def _plain(self) -> "tokenizers.Tokenizer":
        return _opened(self.text, is_trusting=False)

    @cached_property
    def _added(self) -> "dict[int, tokenizers.AddedToken]":
        return self.trusting.get_added_tokens_decoder()

    @cached_property
    def special(self) -> dict[str, int]:
        """Text of each special token to its id."""
        return {token.content: index for index, token in sorted(self._added.items()) if token.special}

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id; a model may have more rows in its embedding."""
        return max(self.trusting.get_vocab(with_added_tokens=True).values()) + 1

    def first_beyond(self, rows: int) -> str:
        """Special tokens that nothing names are never given: Gemma 3 has one behind its embedding."""
        from jaxtrain.tokenize.chat import sample_text  # which knows this class

        written = (self.template or "") + sample_text(self)
        given = {*self.names.values(), *(t for t in self.special if t in written)}
        vocabulary = self.trusting.get_vocab(with_added_tokens=True).items()
        found = (t for t, index in vocabulary if index >= rows and (t in given or t not in self.special))
        return min(found, default="")

    def id_of(self, role: str) -> int:
        """`eos` where the model has no such token: it ends what was before, and filling has no weight."""
        index = self.trusting.token_to_id(self.names.get(role, self.names["eos"]))
        assert index is not None, "`load` has looked"
        return index

    @cached_property
    def end(self) -> int:
        from jaxtrain.tokenize.chat import end_of_turn  # which knows this class

        return end_of_turn(self)

    @property
    def role_ids(self) -> dict[str, int]:
        """`bos_token_id` and the others, as config.json names them."""
        return {f"{role}_token_id": self.id_of(role) for role in self.names}

    @property
    def stop(self) -> tuple[int, ...]:
        return tuple(sorted({*super().stop, *self.stops}))

    @cached_property
    def fingerprint(self) -> str:
        date = [self.date] if self.date != DATE else []
        settings = json.dumps([dict(sorted(self.names.items())), self.template, *date])
        return hashlib.sha256(self.text.encode() + settings.encode()).hexdigest()

    @cached_property
    def vocabulary_fingerprint(self) -> str:
        """Of the ids of all tokens and the order of merges: saving by another program does not change it."""
        merges = json.loads(self.text)["model"].get("merges", [])
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        ids = sorted(self.trusting.get_vocab(with_added_tokens=True).items())
        return hashlib.sha256(json.dumps([ids, merges]).encode()).hexdigest()

    @_refused()
    def encode(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    @_refused()
    def encode_trusted(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self.trusting.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    @_refused()
    def opening(self, text: str) -> list[int]:
        """As the model's own tokenizer begins a text: with what its post-processor puts, often nothing."""
        return self._plain.encode(text).ids or [self.bos]

    @_refused()
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._plain.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._plain.decode(list(ids), skip_special_tokens=False)

    def token_bytes(self, index: int) -> bytes:
        piece = self.trusting.id_to_token(index) or ""
        if index in self._added:
            return piece.encode()
        if self._is_byte_level and all(letter in _BYTES for letter in piece):
            return bytes(_BYTES[letter] for letter in piece)
        if found := re.fullmatch("<0x([0-9A-F]{2})>", piece):
            return bytes.fromhex(found[1])
        # between others: alone, or first, it may lose the space before it
        return self.decode([index, index])[len(self.decode([index])) :].encode()

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self.text).get("decoder"))


# a folder's tokenizer is opened once, though `load` looks into it before it knows all names
@lru_cache(maxsize=2)
def _opened(text: str, *, is_trusting: bool) -> "tokenizers.Tokenizer":
    """Errors: UserError for a text that is no `tokenizer.json`."""
    import tokenizers  # of an extra

    try:
        model = tokenizers.Tokenizer.from_str(text)
    # the package raises Exception itself
    except Exception as error:
        raise UserError(f"{MODEL} is none that the package tokenizers reads ({error}); restore it") from error
    if (growth := _growth(json.loads(text).get("normalizer"))) > MOST_GROWTH:
        raise UserError(f"{MODEL}: its normalizer makes a text {growth:.0e} times as long; restore it")
    model.no_truncation()
    model.no_padding()
    # means, where it is true: the text of a special token is encoded as any other
    model.encode_special_tokens = not is_trusting
    return model


def _name(folder: Path, role: str, sources: Sequence[Mapping[str, Any]]) -> str | None:
    """The text of a role's token in the first file that names one."""
    key = f"{role}_token"
    for found in sources:
        token = found.get(key)
        token = token.get("content") if isinstance(token, Mapping) else token
        if token is not None and not isinstance(token, str):
            raise UserError(f"{folder / SETTINGS}: {key} is {token!r}; it has to be one text")
        if token:
            return token
    return None


def _ids(said: Mapping[str, Any]) -> list[int]:
    """`eos_token_id`: one id, several or none."""
    value = said.get("eos_token_id")
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(index) is int for index in found):
        raise UserError(f"eos_token_id of {GENERATION} or config.json is no id: {str(value)[:40]}")
    return found


def _read(path: Path) -> dict[str, Any]:
    """Empty where the file is absent."""
    return read_object(path) if path.is_file() else {}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
