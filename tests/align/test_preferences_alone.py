"""Preferences alone are a recipe: a file of any publisher, for the reward model and for preference training.

Its prompts are parted by their hashes: a tenth of them is held out.
"""

import json

import pytest

from jaxtrain.align.comparisons import parts_of, rows_of
from jaxtrain.align.preference import PreferenceConfig
from jaxtrain.align.reward_model import RewardConfig
from jaxtrain.align.run import run
from jaxtrain.artifact import read_manifest
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

GOOD, BAD = "It is a good and long answer.", "No."


def written(kind: str, n: int) -> dict:
    """The same comparison as four publishers write it."""
    asked = f"What is number {n}?"
    said = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": text}] for text in (GOOD, BAD)
    ]
    match kind:
        case "TRL":
            return {"chosen": said[0], "rejected": said[1]}
        case "ShareGPT":
            turns = {"chosen": {"from": "gpt", "value": GOOD}, "rejected": {"from": "gpt", "value": BAD}}
            return {"conversations": [{"from": "human", "value": asked}], **turns}
        case "StackExchange":
            return {"question": asked, "response_j": GOOD, "response_k": BAD}
    names = ("chosen", GOOD), ("rejected", BAD)
    return {name: f"\n\nHuman: {asked}\n\nAssistant: {text}" for name, text in names}


@pytest.fixture
def file(tmp_path):
    def write(kind: str) -> str:
        lines = [json.dumps(written(kind, n)) for n in range(40)]
        (tmp_path / f"{kind}.jsonl").write_text("\n".join([*lines, "{}"]))
        return str(tmp_path / f"{kind}.jsonl")

    return write


@pytest.mark.parametrize("kind", ["TRL", "ShareGPT", "StackExchange", "hh-rlhf"])
def test_a_tenth_of_the_prompts_of_any_file_is_held_out_and_each_is_on_one_side(file, kind):
    kept, heldout = (rows_of(part) for part in parts_of("", file(kind)))
    assert (len(kept), len(heldout)) == (36, 4)
    asked = {row["prompt"][0]["content"] for row in [*kept, *heldout]}
    assert asked == {f"What is number {n}?" for n in range(40)}
    assert all(row["completions"] == [GOOD, BAD] and row["ranks"] == [1, 2] for row in [*kept, *heldout])


def test_preferences_alone_train_a_policy_and_a_reward_model(file, in_tiny, tmp_path):
    train = TrainConfig(optimizer=OptimizerConfig(lr=1e-4), steps=1)
    shared = {"model": in_tiny("5_finetune"), "preferences": file("TRL"), "length": 64, "train": train}
    counts = read_manifest(run(PreferenceConfig(**shared, batch_pairs=8, out=str(tmp_path / "policy"))))[
        "counts"
    ]
    assert (counts["pairs_train"], counts["pairs_heldout"]) == (36, 4)
    counts = read_manifest(run(RewardConfig(**shared, out=str(tmp_path / "reward"))))["counts"]
    assert (counts["pairs_train"], counts["pairs_heldout"], counts["simulated"]) == (36, 4, False)
    assert "human_accuracy" not in counts
    with pytest.raises(UserError, match="one of the two"):
        run(RewardConfig(**shared, ratings=in_tiny("6_rate"), out=str(tmp_path / "both")))
