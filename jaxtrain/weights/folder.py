"""The model of a folder, whatever kind it is of.

    a finished training stage   model.json, the newest weights under checkpoint/, tokenizer/
    one that trained adapters   the same, adapters under checkpoint/; adapter.json says what they stand on
    Hugging Face                config.json, safetensors, tokenizer.json
    PEFT                        adapter_config.json, adapter_model.safetensors

Adapters are merged into the weights that they stand on.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax

from jaxtrain import artifact
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import Adapters, LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint, mesh
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights import huggingface, peft

ADAPTER = "adapter.json"


def write_config(folder: Path, config: ModelConfig) -> None:
    (folder / "model.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def write_adapter(folder: Path, base: str | Path, config: LoRAConfig) -> None:
    """Say what the adapters of `folder` stand on: the base's place, seen from there, and fingerprint."""
    about = {
        "base": os.path.relpath(base, folder),
        "base_fingerprint": artifact.input_fingerprint(base),
        "lora": dataclasses.asdict(config),
    }
    (folder / ADAPTER).write_text(json.dumps(about, indent=2) + "\n")


def is_huggingface(folder: str | Path) -> bool:
    return (Path(folder) / "config.json").is_file() and not (Path(folder) / "model.json").exists()


def tokenizer_folder(folder: str | Path) -> Path:
    """Where the tokenizer of a model's folder lies: Hugging Face's has it beside the weights."""
    folder = Path(folder)
    if peft.is_adapter(folder) and not (folder / "tokenizer.json").is_file():
        return tokenizer_folder(peft.base_of(folder))
    return folder if is_huggingface(folder) or peft.is_adapter(folder) else folder / "tokenizer"


def read_config(folder: str | Path) -> ModelConfig:
    """The ModelConfig of a folder; UserError where it holds no model."""
    folder = Path(folder)
    if is_huggingface(folder):
        return huggingface.read_model_config(folder)
    if peft.is_adapter(folder):
        return read_config(peft.base_of(folder))
    path = folder / "model.json"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no model (model.json is absent); name a finished pretrain or finetune folder, "
            "or a Hugging Face folder"
        )
    return ModelConfig(**json.loads(path.read_text()))


def load(folder: str | Path, config: ModelConfig | None = None, weights: str = "float32") -> Transformer:
    """The model of a folder, sharded on the mesh that is set (one device where none is).

    config: the folder's own with other fields of how it runs (dtype, remat, …). weights: their dtype.
    """
    mesh.ensure()
    folder, config = Path(folder), config or read_config(folder)
    if is_huggingface(folder):
        return _with_config(huggingface.load_pretrained(folder, weights), config)
    if peft.is_adapter(folder):
        adapted, adapters = peft.load(folder, load(peft.base_of(folder), config, weights))
        return jax.jit(lora.merge)(lora.put(adapted, adapters))
    if (folder / ADAPTER).is_file():
        about = read_adapter(folder)
        base = load(about["base"], config, weights)
        adapted = jax.jit(lora.adapt, static_argnums=1)(base, about["lora"], jax.random.key(0))
        return jax.jit(lora.merge)(lora.put(adapted, load_adapters(folder)))
    model = checkpoint.load_model(folder / "checkpoint", lambda: Transformer(config, jax.random.key(0)))
    return jax.tree.map(lambda weight: weight.astype(weights), model)


def read_adapter(folder: str | Path) -> dict[str, Any]:
    """`base` (its folder) and `lora` (LoRAConfig) of an artifact with adapters.

    Errors: UserError where the base is no longer there, or another one.
    """
    about = json.loads((Path(folder) / ADAPTER).read_text())
    base = Path(os.path.normpath(Path(folder) / about["base"]))
    if not base.exists():
        raise UserError(f"{folder} holds adapters of {base}, which is not there; put it back")
    if artifact.input_fingerprint(base) != about["base_fingerprint"]:
        raise UserError(f"{folder} holds adapters of {base} as it was; it has changed: fine-tune again")
    return {"base": base, "lora": LoRAConfig(**about["lora"])}


def load_adapters(folder: str | Path) -> Adapters:
    """The adapters of an artifact, on the mesh that is set."""
    config, adapter = read_config(folder), json.loads((Path(folder) / ADAPTER).read_text())

    def init() -> Adapters:
        key = jax.random.key(0)
        return lora.take(lora.adapt(Transformer(config, key), LoRAConfig(**adapter["lora"]), key))

    return checkpoint.load_model(Path(folder) / "checkpoint", init)


def _with_config(model: Transformer, config: ModelConfig) -> Transformer:
    """The same weights under another config of the same shapes."""
    tree = jax.tree.structure(jax.eval_shape(lambda: Transformer(config, jax.random.key(0))))
    return jax.tree.unflatten(tree, jax.tree.leaves(model))
