"""Planted texts and canaries: as often as was said, and found again in a model that was trained on them."""

import json
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxtrain.document import Document, record_id, write_records
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.evaluate.memorization import CANARY, MemorizationConfig, PlantConfig, measure, plant
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize import tokenizer as tokenizers
from jaxtrain.train.losses import token_loss

COUNTS = (2, 16)
CHARACTERS = 260


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    words = ["the", "of", "stone", "river", "house", "green", "dark", "walked", "never", "again"]
    texts = [" ".join(rng.choice(words, 200)) for _ in range(6)]
    documents = [Document(id=record_id("books", text), text=text, source="books") for text in texts]
    write_records(folder / "books.parquet", Document, documents)
    plant(
        PlantConfig(
            documents=str(folder / "books.parquet"),
            out=str(folder / "out"),
            counts=COUNTS,
            texts=3,
            canaries=3,
            characters=CHARACTERS,
        )
    )
    return folder / "out"


def documents(planted: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (planted / "planted.jsonl").read_text().splitlines()]


def test_everything_stands_as_often_as_its_count(planted: Path):
    told = json.loads((planted / "planted.json").read_text())
    found = Counter(documents(planted))
    assert sorted(text["count"] for text in told["texts"]) == [0] * 3 + [2] * 3 + [16] * 3
    for text in told["texts"]:
        assert found.pop(text["text"], 0) == text["count"] and len(text["text"]) == CHARACTERS
    for canary in told["canaries"]:
        line = CANARY.format(name=canary["name"], number=canary["number"])
        assert found.pop(line, 0) == canary["count"]
    assert not found


def test_too_few_texts_are_named(planted: Path, tmp_path: Path):
    source = str(planted.parent / "books.parquet")
    with pytest.raises(UserError, match="lower --texts or --characters"):
        plant(PlantConfig(documents=source, out=str(tmp_path / "out"), texts=500))


@pytest.mark.slow
def test_what_was_seen_often_is_recited_and_what_was_not_seen_is_not(planted: Path):
    """A real training: a small model, every planted document once an epoch."""
    texts = documents(planted)
    tokenizer = tokenizers.train(texts, 300)
    length = 96
    config = ModelConfig(
        vocab_size=300,
        layers=2,
        d_model=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        d_hidden=128,
        max_length=length,
    )
    memory = MemorizationConfig(planted=str(planted), prefixes=(8,), references=63)
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        fresh = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        before = measure(Scorer(fresh, tokenizer, length=length, batch_size=8), memory, "")
        trained = _train(fresh, [[tokenizer.bos, *tokenizer.encode(text)] for text in texts], length)
        after = measure(Scorer(trained, tokenizer, length=length, batch_size=8), memory, "")
    assert max(row["rate"] for row in before["extraction"]) == 0
    rate = {row["count"]: row["rate"] for row in after["extraction"]}
    assert (rate[0], rate[16]) == (0, 1) and rate[2] <= rate[16]
    assert all(row["low"] <= row["rate"] <= row["high"] for row in after["extraction"])
    exposure = {row["count"]: row["exposure"] for row in after["exposure"]}
    assert exposure[0] < 4 < exposure[16] and exposure[2] <= exposure[16] <= 6
    assert np.mean([row["exposure"] for row in before["exposure"]]) < 4


def _train(model: Transformer, ids: list[list[int]], length: int) -> Transformer:
    """Thirty epochs of AdamW on rows of one document each."""
    rows = np.zeros((len(ids), length + 1), np.int32)
    weights = np.zeros((len(ids), length), np.float32)
    for row, one in enumerate(ids):
        one = one[: length + 1]
        rows[row, : len(one)] = one
        weights[row, : len(one) - 1] = 1
    optimizer = optax.adamw(3e-3)

    @jax.jit
    def step(model, state, batch):
        def loss(model):
            total, targets = token_loss(model, batch)
            return total / targets

        updates, state = optimizer.update(jax.grad(loss)(model), state, model)
        return optax.apply_updates(model, updates), state

    state, mesh = jax.jit(optimizer.init)(model), jax.sharding.get_mesh()
    order = np.random.default_rng(0)
    for _ in range(30):
        for chosen in order.permutation(len(ids))[: len(ids) // 18 * 18].reshape(-1, 18):
            batch = {
                "tokens": rows[chosen, :-1],
                "targets": rows[chosen, 1:],
                "loss_weights": weights[chosen],
                "segment_ids": np.ones((len(chosen), length), np.int32),
                "positions": np.tile(np.arange(length, dtype=np.int32), (len(chosen), 1)),
            }
            model, state = step(model, state, meshes.put_batch(batch, mesh))
    return model
