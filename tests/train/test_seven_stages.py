"""What every stage that trains promises, tried on all seven: killed, stopped, poisoned, moved, shared.

GRPO, which needs no recipe before it and samples as well as learns, stands for all in a quick run.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from adder_run import write_adder
from run_lines import lines
from stage_run import STAGES, STEPS, Fault, Inputs, config, finish, run_here, run_recipe, share, start
from tiny_run import tiny, workplace

from jaxtrain import artifact
from jaxtrain.align import reward_model
from jaxtrain.report import runs
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.signals import STOPPED, Stopped
from jaxtrain.weights import folder as store

__all__ = ["tiny"]
QUICK = "grpo"
KILLS = (
    Fault("kill", 1),
    Fault("kill in save", 2),
    Fault("kill", 4),
    Fault("kill in save", 5),
    Fault("kill", 7),
)
every_stage = pytest.mark.parametrize(
    "stage", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in STAGES if name != QUICK)]
)


@pytest.fixture(scope="module")
def inputs(request, tmp_path_factory) -> Callable[[str], Inputs]:
    """What a stage reads; the recipe is run for those alone that need it."""
    adder = write_adder(tmp_path_factory.mktemp("adder"))

    def of(stage: str) -> Inputs:
        recipe = Path() if stage == "grpo" else request.getfixturevalue("tiny") / "runs" / "tiny"
        return Inputs(recipe, adder)

    return of


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory) -> Callable[[str], Path]:
    """The finished artifact of a stage's run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    return cache(lambda stage: run_here(config(stage, inputs(stage), folder / stage)))


@pytest.fixture
def settings(inputs, tmp_path) -> Callable[..., Any]:
    return lambda stage, name="out", mesh=None: config(stage, inputs(stage), tmp_path / name, mesh)


def steps(folder: Path) -> list[dict[str, Any]]:
    """Their lines; each step is there once."""
    found = lines(folder, None)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    return found


def weights(stage: str, folder: Path) -> list[np.ndarray]:
    """As later stages load them."""
    load = reward_model.load if stage == "reward" else store.load
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        return jax.device_get(jax.tree.leaves(load(folder)))


def assert_same(stage: str, folder: Path, wanted: Path) -> None:
    """Every line but its time, and every weight, bit for bit."""
    assert lines(folder) == lines(wanted)
    steps(folder)
    for found, value in zip(weights(stage, folder), weights(stage, wanted), strict=True):
        np.testing.assert_array_equal(found, value)


def assert_near(folder: Path, wanted: Path, tolerance: float) -> None:
    """Numbers of every step and evaluation; a token sampled otherwise would show in them."""
    ours, theirs = (lines(path, None, "heldout", "round") for path in (folder, wanted))
    for line, other in zip(ours, theirs, strict=True):
        assert line.keys() == other.keys()
        for name in line:
            # how many log-probabilities are equal to the bit is another number in another layout
            if name not in ("kind", "mismatch_none"):
                np.testing.assert_allclose(line[name], other[name], tolerance, tolerance, err_msg=name)


@every_stage
def test_the_log_says_how_it_learns_and_how_fast(stage, straight):
    for line in steps(straight(stage)):
        assert np.isfinite([line["loss"], line["grad_norm"]]).all() and line["learning_rate"] > 0
        assert line["accepted"]
    written = (straight(stage) / "metrics.jsonl").read_text().splitlines()
    speed = [line for line in map(json.loads, written) if line.get("kind") == "speed"]
    assert [line["step"] for line in speed] == [4, 8] and all(line["mfu"] > 0 for line in speed)


@every_stage
def test_its_artifact_alone_is_a_page(stage, straight, tmp_path):
    page = runs.report(runs.PagesConfig(runs=(str(straight(stage)),), out=str(tmp_path)))
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["run"]["fingerprints"]) == [stage]
    assert stage in {**results, **results["trained"]} and "<svg" in page.read_text()


