"""Is the reward still worth having? What a run that optimises a proxy shows before it is ruined.

A reward model is right near the answers that it was trained on (Gao et al. 2023, "Scaling laws for reward
model overoptimization"). Each round's means are held against those of the first rounds, three at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

Line = dict[str, Any]
Rule = Literal["kl", "length", "entropy", "distinct", "utility", "hack", "mismatch", "cut", "tools"]
SMOOTH = 3
"""Rounds that are averaged before they are compared."""


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """When a run is flagged, and when it ends for that. Flags are lines of metrics.jsonl."""

    most_kl: float = 15.0
    """Nats a sequence of KL to the reference; 0: any."""
    length_factor: float = 2.0
    """Mean length of answers, as a factor of the first rounds' either way; 0: any."""
    least_entropy: float = 0.2
    """Mean −log p of sampled tokens, as a share of the first rounds'; 0: any."""
    least_distinct: float = 0.5
    """Share of pairs of tokens that are different ones, as a share of the first rounds'; 0: any."""
    utility_drop: float = 0.5
    """Fall of the true utility below its best so far, in SD of the first answers, while the reward is above
    what it was then; where the true utility is known. 0: any."""
    least_paid_grade: float = 0.2
    """Correlation, within the answers to an item, of the reward with the grade that is wanted: below it the
    reward pays for something else (`paid_for`). 0: any."""
    most_mismatch: float = 0.05
    """Nats a token of KL from the sampler to the trainer; 0: any."""
    most_cut: float = 0.5
    """Share of the answers that were cut short; 0: any."""
    most_tool_failures: float = 0.5
    """Share of the calls of tools that failed; 0: any."""
    stop_at: tuple[Rule, ...] = ()
    """Rules at which the run ends with a checkpoint; others are only told."""


@dataclass(frozen=True)
class Flag:
    rule: Rule
    value: float
    limit: float
    meaning: str
    """One sentence."""


@dataclass(frozen=True)
class Monitor:
    """A config, and what it needs of the run."""

    config: MonitorConfig = MonitorConfig()
    utility_sd: float | None = None
    """Standard deviation of the true utility of the first policy's answers; None: it is not known."""

    def look(self, lines: Sequence[Line]) -> list[Flag]:
        """The flags that the newest line raises and the one before did not."""
        before = {flag.rule for flag in self._raised(lines[:-1])}
        return [flag for flag in self._raised(lines) if flag.rule not in before]

    def _raised(self, lines: Sequence[Line]) -> list[Flag]:
        if len(lines) < 2 * SMOOTH:
            return []
        config, found = self.config, []
        last = partial(_mean, lines[-SMOOTH:])
        failures = last("tool_failures") / max(1e-9, last("tool_calls"))
        for rule, value, limit, what in (
            ("kl", last("kl"), config.most_kl, "nats of KL to the reference"),
            ("mismatch", last("mismatch"), config.most_mismatch, "nats a token from sampler to trainer"),
            ("cut", last("cut"), config.most_cut, "of the answers are cut short"),
            ("tools", failures, config.most_tool_failures, "of the calls of tools fail"),
        ):
            if limit and value > limit:
                found.append(Flag(rule, value, limit, f"{value:.2g} {what}, over {limit:g}"))
        length = _ratio(lines, "length")
        if config.length_factor and not 1 / config.length_factor <= length <= config.length_factor:
            words = f"answers are {length:.2f} times as long as at first"
            found.append(Flag("length", length, config.length_factor, words))
        for rule, name, limit, what in (
            ("entropy", "entropy", config.least_entropy, "the entropy of the answers"),
            ("distinct", "distinct_2", config.least_distinct, "the variety of the answers"),
        ):
            share = _ratio(lines, name)
            if share < limit:
                found.append(Flag(rule, share, limit, f"{what} is {share:.0%} of what it was at first"))
        grade, length = last("paid_grade"), last("paid_length")
        if config.least_paid_grade and grade < config.least_paid_grade:
            words = f"the reward is gamed: within a group it goes with the grade by {grade:.2f}"
            words += f" and with the length by {length:.2f} (correlations)"
            found.append(Flag("hack", grade, config.least_paid_grade, words))
        return found + self._overoptimised(lines)

    def _overoptimised(self, lines: Sequence[Line]) -> list[Flag]:
        """Goodhart's law: the proxy has risen since the true utility was at its best, and that has fallen."""
        if not self.utility_sd or not self.config.utility_drop or "utility" not in lines[-1]:
            return []
        windows = [lines[at : at + SMOOTH] for at in range(len(lines) - SMOOTH + 1)]
        best = max(windows, key=lambda window: _mean(window, "utility"))
        drop = (_mean(best, "utility") - _mean(windows[-1], "utility")) / self.utility_sd
        gain = _mean(windows[-1], "reward") - _mean(best, "reward")
        if drop <= self.config.utility_drop or gain <= 0:
            return []
        words = (
            f"the reward is gamed: since round {best[-1]['round']} it rose by {gain:.2f} "
            f"while the true utility fell by {drop:.2f} SD"
        )
        return [Flag("utility", drop, self.config.utility_drop, words)]


def paid_for(rewards: Sequence[float], of: Mapping[str, Sequence[float]], group: int) -> Line:
    """`paid_…`: how what is rewarded goes with each of some numbers, among the answers to one item.

    A correlation of differences from the group's mean, -1 to 1, over all groups; absent where none differ.
    """

    def within(values: Sequence[float]) -> np.ndarray:
        values_BG = np.reshape(np.asarray(values, np.float64), (-1, group))
        return (values_BG - values_BG.mean(axis=1, keepdims=True)).ravel()

    reward_N, found = within(rewards), {}
    for name, values in of.items():
        value_N = within(values)
        norm = float(np.linalg.norm(reward_N) * np.linalg.norm(value_N))
        if norm > 1e-9:
            found[f"paid_{name}"] = float(reward_N @ value_N) / norm
    return found


def distinct(answers: Sequence[Sequence[int]], n: int) -> float:
    """Share of different runs of n tokens among all of them, of all answers together (Li et al. 2016)."""
    runs = [tuple(ids[at : at + n]) for ids in answers for at in range(len(ids) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0


def variety(answers: Sequence[Sequence[int]]) -> Line:
    """`distinct_1` and `distinct_2`."""
    return {f"distinct_{n}": distinct(answers, n) for n in (1, 2)}


def _mean(lines: Sequence[Line], name: str) -> float:
    """Of the lines that have the number; NaN, which breaks no rule, where none has."""
    values = [line[name] for line in lines if line.get(name) is not None]
    return float(np.mean(values)) if values else float("nan")


def _ratio(lines: Sequence[Line], name: str) -> float:
    """Of the last rounds to the first."""
    first = _mean(lines[:SMOOTH], name)
    return _mean(lines[-SMOOTH:], name) / first if first else float("nan")
