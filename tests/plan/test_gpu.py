"""Attention on GPUs: where documents begin, and each kernel compiled for GPUs that are not there.

The tests marked slow need JAX's CUDA plugin.
"""

import importlib.util
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.model import cudnn_attention, kernels
from jaxtrain.model.config import ModelConfig, seen_keys
from jaxtrain.model.float8 import Float8
from jaxtrain.model.layers import contract
from jaxtrain.model.transformer import Transformer
from jaxtrain.plan import compiler, hardware, hlo
from jaxtrain.plan.program import Memory, Program
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH, MeshConfig

WITH_PLUGIN = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("jax_plugins") and importlib.util.find_spec("jax_plugins.xla_cuda13")),
        reason="needs JAX's CUDA plugin: pip install -e '.[cuda]'",
    ),
]


@pytest.mark.parametrize("segments", [[[1, 1, 2, 3, 0, 0], [4, 4, 4, 4, 4, 5]], [[1] * 6, [2] * 6]])
def test_cudnn_is_told_where_each_document_begins(segments: list[list[int]]) -> None:
    """Against a loop: documents are counted through all rows, and padding is one."""
    segments_BT = np.array(segments)
    B, T = segments_BT.shape
    starts, number, place = [], np.zeros((B, T), int), np.zeros((B, T), int)
    for b in range(B):
        for t in range(T):
            if t == 0 or segments_BT[b, t] != segments_BT[b, t - 1]:
                starts.append(b * T + t)
            number[b, t], place[b, t] = len(starts) - 1, b * T + t - starts[-1]
    shortest, cudnn_attention.SHORTEST = cudnn_attention.SHORTEST, 1
    try:
        found = cudnn_attention.documents(jnp.asarray(segments_BT), 1)
        # places of queries this wide do not fit in int32
        assert not cudnn_attention.documents(jnp.asarray(segments_BT), 2**31 // (B * T) + 1).fit
    finally:
        cudnn_attention.SHORTEST = shortest
    assert found.starts_X.tolist() == starts + [B * T] * (B * (T + 1) - len(starts))
    np.testing.assert_array_equal(found.number_BT, number)
    np.testing.assert_array_equal(found.place_BT, place)
    assert found.fit and not cudnn_attention.documents(jnp.arange(B * T).reshape(B, T), 1).fit


def made(f, mesh, *shapes):
    """Compiled for one device of the mesh."""
    arrays = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(BATCH))) for shape, dtype in shapes
    ]
    with jax.set_mesh(mesh):
        return jax.jit(f).lower(*arrays).compile(compiler_options={"xla_gpu_autotune_level": 0})


def one_of(chip: str):
    topology = hardware.parse(f"{chip}:1")
    compiler.environment(topology)
    return meshes.make(MeshConfig(), compiler.devices(topology))


