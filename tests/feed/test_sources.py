import shutil
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from jaxtrain.feed.sources import TokenData, TokenRecords
from jaxtrain.runtime.errors import UserError


def test_records_are_the_texts(tokens: Path, texts: dict[str, list[str]]) -> None:
    data = TokenData.open(tokens)
    for source in ("books", "code"):
        kept, heldout = data.documents(source), data.heldout(source)
        stored = [
            data.tokenizer.decode(records[i].tolist())
            for records in (heldout, kept)
            for i in range(len(records))
        ]
        assert stored == texts[source]
        assert kept[5].dtype == np.int32 and len(kept[5]) == kept.lengths[5]
        assert data.heldout_bytes(source) == sum(len(text.encode()) for text in texts[source][:3])


def test_conversations_carry_their_mask(tokens: Path) -> None:
    data = TokenData.open(tokens)
    records = data.conversations("alpaca")
    for index in (0, 7, len(records) - 1):
        ids, mask = records[index]
        assert len(ids) == len(mask) == records.lengths[index] and set(mask.tolist()) == {0, 1}
        text = data.tokenizer.decode(ids.tolist())
        said = data.tokenizer.decode(ids[mask == 1].tolist())
        assert text.endswith("<|assistant|>" + said)


def test_records_of_several_files_are_found(tokens: Path, tmp_path: Path) -> None:
    shutil.copytree(tokens / "documents" / "books", tmp_path / "books")
    whole = TokenData.open(tokens).documents("books")
    everything = whole.stored(np.arange(len(whole)))
    (tmp_path / "books" / "00000.arrayrecord").unlink()
    for shard, part in enumerate((everything[:5], everything[5:6], [], everything[6:])):
        writer = ArrayRecordWriter(str(tmp_path / "books" / f"{shard:05}.arrayrecord"), "group_size:1")
        for record in part:
            writer.write(record)
        writer.close()
    cut = TokenRecords([tmp_path / "books"], whole.dtype)
    order = np.array([30, 0, 4, 5, 6, 5, 29])
    assert cut.stored(order) == [everything[index] for index in order.tolist()]


def test_another_tokenizer_is_refused(tokens: Path) -> None:
    assert TokenData.open(tokens, TokenData.open(tokens).tokenizer.fingerprint)
    with pytest.raises(UserError, match="another tokenizer"):
        TokenData.open(tokens, "0" * 64)


def test_what_is_not_there_is_named(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no documents of a source 'wiki'; there are: books, code"):
        TokenData.open(tokens).documents("wiki")
    with pytest.raises(UserError, match="no finished tokenize artifact"):
        TokenData.open(tmp_path)


def test_lengths_of_another_file_are_refused(tokens: Path, tmp_path: Path) -> None:
    shutil.copytree(tokens, tmp_path / "copy")
    np.save(tmp_path / "copy/documents/books/lengths.npy", np.zeros(2, np.int64))
    with pytest.raises(UserError, match="but 2 lengths"):
        TokenData.open(tmp_path / "copy").documents("books")
