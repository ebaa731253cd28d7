"""The stage: what its artifact holds, where it starts, and that only the assistant is learnt from."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_lines import lines

from jaxtrain import artifact
from jaxtrain import config as configs
from jaxtrain.feed import loader
from jaxtrain.feed.sources import TokenData
from jaxtrain.finetune.run import run
from jaxtrain.model import lora
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.heldout import summed_nats
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import new_state
from jaxtrain.train.step import make_step
from jaxtrain.weights import folder as store
from jaxtrain.weights.convert import ConvertConfig, convert


@pytest.fixture(scope="module")
def straight(config):
    return run(config)


def test_the_artifact(straight, config, pretrained):
    assert store.open(straight).config == store.open(pretrained).config
    for name in ("ranks.tiktoken", "tokenizer.json"):
        assert (straight / "tokenizer" / name).read_bytes() == (pretrained / "tokenizer" / name).read_bytes()
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().split("\n")[:-1]]
    steps = [line for line in lines if "kind" not in line]
    assert [line["step"] for line in steps] == list(range(1, 13)) and all(line["accepted"] for line in steps)
    heldout = [line for line in lines if line.get("kind") == "heldout"]
    assert [line["step"] for line in heldout] == [6, 12]
    assert heldout[1]["loss"] < heldout[0]["loss"] < steps[0]["loss"]
    counts = artifact.read_manifest(straight)["counts"]
    assert counts["steps"] == 12 and counts["heldout_loss"] == heldout[1]["loss"]
    samples = [json.loads(line) for line in (straight / "samples.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [(line["step"], line["prompt"]) for line in samples] == [
        (step, config.sample_questions[0]) for step in (6, 12)
    ]
    assert "<|end|>" not in "".join(line["completion"] for line in samples)


def test_adapters_learn_and_the_weights_stay(config, pretrained, tmp_path):
    """On the same mesh: the checkpoint is small, the loss falls, and what is loaded is the merged model."""
    adapters = LoRAConfig(rank=4, dropout=0.1)
    folder = run(dataclasses.replace(config, out=str(tmp_path / "adapters"), lora=adapters))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]]
    losses = [line["loss"] for line in lines if line.get("kind") == "heldout"]
    counts = artifact.read_manifest(folder)["counts"]
    assert losses[1] < losses[0] < lines[0]["loss"] and counts["heldout_loss"] == losses[1]
    with jax.set_mesh(meshes.make(config.train.mesh)):
        learned, base, merged = store.load_adapters(folder), store.load(pretrained), store.load(folder)
        assert set(learned) == set(lora.take(lora.adapt(base, adapters, jax.random.key(0))))
        weights = jax.tree_util.tree_leaves_with_path(base)
        for (path, before), after in zip(weights, jax.tree.leaves(merged), strict=True):
            names = jax.tree_util.keystr(path)
            is_adapted = re.search(r"\.(q|k|v|o|gate|up|down)_[A-Z]", names) is not None
            assert (np.asarray(before) != np.asarray(after)).any() == is_adapted, names
        batch = loader.conversation_batches(
            config.data, batch_size=8, length=96, seed=0, split="heldout", heldout_share=config.heldout_share
        )
        nats, targets = summed_nats(merged, batch)
        assert abs(nats / targets - losses[1]) < 1e-5
    about = json.loads((folder / store.ADAPTER).read_text())
    (folder / store.ADAPTER).write_text(json.dumps(about | {"base_fingerprint": "other"}))
    with pytest.raises(UserError, match="adapter.json was changed since it was written"):
        store.load(folder)


@pytest.mark.slow
def test_adapters_learn_beside_codes(config, tmp_path):
    """QLoRA: gone on from a checkpoint it has the same bits; what is loaded is what was evaluated."""
    nf4 = LoRAConfig(rank=4, dropout=0.1, base_weights="nf4")
    config = dataclasses.replace(config, out=str(tmp_path / "model"), lora=nf4)
    folder = run(config)
    straight = shutil.copytree(folder, tmp_path / "straight")
    shutil.rmtree(folder / "checkpoint" / "12")
    again = run(config)
    assert lines(again) == lines(straight)
    with jax.set_mesh(meshes.make(config.train.mesh)):
        jax.tree.map(np.testing.assert_array_equal, *map(store.load_adapters, (again, straight)))
        merged = store.load(folder)
        batches = loader.conversation_batches(
            config.data, batch_size=8, length=96, seed=0, split="heldout", heldout_share=config.heldout_share
        )
        nats, targets = summed_nats(merged, batches)
    counts = artifact.read_manifest(folder)["counts"]
    assert abs(nats / targets - counts["heldout_loss"]) < 1e-5
    assert "PEFT folder" in convert(ConvertConfig(source=str(folder), out=str(tmp_path / "peft")))
    whole = convert(ConvertConfig(source=str(folder), out=str(tmp_path / "whole"), merge=True))
    assert f"merged into the nf4 numbers of {config.model}" in whole


def test_conversations_longer_than_a_row_are_counted_or_refused(config, tokens, tmp_path, straight):
    lengths = TokenData.open(tokens).lengths("conversations", "alpaca")
    counts = artifact.read_manifest(straight)["counts"]
    assert counts["conversations"] == len(lengths) and counts["too_long"] == (lengths > 96).sum()
    short = int(np.sort(lengths)[-2])
    refused = dataclasses.replace(config, out=str(tmp_path / "model"), length=short, too_long="refuse")
    with pytest.raises(UserError, match=f"1 conversations of alpaca are longer than length = {short}"):
        run(refused)


def test_it_starts_from_the_weights_given(config, pretrained, tmp_path):
    """A learning rate of next to nothing keeps every bit of them, through the checkpoint and back."""
    hardly = OptimizerConfig(lr=1e-30, warmup_steps=2)
    still = configs.changed(config, out=str(tmp_path / "still"), train__optimizer=hardly, train__seed=5)
    folder = run(still)
    with jax.set_mesh(meshes.make(config.train.mesh)):
        found, wanted = store.load(folder), store.load(pretrained)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_the_assistant_is_learnt_from(config, tokens):
    """The weighted targets are the answers, word for word; nothing else moves the gradient."""
    data, tokenizer = TokenData.open(tokens), Tokenizer.load(tokens / "tokenizer")
    options = {"batch_size": 8, "length": 96, "seed": 0}
    batch = loader.conversation_batches(tokens, **options)[0]
    end, said = tokenizer.special["<|end|>"], []
    for targets, weights in zip(batch["targets"], batch["loss_weights"], strict=True):
        ids = targets[weights > 0].tolist()
        assert ids[-1] == end
        said += tokenizer.decode(ids).split("<|end|>")[:-1]
    records = data.conversations("alpaca")
    answers = set()
    for i in range(len(records)):
        ids, mask = records[i]
        answers.add(tokenizer.decode(ids[mask > 0].tolist()).removesuffix("<|end|>"))
    assert len(said) >= 8 and set(said) <= answers

    mesh = meshes.make(config.train.mesh)
    with jax.set_mesh(mesh):
        model = store.load(config.model)
        gradient = jax.jit(jax.grad(token_loss, has_aux=True))
        unlike = np.where(batch["loss_weights"] > 0, batch["targets"], (batch["targets"] + 1) % 500)
        found = [
            gradient(model, meshes.put_batch(batch | {"targets": t}, mesh))
            for t in (batch["targets"], unlike)
        ]
        for a, b in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_array_equal(a, b)
        asked = batch | {"loss_weights": np.zeros_like(batch["loss_weights"])}  # only prompts
        assert all(
            (np.asarray(g) == 0).all()
            for g in jax.tree.leaves(gradient(model, meshes.put_batch(asked, mesh)))
        )


def test_a_batch_at_once_and_row_by_row_are_one_step(config, tokens):
    """Rows of very unequal counts of targets: the mean is that of all of them, not of the rows' means."""
    batch = loader.conversation_batches(tokens, batch_size=8, length=96, seed=0)[0]
    counts = batch["loss_weights"].sum(1)
    assert counts.max() > 2 * counts.min() and not np.isclose(counts, counts.mean()).all()
    mesh, found = meshes.make(MeshConfig(), jax.devices()[:1]), []
    with jax.set_mesh(mesh):
        model = store.load(config.model)
        for microbatches in (1, 8):
            optimizer = optax.sgd(1.0)
            state = new_state(
                jax.tree.map(jnp.copy, model), optimizer
            )  # a step gives its state's memory away
            state, metrics = make_step(token_loss, optimizer, microbatches)(
                state, meshes.put_batch(batch, mesh)
            )
            found.append((metrics, jax.device_get(jax.tree.leaves(state.model))))
    (whole, weights), (rows, weights_by_row) = found
    assert whole["targets"] == rows["targets"] == counts.sum()
    np.testing.assert_allclose(whole["loss"], rows["loss"], rtol=1e-6)
    for a, b in zip(weights, weights_by_row, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_what_does_not_fit_is_told(config, tokens, tmp_path):
    config = dataclasses.replace(config, out=str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"model\.json is absent|no tokenizer|pretrain"):
        run(dataclasses.replace(config, model=str(tokens)))
    with pytest.raises(UserError, match="does not exist"):
        run(dataclasses.replace(config, model=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="tokenize"):
        run(dataclasses.replace(config, data=config.model))
    assert not (tmp_path / "model").exists()
