"""Checkpoints are restored bit for bit, onto any mesh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import checkpoint, mesh
from jaxtrain.runtime.checkpoint import Checkpoints, KeepConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig

Tree = dict[str, Any]


def init_model() -> Tree:
    """Weights with awkward values: subnormals, both zeros, the largest float."""
    weight_DF = jax.random.normal(jax.random.key(0), (16, 24), out_sharding=P("fsdp", "tensor")) * 1e-3
    return {"weight": weight_DF, "scale": jnp.array([0.0, -0.0, 1e-45, 3.4028235e38])}


def init_training() -> Tree:
    return {
        "step": jnp.int32(7),
        "mean": jax.random.uniform(jax.random.key(1), (16,), out_sharding=P("fsdp")),
    }


def bits(tree: Tree) -> dict[str, bytes]:
    return {name: np.asarray(leaf).tobytes() for name, leaf in tree.items()}


def on(config: MeshConfig, devices: int = 8) -> Mesh:
    return mesh.make(config, jax.devices()[:devices])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """`saved(1, 2, keep=1)`: a folder of checkpoints of those steps, from a mesh of fsdp 8."""

    def save(*steps: int, keep: int = 2) -> Path:
        with jax.set_mesh(on(MeshConfig(fsdp=8))):
            checkpoints = Checkpoints(tmp_path / "checkpoint", KeepConfig(last=keep))
            for step in steps:
                checkpoints.save(
                    step, jax.jit(init_model)(), jax.jit(init_training)() | {"step": jnp.int32(step)}
                )
            checkpoints.close()
        return tmp_path / "checkpoint"

    return save


@pytest.mark.parametrize(
    ("config", "devices"),
    [(MeshConfig(fsdp=4, tensor=2), 8), (MeshConfig(fsdp=1), 1), (MeshConfig(fsdp=8), 8)],
)
def test_a_checkpoint_comes_back_bit_for_bit_on_another_mesh(
    saved: Callable[..., Path], config: MeshConfig, devices: int
) -> None:
    folder = saved(7)
    target = on(config, devices)
    with jax.set_mesh(target):
        expected = bits(jax.jit(init_model)()), bits(jax.jit(init_training)())
        checkpoints = Checkpoints(folder)
        step, model, training = checkpoints.restore(
            mesh.abstract(init_model, target), mesh.abstract(init_training, target)
        )
        checkpoints.close()
        alone = checkpoint.load_model(folder, init_model)
    assert step == 7 and (bits(model), bits(training)) == expected
    assert bits(alone) == expected[0]
    shards = {shard.data.shape for shard in model["weight"].addressable_shards}
    assert shards == {(16 // dict(target.shape)["fsdp"], 24 // config.tensor)}


def test_the_newest_are_kept(saved: Callable[..., Path]) -> None:
    folder = saved(1, 2, 3, keep=2)
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest == 3
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["2", "3"]


def test_a_new_folder_has_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    assert checkpoints.latest is None
    checkpoints.close()


def test_an_absent_or_empty_folder_is_one_line(tmp_path: Path) -> None:
    with jax.set_mesh(on(MeshConfig(fsdp=8))):
        with pytest.raises(UserError, match=r"no checkpoint folder .*nowhere; is its stage finished\?"):
            checkpoint.load_model(tmp_path / "nowhere", init_model)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"no complete checkpoint in .*empty"):
            checkpoint.load_model(tmp_path / "empty", init_model)
