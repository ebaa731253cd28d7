"""Weights in and out from the shell's side, and what is refused."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import family_references as references
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtrain import weights
from jaxtrain.cli import dispatch
from jaxtrain.model import lora
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import train
from jaxtrain.weights import folder as store
from jaxtrain.weights import load_pretrained, save_pretrained
from jaxtrain.weights.convert import same_bits

STORIES = Path(__file__).parents[3] / "shared" / "material" / "models" / "stories260K.bin"


forward = jax.jit(lambda model, tokens: model(tokens))
TOOLS = [{"type": "function", "function": {"name": "add", "description": "x + y", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"x": 1, "y": "é"}'}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <|end|>?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "1"},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "A token."},
]


def convert(source, out, *flags):
    """As in a shell; what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        dispatch(["convert", str(source), str(out), *flags])
    return said.getvalue()


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


@pytest.fixture
def llama(tmp_path):
    meta, _ = references.stored("llama3")
    references.write_folder(tmp_path / "llama", meta["config"], meta["shapes"])
    return tmp_path / "llama"


def test_there_and_back(llama, tmp_path):
    said = convert(llama, tmp_path / "ours")
    assert "the same bit for bit" in said and (tmp_path / "ours" / "model.json").is_file()
    convert(tmp_path / "ours", tmp_path / "again")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (llama, tmp_path / "again"))
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    with pytest.raises(UserError, match="again exists"):
        convert(llama, tmp_path / "again")


def test_a_model_of_ours_is_complete_for_others_and_comes_back(config, tmp_path):
    """Ids, template, ends of an answer, weights."""
    text = "What the assistant says ends with a token of its own; 12 345."
    tokenizer = train([text] * 3, 290)
    shape = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    store.write_artifact(Transformer(shape, jax.random.key(0)), tokenizer, tmp_path / "ours")
    assert "gives the same ids" in convert(tmp_path / "ours", tmp_path / "hf")
    theirs = weights.open(tmp_path / "hf").tokenizer
    for tools in ((), TOOLS):
        assert render(TALK, theirs, tools=tools) == render(TALK, tokenizer, tools=tools)
    for line in (text, "naïve   text \n\n 123 <|end|>", "I'LL ſee \u0085\r\n" + " " * 300 + "x"):
        assert theirs.encode(line) == tokenizer.encode(line)
    said = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert said["eos_token_id"] == [tokenizer.eos, tokenizer.end] and theirs.stop == tokenizer.stop
    convert(tmp_path / "hf", tmp_path / "again")
    again = weights.open(tmp_path / "again")
    assert again.tokenizer == theirs and same_bits(weights.open(tmp_path / "ours").load(), again.load())


def adapted(base, out):
    """An artifact with adapters that change the model."""
    model, config = weights.open(base).load(), LoRAConfig(rank=2)
    adapters = lora.take(jax.jit(lora.adapt, static_argnums=1)(model, config, jax.random.key(0)))
    out.mkdir()
    store.write_about(model.config, None, out)
    store.write_adapter(out, base, config)
    checkpoints = Checkpoints(out / "checkpoint")
    checkpoints.save(0, jax.tree.map(lambda x: x + 0.1, adapters), {"step": jax.numpy.int32(0)})
    checkpoints.close()
    return out


@pytest.mark.parametrize("name", ["llama3", "gpt2"])
def test_adapters_leave_as_a_peft_folder_or_merged(name, tmp_path, monkeypatch):
    """GPT-2's queries, keys and values share a module, so there is no PEFT folder of them."""
    meta, _ = references.stored(name)
    references.write_folder(tmp_path / "base", meta["config"], meta["shapes"])
    ours, tokens = adapted(tmp_path / "base", tmp_path / "ours"), references.tokens()
    expected = forward(weights.open(ours).load(), tokens)
    assert np.abs(expected - forward(weights.open(tmp_path / "base").load(), tokens)).max() > 0.1
    monkeypatch.chdir(tmp_path)
    convert("ours", "plain")
    convert("ours", "whole", "--merge")
    monkeypatch.chdir("/")  # what is written is found from anywhere
    for out in ("plain", "whole"):
        found = forward(weights.open(tmp_path / out).load(), tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "plain" / "adapter_config.json").is_file() == (name == "llama3")
    if name == "llama3":
        convert(tmp_path / "plain", tmp_path / "from_peft")
        assert "LlamaForCausalLM" in (tmp_path / "from_peft" / "config.json").read_text()


