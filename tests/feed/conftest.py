"""A small artifact of tokenize, made by the stage itself from books, Python sources and instructions."""

import json
import lzma
import sysconfig
from pathlib import Path

import pytest

from jaxtrain.document import Conversation, Document, record_id, write_records
from jaxtrain.tokenize.run import TokenizeConfig, run

DATA = Path(__file__).parents[2] / "data" / "quickstart"


def books() -> list[str]:
    """Chapters of the first book: from a few hundred to some ten thousand characters."""
    with lzma.open(DATA / "books.jsonl.xz", "rt", encoding="utf-8") as lines:
        text = json.loads(next(lines))["text"]
    return ["CHAPTER" + part for part in text.split("CHAPTER") if part.strip()]


def code() -> list[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    return [file.read_text(encoding="utf-8") for file in files]


def conversations() -> list[Conversation]:
    rows = json.loads((DATA / "alpaca.json").read_text(encoding="utf-8"))[:400]
    return [
        Conversation(
            id=record_id("alpaca", str(i)),
            source="alpaca",
            messages=[
                {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()},
                {"role": "assistant", "content": row["output"]},
            ],
        )
        for i, row in enumerate(rows)
    ]


def documents(source: str, texts: list[str]) -> list[Document]:
    return [Document(id=record_id(source, str(i)), text=text, source=source) for i, text in enumerate(texts)]


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished artifact of tokenize: sources books (weight 0.7) and code (0.3), chat `alpaca`."""
    folder = tmp_path_factory.mktemp("feed")
    clean = folder / "clean"
    for source, texts in (("books", books()), ("code", code())):
        kept, heldout = texts[3:], texts[:3]
        write_records(clean / "documents" / f"{source}.parquet", Document, documents(source, kept))
        write_records(clean / "heldout" / f"{source}.parquet", Document, documents(source, heldout))
    write_records(clean / "conversations" / "alpaca.parquet", Conversation, conversations())
    (clean / "mixture.json").write_text(json.dumps({"books": 0.7, "code": 0.3}))
    (clean / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "by hand"}))
    config = TokenizeConfig(documents=str(clean), out=str(folder / "tokens"), vocab_size=1024)
    return run(config)
