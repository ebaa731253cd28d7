"""The same loss and gradient norm on every mesh, dense and with experts; what is laid where."""

import dataclasses
import math
import re
import subprocess
import sys
from functools import cache, partial

import jax
import numpy as np
import optax
import pytest

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.losses import token_loss
from jaxtrain.train.state import initializer
from jaxtrain.train.step import make_step

SMALL = ModelConfig(
    vocab_size=96, layers=4, d_model=32, heads=4, kv_heads=4, head_dim=8, d_hidden=48, stage_microbatches=2
)
LATENT = dict(
    **{"layers": 5, "qk_norm": False, "head_dim": 12, "rotary_dim": 4, "value_dim": 8, "latent_rank": 16},
    **{"query_rank": 24, "dense_layers": 1, "dense_hidden": 48, "experts": 8, "shared_experts": 1},
    **{"router": "sigmoid", "expert_groups": 4, "groups_per_token": 2, "balance_loss": 0.0},
)
DELTA = dict(
    **{"delta_key_heads": 4, "delta_value_heads": 8, "delta_key_dim": 8, "delta_value_dim": 4},
    **{"output_gates": True, "experts": 4, "shared_experts": 1, "balance_loss": 0.0},
)
MODELS = {
    "dense": dataclasses.replace(SMALL, window=6, global_every=2),
    "experts": dataclasses.replace(SMALL, experts=4, balance_loss=0.0),
    "latent": dataclasses.replace(SMALL, **LATENT),
    "delta": dataclasses.replace(SMALL, global_every=2, **DELTA),
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
    return cache(lambda name: measured(MODELS[name], {"fsdp": 1}, make_mesh))


QUICK = [("dense", MESHES[0]), ("experts", MESHES[1])]
CASES = [(name, axes) for name in MODELS for axes in MESHES if name != "delta" or "context" not in axes]


@pytest.mark.parametrize(
    ("name", "axes"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=str(case)) for case in CASES],
)
def test_loss_and_gradient_do_not_depend_on_the_mesh(name, axes, one, make_mesh):
    np.testing.assert_allclose(measured(MODELS[name], axes, make_mesh), one(name), rtol=1e-5)


def compiled_step(config, mesh):
    """The step of training, with Adam."""
    adam = optax.adam(1e-3)
    with jax.set_mesh(mesh):
        state = meshes.abstract(initializer(partial(Transformer, config), adam, seed=0), mesh)
        return make_step(token_loss, adam).lower(state, meshes.put_batch(batch(), mesh)).compile()


@pytest.mark.parametrize("sizes", [(1, 8), pytest.param((1, 2, 4, 8), marks=pytest.mark.slow)])
def test_bytes_of_weights_and_optimizer_fall_with_fsdp(sizes, make_mesh):
    """By what XLA says of the step's arguments, the batch among them."""
    config = dataclasses.replace(SMALL, vocab_size=2048, d_model=128, d_hidden=512, layers=1)
    found = {
        n: compiled_step(config, make_mesh(fsdp=n)).memory_analysis().argument_size_in_bytes for n in sizes
    }
    for n, size in found.items():
        assert size < found[1] / n * 1.05, found


TOLD = {  # of no size that an activation has, and two repetitions of the pattern a stage
    "dense": dataclasses.replace(MODELS["dense"], layers=8, d_model=40, d_hidden=56, head_dim=12),
    "experts": dataclasses.replace(MODELS["experts"], d_model=40, d_hidden=56, head_dim=12),
}

HLO = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("parallel", sys.argv[1])
p = importlib.util.module_from_spec(spec)
spec.loader.exec_module(p)
axes = {axis: int(n) for axis, n in (part.split("=") for part in sys.argv[3].split(","))}
mesh = p.meshes.make(p.meshes.MeshConfig(**{"fsdp": 1, **axes}))
print(p.compiled_step(p.TOLD[sys.argv[2]], mesh).as_text())
"""


def shapes(hlo):
    return {tuple(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", hlo)}


def matrices(config, fsdp, tensor):
    """Shapes of a layer's matrices on a device, all whose width is cut into `fsdp`."""
    D, F, N, H = config.d_model // fsdp, config.d_hidden // tensor, config.heads // tensor, config.head_dim
    return {(D, F), (F, D), (D, N, H), (N, H, D), (D, N * H), (N * H, D)}


def layers_of(shape, layer):
    """How many layers' matrices of these shapes (of so many experts) an array of `shape` is."""
    ends = [whole for whole in layer if shape[-len(whole) :] == whole]
    return max((math.prod(shape[: -len(whole)]) for whole in ends), default=0)


@pytest.mark.parametrize(
    ("name", "axes", "wanted"),
    [
        pytest.param("dense", {"stage": 2, "fsdp": 2, "tensor": 2}, "collective-permute", id="stage"),
        pytest.param("experts", {"fsdp": 2, "expert": 4}, "all-to-all", id="expert"),
        pytest.param(
            "experts",
            {"stage": 2, "fsdp": 2, "expert": 2},
            "all-to-all",
            id="stage and expert",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_travels(name, axes, wanted):
    """XLA reports no involuntary full rematerialization; no device holds whole matrices of two layers."""
    text = ",".join(f"{axis}={n}" for axis, n in axes.items())
    done = subprocess.run(
        [sys.executable, "-c", HLO, __file__, name, text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rematerialization" not in done.stderr, done.stderr[-2000:]
    assert re.search(rf"\b{wanted}(-start)?\(", done.stdout)

    config, tensor = TOLD[name], axes.get("tensor", 1)
    whole, cut = matrices(config, 1, tensor), matrices(config, axes["fsdp"], tensor)
    at_once = max(1, config.experts // axes.get("expert", 1))
    for shape in shapes(done.stdout):
        assert layers_of(shape, whole) <= at_once, f"a stack of gathered matrices: {shape}"
    body, entry = done.stdout.split("\nENTRY ")
    gathers = [re.split(r" all-gather(?:-start)?\(", line) for line in (body + entry).splitlines()]
    for shape in shapes("\n".join(parts[0] for parts in gathers if len(parts) == 2)):
        assert layers_of(shape, cut) <= at_once, f"layers of another stage: {shape}"
    outside = "\n".join(line for line in entry.splitlines() if "all-gather" in line)
    assert not any(layers_of(shape, whole) for shape in shapes(outside)), (
        "gathered before the loop over layers"
    )


def test_a_mesh_that_cannot_cut_the_model_is_one_line(make_mesh):
    for axes, words in (({"tensor": 8}, "heads 4 does not fit mesh tensor 8"), ({"stage": 8}, "layers 4")):
        with jax.set_mesh(make_mesh(**axes)), pytest.raises(UserError, match=words):
            Transformer(SMALL, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "axes"), [("dense", {"fsdp": 1}), ("experts", {"fsdp": 2, "expert": 2})])
@pytest.mark.parametrize("remat", ["dots", "full", "offload"])
def test_what_is_kept_does_not_change_the_gradient(remat, name, axes, one, make_mesh):
    config = dataclasses.replace(MODELS[name], remat=remat, scan=remat != "full")
    np.testing.assert_allclose(measured(config, axes, make_mesh), one(name), rtol=1e-5)