@every_stage
def test_five_kills_change_nothing(stage, straight, settings):
    """Between steps, within rounds of sampling, and while checkpoints are written."""
    wanted, killed = straight(stage), settings(stage)
    for fault in KILLS:
        finish(start(run_here, killed, fault), status=-9)
    finish(start(run_here, killed))
    assert_same(stage, Path(killed.out), wanted)


@every_stage
def test_a_stopped_run_saves_and_goes_on(stage, straight, settings):
    with pytest.raises(Stopped) as stopped:
        run_here(settings(stage), Fault("stop", 4))
    assert stopped.value.code == STOPPED
    assert_same(stage, run_here(settings(stage)), straight(stage))


@every_stage
def test_poison_is_refused_and_kept_and_does_no_harm(stage, straight, settings):
    """NaN and 1e9 leave the same run, whose steps before are those of the healthy one."""
    ends = {}
    for kind in ("nan", "1e9"):
        folder = run_here(settings(stage, kind), Fault(kind, 3))
        assert [line["step"] for line in steps(folder) if not line["accepted"]] == [4]
        assert steps(folder)[:3] == steps(straight(stage))[:3]
        (kept,) = (folder / "incidents").iterdir()
        assert json.loads((kept / "incident.json").read_text())["batch"] == 3
        with np.load(kept / "process-0.npz") as batch:
            assert "tokens" in batch
        ends[kind] = weights(stage, folder)
    for one, other in zip(*ends.values(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()


@every_stage
def test_too_little_memory_is_one_line(stage, settings):
    with pytest.raises(UserError, match="out of memory: the step needs .* GiB a device") as told:
        run_here(settings(stage), Fault("memory"))
    assert "\n" not in str(told.value)


@every_stage
def test_two_processes_of_four_devices_are_one_of_eight(stage, straight, settings):
    shared = settings(stage)
    finish(*share(run_here, shared))
    assert_near(Path(shared.out), straight(stage), 1e-6)
    counts = [artifact.read_manifest(folder)["counts"] for folder in (Path(shared.out), straight(stage))]
    assert counts[0]["steps"] == counts[1]["steps"] and counts[0].keys() == counts[1].keys()


@every_stage
def test_from_8_devices_to_1_to_fsdp_and_tensor(stage, straight, settings):
    """The second stop is within a round of sampling, whose rows are stored."""
    finish(start(run_here, settings(stage), Fault("stop", 3)), status=STOPPED)
    finish(start(run_here, settings(stage), Fault("stop", 5), devices=1), status=STOPPED)
    moved = settings(stage, mesh=MeshConfig(fsdp=4, tensor=2))
    finish(start(run_here, moved))
    assert_near(Path(moved.out), straight(stage), 1e-5)


@pytest.mark.slow
def test_a_recipe_on_two_processes_is_that_of_one(tiny, tmp_path):
    """Data bit for bit, counts the same; of what is trained the numbers to a thousandth."""
    folder = workplace(tmp_path / "recipe")
    finish(*share(run_recipe, folder))
    made = sorted((tiny / "runs" / "tiny").iterdir())
    assert [path.name for path in made] == sorted(path.name for path in (folder / "runs" / "tiny").iterdir())
    for wanted in made:
        ours, theirs = (
            artifact.read_manifest(folder / "runs" / "tiny" / wanted.name),
            artifact.read_manifest(wanted),
        )
        is_data = wanted.name in ("1_collect", "2_clean", "3_tokenize")
        assert not is_data or ours["files"] == theirs["files"]
        (names, values), (same_names, same_values) = _numbers(ours["counts"]), _numbers(theirs["counts"])
        assert names == same_names
        np.testing.assert_allclose(values, same_values, 1e-3, 1e-3, err_msg=wanted.name)


def _numbers(counts: dict[str, Any]) -> tuple[list[str], list[float]]:
    leaves = jax.tree_util.tree_leaves_with_path(counts)
    numbers = [(str(path), float(x)) for path, x in leaves if isinstance(x, (int, float))]
    return [path for path, _ in numbers], [x for _, x in numbers]
