"""Tokens that follow those in the slots, against full forwards."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtrain.decode.slots import Decoder, append, new_slots
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH


@pytest.mark.parametrize("axes", [{"fsdp": 1}, {"fsdp": 4, "tensor": 2}], ids=["one", "fsdp4-tensor2"])
def test_appending_is_the_full_forward(axes, config, make_mesh):
    """Prompts of 3 to 10 tokens in a piece of 10, then six tokens one by one, beyond the window."""
    config = dataclasses.replace(config, layers=3, window=5, global_every=2)
    draw = jax.jit(lambda: Transformer(config, jax.random.key(3)))
    rng = np.random.default_rng(4)
    rows, prompt, new = 8, 10, 6
    counts = np.arange(3, 3 + rows, dtype=np.int32)
    tokens = rng.integers(0, config.vocab_size, (rows, prompt + new)).astype(np.int32)
    pieces = [(tokens[:, :prompt], counts)]
    for n in range(new):
        following = tokens[np.arange(rows), counts + n]
        pieces.append((following[:, None], np.ones_like(counts)))
    with jax.set_mesh(make_mesh(**axes)):
        decoder = Decoder.of(draw())
        step = jax.jit(append)
        logits = jax.jit(lambda shell, hidden: shell.logits(hidden))
        slots, found = new_slots(config, rows, prompt + new + 2), []
        for piece, count in pieces:
            placed = jax.device_put(piece, P(BATCH, None)), jax.device_put(count, P(BATCH))
            hidden, slots = step(decoder, slots, *placed)
            found.append(np.asarray(logits(decoder.shell, hidden)))
        assert np.asarray(slots.used_B).tolist() == (counts + new).tolist()
    with jax.set_mesh(make_mesh(fsdp=1)):
        full = np.asarray(jax.jit(lambda model, tokens: model(tokens))(draw(), tokens))
    for row, count in enumerate(counts):
        np.testing.assert_allclose(found[0][row, :count], full[row, :count], atol=1e-5)
        for n in range(new):
            np.testing.assert_allclose(found[1 + n][row, 0], full[row, count + n], atol=1e-5)


def test_one_row_is_written_where_it_lies(config, make_mesh):
    """XLA for CPUs copied every layer's keys and values five times a token."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        decoder = jax.jit(lambda: Decoder.of(Transformer(config, jax.random.key(0))))()
        slots = new_slots(config, 1, 64)
        token, one = np.zeros((1, 1), np.int32), np.ones((1,), np.int32)
        program = jax.jit(append, donate_argnums=1).lower(decoder, slots, token, one).compile().as_text()
    size = ",".join(map(str, slots.layers[0].k_BKSH.shape))
    assert f"[{size}]" in program
    assert [line for line in program.splitlines() if f"[{size}]" in line and " copy(" in line] == []
