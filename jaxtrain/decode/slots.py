"""The cache of keys and values, every row at its own place, and the tokens that follow those in it.

A row's slot is its position in the sequence, so what a row holds does not depend on the rows beside it.
Weights are unrolled first (`Decoder`): a loop over stacked layers copies each layer's weights at every token.

B batch, T new tokens, S slots, D model, N query heads, K key heads, G = N / K, H head dim, L layers
"""

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.gated_delta import Memory, new_memory
from jaxtrain.model.kernels import not_sunk
from jaxtrain.model.layers import WHOLE, Rule
from jaxtrain.model.stack import fold, gathered
from jaxtrain.model.transformer import Block, Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH

KEYS = P(BATCH, "tensor", None, None)
HEADS = P(BATCH, None, "tensor", None)
ROWS = P(BATCH, None)
SHARED = P(BATCH, None, None, None)
"""Of a key that all heads share."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoder:
    """A model laid out for decoding: layers apart, matmul weights in the dtype of the matmuls."""

    shell: Transformer
    """Embedding, last norm, head and config; its blocks are gone."""
    blocks: tuple[Block, ...]

    @property
    def config(self) -> ModelConfig:
        return self.shell.config

    @staticmethod
    def of(model: Transformer) -> "Decoder":
        """To be jitted where the model is large, or called inside a jitted function.

        What `fsdp` shares in training is whole on every device here: else each token would gather it again.
        """
        config = model.config

        def cast(path: tuple[Any, ...], weight: jax.Array) -> jax.Array:
            wide = ("scale", "bias", "choice_bias_E", "codes", "shares", "fade_bias_N", "fade_log_N")
            is_wide = any(getattr(key, "name", None) in wide for key in path)
            weight = weight if is_wide else weight.astype(config.dtype)
            spec = jax.typeof(weight).sharding.spec
            return jax.sharding.reshard(weight, P(*(None if axis == "fsdp" else axis for axis in spec)))

        model = jax.tree_util.tree_map_with_path(cast, model)
        unrolled, apart = replace(config, scan=False), list[Block]()
        for stacks in model.stacks:
            apart = fold(lambda found, block, *_: [*found, block], apart, gathered(stacks), unrolled)
        shell = copy.copy(model)
        shell.blocks = shell.first_blocks = shell.local_blocks = None
        return Decoder(shell, tuple(apart))


class Keys(NamedTuple):
    """Of a layer with attention; of latent attention the latent, and nothing as values."""

    k_BKSH: jax.Array
    v_BKSH: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """What every layer keeps of the tokens before."""

    layers: tuple[Keys | Memory, ...]
    tokens_BS: jax.Array
    """int32: the tokens themselves; behind a row's last one nothing that counts"""
    used_B: jax.Array
    """int32: tokens of each row that are in its slots"""

    @property
    def size(self) -> int:
        """S."""
        return self.tokens_BS.shape[1]


def _key_specs(config: ModelConfig) -> tuple[P, P]:
    """How new keys and values lie on the mesh, and those in slots."""
    return (SHARED, SHARED) if config.latent_rank else (HEADS, KEYS)


def new_slots(config: ModelConfig, rows: int, size: int) -> Slots:
    """Empty slots, in the dtype of activations."""
    heads, *widths = config.cached
    zeros = partial(jnp.zeros, dtype=config.dtype, out_sharding=_key_specs(config)[1])

    def empty(layer: int) -> Keys | Memory:
        if config.delta_key_heads and config.is_local[layer % len(config.is_local)]:
            return new_memory(config, rows)
        return Keys(*(zeros((rows, heads, size, width)) for width in widths))

    tokens_BS = jnp.zeros((rows, size), jnp.int32, out_sharding=ROWS)
    used_B = jnp.zeros((rows,), jnp.int32, out_sharding=P(BATCH))
    return Slots(tuple(map(empty, range(config.layers))), tokens_BS, used_B)


def append(
    decoder: Decoder, slots: Slots, tokens_BT: jax.Array, count_B: jax.Array
) -> tuple[jax.Array, Slots]:
    """Hidden states [B, T, D] of tokens that follow those in the slots, and the slots with them in.

    Of a row's T tokens the first `count_B` are real; what the others write is hidden until real tokens
    overwrite it. A row needs room for all T.
    """
    shell, kinds, used_B, after = decoder.shell, decoder.config.is_local, slots.used_B, []
    tokens_BT, count_B = jax.sharding.reshard(tokens_BT, ROWS), jax.sharding.reshard(count_B, P(BATCH))
    positions_BT = used_B[:, None] + jnp.arange(tokens_BT.shape[1])
    x_BTD = shell.embed(tokens_BT, positions_BT, WHOLE)
    for layer, (block, kept) in enumerate(zip(decoder.blocks, slots.layers, strict=True)):
        mix = partial(_mix, kept, used_B, count_B, kinds[layer % len(kinds)])
        x_BTD, _, kept = block(x_BTD, mix, jnp.ones_like(tokens_BT), WHOLE)
        after.append(kept)
    write = meshes.per_device(_write_tokens, (ROWS, ROWS, P(BATCH)), ROWS)
    tokens_BS = write(slots.tokens_BS, tokens_BT, used_B)
    return shell.normed(x_BTD), Slots(tuple(after), tokens_BS, used_B + count_B)


