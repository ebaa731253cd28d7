"""The forward pass against numpy in float64, against itself on other meshes, and against its own cache."""

import jax
import numpy as np
import pytest

from jaxtrain.runtime import mesh as meshes

MESHES = [
    {"fsdp": 8},
    {"fsdp": 4, "tensor": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"fsdp": 2, "context": 2, "tensor": 2},
]


@jax.jit
def jitted(model, *batch):
    return model(*batch)


def forward(model, *batch):
    """Logits as numpy."""
    return np.asarray(jitted(model, *batch))


def shaken(model):
    """A model whose norms' scales are not all one, or no test would see them."""
    noise = np.random.default_rng(5)

    def shake(path, weight):
        if "scale" not in jax.tree_util.keystr(path):
            return weight
        return weight * noise.uniform(0.5, 1.5, weight.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(shake, model)


@pytest.fixture(scope="module")
def batch(config):
    """Tokens, segments and positions [8, 24] of rows with two documents and padding behind."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, config.vocab_size, (8, 24)).astype(np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row in range(8):
        first = 5 + row
        segments[row, :first], segments[row, first:22] = 1, 2
        positions[row, :first], positions[row, first:22] = np.arange(first), np.arange(22 - first)
    return tokens, segments, positions


@pytest.fixture(scope="module")
def one(config, make_mesh, batch, draw):
    """The logits of one device."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        return forward(draw(), *batch)


def reference(model, tokens_T, segments_T, positions_T):
    """The model's definition, head by head and token by token, in float64: logits [T, V]."""
    config = model.config
    float64 = lambda weight: np.asarray(weight[...], np.float64)  # noqa: E731
    blocks, half = model.blocks, config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half) / half)
    turn_TF = np.exp(1j * positions_T[:, None] * frequencies)

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * scale

    def turned(x_TH):
        z = (x_TH[:, :half] + 1j * x_TH[:, half:]) * turn_TF
        return np.concatenate([z.real, z.imag], axis=1)

    x_TD = float64(model.embedding_VD)[tokens_T]
    for layer in range(config.layers):
        attention, mlp = blocks.attention, blocks.mlp
        h_TD = norm(x_TD, float64(blocks.attention_norm.scale)[layer])
        out_TD = np.zeros_like(x_TD)
        for n in range(config.heads):
            k = n * config.kv_heads // config.heads
            q_TH = h_TD @ float64(attention.q_DNH)[layer, :, n]
            k_TH = h_TD @ float64(attention.k_DKH)[layer, :, k]
            v_TH = h_TD @ float64(attention.v_DKH)[layer, :, k]
            q_TH = turned(norm(q_TH, float64(attention.q_norm.scale)[layer]))
            k_TH = turned(norm(k_TH, float64(attention.k_norm.scale)[layer]))
            for t in range(len(tokens_T)):
                seen = [s for s in range(t + 1) if segments_T[s] == segments_T[t]]
                score = np.exp(k_TH[seen] @ q_TH[t] / np.sqrt(config.head_dim))
                out_TD[t] += (score / score.sum()) @ v_TH[seen] @ float64(attention.o_NHD)[layer, n]
        x_TD = x_TD + out_TD
        h_TD = norm(x_TD, float64(blocks.mlp_norm.scale)[layer])
        gate_TF = h_TD @ float64(mlp.gate_DF)[layer]
        swish_TF = gate_TF / (1 + np.exp(-gate_TF))
        x_TD = x_TD + (swish_TF * (h_TD @ float64(mlp.up_DF)[layer])) @ float64(mlp.down_FD)[layer]
    return norm(x_TD, float64(model.norm.scale)) @ float64(model.head_DV)


def test_forward_is_the_definition(config, make_mesh, batch, draw):
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = shaken(draw())
        found = forward(model, *batch)
        for row in (0, 5):
            expected = reference(model, *(array[row] for array in batch))
            np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_defaults_are_one_document_from_position_zero(config, make_mesh, draw):
    tokens = np.random.default_rng(2).integers(0, config.vocab_size, (2, 16)).astype(np.int32)
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = draw()
        ones, positions = np.ones_like(tokens), np.tile(np.arange(16, dtype=np.int32), (2, 1))
        np.testing.assert_array_equal(forward(model, tokens), forward(model, tokens, ones, positions))


@pytest.mark.parametrize("axes", MESHES, ids=str)
def test_logits_do_not_depend_on_the_mesh(axes, config, make_mesh, batch, one, draw):
    mesh = make_mesh(**axes)
    with jax.set_mesh(mesh):
        placed = meshes.put_batch(dict(zip("tsp", batch, strict=True)), mesh)
        found = forward(draw(), *placed.values())
    np.testing.assert_allclose(found, one, atol=1e-5)


def test_a_document_does_not_see_its_neighbour(config, make_mesh, batch, draw):
    tokens, segments, positions = batch
    for changed, kept in ((1, 2), (2, 1)):
        other = np.where(segments == changed, (tokens + 1) % config.vocab_size, tokens)
        with jax.set_mesh(make_mesh(fsdp=1)):
            model = draw()
            before, after = (forward(model, t, segments, positions) for t in (tokens, other))
        np.testing.assert_array_equal(before[segments == kept], after[segments == kept])
        assert (before[segments == changed] != after[segments == changed]).mean() > 0.99


def test_a_document_reads_the_same_wherever_it_stands_in_a_row(config, make_mesh, batch, one, draw):
    tokens, segments, _ = batch
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = draw()
        alone = forward(model, np.ascontiguousarray(tokens[:, 12:22][7:]))
    assert segments[7, 12:22].tolist() == [2] * 10
    np.testing.assert_allclose(alone[0], one[7, 12:22], atol=1e-5)


def test_later_tokens_do_not_change_earlier_logits(config, make_mesh, draw):
    tokens = np.random.default_rng(2).integers(0, config.vocab_size, (2, 16)).astype(np.int32)
    other = tokens.copy()
    other[:, 9:] = (other[:, 9:] + 1) % config.vocab_size
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = draw()
        before, after = forward(model, tokens), forward(model, other)
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).mean() > 0.99
