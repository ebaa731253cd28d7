"""`jaxtrain run configs/tiny`: all ten stages on real documents, run again, changed, and killed."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CONFIGS, runs, tiny, workplace

import jaxtrain
from jaxtrain import artifact, manifest, pipeline
from jaxtrain import config as configs
from jaxtrain.align import reward_model
from jaxtrain.evaluate.run import run as evaluate
from jaxtrain.runtime import compiled
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.weights import folder as store

__all__ = ["tiny"]
STAGES = [path.stem for path in pipeline.config_files(CONFIGS)]
TRAINED = ["4_pretrain", "5_finetune", "7_reward", "8_ppo"]
DATA = ["1_collect", "2_clean", "3_tokenize", "6_rate", "9_evaluate"]


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file of an artifact but what it cost."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != artifact.COST
    }


def test_ten_artifacts_stand_whole_and_nothing_else(tiny):
    assert len(STAGES) == 10
    assert {path.name for path in runs(tiny).iterdir()} == set(STAGES)
    for name in STAGES:
        made = artifact.read_manifest(runs(tiny) / name)
        assert made is not None
        assert made["stage"] in name or made["stage"] == "align"
        assert (made["artifacts"] == []) == (name == "1_collect")
        stated = {file: entry["sha256"] for file, entry in made["files"].items()}
        found = contents(runs(tiny) / name)
        del found[artifact.MANIFEST]
        assert found == stated, name
        assert ("tensorboard/events.out.tfevents.00000" in found) == (name in TRAINED), name


def test_the_numbers_of_a_run_hang_together(tiny):
    counts = {
        name: json.loads((runs(tiny) / name / "manifest.json").read_text())["counts"] for name in STAGES
    }
    funnel = json.loads((runs(tiny) / "2_clean" / "funnel.json").read_text())
    for source, of in funnel.items():
        collected = counts["1_collect"][source]
        assert of["in"] == collected.get("documents", collected.get("conversations"))
        assert of["in"] == of["kept"] + of["heldout"] + sum(of["dropped"].values())
    kinds = ("documents", "heldout")
    for source in ("web", "code"):
        encoded = [counts["3_tokenize"][kind][source]["records"] for kind in kinds]
        assert encoded == [funnel[source]["kept"], funnel[source]["heldout"]]
    assert counts["6_rate"]["tasks"] == 64
    assert counts["6_rate"]["judgements"] == 80 == counts["6_rate"]["train"] + counts["6_rate"]["heldout"]
    pairs = counts["7_reward"]["pairs_train"] + counts["7_reward"]["pairs_heldout"]
    assert pairs == 80 * 6, "four answers are six pairs, and noise leaves no ties"
    results = json.loads((runs(tiny) / "9_evaluate" / "results.json").read_text())
    trained = next(
        row for row in results["heldout"] if (row["model"], row["source"]) == ("pretrained", "all")
    )
    assert (
        trained["bits_per_byte"] < np.log2(1024) / counts["3_tokenize"]["heldout"]["web"]["bytes_per_token"]
    )
    page = (runs(tiny) / "10_report" / "report.html").read_text()
    assert f"{trained['bits_per_byte']:.3f}" in page


def test_training_lowers_the_loss_in_every_stage(tiny):
    for name in ("4_pretrain", "5_finetune"):
        losses = [line["loss"] for line in metrics(runs(tiny) / name) if "kind" not in line]
        assert losses[-1] < losses[0] - 0.1, name


OUTPUTS = Path(__file__).with_name("outputs.json")
# the last two learn from what was sampled by the weights of the stages before
TOLERANCE = {"4_pretrain": 1e-6, "5_finetune": 1e-6, "7_reward": 1e-4, "8_ppo": 1e-3}
RENEW = "RENEW=1 .venv/bin/python -m pytest -n 0 tests/test_end_to_end.py -k same_version"


def output(folder: Path) -> dict[str, Any]:
    """What a stage made, and its VERSION: a hash of each file's content, or the losses of its first steps."""
    made = artifact.read_manifest(folder)
    assert made is not None
    found: dict[str, Any] = {"version": made["version"]}
    if folder.name in TRAINED:
        return found | {"loss": [line["loss"] for line in metrics(folder) if "kind" not in line][:4]}
    found["files"] = {}
    for file in sorted(made["files"]):
        if file.endswith(".parquet"):  # its bytes are those of a release of pyarrow
            content = json.dumps(pq.read_table(folder / file).to_pylist(), default=str).encode()
        else:
            content = (folder / file).read_bytes()
        found["files"][file] = hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.parametrize("stage", ["1_collect", "2_clean", "3_tokenize", *TRAINED])
