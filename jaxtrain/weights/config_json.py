"""config.json of a Hugging Face folder to our config and back, by the tables of the families."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from dataclasses import fields as fields_of
from typing import Any

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights.families import BY_TYPE, CAPS, COMMON, FAMILIES, REQUIRED, Family

RUN_FIELDS = ("dtype", "attention", "remat", "scan", "stage_microbatches", "balance_loss")
"""Fields that say how a model runs and not what it computes; a folder does not carry them."""
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
SCALINGS = ("linear", "llama3", "yarn", "longrope")


def read_config(hf: Mapping[str, Any], where: str) -> tuple[Family, ModelConfig]:
    """The family and our config of a config.json; UserError, naming `where`, for what is not supported."""
    kind = hf.get("model_type", "")
    family = BY_TYPE.get(kind) if isinstance(kind, str) else None
    if family is None:
        known = ", ".join(BY_TYPE)
        raise UserError(f"{where}: model_type {repr(kind)[:60]} is not one of {known}")
    if family.nested:
        hf = {
            **{key: hf[key] for key in ("tie_word_embeddings",) if key in hf},
            **_section(hf, family.nested),
        }
    if "quantization_config" in hf:
        raise UserError(f"{where}: quantization_config: quantised weights are not read; name the whole model")
    for key, value in family.expected.items():
        if key in hf and hf[key] != value:
            raise UserError(f"{where}: {key} {hf[key]!r} is not supported, only {value!r}")
    if "num_experts" in family.keys.values():
        hf = {ALIASES.get(key, key): value for key, value in hf.items()}
    said = {**COMMON, **family.defaults, **hf}
    fields = {ours: said[key] for ours, key in family.keys.items() if said.get(key) is not None}
    for ours in REQUIRED:
        if ours not in fields and not (ours == "d_hidden" and family.names == "gpt2"):
            raise UserError(f"{where}: {family.keys[ours]} is absent")
    _check_numbers(fields, family.keys, where)
    fields.setdefault("kv_heads", fields["heads"])
    fields.setdefault("head_dim", fields["d_model"] // fields["heads"])
    fields.setdefault("d_hidden", 4 * fields["d_model"])
    try:
        if "activation" in family.keys:
            fields["activation"] = _activation(fields["activation"], where)
        if family.names != "gpt2":
            fields |= _read_rope(family, said, hf, fields, where)
        if family.names == "gemma":
            fields["attention_scale"] = float(said["query_pre_attn_scalar"]) ** -0.5
        fields |= _read_window(family, said, fields, where)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{where}: what it says of positions or windows cannot be read ({type(error).__name__}: {error})"
        ) from error
    _check_numbers(fields, family.keys, where)
    return family, ModelConfig(**{**fields, **family.fixed})


LARGEST = {"layers": 10_000, "experts": 100_000, "d_model": 1 << 20, "head_dim": 1 << 16, "heads": 1 << 16}
"""Of what decides how much is made; any other whole number is at most 2^28."""
_MAY_BE_ZERO = ("window", "global_every", "experts")


def _check_numbers(fields: Mapping[str, Any], keys: Mapping[str, str], where: str) -> None:
    """UserError for a field that is no number of its kind, or an absurd one."""
    kinds = {one.name: type(one.default) for one in fields_of(ModelConfig)}
    for name, value in fields.items():
        said = f"{where}: {keys.get(name, name)} is {str(value)[:40]}"
        if kinds[name] is bool and type(value) is not bool:
            raise UserError(f"{said}; it is true or false")
        if kinds[name] is int:
            least, most = int(name not in _MAY_BE_ZERO), LARGEST.get(name, 1 << 28)
            if type(value) is not int or not least <= value <= most:
                raise UserError(f"{said}; it is a whole number from {least} to {most}")
        if kinds[name] is float:
            is_number = type(value) in (int, float) and 0 <= value <= 1e30
            if not is_number or (value == 0 and name in ("rope_theta", "rope_factor", "norm_eps")):
                raise UserError(f"{said}; it is a positive number")


def _section(hf: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return hf[key] if isinstance(hf.get(key), Mapping) else {}


def _activation(name: str, where: str) -> str:
    if name not in ACTIVATIONS:
        raise UserError(f"{where}: hidden_act {name!r} is not supported, only {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _read_rope(
    family: Family, said: Mapping[str, Any], hf: Mapping[str, Any], fields: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """From `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (4)."""
    rope = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
    found: dict[str, Any] = {}
    if "full_attention" in rope:
        local = rope.get("sliding_attention") or {}
        found["rope_local_theta"] = float(local.get("rope_theta", said.get("rope_local_base_freq", 10_000.0)))
        rope = dict(rope["full_attention"])
    elif said.get("rope_local_base_freq"):
        found["rope_local_theta"] = float(said["rope_local_base_freq"])
    bases = (rope.get("rope_theta"), hf.get("rotary_emb_base"), said["rope_theta"])
    base = next(one for one in bases if one is not None)
    found["rope_theta"] = float(base) if type(base) is int else base
    if family.model_type == "olmo3":
        found.setdefault("rope_local_theta", found["rope_theta"])
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
    found |= {"rope_scaling": kind}
    length = said.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")

    def needed(key: str) -> Any:
        if rope.get(key) is None:
            raise UserError(f"{where}: rope scaling {kind!r} without {key}")
        return rope[key]

    if kind != "linear":
        if length is None:
            raise UserError(f"{where}: rope scaling {kind!r} without original_max_position_embeddings")
        found["rope_length"] = int(length)
    stretched = fields.get("max_length", 0) / length if length else 0.0
    match kind:
        case "llama3":
            found["rope_low_frequency"] = float(needed("low_freq_factor"))
            found["rope_high_frequency"] = float(needed("high_freq_factor"))
            found["rope_factor"] = float(needed("factor"))
        case "yarn":
            found["rope_low_frequency"] = float(rope.get("beta_slow") or 1)
            found["rope_high_frequency"] = float(rope.get("beta_fast") or 32)
            found["rope_factor"] = float(rope.get("factor") or stretched)
            found["rope_truncate"] = bool(rope.get("truncate", True))
            found["rope_attention_factor"] = _attention_factor(rope)
        case "longrope":
            found["rope_factor"] = float(rope.get("factor") or stretched)
            found["rope_short"] = tuple(map(float, needed("short_factor")))
            found["rope_long"] = tuple(map(float, needed("long_factor")))
            found["rope_attention_factor"] = float(rope.get("attention_factor") or 0.0)
        case _:
            found["rope_factor"] = float(needed("factor"))
    return found


def _attention_factor(rope: Mapping[str, Any]) -> float:
    """YaRN's, where it is said (DeepSeek: as two scales); 0: by its formula."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    one, other = (rope.get(key) for key in ("mscale", "mscale_all_dim"))
    if not (one and other):
        return 0.0
    scales = [ModelConfig.yarn_scale(float(rope["factor"]), float(scale)) for scale in (one, other)]
    return scales[0] / scales[1]


def _read_window(
    family: Family, said: Mapping[str, Any], fields: Mapping[str, Any], where: str
) -> dict[str, Any]:
    layers = fields["layers"]
    if family.window == "no_rope":
        every = int(said["no_rope_layer_interval"])
        kinds = [bool(is_rotary) for is_rotary in said.get("no_rope_layers") or []]
        if kinds:
            every = kinds.index(False) + 1 if False in kinds else layers + 1
            if kinds != [(i + 1) % every != 0 for i in range(layers)]:
                raise UserError(f"{where}: no_rope_layers is no repetition with one layer behind the others")
        return {"window": fields["max_length"], "global_every": every if every <= layers else 0}
    if not family.window or said.get("sliding_window") is None:
        return {}
    found: dict[str, Any] = {"window": said["sliding_window"]}
    if family.window == "all":
        return found
    every = int(said.get("sliding_window_pattern") or said.get("_sliding_window_pattern") or family.window)
    kinds = said.get("layer_types")
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
    unlike = []
    for family in FAMILIES:
        try:
            found = read_config(_fields_of(family, config), "config.json")[1]
        except UserError:
            continue
        unlike.append([name for name, value in asdict(plain).items() if asdict(found)[name] != value])
    closest = ", ".join(min(unlike, key=len)) if unlike else "fields"
    raise UserError(f"no Hugging Face architecture has this model's {closest}")


def _fields_of(family: Family, config: ModelConfig) -> dict[str, Any]:
    hf: dict[str, Any] = {"model_type": family.model_type, "architectures": [family.architecture]}
    hf |= {key: value for key, value in family.expected.items() if value is not None}
    hf |= {key: getattr(config, ours) for ours, key in family.keys.items()}
    hf |= {key: hf[key] or None for key in CAPS.values() if key in hf}
    if "activation" in family.keys:
        names = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
        hf[family.keys["activation"]] = names[config.activation]
    if family.names == "gpt2":
        return hf
    hf["rope_theta"] = config.rope_theta
    hf["rope_scaling"] = _rope_scaling(config)
    if config.rotary_dim or family.rotates_part:
        hf["partial_rotary_factor"] = (config.rotary_dim or config.head_dim) / config.head_dim
    if family.model_type == "gpt_neox":
        hf["rotary_pct"], hf["rotary_emb_base"] = hf["partial_rotary_factor"], config.rope_theta
    if family.model_type == "phi3":
        hf["original_max_position_embeddings"] = (
            config.rope_length if config.rope_scaling == "longrope" else config.max_length
        )
    if family.model_type == "olmo3":
        # `rope_theta` alone would leave transformers 5 its own base in the local layers.
        whole = hf["rope_scaling"] or {"rope_type": "default"}
        hf["rope_parameters"] = {
            "full_attention": whole | {"rope_theta": config.rope_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": config.rope_local_theta},
        }
    if "rope_local_base_freq" in family.defaults:
        hf["rope_local_base_freq"] = config.rope_local_theta
    if family.names == "gemma":
        scale = config.attention_scale or config.head_dim**-0.5
        hf["query_pre_attn_scalar"] = round(scale**-2)
    if family.window == "no_rope":
        every = config.global_every or config.layers + 1
        hf["no_rope_layer_interval"] = every
        hf["no_rope_layers"] = [int((i + 1) % every != 0) for i in range(config.layers)]
    elif family.window:
        hf["sliding_window"] = config.window or None
    if family.window.isdigit():
        hf["layer_types"] = _layer_types(config.layers, config.global_every or config.layers + 1)
    return (
        hf
        if not family.nested
        else {
            "model_type": hf.pop("model_type"),
            "architectures": hf.pop("architectures"),
            "tie_word_embeddings": hf["tie_word_embeddings"],
            family.nested: hf | {"model_type": f"{family.model_type}_text"},
        }
    )


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.rope_scaling == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling != "linear":
        scaling["original_max_position_embeddings"] = config.rope_length
    match config.rope_scaling:
        case "llama3":
            scaling["low_freq_factor"] = config.rope_low_frequency
            scaling["high_freq_factor"] = config.rope_high_frequency
        case "yarn":
            scaling |= {"beta_slow": config.rope_low_frequency, "beta_fast": config.rope_high_frequency}
            scaling["truncate"] = config.rope_truncate
        case "longrope":
            scaling |= {"short_factor": list(config.rope_short), "long_factor": list(config.rope_long)}
    if config.rope_attention_factor:
        scaling["attention_factor"] = config.rope_attention_factor
    return scaling
