"""Weights of a finished stage."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import weights
from jaxtrain.model import lora
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.publish import published
from jaxtrain.tokenize.tokenizer import train
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store
from jaxtrain.weights import save_pretrained
from jaxtrain.weights.convert import ConvertConfig, convert
from jaxtrain.weights.learners import base_of, learner_of

forward = jax.jit(lambda model, tokens: model(tokens))


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


@pytest.fixture(scope="module")
def kinds(config, make_mesh, tmp_path_factory):
    """A folder of each kind: of one model, or of adapters that change it."""
    made = tmp_path_factory.mktemp("kinds")
    tokenizer = train(["What the assistant says ends."] * 3, 275)
    with jax.set_mesh(make_mesh(fsdp=1)), pytest.MonkeyPatch.context() as patch:
        shape = dataclasses.replace(config, vocab_size=275)
        model = jax.jit(lambda: Transformer(shape, jax.random.key(1)))()
        store.write_artifact(model, tokenizer, made / "ours")
        about = LoRAConfig(rank=2)
        adapters = lora.take(jax.jit(lora.adapt, static_argnums=1)(model, about, jax.random.key(0)))
        (made / "adapters").mkdir()
        store.write_about(model.config, tokenizer, made / "adapters")
        store.write_adapter(made / "adapters", made / "ours", about)
        checkpoints = Checkpoints(made / "adapters" / "checkpoint")
        checkpoints.save(0, jax.tree.map(lambda x: x + 0.1, adapters), {"step": jnp.int32(0)})
        checkpoints.close()
        for source, out in (("ours", "hugging face"), ("adapters", "peft"), ("ours", "sharded")):
            if out == "sharded":
                patch.setattr("jaxtrain.weights.huggingface.FILE_BYTES", 20_000)
            convert(ConvertConfig(source=str(made / source), out=str(made / out)))
    return made


@dataclasses.dataclass
class Stage:
    """What every stage that begins with a model has of its config."""

    model: str
    lora: LoRAConfig
    train: TrainConfig


@pytest.mark.parametrize("kind", ["ours", "adapters", "hugging face", "sharded", "peft"])
def test_a_stage_begins_with_any_kind_of_folder(kind, kinds, make_mesh, tmp_path):
    """Its tokenizer, its logits, and adapters that stand on it and are found again."""
    tokens = np.arange(16, dtype=np.int32)[None]
    with jax.set_mesh(make_mesh(fsdp=1)):
        origin = "adapters" if kind in ("adapters", "peft") else "ours"
        source, like = weights.open(kinds / kind), weights.open(kinds / origin)
        logits = forward(source.load(), tokens)
        np.testing.assert_allclose(logits, forward(like.load(), tokens), atol=1e-5)
        assert source.tokenizer.encode("What ends?") == like.tokenizer.encode("What ends?")
        assert source.load_to_use("bfloat16").embedding_VD[...].dtype == jnp.bfloat16
        config = Stage(
            str(kinds / kind), LoRAConfig(rank=2), TrainConfig(optimizer=OptimizerConfig(), steps=1)
        )
        learner = learner_of(config, tmp_path, source.config)
        np.testing.assert_allclose(forward(base_of(learner), tokens), logits, atol=1e-5)
        assert store.read_adapter(tmp_path)["base"] == kinds / kind
