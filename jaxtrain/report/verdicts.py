"""What the numbers of a section show, and what they do not: sentences, and whether each is as one hopes.

A difference counts where it is more than two standard errors, or where a 95 % interval leaves it out.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jaxtrain.report.gather import Results, duration, share

Sentences = Iterator[tuple[str, bool]]
NAMED = 3
"""Refused steps that are told one by one; more of them are no accident."""
RELIABLE = 0.667
"""Least of Krippendorff's alpha for tentative conclusions (Krippendorff 2004)."""


def verdicts(results: Results) -> dict[str, dict[str, str]]:
    """By part of the results: `text`, and of that the `doubts`, to be read before one relies on the part."""
    found = {}
    for part, judge in JUDGES.items():
        about = results.get(part) or results.get("trained", {}).get(part)
        if about and (said := [*judge(results, about), *_watched(results, part)]):
            doubts = " ".join(text for text, holds in said if not holds)
            found[part] = {"text": " ".join(text for text, _ in said), "doubts": doubts}
    return found


def _watched(results: Results, part: str) -> Sentences:
    """What the guard refused and the monitor flagged."""
    if refused := results["refused"].get(part):
        told = [f"step {one['step']}" + (one["why"] and f" ({one['why']})") for one in refused[:NAMED]]
        more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        yield f"The guard refused {', '.join(told)}{more}: the weights stayed as they were.", not more
    for flag in results["flags"].get(part, ()):
        yield f"The monitor flagged round {flag['step']}: {flag['meaning']}.", False


def _classified(results: Results, of: Results) -> Sentences:
    right, documents, guess = of["heldout_accuracy"], of["heldout_documents"], of["commonest_label"]
    error = (right * (1 - right) / max(1, documents)) ** 0.5
    how = "" if (is_above := right - 2 * error > guess) else ", which is no better"
    text = f"It labels {share(right, error)} of {documents:,} held-out documents rightly"
    yield f"{text}; the commonest label for all of them, {share(guess)}{how}.", is_above


def _pretrained(results: Results, pretrain: Results) -> Sentences:
    for row in [row for row in results.get("heldout", ()) if row["source"] == "all"][:1]:
        bits, xz = row["bits_per_byte"], row["xz_bits_per_byte"]
        how = "better" if bits < xz else "no better"
        yield f"It predicts held-out text {how} than xz: {bits:.3f} beside {xz:.3f} bits a byte.", bits < xz


def _finetuned(results: Results, finetune: Results) -> Sentences:
    losses = finetune["heldout_losses"]
    if losses and losses[-1] > min(losses):
        yield f"The held-out loss rose again, from {min(losses):.3f} to {losses[-1]:.3f} nats a token.", False
    elif len(losses) > 1:
        yield f"The held-out loss fell from {losses[0]:.3f} to {losses[-1]:.3f} nats a token.", True


def _rated(results: Results, rate: Results) -> Sentences:
    alpha = rate["agreement"].get("krippendorff_alpha")
    if alpha is None:
        yield "No answers were judged by two raters: whether raters agree is not known.", False
    else:
        how = "at least" if alpha >= RELIABLE else "less than"
        text = f"Krippendorff's alpha is {alpha:.2f}, {how} the {RELIABLE} that tentative conclusions need."
        yield text, alpha >= RELIABLE


def _rewarded(results: Results, reward: Results) -> Sentences:
    if gain := reward.get("gain_over_length"):
        mean, low, high = (100 * gain[name] for name in ("mean", "low", "high"))
        how, heldout = "orders" if low > 0 else "does not provably order", reward["pairs_heldout"]
        interval = f"{mean:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
        yield f"It {how} answers better than their length does ({interval}).", low > 0
        if low <= 0 < mean:  # an interval narrows with the root of the pairs
            enough = round(heldout * max(1.0, ((high - low) / 2 / mean) ** 2))
            yield f"{enough:,} held-out pairs in place of {heldout:,} would show such a gain.", False
    if "human_accuracy" in reward and reward["human_accuracy"] - 2 * reward["human_standard_error"] <= 0.5:
        yield "On comparisons of people it is at chance.", False
    if "calibration_error" in reward:
        yield f"Its confidence is off by {share(reward['calibration_error'])} on average.", True


def _improved(results: Results, ppo: Results) -> Sentences:
    """By PPO: the true utility where it is known, for the reward is what it was trained on."""
    rose, gain = ppo["reward_after"] - ppo["reward_before"], ppo.get("utility_gain_sd")
    noise = 2 * (2 / ppo["measured"]) ** 0.5 if "measured" in ppo else 0.0
    if rose <= 0:
        yield "The reward did not rise.", False
    elif gain is None:
        yield f"The reward rose by {rose:.2f} SD; whether people like the answers better is not known.", True
    elif gain <= noise:
        yield f"The reward is gamed: it rose by {rose:.2f} SD, and the true utility by {gain:.2f}.", False
    else:
        yield f"The reward rose by {rose:.2f} SD, the true utility, which it never sees, by {gain:.2f}.", True
    if results.get("reward", {}).get("gain_over_length", {"low": 1.0})["low"] <= 0:
        yield "Its reward model is not provably better than the length of an answer.", False


