"""What the monitor says of runs that went well, and of each way in which a run goes wrong."""

import dataclasses

import numpy as np
import pytest

from jaxtrain.align.monitor import Monitor, MonitorConfig, distinct, paid_for

HEALTHY = {"reward": 0.0, "kl": 1.0, "length": 20.0, "entropy": 3.0, "distinct_2": 0.5, "utility": 0.0}
HEALTHY |= {
    "paid_grade": 0.9,
    "paid_length": 0.0,
    "mismatch": 0.001,
    "cut": 0.1,
    "tool_calls": 2.0,
    "tool_failures": 0.1,
}


def run(rounds: int = 20, **last: float) -> list[dict]:
    """Lines that go in a straight line from HEALTHY to the numbers given."""
    shares = np.linspace(0, 1, rounds)
    return [
        {"round": n + 1} | {k: v + share * (last.get(k, v) - v) for k, v in HEALTHY.items()}
        for n, share in enumerate(shares)
    ]


def rules(monitor: Monitor, lines: list[dict]) -> list[str]:
    """Every rule that is raised in the course of a run, in order."""
    return [flag.rule for n in range(1, len(lines) + 1) for flag in monitor.look(lines[:n])]


def test_a_run_whose_reward_and_utility_rise_raises_nothing():
    assert rules(Monitor(utility_sd=1.0), run(reward=3.0, utility=2.0, kl=8.0, entropy=1.5)) == []


@pytest.mark.parametrize(
    ("rule", "last"),
    [
        ("kl", {"kl": 40.0}),
        ("length", {"length": 60.0}),
        ("length", {"length": 2.0}),
        ("entropy", {"entropy": 0.1}),
        ("hack", {"paid_grade": -0.2, "paid_length": 0.9}),
        ("mismatch", {"mismatch": 0.2}),
        ("cut", {"cut": 0.9}),
        ("tools", {"tool_failures": 1.9}),
        ("distinct", {"distinct_2": 0.05}),
    ],
)
def test_each_rule_is_told_once(rule, last):
    assert rules(Monitor(), run(**last)) == [rule]
    names = [one.name for one in dataclasses.fields(MonitorConfig) if one.name != "stop_at"]
    off = MonitorConfig(**dict.fromkeys(names, 0))
    assert rules(Monitor(off), run(**last)) == []


def test_a_reward_that_rises_while_the_utility_falls_is_gamed():
    there = run(10, reward=2.0, utility=2.0)
    back = [line | {"reward": 2.0 + 0.2 * n, "utility": 2.0 - 0.2 * n} for n, line in enumerate(there, 1)]
    lines = there + back
    (flag,) = [flag for n in range(1, 21) for flag in Monitor(utility_sd=1.0).look(lines[:n])]
    assert flag.rule == "utility"
    assert flag.value > flag.limit
    # what fell by half an SD of one kind of answers is a twentieth of another's
    assert rules(Monitor(utility_sd=10.0), lines) == []
    assert rules(Monitor(utility_sd=None), lines) == [], "nothing is said of what is not known"


def test_a_utility_that_falls_together_with_the_reward_is_not_gaming():
    assert rules(Monitor(utility_sd=1.0), run(reward=-3.0, utility=-3.0)) == []


def test_a_number_that_is_missing_breaks_no_rule():
    lines = [{name: value for name, value in line.items() if name != "kl"} for line in run(kl=99)]
    assert rules(Monitor(), lines) == []


def test_rounds_that_lack_a_number_do_not_hide_those_that_have_it():
    """A reward that is gamed ends in answers that are all alike, of which there is no correlation."""
    lines = run(**{"paid_grade": -0.9})
    for line in lines[4:]:
        if line["round"] % 3:
            del line["paid_grade"]
    assert rules(Monitor(), lines) == ["hack"]


def test_distinct_is_the_share_of_different_runs():
    assert distinct([[1, 2, 1, 2], [1, 2]], 1) == pytest.approx(2 / 6)
    assert distinct([[1, 2, 1, 2], [1, 2]], 2) == pytest.approx(2 / 4)
    assert distinct([[1], []], 2) == 0.0


def test_what_a_reward_pays_for_is_told_within_the_answers_to_one_item():
    """Long answers are right more often here, for items differ; the reward pays for length alone."""
    rng = np.random.default_rng(0)
    easy = rng.random(50).repeat(8)
    length = 100 * easy + rng.normal(size=400)
    grade = (rng.random(400) < easy).astype(float)
    found = paid_for(length.tolist(), {"grade": grade.tolist(), "length": length.tolist()}, group=8)
    assert np.corrcoef(length, grade)[0, 1] > 0.4
    assert abs(found["paid_grade"]) < 0.15 and found["paid_length"] == pytest.approx(1)
    assert paid_for([1.0] * 8, {"grade": [0.0] * 8}, group=8) == {}, "nothing differs"
