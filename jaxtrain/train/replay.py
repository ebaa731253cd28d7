"""Silent corruption: the same step twice, the same weight on two devices, the same state a moment later.

Every few steps (a) the step is taken twice from the same inputs, (b) the replicas of every weight are
compared, (c) the state is compared with itself from the end of that step to the beginning of the next. A flip
in one execution shows in (a), in a replicated weight in (b), in a sharded weight at rest in (c). Costs, each
time: one more step, one more copy of the state in memory, four passes over it, and the host waits.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime.errors import UserError
from jaxtrain.train.state import TrainState

Take = Callable[[TrainState], tuple[TrainState, dict[str, Any]]]


class SilentCorruption(UserError):
    """A device gave wrong bits. The message names leaf, device and process."""


def checksums(tree: Any) -> np.ndarray:
    """uint32 [leaves, devices]: of what each device holds of each leaf; one flipped bit changes it.

    A sum of the words, each times an odd number of its place, modulo 2^32.
    """
    mesh = jax.sharding.get_mesh()
    return np.asarray(_checksums(mesh)(jax.tree.leaves(tree)))


@cache
def _checksums(mesh: Mesh) -> Callable[[list[jax.Array]], jax.Array]:
    everywhere = P(mesh.axis_names)

    def one(leaf: jax.Array) -> jax.Array:
        spec = jax.typeof(leaf).sharding.spec
        local = jax.shard_map(lambda x: _words(x)[None], in_specs=spec, out_specs=everywhere, check_vma=False)
        return jax.sharding.reshard(local(leaf), P(None))

    return jax.jit(lambda leaves: jnp.stack([one(leaf) for leaf in leaves]))


def _words(x: jax.Array) -> jax.Array:
    word = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, word).reshape(-1).astype(jnp.uint32)
    places = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(2) + jnp.uint32(1)
    return jnp.sum(bits * (places * jnp.uint32(2654435761)), dtype=jnp.uint32)


class Replay:
    """The check of every `every` steps; `verified` is the last step whose state passed."""

    def __init__(self, every: int, verified: int):
        self._every = every
        self._at_rest: tuple[int, np.ndarray] | None = None
        self.verified = verified

    def step(self, step: int, state: TrainState, take: Take) -> tuple[TrainState, dict[str, Any]]:
        """Take step number `step`, checking it where it is due.

        Errors: SilentCorruption.
        """
        due = self._every > 0 and step % self._every == 0
        if self._at_rest is not None or due:
            found = checksums(state)
            if self._at_rest is not None:
                (before, known), self._at_rest = self._at_rest, None
                _raise_differences(f"the state changed by itself after step {before}", state, known != found)
            self._compare_replicas(step - 1, state, found)
        if not due:
            return take(state)
        again, _ = take(jax.tree.map(jnp.copy, state))
        first = checksums(again)
        del again
        state, metrics = take(state)
        second = checksums(state)
        _raise_differences(
            f"step {step} taken twice from the same inputs gave different bits", state, first != second
        )
        self._compare_replicas(step, state, second)
        self._at_rest, self.verified = (step, second), step
        return state, metrics

    def _compare_replicas(self, step: int, state: TrainState, found: np.ndarray) -> None:
        """Of the devices with the same part of a leaf those that most others contradict, or all of them."""
        wrong = np.zeros(found.shape, bool)
        for row, leaf in enumerate(jax.tree.leaves(state)):
            for devices in _replicas(leaf.sharding, leaf.shape):
                seen = Counter(found[row, devices].tolist())
                if len(seen) > 1:
                    usual, count = seen.most_common(1)[0]
                    is_majority = 2 * count > len(devices)
                    wrong[row, devices] = (found[row, devices] != usual) | (not is_majority)
        _raise_differences(f"replicas of a weight differ after step {step}", state, wrong)

    def forget(self, step: int) -> None:
        """Another state comes next: the checkpoint of `step`."""
        self._at_rest, self.verified = None, step


@cache
def _replicas(sharding: Any, shape: tuple[int, ...]) -> list[list[int]]:
    """Places in the mesh of the devices that hold the same part."""
    order = {device: place for place, device in enumerate(sharding.mesh.devices.flat)}
    groups: dict[str, list[int]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        groups.setdefault(str(index), []).append(order[device])
    return [sorted(places) for places in groups.values() if len(places) > 1]


def _raise_differences(what: str, state: TrainState, differs: np.ndarray) -> None:
    if not differs.any():
        return
    devices, told = jax.sharding.get_mesh().devices.flat, []
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    for place in np.flatnonzero(differs.any(axis=0)):
        first, *others = np.flatnonzero(differs[:, place])
        device, more = devices[place], f" and {len(others)} more" if others else ""
        at = f"device {device.id} ({device.device_kind}, process {device.process_index})"
        told.append(f"{at}: {paths[first]}{more}")
    raise SilentCorruption(
        f"silent corruption: {what}: {'; '.join(told)}; take the device out of service and run the same "
        "command again"
    )
