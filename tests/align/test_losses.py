"""Each loss against float64 numpy, written as plain loops from the papers' formulas."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.align.losses import gae, moved, ppo_policy, ppo_value, whiten
from jaxtrain.align.preference_losses import ranking_loss

EXTREME = np.array([[-1e4, -1e3, -50.0, -1.0, 0.0, 1.0, 50.0, 1e3, 1e4]], np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_mask(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Holes in the middle and at the end; the first token of a row is real."""
    mask = (rng.random(shape) < 0.7).astype(np.float32)
    mask[:, 0] = 1
    mask[: len(mask) // 2, -3:] = 0
    return mask


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def pairwise_loss(scores: list[float], ranks: list[int]) -> float:
    """Mean over all pairs of answers that are there; a tie counts half for each side."""
    losses = []
    for i, j in itertools.combinations(range(len(scores)), 2):
        if 0 in (ranks[i], ranks[j]):
            continue
        difference = scores[i] - scores[j]
        if ranks[i] == ranks[j]:
            losses.append(-0.5 * (log_sigmoid(difference) + log_sigmoid(-difference)))
        else:
            losses.append(-log_sigmoid(difference if ranks[i] < ranks[j] else -difference))
    return sum(losses) / len(losses) if losses else 0.0


def test_two_answers_are_bradley_terry(rng):
    scores = rng.normal(size=(8, 2)).astype(np.float32)
    loss = ranking_loss(jnp.array(scores), jnp.tile(jnp.array([1, 2]), (8, 1)))
    wanted = -np.log(1 / (1 + np.exp(scores[:, 1].astype(np.float64) - scores[:, 0])))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


@pytest.mark.parametrize("answers", [2, 3, 4, 6])
def test_ranking_loss_takes_all_pairs_with_ties_and_answers_that_are_not_there(rng, answers):
    scores = (3 * rng.normal(size=(64, answers))).astype(np.float32)
    ranks = rng.integers(0, answers, size=(64, answers))
    assert (ranks == 0).any()
    loss = ranking_loss(jnp.array(scores), jnp.array(ranks))
    wanted = [pairwise_loss(s, r) for s, r in zip(scores.tolist(), ranks.tolist(), strict=True)]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-6)


def test_a_margin_is_asked_for_each_rank_between_and_centring_holds_the_sum_at_zero(rng):
    scores = rng.normal(size=(16, 3)).astype(np.float32)
    ranks = np.array([[1, 2, 3], [1, 1, 2]] * 8)
    loss = ranking_loss(jnp.array(scores), jnp.array(ranks), margin=0.5, center=0.01)
    wanted = []
    for s, r in zip(scores.astype(np.float64), ranks, strict=True):
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j and r[i] <= r[j]]
        weights = [1.0 if r[i] < r[j] else 0.5 for i, j in pairs]
        each = [
            np.log1p(np.exp(-(s[i] - s[j] - 0.5 * (r[j] - r[i])))) + 0.01 * (s[i] + s[j]) ** 2
            for i, j in pairs
        ]
        wanted.append(np.average(each, weights=weights))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_a_prompt_without_a_pair_has_no_loss_and_a_finite_gradient():
    ranks = jnp.array([[0, 0, 0], [0, 1, 0]])
    loss, gradient = jax.value_and_grad(lambda s: ranking_loss(s, ranks).sum())(jnp.ones((2, 3)))
    assert float(loss) == 0
    assert (np.asarray(gradient) == 0).all()


def test_a_missing_answer_gets_no_gradient():
    ranks = jnp.array([[1, 2, 0]])
    gradient = jax.grad(lambda s: ranking_loss(s, ranks).sum())(jnp.array([[0.3, -0.2, 5.0]]))
    assert float(gradient[0, 0]) < 0 < float(gradient[0, 1])
    assert float(gradient[0, 2]) == 0


def gae_of_row(rewards, values, discount, smoothing) -> list[float]:
    """A_t = Σ (γλ)^l δ_(t+l), δ_t = r_t + γ V_(t+1) − V_t, V behind the end 0: the sum, not the recursion."""
    after = [*values[1:], 0.0]
    deltas = [r + discount * v_next - v for r, v, v_next in zip(rewards, values, after, strict=True)]
    return [
        sum((discount * smoothing) ** (n - t) * deltas[n] for n in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


@pytest.mark.parametrize(("discount", "smoothing"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.97, 0.0)])
def test_advantages_are_those_of_the_row_without_its_masked_tokens(rng, discount, smoothing):
    rewards, values = (rng.normal(size=(6, 12)).astype(np.float32) for _ in range(2))
    mask = random_mask(rng, rewards.shape)
    wanted = np.zeros((2, *rewards.shape))
    for row in range(len(mask)):
        real = np.flatnonzero(mask[row])
        own = gae_of_row(
            rewards[row, real].astype(float), values[row, real].astype(float), discount, smoothing
        )
        wanted[0, row, real] = own
        wanted[1, row, real] = own + values[row, real].astype(float)
    found = gae(jnp.array(rewards), jnp.array(values), jnp.array(mask), gamma=discount, lam=smoothing)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-5)


