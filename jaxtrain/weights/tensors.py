"""Which tensors of a Hugging Face folder hold which of our weights, and the one in the other's shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime.errors import UserError


@dataclass(frozen=True)
class Part:
    """One of our weights and the tensor that holds it."""

    ours: str
    name: str
    """With {layer} and {expert} where there is one each."""
    inputs: int = 0
    """How many of our leading axes are inputs of the matmul; 0: a vector, or a matrix laid out as ours."""
    transposed: bool = True
    """Whether the tensor is [outputs, inputs] (torch's Linear) rather than [inputs, outputs]."""
    piece: tuple[int, int, int] = (0, 1, 1)
    """(first, count, all): it is these of so many equal units along the outputs."""
    groups: int = 1
    """Times that the units are repeated along the outputs (GPT-NeoX: once a head)."""

    @property
    def is_table(self) -> bool:
        return self.ours.endswith(("_VD", "_TD"))

    @property
    def is_shared(self) -> bool:
        """Whether other weights of ours are in the same tensor."""
        return self.piece[1] < self.piece[2]

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
        """A tensor of a file in our shape; UserError, naming `where`, where it has another size."""
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
    return matrix.T if part.transposed else matrix


def parts(names: str, config: ModelConfig, prefix: str) -> list[Part]:
    """Every weight of ours and where it is in a folder of a family with these names.

    prefix: of the base model's tensors, `model.`.
    """
    make = {"gpt2": _gpt2, "gpt_neox": _gpt_neox}.get(names)
    found = make(config) if make else _llama(names, config)
    optional = {
        "attention.q_bias_NH": config.qkv_bias,
        "attention.k_bias_KH": config.qkv_bias,
        "attention.v_bias_KH": config.qkv_bias,
        "attention.o_bias_D": config.output_bias,
        "mlp.gate_bias_F": config.mlp_bias and config.gated,
        "mlp.up_bias_F": config.mlp_bias,
        "mlp.down_bias_D": config.mlp_bias,
        "attention.q_norm.scale": config.qk_norm,
        "attention.k_norm.scale": config.qk_norm,
        "head_DV": not config.tied,
    }
    kept = [part for part in found if all(has for end, has in optional.items() if part.ours.endswith(end))]
    return [replace(part, name=part.name.replace("model.", prefix, 1)) for part in kept]


def tensors(part: Part, config: ModelConfig) -> Iterator[tuple[tuple[int, ...], str]]:
    """(index in our weight, name of the tensor) of each tensor of a part."""
    if "{layer}" not in part.name:
        yield (), part.name
        return
    for layer in range(config.layers):
        if "{expert}" not in part.name:
            yield (layer,), part.name.format(layer=layer)
            continue
        for expert in range(config.experts):
            yield (layer, expert), part.name.format(layer=layer, expert=expert)


def _llama(names: str, config: ModelConfig) -> list[Part]:
    layer, attention = "model.layers.{layer}.", "model.layers.{layer}.self_attn."
    found = [
        Part("embedding_VD", "model.embed_tokens.weight"),
        Part("norm.scale", "model.norm.weight"),
        Part("head_DV", "lm_head.weight", 1),
        Part("blocks.attention.o_NHD", attention + "o_proj.weight", 2),
        Part("blocks.attention.o_bias_D", attention + "o_proj.bias"),
        Part("blocks.attention.q_norm.scale", attention + "q_norm.weight"),
        Part("blocks.attention.k_norm.scale", attention + "k_norm.weight"),
    ]
    if names == "phi3":
        found += _qkv(config, attention + "qkv_proj")
        found += [
            Part("blocks.mlp.gate_DF", layer + "mlp.gate_up_proj.weight", 1, piece=(0, 1, 2)),
            Part("blocks.mlp.up_DF", layer + "mlp.gate_up_proj.weight", 1, piece=(1, 1, 2)),
            Part("blocks.mlp.down_FD", layer + "mlp.down_proj.weight", 1),
        ]
    else:
        for x, axes in (("q", "NH"), ("k", "KH"), ("v", "KH")):
            found.append(Part(f"blocks.attention.{x}_D{axes}", f"{attention}{x}_proj.weight", 1))
            found.append(Part(f"blocks.attention.{x}_bias_{axes}", f"{attention}{x}_proj.bias"))
        found += _llama_mlp(names, layer)
    norms = {
        "gemma": {
            "attention_norm": "input_layernorm",
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        },
        "olmo2": {
            "attention_post_norm": "post_attention_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        },
    }.get(names, {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"})
    return found + [Part(f"blocks.{ours}.scale", f"{layer}{name}.weight") for ours, name in norms.items()]


def _llama_mlp(names: str, layer: str) -> list[Part]:
    if names == "mixtral":
        expert = layer + "block_sparse_moe.experts.{expert}."
        router, mlp = "block_sparse_moe.gate.weight", ("w1", "w3", "w2")
    else:
        expert = layer + ("mlp.experts.{expert}." if names == "qwen3_moe" else "mlp.")
        router, mlp = "mlp.gate.weight", ("gate_proj", "up_proj", "down_proj")
    if "{expert}" in expert:
        ours = ("gate_EDF", "up_EDF", "down_EFD")
        found = [Part("blocks.mlp.router_DE", layer + router, 1)]
        return found + [
            Part(f"blocks.mlp.{o}", f"{expert}{n}.weight", 1) for o, n in zip(ours, mlp, strict=True)
        ]
    found = []
    for weight, bias, name in zip(
        ("gate_DF", "up_DF", "down_FD"), ("gate_bias_F", "up_bias_F", "down_bias_D"), mlp, strict=True
    ):
        found += [
            Part(f"blocks.mlp.{weight}", f"{expert}{name}.weight", 1),
            Part(f"blocks.mlp.{bias}", f"{expert}{name}.bias"),
        ]
    return found


def _qkv(config: ModelConfig, name: str, transposed: bool = True, by_head: bool = False) -> list[Part]:
    """Queries, keys and values in one tensor: all queries first, or those of a head beside its keys."""
    N, K = config.heads, config.kv_heads
    pieces = ((0, N, N + 2 * K), (N, K, N + 2 * K), (N + K, K, N + 2 * K))
    groups = N if by_head else 1
    found = []
    for n, (x, axes) in enumerate((("q", "NH"), ("k", "KH"), ("v", "KH"))):
        piece = (n, 1, 3) if by_head else pieces[n]
        weight, bias = f"blocks.attention.{x}_D{axes}", f"blocks.attention.{x}_bias_{axes}"
        found.append(Part(weight, f"{name}.weight", 1, transposed, piece, groups))
        found.append(Part(bias, f"{name}.bias", piece=piece, groups=groups))
    return found


def _with_bias(ours: str, name: str, weight: str, bias: str, inputs: int, transposed: bool) -> list[Part]:
    return [
        Part(f"blocks.{ours}.{weight}", f"{name}.weight", inputs, transposed),
        Part(f"blocks.{ours}.{bias}", f"{name}.bias"),
    ]


def _layer_norms(layer: str, names: dict[str, str]) -> list[Part]:
    return [
        Part(f"{ours}.{o}", f"{layer if ours.startswith('blocks') else ''}{name}.{n}")
        for ours, name in names.items()
        for o, n in (("scale", "weight"), ("bias", "bias"))
    ]


def _gpt2(config: ModelConfig) -> list[Part]:
    """Conv1D weights are [inputs, outputs]; queries, keys and values are one of them."""
    layer = "model.h.{layer}."
    norms = {"norm": "model.ln_f", "blocks.attention_norm": "ln_1", "blocks.mlp_norm": "ln_2"}
    return [
        Part("embedding_VD", "model.wte.weight"),
        Part("positions_TD", "model.wpe.weight"),
        Part("head_DV", "lm_head.weight", 1),
        *_qkv(config, layer + "attn.c_attn", transposed=False),
        *_with_bias("attention", layer + "attn.c_proj", "o_NHD", "o_bias_D", 2, False),
        *_with_bias("mlp", layer + "mlp.c_fc", "up_DF", "up_bias_F", 1, False),
        *_with_bias("mlp", layer + "mlp.c_proj", "down_FD", "down_bias_D", 1, False),
        *_layer_norms(layer, norms),
    ]


def _gpt_neox(config: ModelConfig) -> list[Part]:
    layer = "model.layers.{layer}."
    norms = {
        "norm": "model.final_layer_norm",
        "blocks.attention_norm": "input_layernorm",
        "blocks.mlp_norm": "post_attention_layernorm",
    }
    return [
        Part("embedding_VD", "model.embed_in.weight"),
        Part("head_DV", "embed_out.weight", 1),
        *_qkv(config, layer + "attention.query_key_value", by_head=True),
        *_with_bias("attention", layer + "attention.dense", "o_NHD", "o_bias_D", 2, True),
        *_with_bias("mlp", layer + "mlp.dense_h_to_4h", "up_DF", "up_bias_F", 1, True),
        *_with_bias("mlp", layer + "mlp.dense_4h_to_h", "down_FD", "down_bias_D", 1, True),
        *_layer_norms(layer, norms),
    ]