class TestCompiled:
    pytestmark = WITH_PLUGIN

    @pytest.mark.parametrize(
        ("chip", "change", "kernel"),
        [
            ("h100", {}, "cudnn"),
            ("h200", {"kv_heads": 2}, "cudnn"),
            ("b200", {"window": 256}, "cudnn"),
            ("h100", {"head_dim": 256, "heads": 4, "kv_heads": 1, "window": 512}, "cudnn"),
            ("a100", {}, "pallas"),
            ("a100", {"window": 256}, "blocks"),
            ("h100", {"attention_softcap": 50.0}, "blocks"),
        ],
    )
    def test_attention_of_packed_rows(self, chip: str, change: dict, kernel: str) -> None:
        """The kernel that is chosen, its FLOPs by the model's count, and no array of all pairs."""
        config = ModelConfig(
            **{"heads": 16, "kv_heads": 16, "head_dim": 128, "dtype": "bfloat16", "max_length": 2048} | change
        )
        B, T, N, K, H = 4, config.max_length, config.heads, config.kv_heads, config.head_dim
        mesh = one_of(chip)

        def loss(q, k, v, segments):
            slots = jnp.broadcast_to(jnp.arange(T), (B, T))
            sight = kernels.see(config, slots, segments, jnp.arange(T))[config.is_local[0]]
            assert sight.kernel == kernel
            return kernels.attend(q, k, v, sight, config, config.is_local[0]).astype(jnp.float32).sum()

        heads = [((B, T, n, H), jnp.bfloat16) for n in (N, K, K)]
        program = made(jax.grad(loss, (0, 1, 2)), mesh, *heads, ((B, T), jnp.int32))
        text = program.as_text()
        sizes = [math.prod(int(n) for n in dims.split(",") if n) for _, dims in hlo.ARRAY.findall(text)]
        assert max(sizes) <= B * N * T * T / 4
        if kernel == "cudnn":
            counted = 7 * 2 * B * N * T * H * seen_keys(T, config.window)
            found = hlo.flops(text)
            assert sum(n for name, n in found.items() if "cudnn" in name) == pytest.approx(counted)

    def test_a_small_model_step_is_counted(self) -> None:
        config = ModelConfig(dtype="bfloat16", max_length=1024, heads=4, kv_heads=2, head_dim=64)
        mesh = one_of("h100")
        with jax.set_mesh(mesh):
            model = meshes.abstract(lambda: Transformer(config, jax.random.key(0)), mesh)
            rows = jax.ShapeDtypeStruct(
                (8, 1024), jnp.int32, sharding=NamedSharding(mesh, P(BATCH, "context"))
            )
            step = jax.jit(jax.grad(lambda model, tokens, segments: model(tokens, segments).mean()))
            text = step.lower(model, rows, rows).compile(compiler_options={"xla_gpu_autotune_level": 0})
        done = sum(hlo.flops(text.as_text()).values())
        assert 0.97 < done / (8 * 1024 * config.flops_per_token()) < 1.10

    def test_8_bit_matmuls_multiply_codes(self) -> None:
        """A value and both its gradients: what each dot of the program reads."""
        mesh, cut = one_of("h100"), P(BATCH, None, "tensor")

        def both(x, w, g):
            value, back = jax.vjp(lambda x, w: contract("btd,df->btf", cut, x, Float8(w)), x, w)
            return value, back(g)

        specs = {(4, 512, 1024): P(BATCH), (1024, 2048): P("fsdp", "tensor"), (4, 512, 2048): cut}
        shapes = [
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, spec))
            for shape, spec in specs.items()
        ]
        with jax.set_mesh(mesh):
            step = jax.jit(both).lower(*shapes).compile(compiler_options={"xla_gpu_autotune_level": 0})
        text = step.as_text()
        types = dict(re.findall(r"%([\w.\-]+) = (\w+)\[", text))
        read = [[types[name] for name in pair] for pair in re.findall(r" dot\(%([\w.]+), %([\w.]+)\)", text)]
        assert sorted(map(sorted, read)) == [["f8e4m3fn", "f8e4m3fn"], *[["f8e4m3fn", "f8e5m2"]] * 2]

    @pytest.mark.parametrize(("chip", "kernel"), [("h100", "mosaic_gpu_v2"), ("a100", "dot")])
    def test_a_mixture_multiplies_a_row_once(self, chip: str, kernel: str) -> None:
        """One block of Mixtral's size, forward and gradients: its FLOPs and its memory on one GPU."""
        config = ModelConfig(
            vocab_size=512,
            layers=1,
            d_model=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            d_hidden=14336,
            experts=8,
            experts_per_token=2,
            dtype="bfloat16",
            max_length=4096,
            attention="cudnn" if chip == "h100" else "blocks",
        )
        mesh = one_of(chip)
        with jax.set_mesh(mesh):
            model = meshes.abstract(lambda: Transformer(config, jax.random.key(0)), mesh)
            rows = jax.ShapeDtypeStruct(
                (1, 4096), jnp.int32, sharding=NamedSharding(mesh, P(BATCH, "context"))
            )
            step = jax.jit(jax.grad(lambda model, tokens, segments: model(tokens, segments).mean()))
            made = compiler.compiled(
                Program(
                    name="step",
                    function=step,
                    arguments=(model, rows, rows),
                    memory=Memory(weights=0, optimizer=0, batch=0),
                    rows=1,
                )
            )
        found = made.flops
        experts = 3 * 2 * 3 * 4096 * 2 * 4096 * 14336
        assert found is not None and found[kernel] >= experts
        assert 0.97 < sum(found.values()) / (4096 * config.flops_per_token()) < 1.30
        assert made.memory.peak < 80e9
