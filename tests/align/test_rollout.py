"""Rollouts: what is learned from, where the reward lands, whose log-probabilities the old ones are."""

import random
from functools import partial

import jax
import numpy as np
import pytest
from rolled import dialogues_of

from jaxtrain.align import ppo, rollout
from jaxtrain.align.comparisons import answer_rows
from jaxtrain.align.heads import Policy, RewardModel
from jaxtrain.align.ppo import PPOConfig
from jaxtrain.align.reward_model import score
from jaxtrain.decode.dialogues import Dialogue
from jaxtrain.decode.generate import generate, padded, row_keys
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig

PAD, STOP, PROMPT, NEW = 0, 5, 6, 10
WIDTH = PROMPT + NEW + 1
LENGTHS = [1, 2, 3, 4, 5, 6, 6, 3] * 4


@pytest.fixture
def prompts() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(6, 64, length).tolist() for length in LENGTHS]


@pytest.fixture
def roll(small, placed, prompts):
    """`roll(kl_weight)`: answers, rows and experience on the mesh that is set; another model as reference."""

    def work(kl_weight: float, own_reference: bool = False, pad: int = PAD, width=WIDTH, **paid):
        policy = placed(partial(Policy, small))
        reference = policy.transformer if own_reference else placed(partial(_other, small))
        tokens, segments = padded(prompts, PROMPT, pad)
        on = meshes.put_batch({"tokens": tokens, "segments": segments}, jax.sharding.get_mesh())
        keys = row_keys(jax.random.key(1), np.arange(len(prompts)))
        answers = generate(
            policy.transformer, on["tokens"], on["segments"], keys,
            max_new=NEW, temperature=1.0, stop=STOP, pad=pad,
        )  # fmt: skip
        rows = rollout.rows(dialogues_of(prompts, answers), PROMPT, width, STOP)
        scores = score(placed(partial(RewardModel, small)), rows)
        worth = rollout.with_reward(rows, (scores - 0.25) / 2.0)
        config = PPOConfig(**dict.fromkeys(("model", "reward", "conversations", "out"), ""), **paid)
        batch, means = ppo.experience(config, policy, reference, worth, kl_weight, most=16)
        # how many are equal to the last bit is a matter of the program
        assert 0 <= means.pop("mismatch_none") <= 1
        return answers, batch, means

    return work


def _other(config, key):
    return Transformer(config, jax.random.fold_in(key, 1))


def sampled(answers) -> list[list[int]]:
    """Each answer up to its stop token, from the sampler's tokens alone."""
    return [
        row[: row.index(STOP) + 1] if STOP in row else row for row in np.asarray(answers.tokens_BN).tolist()
    ]


def test_what_is_learned_is_what_was_sampled_and_the_reward_lands_on_the_last_of_it(
    roll, prompts, small, placed, eight
):
    answers, batch, measures = roll(kl_weight=0.0)
    texts = sampled(answers)
    ended = [ids[-1] == STOP for ids in texts]
    assert any(ended), "some stop"
    assert not all(ended), "and some run out of room"
    batch = jax.tree.map(np.asarray, batch)

    # the mask: exactly the targets that were sampled, the stop token among them
    for row, ids in enumerate(texts):
        columns = np.flatnonzero(batch["mask"][row])
        assert columns.tolist() == list(range(PROMPT - 1, PROMPT - 1 + len(ids)))
        assert batch["targets"][row, columns].tolist() == ids
        assert np.flatnonzero(batch["rewarded"][row]).tolist() == [columns[-1]]
        scored = np.flatnonzero(batch["last"][row])
        assert scored.tolist() == [PROMPT - 1 + len(ids) + (ids[-1] != STOP)]
        assert batch["tokens"][row, scored] == STOP

    # the same log-probabilities as while sampling, computed another way
    logprobs = np.asarray(answers.logprobs_BN)[np.asarray(answers.mask_BN) > 0]
    np.testing.assert_allclose(batch["old_logprobs"][batch["mask"] > 0], logprobs, atol=1e-4)

    # the score: that of prompt and answer in a row by themselves, padded on the other side
    whole = [p + a + [STOP] * (a[-1] != STOP) for p, a in zip(prompts, texts, strict=True)]
    rows = answer_rows(whole, PROMPT + NEW + 1, PAD)
    scores = (score(placed(partial(RewardModel, small)), rows, batch_size=32) - 0.25) / 2.0
    assert measures["reward"] == pytest.approx(scores.mean(), abs=1e-4)
    assert measures["length"] == pytest.approx(np.mean([len(ids) for ids in texts]))

    # values are zero at first, so a return is the reward to come, shrunk by GAE's 0.95 a token
    for row, ids in enumerate(texts):
        wanted = scores[row] * 0.95 ** np.arange(len(ids))[::-1]
        found = batch["returns"][row, batch["mask"][row] > 0]
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert (batch["returns"][batch["mask"] == 0] == 0).all()

    advantages = batch["advantages"][batch["mask"] > 0].astype(np.float64)
    assert advantages.mean() == pytest.approx(0, abs=1e-5)
    assert advantages.std(ddof=1) == pytest.approx(1, abs=1e-4)


