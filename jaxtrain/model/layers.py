"""Weights with their shardings, and the small layers.

B batch, T time, D model, N query heads, K key heads, H head dim, F hidden, V vocab
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from jaxtrain.model import float8
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.float8 import BACKWARD, Codes, Float8
from jaxtrain.model.quantized import Quantized, operand
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH, sequence_axes

MATMUL = "matmul"
"""Name of what a matmul or attention gave, for the policy that keeps it (`stack.remembered`)."""


@dataclass(frozen=True)
class Layout:
    """How time is sharded: inside attention and MLP, and in the residual stream between them."""

    time: str | None
    stream: tuple[str, ...] | None

    @staticmethod
    def of(length: int) -> "Layout":
        """Of a whole sequence: over `context`, between parts over `tensor` too (Korthikanti 2022)."""
        return Layout("context", sequence_axes(length))

    @property
    def between(self) -> P:
        """Sharding of x_BTD between the parts of a block."""
        return P(BATCH, self.stream, None)

    def gathered(self, x_BTD: jax.Array) -> jax.Array:
        """x_BTD as the matmuls of a part read it."""
        return jax.sharding.reshard(x_BTD, P(BATCH, self.time, None))

    @property
    def heads(self) -> P:
        """Sharding of x_BTNH inside attention."""
        return P(BATCH, self.time, "tensor", None)


WHOLE = Layout(None, None)
"""Of tokens that follow those in a cache: time is not sharded."""


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A key by name and not by order, so that adding a weight moves no other."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def normal(key: jax.Array, name: str, shape: tuple[int, ...], spec: P, scale: float) -> nnx.Param:
    """A weight drawn from N(0, scale²), float32, sharded by `spec`."""
    values = scale * jax.random.normal(named_key(key, name), shape, jnp.float32, out_sharding=spec)
    return nnx.Param(values)


def zeros(shape: tuple[int, ...], spec: P) -> nnx.Param:
    """A weight that starts at zero."""
    return nnx.Param(jnp.zeros(shape, jnp.float32, out_sharding=spec))


class Norm(nnx.Module):
    """RMSNorm (Zhang and Sennrich 2019) or LayerNorm (Ba et al. 2016), over the axes of `shape`, the last."""

    def __init__(self, config: ModelConfig, shape: tuple[int, ...]):
        start = jnp.zeros if config.norm_plus_one else jnp.ones
        spec = P(None) if len(shape) == 1 else P("tensor", None)
        has_scale = config.norm != "bare"
        self.scale = nnx.Param(start(shape, jnp.float32, out_sharding=spec)) if has_scale else None
        self.bias = zeros(shape, spec) if config.norm == "layer" else None
        self.config, self.axes = config, tuple(range(-len(shape), 0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return recomputed(self._normed)(x)

    def _normed(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        if self.bias is not None:
            wide = wide - jnp.mean(wide, axis=self.axes, keepdims=True)
        square = jnp.mean(wide * wide, axis=self.axes, keepdims=True)
        normed = wide * jax.lax.rsqrt(square + self.config.norm_eps)
        if self.scale is not None:
            scale = self.scale[...].astype(jnp.float32)
            normed = normed * (1 + scale if self.config.norm_plus_one else scale)
        if self.bias is not None:
            normed = normed + self.bias[...].astype(jnp.float32)
        return normed.astype(x.dtype)


def frequencies(config: ModelConfig, is_local: bool) -> np.ndarray:
    """Radians a token of each rotary pair, float32 [pairs]; of longrope those of short rows.

    llama3: frequencies of fewer than `rope_low_frequency` turns within the first training's context are
    divided by `rope_factor`, those of more than `rope_high_frequency` are kept; between the two it is linear
    in the number of turns (Llama 3.1's published code). yarn: the same, linear in the pair's number.
    """
    pairs = config.rotary_pairs
    stands = is_local and config.rope_local_theta > 0
    theta = config.rope_local_theta if stands else config.rope_theta
    radians = theta ** (-np.arange(pairs, dtype=np.float64) / pairs)
    low, high = config.rope_low_frequency, config.rope_high_frequency
    match "none" if stands else config.rope_scaling:
        case "linear":
            radians = radians / config.rope_factor
        case "llama3":
            radians /= llama3_stretch(pairs, theta, config.rope_factor, low, high, config.rope_length)
        case "yarn":
            ends = [
                pairs * np.log(config.rope_length / (turns * 2 * np.pi)) / np.log(theta)
                for turns in (high, low)
            ]
            if config.rope_truncate:
                ends = [np.floor(ends[0]), np.ceil(ends[1])]
            first, last = max(ends[0], 0), min(ends[1], 2 * pairs - 1)
            stretched = np.clip((np.arange(pairs) - first) / max(last - first, 1e-3), 0, 1)
            radians = radians * (1 - stretched + stretched / config.rope_factor)
        case "longrope":
            radians = radians / np.asarray(config.rope_short)
    return radians.astype(np.float32)


def llama3_stretch(n: int, theta: float, factor: float, low: float, high: float, length: int) -> np.ndarray:
    """What the frequencies of the n rotary pairs are divided by in Llama 3.1, float64 [n]."""
    turns = length * theta ** (-np.arange(n, dtype=np.float64) / n) / (2 * np.pi)
    kept = np.clip((turns - low) / max(high - low, 1e-9), 0, 1)
    return 1 / (kept + (1 - kept) / factor)


def _rotary_factor(config: ModelConfig) -> float:
    """Multiplies rotated queries and keys (YaRN, Peng et al. 2023; LongRoPE, Ding et al. 2024)."""
    if config.rope_scaling not in ("yarn", "longrope"):
        return 1.0
    if config.rope_attention_factor or config.rope_factor <= 1:
        return config.rope_attention_factor or 1.0
    if config.rope_scaling == "yarn":
        return config.yarn_scale(config.rope_factor)
    return float(np.sqrt(1 + np.log(config.rope_factor) / np.log(config.rope_length)))


def rotate(config: ModelConfig, x_BTNH: jax.Array, positions_BT: jax.Array, is_local: bool) -> jax.Array:
    """Rotary position embedding (Su et al. 2021), halves paired as in Llama's Hugging Face layout."""
    if not config.rotates(is_local):
        return x_BTNH
    stands, half = is_local and config.rope_local_theta > 0, config.rotary_pairs
    radians = jnp.asarray(frequencies(config, is_local))
    if config.rope_scaling == "longrope" and not stands:
        is_long_B = jnp.max(positions_BT, axis=1) >= config.rope_length
        short, long = (np.asarray(by, np.float32) for by in (config.rope_short, config.rope_long))
        longer = radians * short / long
        radians = jnp.where(is_long_B[:, None, None, None], longer, radians)
    angles = positions_BT.astype(jnp.float32)[:, :, None, None] * radians
    factor = 1.0 if stands else _rotary_factor(config)
    cos, sin = factor * jnp.cos(angles), factor * jnp.sin(-angles if config.rotary_reversed else angles)
    wide = x_BTNH.astype(jnp.float32)
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    if config.rotary_interleaved:  # a dot product of two does not see how they are ordered
        first, second = wide[..., : 2 * half : 2], wide[..., 1 : 2 * half : 2]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)
    return turned.astype(x_BTNH.dtype)


