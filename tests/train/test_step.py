"""One step: its gradient in parts, its types, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer, new_state
from jaxtrain.train.step import make_step


@pytest.fixture(scope="module")
def one_device(config, make_mesh):
    """Mesh, initial state and step of AdamW, compiled once for the tests below."""
    optimizer = optimizers.make(OptimizerConfig(lr=2e-2, warmup_steps=5), steps=150)
    mesh = make_mesh(fsdp=1)
    with jax.set_mesh(mesh):
        init = jax.jit(initializer(lambda key: Transformer(config, key), optimizer, seed=0))
        yield mesh, init, make_step(token_loss, optimizer)


def test_microbatches_do_not_change_the_gradient(config, make_mesh, make_batch):
    """Plain gradient descent, so that the weights show the gradient; parts of very unequal weight."""
    mesh, batch, found = make_mesh(fsdp=2, tensor=2), make_batch(1), []
    batch["loss_weights"] *= np.array([0, 0, 1, 0.1, 5, 1, 0.5, 0], np.float32)[:, None]
    with jax.set_mesh(mesh):
        optimizer = optax.sgd(1.0)
        init = jax.jit(initializer(lambda key: Transformer(config, key), optimizer, seed=0))
        for microbatches in (1, 4):
            state = init()
            step = make_step(token_loss, optimizer, microbatches)
            state, metrics = step(state, meshes.put_batch(batch, mesh))
            found.append((metrics, jax.device_get(jax.tree.leaves(state.model))))
    (whole, weights), (parts, weights_of_parts) = found
    for name in ("loss", "grad_norm", "targets"):
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-5)
    assert whole["targets"] == pytest.approx(batch["loss_weights"].sum())
    for a, b in zip(weights, weights_of_parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_micro_batches_of_padding_alone_are_not_computed(config, make_mesh, make_batch):
    """Half of a batch, then all of it, by one program: steps of plain gradient descent on those rows."""
    mesh, optimizer = make_mesh(fsdp=2, tensor=2), optax.sgd(1.0)
    with jax.set_mesh(mesh):
        init = jax.jit(initializer(lambda key: Transformer(config, key), optimizer, seed=0))
        ramp = make_step(token_loss, optimizer, 4, ramps=True)
        whole, half = make_batch(1), {name: rows[:4] for name, rows in make_batch(1).items()}
        padded = {name: np.where(np.arange(8)[:, None] < 4, rows, 0) for name, rows in whole.items()}
        padded["loss_weights"][4:] = np.nan  # would spoil the loss
        for rows, plain, count in ((padded, half, 2), (whole, whole, 4)):
            state, metrics = ramp(init(), meshes.put_batch(rows, mesh))
            wanted, known = make_step(token_loss, optimizer)(init(), meshes.put_batch(plain, mesh))
            assert metrics["microbatches"] == count
            assert metrics["targets"] == pytest.approx(float(known["targets"]))
            np.testing.assert_allclose(metrics["loss"], known["loss"], rtol=1e-5)
            for a, b in zip(
                *(jax.device_get(jax.tree.leaves(s.model)) for s in (state, wanted)), strict=True
            ):
                np.testing.assert_allclose(a, b, atol=1e-6)
        assert ramp._cache_size() == 1


def types(state):
    """Shape, dtype and sharding of every leaf."""
    return [jax.typeof(leaf) for leaf in jax.tree.leaves(state)]


def test_types_after_a_step_are_those_before_and_it_compiles_once(config, make_mesh, make_batch):
    mesh = make_mesh(fsdp=4, tensor=2)
    optimizer = optimizers.make(OptimizerConfig(), steps=5)
    step = make_step(token_loss, optimizer)
    with jax.set_mesh(mesh):
        state = jax.jit(initializer(lambda key: Transformer(config, key), optimizer, seed=0))()
        around = new_state(jax.jit(lambda: Transformer(config, jax.random.key(0)))(), optimizer)
        before = types(state)
        assert types(around) == before
        for seed in range(3):
            state, _ = step(state, meshes.put_batch(make_batch(seed), mesh))
            assert types(state) == before
        assert step._cache_size() == 1
        head = state.model.head_DV[...]
        assert head.addressable_shards[0].data.shape == (32 // 4, 64 // 2)


def test_a_batch_without_targets_moves_nothing(one_device, make_batch):
    """Nor do momentum and decay of the steps before."""
    mesh, init, step = one_device
    empty = make_batch(2)
    empty["loss_weights"][:] = 0
    state, _ = step(init(), meshes.put_batch(make_batch(1), mesh))
    before = jax.device_get(jax.tree.leaves((state.model, state.optimizer, state.guard.window)))
    state, metrics = step(state, meshes.put_batch(empty, mesh))
    after = jax.device_get(jax.tree.leaves((state.model, state.optimizer, state.guard.window)))
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not metrics["accepted"] and metrics["targets"] == 0
    _, metrics = step(state, meshes.put_batch(make_batch(2), mesh))
    assert metrics["accepted"]


def test_one_batch_is_learnt_by_heart(one_device, make_batch):
    mesh, init, step = one_device
    state, losses = init(), []
    batch = meshes.put_batch(make_batch(1), mesh)
    for _ in range(150):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    losses = np.asarray(jnp.stack(losses))
    assert losses[0] > 3.5 and losses[-1] < 0.1, losses[::10]
