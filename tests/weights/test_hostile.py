"""Folders of strangers: a value that is none, or an absurd one, is one line before anything is made."""

import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Trained

from jaxtrain import weights
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import chat
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import huggingface, peft

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


def test_a_tokenizer_that_never_ends_is_one_line(tmp_path: Path):
    """By a regular expression that tries every way, and by rules that make a letter 10^12 letters."""
    write(tmp_path, CONFIG)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    endless = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json() | {"pre_tokenizer": endless}))
    with pytest.raises(UserError, match="tokenizer.json cannot read this text"):
        Tokenizer.load(tmp_path).encode("a" * 60 + "b")
    grows = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    rules = {"normalizer": {"type": "Sequence", "normalizers": [grows] * 4}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json() | rules))
    with pytest.raises(UserError, match=r"tokenizer.json: its normalizer makes a text 1e\+12 times as long"):
        Tokenizer.load(tmp_path)


SPOKEN = {"eos_token": "<|im_end|>"}


@pytest.mark.parametrize(
    ("file", "said", "words"),
    [
        ("config.json", CONFIG | {"rope_theta": None}, "rope_theta is 0.0; it is a positive number"),
        ("config.json", CONFIG | {"text_config": [1]}, "config.json cannot be read .TypeError"),
        ("model.json", {"layers": 2, "of_another_version": 1}, "model.json cannot be read .*of_another"),
        ("tokenizer_config.json", SPOKEN | {"chat_template": 5}, "chat_template is no text: 5"),
        ("tokenizer_config.json", {"chat_template": [{"template": ""}]}, "tokenizer cannot be read .Key"),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id of .* is no id: 2"),
        ("adapter_config.json", {"lora_alpha": 4}, "adapter_config.json cannot be read .*'r'"),
    ],
    ids=str,
)
def test_odd_contents_of_a_file_are_one_line(tmp_path: Path, file, said, words, draw, make_mesh):
    write(tmp_path, CONFIG)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(SPOKEN))
    save_file({"a.lora_A.weight": np.zeros((2, 2), np.float32)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / file).write_text(json.dumps(said))
    with pytest.raises(UserError, match=words):
        if file == "adapter_config.json":
            with jax.set_mesh(make_mesh(fsdp=1)):
                peft.load(tmp_path, jax.eval_shape(draw))
        source = weights.open(tmp_path)
        repr((source.config, source.tokenizer))


def test_a_tensor_in_two_shards_is_refused_and_a_whole_file_comes_first(tmp_path: Path):
    """As `transformers`: beside `model.safetensors` an index is not read."""
    files = {f"model-0000{n}-of-00002.safetensors": {"a": np.full(1, n, np.float32)} for n in (1, 2)}
    for name, tensors in files.items():
        save_file(tensors | {name: np.zeros(1, np.float32)}, tmp_path / name)
    index = {"weight_map": {name: name for name in files}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="model-00002-of-00002.safetensors: a is in another of its files too"):
        huggingface.tensor_files(tmp_path)
    save_file({"b": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    assert list(huggingface.tensor_files(tmp_path)) == ["b"]


def test_a_tokenizer_of_very_many_special_tokens_is_read(tmp_path: Path):
    """Each step is one pass over them: one of a pass for each would not come back."""
    found, ids = tokenizer_json(), range(259, 60_259)
    many = [{**found["added_tokens"][0], "id": index, "content": f"<{index}>"} for index in ids]
    write(tmp_path, CONFIG)
    text = json.dumps(found | {"added_tokens": [*found["added_tokens"], *many]})
    (tmp_path / "tokenizer.json").write_text(text)
    settings = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.end == tokenizer.special["<|im_end|>"] and tokenizer.vocab_size == ids.stop
    assert [tokenizer.token_bytes(index) for index in ids] == [f"<{index}>".encode() for index in ids]


LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
INDEX = {
    "metadata": {"total_size": 4096},
    "weight_map": {
        f"model.layers.{n}.mlp.up_proj.weight": f"model-0000{n}-of-00004.safetensors" for n in range(4)
    },
}
TEMPLATE = (
    "{%- set ns = namespace(n=0) %}{% for message in messages %}"
    "{% if message.role == 'system' and not loop.first %}{{ raise_exception('system is first') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] }}{{ '\n' + message.content | trim + '<|im_end|>\n' }}"
    "{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PIECES = [
    *("{{", "}}", "{%", "%}", "{#", "'", "|", "(", "[", "**"),
    *("9999999999", "range(10**9)", ".__class__"),
]


def tokenizer_json() -> dict[str, Any]:
    """Of the 256 bytes and three special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Trained(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.add_special_tokens([AddedToken(text) for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")])
    return json.loads(trained.to_str())


def changed(value: Any, rng: random.Random) -> Any:
    """A copy with one place of it gone, of another kind, or absurd."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = dict(value) if isinstance(value, dict) else list(value)
        if rng.random() < 0.15:
            del copy[key]
        else:
            copy[key] = changed(value[key], rng)
        return copy
    return rng.choice([*ODD, None, "", "x" * 100_000, [[[]]], {"type": "x"}, -0.0, [None] * 1000])


def cut(text: str, rng: random.Random) -> str:
    """With a place of it gone, twice there, or another."""
    begin = rng.randrange(len(text))
    end = min(len(text), begin + rng.randrange(1, 40))
    return text[:begin] + rng.choice(["", text[begin:end] * 2, rng.choice(PIECES)]) + text[end:]


def mutated_config(rng: random.Random) -> dict[str, str]:
    text = json.dumps(changed(CONFIG | {"rope_scaling": LLAMA_3}, rng))
    return {"config.json": cut(text, rng) if rng.random() < 0.2 else text}


def mutated_index(rng: random.Random) -> dict[str, str]:
    text = json.dumps(changed(INDEX, rng))
    return {"model.safetensors.index.json": cut(text, rng) if rng.random() < 0.2 else text}


def mutated_tokenizer(rng: random.Random) -> dict[str, str]:
    text = json.dumps(changed(tokenizer_json(), rng))
    return {"tokenizer.json": cut(text, rng) if rng.random() < 0.2 else text}


def mutated_template(rng: random.Random) -> dict[str, str]:
    text = cut(TEMPLATE, rng)
    return {"tokenizer_config.json": json.dumps({"eos_token": "<|im_end|>", "chat_template": text})}


def render(folder: Path) -> None:
    chat.render([{"role": "user", "content": "Hi."}], Tokenizer.load(folder), generation_prompt=True)


@pytest.mark.parametrize(
    ("mutated", "read", "count"),
    [
        (mutated_config, huggingface.read_config, 300),
        (mutated_index, huggingface.tensor_files, 150),
        (mutated_tokenizer, render, 100),
        (mutated_template, render, 150),
    ],
)
def test_700_mutated_files_are_read_or_refused_in_one_line(
    tmp_path: Path,
    mutated: Callable[[random.Random], dict[str, str]],
    read: Callable[[Path], object],
    count: int,
) -> None:
    config = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    whole = {"config.json": json.dumps(CONFIG), "tokenizer.json": json.dumps(tokenizer_json())}
    whole |= {"tokenizer_config.json": json.dumps(config)}
    for name, file in INDEX["weight_map"].items():
        save_file({name: np.zeros(2, np.float32)}, tmp_path / file)
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for number in range(count):
        files = whole | mutated(random.Random(number))
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        try:
            read(tmp_path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2100, number
    assert count / 4 < refused < count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
