"""configs/assistant_people: from what people chose to an assistant that is asked for harm, in little."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrain import config as configs
from jaxtrain import pipeline

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "assistant_people"


@pytest.mark.parametrize("scale", ["smollm2", "tiny"])
def test_each_stage_reads_the_model_or_what_those_before_it_wrote(scale: str) -> None:
    stages, model = pipeline.config_files(RECIPE), configs.scales(RECIPE)[scale]["model"]
    loaded = [configs.load(path, scale) for path in stages]
    runs = f"runs/assistant_people-{scale}"
    assert [config.out for config in loaded] == [f"{runs}/{path.stem}" for path in stages]
    known = {model}
    for config in loaded:
        names = ("documents", "tokenizer", "data", "model", "ratings", "reward", "conversations")
        read = {*(getattr(config, name, "") for name in names), *getattr(config, "models", {}).values()}
        assert read - {""} <= known
        known.add(config.out)
    assert loaded[-1].run == runs


def run(folder: Path, tiny: Path, *arguments: str) -> Path:
    """`jaxtrain …` where the model of configs/tiny stands; where the artifacts of the tiny scale are."""
    if not (folder / "data").exists():
        (folder / "data").symlink_to(ROOT / "data")
        (folder / "runs").mkdir()
        (folder / "runs" / "tiny").symlink_to(tiny / "runs" / "tiny")
    command = [sys.executable, "-m", "jaxtrain", *arguments, "--scale", "tiny"]
    alone = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, cwd=folder, env=alone, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "assistant_people-tiny"


def counts_of(artifact: Path) -> dict:
    return json.loads((artifact / "manifest.json").read_text())["counts"]


def test_what_people_judged_becomes_a_reward_model_beside_length(tiny: Path, tmp_path: Path) -> None:
    for command, file in (("rate", "5_rate.py"), ("reward", "6_reward.py")):
        runs = run(tmp_path, tiny, command, str(RECIPE / file))
    rated, reward = counts_of(runs / "5_rate"), counts_of(runs / "6_reward")
    assert (rated["judgements"], rated["train"] + rated["heldout"]) == (2303, 2303)
    assert reward["pairs_heldout"] == rated["heldout"] >= 700
    assert not rated["simulated"] and not reward["simulated"], "people judged"
    gain = reward["gain_over_length"]
    assert gain["low"] <= gain["mean"] <= gain["high"]


@pytest.mark.slow
def test_all_of_it_in_little(tiny: Path, tmp_path: Path) -> None:
    """`jaxtrain run configs/assistant_people --scale tiny`, on the model of configs/tiny."""
    runs = run(tmp_path, tiny, "run", str(RECIPE))
    dpo = counts_of(runs / "7_dpo")
    assert (
        dpo["heldout_over_length_low"] <= dpo["heldout_over_length_mean"] <= dpo["heldout_over_length_high"]
    )
    assert dpo["pairs_train"] + dpo["pairs_heldout"] + dpo["pairs_too_long"] == 2303
    results = json.loads((runs / "9_evaluate" / "results.json").read_text())
    models = ["before", "fine-tuned", "DPO", "PPO"]
    declined = [(row["model"], row["group"], row["items"]) for row in results["bias"]]
    kinds = ("harmful requests declined", "harmless requests declined")
    assert declined == [(model, kind, 4) for model in models for kind in kinds]
    assert [row["model"] for row in results["answers"]] == [model for model in models for _ in range(4)]
    page = (runs / "10_report" / "report.html").read_text()
    assert "Reward model on held-out comparisons of raters" in page and "simulated raters" not in page
