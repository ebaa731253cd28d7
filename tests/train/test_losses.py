"""Log-probabilities in chunks against float64, sharded and not; the weighted sum of token_loss."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.train.losses import logprobs, token_loss


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


valued = jax.jit(jax.value_and_grad(token_loss, has_aux=True))


@pytest.mark.parametrize("axes", [{"fsdp": 1}, {"fsdp": 2, "tensor": 4}], ids=["one", "fsdp2-tensor4"])
@pytest.mark.parametrize("length", [7, 160, 256])
def test_logprobs_and_their_gradients(length, axes, make_mesh):
    rng = np.random.default_rng(length)
    hidden, head = rng.normal(size=(4, length, 16)), rng.normal(size=(16, 40))
    targets, seed = rng.integers(0, 40, (4, length)), rng.normal(size=(4, length))
    logits = hidden @ head / 0.7
    logp = log_softmax(logits)
    expected = np.take_along_axis(logp, targets[..., None], -1)[..., 0]
    pull = (np.eye(40)[targets] - np.exp(logp)) * seed[..., None] / 0.7  # of the logits, by hand

    def weighted(hidden, head, targets, seed):
        logprob, total = logprobs(_Given(head), hidden, targets, temperature=0.7)
        return jnp.sum(logprob * seed), (logprob, total)

    with jax.set_mesh(make_mesh(**axes)):
        arrays = (
            jax.device_put(hidden.astype(np.float32), P(BATCH, "context", None)),
            jax.device_put(head.astype(np.float32), P("fsdp", "tensor")),
            jax.device_put(targets.astype(np.int32), P(BATCH, "context")),
            jax.device_put(seed.astype(np.float32), P(BATCH, "context")),
        )
        gradients, (found, total) = jax.jit(jax.grad(weighted, (0, 1), has_aux=True))(*arrays)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(total, np.log(np.exp(logits).sum(-1)), atol=1e-4)
    np.testing.assert_allclose(gradients[0], pull @ head.T, atol=1e-4)
    np.testing.assert_allclose(gradients[1], np.einsum("btd,btv->dv", hidden, pull), atol=2e-4)


def temporary_bytes(loss, T, D, V):
    """Of the value and gradients of a loss at these sizes; compiled, not run."""
    shapes = (
        jax.ShapeDtypeStruct((1, T, D), jnp.float32, sharding=P(BATCH, "context", None)),
        jax.ShapeDtypeStruct((D, V), jnp.float32, sharding=P("fsdp", "tensor")),
        jax.ShapeDtypeStruct((1, T), jnp.int32, sharding=P(BATCH, "context")),
    )
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def plain(hidden, head, targets):
    logits = jnp.einsum("btd,dv->btv", hidden, head, out_sharding=P(BATCH, "context", "tensor"))
    chosen = targets[..., None] == jnp.arange(head.shape[1])
    return jnp.sum(jax.nn.logsumexp(logits, axis=-1) - jnp.sum(logits, axis=-1, where=chosen))


def chunked(hidden, head, targets):
    return -jnp.sum(logprobs(_Given(head), hidden, targets)[0])


def trained(hidden, head, targets):
    ones = jnp.ones_like(targets, jnp.float32)
    batch = {
        "tokens": hidden,
        "segment_ids": None,
        "positions": None,
        "targets": targets,
        "loss_weights": ones,
    }
    return token_loss(_Given(head), batch)[0]


class _Given:
    """Hidden states that stand already, where a model would make them."""

    def __init__(self, head, logit_softcap=0.0):
        self.output_DV, self.config = head, SimpleNamespace(logit_softcap=logit_softcap)

    def hidden_and_penalty(self, hidden, *_):
        return hidden, jnp.float32(0)


def test_memory_is_less_than_an_eighth(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        whole = temporary_bytes(plain, 4096, 256, 128 * 1024)
        for loss in (chunked, trained):
            assert temporary_bytes(loss, 4096, 256, 128 * 1024) < whole / 8


@pytest.mark.parametrize("axes", [{"fsdp": 1}, {"fsdp": 2, "tensor": 2, "context": 2}], ids=["one", "mixed"])
@pytest.mark.parametrize(("V", "bound"), [(50257, 0.0), (3000, 20.0)])
def test_vocabularies_of_any_size(V, bound, axes, make_mesh, monkeypatch):
    """Loss and gradients in chunks of odd size against float64."""
    monkeypatch.setattr("jaxtrain.train.losses.LOGITS", 5 * V)
    monkeypatch.setattr("jaxtrain.train.losses.TOKENS", 1)
    rng, T = np.random.default_rng(V), 12
    hidden, head = rng.normal(size=(2, T, 8)), rng.normal(size=(8, V))
    targets, weights = rng.integers(0, V, (2, T)), rng.random((2, T))
    logits = hidden @ head
    capped = bound * np.tanh(logits / bound) if bound else logits
    total = np.log(np.exp(capped).sum(-1))
    share = np.exp(capped - total[..., None])
    nats = total - np.take_along_axis(capped, targets[..., None], -1)[..., 0]
    pull = (share * (1 + 2e-3 * total)[..., None] - np.eye(V)[targets]) * weights[..., None]
    pull = pull * (1 - (capped / bound) ** 2) if bound else pull

    def loss(hidden, head):
        batch = {"tokens": hidden, "segment_ids": None, "positions": None}
        batch |= {"targets": targets.astype(np.int32), "loss_weights": weights.astype(np.float32)}
        return token_loss(_Given(head, bound), batch, z_loss=1e-3)[0]

    with jax.set_mesh(make_mesh(**axes)):
        arrays = (
            jax.device_put(hidden.astype(np.float32), P(BATCH, "context", None)),
            jax.device_put(head.astype(np.float32), P("fsdp", None if V % 2 else "tensor")),
        )
        found, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(*arrays)
    np.testing.assert_allclose(found, (weights * (nats + 1e-3 * total**2)).sum(), rtol=1e-6)
    np.testing.assert_allclose(gradients[0], pull @ head.T, atol=2e-5)
    np.testing.assert_allclose(gradients[1], np.einsum("btd,btv->dv", hidden, pull), atol=2e-5)


@pytest.fixture(scope="module")
def one_device(config, make_mesh, make_batch):
    mesh = make_mesh(fsdp=1)
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        batch = meshes.put_batch(make_batch(1), mesh)
        inputs = (batch[name] for name in ("tokens", "segment_ids", "positions"))
        logits = np.asarray(jax.jit(lambda model, *inputs: model(*inputs))(model, *inputs), np.float64)
        yield model, batch, logits


def test_token_loss_is_the_weighted_sum_with_z_loss(one_device):
    model, batch, logits = one_device
    weights, targets = (np.asarray(batch[name]) for name in ("loss_weights", "targets"))
    nats = -np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    squared = np.log(np.exp(logits).sum(-1)) ** 2
    for z_loss in (0.0, 0.1):
        (total, weight), _ = valued(model, batch, jnp.float32(z_loss))
        np.testing.assert_allclose(total, ((nats + z_loss * squared) * weights).sum(), rtol=1e-5)
        assert weight == weights.sum() < weights.size


def test_targets_of_weight_zero_do_not_count(one_device):
    model, batch, _ = one_device
    unlike = jnp.where(batch["loss_weights"] > 0, batch["targets"], (batch["targets"] + 1) % 64)
    before, after = (
        valued(model, batch | {"targets": targets}, jnp.float32(0)) for targets in (batch["targets"], unlike)
    )
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    values, gradient = valued(
        model, batch | {"loss_weights": jnp.zeros_like(batch["loss_weights"])}, jnp.float32(0)
    )
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves((values, gradient)))
