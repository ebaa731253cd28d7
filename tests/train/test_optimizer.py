"""AdamW against numpy in float64, which weights decay, and the learning rate over the steps."""

import dataclasses
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
    rates = [1e-2 / 3, 1e-2 * 2 / 3, 1e-2, 1e-2 - 0.9e-2 / 2, 1e-3]
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
        ("stable_decay", 1.0, 0.1),
    ],
)
def test_learning_rate(schedule, middle, end):
    """The last step, 40 counted from 0, has the final rate."""
    rate = learning_rate(OptimizerConfig(lr=0.2, warmup_steps=10, schedule=schedule), steps=41)
    for step, share in [(0, 1 / 11), (5, 6 / 11), (10, 1.0), (20, middle), (40, end), (50, end)]:
        assert float(rate(step)) == pytest.approx(0.2 * share, rel=1e-5), step


def test_stable_decay_falls_over_its_share_of_the_steps():
    config = OptimizerConfig(
        lr=1.0, warmup_steps=10, schedule="stable_decay", decay_share=0.25, final_lr_share=0.0
    )
    rate = learning_rate(config, steps=100)
    found = [float(rate(step)) for step in (10, 74, 79, 89, 99)]
    assert found == pytest.approx([1.0, 1.0, 0.8, 0.4, 0.0])


def take_steps(optimizer, model, gradients):
    """The weights after one step a gradient, and the last state."""

    @jax.jit
    def update(gradient, state, model):
        updates, state = optimizer.update(gradient, state, model)
        return optax.apply_updates(model, updates), state

    state = jax.jit(optimizer.init)(model)
    for leaves in gradients:
        placed = [
            jax.device_put(g.astype(np.float32), leaf.sharding)
            for g, leaf in zip(leaves, jax.tree.leaves(model), strict=True)
        ]
        model, state = update(jax.tree.unflatten(jax.tree.structure(model), placed), state, model)
    return model, state


def random_gradients(model, steps):
    rng = np.random.default_rng(1)
    return [[rng.normal(size=leaf.shape) for leaf in jax.tree.leaves(model)] for _ in range(steps)]


def as_matrices(name, values):
    """[matrices, inputs, outputs]: how a weight of this name acts, written out by hand."""
    inputs = {"o_NHD": 2, "gate_DF": 1, "up_DF": 1, "down_FD": 1, "q_DNH": 1, "k_DKH": 1, "v_DKH": 1}[name]
    layers, rest = values.shape[0], values.shape[1:]
    return values.reshape(layers, math.prod(rest[:inputs]), math.prod(rest[inputs:]))


def orthogonalised(x):
    """Five steps of the quintic of Jordan 2024, float64."""
    x = x / (np.linalg.norm(x) + 1e-8)
    flipped = x.shape[0] > x.shape[1]
    x = x.T if flipped else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if flipped else x


def test_three_steps_of_muon(model):
    """Sharded over fsdp 4 x tensor 2, against float64 matrices one by one; AdamW takes the rest."""
    settings = OptimizerConfig(
        kind="muon",
        lr=1e-2,
        rest_lr=3e-3,
        warmup_steps=0,
        schedule="constant",
        weight_decay=0.1,
        clip_norm=1e9,
    )
    gradients = random_gradients(model, 3)
    after, _ = take_steps(optimizers.make(settings, steps=3), model, gradients)
    rest = dataclasses.replace(settings, kind="adamw", lr=3e-3)
    after_adamw, _ = take_steps(optimizers.make(rest, steps=3), model, gradients)
    leaves = zip(*(jax.tree.leaves(tree) for tree in (model, after, after_adamw)), strict=True)
    for i, (name, (before, found, adamw)) in enumerate(zip(names(model), leaves, strict=True)):
        if name in NOT_DECAYING | {"head_DV"}:
            np.testing.assert_allclose(found, adamw, rtol=1e-6, err_msg=name)
            continue
        wanted = as_matrices(name, np.asarray(before, np.float64))
        momentum = np.zeros_like(wanted)
        for step, leaves_of_step in enumerate(gradients, 1):
            gradient = as_matrices(name, leaves_of_step[i])
            momentum = 0.95 * momentum + 0.05 * gradient
            ahead = 0.95 * momentum / (1 - 0.95 ** (step + 1)) + 0.05 * gradient / (1 - 0.95**step)
            turned = np.stack([orthogonalised(matrix) for matrix in ahead])
            singular = np.linalg.svd(turned, compute_uv=False)
            assert singular.max() < 1.3 and np.median(singular) > 0.6
            wanted = wanted - 1e-2 * (0.2 * math.sqrt(max(turned.shape[1:])) * turned + 0.1 * wanted)
        np.testing.assert_allclose(as_matrices(name, np.asarray(found)), wanted, atol=2e-5, err_msg=name)