def test_a_policy_has_no_divergence_from_itself(roll, eight):
    _, _, measures = roll(kl_weight=0.1, own_reference=True)
    assert measures["kl"] == 0.0


def test_every_token_pays_for_its_log_ratio(roll, small, placed, prompts, eight):
    """Against float64 on whole logits, without padding before the prompt."""
    weight = 0.3
    answers, batch, measures = roll(kl_weight=weight)
    free = roll(kl_weight=0.0)[1]
    models = placed(partial(Policy, small)).transformer, placed(partial(_other, small))
    batch, free = (jax.tree.map(np.asarray, x) for x in (batch, free))
    texts = sampled(answers)
    whole = [(p + a + [PAD] * 20)[: PROMPT + NEW] for p, a in zip(prompts, texts, strict=True)]
    policy, reference = (_logprobs(model, whole) for model in models)
    ratios = []
    for row, ids in enumerate(texts):
        first = len(prompts[row]) - 1
        ratios.append((policy - reference)[row, first : first + len(ids)])
        paid = np.zeros(len(ids) + 1)
        for at in range(len(ids) - 1, -1, -1):
            paid[at] = -weight * ratios[-1][at] + 0.95 * paid[at + 1]
        mask = batch["mask"][row] > 0
        np.testing.assert_allclose((batch["returns"] - free["returns"])[row, mask], paid[:-1], atol=1e-3)
    assert measures["kl"] == pytest.approx(np.mean([ratio.sum() for ratio in ratios]), abs=1e-3)
    assert measures["kl"] > 0.5, "the models differ"


def _logprobs(model: Transformer, ids: list[list[int]]) -> np.ndarray:
    """log p of each id but a row's first, float64."""
    rows = meshes.put_batch({"ids": np.array(ids, np.int32)}, jax.sharding.get_mesh())["ids"]
    logits = np.asarray(jax.jit(lambda model, ids: model(ids))(model, rows), np.float64)[:, :-1]
    logits -= logits.max(axis=-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return np.take_along_axis(logprobs, np.array(ids)[:, 1:, None], axis=-1)[..., 0]


def test_experience_is_the_same_with_tensor_parallelism(roll, on_meshes):
    first, other = on_meshes(
        lambda: roll(kl_weight=0.1)[1:], (MeshConfig(fsdp=8), MeshConfig(fsdp=4, tensor=2))
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), other, first)


