"""`kill -9` at random moments, several of them inside a save: no step is lost and none is changed."""

import json
import multiprocessing
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import train_run

STEPS, KILLS = 96, 20
MOMENTS = ["step"] * 12 + ["save"] * 5 + ["start"] * 3


class Runs:
    """Runs in processes of their own, forked from one that has imported everything and started nothing."""

    def __init__(self):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["train_run", "orbax.checkpoint.v1"])

    def start(self, folder: Path):
        mesh = '{"data": 2, "fsdp": 2, "tensor": 2}'
        words = [str(folder), "--steps", str(STEPS), "--checkpoint-every", "6", "--mesh", mesh]
        process = self._context.Process(target=train_run.run, args=(folder, train_run.arguments(words)))
        process.start()
        return process


@pytest.fixture(scope="module")
def runs():
    return Runs()


def kill_when(process, is_moment: Callable[[], bool]) -> bool:
    """Kill at the first moment that is one; False where the process ended before."""
    while process.is_alive() and not is_moment():
        process.join(0.001)
    process.kill()
    process.join()
    return process.exitcode == -9


def lines(folder: Path) -> list[dict]:
    """Steps and evaluations without their times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in found if line.get("kind") != "speed"]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def last_step(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_text().count('"loss"') if log.exists() else 0


@pytest.mark.slow
def test_twenty_kills_change_nothing(runs, tmp_path):
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    process = runs.start(undisturbed)
    process.join()
    assert process.exitcode == 0
    rng = random.Random(0)
    moments = rng.sample(MOMENTS, KILLS)
    inside = 0
    for moment in moments:
        process = runs.start(folder)
        reached = last_step(folder)
        if moment == "step":
            target = reached + rng.randint(1, 4)
            killed = kill_when(process, lambda target=target: last_step(folder) >= target)
        elif moment == "save":
            temporary = lambda: any(folder.glob("checkpoint/*tmp*"))  # noqa: E731
            killed = kill_when(process, temporary)
            inside += temporary()
        else:
            process.join(rng.uniform(0.0, 1.0))
            killed = kill_when(process, lambda: True)
        assert killed, f"{moment}: the run was over before it could be killed"
    process = runs.start(folder)
    process.join()
    assert process.exitcode == 0
    assert inside >= 3, "several kills fell inside a save"
    assert lines(folder) == lines(undisturbed)
    assert [line["step"] for line in lines(folder) if "kind" not in line] == list(range(1, STEPS + 1))
    with np.load(undisturbed / "weights.npz") as wanted, np.load(folder / "weights.npz") as found:
        assert sorted(wanted) == sorted(found)
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)
    fed = dict(line.split() for line in (folder / "batches-0.txt").read_text().splitlines())
    assert fed == dict(line.split() for line in (undisturbed / "batches-0.txt").read_text().splitlines())
