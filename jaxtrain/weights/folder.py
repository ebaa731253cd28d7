"""`open(folder)`: the model of a folder, whatever kind it is of.

    a finished training stage   model.json, the newest weights under checkpoint/, tokenizer/
    one that trained adapters   the same, adapters under checkpoint/; adapter.json says what they stand on
    Hugging Face                config.json, safetensors, tokenizer.json
    PEFT                        adapter_config.json, adapter_model.safetensors
    llama2.c                    a .bin file
    GGUF                        a .gguf file, or a folder with one

Adapters are merged into the weights that they stand on.
"""

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from jaxtrain import artifact, integrity
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import Adapters, LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint, mesh
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import gguf, huggingface, llama2c, peft

MODEL, ADAPTER = "model.json", "adapter.json"


def open(folder: str | Path) -> "Source":
    """The source of a model; UserError where the folder, or file, holds none."""
    folder = Path(folder)
    for kind in (Trained, HuggingFace, PEFT, Llama2C, GGUF):
        if kind.knows(folder):
            return kind(folder)
    raise UserError(
        f"{folder} holds no model ({MODEL} is absent); name a finished pretrain or finetune folder, "
        "or a Hugging Face folder"
        if folder.exists()
        else f"{folder} does not exist; name the folder of a model"
    )


class Source(ABC):
    """A folder or file with a model: config, tokenizer and weights are read when they are asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    @staticmethod
    @abstractmethod
    def knows(folder: Path) -> bool:
        """Whether a folder, or file, is of this kind."""

    @property
    @abstractmethod
    def config(self) -> ModelConfig:
        """The shapes, and the dtype that the folder names."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Errors: UserError where the folder has none, or one with ids that the embedding has no row for."""
        found, rows = self._tokenizer(), self.config.vocab_size
        if lost := found.first_beyond(rows):
            raise UserError(
                f"the tokenizer of {self.folder} has {found.vocab_size} ids, its embedding {rows} rows: "
                f"{lost!r} would be read as another token; resize the embedding, or put the model's own "
                "tokenizer there"
            )
        return found

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder)

    def load(self, config: ModelConfig | None = None, weights: str = "float32") -> Transformer:
        """The model, sharded on the mesh that is set (one device where none is).

        config: the source's own with other fields of how it runs (dtype, remat, …). weights: their dtype.
        """
        mesh.ensure()
        return self._load(config or self.config, weights)

    def load_to_use(self, dtype: str = "model") -> Transformer:
        """The model for use and not for training: weights and activations in one dtype, `model`: its own."""
        config = self.config if dtype == "model" else dataclasses.replace(self.config, dtype=dtype)
        return self.load(config, config.dtype)

    @abstractmethod
    def _load(self, config: ModelConfig, weights: str) -> Transformer: ...