def _preferred(results: Results, of: Results) -> Sentences:
    if pairs := of.get("pairs_heldout"):
        right, margin = of["heldout_accuracy"], of["heldout_margin"]
        error = (right * (1 - right) / pairs) ** 0.5
        how = "" if (is_above := right - 2 * error > 0.5) else ", which may be chance"
        text = f"It prefers the better answer in {share(right, error)} of {pairs:,} held-out pairs{how}"
        yield f"{text}; by {margin:.3g} nats on average.", is_above


def _practised(results: Results, of: Results) -> Sentences:
    """By GRPO or distillation: what was measured of the likeliest answers to held-out items."""
    for name, old in of.items():
        what, is_before = name.removesuffix("_before"), name.endswith("_before")
        if is_before and not what.endswith(("_sampled", "kl", "length")):
            new = of[f"{what}_after"]
            is_better = new < old if what == "divergence" else new >= old
            yield f"Held-out {what.replace('_', ' ')} went from {old:.3g} to {new:.3g}.", is_better


def _benchmarked(results: Results, rows: list[Results]) -> Sentences:
    first, last = rows[0]["model"], rows[-1]["model"]
    before, after = ({row["task"]: row for row in rows if row["model"] == name} for name in (first, last))
    above = [name for name, row in after.items() if row["value"] - 2 * row["standard_error"] > row["chance"]]
    if above:
        yield f"{last} is above chance in {', '.join(above)}: {len(above)} of {len(after)} tasks.", True
    else:
        yield f"{last} is at chance in every task: its scores say nothing about what it knows.", False
    for name, new in after.items() if first != last else ():
        old = before.get(name, new)
        gain = new["value"] - old["value"]
        if abs(gain) > 2 * (old["standard_error"] ** 2 + new["standard_error"] ** 2) ** 0.5:
            how = "better" if gain > 0 else "worse"
            yield f"In {name} it is {how} than {first}, by {share(abs(gain))}.", gain > 0


def _cored(results: Results, rows: list[Results]) -> Sentences:
    last = rows[-1]
    low, high = (last["value"] + way * 1.96 * last["standard_error"] for way in (-1, 1))
    how = "better than guessing" if low > 0 else "not provably better than guessing"
    yield f"{last['model']} is {how}: {last['value']:.3f}, 95 % interval {low:.3f} to {high:.3f}.", low > 0
    if last["name"] != "CORE":
        absent = f", without {', '.join(last['absent'])}" if last["absent"] else ""
        part = f"{last['name']}{absent}, is a part of CORE"
        yield f"{part}: compare it with the same part of another model, with no published CORE.", False


def _remembered(results: Results, rows: list[Results]) -> Sentences:
    own = [row for row in rows if row["model"] == rows[-1]["model"]]
    unseen = [row for row in own if row["text"] == "held-out" or row["count"] == 0]
    limit = max((row["high"] for row in unseen), default=0.0)
    known = [row for row in own if row not in unseen and row["low"] > limit]
    if not known:
        yield "It gives no text that it was trained on word for word more often than one it never saw.", True
    for row in sorted(known, key=lambda row: -row["rate"])[:1]:
        copies = f" with {row['count']} copies" if row["count"] else ""
        yield f"It gives {share(row['rate'])} of {row['text']} texts{copies} word for word.", False


def _biased(results: Results, rows: list[Results]) -> Sentences:
    """By the measures that say what no preference gives."""
    own = [row for row in rows if row["model"] == rows[-1]["model"] and row["fair"] is not None]
    away = [row for row in own if row["items"] and not row["low"] <= row["fair"] <= row["high"]]
    if own and not away:
        yield f"No preference would fit into the intervals of all {len(own)} measures.", True
    for row in sorted(away, key=lambda row: -abs(row["value"] - row["fair"]))[:1]:
        most = f"{row['measure'].replace('_', ' ')}, {row['group']}: {share(row['value'])}"
        yield f"{row['model']} is biased by {len(away)} of {len(own)} measures, most by {most}.", False


def _spent(results: Results, cost: Results) -> Sentences:
    name, stage = max(cost["stages"].items(), key=lambda pair: pair[1]["seconds"])
    if cost["seconds"]:
        yield f"{name} took {share(stage['seconds'] / cost['seconds'])} of {duration(cost['seconds'])}.", True


JUDGES: dict[str, Callable[[Results, Any], Sentences]] = {
    "classify": _classified,
    "pretrain": _pretrained,
    "finetune": _finetuned,
    "rate": _rated,
    "reward": _rewarded,
    "ppo": _improved,
    "preference": _preferred,
    "grpo": _practised,
    "distill": _practised,
    "benchmarks": _benchmarked,
    "core": _cored,
    "extraction": _remembered,
    "bias": _biased,
    "cost": _spent,
}
