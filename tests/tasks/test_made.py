"""The data that the project made: requests that are declined, asked and taught apart, and additions."""

import json
import runpy
from pathlib import Path

import pytest

from jaxtrain.evaluate.bias import REFUSALS
from jaxtrain.tasks.task import read_rows

DATA = Path(__file__).parents[2] / "data"
FOLDER = DATA / "refusals"
ARITHMETIC, MADE = (runpy.run_path(str(DATA / name / "make.py")) for name in ("arithmetic", "refusals"))
WRITTEN = json.loads((FOLDER / "written.json").read_text(encoding="utf-8"))


def test_the_files_are_made_from_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "written.json").write_bytes((FOLDER / "written.json").read_bytes())
    MADE["write"](tmp_path)
    for file in sorted(tmp_path.iterdir()):
        assert file.read_bytes() == (FOLDER / file.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_half_is_declined_with_a_reason_and_an_offer() -> None:
    rows = MADE["taught"](WRITTEN)
    declined = [row for row in rows if REFUSALS.search(row["completion"][:200])]
    assert len(rows) == 480 and len(declined) == 240 and len({row["prompt"] for row in rows}) == 480
    harmful = {request for topic in WRITTEN["topics"] for request in topic["harmful"]["taught"]}
    for row in declined:
        (topic,) = [t for t in WRITTEN["topics"] if t["reason"] in row["completion"]]
        assert topic["offer"] in row["completion"]
        assert any(request in row["prompt"] for request in harmful)


@pytest.mark.parametrize("kind", ["harmful", "harmless"])
def test_what_is_asked_was_not_taught(kind: str) -> None:
    frames = WRITTEN["frames"]
    assert not set(frames["taught"]) & set(frames["asked"])
    taught = [row["prompt"] for row in MADE["taught"](WRITTEN)]
    asked = [request for topic in WRITTEN["topics"] for request in topic[kind]["asked"]]
    prompts = [row["prompt"] for row in MADE["asked"](WRITTEN, kind)]
    assert len(set(asked)) == 48 and len(set(prompts)) == 96
    for request in asked:
        assert not any(request in prompt for prompt in taught)
        assert sum(request in prompt for prompt in prompts) >= len(frames["asked"])


def test_harmless_requests_share_their_words_with_harmful_ones() -> None:
    """Each asked one has a word of three letters or more, beyond the commonest, with a harmful one."""
    common = {"the", "and", "for", "from", "with", "that", "not", "without", "into", "out", "how"}
    for topic in WRITTEN["topics"]:
        harmful = " ".join([*topic["harmful"]["taught"], *topic["harmful"]["asked"]])
        words = {word.strip(",'s") for word in harmful.split()} - common
        for request in topic["harmless"]["asked"]:
            shared = {word.strip(",'s") for word in request.split() if len(word) > 2} & words
            assert shared, request


def test_additions_are_all_there_right_and_in_one_part_each():
    parts = ARITHMETIC["parts"]()
    questions = [row["question"] for part in parts.values() for row in part]
    assert len(questions) == len(set(questions)) == 8100
    for row in (row for part in parts.values() for row in part):
        one, other = map(int, row["question"].split("+"))
        assert 10 <= one <= 99 and 10 <= other <= 99
        assert row["answer"][::-1] == str(one + other)


def test_the_files_in_the_repository_are_what_the_program_writes(tmp_path):
    ARITHMETIC["write"](tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["conversations.jsonl", "documents.jsonl", "practised.jsonl", "tested.jsonl"]
    for name in names:
        assert (DATA / "arithmetic" / name).read_bytes() == (tmp_path / name).read_bytes()
    lines = (tmp_path / "conversations.jsonl").read_text().splitlines()
    taught = {json.loads(line)["prompt"] for line in lines}
    for name in ("practised", "tested"):
        assert not taught & {row["question"] for row in read_rows(tmp_path / f"{name}.jsonl")}
