"""A filter of the user's own, conversations alone, and what the stage says of a source that is lost."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxtrain.clean import GopherQuality, Language, ListedWords, Normalize, Quotes, judge, prose
from jaxtrain.clean.run import CleanConfig, run
from jaxtrain.document import Conversation, Document, read_rows, record_id, write_records
from jaxtrain.runtime.errors import UserError

OWN = '''
from dataclasses import dataclass

from jaxtrain.clean import Filter, Normalize, Personal, Range, Record, limit
from jaxtrain.clean.run import CleanConfig


@dataclass(frozen=True)
class Shouting(Filter):
    """Drops texts in capitals."""

    capitals: Range = limit("too many capitals", high=0.3)

    def measure(self, record: Record) -> dict[str, float | None]:
        return {"capitals": share(record.said)}


def share(text: str) -> float:
    return sum(map(str.isupper, text)) / max(len(text), 1)


config = CleanConfig(
    documents="1_collect",
    filters={"page": (Normalize(), Shouting()), "chat": (Normalize(), Shouting((None, 0.25)), Personal())},
    mixture={"page": 1.0},
    heldout_bytes=50,
    workers=2,
    out="2_clean",
)
'''


def sentence(number: int) -> str:
    return (
        f"The boat number {number} came back to the harbour in the evening with {number * 7} of its people."
    )


def collect(folder: Path, kind: type, **sources: list[Any]) -> Path:
    """A collect artifact: of documents their texts, of conversations the answers to one question."""
    for source, texts in sources.items():
        name = kind.__name__.lower() + "s"
        records = []
        for number, text in enumerate(texts):
            question = {"role": "user", "content": f"What happened to boat number {number}?"}
            answer = {"role": "assistant", "content": text}
            of = {"text": text} if kind is Document else {"messages": [question, answer]}
            records.append(kind(id=record_id(source, str(number)), source=source, **of))
        write_records(folder / "1_collect" / name / f"{source}.parquet", kind, records)
    (folder / "1_collect/manifest.json").write_text('{"stage": "collect", "fingerprint": "0"}')
    return folder / "1_collect"


def reasons(folder: Path, source: str) -> dict[str, int]:
    return json.loads((folder / "funnel.json").read_text())[source]["dropped"]


def test_a_filter_of_ones_own_judges_documents_and_conversations(tmp_path):
    """In the config file, on two processes: a signal in the artifact, a limit in the census, a reason."""
    texts = [sentence(number) for number in range(1100)]
    collect(tmp_path, Document, page=[*texts, "WE SELL EVERYTHING CHEAP. COME AND BUY IT NOW."])
    collect(tmp_path, Conversation, chat=[*texts[:3], "NO MORE OF THIS, I SAID AND I MEANT IT WELL."])
    (tmp_path / "2_clean.py").write_text(OWN)
    command = [sys.executable, "-m", "jaxtrain", "clean", "2_clean.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    folder = tmp_path / "2_clean"
    assert reasons(folder, "page")["too many capitals"] == 1
    assert reasons(folder, "chat")["too many capitals"] == 1
    kept = list(read_rows(folder / "documents/page.parquet"))
    assert len(kept) > 500 and all(0 < row["capitals"] <= 0.3 for row in kept)
    assert json.loads((folder / "census.json").read_text())["limits"]["page"] == {"capitals": [None, 0.3]}


def test_conversations_alone_are_a_recipe(tmp_path):
    folder = collect(tmp_path, Conversation, chat=[sentence(number) for number in range(4)])
    cleaned = run(CleanConfig(documents=str(folder), out=str(tmp_path / "2_clean")))
    assert len(list(read_rows(cleaned / "conversations/chat.parquet"))) == 4
    assert json.loads((cleaned / "mixture.json").read_text()) == {}


def test_a_source_that_loses_its_documents_is_said_and_one_with_a_weight_is_refused(tmp_path, capsys):
    texts = [" ".join(sentence(9 * number + i) for i in range(9)) for number in range(17)]
    half = [*texts[12:], *["short"] * 7]
    folder = collect(tmp_path, Document, whole=texts[:12], half=half, none=["short"] * 3)
    filters = dict.fromkeys(("whole", "half", "none"), (GopherQuality(),))
    config = {"documents": str(folder), "filters": filters, "similarity": 1.0, "heldout_bytes": 900}
    with pytest.raises(
        UserError, match="none of the 3 documents of none is left, .* 3 × too few words: mend"
    ):
        run(CleanConfig(mixture={"whole": 1, "half": 1, "none": 1}, out=str(tmp_path / "no"), **config))
    capsys.readouterr()
    cleaned = run(
        CleanConfig(mixture={"whole": 1, "half": 1, "none": 0}, out=str(tmp_path / "yes"), **config)
    )
    said = capsys.readouterr().err
    assert "clean: half keeps 0 of 12" not in said and "7 × too few words" in said
    assert "half LOSES MORE THAN HALF" in said and "whole LOSES" not in said
    assert set(json.loads((cleaned / "mixture.json").read_text())) == {"whole", "half"}


def test_filters_run_in_their_order_and_the_first_reason_counts(tmp_path):
    (tmp_path / "words.txt").write_text("boat\n")
    listed = ListedWords((str(tmp_path / "words.txt"),), listed_words=(None, 0.01))
    assert judge(sentence(1), listed, *prose("en")).reason == "too many listed words"
    verdict = judge(sentence(1), *prose("en"), listed)
    assert verdict.reason == "too few words" and verdict.signals["listed_words"] == pytest.approx(1 / 17)
    assert judge(" \u200b", Normalize(), listed).reason == "empty"
    assert judge(sentence(1), Language("de")).reason == "language" and judge(sentence(1), Language()).keep


@pytest.mark.parametrize(
    ("item", "unspaced"),
    [
        ("小明有三个苹果，妈妈又给了他五个苹果，后来他把其中的四个苹果送给了他的好朋友小红。", True),
        (
            "太郎は三つのりんごを持っていて、母がさらに五つのりんごをくれたので、今いくつ持っていますか。",
            True,
        ),
        ("สมชายมีแอปเปิลสามผล แม่ให้เขาเพิ่มอีกห้าผล ต่อมาเขาให้เพื่อนไปสี่ผล ตอนนี้เขาเหลือกี่ผล", True),
        (
            "Ann has three apples and her mother gave her five more before she gave four of them to Tom.",
            False,
        ),
    ],
)
def test_benchmarks_are_found_in_scripts_without_spaces_and_told_apart_by_path(tmp_path, item, unspaced):
    """Two files of one name; the second in a list of objects, with a byte order mark."""
    for name, text in (
        ("a", "Something else that is long enough to be a phrase of thirteen words."),
        ("b", item),
    ):
        (tmp_path / name).mkdir()
        row = json.dumps({"question": "?", "choices": [{"text": text}]}, ensure_ascii=False)
        (tmp_path / name / "test.jsonl").write_text("\ufeff" + row + "\n", encoding="utf-8")
    quotes = Quotes(tuple(str(tmp_path / name / "test.jsonl") for name in "ab"))
    for text in (f"Before it. {item} And behind it.", f"{item[: 60 if unspaced else 80]} and no more"):
        assert judge(text, quotes).reason == "benchmark overlap", text
    assert judge(item[:14] + item[20:34], quotes).keep
    assert judge(item.replace("三", "七").replace("three", "ten").replace("สาม", "เจ็ด")[:30], quotes).keep
