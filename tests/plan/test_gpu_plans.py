"""What benchmarks/gpu_plans.py compiled, held to the recipes as they are and to bounds of programs."""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("gpu_plans", BENCHMARKS / "gpu_plans.py")
gpu_plans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_plans)
FOUND = json.loads(gpu_plans.RESULT.read_text())
AGAIN = {"none": 1.0, "dots": 1.0, "full": 4 / 3}
"""What the FLOPs are multiplied by, at most, where the forward pass is done again."""


def test_every_recipe_is_there() -> None:
    assert list(FOUND) == list(gpu_plans.ROWS)
    assert gpu_plans.table(FOUND) in (BENCHMARKS.parent / "docs" / "plan.md").read_text()


@pytest.mark.parametrize("name", gpu_plans.ROWS)
def test_a_recipe_is_what_was_compiled(name: str) -> None:
    config, row = gpu_plans.config_of(name), FOUND[name]
    assert row["config"] == gpu_plans.digest(config), f"renew it: python benchmarks/gpu_plans.py '{name}'"
    bound = 1.30 if getattr(getattr(config, "model", None), "experts", 0) else 1.10
    assert 0.95 <= row["flops_over_model"] <= bound * AGAIN[row["remat"]]
    assert row["peak_share"] <= 0.9
    assert not row["all_pairs"], "scores of all pairs of tokens stand in memory"
