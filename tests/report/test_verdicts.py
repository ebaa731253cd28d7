"""A verdict says what its numbers allow, and no more."""

from typing import Any

import pytest

from jaxtrain.report.verdicts import verdicts


def gain(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"gain_over_length": {"mean": mean, "low": low, "high": high}, "pairs_heldout": 72}


def scored(**values: float) -> list[dict[str, Any]]:
    return [
        {"model": model, "task": "piqa", "value": value, "standard_error": 0.03, "chance": 0.5}
        for model, value in values.items()
    ]


def core(value: float, **whole: Any) -> list[dict[str, Any]]:
    part = {"model": "m", "name": "CORE of 2 of 22 tasks", "absent": ["squad"], "value": value}
    return [part | {"standard_error": 0.01} | whole]


def leaning(low: float, high: float) -> dict[str, Any]:
    row = {"model": "m", "measure": "pairs", "group": "all", "fair": 0.5, "items": 90}
    return row | {"value": (low + high) / 2, "low": low, "high": high}


def spent(pretrain: float, ppo: float) -> dict[str, Any]:
    return {"stages": {"pretrain": {"seconds": pretrain}, "ppo": {"seconds": ppo}}, "seconds": pretrain + ppo}


LABELS = {"heldout_documents": 100, "commonest_label": 0.75}
PPO = {"reward_before": 0.0, "reward_after": 1.5, "measured": 200}
PAIRS = {"pairs_heldout": 400, "heldout_margin": 0.31}
TEXTS = [
    {"model": "m", "text": text, "count": count, "rate": low + 0.1, "low": low, "high": low + 0.2}
    for text, count, low in (("held-out", None, 0.0), ("planted", 0, 0.0), ("planted", 64, 0.5))
]
XZ = {"source": "all", "model": "m", "xz_bits_per_byte": 2.5}


@pytest.mark.parametrize(
    ("part", "found", "holds", "words"),
    [
        ("reward", {"reward": gain(0.1, 0.04, 0.16)}, True, "better than their length does (+10.0 points"),
        # the interval of 4 points' gain is ±10 with 72 pairs, so ±4 with (10 / 4)² times as many
        ("reward", {"reward": gain(0.04, -0.06, 0.14)}, False, "450 held-out pairs in place of 72"),
        ("reward", {"reward": gain(-0.12, -0.3, 0.08)}, False, "does not provably order"),
        (
            "reward",
            {"reward": gain(0.1, 0.04, 0.16) | {"human_accuracy": 0.52, "human_standard_error": 0.02}},
            False,
            "On comparisons of people it is at chance.",
        ),
        ("ppo", {"ppo": PPO | {"utility_gain_sd": 1.1}}, True, "rose by 1.50 SD, the true utility"),
        ("ppo", {"ppo": PPO | {"utility_gain_sd": -0.4}}, False, "The reward is gamed"),
        ("ppo", {"ppo": PPO | {"utility_gain_sd": 0.15}}, False, "The reward is gamed"),  # 2 SE are 0.2
        ("ppo", {"ppo": PPO}, True, "whether people like the answers better is not known"),
        ("ppo", {"ppo": PPO | {"reward_after": -0.1}}, False, "did not rise"),
        ("ppo", {"ppo": PPO, "reward": gain(0.0, -0.1, 0.1)}, False, "Its reward model is not provably"),
        ("preference", {"trained": {"preference": PAIRS | {"heldout_accuracy": 0.6}}}, True, "by 0.31 nats"),
        ("preference", {"trained": {"preference": PAIRS | {"heldout_accuracy": 0.54}}}, False, "be chance"),
        (
            "grpo",
            {"trained": {"grpo": {"sum_before": 0.2, "sum_after": 0.1}}},
            False,
            "sum went from 0.2 to 0.1",
        ),
        (
            "distill",
            {"trained": {"distill": {"divergence_before": 2, "divergence_after": 1}}},
            True,
            "2 to 1",
        ),
        ("benchmarks", {"benchmarks": scored(a=0.5, b=0.55)}, False, "b is at chance in every task"),
        ("benchmarks", {"benchmarks": scored(a=0.5, b=0.6)}, True, "In piqa it is better than a, by 10.0 %."),
        ("benchmarks", {"benchmarks": scored(a=0.75, b=0.6)}, False, "worse than a"),
        ("core", {"core": core(0.2, name="CORE", absent=[])}, True, "0.200, 95 % interval 0.180 to 0.220"),
        ("core", {"core": core(0.01, name="CORE", absent=[])}, False, "m is not provably better than guess"),
        ("core", {"core": core(0.2)}, False, "CORE of 2 of 22 tasks, without squad, is a part of CORE"),
        (
            "pretrain",
            {"pretrain": {"steps": 9}, "heldout": [XZ | {"bits_per_byte": 2.6}]},
            False,
            "no better",
        ),
        ("finetune", {"finetune": {"heldout_losses": [3.0, 2.5, 2.7]}}, False, "rose again, from 2.500"),
        ("finetune", {"finetune": {"heldout_losses": [3.0, 2.5]}}, True, "fell from 3.000 to 2.500"),
        ("rate", {"rate": {"agreement": {"krippendorff_alpha": 0.5}}}, False, "less than the 0.667"),
        ("rate", {"rate": {"agreement": {"pairs": 0}}}, False, "is not known"),
        ("classify", {"trained": {"classify": LABELS | {"heldout_accuracy": 0.9}}}, True, "90.0 ± 3.0 %"),
        ("classify", {"trained": {"classify": LABELS | {"heldout_accuracy": 0.8}}}, False, "no better"),
        ("bias", {"bias": [leaning(0.45, 0.6), leaning(0.48, 0.7)]}, True, "all 2 measures"),
        (
            "bias",
            {"bias": [leaning(0.55, 0.6), leaning(0.6, 0.7)]},
            False,
            "by 2 of 2 measures, most by pairs, all: 65.0 %",
        ),
        ("cost", {"cost": spent(30.0, 90.0)}, True, "ppo took 75.0 % of 2 min 00 s."),
        ("extraction", {"extraction": TEXTS}, False, "60.0 % of planted texts with 64 copies"),
        ("extraction", {"extraction": TEXTS[:2]}, True, "never saw"),
    ],
)
def test_what_is_said_of_numbers(part: str, found: dict[str, Any], holds: bool, words: str):
    verdict = verdicts({"refused": {}, "flags": {}, **found})[part]
    assert words in verdict["text"]
    assert holds == (not verdict["doubts"]) and (holds or words in verdict["doubts"])


def test_few_refused_steps_are_an_accident_and_many_are_not():
    refused = [{"step": step, "why": "loss 9, limit 7" * (step == 3)} for step in (3, 5, 8, 9, 11)]
    results = {"flags": {}, "finetune": {"heldout_losses": [3.0, 2.5]}}
    few = verdicts(results | {"refused": {"finetune": refused[:2]}})["finetune"]
    many = verdicts(results | {"refused": {"finetune": refused}})["finetune"]
    assert not few["doubts"] and "refused step 3 (loss 9, limit 7), step 5: the weights stayed" in few["text"]
    assert "step 8 and 2 more" in many["doubts"] and "fell from" not in many["doubts"]
