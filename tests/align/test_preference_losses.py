"""Losses of preferences and of groups against float64 numpy, written from the papers' formulas."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.align import losses
from jaxtrain.align import preference_losses as preferences

RTOL = 1e-5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def summed(rng: np.random.Generator, n: int = 32) -> np.ndarray:
    """Log-probabilities of four kinds of n whole answers, [4, n]."""
    return (-40 * rng.random((4, n)) - 1).astype(np.float32)


def log_sigmoid(x):
    return -np.logaddexp(0, -np.asarray(x, np.float64))


def preference(chosen, rejected, ref_chosen, ref_rejected, kind, beta, eps, lengths):
    """One pair, in Python's floats."""
    if kind in ("ipo", "sigmoid_norm"):
        chosen, ref_chosen = chosen / lengths[0], ref_chosen / lengths[0]
        rejected, ref_rejected = rejected / lengths[1], ref_rejected / lengths[1]
    h = chosen - ref_chosen - rejected + ref_rejected
    good, bad = -log_sigmoid(beta * h), -log_sigmoid(-beta * h)
    return {
        "sigmoid": (1 - eps) * good + eps * bad,
        "sigmoid_norm": (1 - eps) * good + eps * bad,
        "robust": ((1 - eps) * good - eps * bad) / (1 - 2 * eps),
        "hinge": max(0.0, 1 - beta * h),
        "ipo": (h - 1 / (2 * beta)) ** 2,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "smoothing"),
    [("sigmoid", 0), ("sigmoid", 0.1), ("sigmoid_norm", 0.2), ("robust", 0.1), ("hinge", 0), ("ipo", 0)],
)
def test_dpo_and_its_kin(rng, kind, smoothing):
    logps, lengths = summed(rng), rng.integers(1, 50, size=(2, 32))
    wanted = np.mean(
        [
            preference(*logps[:, n].astype(float), kind, 0.3, smoothing, lengths[:, n].astype(float))
            for n in range(32)
        ]
    )
    more = {"chosen_length": lengths[0], "rejected_length": lengths[1]}
    found = preferences.dpo(*map(jnp.array, logps), beta=0.3, kind=kind, label_smoothing=smoothing, **more)
    np.testing.assert_allclose(found, wanted, rtol=RTOL)


def test_dpo_at_the_reference_is_log_2_and_prefers_the_chosen(rng):
    logps = jnp.array(summed(rng)[:2])
    loss, gradient = jax.value_and_grad(lambda x: preferences.dpo(*x, *logps, beta=0.1))(logps)
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    assert (gradient[0] < 0).all() and (gradient[1] > 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "ipo"}, "divides by length"),
        ({"kind": "hinge", "label_smoothing": 0.1}, "knows no label_smoothing"),
        ({"label_smoothing": 0.5}, "below 0.5"),
        ({"kind": "ppo"}, "no kind 'ppo'; choose of sigmoid, sigmoid_norm, ipo, hinge, robust"),
    ],
)
def test_what_dpo_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        preferences.dpo(*jnp.zeros((4, 2)), **{"beta": 0.1} | wrong)


def test_simpo_and_orpo(rng):
    chosen, rejected = -3 * rng.random((2, 16)).astype(np.float32) - 0.01
    c, r = chosen.astype(float), rejected.astype(float)
    wanted = np.mean(-log_sigmoid(2.0 * (c - r) - 0.5))
    np.testing.assert_allclose(preferences.simpo(chosen, rejected, beta=2.0, gamma=0.5), wanted, rtol=RTOL)
    odds = np.log(np.exp(c) / (1 - np.exp(c))) - np.log(np.exp(r) / (1 - np.exp(r)))
    wanted = np.mean(-c) - 0.1 * np.mean(log_sigmoid(odds))
    np.testing.assert_allclose(preferences.orpo(chosen, rejected, beta=0.1), wanted, rtol=RTOL)
    given = preferences.orpo(chosen, rejected, beta=0.1, nll=jnp.float32(3))
    np.testing.assert_allclose(given, wanted + 3 - np.mean(-c), rtol=RTOL)


def test_kto_holds_both_kinds_against_a_baseline_without_gradient(rng):
    logp, ref, kl_logp, ref_kl = summed(rng)
    desirable = rng.random(32) < 0.5
    for shift in (0.0, 100.0):  # a negative and a positive estimate of the KL
        z = max(0.0, float(np.mean(kl_logp.astype(float) + shift - ref_kl)))
        gain = 0.05 * (logp.astype(float) - ref - z)
        good, bad = 1 - 1 / (1 + np.exp(-gain)), 1 - 1 / (1 + np.exp(gain))
        wanted = np.mean(np.where(desirable, good, bad))

        def loss(logp, kl_logp):
            return preferences.kto(logp, ref, desirable, kl_logp, ref_kl, beta=0.05)

        value, (own, baseline) = jax.value_and_grad(loss, argnums=(0, 1))(logp, kl_logp + shift)
        np.testing.assert_allclose(value, wanted, rtol=RTOL)
        assert (np.sign(own) == np.where(desirable, -1, 1)).all()
        assert (baseline == 0).all()


