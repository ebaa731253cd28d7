"""The weights of llama2.c (Karpathy 2023): a header of seven int32, then float32 tensors, each of all layers.

Its rotary embedding turns neighbours (2i, 2i + 1); ours turns halves (i, i + H/2), so the rows of queries and
keys are put in that order.
"""

import math
from pathlib import Path

import numpy as np

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.quantized import Kind
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights.families import BY_TYPE
from jaxtrain.weights.huggingface import halves, load_tensors

HEADER = np.dtype("<i4"), 7


def knows(path: Path) -> bool:
    return path.is_file() and path.suffix == ".bin"


def read_tokenizer(path: Path) -> Tokenizer:
    """A Hugging Face tokenizer that stands beside the file."""
    return Tokenizer.load(path.parent)


def read_config(path: str | Path) -> ModelConfig:
    """The ModelConfig of a llama2.c `.bin` (the first format); UserError where it is none."""
    path = Path(path)
    if path.stat().st_size < 28:
        raise UserError(f"{path} is too short for a header of llama2.c")
    D, F, layers, heads, kv_heads, vocab, length = (int(n) for n in np.fromfile(path, *HEADER))
    if min(D, F, layers, heads, kv_heads, length) < 1 or D % heads != 0 or vocab == 0:
        raise UserError(f"{path} does not begin with a header of llama2.c")
    return ModelConfig(
        vocab_size=abs(vocab),
        layers=layers,
        d_model=D,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=D // heads,
        d_hidden=F,
        max_length=length,
        tied=vocab > 0,
        norm_eps=1e-5,
        qk_norm=False,
    )


def load(path: str | Path, dtype: str = "float32", held: Kind = "model") -> Transformer:
    """The model of a llama2.c `.bin`, on the mesh that is set; or a UserError."""
    path, config = Path(path), read_config(path)
    D, H, F, V, L = config.d_model, config.head_dim, config.d_hidden, config.vocab_size, config.layers
    N, K, layer = config.heads, config.kv_heads, "model.layers.{}."
    shapes = {  # in the order of the file
        "model.embed_tokens.weight": (V, D),
        layer + "input_layernorm.weight": (L, D),
        layer + "self_attn.q_proj.weight": (L, N * H, D),
        layer + "self_attn.k_proj.weight": (L, K * H, D),
        layer + "self_attn.v_proj.weight": (L, K * H, D),
        layer + "self_attn.o_proj.weight": (L, D, N * H),
        layer + "post_attention_layernorm.weight": (L, D),
        layer + "mlp.gate_proj.weight": (L, F, D),
        layer + "mlp.down_proj.weight": (L, D, F),
        layer + "mlp.up_proj.weight": (L, F, D),
        "model.norm.weight": (D,),
        "": (2, config.max_length, H // 2),  # cosines and sines, which we compute
    }
    if not config.tied:
        shapes["lm_head.weight"] = (V, D)
    where, offset = {}, 28
    for name, shape in shapes.items():
        count, one = (shape[0], shape[1:]) if "{}" in name else (1, shape)
        for n in range(count):
            where[name.format(n)] = (offset, one)
            offset += 4 * math.prod(one)
    if path.stat().st_size != offset:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, its header says {offset:,}")
    del where[""]

    def read(name: str) -> np.ndarray:
        start, shape = where[name]
        tensor = np.array(np.memmap(path, "<f4", "r", start, shape))
        return halves(tensor, H) if name.endswith(("q_proj.weight", "k_proj.weight")) else tensor

    return load_tensors(BY_TYPE["llama"], config, set(where), read, dtype, str(path), held)
