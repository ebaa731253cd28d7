"""The same loss and gradient norm on every mesh, dense and with experts; what is laid where."""

import dataclasses
import re
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.losses import token_loss

SMALL = ModelConfig(
    vocab_size=96, layers=4, d_model=32, heads=4, kv_heads=4, head_dim=8, d_hidden=48, stage_microbatches=2
)
MODELS = {
    "dense": dataclasses.replace(SMALL, window=6, global_every=2),
    "experts": dataclasses.replace(SMALL, experts=4, balance_loss=0.0),
}
MESHES = [
    {"stage": 2, "context": 2, "tensor": 2},
    {"fsdp": 2, "expert": 2, "tensor": 2},
    {"data": 8},
    {"fsdp": 8},
    {"tensor": 4},
    {"context": 8},
    {"stage": 2},
    {"expert": 4},
    {"stage": 2, "data": 4},
    {"fsdp": 4, "tensor": 2},
    {"fsdp": 2, "context": 2, "tensor": 2},
    {"stage": 2, "fsdp": 2, "tensor": 2},
    {"stage": 2, "expert": 2, "tensor": 2},
    {"data": 2, "expert": 2, "context": 2},
    {"expert": 2, "context": 2, "tensor": 2},
]


def batch():
    """Two documents a row, a third of the targets without weight."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 96, (16, 33)).astype(np.int32)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": np.repeat(np.array([[1] * 20 + [2] * 12], np.int32), 16, 0),
        "positions": np.repeat(np.r_[0:20, 0:12][None].astype(np.int32), 16, 0),
        "loss_weights": (rng.random((16, 32)) < 2 / 3).astype(np.float32),
    }


def mean(model, batch):
    total, count = token_loss(model, batch)
    return total / count


def measured(config, axes, make_mesh):
    mesh = make_mesh(**axes)
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        loss, gradient = jax.jit(jax.value_and_grad(mean))(model, meshes.put_batch(batch(), mesh))
        return float(loss), float(optax.tree.norm(gradient))


@pytest.fixture(scope="module")
def one(make_mesh):
    return {name: measured(config, {"fsdp": 1}, make_mesh) for name, config in MODELS.items()}


QUICK = [("dense", MESHES[0]), ("experts", MESHES[1])]
CASES = [(name, axes) for name in MODELS for axes in MESHES]


@pytest.mark.parametrize(
    ("name", "axes"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=str(case)) for case in CASES],
)
def test_loss_and_gradient_do_not_depend_on_the_mesh(name, axes, one, make_mesh):
    np.testing.assert_allclose(measured(MODELS[name], axes, make_mesh), one[name], rtol=1e-5)


def test_bytes_of_weights_and_optimizer_fall_with_fsdp(make_mesh):
    """By what XLA says of the compiled program's arguments."""
    config = dataclasses.replace(SMALL, vocab_size=2048, d_model=128, d_hidden=512, layers=2)
    adam, found = optax.adam(1e-3), {}
    for n in (1, 8):
        mesh = make_mesh(fsdp=n)
        with jax.set_mesh(mesh):
            model = meshes.abstract(lambda: Transformer(config, jax.random.key(0)), mesh)
            state = meshes.abstract(
                lambda m=model: (m, adam.init(Transformer(config, jax.random.key(0)))[0]), mesh
            )
            compiled = jax.jit(lambda state: jax.tree.map(lambda x: x * 2, state)).lower(state).compile()
        found[n] = compiled.memory_analysis().argument_size_in_bytes
    assert found[8] < found[1] / 8 * 1.05, found


WEIGHTS = {  # of a layer, gathered over fsdp: whole, or cut over tensor 2
    *((32, 48), (48, 32), (32, 4, 8), (4, 8, 32)),
    *((32, 24), (24, 32), (32, 2, 8), (2, 8, 32)),
}

HLO = """
import importlib.util, sys
import jax
spec = importlib.util.spec_from_file_location("parallel", sys.argv[1])
p = importlib.util.module_from_spec(spec)
spec.loader.exec_module(p)
axes = {axis: int(n) for axis, n in (part.split("=") for part in sys.argv[3].split(","))}
mesh = p.meshes.make(p.meshes.MeshConfig(**{"fsdp": 1, **axes}))
with jax.set_mesh(mesh):
    model = p.meshes.abstract(lambda: p.Transformer(p.MODELS[sys.argv[2]], jax.random.key(0)), mesh)
    placed = p.meshes.put_batch(p.batch(), mesh)
    print(jax.jit(jax.value_and_grad(p.mean)).lower(model, placed).compile().as_text())
"""


@pytest.mark.parametrize(
    ("name", "axes", "wanted"),
    [
        pytest.param("dense", "stage=2,fsdp=2,tensor=2", "collective-permute", id="stage"),
        pytest.param("experts", "fsdp=2,expert=4", "all-to-all", id="expert"),
    ],
)
def test_what_travels(name, axes, wanted):
    """XLA reports no involuntary full rematerialization, and gathers no stack of layers without stages."""
    done = subprocess.run(
        [sys.executable, "-c", HLO, __file__, name, axes], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rematerialization" not in done.stderr, done.stderr[-2000:]
    assert re.search(rf"\b{wanted}(-start)?\(", done.stdout)
    layers = MODELS[name].layers // (2 if "stage" in axes else 1)
    for shape in re.findall(r"= f32\[([\d,]+)\]\S* all-gather", done.stdout):
        dims = [int(n) for n in shape.split(",")]
        is_stack = dims[0] in (layers, MODELS[name].layers) and tuple(dims[1:]) in WEIGHTS
        # In a pipeline XLA lifts the gathers over fsdp out of the loop over turns: a stage's layers, at once.
        assert not is_stack or "stage" in axes, shape


def test_a_mesh_that_cannot_cut_the_model_is_one_line(make_mesh):
    for axes, words in (({"tensor": 8}, "heads 4 does not fit mesh tensor 8"), ({"stage": 8}, "layers 4")):
        with jax.set_mesh(make_mesh(**axes)), pytest.raises(UserError, match=words):
            Transformer(SMALL, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full", "offload"])
def test_what_is_kept_does_not_change_the_gradient(remat, one, make_mesh):
    config = dataclasses.replace(MODELS["dense"], remat=remat, scan=remat != "full")
    np.testing.assert_allclose(measured(config, {"fsdp": 1}, make_mesh), one["dense"], rtol=1e-5)
