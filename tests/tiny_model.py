"""A tiny model and the meshes it is tried on."""

import math
from collections.abc import Callable

import jax
import pytest
from jax.sharding import Mesh

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    """Two query heads a key head; odd enough that swapped axes cannot pass."""
    return ModelConfig(
        vocab_size=96, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=48, max_length=32
    )


@pytest.fixture(scope="session")
def make_mesh() -> Callable[..., Mesh]:
    """`make_mesh(fsdp=4, tensor=2)`: a mesh of just as many devices."""

    def make(**axes: int) -> Mesh:
        sizes = MeshConfig(**{"fsdp": 1, **axes})
        return meshes.make(sizes, jax.devices()[: math.prod(axes.values())])

    return make


@pytest.fixture(scope="session")
def draw(config: ModelConfig) -> Callable[[int], Transformer]:
    """`draw(seed)`: a model of fresh weights, compiled once a mesh."""
    init = jax.jit(lambda seed: Transformer(config, jax.random.key(seed)))
    return lambda seed=3: init(seed)
