"""Many hosts: how they join, wait for each other, and what any of them wishes."""

import itertools
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.distributed import global_state  # its barrier needs no device, and has no public name
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import cluster
from jaxtrain.runtime.cluster import Others
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is dead, and the others end."""
LONGEST_WAIT = 10 * 365 * 24 * 3600 * 1000  # milliseconds; what has died is found out by its heartbeat
_moments = itertools.count()


def join() -> Others:
    """Join the other processes, if the environment tells of any, before JAX's first computation."""
    found = cluster.find(os.environ)
    if found is not None and not jax.distributed.is_initialized():
        # else SIGTERM goes to a service of JAX's that nothing here asks, and ends no process
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            found.coordinator,
            found.processes,
            found.process,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            cluster_detection_method="deactivate",
        )
        if found.process == 0:
            say(f"{found.processes} processes ({found.scheduler})")
    return Others(global_state.process_id == 0, wait)


PEER_ERRORS = ("Gloo", "NCCL", "Connection", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")
"""Words in what a collective says when its other side is gone."""


def explain_lost_process(error: Exception) -> UserError | None:
    """What to do after a collective failed because another process died; None for any other error."""
    if global_state.client is None or not any(word in str(error) for word in PEER_ERRORS):
        return None
    return UserError(
        f"process {global_state.process_id} of {global_state.num_processes} lost another process "
        f"({str(error).splitlines()[0][:200]}); see that one's log. The last checkpoint stands: start all of "
        "them again"
    )


def wait(moment: str) -> None:
    """Until every process is at this moment, however long that takes; at once where there is one.

    Errors: UserError where another process died.
    """
    if global_state.client is None:
        return
    try:
        global_state.client.wait_at_barrier(f"{next(_moments)} {moment}", LONGEST_WAIT)
    except jax.errors.JaxRuntimeError as error:
        raise (explain_lost_process(error) or error) from error


def from_first(values: np.ndarray) -> np.ndarray:
    """The first process's values on all of them: what only one of them may find out, such as by running
    programs."""
    return values if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(values))


class Wishes:
    """What any process wishes, known to all of them at the same step: the step after it was said.

    A signal reaches one host, a clock runs on each; but all must save and stop after the same step. The
    wishes of a step travel as a small array beside it, and no host waits for another's.
    """

    def __init__(self) -> None:
        self._sent: jax.Array | None = None

    def exchange(self, *wishes: bool) -> tuple[bool, ...]:
        """Say this step's wishes; returns those of the step before (on one process: of this step)."""
        if jax.process_count() == 1:
            return wishes
        before, self._sent = self._sent, _any(np.array(wishes, np.int32))
        return (False,) * len(wishes) if before is None else tuple(bool(wish) for wish in np.asarray(before))


def _any(mine: np.ndarray) -> jax.Array:
    mesh = jax.sharding.get_mesh()
    rows = NamedSharding(mesh, P(mesh.axis_names))
    local = np.repeat(mine[None], len(mesh.local_devices), axis=0)
    return _maximum(jax.make_array_from_process_local_data(rows, local))


_maximum = jax.jit(partial(jnp.max, axis=0))
