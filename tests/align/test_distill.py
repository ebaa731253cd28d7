"""Distillation: the student comes nearer to its teacher on answers of its own and of others."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_lines import lines

from jaxtrain.align import distill
from jaxtrain.align.distill import DistillConfig
from jaxtrain.align.heads import Policy
from jaxtrain.align.losses import gkd_of_tokens
from jaxtrain.align.rollout import Sampler
from jaxtrain.align.run import run
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store


@pytest.fixture
def config(in_tiny, tmp_path) -> DistillConfig:
    """Back from what fine-tuning made of the model to what it was."""
    return DistillConfig(
        model=in_tiny("5_finetune"),
        teacher=in_tiny("4_pretrain"),
        conversations=in_tiny("2_clean"),
        on_policy=0.5,
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=3e-3, warmup_steps=2, schedule="constant", weight_decay=0.0),
            mesh=MeshConfig(fsdp=8),
            steps=10,
            evaluate_every=0,
        ),
        rollouts=16,
        max_new=12,
        measured=32,
        out=str(tmp_path / "out"),
    )


@pytest.mark.slow
def test_the_student_comes_nearer_to_its_teacher(config):
    folder = run(config)
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["divergence_after"] < 0.7 * counts["divergence_before"]
    assert counts["measured"] == 32
    assert {line["on_policy"] for line in lines(folder, "round")} == {0.0, 1.0}
    assert all(line["accepted"] for line in lines(folder, None))


def test_answers_are_the_students_or_the_conversations_whole(config, eight):
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    asked = distill.read(config, tokenizer)[:16]
    sampler = Sampler(tokenizer=tokenizer, longest_prompt=config.longest_prompt, max_new=config.max_new)
    student = store.load(config.model)
    for share, own in ((0.0, False), (1.0, True)):
        rows, is_own = distill.gather(
            dataclasses.replace(config, on_policy=share), sampler, student, asked, update=0
        )
        assert is_own is own
        said = [row[mask > 0].tolist() for row, mask in zip(rows["targets"], rows["mask"], strict=True)]
        assert (said == [answer for _, answer in asked]) is not own
        assert rows["tokens"].shape == (16, 48 + 12 + 1)
        real = rows["tokens"] * (rows["segment_ids"] > 0)
        assert all(
            row[: len(ids)].tolist() == ids
            for row, (ids, _) in zip(
                (r[s > 0] for r, s in zip(real, rows["segment_ids"], strict=True)), asked, strict=True
            )
        )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"beta": 1.5}, "beta is 1.5; it is at least 0 and at most 1"),
        ({"rollouts": 12}, "rollouts is 12; 8 devices need a multiple of 8"),
        ({"longest_prompt": 3}, "has no question of at most 3 tokens"),
    ],
)
def test_what_it_refuses(config, changed, words):
    with pytest.raises(UserError, match=words):
        run(dataclasses.replace(config, **changed))


def whole(policy: Policy, teacher: Transformer, batch: dict[str, jax.Array]) -> jax.Array:
    """The loss of all logits at once."""
    arrays = [batch[name] for name in ("tokens", "segment_ids", "positions")]
    ours, theirs = (model(*arrays) for model in (policy.transformer, teacher))
    return jnp.sum(gkd_of_tokens(ours, theirs, beta=0.3, temperature=0.7) * batch["mask"])


def by_rows(policy: Policy, teacher: Transformer, batch: dict[str, jax.Array]) -> jax.Array:
    return distill.distill_loss(0.3, 0.7, distill.Taught(policy, teacher), batch)[0]


@pytest.mark.parametrize("axes", [MeshConfig(fsdp=1), MeshConfig(fsdp=2, tensor=2, context=2)])
def test_the_logits_of_all_rows_never_stand_at_once(small, placed, axes):
    """Loss and gradients are those of whole logits, which the program has no array for."""
    model, B, T = dataclasses.replace(small, vocab_size=80), 16, 12
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 80, (B, T), np.int32) for name in ("tokens", "positions")}
    rows |= {"segment_ids": np.ones((B, T), np.int32), "mask": np.float32(rng.random((B, T)) < 0.5)}
    found, logits = {}, {}
    with jax.set_mesh(meshes.make(axes, jax.devices()[: max(1, axes.fsdp * axes.tensor * axes.context)])):
        policy, teacher = placed(partial(Policy, model, value="none")), placed(partial(Transformer, model))
        teacher = jax.tree.map(lambda x: x * 1.5, teacher)
        batch = meshes.put_batch(rows, jax.sharding.get_mesh())
        for loss in (whole, by_rows):
            made = jax.jit(jax.value_and_grad(loss)).lower(policy, teacher, batch).compile()
            found[loss] = jax.device_get(made(policy, teacher, batch))
            shape = [B // axes.fsdp, T // axes.context, 80 // axes.tensor]
            logits[loss] = f"f32[{','.join(map(str, shape))}]" in made.as_text()
    assert logits == {whole: True, by_rows: False}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *found.values())
