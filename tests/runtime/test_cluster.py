"""Which cluster each scheduler's environment tells of."""

import pytest

from jaxtrain.runtime.cluster import Cluster, find
from jaxtrain.runtime.errors import UserError


def test_a_process_on_its_own_is_no_cluster():
    assert find({"HOME": "/root", "SLURM_JOB_ID": "7"}) is None  # inside an allocation, but not a step
    assert find({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None
    assert find({"JAXTRAIN_RUN": "runs/tiny"}) is None, "of the notebooks"


def test_our_own_variables_come_first():
    own = {"JAXTRAIN_COORDINATOR": "10.0.0.1:1234", "JAXTRAIN_PROCESSES": "4", "JAXTRAIN_PROCESS": "3"}
    slurm = {
        "SLURM_STEP_NODELIST": "a[1-2]",
        "SLURM_JOB_ID": "1",
        "SLURM_PROCID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
    }
    assert find(own | slurm) == Cluster("flags", "10.0.0.1:1234", 4, 3)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node007", "node007"),
        ("node[003-010,020]", "node003"),
        ("gpu-a[12,14-16],gpu-b[1-2]", "gpu-a12"),
        ("login1,node[1-3]", "login1"),
    ],
)
def test_slurm(nodes, first):
    environment = {
        "SLURM_JOB_ID": "123456",
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_PROCID": "5",
    }
    assert find(environment) == Cluster("slurm", f"{first}:{8476 + 123456 % 4096}", 16, 5)


def test_kubernetes():
    """An indexed Job, and the second of two jobs of a JobSet."""
    environment = {
        "JOB_COMPLETION_INDEX": "1",
        "JOB_COORDINATOR": "pretrain-workers-0-0.pretrain",
        "JOB_PROCESSES": "8",
    }
    coordinator = "pretrain-workers-0-0.pretrain:8476"
    assert find(environment) == Cluster("kubernetes", coordinator, 8, 1)
    assert find(environment | {"JOB_FIRST_PROCESS": "4"}) == Cluster("kubernetes", coordinator, 8, 5)


def test_cloud_tpu():
    """Four workers of a slice; two slices of them."""
    environment = {"TPU_WORKER_HOSTNAMES": "t0,t1,t2,t3", "TPU_WORKER_ID": "2"}
    assert find(environment) == Cluster("tpu", "t0:8476", 4, 2)
    slices = {
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "first-slice:8080",
    }
    assert find(environment | slices) == Cluster("tpu", "first-slice:8476", 8, 6)


def test_what_is_missing_or_contradicts_is_named():
    with pytest.raises(UserError, match="flags: JAXTRAIN_PROCESSES is not set, but its siblings are"):
        find({"JAXTRAIN_COORDINATOR": "a:1"})
    own = {"JAXTRAIN_COORDINATOR": "a:1", "JAXTRAIN_PROCESSES": "4", "JAXTRAIN_PROCESS": "4"}
    with pytest.raises(UserError, match="process 4 of 4; count them from 0"):
        find(own)
