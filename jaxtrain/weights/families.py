"""The families of Hugging Face folders: which fields of config.json make which of ours.

A family is a table. What a table cannot say for a field or value is refused by name; what a folder leaves out
is what the family's published code takes then (configuration_*.py of `transformers`), never a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEYS = {
    "vocab_size": "vocab_size",
    "layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_hidden": "intermediate_size",
    "max_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
"""Our field → key of config.json, of most families."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    model_type: str
    architecture: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Our fields that this family always has."""
    keys: Mapping[str, str] = field(default_factory=lambda: KEYS)
    expected: Mapping[str, Any] = field(default_factory=dict)
    """Keys of config.json that must have this value, where they are present."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of keys of config.json that are absent, beside COMMON."""
    window: str = ""
    """none, all layers, or `n`: all but each n-th; `no_rope`: those that are rotated."""
    local: str = "sliding_attention"
    """The name of such a layer in `layer_types`."""
    names: str = "llama"
    prefix: str = "model."
    """Before the names of the base model's tensors."""
    other_prefixes: tuple[str, ...] = ("",)
    """The same in other folders: base models are saved without one."""
    required: tuple[str, ...] = ("vocab_size", "layers", "d_model", "heads", "d_hidden")
    """Our fields without a default: a folder has to say them."""
    rotates_part: bool = False
    """Whether `partial_rotary_factor` may leave dimensions of a head without rotation."""
    has_local_rope: bool = False
    """Whether local layers keep the base of the others when these are stretched."""
    predicted: str = ""
    """Key of how many layers stand behind the others to predict further tokens; they are not read."""
    nested: str = ""
    """Key of config.json under which the language model's own stand, where others stand beside it."""


COMMON: Mapping[str, Any] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
RMS = {"qk_norm": False}
LAYER_NORM = {"norm": "layer", "gated": False, "qk_norm": False, "mlp_bias": True}
ATTENTION_BIAS = {"qkv_bias": "attention_bias", "output_bias": "attention_bias"}
ACT = {"activation": "hidden_act"}
ANY_BIAS = KEYS | ATTENTION_BIAS | {"mlp_bias": "mlp_bias"} | ACT
CAPS = {"attention_softcap": "attn_logit_softcapping", "logit_softcap": "final_logit_softcapping"}
EXPERTS = {"experts_per_token": "num_experts_per_tok"}
SILU = {"hidden_act": "silu"}
SILU_ALL_SEE = SILU | {"use_sliding_window": False}
GEMMA: dict[str, Any] = {
    "keys": KEYS | CAPS | ATTENTION_BIAS,
    "expected": {"hidden_activation": "gelu_pytorch_tanh", "mlp_bias": False},
    "names": "gemma",
}
GEMMA_FIXED = {"norm_placement": "both", "norm_plus_one": True, "embedding_scale": True, "activation": "gelu"}
GEMMA_DEFAULTS = {"num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True}
GEMMA_DEFAULTS |= {"query_pre_attn_scalar": 256, "sliding_window": 4096}
GEMMA3 = GEMMA | {
    "fixed": GEMMA_FIXED | {"qk_norm": True},
    "expected": GEMMA["expected"] | {"use_bidirectional_attention": False},
    "defaults": GEMMA_DEFAULTS
    | {"max_position_embeddings": 131_072, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0},
    "window": "6",
}
OLMO: dict[str, Any] = {
    "fixed": {"qk_norm": True, "qk_norm_whole": True, "norm_placement": "after"},
    "keys": KEYS | ATTENTION_BIAS,
    "expected": SILU,
    "names": "olmo2",
}
GPT_OSS_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}
OLMO_DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5}

