"""The model and tokenizer of a GGUF file (llama.cpp), through the package `gguf`; its quants become floats.

Metadata becomes what config.json would say, so config_json.py reads it; tensors have Hugging Face's names in
the package's own table. What its writer changes is undone: rows of Llama's queries and keys lie in pairs,
Gemma's norms have 1 added.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import llama3_stretch
from jaxtrain.model.quantized import Kind
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import reading
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.publish import tokenizer_of
from jaxtrain.weights import config_json, huggingface
from jaxtrain.weights.families import Family
from jaxtrain.weights.tensors import parts, tensors

TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3": "gemma3_text"}
"""Architecture → model_type of Hugging Face."""
KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
LARGEST_GEMMA = {"gemma2": 46, "gemma3": 62}
"""Layers of the models whose scores are scaled by d_model / heads instead of head_dim, which no key says."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def find(path: Path) -> Path | None:
    """The GGUF file that is named, or the only one of a folder."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise UserError(f"{path} has {len(found)} GGUF files; name one, such as {found[0]}")
    return found[0] if found else None


class File:
    """A GGUF file, mapped into memory. Errors: UserError where it is none, or of an unknown architecture."""

    def __init__(self, path: Path):
        import gguf  # of an extra

        try:
            reader = gguf.GGUFReader(path)
            self.metadata = {name: _rounded(field.contents()) for name, field in reader.fields.items()}
        except Exception as error:  # of a cut or changed file the package raises what it likes
            raise UserError(f"{path} is no whole GGUF file: {error}") from None
        self.path, self.tensors = path, {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = self.metadata.get("general.architecture", "")
        if self.architecture not in TYPES or f"{self.architecture}.expert_count" in self.metadata:
            known = ", ".join(TYPES)
            raise UserError(f"{path}: architecture {self.architecture!r} is not one of {known} (no experts)")

    def read(self, name: str) -> np.ndarray:
        """A tensor in floats, [outputs, inputs]."""
        import gguf

        tensor = self.tensors[name]
        try:
            return gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise UserError(f"{self.path}: {name} is {tensor.tensor_type.name}, which is not read") from None

    def config(self) -> tuple[Family, ModelConfig]:
        """As `config_json.read_config`."""
        with reading(f"{self.path}: its metadata"):
            return config_json.read_config(self._as_config_json(), str(self.path))

    def _as_config_json(self) -> dict[str, Any]:
        keys = {f"{self.architecture}.{ours}": theirs for ours, theirs in KEYS.items()}
        said = {theirs: self.metadata[key] for key, theirs in keys.items() if key in self.metadata}
        said |= {
            "model_type": TYPES[self.architecture],
            "vocab_size": int(self.tensors["token_embd.weight"].shape[1]),
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "rope_scaling": self._rope_scaling(),
        }
        if self.architecture in LARGEST_GEMMA:
            whole = said["hidden_size"] // said["num_attention_heads"]
            is_largest = said["num_hidden_layers"] == LARGEST_GEMMA[self.architecture]
            said["query_pre_attn_scalar"] = whole if is_largest else said.get("head_dim", whole)
        return said

    def _rope_scaling(self) -> Mapping[str, Any] | None:
        key = f"{self.architecture}.rope.scaling"
        kind = self.metadata.get(f"{key}.type", "none")
        if kind != "none":
            return {"rope_type": kind, "factor": self.metadata.get(f"{key}.factor", 1.0)}
        if "rope_freqs.weight" not in self.tensors:
            return None
        stretch = self.read("rope_freqs.weight")  # Llama 3's, as numbers
        theta = self.metadata[f"{self.architecture}.rope.freq_base"]
        scaling = LLAMA3 | {"rope_type": "llama3", "factor": float(stretch.max())}
        ours = llama3_stretch(len(stretch), theta, scaling["factor"], *LLAMA3.values())
        if not np.allclose(ours, stretch, rtol=1e-4):
            raise UserError(f"{self.path}: rope_freqs.weight is not the scaling of Llama 3")
        return scaling


def _rounded(value: Any) -> Any:
    """float32 as it was written: 1e-5, not 9.999999747378752e-06."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


@cache
def opened(path: Path) -> File:
    """The file that is named, or that a folder has."""
    return File(find(path) or path)


def knows(path: Path) -> bool:
    return find(path) is not None


def read_config(path: Path) -> ModelConfig:
    return opened(path).config()[1]


def read_tokenizer(path: Path) -> HuggingFaceTokenizer:
    """The tokenizer and chat template in its metadata."""
    file = opened(path)
    with reading(f"{path}: its metadata"):
        return tokenizer_of(file.metadata, str(path))


def load(path: Path, dtype: str = "float32", held: Kind = "model") -> Transformer:
    """The model of a GGUF file, on the mesh that is set."""
    import gguf

    file = opened(path)
    family, config = file.config()
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == file.architecture)
    table = gguf.get_tensor_name_map(arch, config.layers)
    names = {
        hf: theirs
        for part in parts(family, config)
        for _, hf in tensors(part, config)
        if (theirs := table.get_name(hf, try_suffixes=(".weight", ".bias"))) in file.tensors
    }

    def read(name: str) -> np.ndarray:
        tensor = file.read(names[name])
        if file.architecture == "llama" and re.search(r"\.[qk]_proj\.", name):
            return huggingface.halves(tensor, config.head_dim)
        is_gemma = file.architecture.startswith("gemma")
        return tensor - 1 if is_gemma and name.endswith("norm.weight") else tensor

    left = set(file.tensors) - set(names.values()) - {"rope_freqs.weight"}
    return huggingface.load_tensors(family, config, {*names, *left}, read, dtype, str(path), held)
