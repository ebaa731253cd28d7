"""PPO: it raises what it is told to raise, the penalty holds it back, and a stopped run goes on as it was."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from rolled import dialogues_of
from run_lines import lines
from tiny_run import CONFIGS

from jaxtrain import config as configs
from jaxtrain.align import ppo, rollout
from jaxtrain.align.heads import Policy
from jaxtrain.align.monitor import Monitor, MonitorConfig
from jaxtrain.align.ppo import PPOConfig
from jaxtrain.align.rounds import Rounds
from jaxtrain.align.run import run
from jaxtrain.decode.generate import generate, row_keys
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.learner import Learner
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import new_state
from jaxtrain.train.step import make_step
from jaxtrain.weights import folder as store

ROWS, PROMPT, NEW = 64, 4, 8
LIKED, STOP = 32, 63  # ids below the one are liked; the other ends an answer


def improve(policy: Policy, reference: Any, rounds: int, kl_weight: float) -> list[dict[str, float]]:
    """Rounds of PPO as the stage does them, on the mesh that is set."""
    optimizer = optimizers.make(OptimizerConfig(lr=1e-2, warmup_steps=1, schedule="constant"), 1000)
    config = PPOConfig(model="", reward="", conversations="", out="", rollouts=ROWS, kl_weight=kl_weight)
    step = make_step(partial(ppo.policy_loss, config), optimizer, watch_loss=False)
    prompt = np.random.default_rng(0).integers(0, 64, (ROWS, PROMPT), np.int32)
    on = meshes.put_batch({"tokens": prompt, "segments": np.ones_like(prompt)}, jax.sharding.get_mesh())
    state, found = new_state(policy, optimizer), []
    for update in range(rounds):
        answers = generate(
            state.model.transformer, on["tokens"], on["segments"],
            row_keys(jax.random.key(update), np.arange(ROWS)),
            max_new=NEW, temperature=1.0, stop=STOP, pad=0,
        )  # fmt: skip
        rows = rollout.rows(dialogues_of(prompt, answers), PROMPT, PROMPT + NEW + 1, STOP)
        low_BT = (rows["targets"] < LIKED) * rows["mask"]  # a reward by hand: the share of low ids
        worth = rollout.with_reward(rows, low_BT.sum(axis=1) / rows["mask"].sum(axis=1))
        learned, means = ppo.experience(config, state.model, reference, worth, kl_weight, ROWS)
        for part in np.split(np.random.default_rng(update).permutation(ROWS), 2) * 2:
            minibatch = {name: values[part] for name, values in learned.items()}
            state, _ = step(state, meshes.put_batch(minibatch, jax.sharding.get_mesh()))
        found.append(means)
    return found


def test_it_raises_a_reward_and_a_heavy_penalty_holds_it_back(small, placed, one):
    make = partial(Policy, small)
    free = improve(placed(make), placed(make).transformer, rounds=12, kl_weight=0.0)
    assert free[0]["kl"] == 0.0
    assert free[0]["reward"] == pytest.approx(0.5, abs=0.1)
    assert free[-1]["reward"] > 0.8
    held = improve(placed(make), placed(make).transformer, rounds=12, kl_weight=5.0)
    assert held[-1]["kl"] < 0.3 * free[-1]["kl"]
    assert held[-1]["reward"] < free[-1]["reward"] - 0.1


SIXTEEN = TrainConfig(optimizer=OptimizerConfig(), mesh=MeshConfig(fsdp=8), steps=16, trackers=())


def deal(
    folder: Path, monitor: Monitor, epochs: int, minibatches: int, start: int, stop: int
) -> tuple[list[list[int]], list[int]]:
    """Batches start..stop-1 of rounds of numbered rows, and which rounds were drawn."""
    drawn: list[int] = []

    def draw(policy: Any, number: int, lines: list[dict[str, Any]]) -> tuple[Any, dict[str, float]]:
        assert [line["round"] for line in lines] == list(range(1, number + 1))
        drawn.append(number)
        return {"n": 100 * number + np.arange(16, dtype=np.int32)[:, None]}, {"kl": float(number)}

    with training(SIXTEEN, folder, lambda folder: None) as run:
        rounds = Rounds(run, Learner(lambda key: None), draw, monitor, epochs, minibatches)
        batches = []
        for step, batch in enumerate(rounds.feed().read(start, stop), start + 1):
            batches.append(batch["n"][:, 0].tolist())
            run.log.step(step, {"loss": 0.0})
            run.write_told(step)
        return batches, drawn


def test_every_rollout_is_in_one_minibatch_of_each_pass(tmp_path):
    parts, drawn = deal(tmp_path, Monitor(), 2, 2, 0, 8)
    assert drawn == [0, 1] and [len(part) for part in parts] == [8] * 8
    assert sorted(parts[0] + parts[1]) == sorted(parts[2] + parts[3]) == list(range(16))
    assert parts[0] != parts[2], "each pass in its own order"


def test_a_monitor_ends_the_run_before_it_learns_from_the_round(tmp_path):
    monitor = Monitor(MonitorConfig(most_kl=4.5, stop_at=("kl",)))
    parts, drawn = deal(tmp_path, monitor, 1, 1, 0, 16)
    assert (len(parts), drawn[-1]) == (6, 6), "the mean of rounds 5, 6 and 7 is 5"


def test_a_round_knows_none_of_those_that_the_run_went_back_from(tmp_path):
    """Nor would it after a kill, for metrics.jsonl has them no more."""
    known: dict[int, list[int]] = {}

    def draw(policy: Any, number: int, lines: list[dict[str, Any]]) -> tuple[Any, dict[str, float]]:
        known[number] = [line["round"] for line in lines]
        return {"n": np.arange(16, dtype=np.int32)[:, None]}, {"kl": 0.0}

    with training(SIXTEEN, tmp_path, lambda folder: None) as run:
        rounds = Rounds(run, Learner(lambda key: None), draw, Monitor())
        for first, start, stop in ((1, 0, 4), (3, 3, 6)):  # back to step 2, without the batch behind it
            run.log.rewind(first - 1, but="rollback")
            for step, _ in enumerate(rounds.feed().read(start, stop), first):
                run.log.step(step, {"loss": 0.0})
                run.write_told(step)
    assert known == {0: [], 1: [1], 2: [1, 2], 3: [1, 2], 4: [1, 2, 4], 5: [1, 2, 4, 5]}


@pytest.fixture
def tiny_config(in_tiny, tmp_path) -> PPOConfig:
    config = configs.load(CONFIGS / "8_ppo.py")
    inputs = {
        name: in_tiny(Path(getattr(config, name)).name) for name in ("model", "reward", "conversations")
    }
    return dataclasses.replace(config, **inputs, out=str(tmp_path / "ppo"))


def test_a_run_that_stopped_after_two_rounds_goes_on_to_the_same_weights(in_tiny, tiny_config, tmp_path):
    """Its folder as a kill would leave it: the checkpoint of step 8, and metrics beyond it."""
    whole, folder = Path(in_tiny("8_ppo")), tmp_path / "stopped"
    shutil.copytree(whole, folder)
    steps = sorted(int(path.name) for path in (folder / "checkpoint").iterdir() if path.name.isdigit())
    assert steps == [8, 16], "two passes of two minibatches a round, a checkpoint every two rounds"
    shutil.rmtree(folder / "checkpoint" / "16")
    (folder / "manifest.json").unlink()
    counts = ppo.train_policy(tiny_config, folder)

    manifest = json.loads((whole / "manifest.json").read_text())
    assert json.loads(json.dumps(counts)) == manifest["counts"]
    assert len(lines(whole, "round")) == 4 and len(lines(whole, None)) == 16
    assert lines(folder) == lines(whole)
    starts = [sorted(path.name[-5:] for path in (at / "tensorboard").iterdir()) for at in (whole, folder)]
    assert starts == [["00000"], ["00000", "00001"]], "TensorBoard has a file of every start"
    assert (whole / "samples.jsonl").read_bytes() == (folder / "samples.jsonl").read_bytes()
    with jax.set_mesh(meshes.make(MeshConfig())):
        jax.tree.map(np.testing.assert_array_equal, store.load(whole), store.load(folder))


def test_what_it_states_is_what_it_measured(in_tiny):
    folder = Path(in_tiny("8_ppo"))
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    rounds = lines(folder, "round")
    assert counts["simulated"] is True
    assert counts["measured"] == 32
    gain = (counts["utility_after"] - counts["utility_before"]) / counts["utility_sd_before"]
    assert counts["utility_gain_sd"] == pytest.approx(gain)
    assert rounds[0]["kl"] == 0.0, "the first round is the fine-tuned model's own"
    assert abs(rounds[0]["reward"]) < 1, "rewards are in SD around the fine-tuned model's mean"
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in samples] == [0, 0, 16, 16]
    assert all(line["completion"] for line in samples)


def test_raters_training_and_measurement_never_share_a_question(in_tiny, tiny_config):
    tokenizer = Tokenizer.load(Path(in_tiny("5_finetune")) / "tokenizer")
    rated = {
        tuple(render(row["prompt"], tokenizer, generation_prompt=True)[0])
        for name in ("train", "heldout")
        for row in pq.read_table(Path(in_tiny("6_rate")) / f"{name}.parquet").to_pylist()
    }
    measured, asked = (set(map(tuple, part)) for part in ppo.questions(tiny_config, tokenizer))
    assert len(rated) == 64 and len(measured) == 32 and len(asked) > 32
    assert not measured & asked and not (measured | asked) & rated


def test_an_epoch_asks_every_question_once(in_tiny, tiny_config):
    tokenizer = Tokenizer.load(Path(in_tiny("5_finetune")) / "tokenizer")
    _, questions = ppo.questions(tiny_config, tokenizer)
    rounds = [rollout.drawn(questions, 0, number, tiny_config.rollouts) for number in range(25)]
    asked, size = sum(rounds, []), len(questions)
    assert len(asked) >= 2 * size
    first, second = asked[:size], asked[size : 2 * size]
    assert sorted(first) == sorted(second) == sorted(questions)
    assert first != second
    assert rollout.drawn(questions, 0, 3, tiny_config.rollouts) == rounds[3]


def test_rounds_that_do_not_divide_are_refused(tiny_config):
    with pytest.raises(UserError, match=r"rollouts is 36; 2 microbatches on 8 devices need a multiple of 16"):
        run(dataclasses.replace(tiny_config, rollouts=36))


def test_too_few_questions_to_measure_are_refused(tiny_config):
    with pytest.raises(UserError, match="measured is 1; it is at least 2"):
        run(dataclasses.replace(tiny_config, measured=1))


def line(**numbers: float) -> dict[str, float]:
    return {"kl": 6.0, "kl_weight": 0.1} | numbers


def test_the_penalty_follows_the_kl_by_at_most_a_fifth_of_what_the_horizon_allows():
    config = PPOConfig(
        **dict.fromkeys(("model", "reward", "conversations", "out"), ""),
        kl_weight=0.1,
        kl_target=6.0,
        kl_horizon=1000,
        rollouts=100,
    )
    assert ppo.kl_weight(config, []) == 0.1
    assert ppo.kl_weight(config, [line()]) == 0.1, "on target"
    assert ppo.kl_weight(config, [line(kl=6.6)]) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert ppo.kl_weight(config, [line(kl=600.0)]) == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    assert ppo.kl_weight(config, [line(kl=0.0)]) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
    fixed = dataclasses.replace(config, kl_target=0.0)
    assert ppo.kl_weight(fixed, [line(kl=600.0)]) == 0.1


def test_the_same_step_in_one_part_or_eight_and_on_one_device_or_eight(small, placed):
    """Answers of one to eight tokens: a mean of means would differ."""
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 12), np.float32)
    for row, length in enumerate(rng.integers(1, 9, 16)):
        mask[row, 3 : 3 + length] = 1
    rows = {name: rng.normal(size=mask.shape).astype(np.float32) for name in ("advantages", "returns")}
    rows |= {"old_logprobs": np.full(mask.shape, -4.2, np.float32), "old_values": 0.1 * rows["returns"]}
    rows |= {name: rng.integers(0, 64, mask.shape, np.int32) for name in ("tokens", "targets")}
    rows |= {"mask": mask, "segment_ids": np.ones(mask.shape, np.int32)}
    rows["positions"] = np.tile(np.arange(12, dtype=np.int32), (16, 1))
    config = PPOConfig(
        **dict.fromkeys(("model", "reward", "conversations", "out"), ""),
        dual_clip=3.0,
    )
    optimizer = optimizers.optax.sgd(1.0)

    def stepped(microbatches: int, order: slice) -> Any:
        step = make_step(partial(ppo.policy_loss, config), optimizer, microbatches, watch_loss=False)
        on = meshes.put_batch({name: values[order] for name, values in rows.items()}, jax.sharding.get_mesh())
        state, metrics = step(new_state(placed(partial(Policy, small)), optimizer), on)
        assert float(metrics["targets"]) == mask.sum()
        return jax.tree.map(np.asarray, jax.device_get(state.model))

    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        whole, parts = stepped(1, slice(None)), stepped(8, slice(None, None, -1))
    with jax.set_mesh(meshes.make(MeshConfig(fsdp=8))):
        shared = stepped(1, slice(None))
    for found in (parts, shared):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), found, whole)


@pytest.mark.slow
def test_every_option_together_and_each_first_step_is_on_policy(in_tiny, tiny_config, tmp_path):
    """A value model of its own, two rewards, an adapted penalty; killed after the first round as well."""
    config = dataclasses.replace(
        tiny_config,
        also=(ppo.RewardSource(reward=tiny_config.reward, weight=-0.5),),
        value="own",
        kl_kind="k3",
        kl_target=0.001,
        kl_horizon=64,
        dual_clip=3.0,
        cut_penalty=0.5,
        epochs=1,
        minibatches=1,
        train=dataclasses.replace(tiny_config.train, steps=2, checkpoint_every=1, microbatches=2),
    )
    whole = run(config)
    rounds, steps = lines(whole, "round"), lines(whole, None)
    assert [one["clip_fraction"] for one in steps] == [0, 0]
    assert [one["ratio"] for one in steps] == pytest.approx([1, 1], abs=1e-5)
    assert rounds[0]["kl_weight"] == config.kl_weight
    assert rounds[1]["kl_weight"] == pytest.approx(config.kl_weight * (1 - 0.2 * 32 / 64)), "no KL yet"
    assert abs(rounds[0]["reward"]) < 0.5, "a reward less half of itself"
    folder = tmp_path / "stopped"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint" / "2")
    (folder / "manifest.json").unlink()
    ppo.train_policy(config, folder)
    assert lines(folder) == lines(whole)
    with jax.set_mesh(meshes.make(MeshConfig())):
        jax.tree.map(np.testing.assert_array_equal, store.load(whole), store.load(folder))


def test_a_dual_clip_below_one_is_refused(tiny_config):
    with pytest.raises(UserError, match="dual_clip is 0.5; it is a ratio above 1"):
        run(dataclasses.replace(tiny_config, dual_clip=0.5))
