"""ModelConfig: the shape of a decoder-only transformer. Families differ in these fields alone."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from jaxtrain.runtime import cost
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Positive


def seen_keys(length: int, window: int = 0) -> float:
    """Keys that a query of a row of `length` tokens sees on average, at most `window`."""
    window = min(window, length)
    return window - window * (window - 1) / (2 * length) if window else length / 2


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder. By default: RMSNorm before each part, rotary positions, grouped-query attention, SwiGLU."""

    vocab_size: Count = 4096
    """Token ids, special ones included."""
    layers: Count = 6
    """Blocks of attention and MLP."""
    d_model: Count = 256
    """Width of the residual stream."""
    heads: Count = 4
    """Query heads."""
    kv_heads: Count = 4
    """Key and value heads; divides `heads`."""
    head_dim: Count = 64
    """Width of a head; even, for the rotary pairs."""
    d_hidden: Count = 704
    """Width of the MLP, or of each expert."""
    max_length: Count = 256
    """Longest sequence trained on, tokens."""
    tied: bool = False
    """The output head is the embedding, transposed."""
    embedding_scale: bool = False
    """Embeddings are multiplied by √d_model (Gemma)."""
    embedding_multiplier: float = 1.0
    """Embeddings are multiplied by it (Granite)."""
    residual_multiplier: float = 1.0
    """What a part adds to the residual stream is multiplied by it (Granite)."""
    logit_divisor: float = 1.0
    """Logits are divided by it (Granite)."""
    parallel: bool = False
    """Attention and MLP both read the block's input (GPT-NeoX)."""

    embedding_norm: bool = False
    """Embeddings are normalised (nanochat)."""

    norm: Literal["rms", "layer", "bare"] = "rms"
    """RMSNorm, LayerNorm with a bias, or RMSNorm without weights."""
    norm_placement: Literal["before", "after", "both"] = "before"
    """Each part's norm is on its input (Llama), on its output (OLMo 2), or there is one on each (Gemma)."""
    norm_plus_one: bool = False
    """Norms multiply by 1 + scale (Gemma)."""
    norm_eps: Positive = 1e-6
    """Added to the mean square before the root."""
    qk_norm: bool = True
    """Normalise queries and keys of each head (Dehghani 2023)."""
    qk_norm_whole: bool = False
    """That norm is over all heads of a token together (OLMo 2)."""
    qk_norm_last: bool = False
    """That norm is behind the rotation (nanochat)."""
    qk_norm_bare: bool = False
    """That norm has no weights, and layers without rotation have none (Llama 4)."""

    positions: Literal["rotary", "learned"] = "rotary"
    """Queries and keys are turned (Su et al. 2021), or a learned vector is added to the embedding (GPT-2)."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary frequencies (Su et al. 2021)."""
    rotary_dim: int = 0
    """Dimensions of a head that are rotated, the first ones; 0: all."""
    global_rotary: bool = True
    """Layers that see everything are rotated; off: only the local ones (SmolLM 3)."""
    rotary_reversed: bool = False
    """Pairs are turned the other way (nanochat)."""
    rotary_interleaved: bool = False
    """Pairs are neighbours and not the halves' (DeepSeek)."""
    rope_scaling: Literal["none", "linear", "llama3", "yarn", "longrope"] = "none"
    """How the frequencies are stretched to longer contexts than the first training's."""
    rope_factor: float = 1.0
    """Stretch of positions (linear, longrope), or of the lowest frequencies (llama3, yarn)."""
    rope_low_frequency: float = 1.0
    """llama3, yarn: fewer turns than this within `rope_length` are stretched in full."""
    rope_high_frequency: float = 4.0
    """llama3, yarn: more turns than this within `rope_length` are kept."""
    rope_length: int = 8192
    """llama3, yarn, longrope: context of the first training, tokens."""
    rope_truncate: bool = True
    """yarn: the bounds between stretched and kept pairs are whole pairs."""
    rope_attention_factor: float = 0.0
    """yarn, longrope: rotated queries and keys are multiplied by it; 0: by the papers' formulas."""
    rope_score_scale: float = 0.0
    """yarn: scores are multiplied by the square of its factor at this scale (DeepSeek's mscale_all_dim)."""
    rope_short: tuple[float, ...] = ()
    """longrope: what each frequency is divided by in rows of at most `rope_length` tokens."""
    rope_long: tuple[float, ...] = ()
    """longrope: the same in longer rows."""
    rope_local_theta: float = 0.0
    """Base in local layers, never stretched (Gemma 3); 0: as in the others."""

    window: int = 0
    """Keys that a query sees in local layers, itself included, tokens; 0: no layer is local."""
    global_every: int = 0
    """Layers n, 2n, 3n, … see everything, the others are local; 0: all are local where `window` is set."""
    chunked: bool = False
    """Each `window` tokens of a document stand alone in local layers (Llama 4)."""
    temperature_scale: float = 0.0
    """Where nothing is rotated the n-th token's queries are multiplied by 1 + it · ln(1 + ⌊n / length⌋)."""
    temperature_length: Count = 8192
    """That length, tokens (Llama 4)."""
    attention_scale: float = 0.0
    """Scores are multiplied by it; 0: 1/√head_dim."""
    latent_rank: int = 0
    """Numbers that the keys and values of all heads are made of (DeepSeek-V3), the last `rotary_dim` of a key
    aside; 0: each head has its own."""
    query_rank: int = 0
    """The same for queries; 0: they are made of the residual stream."""
    value_dim: int = 0
    """Width of a head's values, where `latent_rank` is set."""
    delta_key_heads: int = 0
    """Key heads of gated DeltaNets, the mixers of local layers (Qwen3-Next); 0: these have a window."""
    delta_value_heads: int = 0
    """Their value heads; a multiple of the key heads."""
    delta_key_dim: int = 0
    """Width of their keys."""
    delta_value_dim: int = 0
    """Width of their values."""
    output_gates: bool = False
    """What attention and the shared experts give is multiplied by a sigmoid of their input (Qwen3-Next)."""
    sinks: bool = False
    """A learned score of each head takes part in the softmax and gives nothing (gpt-oss)."""
    attention_softcap: float = 0.0
    """c · tanh(score / c) bounds scores (Gemma 2); 0: no bound."""
    logit_softcap: float = 0.0
    """The same for logits."""

    activation: Literal["silu", "gelu", "gelu_exact", "relu2", "clipped_swiglu"] = "silu"
    """Of the MLP; gelu is the tanh approximation, relu2 the square of ReLU, clipped_swiglu gpt-oss's."""
    gated: bool = True
    """The MLP multiplies two projections (Shazeer 2020)."""
    qkv_bias: bool = False
    """Queries, keys and values have biases (Qwen 2)."""
    output_bias: bool = False
    """The attention's output has a bias (GPT-2)."""
    mlp_bias: bool = False
    """MLP, experts and router have biases (GPT-2, gpt-oss)."""

    experts: int = 0
    """Experts of a mixture; 0: one dense MLP."""
    experts_per_token: Count = 2
    """Experts that a token is sent to; none is ever dropped."""
    normalize_experts: bool = True
    """The chosen experts' weights sum to one."""
    router: Literal["softmax", "sigmoid", "sigmoid_in"] = "softmax"
    """What makes probabilities of the router's logits; sigmoid: experts are chosen by them plus a bias
    (Wang et al. 2024), which training leaves; sigmoid_in: they multiply what experts read."""
    expert_groups: Count = 1
    """Equal groups of experts; sigmoid chooses groups first, by the sum of the best two of each."""
    groups_per_token: Count = 1
    """Groups among which a token's experts are chosen."""
    experts_scale: float = 1.0
    """The chosen experts' weights are multiplied by it."""
    shared_experts: int = 0
    """Experts that every token is sent to, as one MLP."""
    dense_layers: int = 0
    """First layers with an MLP of `dense_hidden`, no experts."""
    dense_hidden: int = 0
    """Width of that MLP."""
    balance_loss: float = 0.01
    """Weight of the router's load-balancing loss (Fedus 2021)."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations and matmuls; bfloat16 on accelerators."""
    float8: bool = False
    """The blocks' matmuls, those of experts aside, take 8-bit numbers while the model trains: Hopper and
    newer GPUs multiply these twice as fast."""
    attention: Literal["auto", "xla", "blocks", "ring", "splash", "cudnn", "pallas"] = "auto"
    """Kernel; auto takes the fastest that can do what is asked, and the run says which and why."""
    remat: Literal["none", "dots", "full", "offload"] = "none"
    """What the backward pass finds: everything; what matmuls and attention gave; inputs of layers; those, on
    the host."""
    scan: bool = True
    """Loop over the layers in the compiled program; off: unroll them (compiles longer, same weights)."""
    stage_microbatches: Count = 4
    """Parts of a batch that follow each other through the pipeline of a mesh with stages."""

    def __post_init__(self) -> None:
        for name in ("rope_short", "rope_long"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

        heads, experts, pairs = self.heads, self.experts, self.rotary_pairs
        delta = (self.delta_key_heads, self.delta_value_heads, self.delta_key_dim, self.delta_value_dim)
        latent, unlike = self.latent_rank > 0, ("qk_norm", "qkv_bias", "output_bias", "sinks", "window")
        groups, of_groups = self.expert_groups, self.groups_per_token * experts // self.expert_groups
        whole = 1 < self.global_every <= self.layers
        no_first = self.dense_hidden == 0 or self.dense_layers >= self.layers or self.global_every > 0
        within = 0 < self.rotary_dim < self.head_dim and 0 < self.value_dim <= self.head_dim
        factors = {len(self.rope_short), len(self.rope_long)}
        for wrong, words in (
            (heads % self.kv_heads != 0, f"kv_heads {self.kv_heads} does not divide heads {heads}"),
            (
                self.positions == "rotary" and self.head_dim % 2 != 0,
                f"head_dim {self.head_dim} is odd; rotary positions turn pairs",
            ),
            (
                experts > 0 and not 0 < self.experts_per_token <= experts,
                f"experts_per_token {self.experts_per_token} is not within 1 and experts {experts}",
            ),
            (
                self.rope_scaling == "longrope" and factors != {pairs},
                f"rope_short and rope_long need a factor for each of {pairs} rotary pairs",
            ),
            (
                self.global_every > 0 and self.window == 0 and not delta[0],
                "global_every is set and window is not; set window",
            ),
            (
                any(delta) and (not all(delta) or delta[1] % delta[0] != 0 or not whole),
                f"delta_key_heads {delta[0]} divide delta_value_heads and need delta_*_dim, global_every",
            ),
            (
                latent and (self.rotary_dim % 2 != 0 or not within),
                f"latent_rank needs even rotary_dim, and value_dim, up to head_dim {self.head_dim}",
            ),
            (
                latent and (self.kv_heads != heads or any(getattr(self, name) for name in unlike)),
                f"latent_rank needs kv_heads {heads} and none of {', '.join(unlike)}",
            ),
            (
                experts > 0
                and groups > 1
                and (self.router == "softmax" or experts % groups != 0 or experts < 2 * groups),
                f"expert_groups {groups} are sigmoid's equal parts, of at least two, of experts {experts}",
            ),
            (
                experts > 0 and not self.experts_per_token <= of_groups <= experts,
                f"groups_per_token {self.groups_per_token} of {groups} do not have experts_per_token",
            ),
            (
                self.dense_layers > 0 and (no_first or experts == 0),
                f"dense_layers {self.dense_layers} needs dense_hidden, experts behind, no global_every",
            ),
            (experts > 0 and not self.gated, "experts are gated MLPs; set gated"),
            (self.activation == "clipped_swiglu" and not self.gated, "clipped_swiglu is a gate; set gated"),
        ):
            if wrong:
                raise UserError(f"model.{words}")

    @property
    def rotary_pairs(self) -> int:
        """Pairs of a head's dimensions that are rotated."""
        return (self.rotary_dim or self.head_dim) // 2

    @staticmethod
    def yarn_scale(factor: float, scale: float = 1.0) -> float:
        """YaRN's attention factor (Peng et al. 2023, equation 22)."""
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    @property
    def is_local(self) -> tuple[bool, ...]:
        """Of each layer of the repeating pattern: whether it sees only `window` keys."""
        if self.window == 0 and self.delta_key_heads == 0:
            return (False,)
        return (True,) * (self.global_every - 1) + (False,) if self.global_every else (True,)

    def rotates(self, is_local: bool) -> bool:
        """Whether such layers turn queries and keys."""
        return self.positions == "rotary" and (is_local or self.global_rotary)

    @property
    def delta_layers(self) -> int:
        """Layers with a gated DeltaNet."""
        return self.layers - self.layers // self.global_every if self.delta_key_heads else 0

    @property
    def dense(self) -> "ModelConfig":
        """The config of the first `dense_layers`."""
        return replace(self, experts=0, dense_layers=0, d_hidden=self.dense_hidden)

    @property
    def cached(self) -> tuple[int, int, int]:
        """Key heads, and numbers of the key and the value of each, that a cache holds of a token in a layer.

        A latent key has its value within it.
        """
        if self.latent_rank:
            return 1, self.latent_rank + self.rotary_dim, 0
        return self.kv_heads, self.head_dim, self.head_dim

    @property
    def attention_parameters(self) -> int:
        """Weights of a layer's attention, on average."""
        D, N, H = self.d_model, self.heads, self.head_dim
        if not self.latent_rank:
            keys, values = self.delta_key_heads * self.delta_key_dim, self.delta_value_heads
            delta = D * (2 * keys + 3 * values * self.delta_value_dim + 2 * values) * self.delta_layers
            whole = D * H * ((3 if self.output_gates else 2) * N + 2 * self.kv_heads)
            return (delta + whole * (self.layers - self.delta_layers)) // self.layers
        queries = self.query_rank * (D + N * H) if self.query_rank else D * N * H
        kept = self.latent_rank * N * (H - self.rotary_dim + self.value_dim)
        return queries + D * (self.latent_rank + self.rotary_dim) + kept + N * self.value_dim * D

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply every token: blocks (of a mixture, experts chosen) and the output head."""
        mlp = (3 if self.gated else 2) * self.d_model * self.d_hidden
        if self.experts:
            mlp = mlp * (self.experts_per_token + self.shared_experts) + self.d_model * self.experts
        dense = self.dense_layers * 3 * self.d_model * self.dense_hidden
        sparse = (self.layers - self.dense_layers) * mlp
        return self.layers * self.attention_parameters + dense + sparse + self.d_model * self.vocab_size

    def flops_per_token(self, length: int = 0) -> float:
        """Operations to train on a token of rows of `length` tokens (0: `max_length`), forward and backward.

        A local layer's query sees at most `window` keys.
        """
        length = length or self.max_length
        pattern = self.is_local * -(-self.layers // len(self.is_local))
        # what a DeltaNet reads does not grow with the length, and is not counted
        kinds = [local for local in pattern[: self.layers] if not (local and self.delta_key_heads)]
        row, window = (min(length, self.window), 0) if self.chunked else (length, self.window)
        seen = sum(seen_keys(row, window) if local else seen_keys(length) for local in kinds)
        width = (self.head_dim + (self.value_dim or self.head_dim)) / 2
        return cost.flops_per_token(self.matmul_parameters, seen, self.heads * width)