def softcap(x: jax.Array, bound: float) -> jax.Array:
    """x bounded smoothly to ±bound; 0 leaves it."""
    return bound * jnp.tanh(x / bound) if bound else x


@dataclass(frozen=True)
class Rule:
    """How attention scores a query and a key, and which pairs it scores."""

    scale: float
    bound: float = 0.0
    """Of scores (`softcap`); 0: none."""
    window: int = 0
    """Keys that a query sees, itself included; 0: all before it."""
    chunked: bool = False
    """Each `window` tokens of a document stand alone."""

    @staticmethod
    def of(config: ModelConfig, is_local: bool) -> "Rule":
        scale = config.attention_scale or config.head_dim**-0.5
        if config.rope_score_scale:
            scale *= config.yarn_scale(config.rope_factor, config.rope_score_scale) ** 2
        window, chunked = config.window if is_local else 0, config.chunked and is_local
        return Rule(scale, config.attention_softcap, window, chunked)

    def seen(self, behind: jax.Array, same: jax.Array, at: jax.Array | int = -1) -> jax.Array:
        """Whether pairs are scored. behind: slots that the key is before the query; same: document.

        at: the query's place in its document; where it is not given, `same` has chunks apart.
        """
        seen = (behind >= 0) & same
        reach = at % self.window + 1 if self.chunked else self.window
        return seen & (behind < reach) if self.window else seen

    def score(self, equation: str, q: jax.Array, k: jax.Array, sharding: P | None = None) -> jax.Array:
        """`einsum(equation, q, k)`, scaled and bounded, float32."""
        score = jnp.einsum(equation, q, k, preferred_element_type=jnp.float32, out_sharding=sharding)
        return softcap(score * self.scale, self.bound)


