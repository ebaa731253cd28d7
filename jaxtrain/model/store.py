"""The model of a finished training stage: `model.json` and the newest weights under `checkpoint/`."""

import dataclasses
import json
from pathlib import Path

import jax

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint, mesh
from jaxtrain.runtime.errors import UserError


def write_config(folder: Path, config: ModelConfig) -> None:
    (folder / "model.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def read_config(folder: str | Path) -> ModelConfig:
    """The ModelConfig of an artifact; UserError where the folder holds no model."""
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no model (model.json is absent); name a finished pretrain or finetune folder"
        )
    return ModelConfig(**json.loads(path.read_text()))


def load(folder: str | Path) -> Transformer:
    """The model of an artifact, sharded on the mesh that is set (one device where none is)."""
    mesh.ensure()
    config = read_config(folder)
    return checkpoint.load_model(Path(folder) / "checkpoint", lambda: Transformer(config, jax.random.key(0)))
