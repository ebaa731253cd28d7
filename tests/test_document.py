"""Records and their Parquet files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain import document
from jaxtrain.document import Conversation, Document, read_records, record_id, schema, write_records
from jaxtrain.runtime.errors import UserError


def test_an_id_is_stable_and_tells_sources_apart() -> None:
    assert record_id("wiki", "Anarchism") == "805a93bc50a71aef"
    assert record_id("a", "bc") != record_id("ab", "c")


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=5))
def test_documents_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("records") / "deep" / "books.parquet"
    records = [
        Document(
            id=record_id("books", str(i)), text=text, source="books", url="https://x/é", meta={"n": [i, text]}
        )
        for i, text in enumerate(texts)
    ]
    assert write_records(path, Document, records) == len(texts)
    assert list(read_records(path, Document)) == records


def test_conversations_come_back_and_carry_trl_columns(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    record = Conversation(id="0" * 16, messages=messages, source="dolly", license="MIT")
    write_records(tmp_path / "dolly.parquet", Conversation, [record])
    assert list(read_records(tmp_path / "dolly.parquet", Conversation)) == [record]
    (stored,) = pq.read_table(tmp_path / "dolly.parquet")["messages"].to_pylist()
    assert [{name: turn[name] for name in ("role", "content")} for turn in stored] == messages


def test_rows_are_grouped_and_compressed_and_the_same_bytes(tmp_path: Path) -> None:
    many = document.ROWS_PER_GROUP * 2 + 1
    records = [Document(id=record_id("s", str(i)), text="word " * 9, source="s") for i in range(many)]
    for name in ("a", "b"):
        assert write_records(tmp_path / name, Document, iter(records)) == many
    data = pq.ParquetFile(tmp_path / "a").metadata
    assert data.num_rows == many and data.num_row_groups == 3
    assert data.row_group(0).column(1).compression == "ZSTD"
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(list(read_records(tmp_path / "a", Document))) == many


def test_signals_lie_behind_and_records_leave_them_aside(tmp_path: Path) -> None:
    columns = schema(Document, {"quality": pa.float32()})
    row = document.to_row(Document(id="1", text="t", source="s")) | {"quality": 0.5}
    document.write_rows(tmp_path / "s.parquet", columns, [row])
    assert pq.read_schema(tmp_path / "s.parquet").names[-1] == "quality"
    assert [record.text for record in read_records(tmp_path / "s.parquet", Document)] == ["t"]


def test_a_truncated_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_records(path, Document, [Document(id="1", text="t", source="s")])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"s.parquet is not a readable Parquet file .* run its stage again"):
        list(read_records(path, Document))
