"""Exact mode: the loss's log-probabilities are those of the draw, to the last bit."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from run_lines import lines

from jaxtrain.align import grpo, ppo, rollout
from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.heads import Policy
from jaxtrain.align.ppo import PPOConfig
from jaxtrain.align.rollout import Sampler
from jaxtrain.align.run import run
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import PATTERN, BytePairTokenizer
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.weights import folder as store

SMALL = {"vocab_size": 263, "layers": 2, "d_model": 32, "heads": 4, "kv_heads": 2, "head_dim": 8}
MODELS = {
    f"{name} {dtype}": ModelConfig(**SMALL, **more, d_hidden=64, max_length=32, dtype=dtype)
    for name, more in {"dense": {}, "mixture": {"experts": 4, "experts_per_token": 2}}.items()
    for dtype in ("float32", "bfloat16")
}
MESHES = {"one": MeshConfig(fsdp=1), "eight": MeshConfig(fsdp=4, tensor=2)}
PROMPTS = [np.random.default_rng(n).integers(0, 256, 1 + n % 6).tolist() for n in range(32)]


@pytest.fixture
def sampler() -> Sampler:
    tokenizer = BytePairTokenizer({bytes([n]): n for n in range(256)}, PATTERN)
    return Sampler(tokenizer, longest_prompt=6, max_new=10, exact=32)


def bits(x_BT: np.ndarray, rows: rollout.Rows) -> list[int]:
    """Of the sampled tokens."""
    return x_BT[rows["mask"] > 0].view(np.int32).tolist()


QUICK = {("dense float32", "one"), ("mixture bfloat16", "eight")}
CASES = [
    pytest.param(model, mesh, marks=[] if (model, mesh) in QUICK else pytest.mark.slow)
    for model in MODELS
    for mesh in MESHES
]


@pytest.mark.parametrize(("model", "mesh"), CASES)
def test_what_is_read_is_what_was_drawn_in_one_row_or_32_in_any_order(model, mesh, placed, sampler):
    kind = MESHES[mesh]
    with jax.set_mesh(meshes.make(kind, jax.devices()[: kind.fsdp * kind.tensor])):
        transformer = placed(partial(Transformer, MODELS[model]))
        rows = sampler.answer(transformer, PROMPTS, seed=3)
        order = np.random.default_rng(0).permutation(len(PROMPTS))
        moved = {name: values[order] for name, values in rows.items()}
        assert bits(sampler.read(transformer, moved), moved) == bits(moved["sampler_logprobs"], moved)
        alone = sampler.answer(transformer, PROMPTS[:1], seed=3)
        assert bits(alone["sampler_logprobs"], alone) == bits(rows["sampler_logprobs"][:1], alone)
        assert bits(sampler.read(transformer, alone), alone) == bits(alone["sampler_logprobs"], alone)
        # another pass says the same to rounding, and where it is not the program that drew, bits differ
        other = rollout.read_reference(transformer, rows, most=32)
        np.testing.assert_allclose(other, rows["sampler_logprobs"] + other * (rows["mask"] == 0), atol=0.1)
        changed = jax.tree.map(lambda weight: weight * (1 + 2**-7), transformer)
        assert bits(sampler.read(changed, rows), rows) != bits(rows["sampler_logprobs"], rows)


@pytest.mark.parametrize("model", ["dense float32", pytest.param("mixture float32", marks=pytest.mark.slow)])
def test_another_mesh_reads_the_same_to_1e_5(model, placed, sampler):
    found = []
    rows = None
    for kind in MESHES.values():
        with jax.set_mesh(meshes.make(kind, jax.devices()[: kind.fsdp * kind.tensor])):
            transformer = placed(partial(Transformer, MODELS[model]))
            rows = rows or sampler.answer(transformer, PROMPTS, seed=3)
            found.append(sampler.read(transformer, rows))
    np.testing.assert_allclose(*found, atol=1e-5, rtol=0)


STAGES = {
    "grpo": partial(grpo.policy_loss, GRPOConfig(model="", tasks=("none",), out="", exact=True)),
    "ppo": partial(ppo.policy_loss, PPOConfig(model="", reward="", conversations="", out="", exact=True)),
}


@pytest.mark.parametrize("stage", ["grpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_the_loss_has_the_numbers_of_the_draw_and_the_gradient_of_its_own_pass(stage, placed, sampler, one):
    loss, policy = STAGES[stage], placed(partial(Policy, MODELS["dense float32"]))
    rows = sampler.answer(policy.transformer, PROMPTS, seed=3)
    batch = {name: rows[name] for name in ("tokens", "targets", "segment_ids", "positions", "mask")}
    batch |= {"old_logprobs": rows["sampler_logprobs"], "advantages": rows["mask"]}
    batch |= {"old_values": np.zeros_like(rows["mask"]), "returns": np.zeros_like(rows["mask"])}
    read = {"logprobs": sampler.read(policy.transformer, rows)}
    exact, usual = (meshes.put_batch(b, jax.sharding.get_mesh()) for b in (batch | read, batch))
    found = jax.jit(jax.value_and_grad(lambda policy, batch: loss(policy, batch)[::2], has_aux=True))
    ((_, told), gradient), (_, wanted) = found(policy, exact), found(policy, usual)
    ratio, count = told["ratio"].tolist()
    assert ratio == count == rows["mask"].sum(), "every ratio is 1 itself"
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), gradient, wanted)


PAYS = """
from jaxtrain.tasks.task import Exercise, Task

