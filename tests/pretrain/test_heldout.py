"""Bits per byte on held-out documents, against each document read alone."""

import jax
import numpy as np
import pytest

from jaxtrain.feed import heldout, loader
from jaxtrain.feed.sources import TokenData
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.weights import folder as store


@pytest.fixture(scope="module")
def model(straight):
    """The trained weights on one device, which is set."""
    with jax.set_mesh(meshes.make(MeshConfig(fsdp=1), jax.devices()[:1])):
        yield store.load(straight)


def test_every_document_counts_whole(model, tokens):
    """Rows so long that none is cut: nats are those of the documents one by one, in float64."""
    data, length = TokenData.open(tokens), 320
    found = heldout.measure(model, tokens, batch_size=4, length=length)
    assert sorted(found) == ["all", "first", "second"]  # `third` holds out nothing
    bits = size = 0
    forward = jax.jit(lambda model, ids: model(ids))
    for source in ("first", "second"):
        records, nats = data.heldout(source), 0.0
        assert len(records) == 6 and records.lengths.max() + 2 <= length
        for index in range(len(records)):
            ids = [data.tokenizer.bos, *records[index].tolist(), data.tokenizer.eos]
            padded = np.zeros((1, length), np.int32)
            padded[0, : len(ids)] = ids
            logits = np.asarray(forward(model, padded), np.float64)[0, : len(ids) - 1]
            total = np.log(np.exp(logits).sum(-1))
            nats += (total - logits[np.arange(len(ids) - 1), ids[1:]]).sum()
        text = "".join(data.tokenizer.decode(records[i].tolist()) for i in range(6)).encode()
        assert found[source] == pytest.approx(nats / np.log(2) / len(text), rel=1e-5)
        bits, size = bits + nats / np.log(2), size + len(text)
    assert found["all"] == pytest.approx(bits / size, rel=1e-5)


def test_a_part_stands_for_the_whole(model, tokens):
    """`most` batches of each source, scaled to all of its tokens."""
    whole = heldout.measure(model, tokens, batch_size=2, length=32)
    part = heldout.measure(model, tokens, batch_size=2, length=32, most=3)
    for source in ("first", "second"):
        batches = loader.heldout_batches(tokens, source, batch_size=2, length=32)
        assert len(batches) > 6
        assert part[source] != whole[source]
        assert part[source] == pytest.approx(whole[source], rel=0.2)
    every = heldout.measure(model, tokens, batch_size=2, length=32, most=10_000)
    assert every == whole
