"""Which tensors of a Hugging Face folder hold which of our weights, and the one in the other's shape."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights.families import Family


@dataclass(frozen=True)
class Part:
    """One of our weights and the tensor that holds it."""

    ours: str
    name: str
    """With {layer} and {expert} where there is one each."""
    transposed: bool = True
    """Whether a matrix is [outputs, inputs] (torch's Linear) rather than [inputs, outputs]."""
    piece: tuple[int, int, int] = (0, 1, 1)
    """(first, count, all): it is these of so many equal units along the outputs."""
    groups: int = 1
    """Times that the units are repeated along the outputs (GPT-NeoX: once a head)."""
    is_filter: bool = False
    """Whether the tensor is a convolution's, [outputs, 1, inputs]."""
    is_stack: bool = False
    """Whether the tensor has all experts, one behind the other (gpt-oss)."""

    @property
    def inputs(self) -> int:
        """How many of our leading axes are inputs of the matmul; 0: a vector, or a table laid out as ours."""
        letters = self.ours.rpartition("_")[2].removeprefix("E")
        if not re.fullmatch("[A-Z]{2,}", letters) or "bias" in self.ours or self.is_table:
            return 0
        return len(letters) - 1 if letters.endswith("D") else 1

    @property
    def is_table(self) -> bool:
        return self.ours.endswith(("_VD", "_TD"))

    @property
    def is_shared(self) -> bool:
        """Whether other weights of ours are in the same tensor."""
        return self.piece[1] < self.piece[2]

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
        """A tensor of a file in our shape; UserError, naming `where`, where it has another size."""
        if self.is_filter and tensor.ndim == 3:
            tensor = tensor[:, 0]
        if self.is_stack:
            if len(tensor) != shape[0]:
                raise UserError(f"{where} has {len(tensor)} experts, not {shape[0]}")
            one = replace(self, is_stack=False)
            return np.stack([one.to_ours(of_expert, shape[1:], where) for of_expert in tensor])
        first, count, units = self.piece
        inputs = int(np.prod(shape[: self.inputs]))
        outputs = int(np.prod(shape[self.inputs :])) * units // count
        expected = shape if self.is_table else (outputs,)
        if self.inputs:
            expected = (outputs, inputs) if self.transposed else (inputs, outputs)
        if tuple(tensor.shape) != tuple(expected):
            raise UserError(f"{where} has shape {list(tensor.shape)}, not {list(expected)}")
        if tensor.dtype.kind in "iub":
            raise UserError(f"{where} has numbers of type {tensor.dtype}: quantised weights are not read")
        if self.is_table:
            return tensor
        matrix = tensor.T if self.inputs and self.transposed else tensor
        grouped = matrix.reshape(inputs, self.groups, units, -1)
        return grouped[:, :, first : first + count].reshape(shape)


def to_theirs(pieces: Sequence[tuple[Part, np.ndarray]]) -> np.ndarray:
    """The tensor that our weights make together."""
    pieces = sorted(pieces, key=lambda piece: piece[0].piece)
    part = pieces[0][0]
    if part.is_stack:
        of_experts = zip(*(weight for _, weight in pieces), strict=True)
        each = [replace(one, is_stack=False) for one, _ in pieces]
        return np.stack([to_theirs(list(zip(each, of_expert, strict=True))) for of_expert in of_experts])
    if part.is_table:
        return pieces[0][1]
    matrices = []
    for one, weight in pieces:
        inputs = int(np.prod(weight.shape[: one.inputs]))
        matrices.append(weight.reshape(inputs, one.groups, one.piece[1], -1))
    whole = np.concatenate(matrices, axis=2) if len(matrices) > 1 else matrices[0]
    if not part.inputs:
        return whole.reshape(-1)
    matrix = whole.reshape(whole.shape[0], -1)
    matrix = matrix.T if part.transposed else matrix
    return matrix[:, None] if part.is_filter else matrix


def name_of(path: tuple[Any, ...]) -> str:
    """`blocks.attention.q_DNH` of a leaf's path."""
    keys = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
    return ".".join(key for key in keys if key and key != "value")


@lru_cache(maxsize=16)
def parts(family: Family, config: ModelConfig) -> list[Part]:
    """Every weight of ours and where it is in a folder of a family."""
    meshes.ensure()
    shapes = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    has = {name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    found = {"gpt2": _gpt2, "gpt_neox": _gpt_neox}.get(family.names, _llama)(family.names, config)
    of_blocks = [part for part in found if part.ours.startswith("blocks.")]
    found += [replace(part, ours=begin + part.ours) for begin in ("first_", "local_") for part in of_blocks]
    begin = lambda name: name.replace("model.", family.prefix, 1)  # noqa: E731
    return [replace(part, name=begin(part.name)) for part in found if part.ours in has]


def tensors(part: Part, config: ModelConfig) -> Iterator[tuple[tuple[int, ...], str]]:
    """(index in our weight, name of the tensor) of each tensor of a part."""
    if "{layer}" not in part.name:
        yield (), part.name
        return
    dense, kinds = config.dense_layers, config.is_local
    layers = range(dense) if part.ours.startswith("first_") else range(dense, config.layers)
    if config.delta_layers:
        is_local = part.ours.startswith("local_")
        layers = [layer for layer in layers if kinds[layer % len(kinds)] is is_local]
    for at, layer in enumerate(layers):
        if "{expert}" not in part.name:
            yield (at,), part.name.format(layer=layer)
            continue
        for expert in range(config.experts):
            yield (at, expert), part.name.format(layer=layer, expert=expert)


def _named(ours: str, theirs: str, modules: Mapping[Any, str], **how: Any) -> list[Part]:
    """The weight, or weight and bias, of each module, by their names in ours and theirs."""
    found = []
    for names, module in modules.items():
        for one, kind in zip((names,) if isinstance(names, str) else names, ("weight", "bias"), strict=False):
            found.append(Part(ours + one, f"{theirs}{module}.{kind}", **how))
    return found


QKV = {("q_DNH", "q_bias_NH"): "q_proj", ("k_DKH", "k_bias_KH"): "k_proj", ("v_DKH", "v_bias_KH"): "v_proj"}
MLP = {
    ("gate_DF", "gate_bias_F"): "gate_proj",
    ("up_DF", "up_bias_F"): "up_proj",
    ("down_FD", "down_bias_D"): "down_proj",
}
NORMED = {"q_norm.scale": "q_norm", "k_norm.scale": "k_norm"}
LATENT = {
    "q_DNH": "q_proj",
    "q_down_DC": "q_a_proj",
    "q_norm.scale": "q_a_layernorm",
    "q_up_CNH": "q_b_proj",
    "kv_down_DC": "kv_a_proj_with_mqa",
    "kv_norm.scale": "kv_a_layernorm",
    "kv_up_CNH": "kv_b_proj",
}
DELTA = {"q_k_v_gate_DKF": "in_proj_qkvz", "rates_DKF": "in_proj_ba", "norm.scale": "norm"}
_BEFORE = {"attention_norm.scale": "input_layernorm", "mlp_norm.scale": "pre_feedforward_layernorm"}
_AFTER = {
    "attention_post_norm.scale": "post_attention_layernorm",
    "mlp_post_norm.scale": "post_feedforward_layernorm",
}
NORMS = {"gemma": _BEFORE | _AFTER, "olmo2": _AFTER}


def _llama(names: str, config: ModelConfig) -> list[Part]:
    layer = "model.layers.{layer}."
    attention, mlp = ("blocks.attention.", f"{layer}self_attn."), ("blocks.mlp.", f"{layer}mlp.")
    top = {"embedding_VD": "model.embed_tokens", "norm.scale": "model.norm", "head_DV": "lm_head"}
    found = _named("", "", top)
    found += _named(*attention, {("o_NHD", "o_bias_D"): "o_proj"})
    if names == "phi3":
        found += _qkv(config, f"{layer}self_attn.qkv_proj")
        for n, one in enumerate(("gate_DF", "up_DF")):
            found += _named(*mlp, {one: "gate_up_proj"}, piece=(n, 1, 2))
        found += _named(*mlp, {"down_FD": "down_proj"})
    else:
        found += _named(*attention, LATENT if names == "deepseek_v3" else QKV | NORMED)
        found += _named(*mlp, {"up_DF": "fc1", "down_FD": "fc2"} if names == "nanochat" else MLP)
    if names == "qwen3_next":
        found += _delta(config, f"{layer}linear_attn.")
    stacked = {"gpt_oss": "mlp.", "llama4": "feed_forward."}.get(names)
    found += _experts(names, layer) if stacked is None else _stacked(config, layer, stacked)
    norms = {"attention_norm.scale": "input_layernorm", "mlp_norm.scale": "post_attention_layernorm"}
    return found + _named("blocks.", layer, NORMS.get(names, norms))


def _delta(config: ModelConfig, where: str) -> list[Part]:
    """The convolution's channels are all queries, all keys, all values."""
    ours = "blocks.attention."
    found = _named(ours, where, DELTA | {"o_NVD": "out_proj"})
    found += [Part(f"{ours}fade_bias_N", f"{where}dt_bias"), Part(f"{ours}fade_log_N", f"{where}A_log")]
    keys = config.delta_key_heads * config.delta_key_dim
    every = 2 * keys + config.delta_value_heads * config.delta_value_dim
    for name, first, count in (("q", 0, keys), ("k", keys, keys), ("v", 2 * keys, every - 2 * keys)):
        piece, weight = (first, count, every), f"{ours}taps_{name}_WKF"
        found.append(Part(weight, f"{where}conv1d.weight", piece=piece, is_filter=True))
    return found


def _experts(names: str, layer: str) -> list[Part]:
    where, experts = f"{layer}mlp.", ("gate_proj", "up_proj", "down_proj")
    if names == "mixtral":
        where, experts = f"{layer}block_sparse_moe.", ("w1", "w3", "w2")
    matrices = dict(zip(("gate_EDF", "up_EDF", "down_EFD"), experts, strict=True))
    found = _named("blocks.mlp.", where, {"router_DE": "gate"})
    found.append(Part("blocks.mlp.choice_bias_E", f"{where}gate.e_score_correction_bias"))
    found += _named("blocks.mlp.", where, {"shared_gate_DX": "shared_expert_gate"})
    found += _named("blocks.mlp.shared.", f"{where}shared_expert{'' if names == 'qwen3_next' else 's'}.", MLP)
    return found + _named("blocks.mlp.", f"{where}experts.{{expert}}.", matrices)


def _stacked(config: ModelConfig, layer: str, name: str) -> list[Part]:
    """Gate and up of all experts in one tensor; of gpt-oss those of a hidden unit lie beside each other."""
    how: dict[str, Any] = {"transposed": False, "is_stack": True}
    mlp = f"{layer}{name}"
    found = _named("blocks.mlp.", mlp, {("router_DE", "router_bias_E"): "router"})
    found += _named("blocks.mlp.shared.", f"{mlp}shared_expert.", MLP)
    found.append(Part("blocks.attention.sinks_N", f"{layer}self_attn.sinks"))
    for n, one in enumerate(("gate", "up")):
        place = {"piece": (n, 1, 2), "groups": config.d_hidden if config.sinks else 1}
        found.append(Part(f"blocks.mlp.{one}_EDF", f"{mlp}experts.gate_up_proj", **how, **place))
        found.append(Part(f"blocks.mlp.{one}_bias_EF", f"{mlp}experts.gate_up_proj_bias", **how, **place))
    found.append(Part("blocks.mlp.down_EFD", f"{mlp}experts.down_proj", **how))
    return [*found, Part("blocks.mlp.down_bias_ED", f"{mlp}experts.down_proj_bias", **how)]


def _qkv(config: ModelConfig, name: str, transposed: bool = True, by_head: bool = False) -> list[Part]:
    """Queries, keys and values in one tensor: all queries first, or those of a head beside its keys."""
    N, K = config.heads, config.kv_heads
    pieces = ((0, N, N + 2 * K), (N, K, N + 2 * K), (N + K, K, N + 2 * K))
    found = []
    for n, weight_and_bias in enumerate(QKV):
        how = {"piece": (n, 1, 3), "groups": N} if by_head else {"piece": pieces[n]}
        found += _named("blocks.attention.", "", {weight_and_bias: name}, transposed=transposed, **how)
    return found


NORM_PAIRS = [(f"{name}.scale", f"{name}.bias") for name in ("attention_norm", "mlp_norm")]
MATRIX_PAIRS = [
    ("attention.o_NHD", "attention.o_bias_D"),
    ("mlp.up_DF", "mlp.up_bias_F"),
    ("mlp.down_FD", "mlp.down_bias_D"),
]


def _gpt2(_: str, config: ModelConfig) -> list[Part]:
    """Conv1D weights are [inputs, outputs]; queries, keys and values are one of them."""
    layer = "model.h.{layer}."
    matrices = dict(zip(MATRIX_PAIRS, ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"), strict=True))
    top = {"embedding_VD": "model.wte", "positions_TD": "model.wpe", "head_DV": "lm_head"}
    return [
        *_named("", "", top | {("norm.scale", "norm.bias"): "model.ln_f"}),
        *_qkv(config, f"{layer}attn.c_attn", transposed=False),
        *_named("blocks.", layer, matrices, transposed=False),
        *_named("blocks.", layer, dict(zip(NORM_PAIRS, ("ln_1", "ln_2"), strict=True))),
    ]


def _gpt_neox(_: str, config: ModelConfig) -> list[Part]:
    layer = "model.layers.{layer}."
    matrices = ("attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    norms = ("input_layernorm", "post_attention_layernorm")
    top = {"embedding_VD": "model.embed_in", "head_DV": "embed_out"}
    return [
        *_named("", "", top | {("norm.scale", "norm.bias"): "model.final_layer_norm"}),
        *_qkv(config, f"{layer}attention.query_key_value", by_head=True),
        *_named("blocks.", layer, dict(zip(MATRIX_PAIRS, matrices, strict=True))),
        *_named("blocks.", layer, dict(zip(NORM_PAIRS, norms, strict=True))),
    ]
