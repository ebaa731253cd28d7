"""Adapters: nothing changes at first, merged is the same as beside, on every mesh; and in PEFT's folders."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights import folder as store
from jaxtrain.weights import peft

MIXTURE = ModelConfig(
    vocab_size=96,
    layers=2,
    d_model=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    d_hidden=48,
    max_length=32,
    experts=4,
)
LATENT = replace(
    MIXTURE,
    **{"qk_norm": False, "kv_heads": 4, "rotary_dim": 4, "value_dim": 6, "latent_rank": 16},
    **{"query_rank": 24, "dense_layers": 1, "dense_hidden": 48, "shared_experts": 1, "router": "sigmoid"},
)
TARGETS = r"attention\.[qkvo]+_.*|mlp\.(gate|up|down)_.*"
"""Of latent attention every matrix, the two of keys and values too."""
LORA = LoRAConfig(rank=4, dropout=0.2, rank_stabilized=True, targets=TARGETS)
TOKENS = np.random.default_rng(0).integers(0, 96, (8, 16)).astype(np.int32)
forward = jax.jit(lambda model, tokens: model(tokens))


def made(config: ModelConfig, lora_config: LoRAConfig = LORA):
    """A model, and it with adapters that are no longer zero."""
    model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
    adapted = jax.jit(lora.adapt, static_argnums=1)(model, lora_config, jax.random.key(1))
    return model, adapted, trained(adapted)


def trained(adapted):
    """Adapters as if they had learnt: drawn by name, so the same on every mesh."""

    def draw(name: str, like: jax.Array) -> jax.Array:
        values = np.random.default_rng(len(name) + ord(name[-1])).normal(0, 0.05, like.shape)
        return jax.device_put(np.asarray(like) + values.astype(np.float32), like.sharding)

    return {name: draw(name, like) for name, like in lora.take(adapted).items()}


@pytest.fixture(scope="module")
def alone(config, make_mesh):
    """Of the dense model and the mixture on one device: outputs with adapters, gradient norms."""
    found = {}
    with jax.set_mesh(make_mesh(fsdp=1)):
        for name, shape in (("dense", config), ("mixture", MIXTURE), ("latent", LATENT)):
            _, adapted, adapters = made(shape)
            found[name] = outputs(adapted, adapters)
    return found


@jax.jit
def outputs(adapted, adapters):
    def loss(adapters, model):
        logits = lora.put(model, adapters)(jnp.asarray(TOKENS))
        return jnp.mean(logits**2), logits

    gradient, logits = jax.grad(loss, has_aux=True)(adapters, adapted)
    return logits, {name: jnp.sqrt(jnp.sum(value**2)) for name, value in gradient.items()}


@pytest.mark.parametrize(
    ("name", "matrices"),
    [("dense", 4 + 3), ("mixture", 4 + 3), ("latent", 2 * 5 + 3 * 3)],  # shared experts', the first layer's
)
def test_adapters_change_nothing_at_first_and_merge_exactly(config, make_mesh, alone, name, matrices):
    with jax.set_mesh(make_mesh(fsdp=1)):
        model, adapted, adapters = made({"dense": config, "mixture": MIXTURE, "latent": LATENT}[name])
        before = np.asarray(forward(model, TOKENS))
        np.testing.assert_array_equal(forward(adapted, TOKENS), before)
        beside = forward(lora.put(adapted, adapters), TOKENS)
        merged = jax.jit(lora.merge)(lora.put(adapted, adapters))
        assert jax.tree.structure(merged) == jax.tree.structure(model)
        np.testing.assert_allclose(forward(merged, TOKENS), beside, atol=1e-5)
        assert np.abs(beside - before).max() > 0.3
        assert all(float(norm) > 1e-7 for norm in alone[name][1].values()), "every adapter learns"
        assert len(adapters) == 2 * matrices


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        pytest.param("dense", {"fsdp": 2, "tensor": 2, "context": 2}, marks=pytest.mark.slow),
        pytest.param("dense", {"stage": 2, "fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
        pytest.param("mixture", {"fsdp": 2, "expert": 2, "tensor": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_mesh_changes_nothing(config, make_mesh, alone, name, axes):
    with jax.set_mesh(make_mesh(**axes)):
        _, adapted, adapters = made({"dense": config, "mixture": MIXTURE}[name])
        logits, norms = outputs(adapted, adapters)
    np.testing.assert_allclose(logits, alone[name][0], atol=2e-5)
    for key, norm in norms.items():
        np.testing.assert_allclose(norm, alone[name][1][key], rtol=1e-4)


def test_dropout_is_by_key_and_keeps_the_mean(config, make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        _, adapted, adapters = made(config)
        run = jax.jit(lambda seed: lora.put(adapted, adapters, jax.random.key(seed))(jnp.asarray(TOKENS)))
        without = np.asarray(forward(lora.put(adapted, adapters), TOKENS))
        one, same, other = (np.asarray(run(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert np.abs(one - other).max() > 0.01 and np.abs(one - without).max() > 0.01


def test_what_matches_nothing_is_refused(config, make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        with pytest.raises(UserError, match=r"matches none of attention\.k_DKH"):
            lora.adapt(model, LoRAConfig(targets="query"), jax.random.key(0))
    with pytest.raises(UserError, match="no regular expression"):
        LoRAConfig(targets="(")


def test_a_peft_folder_comes_back_and_says_what_it_cannot(config, make_mesh, tmp_path):
    with jax.set_mesh(make_mesh(fsdp=1)):
        model, adapted, adapters = made(config)
        base = tmp_path / "base"
        from jaxtrain.weights import save_pretrained

        save_pretrained(model, base)
        peft.save(adapters, LORA, config, tmp_path / "peft", base)
        again = store.load(tmp_path / "peft")
        np.testing.assert_allclose(
            forward(again, TOKENS), forward(lora.put(adapted, adapters), TOKENS), atol=1e-5
        )
        mixture, _, of_experts = made(MIXTURE)
        assert not peft.without_module(adapters, config)
        assert "mlp." in peft.without_module(of_experts, mixture.config)
        (tmp_path / "peft" / peft.CONFIG).write_text('{"peft_type": "IA3"}')
        with pytest.raises(UserError, match="peft_type 'IA3' is not supported"):
            peft.load(tmp_path / "peft", model)


@pytest.mark.slow
def test_optimizer_and_gradients_are_a_twentieth_of_full_fine_tuning(make_mesh):
    """Rank 16 on the shape of SmolLM2-135M: what the compiler says that a step's state and gradients need."""
    from jaxtrain.train import optimizer
    from jaxtrain.train.losses import token_loss
    from jaxtrain.train.optimizer import OptimizerConfig

    shape = ModelConfig(
        vocab_size=49152, layers=30, d_model=576, heads=9, kv_heads=3, head_dim=64, d_hidden=1536, tied=True,
        qk_norm=False, max_length=64,
    )  # fmt: skip
    rule = optimizer.make(OptimizerConfig(), 10)
    rows = jax.ShapeDtypeStruct((1, 64), jnp.int32)
    batch = dict.fromkeys(("tokens", "targets", "segment_ids", "positions"), rows)
    batch["loss_weights"] = jax.ShapeDtypeStruct((1, 64), jnp.float32)

    def bytes_of(init, loss) -> int:
        """Gradient and moments: what a step gives out beside the weights."""
        learned, frozen = jax.eval_shape(init)

        def step(learned, state, frozen, batch):
            gradient = jax.grad(loss, has_aux=True)(learned, frozen, batch)[0]
            return gradient, rule.update(gradient, state, learned)[1]

        compiled = jax.jit(step).lower(learned, jax.eval_shape(rule.init, learned), frozen, batch).compile()
        return compiled.memory_analysis().output_size_in_bytes

    def init_adapters():
        adapted = lora.adapt(Transformer(shape, jax.random.key(0)), LoRAConfig(rank=16), jax.random.key(0))
        return lora.take(adapted), adapted

    with jax.set_mesh(make_mesh(fsdp=1)):
        full = bytes_of(
            lambda: (Transformer(shape, jax.random.key(0)), jnp.zeros(())),
            lambda model, _, batch: token_loss(model, batch),
        )
        small = bytes_of(
            init_adapters, lambda adapters, model, batch: token_loss(lora.put(model, adapters), batch)
        )
    assert 0 < small <= 0.05 * full, (small, full)
