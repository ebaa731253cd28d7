"""Each family against `transformers`: computed by it where it is installed, else its stored numbers."""

import importlib.util
import json

import family_references as references
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.decode import slots
from jaxtrain.decode.answers import answers
from jaxtrain.train.losses import token_loss
from jaxtrain.weights import load_pretrained, save_pretrained

NAMES = sorted(references.CONFIGS)
OWN_MIXERS = ["gpt_oss", "nanochat", "deepseek_v3", "qwen3_next", "llama4"]
"""Those with layers that the others do not try."""
forward = jax.jit(lambda model, tokens: model(tokens))


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`folder(name)`: the family's Hugging Face folder, and what transformers once said of it."""
    made = tmp_path_factory.mktemp("families")

    def make(name):
        meta, expected = references.stored(name)
        if not (made / name).is_dir():
            references.write_folder(made / name, meta["config"], meta["shapes"])
        return made / name, expected

    return make


def close(found, expected, relative):
    error = np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()
    assert error < relative, error


def agree(model, expected):
    """Logits, loss, gradient norm and greedy tokens are those expected."""
    tokens = references.tokens()
    close(forward(model, tokens), expected["logits"], 2e-5)
    ones = np.ones_like(tokens)
    batch = {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "segment_ids": ones,
        "positions": np.tile(np.arange(tokens.shape[1], dtype=np.int32), (2, 1)),
        "loss_weights": np.concatenate([ones[:, 1:], 0 * ones[:, :1]], axis=1).astype(np.float32),
    }

    def mean(model):
        nats, count = token_loss(model, batch, balance=False)
        return nats / count

    loss, gradient = jax.jit(jax.value_and_grad(mean))(model)
    close(loss, expected["loss"], 1e-5)
    close(optax.tree.norm(gradient), expected["grad_norm"], 1e-4)
    prompts = tokens[:, : references.PROMPT].tolist()
    greedy = answers(model, None, prompts, max_new=references.NEW, stop=(), temperature=0.0)
    assert greedy == expected["greedy"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_agrees_with_the_stored_numbers(name, folder):
    path, expected = folder(name)
    agree(load_pretrained(path), expected)


@pytest.mark.parametrize("name", OWN_MIXERS)
def test_meshes_and_caches_change_no_logits(name, folder, make_mesh):
    path, expected = folder(name)
    tokens = references.tokens()
    context = 1 if name == "qwen3_next" else 2  # a DeltaNet reads a sequence in its order
    for axes in ({"fsdp": 2, "tensor": 2}, {"context": context, "expert": 2}):
        with jax.set_mesh(make_mesh(**axes)):
            close(forward(load_pretrained(path), tokens), expected["logits"], 2e-5)
    model, begun = load_pretrained(path), references.PROMPT
    parts = [(0, begun), *((n, n + 1) for n in range(begun, references.LENGTH))]
    logits = jax.jit(lambda model, hidden: model.logits(hidden))
    append = jax.jit(lambda decoder, *given: slots.append(decoder, *given))
    decoder, found = slots.Decoder.of(model), []
    held = slots.new_slots(model.config, 2, references.LENGTH + 2)
    for start, stop in parts:
        # two tokens behind the real ones, as in a piece of a prompt, leave nothing
        part = jnp.asarray(np.pad(tokens[:, start:stop], ((0, 0), (0, 2)), constant_values=5))
        hidden, held = append(decoder, held, part, jnp.full(2, stop - start))
        found.append(logits(model, hidden)[:, : stop - start])
    close(np.concatenate(found, axis=1), np.asarray(forward(model, tokens)), 1e-5)


def test_a_chunk_begins_with_its_document(folder):
    """Llama 4's: the second of two in a row gives what it gives alone."""
    model, tokens, at = load_pretrained(folder("llama4")[0]), references.tokens(), 7
    places = np.tile(np.arange(references.LENGTH), (2, 1))
    segments, positions = np.int32(places >= at) + 1, np.int32(places - at * (places >= at))
    packed = jax.jit(lambda model: model(tokens, segments, positions))(model)
    np.testing.assert_allclose(packed[:, at:], forward(model, tokens[:, at:]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_was_loaded(name, folder, tmp_path):
    """Tensor by tensor, bit by bit."""
    from safetensors.numpy import load_file

    path, _ = folder(name)
    save_pretrained(load_pretrained(path), tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(path / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for tensor, values in theirs.items():
        np.testing.assert_array_equal(ours[tensor], values, err_msg=tensor)


def packed(shape, seed):
    """Blocks and scales of MXFP4 for [experts, outputs, inputs], and the numbers, one by one."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (*shape[:2], shape[2] // 32, 16), np.uint8)
    scales = rng.integers(120, 126, blocks.shape[:3], np.uint8)
    numbers = np.zeros(shape, np.float32)
    for place in np.ndindex(*shape):
        byte = int(blocks[*place[:2], place[2] // 32, place[2] % 32 // 2])
        code = byte >> 4 if place[2] % 2 else byte & 15
        size = [0, 0.5, 1, 1.5, 2, 3, 4, 6][code & 7] * 2.0 ** (int(scales[*place[:2], place[2] // 32]) - 127)
        numbers[place] = -size if code & 8 else size
    return blocks, scales, numbers


def test_experts_in_mxfp4_are_the_numbers_that_they_stand_for(tmp_path):
    """As gpt-oss is published: blocks and scales in the place of its experts' matrices."""
    from safetensors.numpy import load_file, save_file

    meta, _ = references.stored("gpt_oss")
    config, hidden, experts = meta["config"] | {"intermediate_size": 64}, 64, "mlp.experts."
    shapes = {n: [4, 2 * hidden] if n.endswith("gate_up_proj_bias") else s for n, s in meta["shapes"].items()}
    for kind in ("whole", "quantised"):
        references.write_folder(tmp_path / kind, config, shapes)
        tensors = load_file(tmp_path / kind / "model.safetensors")
        for layer in range(3):
            for name, shape in (("gate_up_proj", (4, 2 * hidden, 32)), ("down_proj", (4, 32, hidden))):
                name = f"model.layers.{layer}.{experts}{name}"
                blocks, scales, numbers = packed(shape, layer)
                tensors[name] = np.ascontiguousarray(numbers.swapaxes(1, 2))
                if kind == "quantised":
                    del tensors[name]
                    tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        save_file(tensors, tmp_path / kind / "model.safetensors")
    said = config | {"quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(said))
    one, other = (load_pretrained(tmp_path / kind) for kind in ("whole", "quantised"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.peers
@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed (`make test-peers`); the stored numbers are compared",
)
@pytest.mark.parametrize("name", NAMES)
def test_transformers_agrees_and_loads_what_we_save(name, folder, tmp_path):
    path, stored = folder(name)
    expected = references.outputs(references.load(path))
    close(stored["logits"], expected["logits"], 1e-5)
    model = load_pretrained(path)
    agree(model, expected)
    save_pretrained(model, tmp_path / "saved")
    again = references.outputs(references.load(tmp_path / "saved"))
    close(again["logits"], np.asarray(forward(model, references.tokens())), 2e-5)
    assert (
        json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"]
        == references.CONFIGS[name][0]
    )
    assert jnp.float32 == model.embedding_VD[...].dtype
