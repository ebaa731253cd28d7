"""A tiny model, batches of random tokens, and the meshes they are tried on."""

import math
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=64, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=48, max_length=32
    )


@pytest.fixture(scope="session")
def make_mesh() -> Callable[..., Mesh]:
    """`make_mesh(fsdp=4, tensor=2)`: a mesh of just as many devices."""

    def make(**axes: int) -> Mesh:
        sizes = MeshConfig(**{"fsdp": 1, **axes})
        return meshes.make(sizes, jax.devices()[: math.prod(axes.values())])

    return make


@pytest.fixture(scope="session")
def make_batch(config: ModelConfig) -> Callable[[int], dict[str, np.ndarray]]:
    """`make_batch(seed)`: [8, 32] two documents a row, a third of the targets without weight."""

    def make(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, config.vocab_size, (8, 33)).astype(np.int32)
        segments = np.repeat(np.array([[1] * 20 + [2] * 12], np.int32), 8, axis=0)
        return {
            "tokens": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "loss_weights": (rng.random((8, 32)) < 2 / 3).astype(np.float32),
            "segment_ids": segments,
            "positions": np.repeat(np.r_[0:20, 0:12][None].astype(np.int32), 8, axis=0),
        }

    return make
