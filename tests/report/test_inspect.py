"""`jaxtrain inspect` on a small clean artifact."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from census_found import census_found

from jaxtrain import config as configs
from jaxtrain.document import Document, record_id, schema, to_row, write_rows
from jaxtrain.report.inspect import InspectConfig, inspect
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import train


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
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "0"}))
    return tmp_path


def look(folder: Path, *flags: object) -> None:
    inspect(configs.from_flags(InspectConfig, ["--folder", *map(str, (folder, *flags))]))


def shown(capsys, folder: Path, *flags: object) -> str:
    look(folder, *flags)
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


def test_a_models_folder_shows_which_tokens_are_learned(tmp_path, capsys):
    train(["Who wrote Emma? Jane Austen. When? In 1815."] * 3, 280).save_in(tmp_path)
    lines = [line for line in shown(capsys, tmp_path).splitlines() if "learned" in line]
    assert [re.findall("'(.*)'", line)[0] for line in lines] == ["Jane Austen.<|end|>", "In 1815.<|end|>"]


def test_what_strangers_wrote_does_not_steer_the_terminal(folder, capsys):
    hostile = "q\x1b]0;PWNED\x07\x1b]52;c;aGk=\x07\x1b[2J\r\x9b31m\u202e\x7f"
    columns = pa.schema([(name, pa.string()) for name in ("id", "reason", "text")])
    write_rows(
        folder / "dropped/a\x1b[2Jb.parquet", columns, [{"id": "3", "reason": hostile, "text": hostile}]
    )
    for options in ((), ("--sample", 99)):
        text = shown(capsys, folder, *options)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert text.count(r"q\x1b]0;PWNED\x07\x1b]52;c;aGk=\x07\x1b[2J\r\x9b31m\u202e\x7f") == 2
    assert r"a\x1b[2Jb" in text


def test_a_record_with_its_copies(folder, capsys):
    dropped = pa.schema([(name, pa.string()) for name in ("id", "reason", "detail", "text")])
    copy = {"id": "2", "reason": "near duplicate", "detail": record_id("web", "7"), "text": "Page number 7!"}
    write_rows(folder / "dropped/web.parquet", dropped, [copy])
    text = shown(capsys, folder, "--id", record_id("web", "7"))
    assert "Page number 7." in text and "Page number 7!" in text and text.count("Page number") == 2


def test_the_census_of_clean(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    funnel = {"web": {"in": 50, "bytes_in": 900, "kept": 40, "bytes_kept": 700}}
    (folder / "census.json").write_text(json.dumps(census_found(funnel, ("web",), "[b]loud[/b]")))
    text = shown(capsys, folder)
    for line in (r"collected +│ 50 +│ 900", r"kept +│ 40 +│ 700", r"9 others +│ 9 ", r"news +│ 50 "):
        assert re.search(line, text), line
    assert re.search(r"3 +│ near duplicate +│ books, web +│ 00000000000000aa +│ \[b\]loud\[/b\]", text)
    assert "short_lines" in text.splitlines()[-1]
    assert "what is left" not in shown(capsys, folder, "--search", "number 4")
    text = shown(capsys, folder, "--signal", "words")
    assert "web: words, limits 32 to …" in text
    assert re.search(r"32 +│ 40 +│ 40 +│ █{40} ", text) and re.search(r"0 +│ 10 +│ 0 +│ ░{10} ", text)
    with pytest.raises(UserError, match="no signal 'word'; there are words, short_lines"):
        look(folder, "--signal", "word")


def test_mistakes(folder, tmp_path):
    with pytest.raises(UserError, match="holds nothing to inspect"):
        look(tmp_path / "nowhere")
    with pytest.raises(UserError, match="it has documents, dropped"):
        look(folder, "--part", "kept")
    with pytest.raises(UserError, match="signals here: words"):
        look(folder, "--part", "documents", "--where", "word<3")
    with pytest.raises(UserError, match="no field --smaple; did you mean --sample"):
        look(folder, "--smaple")
    with pytest.raises(UserError, match="no census.json"):
        look(folder, "--signal", "words")
