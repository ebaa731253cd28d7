"""A tiny artifact of tokenize, made by the stage itself from paragraphs of two novels, and a run on it."""

import json
import lzma
from pathlib import Path

import pytest

from jaxtrain.document import Document, record_id, write_records
from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig, run
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize import run as tokenize
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

BOOKS = Path(__file__).parents[2] / "data" / "quickstart" / "books.jsonl.xz"


@pytest.fixture(scope="package")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources `first` (weight 0.7) and `second` (0.3) hold out six paragraphs each, `third` none."""
    folder = tmp_path_factory.mktemp("tokens")
    clean = folder / "clean"
    with lzma.open(BOOKS, "rt", encoding="utf-8") as lines:
        for source in ("first", "second", "third"):
            text = json.loads(next(lines))["text"]
            texts = [part for part in text.split("\n\n") if 200 < len(part) < 600][:150]
            rows = [
                Document(id=record_id(source, str(i)), text=part, source=source)
                for i, part in enumerate(texts)
            ]
            heldout = 0 if source == "third" else 6
            write_records(clean / "heldout" / f"{source}.parquet", Document, rows[:heldout])
            write_records(clean / "documents" / f"{source}.parquet", Document, rows[heldout:])
    (clean / "mixture.json").write_text(json.dumps({"first": 0.7, "second": 0.3}))
    (clean / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "by hand"}))
    config = tokenize.TokenizeConfig(documents=str(clean), out=str(folder / "tokens"), vocab_size=512)
    return tokenize.run(config)


@pytest.fixture(scope="package")
def config(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """Twenty steps on fsdp 4 x tensor 2: evaluations after 8, 16, 20, checkpoints after 6, 12, 18, 20."""
    return PretrainConfig(
        data=str(tokens),
        out=str(tmp_path_factory.mktemp("straight") / "model"),
        model=ModelConfig(
            vocab_size=512, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=48, max_length=32
        ),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=1e-2, warmup_steps=4),
            mesh=MeshConfig(fsdp=4, tensor=2),
            steps=20,
            evaluate_every=8,
            checkpoint_every=6,
        ),
        batch_size=8,
        sample_prompts=("The ",),
    )


@pytest.fixture(scope="package")
def straight(config: PretrainConfig) -> Path:
    """The artifact of that run, never interrupted."""
    return run(config)
