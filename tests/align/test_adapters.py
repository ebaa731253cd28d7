"""LoRA in every stage: adapters and heads learn and are saved, the rest stays; later stages get the sum."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from adder_run import TASK
from run_lines import lines

from jaxtrain.align import grpo
from jaxtrain.align import reward_model as rewards
from jaxtrain.align.comparisons import read_comparisons
from jaxtrain.align.distill import DistillConfig
from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.heads import Policy
from jaxtrain.align.judged import pair_grades
from jaxtrain.align.ppo import PPOConfig
from jaxtrain.align.preference import PreferenceConfig
from jaxtrain.align.reward_model import RewardConfig
from jaxtrain.align.run import run
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store
from jaxtrain.weights.learners import assembled, split

LORA = LoRAConfig(rank=2, targets="attention.q_DNH|mlp.up_DF")
DATA = Path(__file__).parents[2] / "data" / "quickstart"
OPTIMIZER = OptimizerConfig(lr=3e-3, warmup_steps=1, schedule="constant", weight_decay=0.0)


@pytest.fixture
def config_of(request, tmp_path):
    """`config_of(kind)`: a small run of that stage, with adapters."""

    def train(**more: Any) -> TrainConfig:
        return TrainConfig(optimizer=OPTIMIZER, evaluate_every=0, checkpoint_every=1, **more)

    shared = {"lora": LORA, "out": str(tmp_path / "out")}

    def make(kind: str) -> Any:
        if kind == "grpo":
            adder = request.getfixturevalue("adder")
            return GRPOConfig(
                model=str(adder / "model"),
                tasks=(TASK,),
                data=str(adder),
                train=train(steps=2),
                **{"prompts": 16, "longest_prompt": 8, "max_new": 3, "measured": 80},
                **shared,
            )
        at = request.getfixturevalue("in_tiny")
        shared["model"] = at("5_finetune")
        short = {"rollouts": 16, "max_new": 8, "measured": 16}
        match kind:
            case "ppo":
                short |= {"reward": at("7_reward"), "conversations": at("2_clean"), "value": "own"}
                return PPOConfig(train=train(steps=4), minibatches=1, **short, **shared)
            case "distill":
                return DistillConfig(
                    teacher=at("4_pretrain"),
                    conversations=at("2_clean"),
                    train=train(steps=2),
                    **short,
                    **shared,
                )
            case "reward":
                more = {"ratings": at("6_rate"), "human": str(DATA), "epochs": 1.0, "length": 61}
                return RewardConfig(train=train(), **more, **shared)
            case _:
                return PreferenceConfig(ratings=at("6_rate"), epochs=0.3, length=64, train=train(), **shared)

    return make


def counts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())["counts"]


def changed(before: Any, after: Any) -> set[str]:
    """Names of the weights that differ."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree_util.tree_leaves_with_path(after), strict=True
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        for (path, one), (_, other) in pairs
        if not np.array_equal(one, other)
    }


ADAPTED = {"blocks.attention.q_DNH", "blocks.mlp.up_DF"}


@pytest.mark.parametrize(
    "kind", ["preference", *(pytest.param(k, marks=pytest.mark.slow) for k in ("ppo", "grpo", "distill"))]
)
def test_a_policy_of_adapters_starts_as_the_reference_and_changes_what_they_adapt(config_of, kind):
    config = config_of(kind)
    folder = run(config)
    assert store.read_adapter(folder)["lora"] == LORA
    steps, rounds = lines(folder, None), lines(folder, "round")
    if kind == "preference":
        np.testing.assert_allclose(steps[0]["loss"], np.log(2), rtol=1e-5)
    else:
        assert kind == "distill" or rounds[0]["kl"] == 0.0
        assert all(line["accepted"] for line in steps)
    assert steps[0]["grad_norm"] > 0
    with jax.set_mesh(meshes.make(MeshConfig())):
        assert set(store.load_adapters(folder)) == {
            f"{name.removeprefix('blocks.')}.{side}" for name in ADAPTED for side in "ab"
        }
        assert changed(store.load(config.model), store.load(folder)) == ADAPTED


@pytest.mark.slow
def test_a_reward_model_of_adapters_scores_the_same_when_it_is_loaded(config_of):
    config = config_of("reward")
    folder = run(config)
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    heldout = read_comparisons(Path(config.ratings) / "heldout.parquet", tokenizer, config.length)
    with jax.set_mesh(meshes.make(MeshConfig())):
        model = rewards.load(folder)
        assert changed(store.load(config.model), model.transformer) == ADAPTED
        grades = pair_grades(rewards.score(model, heldout.rows), heldout.ranks_BK)
    assert grades.mean() == pytest.approx(counts(folder)["heldout_accuracy"], abs=1e-9)
    assert counts(folder)["heldout_accuracy"] != counts(folder)["untrained_accuracy"]


def test_a_module_taken_apart_computes_what_it_did(small, placed, one):
    policy = placed(partial(Policy, small, value="own"))
    learned, frozen = split(policy, LORA, jax.random.key(1))
    assert set(frozen) == {"transformer", "critic"}
    assert learned.value_D is not None and set(learned.critic) == set(learned.transformer)
    kept = frozen["transformer"].blocks.attention.q_DNH.base[...]
    assert kept is policy.transformer.blocks.attention.q_DNH[...], "no copy"
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 64, (8, 12), np.int32)
    rows = {"tokens": ids, "targets": ids, "segment_ids": np.ones_like(ids)}
    rows["positions"] = np.tile(np.arange(12, dtype=np.int32), (8, 1))
    batch = meshes.put_batch(rows, jax.sharding.get_mesh())
    apply = jax.jit(lambda policy, batch: policy(batch))
    for found, wanted in zip(apply(assembled(learned, frozen), batch), apply(policy, batch), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_adapters(config_of, tmp_path):
    config = config_of("grpo")
    whole, folder = run(config), tmp_path / "stopped"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint" / "2")
    (folder / "manifest.json").unlink()
    again = grpo.train_grpo(config, folder)
    assert json.loads(json.dumps(again)) == counts(whole)
    assert lines(folder) == lines(whole)
    with jax.set_mesh(meshes.make(MeshConfig())):
        jax.tree.map(np.testing.assert_array_equal, store.load_adapters(whole), store.load_adapters(folder))


def test_what_it_refuses(config_of):
    dropout = dataclasses.replace(LORA, dropout=0.1)
    with pytest.raises(UserError, match=r"lora.dropout is 0.1; what is learned here are differences"):
        run(dataclasses.replace(config_of("grpo"), lora=dropout))
    with pytest.raises(UserError, match="trunk is frozen, so adapters would not learn"):
        run(dataclasses.replace(config_of("reward"), trunk="frozen"))
