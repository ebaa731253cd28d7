"""The hand-written gradients of `contract`, on one device and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtrain.model.layers import contract
from jaxtrain.runtime.mesh import BATCH

SIZES = {"b": 8, "t": 6, "d": 16, "n": 4, "k": 2, "h": 4, "f": 12, "v": 20}
HEADS, HIDDEN, STREAM = (
    P(BATCH, "context", "tensor", None),
    P(BATCH, "context", "tensor"),
    P(BATCH, "context", None),
)
EQUATIONS = {  # every equation of the network: how the weight and the output are sharded
    "btd,dnh->btnh": (STREAM, P("fsdp", "tensor", None), HEADS),
    "btd,dkh->btkh": (STREAM, P("fsdp", "tensor", None), HEADS),
    "btnh,nhd->btd": (HEADS, P("tensor", None, "fsdp"), STREAM),
    "btd,df->btf": (STREAM, P("fsdp", "tensor"), HIDDEN),
    "btf,fd->btd": (HIDDEN, P("tensor", "fsdp"), STREAM),
    "btd,dv->btv": (STREAM, P("fsdp", "tensor"), HIDDEN),
}


@pytest.mark.parametrize("axes", [{"fsdp": 1}, {"fsdp": 4, "tensor": 2}], ids=["one", "fsdp4-tensor2"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_gradients_are_those_of_einsum(equation, axes, make_mesh):
    rng = np.random.default_rng(0)
    terms, out = equation.split("->")
    x, w, seed = (
        rng.normal(size=[SIZES[index] for index in term]).astype(np.float32)
        for term in (*terms.split(","), out)
    )
    x_spec, w_spec, out_spec = EQUATIONS[equation]

    def plain(x, w):
        return jnp.sum(jnp.einsum(equation, x, w) * seed)

    expected = jax.grad(plain, (0, 1))(x, w)
    with jax.set_mesh(make_mesh(**axes)):
        x, w, seed = (
            jax.device_put(value, spec) for value, spec in ((x, x_spec), (w, w_spec), (seed, out_spec))
        )

        def ours(x, w):
            return jnp.sum(contract(equation, out_spec, x, w) * seed)

        gradients = jax.jit(jax.grad(ours, (0, 1)))(x, w)
        for found, wanted, operand in zip(gradients, expected, (x, w), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-5)
            assert jax.typeof(found) == jax.typeof(operand)  # a gradient is sharded as its weight
