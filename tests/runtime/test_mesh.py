"""The mesh over eight emulated devices."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig


def test_one_axis_takes_what_the_others_leave() -> None:
    mesh = meshes.make(MeshConfig(tensor=2))
    assert dict(mesh.shape) == {"data": 1, "stage": 1, "fsdp": 4, "expert": 1, "context": 1, "tensor": 2}
    assert dict(meshes.make(MeshConfig(data=2, fsdp=4)).shape)["data"] == 2
    assert meshes.make(MeshConfig(), jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MeshConfig(fsdp=3), "mesh fsdp 3 does not fit 8 devices; set one axis to -1"),
        (MeshConfig(tensor=3), "mesh fsdp 2 x tensor 3 does not fit 8 devices"),
        (MeshConfig(fsdp=16), "mesh fsdp 16 does not fit 8 devices"),
        (MeshConfig(fsdp=1), "mesh 1 does not fit 8 devices"),
        (MeshConfig(tensor=-1), "every axis is at least 1, and at most one may be -1"),
        (MeshConfig(tensor=0), "every axis is at least 1"),
        (MeshConfig(tensor=16), "mesh tensor 16 does not fit 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_one_line(config: MeshConfig, words: str) -> None:
    with pytest.raises(UserError) as error:
        meshes.make(config)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_axes_that_do_not_divide_a_torus_are_one_line() -> None:
    """JAX asks chips for their place alone before it makes a mesh of them."""
    chip = {"platform": "tpu", "device_kind": "TPU v6 lite", "core_on_chip": 0, "process_index": 0}
    places = [(x, y, 0) for x in range(16) for y in range(16)]
    chips = [SimpleNamespace(id=n, coords=place, **chip) for n, place in enumerate(places)]
    with pytest.raises(UserError, match="mesh fsdp 32 x expert 8 cannot be laid on the chips' torus"):
        meshes.make(MeshConfig(fsdp=32, expert=8), chips)


def test_a_batch_is_sharded_over_rows_and_sequence() -> None:
    mesh = meshes.make(MeshConfig(fsdp=4, context=2))
    tokens_BT = np.arange(8 * 6).reshape(8, 6)
    with jax.set_mesh(mesh):
        assert meshes.batch_rows() == 4
        batch = meshes.put_batch({"tokens": tokens_BT}, mesh)
    shards = batch["tokens"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 3)} and len(shards) == 8
    np.testing.assert_array_equal(batch["tokens"], tokens_BT)


def test_abstract_says_shapes_and_shardings_without_computing() -> None:
    mesh = meshes.make(MeshConfig(fsdp=4, tensor=2))

    def init() -> dict[str, jax.Array]:
        weight_DF = jnp.zeros((1 << 20, 1 << 20), out_sharding=P("fsdp", "tensor"))  # 4 TB, were it computed
        return {"weight": weight_DF, "step": jnp.int32(0)}

    with jax.set_mesh(mesh):
        tree = meshes.abstract(init, mesh)
    assert tree["weight"].sharding.spec == P("fsdp", "tensor") and tree["weight"].sharding.mesh == mesh
    assert tree["step"].sharding.spec == P() and tree["step"].dtype == jnp.int32


def test_a_bare_interpreter_gets_a_mesh_of_one_device() -> None:
    words = "import jax; from jaxtrain.runtime import mesh; mesh.ensure(); mesh.ensure();"
    words += "print(mesh.batch_rows(), jax.sharding.get_abstract_mesh().size, len(jax.devices()))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1 8\n"
