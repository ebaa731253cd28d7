"""What was trained is never given up unasked; an artifact is out of date where its result would differ."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxtrain import artifact, cli, fields, manifest
from jaxtrain.collect.books import BookSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

Train = Callable[..., Path]
DEFAULTS = Path(__file__).parent / "defaults.json"


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """`train(steps=…)` "trains" in `tmp_path/out`; with `until`, it is interrupted after that step."""

    def last_step(folder: Path) -> int:
        return int((folder / "step").read_text()) if (folder / "step").is_file() else 0

    def produce(until: int | None = None, restart: bool = False, **fields: Any) -> Path:
        known = [field.name for field in dataclasses.fields(TrainConfig)]
        of_train = {name: fields.pop(name) for name in known if name in fields}
        train = TrainConfig(**{"optimizer": OptimizerConfig(), "steps": 400, **of_train})
        config = PretrainConfig(data=str(tmp_path / "data"), out=str(tmp_path / "out"), train=train, **fields)

        def write(folder: Path) -> dict[str, Any]:
            began = last_step(folder)
            (folder / "step").write_text(str(train.steps if until is None else until))
            if until is not None:
                raise KeyboardInterrupt
            return {"began": began}

        with artifact.restarting(restart):
            return artifact.produce(config, {"data": config.data}, write, trained=last_step)

    (tmp_path / "data").write_text("tokens")
    return produce


def interrupted(train: Train, until: int, **fields: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(until, **fields)


def test_what_was_trained_is_not_given_up_for_another_config(train: Train, tmp_path: Path) -> None:
    interrupted(train, 30, steps=40)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out.partial").iterdir()}
    with pytest.raises(UserError) as refused:
        train(batch_size=8, seed=1, z_loss=0.0, optimizer=OptimizerConfig(beta1=0.8))
    assert str(refused.value) == (
        f"{tmp_path}/out.partial holds 30 steps of another run (train.optimizer.beta1 0.9 → 0.8, "
        "train.steps 40 → 400, train.seed 0 → 1 and 2 more); give it the same config again, name "
        "another folder with --out, or add --restart, which sets it aside"
    )
    (tmp_path / "data").write_text("other tokens")
    with pytest.raises(UserError, match=r"\(input data has changed\)"):
        train(steps=40)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out.partial").iterdir()} == before


def test_a_run_without_a_checkpoint_has_nothing_to_lose(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(train, 0)
    train(seed=1)
    assert "out.partial is of another config (train.seed 0 → 1); beginning anew" in capsys.readouterr().err


def test_restart_keeps_what_was_trained_beside_the_new_run(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(train, 20)
    interrupted(train, 30, seed=1, restart=True)
    assert artifact.read_manifest(train(seed=2, restart=True))["counts"] == {"began": 0}
    for number, step in enumerate(("20", "30"), 1):
        assert (tmp_path / f"out.partial.old.{number}" / "step").read_text() == step
    assert "out.partial is kept as" in capsys.readouterr().err
    assert artifact.is_aside(tmp_path / "out.partial.old.1") and not artifact.is_aside(tmp_path / "qwen2.5")


def test_a_finished_model_is_set_aside_when_its_config_changes(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(seed=1)
    (first / "by hand").touch()
    train(seed=2)
    said = capsys.readouterr().err
    assert f"{first} is out of date (train.seed 1 → 2); making it again" in said
    assert f"{first} is kept as {first}.old.1" in said
    assert (tmp_path / "out.old.1" / "by hand").exists() and not (first / "by hand").exists()
    assert artifact.read_manifest(tmp_path / "out.old.1")["config"]["train"]["seed"] == 1


def test_a_run_goes_on_with_new_steps_intervals_and_another_learning_rate(train: Train) -> None:
    interrupted(train, 30, steps=40)
    interrupted(
        train, 34, steps=50, optimizer=OptimizerConfig(lr=1e-4), checkpoint_every=7, mesh=MeshConfig(data=2)
    )
    out = train(steps=50, optimizer=OptimizerConfig(lr=1e-4, schedule="constant"), sample_prompts=("It",))
    made = artifact.read_manifest(out)
    assert made["counts"] == {"began": 34}
    assert made["changed"] == [
        {"step": 30, "field": "train.optimizer.lr", "from": 0.003, "to": 0.0001},
        {"step": 30, "field": "train.steps", "from": 40, "to": 50},
        {"step": 34, "field": "train.optimizer.schedule", "from": "cosine", "to": "constant"},
    ]
    shutil.rmtree(out)
    straight = train(steps=50, optimizer=OptimizerConfig(lr=1e-4, schedule="constant"))
    assert artifact.read_manifest(straight)["fingerprint"] != made["fingerprint"], "other weights"


def test_what_is_operational_makes_no_finished_artifact_again(train: Train) -> None:
    out = train(steps=3)
    made = (out / "manifest.json").read_bytes()
    train(steps=3, evaluate_every=7, trackers=(), mesh=MeshConfig(data=2), profile=2, sample_prompts=())
    assert (out / "manifest.json").read_bytes() == made


def described(config: Any) -> manifest.Manifest:
    return manifest.describe(config, {})


def test_a_field_that_was_added_since_changes_nothing_at_its_default() -> None:
    config = CollectConfig(sources=(BookSource(name="a", paths=("x",)),), out="out")
    stands = described(config)
    del stands["config"]["sources"][0]["license"]
    stands["config"]["retired"] = 3
    assert manifest.differences(stands, described(config), config) == []
    for sources, told in (
        ((BookSource(name="a", paths=("x",), license="MIT"),), "sources.0.license none → MIT"),
        ((BookSource(name="a", paths=("x",)), BookSource(name="b", paths=("y",))), "sources 1 → 2"),
        ((), "sources 1 → []"),
    ):
        changed = replace(config, sources=sources)
        assert manifest.told(manifest.differences(stands, described(changed), changed)).startswith(told)


def test_a_new_version_of_a_stage_makes_its_artifacts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CollectConfig(sources=(), out="out")
    stands = described(config)
    before = CollectConfig.VERSION
    monkeypatch.setattr(CollectConfig, "VERSION", 99)
    assert manifest.told(manifest.differences(stands, described(config), config)) == f"VERSION {before} → 99"


def defaults() -> dict[str, Any]:
    """Of every stage: its VERSION, and the defaults of its fields as the help shows them."""
    stages = [command.files for command in cli.COMMANDS.values() if command.files]
    return {
        kind.__name__: {
            "VERSION": getattr(kind, "VERSION", 0),
            "fields": {
                field.name: field.default
                for part in fields.sections(kind)
                for field in part.fields
                if field.settable  # else of one of several classes that a list may hold
            },
        }
        for files in stages
        for kind in cli._resolved(files)
    }


def test_a_default_that_changes_comes_with_a_new_version() -> None:
    """A config holds its defaults: another one makes finished artifacts again, trained ones too.

    `python tests/test_manifest.py` writes tests/defaults.json anew.
    """
    stood, stands = json.loads(DEFAULTS.read_text()), defaults()
    assert stood.keys() == stands.keys()
    same = [kind for kind in stood if stood[kind]["VERSION"] == stands[kind]["VERSION"]]
    changed = {
        f"{kind}.{name}": (before, stands[kind]["fields"][name])
        for kind in same
        for name, before in stood[kind]["fields"].items()
        if stands[kind]["fields"].get(name, before) != before
    }
    assert same == [*stood], "renew tests/defaults.json"
    assert changed == {}


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps(defaults(), indent=1) + "\n")
