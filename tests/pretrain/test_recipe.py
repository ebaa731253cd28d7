"""The dial: against sweeps that others published, and worked out by hand."""

import pytest

from jaxtrain.pretrain import recipe
from jaxtrain.runtime.errors import UserError

# Weights of the blocks, tokens, and of 91 pairs the batch in tokens and the rate with the lowest loss (powers
# of 2 and of √2): lucaslingle.substack.com, "Scaling laws for optimal LR and batch size", part III, 2025, its
# rows of at least one token a weight.
SWEEPS = [
    (46006272, 127991808, 32768, 0.001953),
    (109051904, 127991808, 32768, 0.000977),
    (46006272, 255983616, 65536, 0.001953),
    (109051904, 255983616, 65536, 0.001381),
    (46006272, 511967232, 65536, 0.002762),
    (109051904, 511967232, 131072, 0.001953),
    (368050176, 511967232, 131072, 0.000977),
    (46006272, 1023934464, 131072, 0.003906),
    (109051904, 1023934464, 131072, 0.001953),
    (368050176, 1023934464, 131072, 0.000977),
    (872415232, 1023934464, 131072, 0.000691),
]


@pytest.mark.parametrize(("weights", "tokens", "batch", "rate"), SWEEPS)
def test_the_laws_find_what_a_sweep_found(weights, tokens, batch, rate):
    """The rate within a factor of two; the batch, to which the loss is flatter, of two and a half."""
    assert 0.4 < recipe.batch_tokens(tokens) / batch < 2.5
    assert 0.5 < recipe.learning_rate(weights, tokens) / rate < 2


def test_depth_12_by_hand():
    """GPT-2's width: 12 x (4 x 768² + 3 x 768 x 2048) weights in blocks, and a head of 32,768."""
    config = recipe.pretrain(12, data="tokens", out="model", vocab_size=32768, train={"seed": 7})
    shape = config.model
    assert (shape.layers, shape.d_model, shape.heads, shape.head_dim, shape.d_hidden) == (
        12,
        768,
        12,
        64,
        2048,
    )
    blocks, head = 12 * (4 * 768 * 768 + 3 * 768 * 2048), 768 * 32768
    assert shape.matmul_parameters == blocks + head == 110_100_480
    tokens = 20 * (blocks + head)  # 2.2 billion
    assert config.batch_size * shape.max_length == 131_072  # the law says 126,000
    assert config.train.steps == -(-tokens // 131_072) == 16_800
    assert config.train.optimizer.lr == pytest.approx(2.90e-3, rel=0.02)
    assert config.train.optimizer.lr * config.train.optimizer.final_lr_share == pytest.approx(1e-5)
    assert config.train.optimizer.warmup_steps == 840 and config.train.seed == 7


def test_more_depth_is_more_of_all_but_the_rate():
    found = [recipe.pretrain(depth, data="d", out="o", vocab_size=50_000) for depth in (4, 8, 16, 32)]
    for small, large in zip(found, found[1:], strict=False):
        assert large.batch_size >= small.batch_size and large.train.steps > small.train.steps
        assert large.train.optimizer.lr < small.train.optimizer.lr
    with pytest.raises(UserError, match="at least 1 layer"):
        recipe.model(0, 512)