def test_the_sources_dtype_is_kept(llama, tmp_path):
    convert(llama, tmp_path / "half", "--dtype", "bfloat16")
    convert(tmp_path / "half", tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "again")
    for folder in ("half", "hf", "again"):
        assert weights.open(tmp_path / folder).config.dtype == "bfloat16", folder
    assert {str(x.dtype) for x in load_file(tmp_path / "hf" / "model.safetensors").values()} == {"bfloat16"}
    assert same_bits(*(weights.open(tmp_path / name).load_to_use() for name in ("half", "again"))) > 0


def test_a_changed_bit_is_told(llama):
    one, other = load_pretrained(llama), load_pretrained(llama)
    assert same_bits(one, other) > 10_000
    other.norm.scale[...] = other.norm.scale[...].at[3].multiply(1 + 1e-7)
    with pytest.raises(UserError, match=r"norm.*scale"):
        same_bits(one, other)


def test_the_quickstart_model_has_an_architecture(config, draw, tmp_path):
    save_pretrained(draw(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]
    assert same_bits(draw(), load_pretrained(tmp_path)) > 0


def test_shards_onto_a_mesh_and_many_files(llama, make_mesh, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrain.weights.huggingface.FILE_BYTES", 20_000)
    save_pretrained(load_pretrained(llama), tmp_path / "many")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    one = load_pretrained(tmp_path / "many")
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        other = load_pretrained(tmp_path / "many")
        assert other.blocks.mlp.gate_DF[...].addressable_shards[0].data.shape == (3, 8, 24)
    assert same_bits(one, other) > 0


def test_bfloat16_folders(llama, tmp_path):
    save_pretrained(load_pretrained(llama, dtype="bfloat16"), tmp_path)
    assert {str(x.dtype) for x in load_file(tmp_path / "model.safetensors").values()} == {"bfloat16"}
    wide = load_pretrained(tmp_path)
    assert {str(x.dtype) for x in jax.tree.leaves(wide)} == {"float32"}
    half = load_pretrained(tmp_path, dtype="bfloat16")
    tokens = references.tokens()
    logits = np.asarray(wide(tokens))
    assert np.abs(np.asarray(half(tokens)) - logits).max() < 0.1 * np.abs(logits).max()


def edited(folder, tensors=None, **config):
    old = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(old | config))
    if tensors:
        save_file(tensors(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not one of llama"),
        ({"pretraining_tp": 2}, "pretraining_tp 2 is not supported"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
        ({"quantization_config": {}}, "quantised weights are not read"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope scaling 'dynamic' is not supported"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope scaling 'linear' without factor"),
        ({"num_hidden_layers": 4}, r"tensor model\.layers\.3\.\S+ is missing \(9 in all\)"),
        ({"num_hidden_layers": 2}, r"tensor model\.layers\.2\.\S+ is not of this architecture \(9 in all\)"),
        ({"intermediate_size": 64}, r"down_proj\.weight has shape \[32, 48\], not \[32, 64\]"),
    ],
)
def test_what_does_not_fit_is_named(llama, change, words):
    with pytest.raises(UserError, match=words):
        load_pretrained(edited(llama, **change))


def test_files_that_are_none(llama, tmp_path):
    with pytest.raises(UserError, match=r"config\.json is absent"):
        load_pretrained(tmp_path)
    (llama / "model.safetensors").write_bytes(b"\x80\x04junk")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_pretrained(llama)
    (llama / "model.safetensors").unlink()  # a whole file is read before an index
    (llama / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    with pytest.raises(UserError, match="outside of the folder"):
        load_pretrained(llama)


@pytest.mark.skipif(not STORIES.is_file(), reason="the llama2.c weights of shared/material are absent")
def test_llama2c_tells_a_story(tmp_path):
    """Real weights: fluent text has few nats a token, and Hugging Face's layout gives the same logits."""
    model = store.load(STORIES)
    tokens = np.array([[1, 403, 407, 261, 378, 432, 383, 286, 261, 376]], np.int32)
    logits = np.asarray(model(tokens))
    save_pretrained(model, tmp_path)
    np.testing.assert_array_equal(np.asarray(load_pretrained(tmp_path)(tokens)), logits)
    from jaxtrain.decode.answers import answers

    story = answers(model, None, [[1]], max_new=60, stop=(1,), temperature=0.0)[0]
    row = np.array([[1, *story]], np.int32)
    shares = np.asarray(jax.nn.log_softmax(model(row)[:, :-1], axis=-1))[0]
    nats = -shares[np.arange(len(story)), story].mean()
    assert nats < 0.7, nats  # greedy text of a model that knows its language; a wrong rotation gives far more
