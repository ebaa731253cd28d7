"""`jaxtrain inspect` on a small clean artifact."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from jaxtrain.document import Document, record_id, schema, to_row, write_rows
from jaxtrain.report.inspect import inspect
from jaxtrain.runtime.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    columns = schema(Document, {"words": pa.float32()})
    rows = [
        to_row(Document(id=record_id("web", str(i)), text=f"Page number {i}.", source="web"))
        | {"words": float(i)}
        for i in range(50)
    ]
    write_rows(tmp_path / "documents/web.parquet", columns, rows)
    dropped = pa.schema([(name, pa.string()) for name in ("id", "reason", "text")])
    write_rows(
        tmp_path / "dropped/web.parquet", dropped, [{"id": "1", "reason": "too few words", "text": "Hi [b]"}]
    )
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "clean"}))
    return tmp_path


def shown(capsys, *arguments: object) -> str:
    inspect([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_counts_by_part_and_source(folder, capsys):
    lines = shown(capsys, folder).splitlines()
    assert any("documents" in line and " 50 " in line for line in lines)
    assert any("dropped" in line and " 1 " in line for line in lines)
    assert " 10 " in shown(capsys, folder, "--part", "documents", "--where", "words<10")


def test_samples_searches_and_reasons(folder, capsys):
    text = shown(capsys, folder, "--search", "number 4[0-9]", "--sample", 100)
    assert text.count("Page number 4") == 10 and "Page number 39" not in text
    assert "Hi [b]" in shown(capsys, folder, "--reason", "few words", "--sample", 5)
    few = shown(capsys, folder, "--part", "documents", "--sample", 5)
    assert few.count("Page number") == 5 and few == shown(
        capsys, folder, "--part", "documents", "--sample", 5
    )


def test_mistakes(folder, tmp_path):
    with pytest.raises(UserError, match="holds nothing to inspect"):
        inspect([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="it has documents, dropped"):
        inspect([str(folder), "--part", "kept"])
    with pytest.raises(UserError, match="signals here: words"):
        inspect([str(folder), "--part", "documents", "--where", "word<3"])
    with pytest.raises(UserError, match="unrecognized arguments: --smaple; `jaxtrain inspect --help`"):
        inspect([str(folder), "--smaple"])
