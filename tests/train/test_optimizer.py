"""AdamW against numpy in float64, which weights decay, and the learning rate over the steps."""

import math

import jax
import numpy as np
import optax
import pytest

from jaxtrain.model.transformer import Transformer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.optimizer import OptimizerConfig, learning_rate

DECAYING = {"q_DNH", "k_DKH", "v_DKH", "o_NHD", "gate_DF", "up_DF", "down_FD", "head_DV"}
NOT_DECAYING = {"embedding_VD", "scale"}


@pytest.fixture(scope="module")
def model(config, make_mesh):
    """Weights on fsdp 4 x tensor 2, which is set."""
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        yield jax.jit(lambda: Transformer(config, jax.random.key(0)))()


def names(tree):
    """The attribute of each leaf, in the order of the leaves."""
    known = DECAYING | NOT_DECAYING
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [next(str(k.name) for k in path if getattr(k, "name", "") in known) for path in paths]


def test_five_steps_of_adamw(model):
    """Gradients of norms below and above the clip; steps 0 and 1 warm up."""
    settings = OptimizerConfig(lr=1e-2, warmup_steps=2, schedule="linear", weight_decay=0.3, clip_norm=1.0)
    rates = [1e-2 / 3, 1e-2 * 2 / 3, 1e-2, 1e-2 - 0.9e-2 / 3, 1e-2 - 0.9e-2 * 2 / 3]
    optimizer = optimizers.make(settings, steps=5)
    rng = np.random.default_rng(0)

    @jax.jit
    def update(gradient, state, model):
        updates, state = optimizer.update(gradient, state, model)
        return optax.apply_updates(model, updates), state

    state = jax.jit(optimizer.init)(model)
    named = names(model)
    assert set(named) == DECAYING | NOT_DECAYING
    weights = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(model)]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, rate in enumerate(rates, 1):
        gradients = [rng.normal(size=w.shape) * 10.0 ** (step - 4) for w in weights]
        norm = math.sqrt(sum((g**2).sum() for g in gradients))
        leaves = [
            jax.device_put(g.astype(np.float32), leaf.sharding)
            for g, leaf in zip(gradients, jax.tree.leaves(model), strict=True)
        ]
        model, state = update(jax.tree.unflatten(jax.tree.structure(model), leaves), state, model)
        for i, (name, g) in enumerate(zip(named, gradients, strict=True)):
            g = g * min(1.0, 1.0 / norm)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.95 * second[i] + 0.05 * g**2
            ratio = (first[i] / (1 - 0.9**step)) / (np.sqrt(second[i] / (1 - 0.95**step)) + 1e-8)
            weights[i] -= rate * (ratio + (0.3 * weights[i] if name in DECAYING else 0))
    for name, found, expected in zip(named, jax.tree.leaves(model), weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5, err_msg=name)


def test_the_state_is_sharded_as_the_weights(model):
    optimizer = optimizers.make(OptimizerConfig(), steps=5)
    adam = optax.tree.get(jax.jit(optimizer.init)(model), "ScaleByAdamState")
    for moment in (adam.mu, adam.nu):
        for found, weight in zip(jax.tree.leaves(moment), jax.tree.leaves(model), strict=True):
            assert jax.typeof(found) == jax.typeof(weight)
            assert found.sharding.is_equivalent_to(weight.sharding, weight.ndim)
    head = jax.tree.leaves(adam.mu.head_DV)[0]
    assert head.addressable_shards[0].data.size == head.size // 8


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [
        ("cosine", 0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2, 0.1),
        ("linear", 1 - 0.9 / 3, 0.1),
        ("constant", 1.0, 1.0),
    ],
)
def test_learning_rate(schedule, middle, end):
    rate = learning_rate(OptimizerConfig(lr=0.2, warmup_steps=10, schedule=schedule), steps=40)
    for step, share in [(0, 1 / 11), (5, 6 / 11), (10, 1.0), (20, middle), (40, end), (50, end)]:
        assert float(rate(step)) == pytest.approx(0.2 * share, rel=1e-5), step
