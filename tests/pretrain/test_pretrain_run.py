"""The stage: what its artifact holds, killed and run again, on other meshes, and what it refuses."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtrain import artifact, integrity
from jaxtrain import config as configs
from jaxtrain.feed import loader
from jaxtrain.feed.documents import Documents
from jaxtrain.feed.sources import TokenData
from jaxtrain.pretrain.run import run
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.signals import Stopped
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import SafetyConfig
from jaxtrain.weights import folder as store


def lines(folder):
    """metrics.jsonl without its times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]]
    found = [line for line in found if line.get("kind") != "speed"]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def command(
    config, folder: Path, devices: int, environment: dict[str, str] | None = None
) -> subprocess.Popen:
    """`python -m jaxtrain pretrain` of this config in a process of its own."""
    path = folder / "4_pretrain.py"
    path.write_text(
        "from jaxtrain.model.config import ModelConfig\nfrom jaxtrain.pretrain.run import PretrainConfig\n"
        "from jaxtrain.runtime.checkpoint import KeepConfig\nfrom jaxtrain.runtime.mesh import MeshConfig\n"
        "from jaxtrain.runtime.watchdog import WatchdogConfig\n"
        "from jaxtrain.train.config import SafetyConfig, TrainConfig\n"
        "from jaxtrain.train.optimizer import OptimizerConfig\n"
        f"config = {config!r}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "jaxtrain", "pretrain", str(path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)} | (environment or {}),
    )


