"""The families of Hugging Face folders: which fields of config.json and which tensors make which of ours.

A family is a table. What a table cannot say for a field or value is refused by name, never guessed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime.errors import UserError

RUN_FIELDS = ("dtype", "attention", "remat", "scan", "stage_microbatches", "balance_loss")
"""Fields that say how a model runs and not what it computes; a folder does not carry them."""

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


@dataclass(frozen=True)
class Part:
    """One of our weights and the tensor that holds it."""

    ours: str
    name: str
    """With {layer} and {expert} where there is one each."""
    inputs: int = 0
    """How many of our leading axes are inputs of the matmul; 0: a vector, or a matrix laid out as ours."""
    transposed: bool = True
    """Whether the tensor is [outputs, inputs] (torch's Linear) rather than [inputs, outputs]."""
    piece: tuple[int, int] = (0, 1)
    """(i, n): it is the i-th of n equal parts along the outputs."""


@dataclass(frozen=True, kw_only=True)
class Family:
    model_type: str
    architecture: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Our fields that this family always has."""
    keys: Mapping[str, str] = field(default_factory=lambda: KEYS)
    expected: Mapping[str, Any] = field(default_factory=dict)
    """Keys of config.json that must have this value, where they are present."""
    tied_default: bool = False
    window: str = ""
    """none, all layers, or `n`: all but each n-th."""
    names: str = "llama"


RMS = {"qk_norm": False}
GEMMA = {
    "norm_placement": "both",
    "norm_plus_one": True,
    "embedding_scale": True,
    "activation": "gelu",
}
NO_BIAS = {"attention_bias": False, "mlp_bias": False}
CAPS = {"attention_softcap": "attn_logit_softcapping", "logit_softcap": "final_logit_softcapping"}
EXPERTS = {"experts_per_token": "num_experts_per_tok"}
SILU, TANH = {"hidden_act": "silu"}, {"hidden_activation": "gelu_pytorch_tanh"}

FAMILIES = (
    Family(
        model_type="llama",
        architecture="LlamaForCausalLM",
        fixed=RMS,
        expected=NO_BIAS | SILU | {"pretraining_tp": 1},
    ),
    Family(model_type="mistral", architecture="MistralForCausalLM", fixed=RMS, expected=SILU, window="all"),
    Family(
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        fixed=RMS | {"qkv_bias": True},
        expected=SILU | {"use_sliding_window": False},
    ),
    Family(
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        fixed={"qk_norm": True},
        expected=SILU | NO_BIAS | {"use_sliding_window": False},
    ),
    Family(
        model_type="gemma2",
        architecture="Gemma2ForCausalLM",
        fixed=RMS | GEMMA,
        keys=KEYS | CAPS,
        expected=NO_BIAS | TANH | {"use_bidirectional_attention": None},
        tied_default=True,
        window="2",
        names="gemma",
    ),
    Family(
        model_type="gemma3_text",
        architecture="Gemma3ForCausalLM",
        fixed=GEMMA | {"qk_norm": True},
        keys=KEYS | CAPS,
        expected=NO_BIAS | TANH | {"use_bidirectional_attention": False},
        tied_default=True,
        window="6",
        names="gemma",
    ),
    Family(
        model_type="olmo2",
        architecture="Olmo2ForCausalLM",
        fixed={"qk_norm": True, "qk_norm_whole": True, "norm_placement": "after"},
        expected=NO_BIAS | SILU,
        names="olmo2",
    ),
    Family(
        model_type="mixtral",
        architecture="MixtralForCausalLM",
        fixed=RMS | {"normalize_experts": True},
        keys=KEYS | EXPERTS | {"experts": "num_local_experts"},
        expected=SILU,
        window="all",
        names="mixtral",
    ),
    Family(
        model_type="qwen3_moe",
        architecture="Qwen3MoeForCausalLM",
        fixed={"qk_norm": True},
        keys=KEYS
        | EXPERTS
        | {
            "experts": "num_experts",
            "d_hidden": "moe_intermediate_size",
            "normalize_experts": "norm_topk_prob",
        },
        expected=SILU
        | NO_BIAS
        | {"use_sliding_window": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
        names="qwen3_moe",
    ),
    Family(
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        fixed=RMS
        | {
            "norm": "layer",
            "positions": "learned",
            "activation": "gelu",
            "gated": False,
            "qkv_bias": True,
            "output_bias": True,
        },
        keys={
            "vocab_size": "vocab_size",
            "layers": "n_layer",
            "d_model": "n_embd",
            "heads": "n_head",
            "d_hidden": "n_inner",
            "max_length": "n_positions",
            "norm_eps": "layer_norm_epsilon",
            "tied": "tie_word_embeddings",
        },
        expected={
            "activation_function": "gelu_new",
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        tied_default=True,
        names="gpt2",
    ),
)
ALIASES = {"num_local_experts": "num_experts"}  # of Qwen3-MoE in transformers 5
BY_TYPE = {family.model_type: family for family in FAMILIES}


def read_config(hf: Mapping[str, Any], where: str) -> tuple[Family, ModelConfig]:
    """The family and our config of a config.json; UserError, naming `where`, for what is not supported."""
    family = BY_TYPE.get(hf.get("model_type", ""))
    if family is None:
        known = ", ".join(BY_TYPE)
        raise UserError(f"{where}: model_type {hf.get('model_type')!r} is not one of {known}")
    for key, value in family.expected.items():
        if key in hf and hf[key] != value:
            raise UserError(f"{where}: {key} {hf[key]!r} is not supported, only {value!r}")
    hf = (
        {ALIASES.get(key, key): value for key, value in hf.items()}
        if "num_experts" in family.keys.values()
        else hf
    )
    fields = {ours: hf[key] for ours, key in family.keys.items() if hf.get(key) is not None}
    fields.setdefault("tied", family.tied_default)
    absent = [
        key
        for ours, key in family.keys.items()
        if ours in ("vocab_size", "layers", "d_model", "heads") and ours not in fields
    ]
    if absent:
        raise UserError(f"{where}: {absent[0]} is absent")
    fields.setdefault("kv_heads", fields["heads"])
    fields.setdefault("head_dim", fields["d_model"] // fields["heads"])
    fields.setdefault("d_hidden", 4 * fields["d_model"])
    if family.names != "gpt2":
        fields |= _read_rope(hf, where)
    if family.names == "gemma":
        fields["attention_scale"] = float(hf.get("query_pre_attn_scalar", 256)) ** -0.5
    fields |= _read_window(family, hf, fields["layers"], where)
    return family, ModelConfig(**{**fields, **family.fixed})


def _read_rope(hf: Mapping[str, Any], where: str) -> dict[str, Any]:
    """From `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (4)."""
    rope = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
    found: dict[str, Any] = {}
    if "full_attention" in rope:
        local = rope.get("sliding_attention") or {}
        found["rope_local_theta"] = float(local.get("rope_theta", 10_000.0))
        rope = dict(rope["full_attention"])
    elif hf.get("rope_local_base_freq"):
        found["rope_local_theta"] = float(hf["rope_local_base_freq"])
    found["rope_theta"] = float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return found
    if kind not in ("linear", "llama3"):
        raise UserError(f"{where}: rope scaling {kind!r} is not supported, only linear and llama3")
    found |= {"rope_scaling": kind, "rope_factor": float(rope["factor"])}
    if kind == "llama3":
        found["rope_low_frequency"] = float(rope["low_freq_factor"])
        found["rope_high_frequency"] = float(rope["high_freq_factor"])
        found["rope_length"] = int(rope["original_max_position_embeddings"])
    return found


def _read_window(family: Family, hf: Mapping[str, Any], layers: int, where: str) -> dict[str, Any]:
    if not family.window or hf.get("sliding_window") is None:
        return {}
    found: dict[str, Any] = {"window": hf["sliding_window"]}
    if family.window == "all":
        return found
    every = int(hf.get("sliding_window_pattern") or hf.get("_sliding_window_pattern") or family.window)
    kinds = hf.get("layer_types")
    if kinds is not None:
        kinds = list(kinds)
        every = kinds.index("full_attention") + 1 if "full_attention" in kinds else layers + 1
        if kinds != _layer_types(layers, every):
            raise UserError(
                f"{where}: layer_types is no repetition of local layers with one global behind them"
            )
        if every > layers:
            return found
    return found | {"global_every": every}


def _layer_types(layers: int, every: int) -> list[str]:
    return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]


def write_config(config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family that can hold this model, and its config.json; UserError where none can."""
    plain = replace(config, **{name: getattr(ModelConfig(), name) for name in RUN_FIELDS})
    for family in FAMILIES:
        hf = _fields_of(family, config)
        try:
            found = read_config(hf, "config.json")[1]
        except UserError:
            continue  # this family cannot say it; the others are tried
        if found == plain:
            return family, hf
    closest = min((_unlike(plain, read_config(_fields_of(f, config), "")[1]) for f in FAMILIES), key=len)
    raise UserError(f"no Hugging Face architecture has this model's {', '.join(closest)}")


def _unlike(a: ModelConfig, b: ModelConfig) -> list[str]:
    ours, theirs = asdict(a), asdict(b)
    return [name for name in ours if ours[name] != theirs[name]]


def _fields_of(family: Family, config: ModelConfig) -> dict[str, Any]:
    hf: dict[str, Any] = {"model_type": family.model_type, "architectures": [family.architecture]}
    hf |= {key: value for key, value in family.expected.items() if value is not None}
    hf |= {key: getattr(config, ours) for ours, key in family.keys.items()}
    hf |= {key: hf[key] or None for key in CAPS.values() if key in hf}
    if family.names == "gpt2":
        return hf
    hf["rope_theta"] = config.rope_theta
    scaling: dict[str, Any] = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling["low_freq_factor"] = config.rope_low_frequency
        scaling["high_freq_factor"] = config.rope_high_frequency
        scaling["original_max_position_embeddings"] = config.rope_length
    hf["rope_scaling"] = None if config.rope_scaling == "none" else scaling
    if family.model_type == "gemma3_text":
        hf["rope_local_base_freq"] = config.rope_local_theta
    if family.names == "gemma":
        scale = config.attention_scale or config.head_dim**-0.5
        hf["query_pre_attn_scalar"] = round(scale**-2)
    if family.window:
        hf["sliding_window"] = config.window or None
    if family.window.isdigit():
        hf["layer_types"] = _layer_types(config.layers, config.global_every or config.layers + 1)
    return hf


def parts(family: Family, config: ModelConfig) -> list[Part]:
    """Every weight of ours and where it is in a folder of this family."""
    found = _gpt2_parts() if family.names == "gpt2" else _llama_parts(family.names)
    optional = {
        "_bias_NH": config.qkv_bias,
        "_bias_KH": config.qkv_bias,
        "attention.q_norm.scale": config.qk_norm,
        "attention.k_norm.scale": config.qk_norm,
        "head_DV": not config.tied,
    }
    return [part for part in found if all(has for end, has in optional.items() if part.ours.endswith(end))]


def _llama_parts(names: str) -> list[Part]:
    layer, attention = "model.layers.{layer}.", "model.layers.{layer}.self_attn."
    found = [
        Part("embedding_VD", "model.embed_tokens.weight"),
        Part("norm.scale", "model.norm.weight"),
        Part("head_DV", "lm_head.weight", 1),
        Part("blocks.attention.q_DNH", attention + "q_proj.weight", 1),
        Part("blocks.attention.k_DKH", attention + "k_proj.weight", 1),
        Part("blocks.attention.v_DKH", attention + "v_proj.weight", 1),
        Part("blocks.attention.o_NHD", attention + "o_proj.weight", 2),
        Part("blocks.attention.q_bias_NH", attention + "q_proj.bias"),
        Part("blocks.attention.k_bias_KH", attention + "k_proj.bias"),
        Part("blocks.attention.v_bias_KH", attention + "v_proj.bias"),
        Part("blocks.attention.q_norm.scale", attention + "q_norm.weight"),
        Part("blocks.attention.k_norm.scale", attention + "k_norm.weight"),
    ]
    norms = {
        "gemma": {
            "attention_norm": "input_layernorm",
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        },
        "olmo2": {
            "attention_post_norm": "post_attention_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        },
    }.get(names, {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"})
    found += [Part(f"blocks.{ours}.scale", f"{layer}{name}.weight") for ours, name in norms.items()]
    if names == "mixtral":
        expert = layer + "block_sparse_moe.experts.{expert}."
        router, mlp = "block_sparse_moe.gate.weight", ("w1", "w3", "w2")
    else:
        expert = layer + ("mlp.experts.{expert}." if names == "qwen3_moe" else "mlp.")
        router, mlp = "mlp.gate.weight", ("gate_proj", "up_proj", "down_proj")
    if "{expert}" in expert:
        found.append(Part("blocks.mlp.router_DE", layer + router, 1))
        ours = ("gate_EDF", "up_EDF", "down_EFD")
    else:
        ours = ("gate_DF", "up_DF", "down_FD")
    return found + [Part(f"blocks.mlp.{o}", f"{expert}{n}.weight", 1) for o, n in zip(ours, mlp, strict=True)]


def _gpt2_parts() -> list[Part]:
    """Conv1D weights are [inputs, outputs]; queries, keys and values are one of them."""
    layer = "transformer.h.{layer}."
    found = [
        Part("embedding_VD", "transformer.wte.weight"),
        Part("positions_TD", "transformer.wpe.weight"),
        Part("norm.scale", "transformer.ln_f.weight"),
        Part("norm.bias", "transformer.ln_f.bias"),
        Part("head_DV", "lm_head.weight", 1),
        Part("blocks.attention.o_NHD", layer + "attn.c_proj.weight", 2, transposed=False),
        Part("blocks.attention.o_bias_D", layer + "attn.c_proj.bias"),
        Part("blocks.mlp.up_DF", layer + "mlp.c_fc.weight", 1, transposed=False),
        Part("blocks.mlp.up_bias_F", layer + "mlp.c_fc.bias"),
        Part("blocks.mlp.down_FD", layer + "mlp.c_proj.weight", 1, transposed=False),
        Part("blocks.mlp.down_bias_D", layer + "mlp.c_proj.bias"),
    ]
    for ours, name in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
        found += [
            Part(f"blocks.{ours}.{o}", f"{layer}{name}.{n}")
            for o, n in (("scale", "weight"), ("bias", "bias"))
        ]
    for i, (weight, bias) in enumerate(
        (("q_DNH", "q_bias_NH"), ("k_DKH", "k_bias_KH"), ("v_DKH", "v_bias_KH"))
    ):
        name = layer + "attn.c_attn."
        found.append(Part(f"blocks.attention.{weight}", name + "weight", 1, transposed=False, piece=(i, 3)))
        found.append(Part(f"blocks.attention.{bias}", name + "bias", piece=(i, 3)))
    return found
