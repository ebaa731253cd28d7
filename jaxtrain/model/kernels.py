"""One function for attention, and the kernels behind it.

    xla     everywhere, everything; holds the scores of all pairs of tokens
    blocks  CPU, NVIDIA: everything; rows of at least 128 tokens, scores in blocks that stay in the cache
    ring    everything, over a sharded sequence: keys travel round the `context` axis, scores stay in blocks
    splash  TPU (Pallas): scores never leave the chip; lengths that are multiples of 128
    cudnn   NVIDIA: no bound on scores; documents in a row on Hopper and newer
    pallas  NVIDIA (Pallas): documents in a row on older ones; no window and no bound on scores

A kernel that cannot do what is asked is refused by name and never asked to try (`refusal`).

B batch, T time of queries, S time of keys, N query heads, K key heads, G = N / K, H head dim
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from jaxtrain.model import block_attention, cudnn_attention
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import MATMUL, Rule
from jaxtrain.model.ring_attention import HEADS, ROWS, ring
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.runtime.progress import say


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sight:
    """What queries may see: keys of their own segment in no later slot, within a local layer's window."""

    positions_BT: jax.Array
    """In the document, for the rotary embedding; not for the mask."""
    segments_BT: jax.Array
    slots_BT: jax.Array
    """Place of each token in its row, whatever the order of the array."""
    mask_BTS: jax.Array | None = None
    """All of this as a mask, where the kernel takes one."""
    kernel: str = field(default="xla", metadata={"static": True})
    packed: bool = field(default=True, metadata={"static": True})
    """A row may hold several documents."""


def visible(sight: Sight, window: int) -> jax.Array:
    """Mask [B, T, S] of a sight; every device has the keys of the whole sequence."""
    whole = P(BATCH, None)
    segments_BS, slots_BS = (jax.sharding.reshard(x, whole) for x in (sight.segments_BT, sight.slots_BT))
    behind_BTS = sight.slots_BT[:, :, None] - slots_BS[:, None, :]
    return Rule(1.0, window=window).seen(behind_BTS, sight.segments_BT[:, :, None] == segments_BS[:, None, :])