def look_up(table_VD: jax.Array, ids_BT: jax.Array, layout: Layout) -> jax.Array:
    """Rows of a table whose width is cut over `fsdp`, laid out as the residual stream.

    Each device looks up its part of the width for the tokens of its `fsdp` peers too, and they exchange:
    one all-to-all of the result. (XLA's partitioner gathers and cuts: "involuntary full rematerialization".)
    """
    cut = layout.stream is not None and "tensor" in layout.stream

    def of_device(table_VD: jax.Array, ids_BT: jax.Array) -> jax.Array:
        if cut:
            length = ids_BT.shape[1] // jax.lax.axis_size("tensor")
            start = jax.lax.axis_index("tensor") * length
            ids_BT = jax.lax.dynamic_slice_in_dim(ids_BT, start, length, axis=1)
        theirs_XBT = jax.lax.all_gather(ids_BT, "fsdp")
        return jax.lax.all_to_all(table_VD[theirs_XBT], "fsdp", 0, 3, tiled=True)[0]

    rows = P(BATCH, layout.time)
    return meshes.per_device(of_device, (P(None, "fsdp"), rows), layout.between)(table_VD, ids_BT)


ACTIVATIONS = {
    "silu": jax.nn.silu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "gelu": jax.nn.gelu,
    "gelu_exact": partial(jax.nn.gelu, approximate=False),
}