def test_without_smoothing_or_discount_the_return_is_the_reward_to_come(rng):
    rewards, values = (rng.normal(size=(2, 7)).astype(np.float32) for _ in range(2))
    ones = jnp.ones((2, 7))
    _, returns = gae(jnp.array(rewards), jnp.array(values), ones, lam=1.0)
    np.testing.assert_allclose(returns, np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1], atol=1e-5)


def test_whitening_divides_by_the_unbiased_deviation_of_the_mask(rng):
    values = rng.normal(3, 5, size=(3, 5)).astype(np.float32)
    mask = random_mask(rng, values.shape)
    real = values[mask > 0].astype(np.float64)
    found = np.asarray(whiten(jnp.array(values), jnp.array(mask)))
    np.testing.assert_allclose(found[mask > 0], (real - real.mean()) / real.std(ddof=1), rtol=1e-4, atol=1e-5)
    assert (found[mask == 0] == 0).all()


def test_whitening_equal_values_gives_zeros():
    assert (np.asarray(whiten(jnp.full((2, 3), 7.0), jnp.ones((2, 3)))) == 0).all()


def policy_of(logprob, old, advantage, mask, clip) -> tuple[float, int]:
    """Summed loss and number of tokens whose objective is the clipped one."""
    total, clipped = 0.0, 0
    for row, column in np.argwhere(mask > 0):
        a = float(advantage[row, column])
        ratio = math.exp(float(logprob[row, column]) - float(old[row, column]))
        held = min(max(ratio, 1 - clip), 1 + clip)
        total -= min(a * ratio, a * held)
        clipped += a * held < a * ratio
    return total, clipped


@pytest.mark.parametrize("clip", [0.1, 0.3])
def test_the_policy_loss_is_the_clipped_objective(rng, clip):
    shape = (5, 11)
    logprob, old, advantage = (rng.normal(size=shape).astype(np.float32) * s for s in (0.3, 0.3, 2.0))
    mask = random_mask(rng, shape)
    total, clipped = policy_of(logprob, old, advantage, mask, clip)
    arrays = tuple(map(jnp.array, (logprob, old, advantage, mask)))
    np.testing.assert_allclose(ppo_policy(*arrays, clip=clip), total, rtol=1e-5)
    assert moved(*arrays, clip, clip)["clip_fraction"].tolist() == [clipped, mask.sum()]
    assert 0 < clipped < mask.sum()


def test_a_token_that_moved_too_far_the_good_way_gets_no_gradient():
    old, mask = jnp.zeros((1, 4)), jnp.ones((1, 4))
    logprob = jnp.log(jnp.array([[1.5, 0.5, 1.5, 0.5]]))
    advantage = jnp.array([[1.0, -1.0, -1.0, 1.0]])
    gradient = jax.grad(lambda x: ppo_policy(x, old, advantage, mask))(logprob)[0]
    assert gradient[:2].tolist() == [0, 0]
    np.testing.assert_allclose(gradient[2:], [1.5, -0.5], rtol=1e-5)


def test_the_value_loss_is_half_the_worse_of_two_squares(rng):
    shape = (4, 9)
    value, old, wanted = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    mask = random_mask(rng, shape)
    total = 0.0
    for row, column in np.argwhere(mask > 0):
        v, o, r = (float(x[row, column]) for x in (value, old, wanted))
        held = o + min(max(v - o, -0.4), 0.4)
        total += 0.5 * max((v - r) ** 2, (held - r) ** 2)
    arrays = tuple(map(jnp.array, (value, old, wanted, mask)))
    np.testing.assert_allclose(ppo_value(*arrays, clip=0.4), total, rtol=1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_inputs_have_finite_losses_and_gradients(sign):
    zeros, ones = jnp.zeros_like(EXTREME), jnp.ones_like(EXTREME)
    extreme = jnp.array(EXTREME)
    losses = {
        "policy": lambda x: ppo_policy(x, zeros, sign * ones, ones),
        "value": lambda x: ppo_value(x, zeros, sign * ones, ones),
        "ranking": lambda x: ranking_loss(x, jnp.arange(1, 10)[None]).sum(),
        "whiten": lambda x: jnp.sum(whiten(x, ones) ** 3),
    }
    for name, loss in losses.items():
        value, gradient = jax.value_and_grad(loss)(sign * extreme)
        assert np.isfinite(value), name
        assert np.isfinite(gradient).all(), name


def test_masked_tokens_do_not_count_whatever_stands_there(rng):
    shape = (3, 8)
    mask = random_mask(rng, shape)
    first, second = (rng.normal(size=(4, *shape)).astype(np.float32) for _ in range(2))
    other = np.where(mask > 0, first, second)
    for loss in (
        lambda a, b, c, d, m: ppo_policy(a, b, c, m),
        lambda a, b, c, d, m: ppo_value(a, b, c, m),
        lambda a, b, c, d, m: gae(a, b, m),
        lambda a, b, c, d, m: whiten(a, m),
    ):
        one, two = (loss(*map(jnp.array, (*values, mask))) for values in (first, other))
        jax.tree.map(np.testing.assert_array_equal, one, two)
