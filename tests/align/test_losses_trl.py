"""Our losses and TRL 1.12's on the same arrays (1.13 has no PPO any more). Their trainers' loss methods are
called on a bare object that has only what they read; a model is a function that returns fixed logits.
"""

from collections import defaultdict
from types import SimpleNamespace as Bare

import numpy as np
import pytest

from jaxtrain.align import losses
from jaxtrain.align import preference_losses as preferences

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="torch is not installed: run `make test-peers`")
pytest.importorskip("trl", reason="trl is not installed: run `make test-peers`")

B, T, V = 8, 9, 13
RTOL = 1e-5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def tensor(x):
    return torch.from_numpy(np.asarray(x))


def trainer(**settings):
    """What every trainer's loss method reads beside its own settings."""
    same = lambda x, **_: x  # noqa: E731
    accelerator = Bare(
        device="cpu", gather=same, gather_for_metrics=same, reduce=same, num_processes=1, sync_gradients=True
    )
    common = {
        "model": Bare(training=False),
        "accelerator": accelerator,
        "aux_loss_enabled": False,
        "_metrics": {"eval": defaultdict(list)},
        "_total_train_tokens": 0,
    }
    return Bare(**common | settings)


def answers(rng):
    """Logits of 2·B rows, their tokens, a completion mask, and log-probabilities summed over it, float64."""
    logits = rng.normal(size=(2 * B, T, V)).astype(np.float32)
    tokens = rng.integers(0, V, size=(2 * B, T))
    mask = (np.arange(T) >= 2) & (np.arange(T) < rng.integers(4, T + 1, size=(2 * B, 1)))
    logps = logits.astype(float) - np.log(np.exp(logits.astype(float)).sum(axis=-1, keepdims=True))
    own = np.take_along_axis(logps[:, :-1], tokens[:, 1:, None], axis=-1)[..., 0]
    return logits, tokens, mask.astype(int), (own * mask[:, 1:]).sum(axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "smoothing"),
    [("sigmoid", 0.0), ("hinge", 0.0), ("ipo", 0.0), ("robust", 0.1), ("sigmoid_norm", 0.0)],
)
def test_dpo(rng, kind, smoothing):
    from trl import DPOTrainer

    logits, tokens, mask, logps = answers(rng)
    ref = (logps + rng.normal(size=2 * B)).astype(np.float32)
    theirs = DPOTrainer._compute_loss(
        trainer(
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            loss_types=[kind],
            loss_weights=[1.0],
            beta=0.3,
            label_smoothing=smoothing,
            use_weighting=False,
        ),
        lambda **_: Bare(logits=tensor(logits)),
        {
            "input_ids": tensor(tokens),
            "completion_mask": tensor(mask),
            "ref_chosen_logps": tensor(ref[:B]),
            "ref_rejected_logps": tensor(ref[B:]),
        },
        False,
    )
    lengths = mask.sum(axis=1)
    ours = preferences.dpo(
        *(logps[:B], logps[B:], ref[:B], ref[B:]),
        beta=0.3,
        kind=kind,
        label_smoothing=smoothing,
        chosen_length=lengths[:B],
        rejected_length=lengths[B:],
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=RTOL)


def test_simpo_and_orpo(rng):
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = (-3 * rng.random((2, B)) - 0.01).astype(np.float32)
    simpo = trainer(alpha=0.0, loss_type="simpo", simpo_gamma=0.5, beta=2.0, label_smoothing=0.0)
    theirs = CPOTrainer.cpo_loss(simpo, tensor(chosen), tensor(rejected))[0].mean()
    np.testing.assert_allclose(preferences.simpo(chosen, rejected, beta=2.0, gamma=0.5), theirs, rtol=RTOL)
    ratio = ORPOTrainer.odds_ratio_loss(trainer(beta=0.1), tensor(chosen), tensor(rejected))[0]
    theirs = -chosen.mean() - ratio.mean()
    np.testing.assert_allclose(preferences.orpo(chosen, rejected, beta=0.1), theirs, rtol=RTOL)


