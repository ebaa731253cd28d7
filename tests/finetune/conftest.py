"""Weights to start from and instructions of the quickstart, both through the real stages."""

import json
from pathlib import Path

import pytest

from jaxtrain.document import Conversation, Document, record_id, write_records
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain import run as pretrain
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize import run as tokenize
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

ALPACA = Path(__file__).parents[2] / "data" / "quickstart" / "alpaca.json"


@pytest.fixture(scope="package")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 short instructions with their answers; the answers are the documents, too."""
    folder = tmp_path_factory.mktemp("tokens")
    clean = folder / "clean"
    chosen = [row for row in json.loads(ALPACA.read_text(encoding="utf-8")) if 20 < len(row["output"]) < 80]
    documents, conversations = [], []
    for i, row in enumerate(chosen[:300]):
        name = record_id("alpaca", str(i))
        question = {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()}
        answer = {"role": "assistant", "content": row["output"]}
        documents.append(Document(id=name, text=row["output"], source="alpaca"))
        conversations.append(Conversation(id=name, source="alpaca", messages=[question, answer]))
    write_records(clean / "heldout" / "alpaca.parquet", Document, documents[:10])
    write_records(clean / "documents" / "alpaca.parquet", Document, documents[10:])
    write_records(clean / "conversations" / "alpaca.parquet", Conversation, conversations)
    (clean / "mixture.json").write_text(json.dumps({"alpaca": 1.0}))
    (clean / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "by hand"}))
    config = tokenize.TokenizeConfig(documents=str(clean), out=str(folder / "tokens"), vocab_size=512)
    return tokenize.run(config)


@pytest.fixture(scope="package")
def pretrained(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two steps: enough to differ from a fresh one."""
    config = pretrain.PretrainConfig(
        data=str(tokens),
        out=str(tmp_path_factory.mktemp("pretrained") / "model"),
        model=ModelConfig(
            vocab_size=512, layers=2, d_model=32, heads=4, kv_heads=2, head_dim=8, d_hidden=48, max_length=96
        ),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0), mesh=MeshConfig(fsdp=4, tensor=2), steps=2
        ),
        batch_size=8,
        sample_prompts=("A",),
    )
    return pretrain.run(config)


@pytest.fixture(scope="package")
def config(tokens: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """Twelve steps on fsdp 4 x tensor 2: evaluations after 6 and 12, checkpoints after 5, 10, 12."""
    return FinetuneConfig(
        model=str(pretrained),
        data=str(tokens),
        out=str(tmp_path_factory.mktemp("straight") / "model"),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=1e-2, warmup_steps=2),
            mesh=MeshConfig(fsdp=4, tensor=2),
            steps=12,
            evaluate_every=6,
            checkpoint_every=5,
        ),
        batch_size=8,
        sample_questions=("What is the capital of France?",),
    )
