"""Weights as codes: how many bits, how near, the same on every mesh, and no numbers kept for the way back."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import weights
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.quantized import NF4, PART, Quantized, quantize
from jaxtrain.model.transformer import Transformer

SMOLLM2 = ModelConfig(
    vocab_size=49152, layers=30, d_model=576, heads=9, kv_heads=3, head_dim=64, d_hidden=1536, tied=True,
    qk_norm=False, dtype="bfloat16",
)  # fmt: skip
MIXTURE = ModelConfig(
    vocab_size=96,
    layers=2,
    d_model=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    d_hidden=48,
    max_length=32,
    experts=4,
)
DENSE = dataclasses.replace(MIXTURE, experts=0, d_hidden=256)
TOKENS = np.random.default_rng(0).integers(0, 96, (8, 16)).astype(np.int32)


def held(tree) -> list[Quantized]:
    return [one for one in jax.tree.leaves(tree, is_leaf=is_held) if is_held(one)]


def is_held(one) -> bool:
    return isinstance(one, Quantized)


def size_of(tree) -> int:
    """Bytes of its arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8.1), ("nf4", 4.2)])
def test_the_bits_of_a_weight_and_of_a_model(make_mesh, kind, bits):
    """Of SmolLM2-135M's shape with adapters of rank 16 and the embedding in bfloat16."""

    def made(kind: str) -> Transformer:
        model = Transformer(SMOLLM2, jax.random.key(0))
        model = jax.tree.map(lambda weight: weight.astype("bfloat16"), model)
        return quantize(lora.adapt(model, LoRAConfig(rank=16), jax.random.key(1)), kind)

    with jax.set_mesh(make_mesh(fsdp=1)):
        plain, small = (jax.eval_shape(lambda kind=kind: made(kind)) for kind in ("model", kind))
    matrices = held(small)
    assert len(matrices) == 7
    weights = 30 * sum(math.prod(one.shape) for one in matrices)
    assert weights == 106_168_320 and 8 * size_of(matrices) / weights <= bits
    if kind == "nf4":
        assert size_of(small) <= 0.48 * size_of(plain)


def test_numbers_are_the_nearest_that_codes_can_say(make_mesh):
    """Of each block of 64 hidden units; one unit is zero and another a hundred times the rest."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = jax.jit(lambda: Transformer(DENSE, jax.random.key(0)))()
        odd = jnp.ones(DENSE.d_hidden).at[3].set(0).at[70].set(100)
        model.blocks.mlp.gate_DF[...] *= odd
        model.blocks.mlp.down_FD[...] *= odd[:, None]
        made = {kind: quantize(model, kind).blocks for kind in ("model", "int8", "nf4")}
        for name, blocks_of in BLOCKS.items():
            weight, int8, nf4 = (np.asarray(matrix(made[kind], name)) for kind in made)
            step = np.abs(weight).max(axis=1, keepdims=True) / 127
            assert (np.abs(int8 - weight) <= step / 2 + 1e-7).all(), name
            exact, found = (blocks_of(x) for x in (weight, nf4))
            most = np.abs(exact).max(axis=-1, keepdims=True)
            near = np.abs(exact[..., None] - most[..., None] * NF4).min(axis=-1)
            assert (np.abs(found - exact) <= near + np.abs(weight).max() / 255).all(), name


BLOCKS = {
    "mlp.gate_DF": lambda x: x.reshape(-1, 64),
    "mlp.down_FD": lambda x: x.swapaxes(1, 2).reshape(-1, 64),
    "attention.q_DNH": lambda x: x.reshape(-1, 32),
}


def matrix(blocks, name: str) -> jax.Array:
    part, _, name = name.partition(".")
    return getattr(getattr(blocks, part), name)[...]


def outputs(model: Transformer, adapters):
    """Logits, and the gradients' norms."""

    def loss(adapters, model):
        logits = lora.put(model, adapters)(jnp.asarray(TOKENS))
        return jnp.mean(logits**2), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(adapters, model)
    return logits, {name: float(jnp.sqrt(jnp.sum(value**2))) for name, value in gradient.items()}