def drawn(scores, ranks):
    """−log-likelihood of one ranking, the mean over every order of its ties, one draw after another."""
    there = [i for i, rank in enumerate(ranks) if rank > 0]
    ties = [[i for i in there if ranks[i] == rank] for rank in sorted({ranks[i] for i in there})]
    found = []
    for orders in itertools.product(*(itertools.permutations(tie) for tie in ties)):
        left = [i for order in orders for i in order]
        total = 0.0
        while left:
            total += math.log(sum(math.exp(scores[i]) for i in left)) - scores[left.pop(0)]
        found.append(total)
    return sum(found) / len(found)


@pytest.mark.parametrize("answers", [2, 3, 4, 6])
def test_plackett_luce_draws_the_best_first_and_averages_ties(rng, answers):
    scores = (2 * rng.normal(size=(12, answers))).astype(np.float32)
    ranks = rng.integers(0, answers, size=(12, answers))
    ranks[0], ranks[1] = 1, np.arange(1, answers + 1)
    wanted = np.mean(
        [drawn(s, r) for s, r in zip(scores.astype(float).tolist(), ranks.tolist(), strict=True)]
    )
    np.testing.assert_allclose(preferences.plackett_luce(scores, ranks), wanted, rtol=RTOL)


def test_plackett_luce_of_two_is_bradley_terry_and_knows_its_limits(rng):
    scores = rng.normal(size=(8, 2)).astype(np.float32)
    ranks = np.array([[1, 2], [2, 1], [1, 1], [1, 2]] * 2)
    wanted = np.mean(preferences.ranking_loss(scores, ranks))
    np.testing.assert_allclose(preferences.plackett_luce(scores, ranks), wanted, rtol=RTOL)
    ranks[1] = 0
    gradient = jax.grad(preferences.plackett_luce)(jnp.array(scores) * 1e3, ranks)
    assert np.isfinite(gradient).all() and (gradient[1] == 0).all()
    with pytest.raises(ValueError, match="13 answers are too many"):
        preferences.plackett_luce(jnp.zeros((1, 13)), jnp.ones((1, 13), int))


def test_kl_estimators(rng):
    logp, ref = -rng.random((2, 4, 8)).astype(np.float32)
    d = logp.astype(float) - ref
    for kind, wanted in {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}.items():
        np.testing.assert_allclose(losses.kl(logp, ref, kind), wanted, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="no kind 'k4'; choose of k1, k2, k3"):
        losses.kl(logp, ref, "k4")


