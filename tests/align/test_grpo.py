"""GRPO: it learns from right and wrong alone, on any mesh and in any parts, and goes on where it stopped."""

import contextlib
import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import pytest
from adder_run import TASK
from run_lines import lines

from jaxtrain import config as configs
from jaxtrain.align import grpo
from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.heads import policy_of
from jaxtrain.align.losses import Group
from jaxtrain.align.monitor import SMOOTH
from jaxtrain.align.practice import divided, read
from jaxtrain.align.rollout import Sampler
from jaxtrain.align.run import run
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import new_state
from jaxtrain.train.step import make_step
from jaxtrain.weights import folder as store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(adder, tmp_path) -> GRPOConfig:
    return GRPOConfig(
        model=str(adder / "model"),
        tasks=(TASK,),
        data=str(adder),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=3e-3, warmup_steps=1, schedule="constant", weight_decay=0.0),
            mesh=MeshConfig(fsdp=8),
            steps=2,
            checkpoint_every=1,
        ),
        prompts=16,
        group=8,
        longest_prompt=8,
        max_new=3,
        measured=80,
        out=str(tmp_path / "out"),
    )


def counts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())["counts"]


def same_weights(one: Path, other: Path) -> None:
    with jax.set_mesh(meshes.make(MeshConfig())):
        jax.tree.map(np.testing.assert_array_equal, store.load(one), store.load(other))


@pytest.mark.slow
def test_it_learns_additions_that_nobody_showed_it(config):
    folder = run(configs.changed(config, train__steps=40, prompts=32, kind="dapo"))
    found = counts(folder)
    assert found["additions_exact_before"] < 0.5
    assert found["additions_exact_after"] > found["additions_exact_before"] + 0.2
    rounds, steps = lines(folder, "round"), lines(folder, None)
    assert rounds[0]["kl"] == 0.0, "the first round is the fine-tuned model's own"
    assert steps[0]["ratio"] == pytest.approx(1, abs=1e-5), "and its first step has not moved"
    assert steps[0]["clip_fraction"] == 0
    assert rounds[-1]["kl"] > 0.1
    assert found["rounds"] == found["steps"] == len(rounds) == len(steps) == 40


# Alike but for lines of `losses.grpo`, which has its own tests.
ALIKE = ("bnpo", "dapo", "dr_grpo", "grpo", "gspo")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in ALIKE else k for k in get_args(Group)]
)
def test_every_kind_moves_the_policy(config, kind):
    changed = configs.changed(
        config,
        train__steps=4,
        kind=kind,
        advantage="rloo" if kind == "dr_grpo" else "grpo",
        clip_high=5.0 if kind == "cispo" else 0.28,
        beta=0.05,
        kl_weight=0.01,
        epochs=2,
        resample=1,
    )
    folder = run(changed)
    rounds, steps = lines(folder, "round"), lines(folder, None)
    assert [line["accepted"] for line in steps] == [1] * 4
    assert rounds[0]["taught"] > 0
    assert all(np.isfinite(line["grad_norm"]) and line["grad_norm"] > 0 for line in steps)
    assert rounds[1]["kl"] != 0.0


@pytest.fixture
def played(config, eight):
    """`played(**changes)`: config, policy, rows as gathered, and as learned from, on eight devices."""
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    sampler = Sampler(tokenizer=tokenizer, longest_prompt=config.longest_prompt, max_new=config.max_new)

    def work(**changes: Any):
        changed = dataclasses.replace(config, **changes)
        policy = policy_of(store.load(config.model))
        practices = read(changed, [TASK], tokenizer, [changed.prompts])
        rows, values = grpo.gather(changed, sampler, practices, policy, 0)
        learned, _ = grpo.experience(changed, policy, policy.transformer, rows)
        return changed, policy, rows, learned, values

    return work


def test_answers_are_the_same_however_many_are_drawn_at_once(config, eight) -> None:
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    prompts = [tokenizer.encode("2 + 3 = "[: 1 + n % 8]) for n in range(20)]
    model = store.load(config.model)
    few, all_ = (
        Sampler(tokenizer=tokenizer, longest_prompt=16, max_new=6, at_once=n).answer(model, prompts, seed=3)
        for n in (8, 64)
    )
    for name in ("tokens", "mask", "segment_ids"):
        np.testing.assert_array_equal(few[name], all_[name])


