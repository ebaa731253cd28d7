"""Real text, a tokenizer trained on it, and a small artifact of clean."""

import hashlib
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxtrain.document import Conversation, Document, record_id, write_records
from jaxtrain.tokenize.templates import TEMPLATES
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, train

SPECIAL = ["<|endoftext|>", "<bos>", *sorted({token for one in TEMPLATES.values() for token in one.tokens})]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's and Qwen's: line breaks do not merge with the words behind them."""


@pytest.fixture(scope="session")
def sources() -> list[str]:
    """Python files of the standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    return [file.read_text(encoding="utf-8") for file in files]


@pytest.fixture(scope="session")
def tokenizer(sources: list[str]) -> BytePairTokenizer:
    return train(sources, vocab_size=1024)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory, sources: list[str]) -> Path:
    """A byte-level tokenizer with the special tokens of all templates and none of its own."""
    model = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated")
    bytes_of_it = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of_it])
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(sources[:30], trainer)
    folder = tmp_path_factory.mktemp("bare")
    model.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def write_clean(tmp_path: Path) -> Callable[..., Path]:
    """Write an artifact of clean: `write_clean({"a": [...]}, heldout, conversations, mixture)`."""

    def write(
        documents: dict[str, list[str]],
        heldout: dict[str, list[str]] | None = None,
        conversations: dict[str, list[list[tuple[str, str]]]] | None = None,
        mixture: dict[str, float] | None = None,
    ) -> Path:
        folder = tmp_path / "clean"
        for kind, sources in (("documents", documents), ("heldout", heldout or {})):
            for source, texts in sources.items():
                rows = [
                    Document(id=record_id(source, f"{kind}{i}"), text=text, source=source)
                    for i, text in enumerate(texts)
                ]
                write_records(folder / kind / f"{source}.parquet", Document, rows)
        for source, chats in (conversations or {}).items():
            talks = [
                Conversation(
                    id=record_id(source, str(i)),
                    source=source,
                    messages=[{"role": role, "content": content} for role, content in chat],
                )
                for i, chat in enumerate(chats)
            ]
            write_records(folder / "conversations" / f"{source}.parquet", Conversation, talks)
        weights = mixture or {source: 1 / len(documents) for source in documents}
        (folder / "mixture.json").write_text(json.dumps(weights))
        made_of = hashlib.sha256(repr((documents, heldout, conversations, mixture)).encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": made_of}))
        return folder

    return write
