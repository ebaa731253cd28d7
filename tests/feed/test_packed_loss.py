"""A row of several documents costs what the documents cost alone."""

from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pytest

from jaxtrain.feed import loader
from jaxtrain.feed.documents import PACKINGS, Documents
from jaxtrain.feed.sources import TokenData
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig

LENGTH = 64
CONFIG = ModelConfig(
    vocab_size=1024, layers=2, d_model=32, heads=2, kv_heads=2, head_dim=16, d_hidden=64, max_length=LENGTH
)


@pytest.mark.parametrize("packing", ["best_fit", "concat_and_split"])
def test_packed_loss_is_the_loss_of_the_pieces_alone(
    tokens: Path, packing: Literal["best_fit", "concat_and_split"]
) -> None:
    documents = Documents.open(tokens, batch_size=64, length=LENGTH, seed=0, packing=packing)
    batches = loader.document_batches(documents)
    chats = loader.conversation_batches(tokens, batch_size=32, length=LENGTH, seed=0)
    with jax.set_mesh(meshes.make(MeshConfig(fsdp=1), jax.devices()[:1])):
        model = Transformer(CONFIG, jax.random.key(0))
        logits = jax.jit(lambda model, *arrays: model(*arrays))
        assert len(pieces(chats[0])) > len(chats[0]["tokens"])
        for batch in (batches[0], chats[0]):
            segments = pieces(batch)
            packed = np.asarray(
                logits(model, batch["tokens"], batch["segment_ids"], batch["positions"]), np.float64
            )
            together = nats(packed, batch["targets"], batch["loss_weights"])
            alone = {name: np.zeros((len(segments), LENGTH), np.int64) for name in ("tokens", "targets")}
            weights = np.zeros((len(segments), LENGTH))
            for n, segment in enumerate(segments):
                size = len(segment["tokens"])
                alone["tokens"][n, :size], alone["targets"][n, :size] = segment["tokens"], segment["targets"]
                weights[n, :size] = segment["loss_weights"]
            single = np.asarray(logits(model, alone["tokens"].astype(np.int32)), np.float64)
            assert together == pytest.approx(nats(single, alone["targets"], weights), rel=1e-5)
            assert weights.sum() == batch["loss_weights"].sum() > 0


def pieces(batch: loader.Batch) -> list[dict[str, np.ndarray]]:
    return [
        {name: array[row][batch["segment_ids"][row] == segment] for name, array in batch.items()}
        for row in range(len(batch["tokens"]))
        for segment in range(1, batch["segment_ids"][row].max() + 1)
    ]


def nats(logits_BTV: np.ndarray, targets_BT: np.ndarray, weights_BT: np.ndarray) -> float:
    """Cross-entropy in float64, summed over the targets that count."""
    logprob_BTV = logits_BTV - np.log(np.exp(logits_BTV).sum(-1, keepdims=True))
    return float(-(np.take_along_axis(logprob_BTV, targets_BT[..., None], -1)[..., 0] * weights_BT).sum())


def test_every_piece_is_as_the_record_says(tokens: Path) -> None:
    """An epoch's segments are the plan's pieces of the documents between `<|bos|>` and `<|eos|>`."""
    data = TokenData.open(tokens)
    bos, eos = data.tokenizer.bos, data.tokenizer.eos
    batches = loader.heldout_batches(tokens, "code", batch_size=4, length=LENGTH)
    found = [segment["tokens"].tolist() for step in range(len(batches)) for segment in pieces(batches[step])]
    records = data.heldout("code")
    plan = PACKINGS["best_fit"](records.lengths + 2, LENGTH)
    expected = [
        [bos, *records[record].tolist(), eos][start:stop]
        for row in range(len(plan))
        for record, start, stop in plan[row]
    ]
    assert found == expected