def see(
    config: ModelConfig, positions_BT: jax.Array, segments_BT: jax.Array | None, slots_T: jax.Array
) -> dict[bool, Sight]:
    """What the tokens of whole rows see, for each kind of layer (is it local?) with the kernel chosen for it.

    segments_BT: None where every row is one document, which more kernels can do.
    """
    slots_BT = jax.sharding.reshard(jnp.broadcast_to(slots_T, positions_BT.shape), ROWS)
    packed = segments_BT is not None
    segments_BT = segments_BT if segments_BT is not None else jnp.ones_like(positions_BT)
    sights = {}
    for is_local in sorted(set(config.is_local)):
        window = config.window if is_local else 0
        apart_BT, is_cut = segments_BT, config.chunked and is_local
        if is_cut:  # a chunk is a document for every kernel
            apart_BT = jnp.where(segments_BT > 0, (segments_BT << 16) + positions_BT // window, 0)
        kernel = choose(config, window, positions_BT.shape[1], packed or is_cut)
        sight = Sight(positions_BT, apart_BT, slots_BT, kernel=kernel, packed=packed or is_cut)
        if kernel == "xla":
            sight = dataclasses.replace(sight, mask_BTS=visible(sight, window))
        sights[is_local] = sight
    return sights


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    sight: Sight,
    config: ModelConfig,
    is_local: bool,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention with grouped queries, [B, T, N, H], by the kernel of the sight."""
    rule = Rule.of(config, is_local)
    if sight.kernel == "xla":
        assert sight.mask_BTS is not None, "see gives xla a mask"
        return dense(rule, q_BTNH, k_BSKH, v_BSKH, sight.mask_BTS, sinks_N)
    if sight.kernel == "ring":
        return ring(rule, q_BTNH, k_BSKH, v_BSKH, (sight.segments_BT, sight.slots_BT))

    local = {
        "blocks": block_attention.attention,
        "splash": splash,
        "pallas": pallas,
        "cudnn": cudnn_attention.packed if sight.packed else cudnn_attention.whole_rows,
    }[sight.kernel]
    sinks = [] if sinks_N is None else [sinks_N]
    # The types of Pallas calls do not say what varies over the mesh, so that is not checked here.
    specs = (HEADS, HEADS, HEADS, ROWS, *[P("tensor") for _ in sinks])
    per_device = meshes.per_device(partial(local, rule), specs, HEADS, check=False)
    return per_device(q_BTNH, k_BSKH, v_BSKH, sight.segments_BT, *sinks)


def refusal(kernel: str, config: ModelConfig, window: int, length: int, packed: bool) -> str | None:
    """Why a kernel cannot do what is asked on the mesh that is set, or None."""
    platform, context = meshes.platform(), jax.sharding.get_abstract_mesh().shape["context"]
    if config.sinks and kernel not in ("xla", "splash"):
        return "it has no sinks"
    if kernel in ("xla", "ring"):
        return None
    odd_length = (length % 128 != 0, f"{length} tokens are no multiple of 128")
    not_nvidia = (platform not in ("gpu", "cuda"), f"it runs on NVIDIA, this is {platform}")
    unbound = (config.attention_softcap > 0, "it cannot bound scores (attention_softcap)")
    width, widest = config.head_dim, 256 if meshes.capability() >= 9 else 128
    reasons = {
        "splash": [
            (platform != "tpu", f"it runs on TPU, this is {platform}"),
            odd_length,
            (width % 64 != 0, f"head_dim {width} is no multiple of 64"),
        ],
        "blocks": [
            (platform == "tpu", "it is for CPUs and GPUs, this is tpu"),
            (length < 2 * block_attention.SMALLEST, f"{length} tokens are one block"),
        ],
        "cudnn": [
            not_nvidia,
            unbound,
            (packed and meshes.capability() < 9, "documents in a row need a Hopper GPU or newer"),
            (config.dtype == "float32", "it takes bfloat16 or float16, dtype is float32"),
            (width > widest, f"head_dim {width} is above {widest}"),
            (width % 8 != 0, f"head_dim {width} is no multiple of 8"),
        ],
        "pallas": [not_nvidia, unbound, (window > 0, f"it has no sliding window ({window})"), odd_length],
    }[kernel]
    reasons.append((context > 1, f"the sequence is sharded over context {context}; ring does that"))
    return next((words for refused, words in reasons if refused), None)


def choose(config: ModelConfig, window: int, length: int, packed: bool) -> str:
    """The kernel to use, said once with the reason; UserError where the one asked for cannot do it."""
    if config.attention != "auto":
        words = refusal(config.attention, config, window, length, packed)
        if words:
            raise UserError(f"model.attention {config.attention}: {words}; set it to auto")
        return config.attention
    if jax.sharding.get_abstract_mesh().shape["context"] > 1 and not config.sinks:
        _announce("ring", "the sequence is sharded over context")
        return "ring"
    refused = {}
    for kernel in ("splash", "cudnn", "pallas", "blocks"):
        refused[kernel] = refusal(kernel, config, window, length, packed)
        if refused[kernel] is None:
            else_blocks = f"; blocks where documents have under {cudnn_attention.SHORTEST} tokens on average"
            more = else_blocks if kernel == "cudnn" and packed else ""
            _announce(kernel, f"the fastest that can do this{more}")
            return kernel
    _announce("xla", "; ".join(f"{kernel}: {words}" for kernel, words in refused.items()))
    return "xla"


@cache
def _announce(kernel: str, reason: str) -> None:
    say(f"attention by {kernel} ({reason})")


def not_sunk(score_BKGTS: jax.Array, sinks_KG: jax.Array) -> jax.Array:
    """[B, K, G, T]: the share of a query's softmax that is left to keys beside its head's sink.

    So many times the attention without one: exp(s) / (Σ exp(s) + exp(sink)) (Xiao et al. 2024).
    """
    sinks_KG1 = sinks_KG.astype(jnp.float32)[..., None]
    return jax.nn.sigmoid(jax.nn.logsumexp(score_BKGTS, axis=-1) - sinks_KG1)


def dense(rule: Rule, q_BTNH, k_BSKH, v_BSKH, mask_BTS, sinks_N=None) -> jax.Array:
    """Scores of all pairs, softmax in float32; keys and values of the whole sequence on every device."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    whole, time = P(BATCH, None, "tensor", None), jax.typeof(q_BTNH).sharding.spec[1]
    k_BSKH, v_BSKH = jax.sharding.reshard(k_BSKH, whole), jax.sharding.reshard(v_BSKH, whole)
    heads = P(BATCH, time, "tensor", None, None)
    q_BTKGH = jnp.reshape(q_BTNH, (B, T, K, N // K, H), out_sharding=heads)
    scores = P(BATCH, "tensor", None, time, None)
    score_BKGTS = rule.score("btkgh,bskh->bkgts", q_BTKGH, k_BSKH, scores)
    score_BKGTS = jnp.where(mask_BTS[:, None, None], score_BKGTS, -1e30)
    share_BKGTS = jax.nn.softmax(score_BKGTS, axis=-1)
    if sinks_N is not None:
        sinks_KG = jnp.reshape(sinks_N, (K, N // K), out_sharding=P("tensor", None))
        share_BKGTS = share_BKGTS * not_sunk(score_BKGTS, sinks_KG)[..., None]
    share_BKGTS = share_BKGTS.astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("bkgts,bskh->btkgh", share_BKGTS, v_BSKH, out_sharding=heads)
    out_BTKGH = checkpoint_name(out_BTKGH, MATMUL)
    return jnp.reshape(out_BTKGH, (B, T, N, H), out_sharding=P(BATCH, time, "tensor", None))


def splash(rule: Rule, q_BTNH, k_BSKH, v_BSKH, segments_BT, sinks_N=None, interpret=False) -> jax.Array:
    """Block-sparse flash attention on TPU, on one device's rows and heads."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, T, N, _ = q_BTNH.shape
    one = masks.LocalMask((T, T), (rule.window - 1, 0), 0) if rule.window else masks.CausalMask((T, T))
    block = next(size for size in (512, 256, 128) if T % size == 0)
    cut = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
    sizes = kernels.BlockSizes(**dict.fromkeys(cut, block), use_fused_bwd_kernel=True)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([one] * N),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=rule.bound or None,
        residual_checkpoint_name=MATMUL,
        interpret=interpret,
    )
    heads_first = lambda x: jnp.swapaxes(x, 1, 2)  # noqa: E731
    q_BNTH = heads_first(q_BTNH * jnp.asarray(rule.scale, q_BTNH.dtype))
    segments = kernels.SegmentIds(segments_BT, segments_BT)
    kernel = jax.vmap(partial(kernel, sinks=sinks_N))
    out_BNTH = kernel(q_BNTH, heads_first(k_BSKH), heads_first(v_BSKH), segments)
    return heads_first(out_BNTH).astype(q_BTNH.dtype)


def pallas(rule: Rule, q_BTNH, k_BSKH, v_BSKH, segments_BT, interpret: bool = False) -> jax.Array:
    """Flash attention on NVIDIA that stays inside a document, on one device's rows and heads."""
    from jax.experimental.pallas.ops.gpu.attention import mha

    groups = q_BTNH.shape[2] // k_BSKH.shape[2]
    k_BSNH, v_BSNH = (jnp.repeat(x, groups, axis=2) for x in (k_BSKH, v_BSKH))
    return mha(q_BTNH, k_BSNH, v_BSNH, segments_BT, sm_scale=rule.scale, causal=True, interpret=interpret)
