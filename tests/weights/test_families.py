"""Each family against `transformers`: computed by it where it is installed, else its stored numbers."""

import importlib.util
import json

import family_references as references
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.decode.generate import sample
from jaxtrain.train.losses import token_loss
from jaxtrain.weights import load_pretrained, save_pretrained

NAMES = sorted(references.CONFIGS)
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
    greedy = sample(model, prompts, seed=0, max_new=references.NEW, stop=-1, pad=0, temperature=0.0)
    assert greedy == expected["greedy"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_agrees_with_the_stored_numbers(name, folder):
    path, expected = folder(name)
    agree(load_pretrained(path), expected)


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
