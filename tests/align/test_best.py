"""Best of n: the better answers of a model are told apart, written down, and can be learned from."""

import json

import pytest
from adder_run import TASK

from jaxtrain.align.best import BestConfig, best
from jaxtrain.formats.chats import to_messages
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig


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
