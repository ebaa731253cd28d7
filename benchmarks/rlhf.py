"""RLHF end to end on the quickstart's fine-tuned model, several seeds, and what happens without a KL penalty.

python benchmarks/rlhf.py --run runs/quickstart --out runs/rlhf      writes benchmarks/results/rlhf.json

For each seed: answers are sampled and ranked by simulated raters, a reward model learns from the rankings,
and PPO improves the model against it. Passes: held-out accuracy of the reward model within .08 of the ceiling
(the true utility's own accuracy on the same comparisons); PPO raises the true utility by at least one
standard deviation of the fine-tuned model's answers at a KL of at most 12 nats, on all seeds but one.
Then the first seed again with a KL weight of 0 and more rounds: the proxy is to rise while the true utility
falls, and the monitor to say so. Finished stages are reused, so a run that was interrupted goes on.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from record import record

from jaxtrain import config as configs
from jaxtrain.align.run import run as align
from jaxtrain.rate.run import run as rate

CONFIGS = Path(__file__).parents[1] / "configs" / "quickstart"


def stages(run: Path, out: Path, seed: int, answers: int) -> dict[str, Any]:
    """The configs of one seed; the raters rank `answers` answers to a question."""
    model, conversations = str(run / "5_finetune"), str(run / "2_clean")
    change = configs.changed
    rated = change(
        configs.load(CONFIGS / "6_rate.py"),
        model=model,
        conversations=conversations,
        answers=answers,
        seed=seed,
        out=str(out / f"rate_{seed}"),
    )
    reward = change(
        configs.load(CONFIGS / "7_reward.py"),
        model=model,
        ratings=rated.out,
        human=str(CONFIGS.parents[1] / "data" / "quickstart"),
        train__seed=seed,
        out=str(out / f"reward_{seed}"),
    )
    ppo = change(
        configs.load(CONFIGS / "8_ppo.py"),
        model=model,
        reward=reward.out,
        conversations=conversations,
        train__seed=seed,
        out=str(out / f"ppo_{seed}"),
    )
    return {"rate": rated, "reward": reward, "ppo": ppo}


def measured(config: Any, work: Any) -> tuple[dict[str, Any], float]:
    """A stage's counts, and the seconds that it took in all, over interruptions."""
    begun = time.monotonic()
    folder = work(config)
    seconds = json.loads((folder / "cost.json").read_text())["seconds"]
    print(f"{folder}: {seconds:.0f} s, of which now {time.monotonic() - begun:.0f}")
    return json.loads((folder / "manifest.json").read_text())["counts"], seconds


def one_seed(run: Path, out: Path, seed: int, answers: int) -> dict[str, Any]:
    found = stages(run, out, seed, answers)
    rated, rate_seconds = measured(found["rate"], rate)
    reward, reward_seconds = measured(found["reward"], align)
    ppo, ppo_seconds = measured(found["ppo"], align)
    names = ("heldout_accuracy", "standard_error", "ceiling", "untrained_accuracy", "length_accuracy")
    names += ("calibration_error", "pairs_train", "pairs_heldout")
    gained = ("utility_gain_sd", "utility_before", "utility_after", "reward_after", "kl", "rounds")
    return {
        "seed": seed,
        "agreement": rated["agreement"]["pairwise"],
        "reward_model": {name: reward[name] for name in names}
        | {"gain_over_length": reward["gain_over_length"]},
        "below_ceiling": reward["ceiling"] - reward["heldout_accuracy"],
        "ppo": {name: ppo[name] for name in gained},
        "seconds": {"rate": rate_seconds, "reward": reward_seconds, "ppo": ppo_seconds},
    }


def without_penalty(run: Path, out: Path, seed: int, answers: int, rounds: int) -> dict[str, Any]:
    """The curve of a run whose reward has no KL in it, and what the monitor said of it."""
    ppo = stages(run, out, seed, answers)["ppo"]
    train = dataclasses.replace(ppo.train, steps=rounds * ppo.epochs * ppo.minibatches)
    free = dataclasses.replace(ppo, kl_weight=0.0, train=train, out=str(out / f"free_{seed}"))
    counts, seconds = measured(free, align)
    lines = [json.loads(line) for line in (Path(free.out) / "metrics.jsonl").read_text().splitlines()]
    names = ("round", "kl", "reward", "utility", "length", "entropy", "distinct_2")
    curve = [{name: line[name] for name in names} for line in lines if line.get("kind") == "round"]
    best = max(curve, key=lambda line: line["utility"])
    return {
        "seed": seed,
        "rounds": curve,
        "flags": [line for line in lines if line.get("kind") == "flag"],
        "best": best,
        "reward_rose_since_by": curve[-1]["reward"] - best["reward"],
        "utility_fell_since_by_sd": (best["utility"] - curve[-1]["utility"]) / counts["utility_sd_before"],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--out", type=Path, default=Path("runs/rlhf"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--answers", type=int, default=9, help="answers to a question, ranked together")
    parser.add_argument("--rounds", type=int, default=60, help="rounds of the run without a penalty")
    options = parser.parse_args()
    seeds = [one_seed(options.run, options.out, seed, options.answers) for seed in options.seeds]
    free = without_penalty(options.run, options.out, options.seeds[0], options.answers, options.rounds)
    improved = [one["ppo"]["utility_gain_sd"] >= 1 and one["ppo"]["kl"] <= 12 for one in seeds]
    found = {
        "command": f"python benchmarks/rlhf.py --seeds {' '.join(map(str, options.seeds))} "
        f"--answers {options.answers} --rounds {options.rounds}",
        "passes": {
            "reward model within .08 of its ceiling": [one["below_ceiling"] <= 0.08 for one in seeds],
            "policy improved by 1 SD at a KL of at most 12": improved,
            "without a penalty the proxy rises while the true utility falls": free["reward_rose_since_by"] > 0
            and free["utility_fell_since_by_sd"] > 0.5,
            "the monitor says so": any(flag["rule"] == "utility" for flag in free["flags"]),
        },
        "seeds": seeds,
        "without_penalty": free,
    }
    record("rlhf", ["jax", "optax"], found)


if __name__ == "__main__":
    main()
