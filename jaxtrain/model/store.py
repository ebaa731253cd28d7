"""The model of a folder: of a finished training stage, or in Hugging Face's format.

A stage's has `model.json` and the newest weights under `checkpoint/`.
"""

import dataclasses
import json
from pathlib import Path

import jax

from jaxtrain.model import huggingface
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint, mesh
from jaxtrain.runtime.errors import UserError


def write_config(folder: Path, config: ModelConfig) -> None:
    (folder / "model.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def is_huggingface(folder: str | Path) -> bool:
    return (Path(folder) / "config.json").is_file() and not (Path(folder) / "model.json").exists()


def tokenizer_folder(folder: str | Path) -> Path:
    """Where the tokenizer of a model's folder lies: Hugging Face's has it beside the weights."""
    return Path(folder) if is_huggingface(folder) else Path(folder) / "tokenizer"


def read_config(folder: str | Path) -> ModelConfig:
    """The ModelConfig of a folder; UserError where it holds no model."""
    if is_huggingface(folder):
        return huggingface.read_model_config(folder)
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no model (model.json is absent); name a finished pretrain or finetune folder, "
            "or a Hugging Face folder"
        )
    return ModelConfig(**json.loads(path.read_text()))


def load(folder: str | Path) -> Transformer:
    """The model of a folder, sharded on the mesh that is set (one device where none is)."""
    mesh.ensure()
    if is_huggingface(folder):
        return huggingface.load_pretrained(folder)
    config = read_config(folder)
    return checkpoint.load_model(Path(folder) / "checkpoint", lambda: Transformer(config, jax.random.key(0)))
