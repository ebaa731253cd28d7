"""One flipped bit, in memory for real: in a weight on one device, in one shard at rest, in one execution."""

import ctypes

import jax
import numpy as np
import pytest
from train_run import train_transformer

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.config import SafetyConfig, TrainConfig
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.replay import Replay, SilentCorruption, checksums
from jaxtrain.train.state import initializer
from jaxtrain.train.step import make_step


def flip_bit(leaf: jax.Array, device: int, bit: int) -> None:
    """Of the first word of what `device` holds of the leaf, in place; CPU devices' memory is ours."""
    (shard,) = [shard for shard in leaf.addressable_shards if shard.device.id == device]
    jax.block_until_ready(shard.data)
    ctypes.c_uint32.from_address(shard.data.unsafe_buffer_pointer()).value ^= 1 << bit


@pytest.fixture(scope="module")
def machine(config, make_mesh, make_batch):
    """Step and first state on data 2 x fsdp 2 x tensor 2: every weight has replicas."""
    optimizer = optimizers.make(OptimizerConfig(lr=1e-2, warmup_steps=2), steps=10)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        init = initializer(lambda key: Transformer(config, key), optimizer, seed=0)
        step = make_step(token_loss, optimizer)
        batch = meshes.put_batch(make_batch(0), mesh)
        yield jax.jit(init), lambda state: step(state, batch)


@pytest.mark.parametrize("bit", [0, 31])
def test_checksums_see_one_bit_on_one_device(machine, bit):
    init, _ = machine
    state = init()
    before = checksums(state)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    row = next(i for i, name in enumerate(names) if "up_DF" in name)
    flip_bit(jax.tree.leaves(state)[row], device=5, bit=bit)
    assert np.argwhere(checksums(state) != before).tolist() == [[row, 5]]
    flip_bit(jax.tree.leaves(state)[row], device=5, bit=bit)
    assert (checksums(state) == before).all()


def test_a_sound_run_passes_and_is_not_changed(machine):
    init, take = machine
    replay, state, plain = Replay(every=2, verified=0), init(), init()
    for step in range(1, 6):
        state, _ = replay.step(step, state, take)
        plain, _ = take(plain)
    assert replay.verified == 4
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_replicated_weight_that_differs_names_its_device(machine):
    init, take = machine
    replay, state = Replay(every=2, verified=0), init()
    state, _ = replay.step(1, state, take)
    flip_bit(state.model.blocks.mlp.up_DF[...], device=3, bit=7)
    with pytest.raises(
        SilentCorruption,
        match=r"replicas of a weight differ after step 1: device 3 .*process 0.*up_DF.*; device 7 ",
    ):
        replay.step(2, state, take)


def test_the_majority_of_replicas_is_right(machine):
    """A norm's scale is on all eight devices."""
    init, take = machine
    state = init()
    flip_bit(state.model.norm.scale[...], device=6, bit=1)
    with pytest.raises(SilentCorruption, match=r"after step 1: device 6 [^;]*scale[^;]*; take") as told:
        Replay(every=2, verified=0).step(2, state, take)
    assert str(told.value).count("device ") == 1 + str(told.value).count("take the device ")


def test_a_state_that_changes_at_rest_names_its_device(machine):
    """Between the end of a checked step and the beginning of the next."""
    init, take = machine
    replay, state = Replay(every=2, verified=0), init()
    for step in (1, 2):
        state, _ = replay.step(step, state, take)
    flip_bit(state.model.head_DV[...], device=6, bit=30)
    with pytest.raises(SilentCorruption, match=r"changed by itself after step 2: device 6 .*head_DV"):
        replay.step(3, state, take)


def test_an_execution_that_goes_wrong_names_its_device(machine):
    """The second execution's result has one bit flipped on device 1."""
    init, take = machine
    executions = []

    def faulty(state):
        after, metrics = take(state)
        executions.append(1)
        if len(executions) == 2:
            flip_bit(after.model.embedding_VD[...], device=1, bit=12)
        return after, metrics

    with pytest.raises(
        SilentCorruption, match=r"step 4 taken twice .* different bits: device 1 .*embedding_VD"
    ):
        Replay(every=4, verified=0).step(4, init(), faulty)


@pytest.fixture
def run(config, make_batch, tmp_path):
    """`run(folder, **safety)`: twelve steps, a check every second, a checkpoint every fourth.

    In the evaluation of step 6 a bit of the head flips on device 2, the first `flips` times.
    """

    def start(name, flips, **safety):
        left = [None] * flips

        def evaluate(model, step):
            if step == 6 and left:
                left.pop()
                flip_bit(model.head_DV[...], device=2, bit=20)
            return {}

        settings = TrainConfig(
            optimizer=OptimizerConfig(lr=1e-2, warmup_steps=2),
            mesh=MeshConfig(fsdp=4, tensor=2),
            steps=12,
            evaluate_every=3,
            checkpoint_every=4,
            safety=SafetyConfig(replay_every=2, **safety),
        )
        (tmp_path / name).mkdir(exist_ok=True)
        batches = lambda start, stop: map(make_batch, range(start, stop))  # noqa: E731
        return train_transformer(tmp_path / name, settings, config, batches, evaluate=evaluate).state

    return start


def test_a_run_stops_or_goes_on_from_the_last_sound_checkpoint(run, tmp_path, capsys):
    sound = run("sound", 0)
    with pytest.raises(SilentCorruption, match="changed by itself after step 6: device 2"):
        run("stopped", 1)
    state = run("gone back", 1, on_corruption="roll back")
    assert "device 2" in (told := capsys.readouterr().err) and "back to step 4, next batch 4" in told
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(sound), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(SilentCorruption):
        run("again and again", 2, on_corruption="roll back")
