"""The loop: stopped and gone on with is the same as never stopped, bit for bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_lines import lines
from train_run import train_transformer

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import load_model
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import SafetyConfig, TrainConfig
from jaxtrain.train.heldout import summed_nats
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig


class Killed(Exception):
    """The process ends here, with a log that reaches to the step given."""


@pytest.fixture(scope="module")
def run(config, make_batch):
    """`run(folder)`: the state after ten steps; checkpoints after 3, 6, 9, 10, evaluations after 4, 8, 10.

    poison(index, batch): spoils the batch of an index. index_of: batches in another order.
    """

    def start(
        folder,
        *,
        fails_at=None,
        poison=None,
        index_of=int,
        evaluated=None,
        pretrained=None,
        numbers=None,
        whole=False,
        early_stop=0,
        microbatches=1,
        average=0.0,
        evaluate_every=4,
        checkpoint_every=3,
        steps=10,
        safety=None,
        **more,
    ):
        def batches(start, stop):
            for index in range(start, stop):
                if index == fails_at:
                    raise Killed(lines(folder)[-1]["step"])
                batch = make_batch(index_of(index))
                if poison is not None:
                    poison(index, batch)
                yield batch

        def evaluate(model, step):
            if evaluated is not None:
                evaluated.append(step)
            if numbers is not None:
                return {"weight": numbers[step]}
            return {"weight": float(jnp.sum(jnp.abs(model.head_DV[...])))}

        settings = TrainConfig(
            optimizer=OptimizerConfig(lr=1e-2, warmup_steps=2, average=average),
            mesh=MeshConfig(fsdp=4, tensor=2),
            steps=steps,
            microbatches=microbatches,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
            early_stop=early_stop,
            safety=safety or SafetyConfig(),
        )
        folder.mkdir(exist_ok=True)
        trained = train_transformer(
            folder, settings, config, batches, evaluate=evaluate, first=pretrained, **more
        )
        return trained if whole else trained.state

    return start


def nan(*indices):
    """Poison for the batches of these indices."""

    def poison(index, batch):
        if index in indices:
            batch["loss_weights"][:] = np.nan

    return poison


def same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)
        assert jax.typeof(a) == jax.typeof(b)


@pytest.fixture(scope="module")
def straight(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, run(folder)


def test_every_step_and_evaluation_has_a_line(straight):
    found = lines(straight[0])
    assert [line["step"] for line in found] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 10]
    assert [line["step"] for line in found if line.get("kind") == "heldout"] == [4, 8, 10]
    assert all(line["accepted"] and np.isfinite(line["loss"]) for line in found if "kind" not in line)


def test_stopped_and_resumed_is_the_same_run(run, straight, tmp_path):
    """Stopped in step 6, behind the checkpoint of step 6, and behind the last step."""
    folder, state = straight
    with pytest.raises(Killed):
        run(tmp_path, fails_at=5)
    assert lines(tmp_path) == lines(folder)[: len(lines(tmp_path))]
    with pytest.raises(Killed) as killed:
        run(tmp_path, fails_at=6)
    assert killed.value.args == (6,)  # no checkpoint is ahead of the log
    resumed = run(tmp_path)
    same(resumed, state)
    assert lines(tmp_path) == lines(folder)
    evaluated = []
    again = run(tmp_path, evaluated=evaluated, whole=True)
    same(again.state, state)  # no step is left, and its caller finds the last evaluation in the log
    assert lines(tmp_path) == lines(folder) and not evaluated
    assert again.heldout == {"weight": lines(folder, "heldout")[-1]["weight"]}


def test_weights_of_an_earlier_stage_are_where_it_starts(run, straight, config, tmp_path):
    other = lambda: jax.jit(lambda: Transformer(config, jax.random.key(9)))()  # noqa: E731
    with pytest.raises(Killed):
        run(tmp_path, fails_at=4, pretrained=other)
    first = lines(tmp_path)[0]["loss"]
    assert first != lines(straight[0])[0]["loss"]
    state = run(tmp_path, pretrained=other)
    assert lines(tmp_path)[0]["loss"] == first
    assert int(state.step) == 10 and [line["step"] for line in lines(tmp_path)].count(10) == 2


def test_a_refused_step_is_told_and_its_batch_kept(run, make_batch, tmp_path, capsys):
    """Also the one before an evaluation."""
    state = run(tmp_path, poison=nan(2, 3))
    told = [line for line in capsys.readouterr().err.splitlines() if "refused" in line]
    assert [line.split()[1] for line in told] == ["3", "4"]
    assert all("weights unchanged; its batch is in" in line for line in told)
    assert int(state.guard.accepted) == 8

    folders = sorted((tmp_path / "incidents").iterdir())
    assert [folder.name for folder in folders] == ["batch-00000002", "batch-00000003"]
    batch = make_batch(2)
    batch["loss_weights"][:] = np.nan
    with np.load(folders[0] / "process-0.npz") as kept:
        assert sorted(kept) == sorted(batch)
        for name, values in batch.items():
            np.testing.assert_array_equal(kept[name], values)
    incident = json.loads((folders[1] / "incident.json").read_text())
    assert (incident["step"], incident["batch"], incident["refused_in_a_row"]) == (4, 3, 2)
    before = [line["loss"] for line in lines(tmp_path)[:2]]  # what the window held
    assert incident["loss"] == {
        "value": "nan",
        "window_mean": pytest.approx(np.mean(before)),
        "window_sigma": pytest.approx(np.std(before), rel=1e-3),
        "limit": pytest.approx(10 * max(before)),
    }


def test_many_refused_steps_roll_back_past_their_batches(run, straight, tmp_path, capsys):
    """Batches 4 to 6 are poison: back from step 7 to the checkpoint of step 3, then batches 3, 7, 8, …"""
    safety = SafetyConfig(rollback_after=3)
    state = run(tmp_path / "poisoned", poison=nan(4, 5, 6), safety=safety)
    assert "3 steps refused in a row up to step 7: back to step 3, next batch 3" in capsys.readouterr().err
    clean = run(tmp_path / "clean", index_of=lambda index: index if index < 4 else index + 3)
    same((state.model, state.optimizer, state.guard), (clean.model, clean.optimizer, clean.guard))
    assert np.asarray(state.rollbacks_R3)[0].tolist() == [4, 3, 0]
    assert lines(tmp_path / "poisoned", None, "heldout") == lines(tmp_path / "clean")
    (told,) = lines(tmp_path / "poisoned", "rollback")
    assert (told["step"], told["left_out"]) == (4, 3)

    with pytest.raises(Killed):  # behind the rollback, before and behind its first checkpoint
        run(tmp_path / "killed", poison=nan(4, 5, 6), safety=safety, fails_at=9)
    with pytest.raises(Killed):
        run(tmp_path / "killed", poison=nan(4, 5, 6), safety=safety, fails_at=12)
    same(run(tmp_path / "killed", poison=nan(4, 5, 6), safety=safety), state)
    assert lines(tmp_path / "killed") == lines(tmp_path / "poisoned")


def test_a_new_level_is_accepted_after_a_second_rollback(run, tmp_path, capsys):
    """From batch 4 on the loss counts a hundredfold, for good."""

    def louder(index, batch):
        if index >= 4:
            batch["targets"][:] = 63 - batch["targets"]
            batch["loud"] = np.full((8, 32), 100.0, np.float32)
        else:
            batch["loud"] = np.ones((8, 32), np.float32)

    def loss(model, batch):
        total, weight = token_loss(model, batch)
        return total * jnp.max(batch["loud"]), weight

    state = run(tmp_path, poison=louder, safety=SafetyConfig(rollback_after=2), loss=loss)
    told = capsys.readouterr().err
    assert told.count("back to step 3, next batch") == 2
    assert told.count("whatever loss comes next is accepted as the new level") == 1
    assert int(state.step) == 10 and int(state.guard.accepted) == 6, "since the new level"


def test_poison_without_end_ends_the_run(run, tmp_path):
    poison = nan(*range(4, 100))
    with pytest.raises(UserError, match="refused however often .* look at the batches: `jaxtrain inspect"):
        run(tmp_path, poison=poison, safety=SafetyConfig(rollback_after=2))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoint").iterdir()) == [3]


def test_another_shape_is_an_error_that_names_it(run, tmp_path):
    def shorter(index, batch):
        if index == 2:
            batch.update({name: rows[:, :16] for name, rows in batch.items()})

    with pytest.raises(RuntimeError, match=r"second time: .*'batch\['tokens'\]' .*,16@context"):
        run(tmp_path, poison=shorter)


def test_a_ramp_is_one_program_and_resumes_bitwise_inside(run, tmp_path):
    """Four steps of one micro-batch, then two a step; killed in both parts."""

    def ramp(index, batch):
        for rows in batch.values():
            rows[4 if index < 4 else 8 :] = 0

    more = {"poison": ramp, "microbatches": 2, "ramps": True}
    state = run(tmp_path / "straight", **more)
    steps = lines(tmp_path / "straight", None)
    assert [line["microbatches"] for line in steps] == [1] * 4 + [2] * 6
    for fails_at in (3, 8):
        with pytest.raises(Killed):
            run(tmp_path / "killed", fails_at=fails_at, **more)
    same(run(tmp_path / "killed", **more), state)
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")


def test_the_best_checkpoint_is_kept_and_can_be_the_result(run, tmp_path, capsys):
    """Held-out numbers of steps 4, 8, 10; the newest two checkpoints stay, and the best."""
    numbers = {4: 1.0, 8: 3.0, 10: 2.0}
    run(tmp_path / "kept", numbers=numbers, watch="weight")
    assert sorted(int(path.name) for path in (tmp_path / "kept" / "checkpoint").iterdir()) == [4, 9, 10]
    state = run(tmp_path / "early", numbers=numbers, watch="weight", early_stop=1)
    assert "no better weight in 1 evaluations; the result is step 4" in capsys.readouterr().err
    assert int(state.step) == 4
    assert [int(path.name) for path in (tmp_path / "early" / "checkpoint").iterdir()][-1:] == [4]
    again = run(tmp_path / "early", numbers=numbers, watch="weight", early_stop=1)
    same(again, state)


def test_a_mean_of_weights_is_what_an_early_stop_leaves(run, config, tmp_path):
    """Of step 4, the best: what later stages load is what was judged there, and so are its numbers."""
    numbers = {4: 1.0, 8: 3.0}
    trained = run(tmp_path, numbers=numbers, watch="weight", early_stop=1, average=0.5, whole=True)
    assert (trained.step, trained.heldout) == (4, {"weight": 1.0})
    with jax.set_mesh(meshes.make(MeshConfig(fsdp=4, tensor=2))):
        kept = load_model(tmp_path / "checkpoint", lambda: Transformer(config, jax.random.key(0)))
    same(kept, trained.model)
    assert any(
        (np.asarray(mean) != np.asarray(raw)).any()
        for mean, raw in zip(jax.tree.leaves(kept), jax.tree.leaves(trained.state.model), strict=True)
    ), "not the weights that learn"
    assert [line["step"] for line in lines(tmp_path, "heldout")] == [4], "what was thrown away is not told"


def test_nan_is_never_the_best(run, tmp_path):
    numbers = {4: 1.0, 8: np.nan, 10: np.nan}
    trained = run(tmp_path / "kept", numbers=numbers, watch="weight", whole=True)
    assert sorted(int(path.name) for path in (tmp_path / "kept" / "checkpoint").iterdir()) == [4, 9, 10]
    assert trained.heldout == {"weight": None}
    with pytest.raises(UserError, match="none of the evaluations up to step 4 gave a finite weight"):
        run(tmp_path / "none", numbers={4: np.nan}, watch="weight", early_stop=1)


def test_a_phase_of_other_data_is_not_taken_for_a_spike(run, tmp_path):
    """From batch 4 on the loss is a hundredfold: refused, but where a phase begins there."""

    def louder(index, batch):
        batch["loud"] = np.full((8, 32), 100.0 if index >= 4 else 1.0, np.float32)

    def loss(model, batch):
        total, weight = token_loss(model, batch)
        return total * jnp.max(batch["loud"]), weight

    spike = run(tmp_path / "spike", poison=louder, loss=loss)
    assert int(spike.guard.accepted) == 4
    phase = run(tmp_path / "phase", poison=louder, loss=loss, phases=frozenset({4}))
    assert int(phase.guard.accepted) == 6, "since the phase began"
    assert all(line["accepted"] for line in lines(tmp_path / "phase", None))


def test_fewer_steps_than_were_taken_are_refused(run, tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, fails_at=7)
    with pytest.raises(UserError, match=r"has come to step 6, and train.steps is 5; give it at least 6"):
        run(tmp_path, steps=5)


def test_intervals_of_0_leave_only_the_end(run, tmp_path):
    run(tmp_path, evaluate_every=0, checkpoint_every=0)
    assert [line["step"] for line in lines(tmp_path, "heldout")] == [10]
    assert [int(path.name) for path in (tmp_path / "checkpoint").iterdir()] == [10]


def test_summed_nats(config, make_mesh, make_batch):
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        nats, targets = summed_nats(model, [make_batch(0), make_batch(1)])
        parts = [summed_nats(model, [make_batch(seed)]) for seed in (0, 1)]
    assert nats == pytest.approx(sum(part[0] for part in parts), rel=1e-6)
    assert targets == sum(make_batch(seed)["loss_weights"].sum() for seed in (0, 1))