def parse(row):
    return Exercise(prompt=row["question"], graders={"long": lambda said: min(1.0, len(said) / 3)}, chat=True)

files = {"path": "tested.jsonl", "practice": "practised.jsonl"}
task = Task(name="sums", version=1, metric="long", parse=parse, **files)
"""


@pytest.mark.slow
def test_a_run_is_exact_over_turns_and_minibatches_and_after_a_kill(adder, tmp_path, capsys):
    (longer := tmp_path / "longer").mkdir()
    shutil.copytree(adder / "model", longer, dirs_exist_ok=True)
    about = json.loads((longer / "model.json").read_text())
    (longer / "model.json").write_text(json.dumps(about | {"max_length": 256}))
    (task := tmp_path / "sums.py").write_text(PAYS)
    config = GRPOConfig(
        **{"model": str(longer), "data": str(adder), "out": str(tmp_path / "out"), "exact": True},
        **{
            "tasks": (str(task), "guess"),
            "prompts": 4,
            "group": 4,
            "measured": 4,
            "epochs": 2,
            "minibatches": 2,
        },
        **{"longest_prompt": 50, "longest_dialogue": 90, "max_new": 4},
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=3e-3, warmup_steps=1, schedule="constant", weight_decay=0.0),
            **{"mesh": MeshConfig(fsdp=8), "steps": 8, "checkpoint_every": 4},
        ),
    )
    whole, folder = run(config), tmp_path / "killed"
    assert "exact: answers were read by the program that drew them" in capsys.readouterr().err
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint" / "8")
    (folder / "manifest.json").unlink()
    jax.clear_caches()
    grpo.train_grpo(config, folder)
    assert lines(folder) == lines(whole)
    rounds, steps = lines(folder, "round"), lines(folder, None)
    assert [(line["mismatch"], line["mismatch_most"], line["mismatch_none"]) for line in rounds] == [
        (0, 0, 1)
    ] * 2
    assert any(line["turns"] > 1 for line in rounds)
    assert steps[0]["ratio"] == steps[4]["ratio"] == 1.0 != steps[3]["ratio"]
    with jax.set_mesh(meshes.make(MeshConfig())):
        jax.tree.map(np.testing.assert_array_equal, store.load(whole), store.load(folder))
