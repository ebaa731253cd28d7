"""What `transformers` computes with tiny models of each family, and the stored copy of it.

Weights are drawn by numpy from each tensor's name, so a folder is made anew anywhere from the stored config
and shapes. Renew `tests/weights/families/` with:

    .venv-peers/bin/python tests/family_references.py [NAME ...]
"""

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

STORED = Path(__file__).parent / "weights" / "families"
VOCAB, LENGTH, PROMPT, NEW = 128, 24, 8, 32

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10_000.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.25, 1.5],
    "long_factor": [1.0, 2.0, 6.0],
}
DEEPSEEK = {
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "tie_word_embeddings": False,
    "num_nextn_predict_layers": 0,
}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "llama2": ("llama", SMALL | {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "llama3": ("llama", SMALL | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}),
    "smollm2": ("llama", SMALL | {"tie_word_embeddings": True, "rope_theta": 100_000.0}),
    "mistral": ("mistral", SMALL | {"sliding_window": 5, "tie_word_embeddings": False}),
    "qwen2.5": ("qwen2", SMALL | {"tie_word_embeddings": True, "use_sliding_window": False}),
    "qwen3": ("qwen3", SMALL | {"head_dim": 16, "tie_word_embeddings": True, "use_sliding_window": False}),
    "gemma2": ("gemma2", SMALL | {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 24}),
    "gemma3": (
        "gemma3_text",
        SMALL
        | {
            "num_hidden_layers": 7,
            "head_dim": 16,
            "sliding_window": 5,
            "query_pre_attn_scalar": 24,
            "rope_parameters": GEMMA3_ROPE,
        },
    ),
    "olmo2": ("olmo2", SMALL | {"tie_word_embeddings": False, "pad_token_id": None}),
    "llama_biased": (
        "llama",
        SMALL
        | {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu", "tie_word_embeddings": False},
    ),
    "qwen3_yarn": (
        "qwen3",
        SMALL | {"head_dim": 16, "use_sliding_window": False, "rope_parameters": YARN},
    ),
    "olmo3": (
        "olmo3",
        SMALL
        | IDS
        | {
            "num_hidden_layers": 5,
            "sliding_window": 5,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "full_attention": YARN | {"attention_factor": 1.2},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
    ),
    "smollm3": ("smollm3", SMALL | IDS | {"num_hidden_layers": 5}),
    "phi3_short": (
        "phi3",
        SMALL
        | IDS
        | {"original_max_position_embeddings": 64, "sliding_window": 9, "rope_parameters": dict(LONGROPE)},
    ),
    "phi3_long": (
        "phi3",
        SMALL | IDS | {"original_max_position_embeddings": 4, "rope_parameters": dict(LONGROPE)},
    ),
    "granite": (
        "granite",
        SMALL
        | IDS
        | {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.25,
            "attention_multiplier": 0.2,
            "logits_scaling": 4.0,
        },
    ),
    "pythia": (
        "gpt_neox",
        {key: value for key, value in SMALL.items() if key != "num_key_value_heads"} | IDS,
    ),
    "deepseek_v3": (
        "deepseek_v3",
        SMALL | IDS | DEEPSEEK | {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}},
    ),
    "moonlight": (
        "deepseek_v3",
        SMALL
        | IDS
        | DEEPSEEK
        | {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "rope_interleave": False, "v_head_dim": 12}
        | {"first_k_dense_replace": 0, "norm_topk_prob": False, "n_shared_experts": 1},
    ),
    "qwen3_next": (
        "qwen3_next",
        SMALL
        | IDS
        | {
            "num_hidden_layers": 5,
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            # what a DeltaNet reads of a key that is new is near zero, and its norm would enlarge the rounding
            "rms_norm_eps": 1e-2,
            "tie_word_embeddings": False,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        SMALL
        | IDS
        | {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 5,
            "rope_parameters": YARN | {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0},
        },
    ),
    "llama4": (
        "llama4_text",
        SMALL
        | IDS
        | {
            "num_hidden_layers": 5,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "attention_chunk_size": 5,
            "floor_scale": 6,
            "rope_parameters": LLAMA3_ROPE | {"high_freq_factor": 1.0},
        },
    ),
    "nanochat": ("nanochat", SMALL | IDS),
    "mixtral": (
        "mixtral",
        SMALL | {"num_local_experts": 4, "sliding_window": None, "tie_word_embeddings": False},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        SMALL
        | {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "tie_word_embeddings": False,
        },
    ),
}


def tokens() -> np.ndarray:
    return np.random.default_rng(7).integers(1, VOCAB, (2, LENGTH)).astype(np.int32)


def draw(name: str, shape: list[int]) -> np.ndarray:
    """A tensor from its name: matrices keep the variance of what they multiply, norms are near one."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        return (0.2 * values + (0 if name.endswith("bias") else 1)).astype(np.float32)
    return (values * (0.7 if "embed" in name or "wte" in name else shape[-1] ** -0.5)).astype(np.float32)


def write_folder(folder: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """A Hugging Face folder of drawn weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: draw(name, shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def stored(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """config and shapes; and the stored logits, loss, grad_norm and greedy tokens."""
    with np.load(STORED / f"{name}.npz", allow_pickle=False) as arrays:
        return json.loads((STORED / f"{name}.json").read_text()), dict(arrays)


def load(folder: Path) -> Any:
    """The `transformers` model of a folder, float32; fails where a tensor is missing or left over."""
    import torch  # pyrefly: ignore[missing-import]
    from transformers import AutoModelForCausalLM  # pyrefly: ignore[missing-import]

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    left = {kind: names for kind, names in info.items() if names}
    assert not left, left
    return model.eval()


def outputs(model: Any) -> dict[str, np.ndarray]:
    import torch  # pyrefly: ignore[missing-import]

    ids = torch.tensor(tokens(), dtype=torch.long)
    logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, VOCAB), ids[:, 1:].reshape(-1))
    loss.backward()
    squares = [float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None]
    generation = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    greedy = model.generate(
        ids[:, :PROMPT], attention_mask=torch.ones(2, PROMPT, dtype=torch.long), **generation
    )
    return {
        "logits": logits.detach().numpy().astype(np.float32),
        "loss": np.float64(loss.item()),
        "grad_norm": np.float64(sum(squares) ** 0.5),
        "greedy": greedy[:, PROMPT:].numpy().astype(np.int32),
    }


def renew(folder: Path, names: list[str]) -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM  # pyrefly: ignore[missing-import]

    STORED.mkdir(exist_ok=True)
    for name, (kind, fields) in CONFIGS.items():
        if names and name not in names:
            continue
        config = CONFIG_MAPPING[kind](**fields)
        saved = folder / name
        AutoModelForCausalLM.from_config(config).save_pretrained(saved)
        from safetensors import safe_open

        with safe_open(saved / "model.safetensors", framework="numpy") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
        written = json.loads((saved / "config.json").read_text())
        write_folder(saved, written, shapes)
        np.savez_compressed(STORED / f"{name}.npz", **outputs(load(saved)))
        (STORED / f"{name}.json").write_text(
            json.dumps({"config": written, "shapes": shapes}, indent=1) + "\n"
        )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        renew(Path(made), sys.argv[1:])