LLAMA4: dict[str, Any] = {
    "fixed": {"qk_norm_last": True, "qk_norm_bare": True, "rotary_interleaved": True, "global_rotary": False}
    | {"chunked": True, "router": "sigmoid_in", "normalize_experts": False, "shared_experts": 1},
    "keys": KEYS
    | ATTENTION_BIAS
    | EXPERTS
    | {"experts": "num_local_experts", "qk_norm": "use_qk_norm"}
    | {"temperature_scale": "attn_scale", "temperature_length": "floor_scale"},
    "expected": SILU | {"interleave_moe_layer_step": 1},
    "defaults": {"num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131_072}
    | {"rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "num_local_experts": 16, "num_experts_per_tok": 1}
    | {"use_qk_norm": True, "no_rope_layer_interval": 4, "attention_chunk_size": 8192}
    | {"attn_scale": 0.1, "floor_scale": 8192},
    "window": "no_rope",
    "names": "llama4",
}

FAMILIES = (
    Family(
        model_type="llama",
        architecture="LlamaForCausalLM",
        fixed=RMS,
        keys=ANY_BIAS,
        expected={"pretraining_tp": 1},
        defaults={"max_position_embeddings": 2048},
    ),
    Family(
        model_type="mistral",
        architecture="MistralForCausalLM",
        fixed=RMS,
        expected=SILU,
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
        window="all",
    ),
    Family(
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        fixed=RMS | {"qkv_bias": True},
        expected=SILU_ALL_SEE,
        defaults={"num_key_value_heads": 32, "max_position_embeddings": 32_768},
    ),
    Family(
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        fixed={"qk_norm": True},
        keys=KEYS | ATTENTION_BIAS,
        expected=SILU_ALL_SEE | {"mlp_bias": False},
        defaults={"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768},
    ),
    Family(
        model_type="gemma2",
        architecture="Gemma2ForCausalLM",
        fixed=RMS | GEMMA_FIXED,
        defaults=GEMMA_DEFAULTS
        | {"max_position_embeddings": 8192}
        | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        window="2",
        **GEMMA | {"expected": GEMMA["expected"] | {"use_bidirectional_attention": None}},
    ),
    Family(model_type="gemma3_text", architecture="Gemma3ForCausalLM", **GEMMA3),
    Family(
        model_type="gemma3",
        architecture="Gemma3ForConditionalGeneration",
        prefix="model.language_model.",
        other_prefixes=("language_model.model.", "language_model."),
        nested="text_config",
        **GEMMA3,
    ),
    Family(model_type="olmo2", architecture="Olmo2ForCausalLM", defaults=OLMO_DEFAULTS, **OLMO),
    Family(
        model_type="olmo3",
        architecture="Olmo3ForCausalLM",
        defaults=OLMO_DEFAULTS | {"rope_theta": 500_000.0, "sliding_window": 4096},
        window="4",
        has_local_rope=True,
        **OLMO,
    ),
    Family(
        model_type="smollm3",
        architecture="SmolLM3ForCausalLM",
        fixed=RMS | {"global_rotary": False},
        keys=ANY_BIAS,
        expected={"use_sliding_window": False},
        defaults={"num_key_value_heads": 4, "max_position_embeddings": 32_768, "rope_theta": 2_000_000.0}
        | {"tie_word_embeddings": True, "no_rope_layer_interval": 4},
        window="no_rope",
    ),
    Family(
        model_type="phi3",
        architecture="Phi3ForCausalLM",
        fixed=RMS,
        keys=KEYS | ACT,
        defaults={"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
        | {"original_max_position_embeddings": 4096},
        window="all",
        names="phi3",
        rotates_part=True,
    ),
    Family(
        model_type="granite",
        architecture="GraniteForCausalLM",
        fixed=RMS,
        keys=ANY_BIAS
        | {name: name for name in ("embedding_multiplier", "residual_multiplier")}
        | {"attention_scale": "attention_multiplier", "logit_divisor": "logits_scaling"},
        defaults={"max_position_embeddings": 2048, "attention_multiplier": 1.0},
    ),
    Family(
        model_type="gpt_neox",
        architecture="GPTNeoXForCausalLM",
        fixed=LAYER_NORM,
        keys={name: key for name, key in ANY_BIAS.items() if name not in ("kv_heads", "head_dim", "mlp_bias")}
        | {"norm_eps": "layer_norm_eps", "parallel": "use_parallel_residual"},
        defaults={"max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
        | {"attention_bias": True, "use_parallel_residual": True, "partial_rotary_factor": 0.25},
        names="gpt_neox",
        rotates_part=True,
        prefix="gpt_neox.",
    ),
    Family(
        model_type="mixtral",
        architecture="MixtralForCausalLM",
        fixed=RMS | {"normalize_experts": True},
        keys=KEYS | EXPERTS | {"experts": "num_local_experts"},
        expected=SILU,
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5}
        | {"rope_theta": 1_000_000.0, "num_local_experts": 8, "num_experts_per_tok": 2},
        window="all",
        names="mixtral",
    ),
    Family(
        model_type="qwen3_moe",
        architecture="Qwen3MoeForCausalLM",
        fixed={"qk_norm": True},
        keys=KEYS
        | ATTENTION_BIAS
        | EXPERTS
        | {"experts": "num_experts", "d_hidden": "moe_intermediate_size"}
        | {"normalize_experts": "norm_topk_prob"},
        expected=SILU_ALL_SEE | {"decoder_sparse_step": 1, "mlp_only_layers": []},
        defaults={"num_key_value_heads": 4, "max_position_embeddings": 32_768}
        | {"num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": False},
        names="qwen3_moe",
    ),
    Family(
        model_type="qwen3_next",
        architecture="Qwen3NextForCausalLM",
        fixed={"qk_norm": True, "norm_plus_one": True, "output_gates": True, "shared_experts": 1},
        keys=KEYS
        | EXPERTS
        | {"experts": "num_experts", "d_hidden": "moe_intermediate_size"}
        | {"normalize_experts": "norm_topk_prob"}
        | {"delta_key_heads": "linear_num_key_heads", "delta_value_heads": "linear_num_value_heads"}
        | {"delta_key_dim": "linear_key_head_dim", "delta_value_dim": "linear_value_head_dim"},
        expected=SILU
        | {"attention_bias": False, "decoder_sparse_step": 1, "mlp_only_layers": []}
        | {"linear_conv_kernel_dim": 4},
        defaults={"num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32_768}
        | {"partial_rotary_factor": 0.25, "num_experts": 512, "num_experts_per_tok": 10}
        | {"norm_topk_prob": True, "shared_expert_intermediate_size": 512}
        | {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128}
        | {"linear_value_head_dim": 128, "full_attention_interval": 4, "sliding_window": 0},
        window="4",
        local="linear_attention",
        names="qwen3_next",
        rotates_part=True,
    ),
    Family(
        model_type="deepseek_v3",
        architecture="DeepseekV3ForCausalLM",
        fixed=RMS | {"router": "sigmoid"},
        keys=KEYS
        | EXPERTS
        | {"latent_rank": "kv_lora_rank", "query_rank": "q_lora_rank", "value_dim": "v_head_dim"}
        | {"head_dim": "qk_nope_head_dim", "rotary_dim": "qk_rope_head_dim"}
        | {"rotary_interleaved": "rope_interleave", "experts_scale": "routed_scaling_factor"}
        | {"experts": "n_routed_experts", "d_hidden": "moe_intermediate_size"}
        | {"shared_experts": "n_shared_experts", "normalize_experts": "norm_topk_prob"}
        | {"expert_groups": "n_group", "groups_per_token": "topk_group"}
        | {"dense_layers": "first_k_dense_replace", "dense_hidden": "intermediate_size"},
        expected=SILU
        | {"attention_bias": False, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
        | {"moe_layer_freq": 1},
        defaults={"num_key_value_heads": 128, "max_position_embeddings": 4096, "q_lora_rank": 1536}
        | {"rope_interleave": True, "n_shared_experts": 1, "num_experts_per_tok": 8}
        | {"norm_topk_prob": True, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5}
        | {"first_k_dense_replace": 3},
        required=("vocab_size", "layers", "d_model", "heads", "d_hidden", "dense_hidden", "experts")
        + ("latent_rank", "head_dim", "rotary_dim", "value_dim"),
        names="deepseek_v3",
        predicted="num_nextn_predict_layers",
    ),
    Family(
        model_type="gpt_oss",
        architecture="GptOssForCausalLM",
        fixed=RMS | {"sinks": True, "mlp_bias": True, "activation": "clipped_swiglu"},
        keys=KEYS | ATTENTION_BIAS | EXPERTS | {"experts": "num_local_experts"},
        expected=SILU | {"swiglu_alpha": 1.702, "swiglu_limit": 7.0},
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5}
        | {"head_dim": 64, "attention_bias": True, "sliding_window": 128, "num_local_experts": 128}
        | {"num_experts_per_tok": 4, "rope_theta": 150_000.0, "rope_scaling": GPT_OSS_ROPE},
        window="2",
        names="gpt_oss",
    ),
    Family(model_type="llama4_text", architecture="Llama4ForCausalLM", **LLAMA4),
    Family(
        model_type="llama4",
        architecture="Llama4ForConditionalGeneration",
        prefix="language_model.model.",
        nested="text_config",
        **LLAMA4,
    ),
    Family(
        model_type="nanochat",
        architecture="NanoChatForCausalLM",
        fixed={"norm": "bare", "qk_norm": True, "qk_norm_last": True, "embedding_norm": True}
        | {"rotary_reversed": True, "gated": False},
        keys=KEYS | ATTENTION_BIAS | ACT | {"logit_softcap": CAPS["logit_softcap"]},
        defaults={"max_position_embeddings": 2048, "hidden_act": "relu2", "final_logit_softcapping": 15.0},
        names="nanochat",
    ),
    Family(
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        fixed=LAYER_NORM
        | {"positions": "learned", "activation": "gelu", "qkv_bias": True, "output_bias": True},
        keys={"vocab_size": "vocab_size", "layers": "n_layer", "d_model": "n_embd", "heads": "n_head"}
        | {"d_hidden": "n_inner", "max_length": "n_positions", "norm_eps": "layer_norm_epsilon"}
        | {"tied": "tie_word_embeddings"},
        expected={"activation_function": "gelu_new", "scale_attn_weights": True}
        | {"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        defaults={"n_positions": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
        required=("vocab_size", "layers", "d_model", "heads"),
        names="gpt2",
        prefix="transformer.",
    ),
)
BY_TYPE = {family.model_type: family for family in FAMILIES}
