"""GGUF files that the package `gguf` writes, against the Hugging Face folders that they were made from."""

from functools import partial

import family_references as references
import gguf
import gguf_file
import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter

from jaxtrain import weights
from jaxtrain.cli import dispatch
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights import load_pretrained
from jaxtrain.weights.gguf import opened, read_config, read_tokenizer

forward = jax.jit(lambda model, tokens: model(tokens))
ARCHITECTURES = {
    "smollm2": "llama",
    "qwen3": "qwen3",
    "qwen2.5": "qwen2",
    "gemma2": "gemma2",
}


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


def add_tokenizer(writer: GGUFWriter) -> None:
    """Bytes and one merge; `<end>` ends a text, `<turn>` an answer."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<end>", "<turn>", *sorted(ByteLevel.alphabet()), "he"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{{ '<turn>' }}{% endfor %}")


write = partial(gguf_file.write, add_tokenizer=add_tokenizer)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, None) for name in ARCHITECTURES),
        *(("smollm2", kind) for kind in (Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1)),
    ],
)
def test_the_logits_are_those_of_its_folder(name, kind, tmp_path):
    meta, _ = references.stored(name)
    config = meta["config"]
    if name == "gemma2":  # what no key of the file says: the published models' own scale
        config = config | {"query_pre_attn_scalar": config["head_dim"]}
    references.write_folder(tmp_path / "hf", config, meta["shapes"])
    write(tmp_path / "model.gguf", tmp_path / "hf", kind, ARCHITECTURES[name])
    source = weights.open(tmp_path / "model.gguf")
    tokens, expected = references.tokens(), load_pretrained(tmp_path / "hf")
    np.testing.assert_allclose(
        forward(source.load(), tokens), forward(expected, tokens), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", [Type.Q4_K, Type.Q6_K])
def test_quants_that_the_package_only_reads_are_its_floats(kind, tmp_path):
    """Blocks of 256 weights whose bytes are drawn; their scales, float16, are small numbers."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    packed = np.random.default_rng(kind).integers(0, 256, (64, 2, size), np.uint8)
    places = (slice(0, 4),) if kind == Type.Q4_K else (slice(-2, None),)
    for place in places:
        scales = packed[..., place].view(np.float16)
        scales[...] = np.random.default_rng(1).uniform(0.01, 0.1, scales.shape)
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("token_embd.weight", packed.reshape(64, 2 * size), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = opened(tmp_path / "model.gguf").read("token_embd.weight")
    expected = gguf.quants.dequantize(packed.reshape(64, 2 * size), kind)
    assert found.shape == (64, 2 * block) and np.isfinite(found).all()
    np.testing.assert_array_equal(found, expected)


def test_it_becomes_a_hugging_face_folder_from_the_shell(tmp_path, capsys):
    meta, _ = references.stored("smollm2")
    rows = 288  # room for the tokenizer's ids
    shapes = meta["shapes"] | {"model.embed_tokens.weight": [rows, 32]}
    references.write_folder(tmp_path / "hf", meta["config"] | {"vocab_size": rows}, shapes)
    write(tmp_path / "model.gguf", tmp_path / "hf", Type.Q8_0, "llama")
    dispatch(["convert", str(tmp_path / "model.gguf"), str(tmp_path / "out")])
    assert "the same bit for bit, its tokenizer gives the same ids" in capsys.readouterr().out
    tokens, out = references.tokens(), weights.open(tmp_path / "out")
    np.testing.assert_array_equal(
        forward(out.load(), tokens), forward(weights.open(tmp_path / "model.gguf").load(), tokens)
    )
    assert out.tokenizer.encode("hehe") == read_tokenizer(tmp_path / "model.gguf").encode("hehe")


def test_its_tokenizer_speaks_as_its_metadata_says(tmp_path):
    meta, _ = references.stored("smollm2")
    references.write_folder(tmp_path / "hf", meta["config"], meta["shapes"])
    write(tmp_path / "model.gguf", tmp_path / "hf", None, "llama")
    tokenizer = read_tokenizer(tmp_path / "model.gguf")
    ids = tokenizer.encode("hehe 12<end>")
    assert tokenizer.decode(ids) == "hehe 12<end>" and len(ids) == 2 + 3 + 5
    assert tokenizer.stop == (0, 1) and tokenizer.eos == 0


def test_what_is_no_whole_gguf_is_named(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(UserError, match=r"broken\.gguf is no whole GGUF file"):
        weights.open(tmp_path).load()
    writer = GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture 'mamba' is not one of llama"):
        weights.open(tmp_path / "other.gguf").load()
    with pytest.raises(UserError, match="2 GGUF files; name one"):
        weights.open(tmp_path)


def test_metadata_that_lacks_a_key_is_one_line(tmp_path):
    writer = GGUFWriter(tmp_path / "model.gguf", "gemma2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for key, read in (("hidden_size", read_config), ("tokens", read_tokenizer)):
        with pytest.raises(UserError, match=rf"model\.gguf: its metadata cannot be read \(KeyError: '{key}'"):
            read(tmp_path / "model.gguf")