def test_the_artifact(straight, config, tokens):
    manifest = artifact.read_manifest(straight)
    assert manifest["counts"]["steps"] == 20 and manifest["counts"]["tokens"] == 20 * 8 * 32
    assert store.open(straight).config == config.model
    tokenizer = Tokenizer.load(straight / "tokenizer")
    assert tokenizer.fingerprint == Tokenizer.load(tokens / "tokenizer").fingerprint
    steps = [line for line in lines(straight) if "kind" not in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert all(line["accepted"] == 1 and 0 < line["targets"] <= 8 * 32 for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    heldout = [line for line in lines(straight) if line.get("kind") == "heldout"]
    assert [line["step"] for line in heldout] == [8, 16, 20]
    assert heldout[-1].keys() >= {"bits_per_byte", "bits_per_byte/first", "bits_per_byte/second"}
    assert heldout[-1]["bits_per_byte"] < heldout[0]["bits_per_byte"]
    assert manifest["counts"]["heldout"] == {
        name: value for name, value in heldout[-1].items() if name.startswith("bits_per_byte")
    }
    samples = [json.loads(line) for line in (straight / "samples.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [(line["step"], line["prompt"]) for line in samples] == [(8, "The "), (16, "The "), (20, "The ")]
    assert all(line["completion"] for line in samples)


def test_a_killed_run_goes_on_to_the_same_bytes(straight, config, tmp_path):
    """SIGKILL at the evaluation of step 16, behind a checkpoint; then run again."""
    again = dataclasses.replace(config, out=str(tmp_path / "model"))
    with command(again, tmp_path, devices=8) as process:
        seen = [line for line in process.stderr if _kill(process, line)]
    assert process.returncode == -signal.SIGKILL and len(seen) == 1
    partial = tmp_path / "model.partial"
    assert not (tmp_path / "model").exists()
    assert [folder for folder in (partial / "checkpoint").iterdir() if folder.name.isdigit()]
    assert lines(partial)[-1]["step"] >= 16

    folder = run(again)
    for name in ("model.json", "samples.jsonl", "tokenizer/ranks.tiktoken", "tokenizer/tokenizer.json"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    assert lines(folder) == lines(straight)
    assert artifact.read_manifest(folder)["counts"] == artifact.read_manifest(straight)["counts"]
    with jax.set_mesh(meshes.make(config.train.mesh)):
        for found, wanted in zip(
            *(jax.tree.leaves(store.load(at)) for at in (folder, straight)), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


def test_a_killed_run_goes_on_with_another_learning_rate_and_with_no_other_seed(straight, config, tmp_path):
    begun = dataclasses.replace(config, out=str(tmp_path / "model"))
    with command(begun, tmp_path, devices=8) as process:
        assert any(_kill(process, line) for line in process.stderr)
    with pytest.raises(UserError, match=r"holds \d+ steps of .*\(train.seed 0 → 1\); .*--restart") as refused:
        run(configs.changed(begun, train__seed=1))
    # a checkpoint that was being written when the process died may count or not
    step = int(re.findall(r"holds (\d+) steps", str(refused.value))[0])
    assert step in (8, 12)
    slower = dataclasses.replace(config.train.optimizer, lr=1e-3, schedule="constant")
    folder = run(configs.changed(begun, train__optimizer=slower, train__evaluate_every=5))
    trained = [[line for line in lines(of) if "loss" in line] for of in (folder, straight)]
    assert trained[0][:step] == trained[1][:step]
    assert [line["step"] for line in trained[0]] == list(range(1, 21))
    assert {round(line["learning_rate"], 7) for line in trained[0][step:]} == {1e-3}
    changed = artifact.read_manifest(folder)["changed"]
    assert changed[0] == {"step": step, "field": "train.optimizer.lr", "from": 0.01, "to": 0.001}


def _kill(process: subprocess.Popen, line: str) -> bool:
    """Kill the process when it tells of the evaluation of step 16."""
    if not line.startswith("held-out") or " 16/20 " not in line:
        return False
    process.kill()
    return True


def test_losses_are_those_of_one_device(straight, config, tmp_path):
    """Every step's, of fsdp 4 x tensor 2 and of a process with one device, to 1e-5."""
    out = str(tmp_path / "model")
    alone = configs.changed(config, out=out, train__mesh=MeshConfig(), sample_prompts=("A",))
    with command(alone, tmp_path, devices=1) as process:
        told = process.stderr.read()
    assert process.returncode == 0, told
    found, wanted = lines(tmp_path / "model"), lines(straight)
    for name in ("loss", "grad_norm", "bits_per_byte"):
        np.testing.assert_allclose(
            [line[name] for line in found if name in line],
            [line[name] for line in wanted if name in line],
            rtol=1e-4 if name == "grad_norm" else 1e-5,
            err_msg=name,
        )


def test_a_finished_run_is_reused(straight, config):
    before = (straight / "manifest.json").stat().st_mtime_ns
    assert run(config) == straight
    assert (straight / "manifest.json").stat().st_mtime_ns == before


def test_what_does_not_fit_is_told(config, tmp_path):
    config = dataclasses.replace(config, out=str(tmp_path / "model"))
    model = dataclasses.replace(config.model, vocab_size=4096)
    with pytest.raises(UserError, match=r"vocab_size is 4096, but the tokenizer of .* has 512"):
        run(dataclasses.replace(config, model=model))
    with pytest.raises(UserError, match="take at most"):
        run(configs.changed(config, train__steps=10_000))
    with pytest.raises(UserError, match="devices"):
        run(configs.changed(config, train__mesh=MeshConfig(fsdp=3)))
    with pytest.raises(UserError, match="nowhere does not exist"):
        run(dataclasses.replace(config, data=str(tmp_path / "nowhere")))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_two_processes_make_the_artifact_together(straight, config, tmp_path):
    """Of four devices each: the losses of one process with eight to 1e-6, one metrics.jsonl, one manifest."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = dataclasses.replace(config, out=str(tmp_path / "model"))
    processes = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        cluster = {"JAXTRAIN_COORDINATOR": f"127.0.0.1:{port}", "JAXTRAIN_PROCESSES": "2"}
        cluster["JAXTRAIN_PROCESS"] = str(number)
        processes.append(command(shared, tmp_path / str(number), 4, cluster))
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(text[:3500] for text in told)
    assert "step    10/20" in told[0] and "step    10/20" not in told[1]
    found, wanted = lines(tmp_path / "model"), lines(straight)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for name in ("loss", "bits_per_byte"):
        np.testing.assert_allclose(
            [line[name] for line in found if name in line],
            [line[name] for line in wanted if name in line],
            rtol=1e-6,
            err_msg=name,
        )
    manifest = artifact.read_manifest(tmp_path / "model")
    assert manifest is not None and not integrity.problems(tmp_path / "model", manifest["files"])
    assert artifact.read_manifest(straight)["fingerprint"] == manifest["fingerprint"]


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_its_folder_on_another_mesh(straight, config, tmp_path):
    """SIGTERM behind step 7 on fsdp 4 x tensor 2; then data 2 x fsdp 4: the undisturbed run's losses."""
    begun = dataclasses.replace(config, out=str(tmp_path / "model"))
    partial, over = tmp_path / "model.partial", threading.Event()

    def stop() -> None:
        log = partial / "metrics.jsonl"
        while not over.wait(0.01) and not (log.is_file() and '"step": 7,' in log.read_text()):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop)
    watcher.start()
    try:
        with pytest.raises(Stopped):
            run(begun)
    finally:
        over.set()
        watcher.join()
    stopped = lines(partial)[-1]["step"]
    assert 7 <= stopped < 20 and (partial / "checkpoint" / str(stopped)).is_dir()
    folder = run(configs.changed(begun, train__mesh=MeshConfig(data=2, fsdp=4)))
    found, wanted = lines(folder), lines(straight)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for name in ("loss", "bits_per_byte"):
        np.testing.assert_allclose(
            [line[name] for line in found if name in line],
            [line[name] for line in wanted if name in line],
            rtol=1e-5,
            err_msg=name,
        )


def test_a_run_goes_on_with_another_mesh_and_other_safety(straight, config, tmp_path):
    """Neither is part of what an artifact is made of."""
    moved = configs.changed(config, train__mesh=MeshConfig(), train__safety=SafetyConfig(rollback_after=5))
    assert run(moved) == straight


def test_the_records_of_a_batch_are_those_it_is_made_of(config):
    documents = Documents.open(config.data, batch_size=8, length=32, seed=config.train.seed)
    batch = loader.document_batches(documents)[5]
    tokenizer = Tokenizer.load(Path(config.data) / "tokenizer")
    for of in documents.records(5):
        records = TokenData.open(config.data).documents(of["source"])
        ids = [tokenizer.bos, *records[of["record"]].tolist(), tokenizer.eos][of["start"] : of["stop"]]
        row = batch["tokens"][of["row"]].tolist()
        assert any(row[at : at + len(ids)] == ids for at in range(len(row) - len(ids) + 1))