def stepped(config: GRPOConfig, rows: dict[str, np.ndarray], microbatches: int = 1) -> Any:
    """The weights after a step of plain descent on the mesh that is set, as numpy."""
    optimizer = optimizers.optax.sgd(1.0)
    policy = policy_of(store.load(config.model))
    step = make_step(partial(grpo.policy_loss, config), optimizer, microbatches, watch_loss=False)
    state, metrics = step(new_state(policy, optimizer), meshes.put_batch(rows, jax.sharding.get_mesh()))
    assert float(metrics["accepted"]) == 1
    return jax.tree.map(np.asarray, jax.device_get(state.model))


def test_groups_of_equal_rewards_teach_exactly_nothing(played):
    config, policy, rows, _, _ = played(advantage="grpo")
    rows["reward"] = np.full_like(rows["reward"], 0.7)
    learned, _ = grpo.experience(config, policy, policy.transformer, rows)
    assert (learned["advantages"] == 0).all()
    before = jax.tree.map(np.asarray, jax.device_get(policy))
    jax.tree.map(np.testing.assert_array_equal, stepped(config, learned), before)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in ("grpo", "dapo", "dr_grpo")]
)
def test_the_same_step_in_one_part_or_eight_and_on_one_device_or_eight(played, kind):
    """Answers of one to three tokens: a mean of means would differ."""
    config, _, _, learned, _ = played(kind=kind, beta=0.1, importance="none")
    assert len(set(learned["mask"].sum(axis=1))) > 1
    learned["old_logprobs"] = learned["old_logprobs"] + 0.1 * learned["mask"]  # off policy: ratios count
    other = {name: values[::-1].copy() for name, values in learned.items()}
    whole, parts = stepped(config, learned), stepped(config, other, microbatches=8)
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        alone = stepped(config, learned)
    for found in (parts, alone):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), found, whole)


def test_a_round_samples_again_until_its_groups_differ(played):
    _, _, rows, _, once = played()
    _, _, again, _, more = played(resample=8)
    assert once["sampled"] == 128
    assert more["sampled"] > 128
    assert once["taught"] < more["taught"] == 1.0
    assert len(rows["reward"]) == len(again["reward"]) == 128, "one shape"
    spread = np.ptp(again["reward"][:, 0].reshape(16, 8), axis=1)
    assert (spread > 0).all()


COUNTED = """
from pathlib import Path
from jaxtrain.tasks.graders import exact
from jaxtrain.tasks.task import Exercise, Task

def parse(row):
    is_right = exact(row["answer"])

    def grade(said):
        with Path(__file__).with_suffix(".txt").open("a") as file:
            file.write(row["question"] + chr(10))
        return is_right(said)

    return Exercise(prompt=row["question"], graders={"exact": grade}, chat=True)

files = {"path": "tested.jsonl", "practice": "practised.jsonl"}
task = Task(name="counted", version=1, metric="exact", parse=parse, **files)
"""


def test_rounds_that_sample_again_ask_each_item_once_before_any_again(config, eight, tmp_path):
    """However often each of them did; and after a kill: the lines of the rounds before are all they know."""
    (tmp_path / "counted.py").write_text(COUNTED)
    config = dataclasses.replace(config, prompts=9, resample=3)
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    sampler = Sampler(tokenizer=tokenizer, longest_prompt=config.longest_prompt, max_new=config.max_new)
    practices = read(config, [str(tmp_path / "counted.py")], tokenizer, [9])
    policy, known = policy_of(store.load(config.model)), []
    while sum(line["sampled"] for line in known) < 81 * 8:
        _, values = grpo.gather(config, sampler, practices, policy, len(known), known)
        known.append(values)
    assert len({line["sampled"] for line in known}) > 1, "some rounds sample more often than others"
    asked = (tmp_path / "counted.txt").read_text().splitlines()
    assert set(Counter(asked[: 81 * 8]).values()) == {8} and len(set(asked)) == 81