def test_the_end_is_learned_where_padding_is_the_same_token(roll, one):
    """What counts is what was sampled, never what an id looks like."""
    answers, batch, _ = roll(kl_weight=0.0, own_reference=True, pad=STOP)
    usual_answers, usual, _ = roll(kl_weight=0.0, own_reference=True)
    assert sampled(answers) == sampled(usual_answers)
    batch, usual = (jax.tree.map(np.asarray, x) for x in (batch, usual))
    ended = [ids[-1] == STOP for ids in sampled(answers)]
    assert 0 < sum(ended) < len(ended)
    learned = [row[mask > 0][-1] == STOP for row, mask in zip(batch["targets"], batch["mask"], strict=True)]
    assert learned == ended
    for name in ("mask", "last", "rewarded", "cut", "segment_ids"):
        np.testing.assert_array_equal(batch[name], usual[name])
    np.testing.assert_allclose(batch["returns"], usual["returns"], atol=1e-5)
    assert (batch["cut"].sum(axis=1) == ~np.array(ended)).all()


def test_pay_is_as_the_config_says(roll, one):
    """Returns of values of 0, undiscounted: what is still to come of score, KL (k3) and the penalty."""
    answers, batch, _ = roll(kl_weight=0.2, kl_kind="k3", cut_penalty=0.7, lam=1.0)
    _, free, _ = roll(kl_weight=0.0, lam=1.0)
    _, linear, _ = roll(kl_weight=0.2, lam=1.0)
    batch, free, linear = (jax.tree.map(np.asarray, x) for x in (batch, free, linear))
    for row, ids in enumerate(sampled(answers)):
        at = batch["mask"][row] > 0
        toll = np.append(free["returns"][row, at] - linear["returns"][row, at], 0)
        ratio = -np.diff(toll) / 0.2  # of each token, from what k1 took
        k3 = np.exp(-ratio) - 1 + ratio
        to_come = 0.2 * np.cumsum(k3[::-1])[::-1] + 0.7 * (ids[-1] != STOP)
        np.testing.assert_allclose(batch["returns"][row, at], free["returns"][row, at] - to_come, atol=2e-3)


def test_rows_rounded_up_for_a_kernel_teach_the_same(roll, one):
    """What is behind the end is of no document, and nothing is learned from it."""
    _, usual, means = roll(kl_weight=0.1)
    _, wide, same = roll(kl_weight=0.1, width=32)
    for name in ("mask", "last", "rewarded", "cut", "segment_ids"):
        np.testing.assert_array_equal(wide[name][:, :WIDTH], usual[name])
        assert not wide[name][:, WIDTH:].any(), name
    learned = usual["mask"] > 0
    for name, values in usual.items():
        found = wide[name][:, :WIDTH]
        np.testing.assert_allclose(found[learned], values[learned], atol=1e-5, err_msg=name)
    assert same == pytest.approx(means, abs=1e-5)


def test_rows_of_random_dialogues_hold_what_was_sampled_and_nothing_else_is_learned():
    rng = random.Random(0)
    for _ in range(300):
        longest, room = rng.randint(3, 10), rng.randint(20, 30)
        one = Dialogue([9] * rng.randint(1, longest), opening=0)
        one.opening = len(one.ids)
        while one.opening == len(one.ids) or (rng.random() < 0.6 and len(one.ids) + 6 <= room):
            if one.mask:
                one.add([3, 4], 0)
            answer = [rng.randint(6, 60) for _ in range(rng.randint(0, 3))] + [rng.choice([STOP, 7])]
            one.add(answer, 1, [-1.0] * len(answer))
        rows = {name: values[0] for name, values in rollout.rows([one], longest, room + 1, STOP).items()}
        real, learned = rows["segment_ids"] > 0, rows["mask"] > 0
        assert rows["tokens"][real].tolist() == one.ids + [STOP] * (one.ids[-1] != STOP)
        assert rows["positions"][real].tolist() == list(range(real.sum()))
        sampled = [token for token, told in zip(one.ids[one.opening :], one.mask, strict=True) if told]
        assert rows["targets"][learned].tolist() == sampled
        assert (rows["sampler_logprobs"] == -1.0 * learned).all()
        assert np.flatnonzero(rows["rewarded"]).tolist() == [np.flatnonzero(learned)[-1]]
        assert rows["cut"].sum() == (one.ids[-1] != STOP)
