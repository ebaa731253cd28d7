"""Many hosts: who they are, by the scheduler's environment. Without JAX.

One process a host. `find` looks for the coordinator in this order: our own variables, Slurm, Kubernetes
(JobSet or an indexed Job), Cloud TPU; none of them: one process. Launch files stand in `docs/scaling.md`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtrain.runtime.errors import UserError

PORT = 8476


@dataclass(frozen=True)
class Others:
    """Processes that make an artifact together; alone by default."""

    is_first: bool = True
    wait: Callable[[str], None] = lambda moment: None
    """Until all of them are at the moment that is named, however long that takes."""


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
    if not any(name.startswith(("JAXTRAIN_COORDINATOR", "JAXTRAIN_PROCESS")) for name in env):
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
