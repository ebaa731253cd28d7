"""Low-rank adapters (Hu et al. 2021): the model stays, small matrices beside its weights learn.

    model = adapt(model, LoRAConfig(rank=16), jax.random.key(0))
    adapters = take(model)                          # what an optimizer and a checkpoint hold
    logits = put(model, adapters)(tokens_BT)
    plain = merge(put(model, adapters))

Experts' weights too: there the update is added to the weight of one layer at a time.

A [L, inputs, R], B [L, R, outputs]: L layers, R rank; experts have E behind L
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxtrain.model.layers import Adapted, named_key, replaced
from jaxtrain.model.quantized import BLOCKS, Kind
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError

Adapters = dict[str, jax.Array]
"""`attention.q_DNH.a`, `attention.q_DNH.b`, …"""
MATRIX = re.compile(r"\w+_(E?)([A-Z]{2,})")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """What is adapted, and how."""

    rank: int = 16
    """Inner width of the two matrices; 0: no adapters."""
    alpha: float = 32.0
    """The update is multiplied by alpha / rank."""
    targets: str = r"attention\.[qkvo]_.*|mlp\.(gate|up|down)_.*"
    r"""Regular expression that a weight's name, such as `attention.q_DNH`, has to match as a whole, its
    `first_blocks.` and `shared.` aside; `attention\.[qkvo]+_.*` has latent attention's `kv_` too."""
    dropout: float = 0.0
    """Share of an adapter's inputs that are set to zero while it learns."""
    rank_stabilized: bool = False
    """Multiply by alpha / √rank instead (Kalajdzievski 2023)."""
    base_weights: Kind = "model"
    """The blocks' matrices that stay: in 4 bits (nf4: QLoRA), in 8 (int8), or as they are loaded (model)."""

    def __post_init__(self) -> None:
        if self.rank < 0 or not 0 <= self.dropout < 1:
            raise UserError(f"lora: rank {self.rank} is at least 0, dropout {self.dropout} from 0 to below 1")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"lora.targets is no regular expression: {error}") from None

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)


def adapt(model: Transformer, config: LoRAConfig, key: jax.Array) -> Transformer:
    """The model with adapters that change nothing yet: A is drawn as `torch.nn.Linear` is, B is zero.

    Errors: UserError where no weight of the blocks matches `targets`.
    """
    model = replaced(model)
    matrices = {
        path: (module, name, weight)
        for path, module, name, weight in _weights(model)
        if isinstance(weight, nnx.Param) and MATRIX.fullmatch(name) and "bias" not in name
    }
    # what a default says is part of finished artifacts: new places of matrices must not change it
    plain = {path: re.sub(r"^\w+_blocks\.", "", path).replace("shared.", "") for path in matrices}
    chosen = [path for path in matrices if any(re.fullmatch(config.targets, n) for n in (path, plain[path]))]
    if not chosen:
        raise UserError(f"lora.targets {config.targets!r} matches none of {', '.join(matrices)}")
    for path in chosen:
        module, name, base = matrices[path]
        a, b = _factors(base[...], name, config.rank, named_key(key, path))
        setattr(module, name, Adapted(base, a, b, scale=config.scale, dropout=config.dropout))
    return model


def _factors(base: jax.Array, name: str, rank: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A ~ U(±1/√inputs) and B = 0, sharded as the weight's inputs and outputs are."""
    match = MATRIX.fullmatch(name)
    assert match is not None, "adapt has looked"
    expert, letters = match.groups()
    before = 1 + len(expert)
    inputs = len(letters) - 1 if letters.endswith("D") else 1
    shape, spec = base.shape, (*jax.typeof(base).sharding.spec, *[None] * base.ndim)[: base.ndim]
    middle = before + inputs
    width = math.prod(shape[before:middle])
    a_shape, a_spec = (*shape[:middle], rank), P(*spec[:middle], None)
    b_shape, b_spec = (*shape[:before], rank, *shape[middle:]), P(*spec[:before], None, *spec[middle:])
    a = width**-0.5 * jax.random.uniform(key, a_shape, jnp.float32, -1, 1, out_sharding=a_spec)
    return a, jnp.zeros(b_shape, jnp.float32, out_sharding=b_spec)


def _weights(model: Transformer) -> Iterator[tuple[str, Any, str, Any]]:
    """Path (`attention.q_DNH`), module, name and value of every attribute of a block's attention and MLP."""
    for stack in BLOCKS:
        if (blocks := getattr(model, stack)) is None:
            continue
        begin = "" if stack == "blocks" else f"{stack}."
        shared = {"mlp.shared": shared} if (shared := getattr(blocks.mlp, "shared", None)) else {}
        for part, module in ({"attention": blocks.attention, "mlp": blocks.mlp} | shared).items():
            for name, weight in sorted(vars(module).items()):
                yield f"{begin}{part}.{name}", module, name, weight


def _adapted(model: Transformer) -> list[tuple[str, Any, str, Adapted]]:
    return [found for found in _weights(model) if isinstance(found[3], Adapted)]


def take(model: Transformer) -> Adapters:
    """The adapters of a model: what learns."""
    return {
        f"{path}.{side}": getattr(weight, side)[...]
        for path, _, _, weight in _adapted(model)
        for side in ("a", "b")
    }


def put(model: Transformer, adapters: Adapters, dropout_key: jax.Array | None = None) -> Transformer:
    """The model with these adapters; with a key their inputs are dropped out."""
    model = replaced(model)
    for path, _, _, weight in _adapted(model):
        weight.a, weight.b = (nnx.LoRAParam(adapters[f"{path}.{side}"]) for side in ("a", "b"))
        if dropout_key is not None and weight.dropout:
            keys_L = jax.random.split(named_key(dropout_key, path), weight.a.shape[0])
            weight.key = nnx.data(nnx.Variable(jax.random.key_data(keys_L)))
    return model


def merge(model: Transformer) -> Transformer:
    """A plain model of the same outputs."""
    model = replaced(model)
    for _, module, name, weight in _weights(model):
        if isinstance(weight, Adapted | nnx.Param):
            setattr(module, name, nnx.Param(weight[...]))
    return model