def test_the_same_version_makes_the_same(tiny, stage):
    """VERSION is all that tells a finished artifact from what today's code would make."""
    table = json.loads(OUTPUTS.read_text())
    machine, found = f"jax {jax.__version__}, {compiled.machine()}", output(runs(tiny) / stage)
    if "RENEW" in os.environ:
        table |= {"renew": RENEW, "machine": machine}
        table["stages"][stage] = found
        OUTPUTS.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    known = table["stages"][stage]
    changed = f"the output of {stage} changed: raise the VERSION of its config, then renew: {RENEW}"
    assert found["version"] == known["version"], f"the VERSION of {stage} changed; renew: {RENEW}"
    if stage not in TRAINED:
        assert found["files"] == known["files"], changed
    elif machine == table["machine"]:
        near = TOLERANCE[stage]
        np.testing.assert_allclose(found["loss"], known["loss"], near, near, err_msg=changed)
    else:
        np.testing.assert_allclose(found["loss"][0], known["loss"][0], rtol=1e-2, err_msg=changed)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line.get("kind") != "speed"]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def copied(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the finished recipe, to be changed."""
    folder = workplace(tmp_path / "copied")
    shutil.copytree(tiny / "runs", folder / "runs")
    return folder


def test_edited_code_makes_no_artifact_again(copied, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    package = tmp_path / "edited" / "jaxtrain"
    shutil.copytree(Path(jaxtrain.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "runtime" / "progress.py").open("a") as file:
        file.write("\nADDED = 1\n")
    command = [sys.executable, "-m", "jaxtrain", "run", str(CONFIGS)]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count(": reused runs/tiny/") == 10, done.stderr
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def test_artifacts_of_older_code_are_reused_with_one_warning(copied, monkeypatch, capsys):
    for file in copied.glob("runs/tiny/*/manifest.json"):
        made = json.loads(file.read_text())
        del made["sha256"]
        made |= {"source": "0" * 64, "version": made.pop("jaxtrain")}
        made["config"] = made["config"].pop("train", {}) | made["config"] | {"out of use": 1}
        file.write_text(json.dumps(made))
    monkeypatch.chdir(copied)
    manifest.warn_of_older.cache_clear()
    pipeline.run(CONFIGS)
    said = capsys.readouterr().err
    assert said.count("reused") == 10 and said.count("older jaxtrain") == 1
    config = configs.override(configs.load(CONFIGS / "4_pretrain.py"), ["--train.steps", "7"])
    made = manifest.describe(config, {"data": config.data})
    stands = artifact.read_manifest(config.out)
    assert manifest.told(manifest.differences(stands, made, config)).startswith("train.steps 40 → 7")


def test_a_changed_config_makes_its_stage_again_and_a_lost_file_too(tiny, tmp_path):
    folder = workplace(tmp_path / "changed")
    shutil.copytree(runs(tiny), runs(folder))
    with contextlib.chdir(folder):
        config = configs.load(CONFIGS / "9_evaluate.py")
        fewer = configs.override(config, ["--items", "8"])
        evaluate(fewer)
        results = json.loads((runs(folder) / "9_evaluate" / "results.json").read_text())
        assert {row["items"] for row in results["tasks"]} == {8}
        evaluate(config)
        assert contents(runs(folder) / "9_evaluate") == contents(runs(tiny) / "9_evaluate")
        (runs(folder) / "9_evaluate" / "results.json").unlink()
        evaluate(config)
    assert contents(runs(folder) / "9_evaluate") == contents(runs(tiny) / "9_evaluate")
    assert {path.name for path in runs(folder).iterdir()} == set(STAGES), "no partial or old folder is left"


class Killed:
    """`jaxtrain run` in processes of its own, killed (SIGKILL) again and again."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "log.txt"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jaxtrain", "run", str(CONFIGS)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stderr=log, stdout=log, env=dict(os.environ))

    def kill_after(self, seconds: float) -> None:
        self._kill(self.start(), seconds)

    def kill_behind_checkpoint(self, stage: str, seconds: float) -> None:
        """`seconds` after the stage has its first whole checkpoint, or when it is finished."""
        process = self.start()
        partial = runs(self.folder) / f"{stage}.partial" / "checkpoint"
        limit = time.monotonic() + 600
        while not (any(partial.glob("[0-9]*[0-9]")) or (runs(self.folder) / stage).exists()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.01)
                raise AssertionError(f"ended before {stage} had a checkpoint:\n{self.text()[-2000:]}")
            assert time.monotonic() < limit
        self._kill(process, seconds)

    def finish(self) -> None:
        assert self.start().wait(timeout=600) == 0, self.text()[-3000:]

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def _kill(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_run_that_is_killed_and_run_again_is_the_run_that_was_not(tiny, tmp_path):
    moments = random.Random(0)
    killed = Killed(workplace(tmp_path / "killed"))
    for _ in range(2):
        killed.kill_after(moments.uniform(4, 14))
    for stage in TRAINED:
        killed.kill_behind_checkpoint(stage, moments.uniform(0, 2))
    killed.kill_after(moments.uniform(8, 20))
    killed.finish()
    assert killed.text().count("resuming after step") >= 3, "killed at moments when there was nothing to lose"

    one, two = runs(tiny), runs(killed.folder)
    assert {path.name for path in two.iterdir()} == set(STAGES), "no partial or old folder is left"
    for name in DATA:
        assert contents(two / name) == contents(one / name), name
    for name in TRAINED:
        manifests = [json.loads((folder / name / "manifest.json").read_text()) for folder in (one, two)]
        assert manifests[0]["counts"] == manifests[1]["counts"], name
        assert [list(m["config"]) for m in manifests][0] == list(manifests[1]["config"])
        assert metrics(one / name) == metrics(two / name), name
        if name != "7_reward":
            texts = [(folder / name / "samples.jsonl").read_text() for folder in (one, two)]
            assert texts[0] == texts[1], name
        weights = [_weights(folder / name) for folder in (one, two)]
        jax.tree.map(np.testing.assert_array_equal, *weights)


def _weights(folder: Path) -> Any:
    with jax.set_mesh(meshes.make(MeshConfig())):
        load = reward_model.load if folder.name == "7_reward" else store.load
        return jax.device_get(load(folder))
