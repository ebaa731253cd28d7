"""The cache of keys and values: all slots of global layers, the last `window` of local ones.

B batch, T new tokens, S slots, W window, K key heads, H head dim, L layers of one kind
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.kernels import Sight, visible
from jaxtrain.runtime.mesh import BATCH


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of every layer, and what stands in each slot. Rows advance together."""

    k_LBSKH: jax.Array
    """Of the layers that see everything."""
    v_LBSKH: jax.Array
    k_LBWKH: jax.Array
    """Of the local layers, a ring: slot s of the row is in slot s mod W."""
    v_LBWKH: jax.Array
    segment_ids_BS: jax.Array
    """0 where the slot holds padding or nothing yet."""
    used: jax.Array
    """int32 scalar: slots written so far, the same for every row."""

    def with_keys(
        self, k_BTKH: jax.Array, v_BTKH: jax.Array, is_local: bool, index: jax.Array | int
    ) -> tuple["Cache", jax.Array, jax.Array]:
        """The cache with new keys and values in layer `index` of its kind, and all that its queries may see.

        Of a local layer these are the ring as it was and the new ones: a long prompt overwrites its window.
        """
        if not is_local:
            k_LBSKH = _write(self.k_LBSKH, k_BTKH, index, self.used)
            v_LBSKH = _write(self.v_LBSKH, v_BTKH, index, self.used)
            cache = dataclasses.replace(self, k_LBSKH=k_LBSKH, v_LBSKH=v_LBSKH)
            return cache, _layer(k_LBSKH, index), _layer(v_LBSKH, index)
        k_BWKH, v_BWKH = _layer(self.k_LBWKH, index), _layer(self.v_LBWKH, index)
        cache = dataclasses.replace(
            self,
            k_LBWKH=_write(self.k_LBWKH, _ring(k_BWKH, k_BTKH, self.used), index, 0),
            v_LBWKH=_write(self.v_LBWKH, _ring(v_BWKH, v_BTKH, self.used), index, 0),
        )
        joined = lambda old, new: jnp.concatenate([old, new.astype(old.dtype)], axis=1)  # noqa: E731
        return cache, joined(k_BWKH, k_BTKH), joined(v_BWKH, v_BTKH)


def new_cache(config: ModelConfig, rows: int, slots: int) -> Cache:
    """An empty cache of `slots` tokens for `rows` sequences."""
    pattern = config.is_local
    local = sum(pattern[layer % len(pattern)] for layer in range(config.layers))
    spec = P(None, BATCH, None, "tensor", None)

    def empty(layers: int, length: int) -> jax.Array:
        shape = (layers, rows, length, config.kv_heads, config.head_dim)
        return jnp.zeros(shape, config.dtype, out_sharding=spec)

    all_slots, ring = empty(config.layers - local, slots), empty(local, min(config.window, slots))
    segments = jnp.zeros((rows, slots), jnp.int32, out_sharding=P(BATCH, None))
    return Cache(all_slots, all_slots, ring, ring, segments, jnp.int32(0))


def advance(
    cache: Cache, segments_BT: jax.Array, positions_BT: jax.Array, config: ModelConfig
) -> tuple[Cache, dict[bool, Sight]]:
    """The cache with T more slots in use, whose keys are yet to be written, and what the new queries see.

    Of each kind of layer its own; layers write at `cache.used` as it was.
    """
    T = segments_BT.shape[1]
    segments_BS = jax.lax.dynamic_update_slice_in_dim(cache.segment_ids_BS, segments_BT, cache.used, axis=1)
    spread = lambda slots: jnp.broadcast_to(slots[None], (segments_BT.shape[0], slots.shape[0]))  # noqa: E731
    new_T, all_S = cache.used + jnp.arange(T), jnp.arange(segments_BS.shape[1])

    def sight(slots_S: jax.Array, segments_BS: jax.Array, window: int) -> Sight:
        seen = Sight(positions_BT, segments_BT, spread(new_T), segments_BS, spread(slots_S))
        return dataclasses.replace(seen, mask_BTS=visible(seen, window))

    sights = {}
    if False in config.is_local:
        sights[False] = sight(all_S, segments_BS, 0)
    if True in config.is_local:
        W = cache.k_LBWKH.shape[2]
        ring_W = (
            cache.used - 1 - (cache.used - 1 - jnp.arange(W)) % W
        )  # the slot that each place holds; < 0: none
        in_ring_BW = jnp.take(cache.segment_ids_BS, jnp.maximum(ring_W, 0), axis=1)
        in_ring_BW = jnp.where(ring_W >= 0, in_ring_BW, -1)
        sights[True] = sight(
            jnp.concatenate([ring_W, new_T]),
            jnp.concatenate([in_ring_BW, segments_BT], axis=1),
            config.window,
        )
    return dataclasses.replace(cache, segment_ids_BS=segments_BS), sights


def _layer(x_LBSKH: jax.Array, index: jax.Array | int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x_LBSKH, index, 0, keepdims=False)


def _write(
    x_LBSKH: jax.Array, new_BTKH: jax.Array, index: jax.Array | int, slot: jax.Array | int
) -> jax.Array:
    new = new_BTKH[None].astype(x_LBSKH.dtype)
    return jax.lax.dynamic_update_slice(x_LBSKH, new, (index, 0, slot, 0, 0))


def _ring(old_BWKH: jax.Array, new_BTKH: jax.Array, used: jax.Array) -> jax.Array:
    """The ring after T more tokens: place w holds the newest of the slots ≡ w (mod W)."""
    W, T = old_BWKH.shape[1], new_BTKH.shape[1]
    if T == 1:
        return jax.lax.dynamic_update_slice_in_dim(
            old_BWKH, new_BTKH.astype(old_BWKH.dtype), used % W, axis=1
        )
    newest_W = used + T - 1 - (used + T - 1 - jnp.arange(W)) % W
    from_new_W = newest_W >= used
    taken_BWKH = jnp.take(new_BTKH, jnp.clip(newest_W - used, 0, T - 1), axis=1).astype(old_BWKH.dtype)
    return jnp.where(from_new_W[None, :, None, None], taken_BWKH, old_BWKH)