def test_group_advantages(rng):
    rewards = rng.normal(size=(5, 4)).astype(np.float32)
    r = rewards.astype(float)
    mean = r.mean(axis=1, keepdims=True)
    wanted = {
        "grpo": (r - mean) / (r.std(axis=1, ddof=1, keepdims=True) + 1e-4),
        "dr_grpo": r - mean,
        "rloo": r - (4 * mean - r) / 3,
    }
    for kind, values in wanted.items():
        np.testing.assert_allclose(losses.group_advantage(rewards, kind=kind), values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_groups_that_teach_nothing_have_no_advantage_and_a_missing_reward_is_left_out(kind):
    nan = float("nan")
    rewards = jnp.array([[0.1] * 4, [nan] * 4, [nan, nan, nan, 0.3], [0.7, nan, 0.2, 0.2]])
    found = losses.group_advantage(rewards, kind=kind)
    assert (found[:3] == 0).all() and found[3, 1] == 0
    alone = losses.group_advantage(jnp.array([[0.7, 0.2, 0.2]]), kind=kind)[0]
    np.testing.assert_allclose(found[3, jnp.array([0, 2, 3])], alone, rtol=1e-6)


def test_whole_numbers_and_fractions_are_both_rewards():
    """A reward of 0.7 that is stored in an array of integers is lost; ours are never stored in one."""
    mask, value = jnp.ones((1, 3), int), jnp.zeros((1, 3), int)
    advantage, returns = losses.gae(jnp.array([[0.0, 0.0, 0.7]]), value, mask, gamma=1.0, lam=1.0)
    np.testing.assert_allclose(advantage, [[0.7, 0.7, 0.7]], rtol=1e-6)
    np.testing.assert_allclose(returns, [[0.7, 0.7, 0.7]], rtol=1e-6)
    assert losses.group_advantage(jnp.array([[1, 2, 4]])).dtype == jnp.float32


def group_loss(logp, old, advantage, mask, kind, low, high, ref, beta, longest):
    """Token by token."""
    per_answer, total, tokens = [], 0.0, 0
    for row in range(len(logp)):
        real = np.flatnonzero(mask[row])
        difference = [logp[row, t] - old[row, t] for t in real]
        own = 0.0
        for t, d in zip(real, difference, strict=True):
            a, ratio = advantage[row], math.exp(np.mean(difference) if kind == "gspo" else d)
            if kind == "cispo":
                own += -min(ratio, high) * a * logp[row, t]
            else:
                own += -min(a * ratio, a * min(max(ratio, 1 - low), 1 + high))
            back = ref[row, t] - logp[row, t]
            own += beta * (math.exp(back) - 1 - back)
        per_answer.append(own / len(real))
        total, tokens = total + own, tokens + len(real)
    by = {"bnpo": tokens, "dapo": tokens, "cispo": tokens, "dr_grpo": len(logp) * longest}
    return total / by[kind] if kind in by else float(np.mean(per_answer))


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"])
def test_the_group_family(rng, kind):
    logp, old, ref = (-rng.random((3, 6, 10))).astype(np.float32)
    advantage = rng.normal(size=6).astype(np.float32)
    mask = (np.arange(10) < rng.integers(1, 11, size=(6, 1))).astype(np.float32)
    settings = {"clip_low": 0.2, "clip_high": 1.05 if kind == "cispo" else 0.28, "beta": 0.04}
    wide = [x.astype(float) for x in (logp, old, advantage)]
    wanted = group_loss(*wide, mask, kind, 0.2, settings["clip_high"], ref.astype(float), 0.04, 12)

    def loss(logp, rows=slice(None)):
        arrays = (logp[rows], old[rows], advantage[rows], mask[rows])
        return losses.grpo(*arrays, kind=kind, ref_logp=ref[rows], **settings) / count

    count = {"grpo": 6, "gspo": 6, "dr_grpo": 6 * 12}.get(kind, mask.sum())
    np.testing.assert_allclose(loss(logp), wanted, rtol=RTOL)
    # in parts, over the counts of the whole, it adds up: loss and gradient
    parts = [jax.value_and_grad(loss)(logp, slice(n, n + 1)) for n in range(6)]
    np.testing.assert_allclose(sum(value for value, _ in parts), wanted, rtol=RTOL)
    gradient = jax.grad(loss)(logp)
    np.testing.assert_allclose(sum(g for _, g in parts), gradient, rtol=1e-4, atol=1e-7)
    assert (np.asarray(gradient)[mask == 0] == 0).all()


def test_equal_rewards_give_no_gradient(rng):
    logp, old = (-rng.random((2, 4, 5))).astype(np.float32)
    advantage = losses.group_advantage(jnp.full((1, 4), 0.3))[0]
    for kind in ("grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"):
        gradient = jax.grad(lambda x, kind=kind: losses.grpo(x, old, advantage, jnp.ones((4, 5)), kind=kind))
        assert (np.asarray(gradient(logp)) == 0).all(), kind


def test_dual_clip_bounds_the_loss_of_a_bad_token_that_became_likely():
    old, mask = jnp.zeros((1, 2)), jnp.ones((1, 2))
    logp, advantage = jnp.log(jnp.array([[10.0, 10.0]])), jnp.array([[-2.0, 2.0]])
    plain = losses.ppo_policy(logp, old, advantage, mask, clip=0.2)
    np.testing.assert_allclose(plain, 2 * 10 - 2 * 1.2, rtol=1e-6)
    held = losses.ppo_policy(logp, old, advantage, mask, clip=0.2, dual_clip=3.0)
    np.testing.assert_allclose(held, 2 * 3 - 2 * 1.2, rtol=1e-6)
    gradient = jax.grad(lambda x: losses.ppo_policy(x, old, advantage, mask, clip=0.2, dual_clip=3.0))(logp)
    assert (gradient == 0).all()


def test_truncated_importance_corrects_up_to_its_cap(rng):
    logp, sampler = (-rng.random((2, 3, 7)) * 2).astype(np.float32)
    mask = (rng.random((3, 7)) < 0.7).astype(np.float32)
    wanted = np.where(mask > 0, np.minimum(np.exp(logp.astype(float) - sampler), 1.5), 0)
    np.testing.assert_allclose(
        losses.truncated_importance(logp, sampler, mask, cap=1.5), wanted, rtol=RTOL, atol=1e-7
    )
    gradient = jax.grad(lambda x: losses.truncated_importance(x, sampler, mask).sum())(logp)
    assert (gradient == 0).all()


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_distillation_is_the_generalised_jensen_shannon_divergence(rng, beta):
    student, teacher = (2 * rng.normal(size=(2, 2, 3, 9))).astype(np.float32)
    p, q = (np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) for x in (teacher / 0.7, student / 0.7))
    p, q = p.astype(float), q.astype(float)
    divergence = lambda a, b: (a * np.log(a / b)).sum(axis=-1)  # noqa: E731
    m = beta * p + (1 - beta) * q
    each = {0.0: divergence(p, q), 1.0: divergence(q, p)}.get(
        beta, beta * divergence(p, m) + (1 - beta) * divergence(q, m)
    )
    found = losses.gkd_of_tokens(student, teacher, beta=beta, temperature=0.7)
    np.testing.assert_allclose(found, each, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.gkd_of_tokens(student, student, beta=beta), 0, atol=1e-6)