def _mix(
    kept: Keys | Memory, used_B: jax.Array, count_B: jax.Array, is_local: bool, mixer: Any, x_BTD: jax.Array
) -> tuple[jax.Array, Keys | Memory]:
    """What attention, or another mixer, gives of tokens behind those kept, and what is kept with them."""
    config, positions_BT = mixer.config, used_B[:, None] + jnp.arange(x_BTD.shape[1])
    if isinstance(kept, Memory):
        begun = Memory(*(jnp.where((used_B == 0)[:, None, None, None], 0, part) for part in kept))
        return mixer.extend(x_BTD, jnp.ones_like(positions_BT), count_B, begun, WHOLE)
    new, held = _key_specs(config)
    sinks = [] if mixer.sinks is None else [mixer.sinks]
    attend = meshes.per_device(
        partial(_write_and_attend, Rule.of(config, is_local), config.latent_rank),
        (HEADS, new, new, held, held, P(BATCH), *[P("tensor") for _ in sinks]),
        (HEADS, held, held),
    )
    *qkv, gate_BTNH = mixer.turned(x_BTD, positions_BT, WHOLE, is_local)
    out_BTNH, *keys = attend(*qkv, *kept, used_B, *sinks)
    return mixer.project_out(out_BTNH, gate_BTNH, WHOLE), Keys(*keys)


def _write_and_attend(
    rule: Rule,
    latent_rank: int,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    used_B: jax.Array,
    sinks_N: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """On one device: new keys and values into their slots, then attention to all that stand before."""
    B, T, N, H = q_BTNH.shape
    K, S = k_BKSH.shape[1:3]
    k_BKSH, v_BKSH = _write(k_BKSH, k_BTKH, used_B), _write(v_BKSH, v_BTKH, used_B)
    q_BKXH = jnp.moveaxis(q_BTNH.reshape(B, T, K, N // K, H), 1, 3).reshape(B, K, -1, H)  # X = G · T
    score_BKGTS = rule.score("bkxh,bksh->bkxs", q_BKXH, k_BKSH).reshape(B, K, N // K, T, S)
    at_BT1 = (used_B[:, None] + jnp.arange(T))[:, :, None]
    seen_BTS = rule.seen(at_BT1 - jnp.arange(S), jnp.bool_(True), at_BT1)
    score_BKGTS = jnp.where(seen_BTS[:, None, None], score_BKGTS, -1e30)
    share_BKGTS = jax.nn.softmax(score_BKGTS, axis=-1)
    if sinks_N is not None:
        share_BKGTS = share_BKGTS * not_sunk(score_BKGTS, sinks_N.reshape(K, N // K))[..., None]
    share_BKXS = share_BKGTS.astype(k_BKSH.dtype).reshape(B, K, -1, S)
    value_BKSH = k_BKSH[..., :latent_rank] if latent_rank else v_BKSH
    out_BKXH = jnp.einsum("bkxs,bksh->bkxh", share_BKXS, value_BKSH)
    out_BTNH = jnp.moveaxis(out_BKXH.reshape(B, K, N // K, T, -1), 3, 1).reshape(B, T, N, -1)
    return out_BTNH.astype(q_BTNH.dtype), k_BKSH, v_BKSH


def _write(x_BKSH: jax.Array, new_BTKH: jax.Array, used_B: jax.Array) -> jax.Array:
    new_BKTH = jnp.moveaxis(new_BTKH, 1, 2).astype(x_BKSH.dtype)
    if len(used_B) == 1 and meshes.platform() == "cpu":
        # where a branch may decide, XLA writes in place; else it fuses the write into what reads it, and
        # copies the slots five times
        put = lambda x_BKSH: jax.lax.dynamic_update_slice(x_BKSH, new_BKTH, (0, 0, used_B[0], 0))  # noqa: E731
        return jax.lax.cond(used_B[0] >= 0, put, lambda x_BKSH: x_BKSH, x_BKSH)
    row = lambda x_KSH, new_KTH, used: jax.lax.dynamic_update_slice(x_KSH, new_KTH, (0, used, 0))  # noqa: E731
    return jax.vmap(row)(x_BKSH, new_BKTH, used_B)


def _write_tokens(tokens_BS: jax.Array, new_BT: jax.Array, used_B: jax.Array) -> jax.Array:
    return jax.vmap(lambda x_S, new_T, used: jax.lax.dynamic_update_slice(x_S, new_T, (used,)))(
        tokens_BS, new_BT, used_B
    )


def insert(slots: Slots, row: jax.Array, other: Slots, theirs: jax.Array, used: jax.Array) -> Slots:
    """Row `row` becomes the first `used` tokens of row `theirs` of other slots of the same size.

    The three are int32 scalars.
    """

    def put(whole: jax.Array, part: jax.Array) -> jax.Array:
        def copied(whole: jax.Array, part: jax.Array, row: jax.Array, theirs: jax.Array) -> jax.Array:
            one = jax.lax.dynamic_index_in_dim(part, theirs, 0)
            return jax.lax.dynamic_update_slice_in_dim(whole, one, row, 0)

        spec = jax.typeof(whole).sharding.spec
        return jax.sharding.auto_axes(copied, out_sharding=spec)(whole, part, row, theirs)

    other = replace(other, used_B=jnp.full_like(other.used_B, used))
    return jax.tree.map(put, slots, other)


def grown(slots: Slots, size: int) -> Slots:
    """The same with more slots."""
    more = size - slots.size
    wider = lambda x_BKSH: jnp.pad(x_BKSH, ((0, 0), (0, 0), (0, more), (0, 0)))  # noqa: E731
    layers = [Keys(*map(wider, kept)) if isinstance(kept, Keys) else kept for kept in slots.layers]
    tokens_BS = jnp.pad(slots.tokens_BS, ((0, 0), (0, more)))
    return Slots(tuple(layers), tokens_BS, slots.used_B)
