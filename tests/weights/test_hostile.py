"""Folders of strangers: a value that is none, or an absurd one, is one line before anything is made."""

import json
import resource
from pathlib import Path

import pytest

from jaxtrain import weights
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import huggingface

CONFIG = {
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_theta": 10_000.0,
    "head_dim": 4,
}
ODD = [
    -1,
    -8,
    "1",
    "x",
    1.5,
    True,
    [],
    [1],
    {},
    {"a": 1},
    10**12,
    10**18,
    10**400,
    float("nan"),
    float("inf"),
]
NUMBERS = [*[name for name in CONFIG if name not in ("model_type", "tie_word_embeddings")], "model_type"]
ROPES = [
    *({"rope_type": "linear"}, {"rope_type": "linear", "factor": 0}, {"rope_type": "linear", "factor": "x"}),
    *({"rope_type": "llama3", "factor": 8}, {"rope_type": ["llama3"]}, [1], "x", 3, {"rope_theta": []}),
    *({"rope_type": "linear", "factor": float("nan")}, {"rope_type": "linear", "factor": 10**400}),
]
NO_JSON = ["", "[]", "null", '"x"', '{"a":', "\0", "[" * 100_000, '{"a":' * 50_000, "{}"]


def write(folder: Path, config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def refusal(folder: Path, config: object) -> str:
    """The line; fails for any other exception and where nothing is refused."""
    with pytest.raises(UserError) as refused:
        huggingface.read_config(write(folder, config))
    return str(refused.value)


def test_odd_values_of_a_config_are_named(tmp_path: Path):
    huggingface.read_config(write(tmp_path, CONFIG))
    fractions = {"rms_norm_eps", "rope_theta"}
    tried = 0
    for name in NUMBERS:
        for value in [*ODD, 0]:
            # a number where a number is asked for
            if name in fractions and type(value) in (int, float) and 0 < value < 1e30:
                continue
            line = refusal(tmp_path, CONFIG | {name: value})
            assert "config.json" in line and "\n" not in line and len(line) < 400, (name, value)
            tried += 1
    for rope in ROPES:
        assert "config.json" in refusal(tmp_path, CONFIG | {"rope_scaling": rope})
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        assert f"{name} is absent" in refusal(tmp_path, CONFIG | {name: None})
    assert "is true or false" in refusal(tmp_path, CONFIG | {"tie_word_embeddings": "yes"})
    for text in NO_JSON:
        assert "config.json" in refusal(tmp_path, text)
    assert tried > 150


def test_a_config_that_wants_more_than_the_weights_hold_makes_nothing(tmp_path: Path):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"model.norm.weight": np.zeros(8, np.float32)}, tmp_path / "model.safetensors")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, value in (("num_hidden_layers", 10_000), ("vocab_size", 1 << 28), ("hidden_size", 1 << 20)):
        source = weights.open(write(tmp_path, CONFIG | {name: value}))
        with pytest.raises(UserError, match="config.json has 10000 layers|tensor .* is missing"):
            source.load()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.mark.parametrize(
    "index",
    [
        "{}",
        "[]",
        "null",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        "[" * 100_000,
        "{",
    ],
)
def test_an_index_that_is_none_is_named(tmp_path: Path, index: str):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="model.safetensors.index.json"):
        huggingface.tensor_files(tmp_path)


@pytest.mark.parametrize(
    "text", [*NO_JSON, '{"version": "1.0", "model": null}', '{"model": {"type": "BPE", "vocab": []}}']
)
def test_a_tokenizer_that_is_none_is_named(tmp_path: Path, text: str):
    write(tmp_path, CONFIG)
    (tmp_path / "tokenizer.json").write_text(text)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
