"""Best of n: the better answers of a model are told apart, written down, and can be learned from."""

import json

import pytest
from adder_run import TASK

from jaxtrain.align.best import BestConfig, best
from jaxtrain.formats.chats import to_messages
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig

PAYS = """
from jaxtrain.tasks.task import Exercise, Task

def parse(row):
    return Exercise(prompt=row["question"], graders={"long": lambda said: min(1.0, len(said) / 3)}, chat=True)

files = {"path": "tested.jsonl", "practice": "practised.jsonl"}
task = Task(name="lengths", version=1, metric="long", parse=parse, **files)
"""


def test_an_answer_that_was_cut_short_is_never_the_best(adder, tmp_path):
    """Of at most three tokens those of three digits have no end, and are paid most."""
    (tmp_path / "lengths.py").write_text(PAYS)
    config = BestConfig(
        model=str(adder / "model"),
        task=str(tmp_path / "lengths.py"),
        data=str(adder),
        out=str(tmp_path / "best"),
        longest_prompt=8,
        max_new=3,
        items=40,
        least=0.3,
        temperature=3.0,
    )
    folder = best(config)
    found = json.loads((folder / "best.json").read_text())
    rows = [json.loads(line) for line in (folder / "conversations.jsonl").read_text().splitlines()]
    assert len(rows) == found["kept"] > 10 and 0 < found["cut"] < 40 * 8
    assert all(len(to_messages(row)[-1]["content"]) < 3 for row in rows)


def test_the_best_of_eight_beats_one_and_is_a_set_to_learn_from(adder, tmp_path):
    config = BestConfig(
        model=str(adder / "model"),
        task=TASK,
        data=str(adder),
        out=str(tmp_path / "best"),
        longest_prompt=8,
        max_new=3,
        items=40,
        mesh=MeshConfig(fsdp=8),
    )
    folder = best(config)
    found = json.loads((folder / "best.json").read_text())
    assert found["best"] > found["one"] and found["low"] > 0
    assert found["kept"] + found["too_bad"] == 40
    rows = [json.loads(line) for line in (folder / "conversations.jsonl").read_text().splitlines()]
    assert len(rows) == found["kept"] > 10
    for row in rows:
        asked, said = (message["content"] for message in to_messages(row))
        assert str(sum(map(int, asked.split("+"))))[::-1] == said
    with pytest.raises(UserError, match="exists; name a new folder"):
        best(config)
