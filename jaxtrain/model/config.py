"""ModelConfig: the shape of a decoder-only transformer."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A pre-norm decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    vocab_size: int = 4096
    """Token ids, special ones included."""
    layers: int = 6
    """Blocks of attention and MLP."""
    d_model: int = 256
    """Width of the residual stream."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 4
    """Key and value heads; divides `heads`."""
    head_dim: int = 64
    """Width of a head; even, for the rotary pairs."""
    d_hidden: int = 704
    """Width of the gated MLP."""
    max_length: int = 256
    """Longest sequence trained on, tokens."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (Su et al. 2021)."""
    norm_eps: float = 1e-6
    """Added to the mean square before the root."""
    qk_norm: bool = True
    """Normalise queries and keys of each head (Dehghani et al. 2023): stable at high learning rates."""
    dtype: str = "float32"
    """Of activations and matmul inputs; weights stay float32. bfloat16 on accelerators."""

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply every token: blocks and the output head, not the embedding."""
        attention = self.d_model * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.d_model * self.d_hidden) + self.d_model * self.vocab_size
