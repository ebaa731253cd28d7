"""A GGUF file of a Hugging Face folder, tensors as llama.cpp's converter changes them."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from safetensors.numpy import load_file, save_file


def permuted(tensor: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter writes Llama's queries and keys."""
    parts = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return parts.swapaxes(1, 2).reshape(tensor.shape)


def write(
    path: Path,
    folder: Path,
    kind: Type | None,
    architecture: str,
    add_tokenizer: Callable[[GGUFWriter], None],
) -> None:
    """The GGUF file of a Hugging Face folder; `kind` of its matrices, which are quantised in `folder` too."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_parameters", config)["rope_theta"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
    if architecture == "gemma2":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    for name, tensor in tensors.items():
        is_packed = tensor.shape[-1] % 32 == 0 and tensor.ndim == 2 and kind is not None
        if is_packed:
            packed = gguf.quants.quantize(tensor, kind)
            tensors[name] = tensor = gguf.quants.dequantize(packed, kind)
        part = name.split(".")[-2]
        if architecture == "llama" and part in heads:
            tensor = permuted(tensor, heads[part])
        elif architecture == "gemma2" and name.endswith("norm.weight"):
            tensor = tensor + 1
        theirs = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if is_packed:
            writer.add_tensor(theirs, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(theirs, np.ascontiguousarray(tensor, np.float32))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    add_tokenizer(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
