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
from types import ModuleType
from typing import Any

import jax
from flax import nnx

from jaxtrain import artifact, integrity
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import replaced
from jaxtrain.model.lora import Adapters, LoRAConfig
from jaxtrain.model.quantized import Kind, Quantized, quantize
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import checkpoint, mesh
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import read_object, reading
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import gguf, huggingface, llama2c, peft

MODEL, ADAPTER = "model.json", "adapter.json"
FORMATS = (huggingface, llama2c, gguf)
"""Modules of whole models of other programs: `knows`, `read_config`, `read_tokenizer`, `load`."""


def open(folder: str | Path) -> "Source":
    """The source of a model; UserError where the folder, or file, holds none."""
    folder = Path(folder)
    if (folder / MODEL).is_file():
        return Trained(folder)
    if peft.knows(folder):
        return PEFT(folder)
    for format in FORMATS:
        if format.knows(folder):
            return Foreign(folder, format)
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

    def load(
        self, config: ModelConfig | None = None, weights: str = "float32", held: Kind = "model"
    ) -> Transformer:
        """The model, sharded on the mesh that is set (one device where none is).

        config: the source's own with other fields of how it runs (dtype, remat, …). weights: their dtype.
        held: the matrices of blocks, as codes or in that dtype (`model`).
        """
        mesh.ensure()
        return quantize(self._load(config or self.config, weights, held), held)

    def load_to_use(self, dtype: str = "model", held: Kind = "model") -> Transformer:
        """The model for use and not for training: weights and activations in one dtype, `model`: its own.

        held: how the matrices of blocks and head are; the embedding stays in `dtype`.
        """
        own = self.config
        config = dataclasses.replace(own, float8=False, dtype=own.dtype if dtype == "model" else dtype)
        model = self.load(config, config.dtype, held)
        if held != "model":
            model = replaced(model, head_DV=nnx.data(nnx.Param(model.output_DV)))
        return quantize(model, held, ("head_DV",))

    @abstractmethod
    def _load(self, config: ModelConfig, weights: str, held: Kind) -> Transformer:
        """`load`; what cannot quantise on the way gives numbers."""


class Trained(Source):
    """What a training stage wrote.

    Errors: UserError where a file of a finished artifact is not what was written.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        integrity.check(folder)

    @cached_property
    def config(self) -> ModelConfig:
        with reading(self.folder / MODEL):
            return ModelConfig(**read_object(self.folder / MODEL))

    @property
    def has_adapters(self) -> bool:
        return (self.folder / ADAPTER).is_file()

    def _load(self, config: ModelConfig, weights: str, held: Kind) -> Transformer:
        if self.has_adapters:
            about, adapters = read_adapter(self.folder), load_adapters(self.folder)
            base = open(about["base"]).load(config, weights, about["lora"].base_weights)
            adapted = jax.jit(lora.adapt, static_argnums=1)(base, about["lora"], jax.random.key(0))
            return jax.jit(lora.merge)(lora.put(adapted, adapters))
        saved = self.folder / "checkpoint"
        model = checkpoint.load_model(saved, lambda: Transformer(config, jax.random.key(0)))
        return jax.tree.map(lambda weight: weight.astype(weights), model)


class PEFT(Source):
    """Adapters in a folder that `peft` reads."""

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

    def _load(self, config: ModelConfig, weights: str, held: Kind) -> Transformer:
        adapted, adapters = peft.load(self.folder, self.base.load(config, weights))
        return jax.jit(lora.merge)(lora.put(adapted, adapters))


class Foreign(Source):
    """A whole model of another program."""

    def __init__(self, folder: Path, format: ModuleType):
        super().__init__(folder)
        self.format = format

    @cached_property
    def config(self) -> ModelConfig:
        return self.format.read_config(self.folder)

    def _tokenizer(self) -> Tokenizer:
        return self.format.read_tokenizer(self.folder)

    def _load(self, config: ModelConfig, weights: str, held: Kind) -> Transformer:
        model = self.format.load(self.folder, weights, held)
        # the same weights under another config of the same shapes
        tree = jax.tree.structure(jax.eval_shape(lambda: Transformer(config, jax.random.key(0))))
        return jax.tree.unflatten(tree, jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, Quantized)))


def load(folder: str | Path, config: ModelConfig | None = None, weights: str = "float32") -> Transformer:
    return open(folder).load(config, weights)


def write_about(config: ModelConfig, tokenizer: Tokenizer | None, folder: Path) -> None:
    """What a model's folder has beside its checkpoints: model.json and the tokenizer."""
    (folder / MODEL).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save_in(folder)


def write_artifact(model: Transformer, tokenizer: Tokenizer | None, folder: Path) -> None:
    """What a finished stage leaves of a model: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    write_about(model.config, tokenizer, folder)
    checkpoints = checkpoint.Checkpoints(folder.absolute() / "checkpoint")
    checkpoints.save(0, model, {"step": jax.numpy.int32(0)})
    checkpoints.close()


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
    about = read_object(Path(folder) / ADAPTER)
    base = Path(os.path.normpath(Path(folder).absolute() / about["base"]))
    if not base.exists():
        raise UserError(f"{folder} holds adapters of {base}, which is not there; put it back")
    if artifact.input_fingerprint(base) != about["base_fingerprint"]:
        raise UserError(f"{folder} holds adapters of {base} as it was; it has changed: fine-tune again")
    return {"base": base, "lora": LoRAConfig(**about["lora"])}


def load_adapters(folder: str | Path) -> Adapters:
    """The adapters of an artifact, on the mesh that is set."""
    config, about, key = open(folder).config, read_adapter(folder), jax.random.key(0)
    init = lambda: lora.take(lora.adapt(Transformer(config, key), about["lora"], key))  # noqa: E731
    return checkpoint.load_model(Path(folder) / "checkpoint", init)
