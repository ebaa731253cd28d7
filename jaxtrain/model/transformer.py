"""The transformer: a stack of identical blocks, scanned, so that compile time does not grow with depth.

B batch, T time, D model, V vocab, L layers
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.attention import Attention
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.experts import Experts, imbalance
from jaxtrain.model.float8 import narrowed
from jaxtrain.model.gated_delta import GatedDelta
from jaxtrain.model.kernels import Sight, see
from jaxtrain.model.latent_attention import LatentAttention
from jaxtrain.model.layers import MLP, Layout, Norm, look_up, named_key, normal, project, softcap
from jaxtrain.model.quantized import Quantized, operand
from jaxtrain.model.ring_attention import balanced_order, to_balanced, to_natural
from jaxtrain.model.stack import Stacks, fold, pipeline, remembered
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH

Mix = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
"""(attention or another mixer, its input [B, T, D]) to its output, and what a cache keeps."""


class Block(nnx.Module):
    """Attention, then the MLP or experts; each with its norm before it, behind it, or both."""

    def __init__(self, config: ModelConfig, key: jax.Array, is_local: bool = False):
        before, after = config.norm_placement != "after", config.norm_placement != "before"
        norm = lambda wanted: Norm(config, (config.d_model,)) if wanted else None  # noqa: E731
        self.attention_norm, self.attention_post_norm = norm(before), norm(after)
        attention = LatentAttention if config.latent_rank else Attention
        mixer = GatedDelta if config.delta_key_heads and is_local else attention
        self.attention = mixer(config, named_key(key, "attention"))
        self.mlp_norm, self.mlp_post_norm = norm(before), norm(after)
        self.mlp = (Experts if config.experts else MLP)(config, named_key(key, "mlp"))

    def __call__(
        self, x_BTD: jax.Array, mix: Mix, segments_BT: jax.Array, layout: Layout
    ) -> tuple[jax.Array, jax.Array, Any]:
        """x after the block, how uneven its experts were used (0 without experts), and what `mix` keeps."""
        config = self.attention.config
        mixed_BTD, kept = mix(self.attention, layout.gathered(_maybe(self.attention_norm, x_BTD)))
        mixed_BTD = _times(_maybe(self.attention_post_norm, mixed_BTD), config.residual_multiplier)
        between_BTD = x_BTD + mixed_BTD
        in_BTD = layout.gathered(_maybe(self.mlp_norm, x_BTD if config.parallel else between_BTD))
        uneven = jnp.float32(0)
        if isinstance(self.mlp, Experts):
            out_BTD, probability_BTE, chosen_BTE = self.mlp(in_BTD, layout)
            uneven = imbalance(probability_BTE, chosen_BTE, segments_BT > 0)
        else:
            out_BTD = self.mlp(in_BTD, layout)
        out_BTD = _times(_maybe(self.mlp_post_norm, out_BTD), config.residual_multiplier)
        return between_BTD + out_BTD, uneven, kept

    def whole(
        self, x_BTD: jax.Array, sight: Sight, layout: Layout, is_local: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The same of whole sequences, of which nothing is kept."""
        mix = lambda mixer, x_BTD: (mixer(x_BTD, sight, layout, is_local), None)  # noqa: E731
        return self(x_BTD, mix, sight.segments_BT, layout)[:2]


def _maybe(norm: Norm | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)


def _times(x: jax.Array, factor: float) -> jax.Array:
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)


def _stack(config: ModelConfig, key: jax.Array, name: str, layers: int, axis: str | None) -> Block:
    """Blocks whose weights have a leading axis of layers, cut over a mesh axis."""
    keys = jax.sharding.reshard(jax.random.split(named_key(key, name), layers), P(axis))
    return jax.vmap(lambda layer_key: Block(config, layer_key, name == "local_blocks"))(keys)


