"""A model of random weights scores chance on every choice task, within two standard errors."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from jaxtrain.evaluate.benchmarks import evaluate
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tasks.catalog import TASKS
from jaxtrain.tokenize import tokenizer as tokenizers

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data" / "quickstart"
MATERIAL = ROOT.parent / "shared" / "material" / "benchmarks"
WHOLE = {
    "arc_challenge": "olmoeval-ARC-Challenge-validation.jsonl.gz",
    "boolq": "olmoeval-boolq-validation.jsonl.gz",
    "hellaswag": "olmoeval-hellaswag-validation.jsonl.gz",
    "mmlu_cloze": "olmoeval-mmlu-test.jsonl.gz",
    "sciq": "olmoeval-sciq-validation.jsonl.gz",
    "siqa": "olmoeval-social_i_qa-validation.jsonl.gz",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    tokenizer = tokenizers.train((str(row) for row in TASKS["arc_easy"].rows(DATA)), 500)
    config = ModelConfig(
        vocab_size=500, layers=2, d_model=64, heads=4, kv_heads=4, head_dim=16, d_hidden=128, max_length=1024
    )
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        yield Scorer(model, tokenizer, length=1024, batch_size=4)


@pytest.mark.parametrize("name", ["arc_easy", "piqa", "winogrande", *WHOLE])
def test_random_weights_score_chance(name: str, scorer: Scorer, tmp_path: Path):
    task, data = TASKS[name], DATA
    if name in WHOLE:
        if not MATERIAL.is_dir():
            pytest.skip("needs the whole benchmarks")
        data = tmp_path
        (tmp_path / task.path).parent.mkdir()
        with gzip.open(MATERIAL / WHOLE[name], "rt") as file:
            rows = file.readlines()
        if name == "boolq":  # weights that never read the question always say the same, and 62 % are yes
            parts = [[row for row in rows if f'"answer": {said}' in row] for said in ("true", "false")]
            rows = [row for pair in zip(*parts, strict=False) for row in pair]
        with gzip.open(tmp_path / task.path, "wt") as file:
            file.writelines(rows)
    row = evaluate(scorer, task, str(data), items=400)
    assert abs(row["value"] - row["chance"]) < 2 * row["standard_error"]
