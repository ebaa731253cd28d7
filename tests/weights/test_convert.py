"""Weights in and out from the shell's side, and what is refused."""

import json
from pathlib import Path

import family_references as references
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtrain.runtime.errors import UserError
from jaxtrain.weights import load_pretrained, save_pretrained
from jaxtrain.weights.convert import convert, same_bits
from jaxtrain.weights.llama2c import load_llama2c

STORIES = Path(__file__).parents[3] / "shared" / "material" / "models" / "stories260K.bin"


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
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope scaling 'yarn' is not supported"),
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
    (llama / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    with pytest.raises(UserError, match="outside of the folder"):
        load_pretrained(llama)


@pytest.mark.skipif(not STORIES.is_file(), reason="the llama2.c weights of shared/material are absent")
def test_llama2c_tells_a_story(tmp_path):
    """Real weights: fluent text has few nats a token, and Hugging Face's layout gives the same logits."""
    model = load_llama2c(STORIES)
    tokens = np.array([[1, 403, 407, 261, 378, 432, 383, 286, 261, 376]], np.int32)
    logits = np.asarray(model(tokens))
    save_pretrained(model, tmp_path)
    np.testing.assert_array_equal(np.asarray(load_pretrained(tmp_path)(tokens)), logits)
    from jaxtrain.decode.generate import sample

    story = sample(model, [[1]], seed=0, max_new=60, stop=1, pad=0, temperature=0.0)[0]
    row = np.array([[1, *story]], np.int32)
    shares = np.asarray(jax.nn.log_softmax(model(row)[:, :-1], axis=-1))[0]
    nats = -shares[np.arange(len(story)), story].mean()
    assert nats < 0.7, nats  # greedy text of a model that knows its language; a wrong rotation gives far more
