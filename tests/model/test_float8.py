"""Matmuls of 8-bit numbers, against numpy in float64 with the types of ml_dtypes."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtrain.model.float8 import Float8
from jaxtrain.model.layers import contract
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.weights import load_pretrained, save_pretrained

LIMITS = {ml_dtypes.float8_e4m3fn: 448, ml_dtypes.float8_e5m2: 57344}


def rounded(x: np.ndarray, kind) -> np.ndarray:
    """By the smallest power of two that brings all numbers below the largest code, found by trying."""
    scale = 2.0**-140
    while np.abs(x).max() >= LIMITS[kind] * scale:
        scale *= 2
    return (x / scale).astype(kind).astype(np.float64) * scale


@pytest.mark.parametrize(
    ("equation", "shapes", "specs"),
    [
        ("btd,df->btf", ((4, 6, 8), (8, 12)), (P(BATCH, None, None), P("fsdp", "tensor"))),
        ("btd,dnh->btnh", ((4, 6, 8), (8, 2, 3)), (P(BATCH, None, None), P("fsdp", "tensor", None))),
        (
            "btnh,nhd->btd",
            ((4, 6, 2, 3), (2, 3, 8)),
            (P(BATCH, None, "tensor", None), P("tensor", None, "fsdp")),
        ),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 3e-5])
def test_values_and_gradients_are_of_rounded_numbers(equation, shapes, specs, scale, make_mesh) -> None:
    rng = np.random.default_rng(0)
    terms, out = equation.split("->")
    first, second = terms.split(",")
    x, w = (scale * rng.normal(size=shape).astype(np.float32) for shape in shapes)
    g = scale * rng.normal(size=np.einsum(equation, x, w).shape).astype(np.float32)
    narrow_x, narrow_w = (rounded(one, ml_dtypes.float8_e4m3fn) for one in (x, w))
    narrow_g = rounded(g, ml_dtypes.float8_e5m2)
    wanted = (
        np.einsum(equation, narrow_x, narrow_w),
        np.einsum(f"{out},{second}->{first}", narrow_g, narrow_w),
        np.einsum(f"{first},{out}->{second}", narrow_x, narrow_g),
    )
    cut = P(BATCH, None, *([None] if out == "btd" else ["tensor", None][: len(out) - 2]))
    with jax.set_mesh(make_mesh(fsdp=2, tensor=2)):
        put = (jax.device_put(one, spec) for one, spec in zip((x, w, g), (*specs, cut), strict=True))

        def both(x, w, g):
            value, back = jax.vjp(lambda x, w: contract(equation, cut, x, Float8(w)), x, w)
            return value, *back(g)

        found = jax.jit(both)(*put)
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_the_field_narrows_the_blocks_alone(config, make_mesh) -> None:
    """Seven matrices of a layer: each operand forward, and its gradient back; head and norms are wide."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = Transformer(dataclasses.replace(config, float8=True, scan=False, layers=1), jax.random.key(0))
        tokens = jnp.zeros((2, config.max_length), jnp.int32)
        text = str(jax.make_jaxpr(jax.grad(lambda model: model(tokens).mean()))(model))
    assert text.count("new_dtype=float8_e4m3fn") == 14 and text.count("new_dtype=float8_e5m2") == 7


def test_a_model_that_trained_with_it_leaves_as_any_other(config, make_mesh, tmp_path) -> None:
    """It is how a model trains, and nothing that config.json could say."""
    narrow = dataclasses.replace(config, float8=True)
    with jax.set_mesh(make_mesh(fsdp=1)):
        save_pretrained(Transformer(narrow, jax.random.key(0)), tmp_path / "out")
        assert not load_pretrained(tmp_path / "out").config.float8
