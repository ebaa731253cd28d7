"""Checkpoints are restored bit for bit, onto any mesh."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtrain import fields
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


def flip(path: Path, at: int) -> None:
    """One bit of the byte at `at`."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << (at % 8)
    path.write_bytes(content)


def restored(folder: Path) -> tuple[int, int]:
    """The step that is restored, and the step that its `training` tree says."""
    target = on(MeshConfig(fsdp=8))
    with jax.set_mesh(target):
        checkpoints = Checkpoints(folder)
        step, model, training = checkpoints.restore(
            mesh.abstract(init_model, target), mesh.abstract(init_training, target)
        )
        checkpoints.close()
        assert bits(model) == bits(jax.jit(init_model)())
    return step, int(training["step"])


def test_one_flipped_byte_in_any_file_is_found_and_the_one_before_used(
    saved: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = saved(1, 2)
    files = [path.relative_to(whole) for path in (whole / "2").rglob("*") if path.is_file()]
    assert len(files) > 15 and Path("2/checksums.txt") in files
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        flip(folder / file, at=len((folder / file).read_bytes()) * 2 // 3)
        checkpoints = Checkpoints(folder)
        assert checkpoints.latest == 1, file
        checkpoints.close()
        told = capsys.readouterr().err
        assert "checkpoint of step 2 is corrupt" in told and "set aside as 2.corrupt" in told
        assert f"{file.relative_to('2')} was changed" in told
        if file.parts[1] == "model" or len(file.parts) == 2:
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            flip(folder / file, at=0)
            told = pytest.raises(UserError, match="checkpoint of step 2 .* is corrupt .* make it again")
            with told, jax.set_mesh(on(MeshConfig(fsdp=8))):
                checkpoint.load_model(folder, init_model)
        shutil.rmtree(folder)
    folder = shutil.copytree(whole, tmp_path / "last")
    flip(folder / "2" / "model" / "_METADATA", at=5)
    assert restored(folder) == (1, 1)


def test_missing_and_foreign_files_are_found(
    saved: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = saved(1, 2, 3)
    (whole / "3" / "model" / "_METADATA").unlink()
    (whole / "2" / "model" / "more").write_text("")
    with pytest.raises(
        UserError, match=r"no checkpoint in .* verifies \(step 3: model/_METADATA is missing; "
    ):
        Checkpoints(whole)
    assert sorted(path.name for path in whole.iterdir()) == ["2", "3"], (
        "nothing is set aside without a successor"
    )
    (whole / "2" / "model" / "more").unlink()
    assert restored(whole) == (2, 2)


def test_a_save_cut_short_behind_its_last_file_does_not_count(
    saved: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(1, 2)
    (folder / "2" / "checksums.txt").unlink()
    (folder / "3.orbax-checkpoint-tmp").mkdir()
    assert restored(folder) == (1, 1)
    assert "checkpoint of step 2 was cut short: removed" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["1"]


def test_the_best_and_every_so_many_stay(tmp_path: Path) -> None:
    numbers = [5.0, 1.0, 3.0, None, 2.0, 4.0, 6.0]
    with jax.set_mesh(on(MeshConfig(fsdp=8))):
        checkpoints = Checkpoints(tmp_path / "checkpoint", KeepConfig(last=2, every=3))
        for step, number in enumerate(numbers, 1):
            checkpoints.save(step, jax.jit(init_model)(), {"step": jnp.int32(step)}, number)
        checkpoints.close()
        assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["2", "3", "6", "7"]
    with pytest.raises(UserError, match="last is 1; it is at least 2"):
        fields.check(KeepConfig(last=1))


FULL_DISK = """
import resource, signal, sys
import jax, jax.numpy as jnp
from jaxtrain.runtime import mesh
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit fails as on a full disk
with jax.set_mesh(mesh.make(MeshConfig())):
    checkpoints = Checkpoints(sys.argv[1])
    weights = {"weight": jax.random.normal(jax.random.key(0), (512, 1024))}
    checkpoints.save(1, weights, {"step": jnp.int32(1)})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    checkpoints.save(2, weights, {"step": jnp.int32(2)})
    try:
        while True:
            checkpoints.check()  # as the loop does at every step
    except UserError as error:
        print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert re.match(
        rf"checkpoint of step 2 could not be written to {folder}: .*; checkpoints before it are untouched",
        ended.stdout,
    ), ended.stdout
    assert "no space is left" in ended.stdout and len(ended.stdout.splitlines()) == 1, ended.stdout
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest == 1
    checkpoints.close()