def adapted(config: ModelConfig, kind: str):
    """A model held as codes, and adapters as if they had learnt: the same on every mesh."""
    model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
    model = quantize(lora.adapt(model, LoRAConfig(rank=4), jax.random.key(1)), kind)
    drawn = lambda x: np.random.default_rng(x.shape[-1]).normal(0, 0.1, x.shape).astype(np.float32)  # noqa: E731
    return model, {name: jax.device_put(drawn(x), x.sharding) for name, x in lora.take(model).items()}


@pytest.mark.parametrize(
    ("config", "kind", "axes"),
    [
        (DENSE, "nf4", {"fsdp": 2, "tensor": 2, "context": 2}),
        pytest.param(DENSE, "int8", {"fsdp": 4, "tensor": 2}, marks=pytest.mark.slow),
        pytest.param(DENSE, "nf4", {"fsdp": 2, "tensor": 2, "stage": 2}, marks=pytest.mark.slow),
        pytest.param(MIXTURE, "nf4", {"fsdp": 2, "tensor": 2, "expert": 2}, marks=pytest.mark.slow),
    ],
    ids=["nf4", "int8", "stages", "mixture"],
)
def test_the_mesh_changes_nothing(make_mesh, config, kind, axes):
    found = []
    for sizes in ({"fsdp": 1}, axes):
        with jax.set_mesh(make_mesh(**sizes)):
            model, adapters = adapted(config, kind)
            codes = [np.asarray(x) for one in held(model) for x in jax.tree.leaves(one)]
            found.append((codes, *outputs(model, adapters)))
    (codes, logits, norms), (codes_too, logits_too, norms_too) = found
    assert all(map(np.array_equal, codes, codes_too))
    np.testing.assert_allclose(logits_too, logits, atol=5e-5)
    for name, norm in norms.items():
        assert norm > 1e-7 and abs(norms_too[name] - norm) <= 1e-4 * norm, name


@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_the_way_back_finds_codes_and_no_numbers(make_mesh, config):
    """Where everything is kept (`remat` none), nothing of the size of all layers' matrices is."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        model, adapters = adapted(config, "nf4")
        loss = lambda adapters: jnp.sum(lora.put(model, adapters)(jnp.asarray(TOKENS)))  # noqa: E731
        kept = jax.tree.leaves(jax.eval_shape(lambda adapters: jax.vjp(loss, adapters)[1], adapters))
    matrices = {(config.layers, *lead, *one.shape) for one in held(model) for lead in ((), (config.experts,))}
    assert {x.shape for x in kept if jnp.issubdtype(x.dtype, jnp.floating)}.isdisjoint(matrices)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_codes_compute_what_a_model_of_their_numbers_does(make_mesh, kind):
    """Wide enough that a CPU takes a matrix of int8 in parts; the head too."""
    wide = dataclasses.replace(DENSE, d_hidden=12288)
    forward = jax.jit(lambda model: model(jnp.asarray(TOKENS)))
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = quantize(jax.jit(lambda: Transformer(wide, jax.random.key(0)))(), kind, ("blocks", "head_DV"))
        assert len(held(model)) == 8 and 32 * wide.d_hidden > PART
        plain = jax.tree.map(lambda one: one[...] if is_held(one) else one, model, is_leaf=is_held)
        np.testing.assert_allclose(forward(model), forward(plain), rtol=1e-5, atol=2e-5)


def test_a_folder_is_quantised_as_it_is_read(make_mesh, tmp_path):
    """A layer at a time: the codes are those of the whole model, laid out as they would be."""
    with jax.set_mesh(make_mesh(fsdp=2, tensor=2)):
        model = jax.jit(lambda: Transformer(DENSE, jax.random.key(0)))()
        weights.save_pretrained(model, tmp_path)
        found, wanted = weights.open(tmp_path).load(held="nf4"), quantize(model, "nf4")
        assert len(held(found)) == 7
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert one.sharding == other.sharding
            np.testing.assert_array_equal(one, other)
