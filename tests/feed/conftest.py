"""A small artifact of tokenize, made by the stage itself from books, Python sources and instructions."""

import json
import lzma
import sysconfig
from pathlib import Path

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

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
def texts() -> dict[str, list[str]]:
    """Documents of each source; the first three are held out."""
    return {"books": books(), "code": code()}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, list[str]]) -> Path:
    """The finished artifact of tokenize: sources books (weight 0.7) and code (0.3), chat `alpaca`."""
    folder = tmp_path_factory.mktemp("feed")
    clean = folder / "clean"
    for source in texts:
        heldout, kept = documents(source, texts[source])[:3], documents(source, texts[source])[3:]
        write_records(clean / "documents" / f"{source}.parquet", Document, kept)
        write_records(clean / "heldout" / f"{source}.parquet", Document, heldout)
    write_records(clean / "conversations" / "alpaca.parquet", Conversation, conversations())
    (clean / "mixture.json").write_text(json.dumps({"books": 0.7, "code": 0.3}))
    (clean / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "by hand"}))
    ArrayRecordWriter(str(folder / "empty.arrayrecord"), "group_size:1").close()
    config = TokenizeConfig(documents=str(clean), out=str(folder / "tokens"), vocab_size=1024)
    return run(config)
