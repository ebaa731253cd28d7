"""A small model on eight devices, and the artifacts of configs/tiny."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from adder_run import write_adder
from tiny_run import in_tiny, tiny

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig

__all__ = ["in_tiny", "tiny"]
MESHES = (MeshConfig(fsdp=8), MeshConfig(fsdp=4, tensor=2), MeshConfig(fsdp=1))
Init = Callable[[jax.Array], Any]


@pytest.fixture(scope="session")
def small() -> ModelConfig:
    return ModelConfig(
        vocab_size=64, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=64, max_length=32
    )


@pytest.fixture(scope="session")
def adder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that hardly knows how to add two digits, and all of the sums."""
    return write_adder(tmp_path_factory.mktemp("adder"))


@pytest.fixture(scope="session")
def placed() -> Callable[[Init], Any]:
    """`placed(init)`: `init(key)` on the mesh that is set, drawn once on one device (compiled fastest)."""
    weights: dict[str, Any] = {}

    def place(init: Init) -> Any:
        if (name := repr(init)) not in weights:
            with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
                weights[name] = jax.device_get(jax.jit(init)(jax.random.key(0)))
        shapes = meshes.abstract(lambda: init(jax.random.key(0)), jax.sharding.get_mesh())
        return jax.tree.map(lambda x, shape: jax.device_put(x, shape.sharding), weights[name], shapes)

    return place


@pytest.fixture
def eight() -> Iterator[jax.sharding.Mesh]:
    """The mesh fsdp 8, set."""
    with jax.set_mesh(mesh := meshes.make(MeshConfig(fsdp=8))):
        yield mesh


@pytest.fixture
def one() -> Iterator[jax.sharding.Mesh]:
    """A mesh of one device, set."""
    with jax.set_mesh(mesh := meshes.make(MeshConfig(), jax.devices()[:1])):
        yield mesh


@pytest.fixture
def on_meshes() -> Callable[..., list[Any]]:
    """`on_meshes(function)`: its results on each mesh of `MESHES`, as numpy."""

    def call(function: Callable[[], Any], kinds: tuple[MeshConfig, ...] = MESHES) -> list[Any]:
        found = []
        for kind in kinds:
            with jax.set_mesh(meshes.make(kind, jax.devices()[: kind.fsdp * kind.tensor])):
                found.append(jax.tree.map(np.asarray, jax.device_get(function())))
        return found

    return call
