"""Programs for TPUs that are not there, compiled by libtpu; minutes each, and skipped without it."""

import importlib.util
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain import config as configs
from jaxtrain.model import kernels
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import Rule
from jaxtrain.model.transformer import Transformer
from jaxtrain.plan import compiler, hardware, search, work
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH, MeshConfig

CONFIGS = Path(__file__).parents[2] / "configs"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
    ),
]


@pytest.fixture(autouse=True, scope="module")
def _environment() -> None:
    compiler.environment(hardware.parse("v5e:2x2"))


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize(("bound", "window"), [(0.0, 0), (30.0, 512)])
def test_splash_and_its_gradient_compile(topology: str, bound: float, window: int) -> None:
    """Packed rows, on fsdp 2 x tensor 2, with and without soft-cap and window."""
    mesh = meshes.make(MeshConfig(fsdp=2, tensor=2), compiler.devices(hardware.parse(topology)))
    heads, rows = P(BATCH, "context", "tensor", None), P(BATCH, "context")
    shapes = [
        jax.ShapeDtypeStruct((4, 2048, n, 128), jnp.bfloat16, sharding=NamedSharding(mesh, heads))
        for n in (8, 4, 4)
    ]
    segments = jax.ShapeDtypeStruct((4, 2048), jnp.int32, sharding=NamedSharding(mesh, rows))

    def loss(q, k, v, segments):
        local = partial(kernels.splash, Rule(0.1, bound, window))
        return (
            meshes.per_device(local, (heads, heads, heads, rows), heads, check=False)(q, k, v, segments)
            .astype(jnp.float32)
            .sum()
        )

    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes, segments).compile()
    assert len(re.findall(r'custom_call_target="tpu_custom_call"', compiled.as_text())) >= 2
    pairs = 2 * 4 * 2048 * 2048  # of a device's rows and heads; a byte each is less than they take
    assert compiled.memory_analysis().temp_size_in_bytes < pairs


@pytest.mark.parametrize(
    "changes", [{"layers": 4}, {"layers": 8, "scan": False}], ids=["one repetition", "unrolled"]
)
def test_a_stage_gathers_in_its_turns(changes: dict[str, Any]) -> None:
    """No matrix of a block is gathered before the turns, where no loop over layers holds the gathers back."""
    config = ModelConfig(vocab_size=256, d_model=256, d_hidden=512, window=64, global_every=2, **changes)
    mesh = meshes.make(MeshConfig(stage=2, fsdp=2, tensor=2), compiler.devices(hardware.parse("v5p:2x2x2")))
    rows = jax.ShapeDtypeStruct((16, 128), jnp.int32, sharding=NamedSharding(mesh, P(BATCH, "context")))
    with jax.set_mesh(mesh):
        model = meshes.abstract(lambda: Transformer(config, jax.random.key(0)), mesh)
        step = jax.jit(jax.grad(lambda model, tokens: model(tokens).mean()))
        inside, entry = step.lower(model, rows).compile().as_text().split("\nENTRY ")
    of_matmuls = re.compile(r"all-gather(?:-start)?\(.*/while/body/.*dot_general")
    assert of_matmuls.search(inside) and not of_matmuls.search(entry)


@pytest.mark.parametrize(
    ("name", "topology", "filled"),
    [
        ("gpt2_124m", "v5e:2x2", 0.1),  # 192 columns of a device lie in 256
        ("gpt_1b", "v5e:4x4", 0),
        ("llama3_8b", "v5e:16x16", 0),
        ("llama3_70b", "v5p:8x8x8", 0),
        ("qwen3_moe", "v5p:4x4x4", 0),
        ("deepseek_v3", "v5p:8x8x8", 0),
        ("gpt_oss", "v6e:16x16", 0.1),
        ("gpt_oss/5_finetune_lora.py", "v6e:8x8", 0.1),  # 2,880 columns, cut over 8
    ],
)
def test_configs_compile_and_fit(name: str, topology: str, filled: float) -> None:
    """filled: the share that arrays take more in memory, where their rows do not fill whole tiles."""
    path = CONFIGS / name if name.endswith(".py") else CONFIGS / name / "1_pretrain.py"
    config = configs.load(path)
    shape = work.shape_of(config, path.parent)
    found = search.compiled(search.measured(config, shape, hardware.parse(topology)))
    memory = found.memory
    assert found.fits, f"{memory.total / 2**30:.1f} GiB"
    assert memory.arguments == pytest.approx(memory.state, rel=filled, abs=64 * 1024)
    assert all(one.axes for one in found.step.traffic)


def test_a_request_that_does_not_fit_is_answered_with_one_that_compiles() -> None:
    config = configs.load(CONFIGS / "gpt_1b" / "1_pretrain.py")
    asked = configs.override(config, ["--train.microbatches", "1", "--model.remat", "none"])
    found, why = search.answered(asked, asked.model, hardware.parse("v5e:2x4"))
    assert "GiB are needed" in why and found.compiled and found.fits and found.changes


def test_two_slices_send_gradients_alone_over_the_slow_network() -> None:
    config = configs.load(CONFIGS / "gpt2_124m" / "1_pretrain.py")
    asked = configs.override(config, ["--train.mesh.data", "2", "--train.mesh.fsdp", "-1"])
    found = search.compiled(search.measured(asked, asked.model, hardware.parse("v5e:2x2", slices=2)))
    crossing = [one for one in found.step.traffic if "data" in one.axes]
    assert {one.kind for one in crossing} <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert sum(one.sent for one in crossing) < 3 * found.memory.weights
