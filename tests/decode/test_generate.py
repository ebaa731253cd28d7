"""Sampling against repeated full forwards."""

import jax
import numpy as np
import pytest

from jaxtrain.decode.answers import answers
from jaxtrain.decode.generate import generate, padded, row_keys
from jaxtrain.runtime import mesh as meshes

PAD, NEVER = 0, -1
PROMPTS = [[5, 6, 7], [9], [20, 21, 22, 23, 24, 25], [40, 41], [50], [60, 61], [70, 71, 72], [80]]


@pytest.fixture(scope="module")
def model(draw, make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        return draw()


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


@pytest.fixture(scope="module")
def full(model):
    """Logits [T, V] of one sequence without padding or cache."""
    forward = jax.jit(lambda model, tokens: model(tokens))

    def run(ids: list[int]) -> np.ndarray:
        padded = np.zeros((1, 16), np.int32)
        padded[0, : len(ids)] = ids
        return np.asarray(forward(model, padded), np.float64)[0, : len(ids)]

    return run


def decode(model, prompts, *, keys=None, length=8, max_new=8, temperature=0.0, stop=NEVER):
    tokens, segments = padded(prompts, length, PAD)
    keys = jax.random.split(jax.random.key(1), len(prompts)) if keys is None else keys
    out = generate(
        model, tokens, segments, keys, max_new=max_new, temperature=temperature, stop=stop, pad=PAD
    )
    return tuple(np.asarray(x) for x in (out.tokens_BN, out.mask_BN, out.logprobs_BN))


def log_softmax(logits):
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


@pytest.fixture(scope="module")
def greedy(model, make_mesh):
    """Tokens, mask and log-probabilities of eight tokens behind each prompt."""
    with jax.set_mesh(make_mesh(fsdp=1)):
        return decode(model, PROMPTS)


def test_greedy_is_the_argmax_of_full_forwards(full, greedy):
    tokens, mask, logprobs = greedy
    for row, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for _ in range(8):
            ids.append(int(full(ids)[-1].argmax()))
        assert tokens[row].tolist() == ids[len(prompt) :]
        expected = log_softmax(full(ids))[len(prompt) - 1 : -1].max(-1)
        np.testing.assert_allclose(logprobs[row], expected, atol=1e-5)
    assert (mask == 1).all()


def test_a_row_ends_at_its_stop_token_and_the_others_go_on(model, greedy):
    free = greedy[0]
    stop = next(t for t in free[0].tolist()[2:] if t not in free[0, :2] and t != PAD)
    at = free[0].tolist().index(stop)
    tokens, mask, logprobs = decode(model, PROMPTS, stop=stop)
    assert tokens[0].tolist() == [*free[0, : at + 1], *[PAD] * (7 - at)]
    assert mask[0].tolist() == [1.0] * (at + 1) + [0.0] * (7 - at)
    assert (logprobs[0, at + 1 :] == 0).all() and (logprobs[0, : at + 1] < 0).all()
    going = [row for row in range(len(PROMPTS)) if stop not in free[row]]
    assert going
    np.testing.assert_array_equal(tokens[going], free[going])
    lists = answers(model, None, PROMPTS, max_new=8, stop=(stop,), temperature=0.0)
    assert lists == [row[: int(m.sum())].tolist() for row, m in zip(tokens, mask, strict=True)]


def test_logprobs_are_those_of_the_distribution_sampled_from(model, full):
    tokens, _, logprobs = decode(model, PROMPTS, temperature=0.7)
    for row, prompt in enumerate(PROMPTS):
        ids = [*prompt, *tokens[row].tolist()]
        expected = log_softmax(full(ids) / 0.7)[len(prompt) - 1 : -1]
        np.testing.assert_allclose(logprobs[row], expected[np.arange(8), tokens[row]], atol=1e-5)


def test_samples_follow_the_softmax(model, full):
    draws = 4096
    tokens, _, _ = decode(model, [[5, 6, 7]] * draws, max_new=1, temperature=0.7)
    expected = np.exp(log_softmax(full([5, 6, 7])[-1] / 0.7))
    found = np.bincount(tokens[:, 0], minlength=len(expected)) / draws
    sigma = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(found - expected) < 5 * sigma + 1 / draws).all()
    assert len(np.unique(tokens)) > 20


def test_a_row_depends_on_its_prompt_and_key_alone(model):
    keys = jax.random.split(jax.random.key(7), 8)
    tokens, _, _ = decode(model, PROMPTS, keys=keys, temperature=0.7)
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    others = [[11, 12]] * 2 + [PROMPTS[i] for i in order[2:]]
    again, _, _ = decode(model, others, keys=keys[np.array(order)], length=13, temperature=0.7)
    np.testing.assert_array_equal(again[2:], tokens[order[2:]])
    different, _, _ = decode(model, PROMPTS, keys=keys[::-1], temperature=0.7)
    assert (different != tokens).any(axis=1).all()


def test_the_mesh_does_not_change_the_text(draw, greedy, make_mesh):
    """Also `answers`: rows are filled up to the mesh, and only those asked for come back."""
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        assert meshes.batch_rows() == 4
        sharded = draw()
        found = answers(sharded, None, PROMPTS[:3], max_new=8, stop=(), temperature=0.0)
    assert found == greedy[0][:3].tolist()


def test_answers_are_drawn_with_a_key_each(model):
    """The same as in one batch with these keys, whatever the order they are decoded in."""
    keys = row_keys(jax.random.key(5), np.arange(len(PROMPTS)))
    tokens, _, _ = decode(model, PROMPTS, keys=keys, temperature=0.7)
    found = answers(model, None, PROMPTS, max_new=8, stop=(), temperature=0.7, seed=5, rows=3)
    assert found == tokens.tolist()


def test_a_long_prompt_keeps_its_end():
    tokens, segments = padded([[1, 2, 3, 4], [9]], 3, PAD)
    assert tokens.tolist() == [[2, 3, 4], [9, 0, 0]]
    assert segments.tolist() == [[1, 1, 1], [1, 0, 0]]
