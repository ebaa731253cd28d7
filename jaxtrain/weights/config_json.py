"""config.json of a Hugging Face folder to our config and back, by the tables of the families."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from dataclasses import fields as fields_of
from typing import Any

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import reading
from jaxtrain.weights.families import BY_TYPE, CAPS, COMMON, FAMILIES, Family

Said = Mapping[str, Any]
RUN_FIELDS = ("dtype", "float8", "attention", "remat", "scan", "stage_microbatches", "balance_loss")
"""Fields that say how a model runs and not what it computes; a folder does not carry them."""
SHARED, CHUNK = "shared_expert_intermediate_size", "attention_chunk_size"
ALIASES = {"num_local_experts": "num_experts"}  # of Qwen3-MoE in transformers 5
ACTIVATIONS = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_exact",
    "relu2": "relu2",
}
"""Name in config.json → ours; of several the first is written."""
_STRETCH = {"rope_factor": ("factor", ...)}
_FROM = _STRETCH | {"rope_length": ("original_max_position_embeddings", ...)}
_SCALE = {"rope_attention_factor": ("attention_factor", 0.0)}
SCALINGS: Mapping[str, Mapping[str, tuple[str, Any]]] = {
    "linear": _STRETCH,
    "llama3": _FROM
    | {"rope_low_frequency": ("low_freq_factor", ...), "rope_high_frequency": ("high_freq_factor", ...)},
    "yarn": _FROM
    | _SCALE
    | {"rope_low_frequency": ("beta_slow", 1.0), "rope_high_frequency": ("beta_fast", 32.0)}
    | {"rope_truncate": ("truncate", True), "rope_score_scale": ("mscale_all_dim", 0.0)},
    "longrope": _FROM | _SCALE | {"rope_short": ("short_factor", ...), "rope_long": ("long_factor", ...)},
}
"""Kind of rope scaling → our field → its key, and what an absent key means (...: it has to be there)."""
KINDS = {one.name: type(one.default) for one in fields_of(ModelConfig)}


def read_config(hf: Said, where: str) -> tuple[Family, ModelConfig]:
    """The family and our config of a config.json; UserError, naming `where`, for what is not supported."""
    kind = hf.get("model_type", "")
    family = BY_TYPE.get(kind) if isinstance(kind, str) else None
    if family is None:
        known = ", ".join(BY_TYPE)
        raise UserError(f"{where}: model_type {repr(kind)[:60]} is not one of {known}")
    if family.nested:
        outer = {key: hf[key] for key in ("tie_word_embeddings",) if key in hf}
        inner = hf.get(family.nested)
        hf = outer | (inner if isinstance(inner, dict) else {})
    quantised = hf.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
    if quantised is not None and (family.model_type, method) != ("gpt_oss", "mxfp4"):
        words = "quantised weights are not read; name a copy of the model in bfloat16"
        raise UserError(f"{where}: quantization_config {method or ''}: {words}")
    for key, value in family.expected.items():
        if key in hf and hf[key] != value:
            raise UserError(f"{where}: {key} {hf[key]!r} is not supported, only {value!r}")
    if "num_experts" in family.keys.values():
        hf = {ALIASES.get(key, key): value for key, value in hf.items()}
    said = {**COMMON, **family.defaults, **hf}
    fields = {ours: said[key] for ours, key in family.keys.items() if said.get(key) is not None}
    for ours in family.required:
        if ours not in fields:
            raise UserError(f"{where}: {family.keys[ours]} is absent")
    _check_numbers(fields, family.keys, where)
    if "latent_rank" in fields:
        fields["head_dim"] += fields["rotary_dim"]
    if said.get(SHARED) not in (None, fields.get("d_hidden")):
        raise UserError(f"{where}: {SHARED} {said[SHARED]} is not supported, only moe_intermediate_size")
    if said.get("moe_layers") not in (None, [*range(fields["layers"])]):
        raise UserError(f"{where}: moe_layers other than all layers are not supported")
    if not said.get("attn_temperature_tuning", True):
        fields["temperature_scale"] = 0.0
    fields.setdefault("kv_heads", fields["heads"])
    fields.setdefault("head_dim", fields["d_model"] // fields["heads"])
    fields.setdefault("d_hidden", 4 * fields["d_model"])
    with reading(f"{where}: its positions or windows"):
        if (name := fields.get("activation")) is not None:
            if name not in ACTIVATIONS:
                known = ", ".join(ACTIVATIONS)
                raise UserError(f"{where}: hidden_act {name!r} is not supported, only {known}")
            fields["activation"] = ACTIVATIONS[name]
        if "positions" not in family.fixed:
            fields |= _read_rope(family, said, hf, fields, where)
        if "query_pre_attn_scalar" in family.defaults:
            fields["attention_scale"] = float(said["query_pre_attn_scalar"]) ** -0.5
        fields |= _read_window(family, said, fields, where)
    _check_numbers(fields, family.keys, where)
    return family, ModelConfig(**{**fields, **family.fixed})


LARGEST = {"layers": 10_000, "experts": 100_000, "d_model": 1 << 20, "head_dim": 1 << 16, "heads": 1 << 16}
"""Of what decides how much is made; any other whole number is at most 2^28."""
_NOT_ZERO = ("rope_theta", "rope_factor", "norm_eps", "logit_divisor")
_MAY_BE_ZERO = ("window", "global_every", "experts", "shared_experts", "dense_layers", "dense_hidden")


def _check_numbers(fields: Said, keys: Mapping[str, str], where: str) -> None:
    """UserError for a field that is no number of its kind, or an absurd one."""
    for name, value in fields.items():
        said = f"{where}: {keys.get(name, name)} is {str(value)[:40]}"
        if KINDS[name] is bool and type(value) is not bool:
            raise UserError(f"{said}; it is true or false")
        if KINDS[name] is int:
            least, most = int(name not in _MAY_BE_ZERO), LARGEST.get(name, 1 << 28)
            if type(value) is not int or not least <= value <= most:
                raise UserError(f"{said}; it is a whole number from {least} to {most}")
        if KINDS[name] is float:
            is_number = type(value) in (int, float) and 0 <= value <= 1e30
            if not is_number or (value == 0 and name in _NOT_ZERO):
                raise UserError(f"{said}; it is a positive number")


def _read_rope(family: Family, said: Said, hf: Said, fields: Said, where: str) -> dict[str, Any]:
    """From `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (4)."""
    scaling = hf.get("rope_scaling") or family.defaults.get("rope_scaling")
    rope = dict(hf.get("rope_parameters") or scaling or {})
    local = said.get("rope_local_base_freq")
    if "full_attention" in rope:
        local = (rope.get("sliding_attention") or {}).get("rope_theta", local or 10_000.0)
        rope = dict(rope["full_attention"])
    bases = (rope.get("rope_theta"), hf.get("rotary_emb_base"), said["rope_theta"])
    found: dict[str, Any] = {"rope_theta": next((base for base in bases if base is not None), 0)}
    if local or family.has_local_rope:
        found["rope_local_theta"] = local or found["rope_theta"]
    found = {name: float(base) if type(base) is int else base for name, base in found.items()}
    share = rope.get("partial_rotary_factor", hf.get("rotary_pct", said.get("partial_rotary_factor", 1.0)))
    if share != 1.0 and not family.rotates_part:
        raise UserError(f"{where}: partial_rotary_factor {share} is not supported in {family.model_type}")
    if share != 1.0:
        found["rotary_dim"] = int(fields["head_dim"] * share)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("su", "yarn") and family.model_type == "phi3":
        kind = "longrope"
    if kind in ("default", "mrope"):
        return found
    if kind not in SCALINGS:
        raise UserError(f"{where}: rope scaling {kind!r} is not supported, only {', '.join(SCALINGS)}")
    length = said.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    rope["original_max_position_embeddings"] = length
    if kind in ("yarn", "longrope") and length and not rope.get("factor"):
        rope["factor"] = fields.get("max_length", 0) / length
    scales = [rope.get(key) for key in ("mscale", "mscale_all_dim")]
    if kind == "yarn" and rope.get("attention_factor") is None and all(scales):
        one, other = (ModelConfig.yarn_scale(float(rope["factor"]), float(scale)) for scale in scales)
        rope["attention_factor"] = one / other  # DeepSeek's, as two scales
    found["rope_scaling"] = kind
    for ours, (key, default) in SCALINGS[kind].items():
        value = default if rope.get(key) is None else rope[key]
        if value is ...:
            raise UserError(f"{where}: rope scaling {kind!r} without {key}")
        found[ours] = tuple(map(float, value)) if KINDS[ours] is tuple else KINDS[ours](value)
    if "latent_rank" not in family.keys:
        found.pop("rope_score_scale", None)  # the others' code does not read it
    return found


def _read_window(family: Family, said: Said, fields: Said, where: str) -> dict[str, Any]:
    layers, key = fields["layers"], "layer_types"
    if family.window == "no_rope":
        chunk = CHUNK if CHUNK in family.defaults else "max_position_embeddings"
        window, key, every = said[chunk], "no_rope_layers", int(said["no_rope_layer_interval"])
        kinds = [bool(is_rotary) for is_rotary in said.get(key) or _are_local(layers, every)]
    elif not family.window or said.get("sliding_window") is None:
        return {}
    elif family.window == "all":
        return {"window": said["sliding_window"]}
    else:
        window, types = said["sliding_window"], said.get(key)
        patterns = ("sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval")
        pattern = next((said[one] for one in patterns if said.get(one)), family.window)
        is_local = {family.local: True, "full_attention": False}
        kinds = _are_local(layers, int(pattern)) if types is None else [is_local[one] for one in types]
    every = kinds.index(False) + 1 if False in kinds else 0
    if kinds != _are_local(layers, every):
        raise UserError(f"{where}: {key} is no repetition of local layers with one global behind them")
    return {"window": window, "global_every": every}


def _are_local(layers: int, every: int) -> list[bool]:
    """Of each layer; each `every`-th one is not (0: all are)."""
    return [not every or (i + 1) % every != 0 for i in range(layers)]


def write_config(config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family that can hold this model, and its config.json; UserError where none can."""
    plain = replace(config, **{name: getattr(ModelConfig(), name) for name in RUN_FIELDS})
    unlike = []
    for family in FAMILIES:
        hf = _fields_of(family, config)
        try:
            found = read_config(hf, "config.json")[1]
        except UserError:
            continue  # this family cannot say it; the others are tried
        if found == plain:
            return family, hf
        unlike.append([name for name, value in asdict(plain).items() if getattr(found, name) != value])
    closest = ", ".join(min(unlike, key=len, default=["fields"]))
    raise UserError(f"no Hugging Face architecture has this model's {closest}")


def _fields_of(family: Family, config: ModelConfig) -> dict[str, Any]:
    hf: dict[str, Any] = {key: value for key, value in family.expected.items() if value is not None}
    hf |= {key: getattr(config, ours) for ours, key in family.keys.items()}
    hf |= {key: hf[key] or None for key in (*CAPS.values(), "q_lora_rank") if key in hf}
    if "latent_rank" in family.keys:
        hf |= {"qk_nope_head_dim": config.head_dim - config.rotary_dim, family.predicted: 0}
    if "delta_key_heads" in family.keys:
        hf[SHARED] = config.d_hidden
    if "activation" in family.keys:
        names = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
        hf[family.keys["activation"]] = names.get(config.activation)
    if "positions" not in family.fixed:
        hf |= _rope_fields(family, config)
    if "query_pre_attn_scalar" in family.defaults:
        hf["query_pre_attn_scalar"] = round((config.attention_scale or config.head_dim**-0.5) ** -2)
    are_local = _are_local(config.layers, config.global_every)
    if family.window == "no_rope":
        hf["no_rope_layer_interval"] = config.global_every or config.layers + 1
        hf["no_rope_layers"] = [int(is_local) for is_local in are_local]
        hf |= {CHUNK: config.window} if CHUNK in family.defaults else {}
    elif family.window and "delta_key_heads" not in family.keys:
        hf["sliding_window"] = config.window or None
    if family.window.isdigit():
        hf["layer_types"] = [family.local if is_local else "full_attention" for is_local in are_local]
    about = {"model_type": family.model_type, "architectures": [family.architecture]}
    if not family.nested:
        return about | hf
    about["tie_word_embeddings"] = hf["tie_word_embeddings"]
    return about | {family.nested: hf | {"model_type": f"{family.model_type}_text"}}


def _rope_fields(family: Family, config: ModelConfig) -> dict[str, Any]:
    scaling = None
    if config.rope_scaling != "none":
        table = SCALINGS[config.rope_scaling]
        scaling = {key: getattr(config, ours) for ours, (key, _) in table.items()}
        left_out = [key for key in ("attention_factor", "mscale_all_dim") if not scaling.get(key)]
        scaling = {"rope_type": config.rope_scaling} | {
            key: value for key, value in scaling.items() if key not in left_out
        }
    hf: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": scaling}
    if "rotary_dim" not in family.keys and (config.rotary_dim or family.rotates_part):
        hf["partial_rotary_factor"] = (config.rotary_dim or config.head_dim) / config.head_dim
    if family.model_type == "gpt_neox":
        hf |= {"rotary_pct": hf["partial_rotary_factor"], "rotary_emb_base": config.rope_theta}
    if family.model_type == "phi3":
        is_long = config.rope_scaling == "longrope"
        hf["original_max_position_embeddings"] = config.rope_length if is_long else config.max_length
    if family.has_local_rope:
        # `rope_theta` alone would leave transformers 5 its own base in the local layers.
        hf["rope_parameters"] = {
            "full_attention": (scaling or {"rope_type": "default"}) | {"rope_theta": config.rope_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": config.rope_local_theta},
        }
    if "rope_local_base_freq" in family.defaults:
        hf["rope_local_base_freq"] = config.rope_local_theta
    return hf
