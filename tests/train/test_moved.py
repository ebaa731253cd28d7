"""A run moved to other devices, and a run shared between processes: the same batches and the same losses."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import train_run

SCRIPT = Path(__file__).parents[1] / "train_run.py"


def start(folder: Path, *words: str, devices: int, process: tuple[int, int, int] | None = None):
    """`train_run.py` with so many devices; process: (its number, how many, port of the first)."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    if process is not None:
        number, count, port = process
        environment |= {
            "JAXTRAIN_COORDINATOR": f"127.0.0.1:{port}",
            "JAXTRAIN_PROCESSES": str(count),
            "JAXTRAIN_PROCESS": str(number),
        }
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *words],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> list[str]:
    """What they said; each must have ended well."""
    told = [process.communicate()[1] for process in processes]
    for process, text in zip(processes, told, strict=True):
        assert process.returncode == 0, text
    return told


def losses(folder: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "kind" not in line]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return np.array([line["loss"] for line in lines])


def fed(folder: Path, process: int = 0) -> dict[str, str]:
    """Index to hash of the batches that a process was fed; the same index always gave the same."""
    pairs = [line.split() for line in (folder / f"batches-{process}.txt").read_text().splitlines()]
    assert len(dict(pairs)) == len({tuple(pair) for pair in pairs})
    return dict(pairs)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """60 steps on fsdp 8, a checkpoint every 20."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder, "--steps", "60", "--checkpoint-every", "20", devices=8))
    return folder


def heard(process: subprocess.Popen, step: int) -> str:
    """What it said until it told of the step, which needs `--log-every 1`; or until its end."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.match(rf"step +{step}/", line):
            break
    return "".join(lines)


def stop_after(process: subprocess.Popen, step: int) -> None:
    """SIGTERM once the step is told: it saves and ends with status 75."""
    told = heard(process, step)
    process.send_signal(signal.SIGTERM)
    told += process.communicate()[1]
    assert process.returncode == 75, told
    assert "SIGTERM: saved after step" in told and "the same command goes on" in told


def test_from_8_devices_to_4_to_1_and_from_fsdp_to_tensor(undisturbed, tmp_path):
    """SIGTERM twice on the way; 20 steps and more on each mesh, losses to 1e-5, batches bitwise."""
    words = ["--steps", "60", "--checkpoint-every", "20", "--log-every", "1"]
    stop_after(start(tmp_path, *words, devices=8), 20)
    first = len(losses(tmp_path))
    stop_after(start(tmp_path, *words, "--mesh", '{"fsdp": 2, "tensor": 2}', devices=4), first + 15)
    assert 20 <= first < len(losses(tmp_path)) < 60
    finish(start(tmp_path, *words, devices=1))
    np.testing.assert_allclose(losses(tmp_path), losses(undisturbed), rtol=1e-5)
    assert fed(tmp_path) == fed(undisturbed)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """The same run by two processes of four devices."""
    folder, port = tmp_path_factory.mktemp("shared"), free_port()
    words = ["--steps", "60", "--checkpoint-every", "20"]
    finish(*[start(folder, *words, devices=4, process=(number, 2, port)) for number in range(2)])
    return folder


def test_two_processes_of_four_devices_are_one_of_eight(undisturbed, shared):
    """Losses to 1e-6; each process read its half of every batch, and the halves are those of the whole."""
    np.testing.assert_allclose(losses(shared), losses(undisturbed), rtol=1e-6)
    for process, rows in enumerate((slice(0, 4), slice(4, 8))):
        hashes = fed(shared, process)
        assert len(hashes) == 60
        for index, digest in hashes.items():
            assert (
                digest
                == hashlib.sha256(train_run.whole_batch(int(index))["tokens"][rows].tobytes()).hexdigest()
            )


@pytest.mark.slow
def test_a_dead_process_ends_the_other_and_a_restart_goes_on(shared, tmp_path):
    """The second is killed after step 38; the first says so within a minute, with no save on the way down."""
    words = ["--steps", "60", "--checkpoint-every", "20", "--log-every", "1"]
    port = free_port()
    first, second = (start(tmp_path, *words, devices=4, process=(number, 2, port)) for number in range(2))
    told = heard(first, 38)  # the checkpoint of step 20 is whole by then
    second.kill()
    second.communicate()
    told += first.communicate(timeout=60)[1]
    assert first.returncode not in (0, None)
    ours = r"process 0 of 2 lost another process .*start all of them again"  # where a collective fails
    jaxs = r"Terminating process .* another task died"  # where one waits, until heartbeats were missed
    assert re.search(f"{ours}|{jaxs}", told), told
    assert [path.name for path in (tmp_path / "checkpoint").iterdir() if path.name.isdigit()] == ["20"]
    port = free_port()
    finish(*[start(tmp_path, *words, devices=4, process=(number, 2, port)) for number in range(2)])
    np.testing.assert_array_equal(losses(tmp_path), losses(shared))