def test_a_token_that_was_sampled_too_rarely_weighs_more_up_to_the_cap(played):
    config, policy, rows, learned, _ = played()
    of = grpo.group_advantage(rows["reward"][:, 0].reshape(16, 8))
    wanted = np.asarray(of).reshape(-1, 1) * rows["mask"]
    np.testing.assert_allclose(learned["advantages"], wanted, atol=1e-3)
    rows["sampler_logprobs"] -= 0.3  # as a sampler in lower precision would have it
    rows["sampler_logprobs"][:, 8] -= 5
    learned, _ = grpo.experience(config, policy, policy.transformer, rows)
    factor = np.where(np.arange(rows["mask"].shape[1]) == 8, 2.0, np.exp(0.3))
    np.testing.assert_allclose(learned["advantages"], wanted * factor, atol=1e-3)


def test_a_killed_run_goes_on_to_the_same_weights(config, tmp_path):
    """Its folder as a kill within round 2 would leave it: the checkpoint behind round 1."""
    config = configs.changed(config, train__steps=4, train__checkpoint_every=2, resample=1, epochs=2)
    whole, folder = run(config), tmp_path / "stopped"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint" / "4")
    (folder / "manifest.json").unlink()
    again = grpo.train_grpo(config, folder)
    assert json.loads(json.dumps(again)) == counts(whole)
    assert lines(folder) == lines(whole)
    same_weights(whole, folder)


@pytest.mark.slow
def test_kills_in_rollouts_and_updates_change_nothing(config, tmp_path):
    """SIGKILL at random moments of rounds; the rewards' curve and the weights are those of a run without."""
    config = configs.changed(
        config, train__steps=24, train__checkpoint_every=5, train__microbatches=2, resample=1, epochs=2
    )
    whole = run(config)
    folder, moments = tmp_path / "killed", random.Random(1)
    file = tmp_path / "config.py"
    changed = dataclasses.replace(config, out=str(folder))
    names = "from jaxtrain.align.run import GRPOConfig\nfrom jaxtrain.align.grpo import MonitorConfig\n"
    names += "from jaxtrain.model.lora import LoRAConfig\n"
    names += (
        "from jaxtrain.runtime.mesh import MeshConfig\nfrom jaxtrain.train.optimizer import OptimizerConfig\n"
        "from jaxtrain.runtime.checkpoint import KeepConfig\n"
        "from jaxtrain.runtime.watchdog import WatchdogConfig\n"
        "from jaxtrain.train.config import SafetyConfig, TrainConfig\n"
    )
    file.write_text(f"{names}config = {changed!r}\n")
    log = Path(f"{folder}.partial") / "metrics.jsonl"
    command = [sys.executable, "-m", "jaxtrain", "align", str(file)]
    killed = 0
    for reached in (3, 14, 18, 27, 35):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= reached):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moments.uniform(0, 0.2))
        process.kill()
        killed += process.wait() == -9
    assert killed == 5
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert lines(folder) == lines(whole)
    assert counts(folder) == counts(whole)
    same_weights(whole, folder)


def test_a_mixture_asks_every_task_by_its_share(config, tmp_path):
    """The additions, and a game whose world replies: both are learned from, what the world says is not."""
    config = configs.changed(
        config,
        **{"tasks": (TASK, "guess"), "shares": (3.0, 1.0), "prompts": 4, "group": 4, "measured": 4},
        **{"longest_prompt": 50, "longest_dialogue": 90, "max_new": 4, "train__steps": 1},
    )
    folder = run(dataclasses.replace(config, model=str(longer(config.model, tmp_path / "longer"))))
    (line,) = lines(folder, "round")
    assert {"additions_exact", "guess_reward", "grade", "mismatch_none"} <= set(line)
    assert line["turns"] > 1 and line["sampled"] == 16
    assert line["mismatch"] < 1e-6
    found = counts(folder)
    assert found["problems"] == 81 + 5000 and "guess_reward_sampled_after" in found


def longer(model: str, folder: Path) -> Path:
    """The same weights, for longer texts."""
    shutil.copytree(model, folder)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"max_length": 256}))
    return folder


