"""Many hosts: who they are, by the scheduler's environment, and what any of them wishes.

One process a host. `initialize()` finds the coordinator in this order: our own variables, Slurm, Kubernetes
(JobSet or an indexed Job), Cloud TPU; none of them: one process. Launch files stand in `docs/scaling.md`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

PORT = 8476
HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is dead, and the others end."""


@dataclass(frozen=True)
class Cluster:
    """What `jax.distributed.initialize` has to know."""

    scheduler: str
    coordinator: str
    """host:port of process 0"""
    processes: int
    process: int


def find(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that the environment tells of; None for a process on its own.

    Errors: UserError where a scheduler's variables contradict or lack one another.
    """
    for scheduler, reads in (
        ("flags", _flags),
        ("slurm", _slurm),
        ("kubernetes", _kubernetes),
        ("tpu", _tpu),
    ):
        try:
            found = reads(environment)
        except KeyError as missing:
            raise UserError(f"{scheduler}: {missing.args[0]} is not set, but its siblings are") from missing
        if found is not None:
            coordinator, processes, process = found
            if not 0 <= process < processes:
                raise UserError(f"{scheduler}: process {process} of {processes}; count them from 0")
            return Cluster(scheduler, coordinator, processes, process) if processes > 1 else None
    return None


Found = tuple[str, int, int] | None


def _flags(env: Mapping[str, str]) -> Found:
    if not any(name.startswith("JAXTRAIN_") for name in env):
        return None
    return env["JAXTRAIN_COORDINATOR"], int(env["JAXTRAIN_PROCESSES"]), int(env["JAXTRAIN_PROCESS"])


def _slurm(env: Mapping[str, str]) -> Found:
    """A job step (`srun`), one task a node."""
    if "SLURM_STEP_NODELIST" not in env:
        return None
    port = PORT + int(env["SLURM_JOB_ID"]) % 4096  # two jobs may share a node
    first = _first_node(env["SLURM_STEP_NODELIST"])
    return f"{first}:{port}", int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_PROCID"])


def _first_node(nodes: str) -> str:
    """node[003-010,20],other -> node003"""
    match = re.match(r"([^\[,]+)(?:\[([^\]]+)\])?", nodes)
    if match is None:
        raise UserError(f"slurm: SLURM_STEP_NODELIST {nodes!r} names no node")
    return match[1] + (re.split(r"[,-]", match[2])[0] if match[2] else "")


def _kubernetes(env: Mapping[str, str]) -> Found:
    """An indexed Job; the manifest names the coordinator and the number of processes beside the index."""
    if "JOB_COMPLETION_INDEX" not in env or "JOB_COORDINATOR" not in env:
        return None
    host = env["JOB_COORDINATOR"]
    return (
        host if ":" in host else f"{host}:{PORT}",
        int(env["JOB_PROCESSES"]),
        int(env["JOB_COMPLETION_INDEX"]) + int(env.get("JOB_FIRST_PROCESS", "0")),
    )


def _tpu(env: Mapping[str, str]) -> Found:
    """Workers of a pod slice; several slices are told by their MEGASCALE variables."""
    hosts = [host for host in env.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    slices = int(env.get("MEGASCALE_NUM_SLICES", "1"))
    if not hosts or len(hosts) * slices == 1:
        return None
    process = int(env["TPU_WORKER_ID"])
    first = hosts[0]
    if slices > 1:
        first = env["MEGASCALE_COORDINATOR_ADDRESS"].split(":")[0]
        process += int(env["MEGASCALE_SLICE_ID"]) * len(hosts)
    return f"{first}:{PORT}", len(hosts) * slices, process


def initialize() -> None:
    """Join the other processes, if the environment tells of any; once, before JAX's first computation."""
    cluster = find(os.environ)
    if cluster is None or jax.distributed.is_initialized():
        return
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.process,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        cluster_detection_method="deactivate",
    )
    if cluster.process == 0:
        say(f"{cluster.processes} processes ({cluster.scheduler}), {jax.device_count()} devices")


PEER_ERRORS = ("Gloo", "NCCL", "Connection", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")
"""Words in what a collective says when its other side is gone."""


def explain_lost_process(error: Exception) -> UserError | None:
    """What to do after a collective failed because another process died; None for any other error."""
    if jax.process_count() == 1 or not any(word in str(error) for word in PEER_ERRORS):
        return None
    return UserError(
        f"process {jax.process_index()} of {jax.process_count()} lost another process "
        f"({str(error).splitlines()[0][:200]}); see that one's log. The last checkpoint stands: start all of "
        "them again"
    )


def wait(moment: str) -> None:
    """Until every process is at this moment; at once where there is one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(moment)


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


@jax.jit
def _maximum(wishes: jax.Array) -> jax.Array:
    return jnp.max(wishes, axis=0)