def recomputed(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The same; the backward pass finds its inputs alone, and does the cheap rest again."""
    return jax.checkpoint(function, prevent_cse=False)


def gated(config: ModelConfig, gate: jax.Array, up: jax.Array) -> jax.Array:
    """What a gated MLP's last matmul reads (Shazeer 2020)."""
    if config.activation == "clipped_swiglu":  # gpt-oss's, with its published constants
        gate, up = jnp.minimum(gate, 7.0), jnp.clip(up, -7.0, 7.0)
        return gate * jax.nn.sigmoid(1.702 * gate) * (up + 1)
    return ACTIVATIONS[config.activation](gate) * up


class MLP(nnx.Module):
    """SwiGLU and its relatives (Shazeer 2020), or the plain MLP of GPT-2."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        D, F = config.d_model, config.d_hidden
        self.config = config
        self.gate_DF = normal(key, "gate", (D, F), P("fsdp", "tensor"), D**-0.5) if config.gated else None
        self.up_DF = normal(key, "up", (D, F), P("fsdp", "tensor"), D**-0.5)
        self.down_FD = normal(key, "down", (F, D), P("tensor", "fsdp"), (2 * config.layers * F) ** -0.5)
        self.gate_bias_F = zeros((F,), P("tensor")) if config.mlp_bias and config.gated else None
        self.up_bias_F = zeros((F,), P("tensor")) if config.mlp_bias else None
        self.down_bias_D = zeros((D,), P(None)) if config.mlp_bias else None

    def __call__(self, x_BTD: jax.Array, layout: Layout) -> jax.Array:
        hidden = P(BATCH, layout.time, "tensor")
        up_BTF = add(project("btd,df->btf", x_BTD, self.up_DF, hidden), self.up_bias_F)
        if self.gate_DF is not None:
            gate_BTF = add(project("btd,df->btf", x_BTD, self.gate_DF, hidden), self.gate_bias_F)
            hidden_BTF = recomputed(partial(gated, self.config))(gate_BTF, up_BTF)
        else:
            hidden_BTF = recomputed(ACTIVATIONS[self.config.activation])(up_BTF)
        return add(project("btf,fd->btd", hidden_BTF, self.down_FD, layout.between), self.down_bias_D)


def add(x: jax.Array, bias: nnx.Param | None) -> jax.Array:
    """x plus a bias over its last axes, where there is one."""
    return x if bias is None else x + bias[...].astype(x.dtype)


class Adapted(nnx.Module):
    """A weight that stands and two small matrices that learn: W + scale · A B (Hu et al. 2021).

    R rank. Where W takes axes I to axes O, A is [I, R] and B [R, O]; W may have others before (experts).
    """

    def __init__(self, base: nnx.Param, a: jax.Array, b: jax.Array, *, scale: float, dropout: float = 0.0):
        self.base, self.a, self.b = base, nnx.LoRAParam(a), nnx.LoRAParam(b)
        self.scale, self.dropout = scale, dropout
        self.key: nnx.Variable | None = None
        """Of dropout, uint32 [2]; None: there is none, as when the model is used."""

    def __getitem__(self, _: Any) -> jax.Array:
        """The weight that the three make: for what is no plain matmul."""
        a, b, base = self.a[...], self.b[...], self.base[...]
        batch = a.ndim + b.ndim - 2 - base.ndim  # axes before those of the matmul, in all three
        spec = jax.typeof(base).sharding.spec
        letters = "abcdefgh"
        first, inputs = letters[:batch], letters[batch : a.ndim - 1]
        outputs = letters[a.ndim - 1 : a.ndim - 1 + b.ndim - batch - 1]
        equation = f"{first}{inputs}r,{first}r{outputs}->{first}{inputs}{outputs}"
        update = contract(equation, P(*spec), a, b)
        return base + (self.scale * update).astype(base.dtype)

    def project(self, equation: str, x: jax.Array, sharding: P) -> jax.Array:
        """`project` without ever making the weight."""
        terms, out = equation.split("->")
        x_term, w_term = terms.split(",")
        inputs, outputs = (
            "".join(letter for letter in w_term if (letter in x_term) is wanted) for wanted in (True, False)
        )
        spec = jax.typeof(x).sharding.spec
        a, b = (factor[...].astype(x.dtype) for factor in (self.a, self.b))
        low = contract(f"{x_term},{inputs}r->btr", P(spec[0], spec[1], None), self._dropped(x), a)
        up = contract(f"btr,r{outputs}->{out}", P(spec[0], spec[1], *sharding[2:]), low, b)
        update = jax.sharding.reshard(self.scale * up, sharding)
        return contract(equation, sharding, x, operand(self.base, x.dtype)) + update

    def _dropped(self, x: jax.Array) -> jax.Array:
        if self.key is None or not self.dropout:
            return x
        kept = jax.random.bernoulli(jax.random.wrap_key_data(self.key[...]), 1 - self.dropout, x.shape)
        kept = jax.sharding.reshard(kept, jax.typeof(x).sharding.spec)
        return jnp.where(kept, x / (1 - self.dropout), 0)


def is_made(weight: nnx.Param | Adapted) -> bool:
    """Whether its numbers are computed of others."""
    return isinstance(weight, Adapted) or isinstance(weight.get_value(), Quantized)


def project(equation: str, x: jax.Array, weight: nnx.Param | Adapted, sharding: P) -> jax.Array:
    """A matmul of activations and a weight, in the dtype of the activations, its output sharded as said.

    einsum sums over several indices in the order of their letters, which has to be the order in memory
    (heads, then their dimensions), or XLA copies both operands.
    """
    equation = equation.replace("h", "z")
    if isinstance(weight, Adapted):
        return checkpoint_name(weight.project(equation, x, sharding), MATMUL)
    return checkpoint_name(contract(equation, sharding, x, operand(weight, x.dtype)), MATMUL)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def contract(equation: str, sharding: P, x: jax.Array, w: jax.Array | Quantized | Float8) -> jax.Array:
    """`einsum(equation, x, w)` for this network's equations: each index stands in two of the three terms.

    The gradients are the einsums that a reader would write, each with its operand's own sharding. JAX's
    derived ones are the same numbers transposed, which XLA for CPUs turns into strided copies of the
    activations: a gated MLP's step took twice as long (`benchmarks/notes.md`). Of a quantised weight they
    find the codes, and no numbers are kept; those of 8-bit floating point find both operands' codes.
    """
    return _contract_forward(equation, sharding, x, w)[0]


def _contract_forward(equation: str, sharding: P, x: jax.Array, w: Any):
    if isinstance(w, Quantized):
        return w.einsum(equation, x, sharding), (x, w)
    if isinstance(w, Float8):
        codes = Codes.of(x), Codes.of(w.weight)
        return float8.einsum(equation, *codes, sharding, x.dtype), codes
    return jnp.einsum(equation, x, w, out_sharding=sharding), (x, w)


def _contract_backward(equation: str, sharding: P, saved: tuple[Any, Any], gradient: jax.Array):
    x, held = saved
    is_narrow = isinstance(held, Codes)
    w = held.numbers(x.dtype) if isinstance(held, Quantized) else held
    x_spec, w_spec = (jax.typeof(one.codes if is_narrow else one).sharding.spec for one in (x, w))
    terms, out = equation.split("->")
    x_term, w_term = terms.split(",")
    # the stream's time may be cut over the axis that cuts the weight: gather it, not the weight
    if out == "btd":
        gradient = jax.sharding.reshard(gradient, P(x_spec[0], x_spec[1], None))
    einsum: Any = jnp.einsum
    if is_narrow:
        einsum, gradient = partial(float8.einsum, dtype=gradient.dtype), Codes.of(gradient, BACKWARD)
    x_bar = einsum(f"{out},{w_term}->{x_term}", gradient, w, out_sharding=x_spec)
    if isinstance(held, Quantized):
        return x_bar, None
    w_bar = einsum(f"{x_term},{out}->{w_term}", x, gradient, out_sharding=w_spec)
    return x_bar, Float8(w_bar) if is_narrow else w_bar


contract.defvjp(_contract_forward, _contract_backward)


def replaced(module: Any, **parts: Any) -> Any:
    """The module with other parts: the same arrays in a module of its own."""
    other = jax.tree.map(lambda x: x, module)
    for name, part in parts.items():
        setattr(other, name, part)
    return other