class Transformer(nnx.Module):
    """Decoder-only language model. `Transformer(config, key)` draws weights on the mesh that is set."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        _check(config)
        D, V = config.d_model, config.vocab_size
        self.config = config
        self.embedding_VD = normal(key, "embedding", (V, D), P(None, "fsdp"), D**-0.5 if config.tied else 1.0)
        learned = config.positions == "learned"
        self.positions_TD = (
            normal(key, "positions", (config.max_length, D), P(None, "fsdp"), D**-0.5) if learned else None
        )
        first, delta = config.dense_layers, config.delta_layers
        self.first_blocks = _stack(config.dense, key, "first_blocks", first, None) if first else None
        self.local_blocks = _stack(config, key, "local_blocks", delta, "stage") if delta else None
        self.blocks = _stack(config, key, "blocks", config.layers - first - delta, "stage")
        self.norm = Norm(config, (D,))
        self.embedding_norm = Norm(config, (D,)) if config.embedding_norm else None
        odd = V % jax.sharding.get_abstract_mesh().shape["tensor"] != 0  # then it is whole on every device
        head = P("fsdp", None if odd else "tensor")
        self.head_DV = None if config.tied else normal(key, "head", (D, V), head, D**-0.5)

    @property
    def stacks(self) -> list[Stacks]:
        """Layers in their order, each part as `fold` takes it."""
        first = [] if self.first_blocks is None else [{None: self.first_blocks}]
        apart = {True: self.local_blocks, False: self.blocks}
        return [*first, {None: self.blocks} if self.local_blocks is None else apart]

    @property
    def output_DV(self) -> jax.Array:
        """Weights of the output head: its own, or the embedding's."""
        return self.embedding_VD[...].T if self.head_DV is None else self.head_DV[...]

    def __call__(
        self,
        tokens_BT: jax.Array,
        segment_ids_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Logits [B, T, V], float32."""
        return self.logits(self.hidden(tokens_BT, segment_ids_BT, positions_BT))

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, V], float32, of hidden states."""
        head_DV = operand(self.output_DV if self.head_DV is None else self.head_DV, x_BTD.dtype)
        cut = head_DV.spec if isinstance(head_DV, Quantized) else jax.typeof(head_DV).sharding.spec
        spec = P(BATCH, jax.typeof(x_BTD).sharding.spec[1], cut[1])
        logits_BTV = project("btd,dv->btv", x_BTD, head_DV, spec).astype(jnp.float32)
        return softcap(logits_BTV, self.config.logit_softcap)

    def hidden(
        self,
        tokens_BT: jax.Array,
        segment_ids_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> jax.Array:
        """The last hidden states [B, T, D], normed: what the output head and a reward head read."""
        return self.hidden_and_penalty(tokens_BT, segment_ids_BT, positions_BT)[0]

    def hidden_and_penalty(
        self,
        tokens_BT: jax.Array,
        segment_ids_BT: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """`hidden`, and what is added to the mean loss: `balance_loss` times the experts' mean imbalance."""
        config = self.config
        B, T = tokens_BT.shape
        slots_T, layout = balanced_order(T), Layout.of(T)
        rows = P(BATCH, "context")
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
        tokens_BT, positions_BT, segment_ids_BT = (
            None if x_BT is None else to_balanced(jax.sharding.reshard(x_BT, rows))
            for x_BT in (tokens_BT, positions_BT, segment_ids_BT)
        )
        sights = see(config, positions_BT, segment_ids_BT, jnp.asarray(slots_T))

        def run(stacks: Stacks, x_BTD: jax.Array, sights: dict[bool, Sight]) -> tuple[jax.Array, jax.Array]:
            def step(carry, block: Block, is_local: bool, _):
                x_BTD, penalty = carry
                block = narrowed(block) if config.float8 else block
                whole = lambda x, block, sight: block.whole(x, sight, layout, is_local)  # noqa: E731
                x_BTD, uneven = remembered(whole, config.remat)(x_BTD, block, sights[is_local])
                return x_BTD, penalty + uneven * (config.balance_loss / config.layers)

            return fold(step, (x_BTD, jnp.float32(0)), stacks, config)

        x_BTD = self.embed(tokens_BT, positions_BT, layout)
        *first, rest = self.stacks
        for stacks in first:  # every stage has them
            x_BTD, _ = run(stacks, x_BTD, sights)
        x_BTD, penalty = pipeline(run, rest, x_BTD, sights, config.stage_microbatches)
        return to_natural(jax.sharding.reshard(self.normed(x_BTD), P(BATCH, "context", None))), penalty

    def normed(self, x_BTD: jax.Array) -> jax.Array:
        """What the output head reads of the last block's output; `logit_divisor` has divided it."""
        return _times(self.norm(x_BTD), 1 / self.config.logit_divisor)

    def embed(self, tokens_BT: jax.Array, positions_BT: jax.Array, layout: Layout) -> jax.Array:
        """What the first block reads, [B, T, D]."""
        x_BTD = look_up(self.embedding_VD[...], tokens_BT, layout).astype(self.config.dtype)
        if self.config.embedding_scale:
            x_BTD = x_BTD * jnp.asarray(self.config.d_model**0.5, x_BTD.dtype)
        x_BTD = _times(x_BTD, self.config.embedding_multiplier)
        if self.positions_TD is not None:
            x_BTD = x_BTD + look_up(self.positions_TD[...], positions_BT, layout).astype(x_BTD.dtype)
        return _maybe(self.embedding_norm, x_BTD)


def _check(config: ModelConfig) -> None:
    """UserError where the mesh that is set cannot cut this model."""
    shape = jax.sharding.get_abstract_mesh().shape
    pattern = len(config.is_local) if shape["stage"] > 1 else 1
    cuts = {
        "layers": ("stage", shape["stage"] * pattern),
        "d_model": ("fsdp", shape["fsdp"]),
        "latent_rank": ("fsdp", shape["fsdp"]),
        "query_rank": ("fsdp", shape["fsdp"]),
        "dense_hidden": ("tensor", shape["tensor"]),
        "heads": ("tensor", shape["tensor"]),
        "kv_heads": ("tensor", shape["tensor"]),
        "d_hidden": ("tensor", shape["tensor"]),
        "delta_key_heads": ("tensor", shape["tensor"]),
        "experts": ("expert", shape["expert"] if config.experts else 1),
    }
    for field, (axis, parts) in cuts.items():
        size = getattr(config, field) - (config.dense_layers if field == "layers" else 0)
        if size % parts != 0:
            raise UserError(
                f"model.{field} {size} does not fit mesh {axis} {shape[axis]}: make it a multiple of {parts}"
            )
