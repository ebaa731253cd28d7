"""Real text, a tokenizer trained on it, and a small artifact of clean."""

import hashlib
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxtrain.document import Conversation, Document, record_id, write_records
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, train


@pytest.fixture(scope="session")
def sources() -> list[str]:
    """Python files of the standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    return [file.read_text(encoding="utf-8") for file in files]


@pytest.fixture(scope="session")
def tokenizer(sources: list[str]) -> BytePairTokenizer:
    return train(sources, vocab_size=1024)


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
