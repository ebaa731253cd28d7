"""GRPO: it learns from right and wrong alone, on any mesh and in any parts, and goes on where it stopped."""

import contextlib
import dataclasses
import json
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import pytest
from run_lines import lines

from jaxtrain import config as configs
from jaxtrain.align import grpo
from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.heads import policy_of
from jaxtrain.align.losses import Group
from jaxtrain.align.rollout import Sampler
from jaxtrain.align.run import run
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tasks import sandbox
from jaxtrain.tasks.verifiable import Problem
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
        problems=str(adder / "problems.jsonl"),
        heldout=str(adder / "problems.jsonl"),
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
    assert found["exact_before"] < 0.5
    assert found["exact_after"] > found["exact_before"] + 0.2
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
        problems, _ = grpo.read(config.problems, config, tokenizer)
        rows, values = grpo.gather(changed, sampler, problems, policy, update=0)
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
    config, _, _, learned, _ = played(kind=kind, beta=0.1, importance_cap=0.0)
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


def test_a_reward_may_be_that_a_program_passes_its_tests(config):
    """Two of each, for they run side by side."""
    try:
        sandbox.run("")
    except UserError as refused:
        pytest.skip(str(refused))
    asked = [grpo.Asked(Problem("double", f"assert double({n}) == {2 * n}"), []) for n in (2, 3)] * 2
    said = ["def double(x): return x + x", "def double(x): return x * x"] * 2
    config = dataclasses.replace(config, rewards={"code": 1.0})
    assert grpo.grade(config, said, asked) == [{"code": 1.0}, {"code": 0.0}] * 2
    assert grpo.grade(config, said[::-1], asked)[0] == {"code": 1.0}, "2 doubled is 2 squared"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompts": 3, "group": 5}, "prompts times group is 15; 8 devices need a multiple of 8"),
        ({"group": 1}, "group is 1; it is at least 2"),
        ({"rewards": {"exactly": 1.0}}, "rewards has no grader 'exactly'; there are exact, number"),
        ({"kind": "cispo"}, "clip_high is 0.2; of cispo it is the largest ratio"),
        ({"temperature": 0.0}, "temperature is 0; it is above 0"),
        ({"longest_prompt": 5}, "has no problem of at most 5 tokens"),
    ],
)
def test_what_it_refuses(config, changed, words):
    with pytest.raises(UserError, match=words):
        run(dataclasses.replace(config, **changed))
