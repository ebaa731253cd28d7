"""config.json with keys left out: what the family's published code takes then, or a refusal."""

import json

import family_references as references
import pytest

from jaxtrain import weights
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights.config_json import read_config, write_config
from jaxtrain.weights.families import BY_TYPE

SPARSE = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 7, "num_attention_heads": 4}
SPARSE |= {"intermediate_size": 48, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("model_type", "more", "expected"),
    [
        ("llama", {}, {"rope_theta": 1e4, "norm_eps": 1e-6, "max_length": 2048, "head_dim": 8}),
        ("mistral", {}, {"window": 4096, "max_length": 131_072}),
        ("qwen3", {}, {"head_dim": 128, "max_length": 32_768}),
        ("mixtral", {}, {"rope_theta": 1e6, "norm_eps": 1e-5, "experts": 8, "window": 0}),
        (
            "qwen3_moe",
            {"moe_intermediate_size": 24},
            {"normalize_experts": False, "experts": 128, "experts_per_token": 8},
        ),
        ("olmo2", {}, {"norm_eps": 1e-5}),
        ("gemma2", {}, {"head_dim": 256, "attention_softcap": 50.0, "logit_softcap": 30.0, "tied": True}),
        (
            "gemma3_text",
            {},
            {"rope_theta": 1e6, "rope_local_theta": 1e4, "window": 4096, "global_every": 6},
        ),
        ("smollm3", {}, {"rope_theta": 2e6, "global_every": 4, "tied": True}),
        (
            "deepseek_v3",
            {"num_key_value_heads": 4, "moe_intermediate_size": 24, "n_routed_experts": 16}
            | {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
            {"query_rank": 1536, "head_dim": 12, "dense_layers": 3, "dense_hidden": 48, "experts_scale": 2.5}
            | {"expert_groups": 8, "groups_per_token": 4, "experts_per_token": 8, "shared_experts": 1},
        ),
        ("llama4_text", {}, {"window": 8192, "global_every": 4, "temperature_scale": 0.1, "experts": 16}),
        ("gpt_neox", {}, {"rotary_dim": 2, "activation": "gelu_exact", "parallel": True}),
    ],
)
def test_what_is_absent_is_the_familys_default(model_type, more, expected):
    config = read_config(SPARSE | more | {"model_type": model_type}, "config.json")[1]
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"])
def test_a_shape_that_is_absent_is_named(key):
    sparse = {name: value for name, value in SPARSE.items() if name != key}
    with pytest.raises(UserError, match=f"{key} is absent"):
        read_config(sparse | {"model_type": "llama"}, "config.json")


def test_what_was_written_is_read_again():
    for name in references.CONFIGS:
        config = read_config(references.stored(name)[0]["config"], name)[1]
        family, written = write_config(config)
        assert read_config(json.loads(json.dumps(written)), name) == (family, config), name


def test_the_text_model_of_a_multimodal_folder_is_read_alone(tmp_path, capsys):
    """As Gemma 3's larger models are published: names of an older and of a newer `transformers`."""
    meta, _ = references.stored("gemma3")
    vision = {"vision_config": {}, "dtype": "bfloat16", "model_type": "gemma3"}
    for begin, other in (
        ("language_model.model.", "vision_tower.a.weight"),
        ("model.language_model.", "model.vision_tower.a.weight"),
    ):
        shapes = {name.replace("model.", begin, 1): shape for name, shape in meta["shapes"].items()}
        folder = tmp_path / begin
        references.write_folder(folder, {"text_config": meta["config"]} | vision, shapes | {other: [3]})
        source = weights.open(folder)
        assert source.config.global_every == 6
        assert source.load().embedding_VD[...].shape == (references.VOCAB, 32)
        assert "the text model alone is read, not vision_tower" in capsys.readouterr().err


def test_layers_that_predict_further_tokens_are_left_unread_and_told(tmp_path, capsys):
    """As DeepSeek-V3 is published: one behind the last, and fp8, which has to become bfloat16 first."""
    meta, _ = references.stored("deepseek_v3")
    behind = {"model.layers.4.eh_proj.weight": [32, 64], "model.layers.4.shared_head.head.weight": [128, 32]}
    for more in (1, 0):
        config = meta["config"] | {"num_nextn_predict_layers": more}
        references.write_folder(tmp_path / str(more), config, meta["shapes"] | behind)
    weights.open(tmp_path / "1").load()
    assert "layers from 4 on predict further tokens and are unread: 2 tensors" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"layers\.4\.eh_proj\.weight is not of this architecture"):
        weights.open(tmp_path / "0").load()
    quantised = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    with pytest.raises(UserError, match="quantization_config fp8: .* a copy of the model in bfloat16"):
        read_config(meta["config"] | quantised, "config.json")


def test_a_base_models_names_and_buffers_are_read(tmp_path):
    """As GPT-2 lies on the hub: `wte.weight`, and masks that old programs stored."""
    for name, begin in (("gpt2", "transformer."), ("smollm2", "model.")):
        meta, _ = references.stored(name)
        shapes = {key.removeprefix(begin): shape for key, shape in meta["shapes"].items()}
        shapes |= {"h.0.attn.bias": [1]} if name == "gpt2" else {}
        references.write_folder(tmp_path / name, meta["config"], shapes)
        assert weights.open(tmp_path / name).load().config.layers == 3


@pytest.mark.peers
@pytest.mark.parametrize("name", sorted(references.CONFIGS))
def test_keys_taken_out_one_by_one_are_read_as_transformers_reads_them(name):
    from transformers import CONFIG_MAPPING  # pyrefly: ignore[missing-import]

    whole = references.stored(name)[0]["config"]
    assert whole["model_type"] in BY_TYPE
    for key in set(whole) - {"model_type", "architectures", "transformers_version"}:
        sparse = {known: value for known, value in whole.items() if known != key}
        try:
            found = read_config(sparse, name)[1]
        except UserError:
            continue  # refused by name
        theirs = CONFIG_MAPPING[whole["model_type"]](**sparse).to_dict()
        assert found == read_config(theirs, name)[1], key