class Trained(Source):
    """What a training stage wrote.

    Errors: UserError where a file of a finished artifact is not what was written.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        integrity.check(folder)

    @staticmethod
    def knows(folder: Path) -> bool:
        return (folder / MODEL).is_file()

    @cached_property
    def config(self) -> ModelConfig:
        return ModelConfig(**json.loads((self.folder / MODEL).read_text()))

    @property
    def has_adapters(self) -> bool:
        return (self.folder / ADAPTER).is_file()

    @property
    def base(self) -> Path:
        """What the adapters stand on."""
        return read_adapter(self.folder)["base"]

    @cached_property
    def adapters(self) -> tuple[Adapters, LoRAConfig]:
        """On the mesh that is set."""
        return load_adapters(self.folder), read_adapter(self.folder)["lora"]

    def _load(self, config: ModelConfig, weights: str) -> Transformer:
        if self.has_adapters:
            adapters, about = self.adapters
            base = open(self.base).load(config, weights)
            adapted = jax.jit(lora.adapt, static_argnums=1)(base, about, jax.random.key(0))
            return jax.jit(lora.merge)(lora.put(adapted, adapters))
        saved = self.folder / "checkpoint"
        model = checkpoint.load_model(saved, lambda: Transformer(config, jax.random.key(0)))
        return jax.tree.map(lambda weight: weight.astype(weights), model)


class HuggingFace(Source):
    """A folder that `transformers` reads."""

    @staticmethod
    def knows(folder: Path) -> bool:
        return (folder / "config.json").is_file()

    @cached_property
    def config(self) -> ModelConfig:
        return huggingface.read_model_config(self.folder)

    def _load(self, config: ModelConfig, weights: str) -> Transformer:
        return _with_config(huggingface.load_pretrained(self.folder, weights), config)


class PEFT(Source):
    """Adapters in a folder that `peft` reads."""

    @staticmethod
    def knows(folder: Path) -> bool:
        return peft.is_adapter(folder)

    @cached_property
    def base(self) -> Source:
        return open(peft.base_of(self.folder))

    @property
    def config(self) -> ModelConfig:
        return self.base.config

    def _tokenizer(self) -> Tokenizer:
        """The folder's own, where it brings one (with another chat template), else the base's."""
        own = (self.folder / "tokenizer.json").is_file()
        return Tokenizer.load(self.folder) if own else self.base.tokenizer

    def _load(self, config: ModelConfig, weights: str) -> Transformer:
        adapted, adapters = peft.load(self.folder, self.base.load(config, weights))
        return jax.jit(lora.merge)(lora.put(adapted, adapters))


class Llama2C(Source):
    """A `.bin` of llama2.c, with a Hugging Face tokenizer beside it."""

    @staticmethod
    def knows(folder: Path) -> bool:
        return folder.is_file() and folder.suffix == ".bin"

    @cached_property
    def config(self) -> ModelConfig:
        return llama2c.read_config(self.folder)

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder.parent)

    def _load(self, config: ModelConfig, weights: str) -> Transformer:
        return _with_config(llama2c.load_llama2c(self.folder, weights), config)


class GGUF(Source):
    """A file of llama.cpp."""

    @staticmethod
    def knows(folder: Path) -> bool:
        return gguf.find(folder) is not None

    @cached_property
    def file(self) -> Path:
        found = gguf.find(self.folder)
        assert found is not None, "`knows` has seen it"
        return found

    @cached_property
    def config(self) -> ModelConfig:
        return gguf.read_config(self.file)

    def _tokenizer(self) -> Tokenizer:
        return gguf.read_tokenizer(self.file)

    def _load(self, config: ModelConfig, weights: str) -> Transformer:
        return _with_config(gguf.load(self.file, weights), config)


def _with_config(model: Transformer, config: ModelConfig) -> Transformer:
    """The same weights under another config of the same shapes."""
    tree = jax.tree.structure(jax.eval_shape(lambda: Transformer(config, jax.random.key(0))))
    return jax.tree.unflatten(tree, jax.tree.leaves(model))


def read_config(folder: str | Path) -> ModelConfig:
    return open(folder).config


def load(folder: str | Path, config: ModelConfig | None = None, weights: str = "float32") -> Transformer:
    return open(folder).load(config, weights)


def write_config(folder: Path, config: ModelConfig) -> None:
    (folder / MODEL).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def write_artifact(model: Transformer, tokenizer: Tokenizer | None, folder: Path) -> None:
    """What a finished stage leaves of a model: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, model.config)
    checkpoints = checkpoint.Checkpoints(folder.absolute() / "checkpoint")
    checkpoints.save(0, model, {"step": jax.numpy.int32(0)})
    checkpoints.close()
    if tokenizer is not None:
        tokenizer.save_in(folder)


def write_about(config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """What a model's folder has beside its checkpoints: model.json and the tokenizer."""
    write_config(folder, config)
    tokenizer.save_in(folder)


def write_adapter(folder: Path, base: str | Path, config: LoRAConfig) -> None:
    """Say what the adapters of `folder` stand on: the base's place, seen from there, and fingerprint."""
    about = {
        "base": os.path.relpath(base, folder),
        "base_fingerprint": artifact.input_fingerprint(base),
        "lora": dataclasses.asdict(config),
    }
    (folder / ADAPTER).write_text(json.dumps(about, indent=2) + "\n")


def read_adapter(folder: str | Path) -> dict[str, Any]:
    """`base` (its folder) and `lora` (LoRAConfig) of an artifact with adapters.

    Errors: UserError where the base is no longer there, or another one.
    """
    about = json.loads((Path(folder) / ADAPTER).read_text())
    base = Path(os.path.normpath(Path(folder).absolute() / about["base"]))
    if not base.exists():
        raise UserError(f"{folder} holds adapters of {base}, which is not there; put it back")
    if artifact.input_fingerprint(base) != about["base_fingerprint"]:
        raise UserError(f"{folder} holds adapters of {base} as it was; it has changed: fine-tune again")
    return {"base": base, "lora": LoRAConfig(**about["lora"])}


def load_adapters(folder: str | Path) -> Adapters:
    """The adapters of an artifact, on the mesh that is set."""
    config, adapter = open(folder).config, json.loads((Path(folder) / ADAPTER).read_text())

    def init() -> Adapters:
        key = jax.random.key(0)
        return lora.take(lora.adapt(Transformer(config, key), LoRAConfig(**adapter["lora"]), key))

    return checkpoint.load_model(Path(folder) / "checkpoint", init)
