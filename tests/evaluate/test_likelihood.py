"""Likelihoods against full forwards; how pairs become batches: nothing lost, padding where it is cheaper."""

import dataclasses
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.evaluate.likelihood import SCORED, _batches, _grouped, _rounded, _score, likelihoods
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer

Pairs = list[tuple[list[int], list[int]]]


def pairs(seed: int, items: int, choices: int, context: int, continuation: int) -> Pairs:
    rng = random.Random(seed)
    found: Pairs = []
    for number in range(items):
        shared = [number] * rng.randint(1, context)
        found += [(shared, [0] * rng.randint(1, continuation)) for _ in range(choices)]
    return found


OTHERS = [
    {},
    {"layers": 3, "window": 5, "global_every": 2},
    {"layers": 3, "window": 5, "global_every": 2, "chunked": True, "temperature_scale": 0.5}
    | {"temperature_length": 4, "global_rotary": False},
    {"positions": "learned", "sinks": True, "dtype": "float32"},
    {"layers": 3, "global_every": 2, "delta_key_heads": 2, "delta_value_heads": 4}
    | {"delta_key_dim": 8, "delta_value_dim": 6, "output_gates": True},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_they_are_those_of_a_full_forward_of_each_pair(other, config: ModelConfig, make_mesh):
    config = dataclasses.replace(config, **other)
    rng = np.random.default_rng(0)
    contexts = [rng.integers(1, 96, n).tolist() for n in (12, 1, 7, 20)]
    asked = [(contexts[at % 4], rng.integers(1, 96, at % 5 + 1).tolist()) for at in range(14)]
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = jax.jit(lambda: Transformer(config, jax.random.key(3)))()
        # two tokens of one logit each: argmax is the first of them
        model.head_DV = jax.tree.map(
            lambda x: jax.device_put(np.tile(np.asarray(x)[:, :48], 2), x.sharding), model.head_DV
        )
        forward = jax.jit(lambda model, ids: jax.nn.log_softmax(model(ids)))
        best = [
            int(forward(model, np.array([context + [0] * (32 - len(context))]))[0, len(context) - 1].argmax())
            for context in contexts
        ]
        asked += [
            (context, [token + of]) for context, token in zip(contexts, best, strict=True) for of in (0, 48)
        ]
        found = likelihoods(model, asked, tokens=64, pad=0)
        for (context, continuation), one in zip(asked, found, strict=True):
            ids = [*context, *continuation]
            logprobs = forward(model, np.array([ids + [0] * (32 - len(ids))]))[0, len(context) - 1 :]
            wanted = [float(logprobs[at, token]) for at, token in enumerate(continuation)]
            assert one.nats == pytest.approx(sum(wanted), abs=1e-4)
            firsts = np.asarray(logprobs).argmax(-1)[: len(continuation)].tolist()
            assert one.is_greedy == (firsts == continuation)
    assert [one.is_greedy for one in found[14:]] == [True, False] * 4, "of a tie the first, and it alone"


@given(st.integers(0, 10), st.integers(1, 30), st.integers(1, 5), st.sampled_from([0.0, 500.0, 1e9]))
def test_every_pair_is_in_one_batch_and_batches_are_of_the_size_asked_for(seed, items, choices, patience):
    asked = pairs(seed, items, choices, context=60, continuation=30)
    batches = _batches(_grouped(asked), 512, patience)
    found = [
        (place, group.context, continuation)
        for batch in batches
        for group in batch
        for place, continuation in group.continuations.items()
    ]
    assert sorted(found) == [(place, *pair) for place, pair in enumerate(asked)]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(_rounded(group.size) for group in batch) <= 512


def test_patience_trades_programs_for_padding():
    groups = _grouped(pairs(0, 200, 4, context=120, continuation=40))

    def sizes(patience: float) -> set[int]:
        batches = _batches(groups, 10**9, patience)
        return {_rounded(max(group.size for group in batch)) for batch in batches}

    assert len(sizes(1e9)) == 1 < len(sizes(500)) < len(sizes(0))


def test_a_group_has_one_context_and_a_bounded_row():
    groups = _grouped([([1, 2, 3], [n] * 3) for n in range(1000)])
    assert all(group.scored <= SCORED for group in groups)
    assert len(groups) == -(-1000 // (SCORED // 3))
    one, other = [1, 2], [1, 3]
    asked = [(one, [5]), (other, [5]), (one, [7]), (other, [5] * SCORED), (one, [8])]
    assert [list(group.continuations) for group in _grouped(asked)] == [[0, 2, 4], [1], [3]]


def test_sizes_are_rounded_up_by_an_eighth_at_most():
    for size in range(1, 5000):
        rounded = _rounded(size)
        assert rounded >= size and rounded % 8 == 0
        assert rounded - size < max(8, size / 8 + 1)


def test_no_program_copies_the_weights_of_all_layers(config, make_mesh):
    """XLA reads them where they lie; each copy was a third of a short program's time."""
    config = dataclasses.replace(config, layers=5)
    with jax.set_mesh(make_mesh(fsdp=1)):
        model = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
        batch = dict.fromkeys(("ids", "positions", "branches", "targets"), jnp.ones((2, 16), jnp.int32))
        text = _score.lower(model, batch, 8).compile().as_text()
    assert not re.findall(r"f32\[(5,\S*)\]\S* copy\(", text)