def test_kto(rng):
    from trl import KTOTrainer

    logits, tokens, mask, logps = answers(rng)
    label = np.arange(2 * B) % 3 == 0
    ref, kl_logp, ref_kl = (logps + rng.normal(size=(3, 2 * B))).astype(np.float32)
    settings = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    theirs = KTOTrainer._compute_loss(
        trainer(
            _compute_kl_logps=lambda *_: tensor(kl_logp),
            precompute_ref_logps=True,
            calculate_KL=True,
            loss_type="kto",
            **settings,
        ),
        lambda **_: Bare(logits=tensor(logits)),
        {
            "input_ids": tensor(tokens),
            "attention_mask": torch.ones(2 * B, T, dtype=torch.long),
            "completion_mask": tensor(mask),
            "label": tensor(label),
            "ref_logps": tensor(ref),
            "ref_KL_logps": tensor(ref_kl),
        },
        False,
    )
    ours = preferences.kto(logps, ref, label, kl_logp, ref_kl, beta=0.1)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=RTOL)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_gkd(rng, beta):
    from trl.experimental.gkd import GKDTrainer

    student, teacher = rng.normal(size=(2, B, T, V)).astype(np.float32)
    mask = rng.random((B, T)) < 0.6
    labels = np.where(mask, 1, -100)
    given = (tensor(student), tensor(teacher), tensor(labels), beta, 0.7)
    theirs = GKDTrainer.generalized_jsd_loss(*given, num_items_in_batch=int(mask.sum()))
    ours = np.asarray(losses.gkd_of_tokens(student, teacher, beta=beta, temperature=0.7))
    np.testing.assert_allclose(ours[mask].mean(), theirs.numpy(), rtol=RTOL)


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo"])
def test_the_group_family(rng, kind):
    from trl import GRPOTrainer

    logp, old, ref = (-rng.random((3, B, T))).astype(np.float32)
    advantage = rng.normal(size=B).astype(np.float32)
    mask = (np.arange(T) < rng.integers(1, T + 1, size=(B, 1))).astype(np.float32)
    high = 1.1 if kind == "cispo" else 0.28
    theirs = GRPOTrainer._compute_loss(
        trainer(
            _get_per_token_logps_and_entropies=lambda *_, **__: (tensor(logp), torch.zeros(B, T), None),
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level="sequence" if kind == "gspo" else "token",
            beta=0.04,
            epsilon_low=0.2,
            epsilon_high=high,
            loss_type="grpo" if kind == "gspo" else kind,
            use_vllm=False,
            vllm_importance_sampling_correction=False,
            max_completion_length=12,
            _entropy_bonus_enabled=False,
            args=Bare(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        ),
        None,
        {
            "prompt_ids": torch.zeros(B, 0, dtype=torch.long),
            "prompt_mask": torch.zeros(B, 0, dtype=torch.long),
            "completion_ids": torch.zeros(B, T, dtype=torch.long),
            "completion_mask": tensor(mask),
            "advantages": tensor(advantage),
            "old_per_token_logps": tensor(old),
            "ref_per_token_logps": tensor(ref),
            "num_items_in_batch": tensor(mask).sum(),
        },
    )
    ours = losses.grpo(
        *(logp, old, advantage, mask),
        kind=kind,
        clip_low=0.2,
        clip_high=high,
        ref_logp=ref,
        beta=0.04,
    )
    count = {"grpo": B, "gspo": B, "dr_grpo": B * 12}.get(kind, mask.sum())
    np.testing.assert_allclose(ours / count, theirs.numpy(), rtol=RTOL)


def test_whitening(rng):
    from trl.experimental.ppo.ppo_trainer import masked_whiten

    x, mask = rng.normal(3, 2, size=(B, T)).astype(np.float32), rng.random((B, T)) < 0.6
    theirs = masked_whiten(tensor(x), tensor(mask.astype(np.float32))).numpy()
    np.testing.assert_allclose(np.asarray(losses.whiten(x, mask))[mask], theirs[mask], rtol=1e-4, atol=1e-6)


def test_the_reward_models_loss(rng):
    """As `RewardTrainer.compute_loss` computes it of the scores: with a margin and centring."""
    (chosen, rejected), margin = rng.normal(size=(2, B)).astype(np.float32), 0.7
    c, r = tensor(chosen), tensor(rejected)
    theirs = -torch.nn.functional.logsigmoid(c - r - margin).mean() + 0.01 * ((c + r) ** 2).mean()
    scores, ranks = np.stack([chosen, rejected], axis=1), np.tile([1, 2], (B, 1))
    ours = preferences.ranking_loss(scores, ranks, margin=margin, center=0.01)
    np.testing.assert_allclose(ours.mean(), theirs.numpy(), rtol=RTOL)
