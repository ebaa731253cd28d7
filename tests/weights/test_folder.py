"""Weights of a finished stage."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import weights
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.publish import published
from jaxtrain.tokenize.tokenizer import train
from jaxtrain.weights import folder as store
from jaxtrain.weights import save_pretrained


@pytest.fixture
def saved(config, draw, make_mesh, tmp_path):
    """A folder with the weights of key 3, written on fsdp 4 x tensor 2."""
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        store.write_about(config, None, tmp_path)
        checkpoints = Checkpoints(tmp_path / "checkpoint")
        checkpoints.save(1, draw(4), {"step": jnp.int32(1)})
        checkpoints.save(2, draw(3), {"step": jnp.int32(2)})
        checkpoints.close()
    return tmp_path


def test_round_trip_onto_another_mesh(saved, config, draw, make_mesh):
    with jax.set_mesh(make_mesh(data=2, fsdp=2)):
        loaded, drawn = store.load(saved), draw(3)
        assert loaded.config == config
        for found, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(drawn), strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert jax.typeof(found) == jax.typeof(wanted)


def test_a_bare_interpreter_works(saved, config, draw, make_mesh):
    """No mesh is set: `load` sets one of one device."""
    script = (
        "import sys, numpy as np; from jaxtrain.weights import folder as store; "
        "model = store.load(sys.argv[1]); "
        "print(np.asarray(model(np.arange(8, dtype=np.int32)[None]))[0, -1].argmax())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with jax.set_mesh(make_mesh(fsdp=1)):
        logits = draw(3)(np.arange(8, dtype=np.int32)[None])
    assert int(done.stdout) == int(np.asarray(logits)[0, -1].argmax())


def test_no_model_is_told(tmp_path, make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)), pytest.raises(UserError, match=r"model\.json is absent"):
        store.load(tmp_path)


def test_unfinished_weights_are_told(tmp_path, config, make_mesh):
    store.write_about(config, None, tmp_path)
    with jax.set_mesh(make_mesh(fsdp=1)), pytest.raises(UserError, match="checkpoint"):
        store.load(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    with jax.set_mesh(make_mesh(fsdp=1)), pytest.raises(UserError, match="no complete checkpoint"):
        store.load(tmp_path)


def test_ids_beyond_the_embedding_are_refused_where_they_can_come(tmp_path, config, make_mesh):
    """A chat template with tokens that the embedding was never made for."""
    tokenizer = published(train(["What the assistant says ends."] * 3, 275))
    rows = tokenizer.vocab_size - 1  # of `<|end|>`, which the template writes
    for folder, template, is_refused in (("chat", tokenizer.template, True), ("plain", None, False)):
        with jax.set_mesh(make_mesh(fsdp=1)):
            model = Transformer(dataclasses.replace(config, vocab_size=rows), jax.random.key(0))
            save_pretrained(model, tmp_path / folder, dataclasses.replace(tokenizer, template=template))
        source = weights.open(tmp_path / folder)
        if not is_refused:
            assert source.tokenizer.vocab_size == rows + 1
            continue
        with pytest.raises(UserError, match=rf"has {rows + 1} ids, its embedding {rows} rows: '<\|end\|>'"):
            source.tokenizer  # noqa: B018