def test_muon_keeps_one_moment_of_a_matrix_sharded_as_it(model):
    state = jax.jit(optimizers.make(OptimizerConfig(kind="muon"), steps=5).init)(model)
    mean = optax.tree.get(state, "MuonState").mu
    held = {path[-2].name: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(mean)}
    assert set(held) == DECAYING - {"head_DV"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if (name := path[-2].name) in held:
            assert held[name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim), name


def test_three_steps_of_lion(model):
    settings = OptimizerConfig(
        kind="lion", lr=1e-3, warmup_steps=0, schedule="constant", beta2=0.99, weight_decay=0.1, clip_norm=1e9
    )
    gradients = random_gradients(model, 3)
    after, _ = take_steps(optimizers.make(settings, steps=3), model, gradients)
    for i, name in enumerate(names(model)):
        wanted = np.asarray(jax.tree.leaves(model)[i], np.float64)
        momentum = np.zeros_like(wanted)
        for leaves in gradients:
            turn = np.sign(0.9 * momentum + 0.1 * leaves[i])
            momentum = 0.99 * momentum + 0.01 * leaves[i]
            wanted = wanted - 1e-3 * (turn + (0.1 * wanted if name in DECAYING else 0))
        np.testing.assert_allclose(jax.tree.leaves(after)[i], wanted, atol=1e-6, err_msg=name)


def test_adafactor_keeps_rows_and_columns(config, make_mesh):
    """Of matrices of 128 and more its state is their rows and columns; it is sharded like any other."""
    wide = dataclasses.replace(config, d_model=128, d_hidden=256, heads=2, kv_heads=2, head_dim=128)
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        model = jax.jit(lambda: Transformer(wide, jax.random.key(0)))()
        settings = OptimizerConfig(kind="adafactor", lr=1e-2, warmup_steps=0)
        after, state = take_steps(optimizers.make(settings, steps=3), model, random_gradients(model, 2))
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert size(state) < 0.2 * size(model)
    for before, found in zip(jax.tree.leaves(model), jax.tree.leaves(after), strict=True):
        assert np.isfinite(found).all() and (np.asarray(before) != np.asarray(found)).any()
        assert jax.typeof(found) == jax.typeof(before)


def test_the_running_mean_of_weights(model):
    settings = OptimizerConfig(lr=1e-2, warmup_steps=0, average=0.75)
    optimizer, gradients = optimizers.make(settings, steps=3), random_gradients(model, 3)
    weights = [model] + [take_steps(optimizer, model, gradients[:n])[0] for n in (1, 2, 3)]
    _, state = take_steps(optimizer, model, gradients)
    for i, found in enumerate(jax.tree.leaves(optimizers.averaged(settings, state, model))):
        _, *rest = (np.asarray(jax.tree.leaves(tree)[i], np.float64) for tree in weights)
        shares = 0.25 * 0.75 ** np.arange(2, -1, -1)
        mean = sum(share * new for share, new in zip(shares, rest, strict=True)) / shares.sum()
        np.testing.assert_allclose(found, mean, atol=1e-6)
    first = jax.jit(optimizers.make(settings, steps=3).init)(model)
    same = optimizers.averaged(settings, first, model)
    jax.tree.map(np.testing.assert_array_equal, same, model)
    assert optimizers.averaged(OptimizerConfig(), state, model) is model


@pytest.mark.parametrize(("kind", "beside"), [("adamw", 1e-2), ("muon", 2e-3)])
def test_the_embedding_can_have_a_rate_of_its_own(model, kind, beside):
    """Its update is so many times that at the rate of the weights beside it; all others are the same."""
    found, gradients = [], random_gradients(model, 1)
    for rate in (0.0, 0.5):
        settings = OptimizerConfig(kind=kind, lr=1e-2, rest_lr=2e-3, embedding_lr=rate, warmup_steps=0)
        after, _ = take_steps(optimizers.make(settings, steps=5), model, gradients)
        found.append([np.asarray(leaf) for leaf in jax.tree.leaves(after)])
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(model)]
    for name, start, plain, own in zip(names(model), before, *found, strict=True):
        times = 0.5 / beside if name == "embedding_VD" else 1
        np.testing.assert_allclose(own - start, (plain - start) * times, rtol=1e-3, atol=1e-6)