def test_shares_are_whole_prompts():
    assert divided(16, (3.0, 1.0)) == [12, 4]
    assert divided(8, (1.0, 1.0, 1.0)) == [3, 3, 2]
    with pytest.raises(UserError, match="8 prompts a round leave a task none"):
        divided(8, (99.0, 1.0))


def test_tokens_beyond_the_cap_are_masked_where_that_is_asked(played):
    config, policy, rows, _, _ = played(importance="masked")
    rows["sampler_logprobs"] -= 0.3 * rows["mask"]
    rows["sampler_logprobs"][:, 8] -= 5
    learned, means = grpo.experience(config, policy, policy.transformer, rows)
    assert (learned["advantages"][:, 8] == 0).all()
    assert np.abs(learned["advantages"][:, 7]).max() > 0
    assert means["mismatch"] > 0.01 and means["mismatch_most"] > 5 and means["mismatch_none"] == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompts": 3, "group": 5}, "prompts times group is 15; 8 devices need a multiple of 8"),
        ({"group": 1}, "group is 1; it is at least 2"),
        ({"shares": (1.0, 2.0)}, "shares has 2 numbers for 1 tasks"),
        ({"tasks": ("gsm8k",)}, "task gsm8k has no data at"),
        ({"tasks": ("piqa",), "data": "data/quickstart"}, "task piqa has nothing to practise on"),
        ({"kind": "cispo"}, "clip_high is 0.2; of cispo it is the largest ratio"),
        ({"temperature": 0.0}, "temperature is 0; it is above 0"),
        ({"longest_prompt": 5}, "task additions asks nothing of at most 5 tokens"),
    ],
)
def test_what_it_refuses(config, changed, words):
    with pytest.raises(UserError, match=words):
        run(dataclasses.replace(config, **changed))


PAYS = """
from jaxtrain.tasks.graders import exact
from jaxtrain.tasks.task import Exercise, Task

def parse(row):
    graders = {"exact": exact(row["answer"]), "long": lambda said: min(1.0, len(said) / 3)}
    return Exercise(prompt=row["question"], graders=graders, chat=True)

files = {"path": "tested.jsonl", "practice": "practised.jsonl"}
task = Task(name="sums", version=1, metric="exact", parse=parse, **files)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_reward_that_pays_for_length_is_flagged_before_it_costs_anything(config, tmp_path, seed):
    """Beside an honest run of the same seed, which is not."""
    (tmp_path / "sums.py").write_text(PAYS)
    # slowly, so that there are rounds to see it in before the grade is lost
    config = configs.changed(config, train__steps=40, train__evaluate_every=1, train__optimizer__lr=5e-5)
    config = configs.changed(config, tasks=(str(tmp_path / "sums.py"),), train__seed=seed)
    flags, heldout = {}, {}
    for name, rewards in (("honest", {"exact": 1.0}), ("hacked", {"long": 1.0})):
        folder = run(dataclasses.replace(config, rewards=rewards, out=str(tmp_path / name)))
        flags[name] = {line["rule"]: at for at, line in enumerate(lines(folder, "flag"))}
        heldout[name] = [counts(folder)["sums_exact_before"]]
        heldout[name] += [line["sums_exact"] for line in lines(folder, "heldout")]
    assert "hack" not in flags["honest"] and "hack" in flags["hacked"]
    flagged = 2 * SMOOTH - 1  # the first round that is held against the first ones
    assert heldout["hacked"][flagged - 1] > heldout["hacked"][0] - 0.05
    assert heldout["hacked"][-1] < heldout["honest"][-1]


def test_a_grade_that_no_task_has_is_named(config):
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    with pytest.raises(UserError, match="no task has a grade 'nmber'"):
        read(dataclasses.replace(config, rewards={"nmber": 5.0}), [TASK], tokenizer, [4])


@pytest.mark.parametrize("room", [1, 21])
def test_a_dialogue_has_room_for_a_prompt_and_an_answer(config, room):
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    sampler = Sampler(tokenizer=tokenizer, longest_prompt=16, max_new=6, room=room)
    with pytest.raises(UserError, match="give at least 22, or 0"):
        sampler.check(store.open(config.model).config)
