"""The loop: stopped and gone on with is the same as never stopped, bit for bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.model.transformer import Transformer
from jaxtrain.train import loop
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.evaluation import bits_per_byte, summed_nats
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer


class Killed(Exception):
    """The process ends here, with a log that reaches to the step given."""


@pytest.fixture(scope="module")
def run(config, make_mesh, make_batch):
    """`run(folder)`: the state after ten steps; checkpoints after 3, 6, 9, 10, evaluations after 4, 8, 10."""
    optimizer = optimizers.make(OptimizerConfig(lr=1e-2, warmup_steps=2), steps=10)
    init = initializer(lambda key: Transformer(config, key), optimizer, seed=0)
    schedule = loop.Schedule(steps=10, evaluate_every=4, checkpoint_every=3)

    def start(folder, *, fails_at=None, poisoned=(), evaluated=None, pretrained=None):
        def batches(start, stop):
            for step in range(start, stop):
                if step == fails_at:
                    raise Killed(lines(folder)[-1]["step"])
                batch = make_batch(step)
                if step in poisoned:
                    batch["loss_weights"][:] = np.nan
                yield batch

        def evaluate(model, step):
            if evaluated is not None:
                evaluated.append(step)
            return {"weight": float(jnp.sum(jnp.abs(model.head_DV[...])))}

        with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
            return loop.train(
                folder,
                schedule,
                init=init,
                loss=token_loss,
                optimizer=optimizer,
                batches=batches,
                evaluate=evaluate,
                pretrained=pretrained,
            )

    return start


def lines(folder):
    """metrics.jsonl without its times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


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
    same(
        run(tmp_path, evaluated=evaluated), state
    )  # no step is left, but its caller reads the last evaluation
    assert lines(tmp_path) == lines(folder) and evaluated == [10]


def test_weights_of_an_earlier_stage_are_where_it_starts(run, straight, config, tmp_path):
    other = lambda: jax.jit(lambda: Transformer(config, jax.random.key(9)))()  # noqa: E731
    with pytest.raises(Killed):
        run(tmp_path, fails_at=4, pretrained=other)
    first = lines(tmp_path)[0]["loss"]
    assert first != lines(straight[0])[0]["loss"]
    state = run(tmp_path, pretrained=other)
    assert lines(tmp_path)[0]["loss"] == first
    assert int(state.step) == 10 and [line["step"] for line in lines(tmp_path)].count(10) == 2


def test_a_refused_step_is_told(run, tmp_path, monkeypatch, capsys):
    """Also the one before an evaluation; and after too many the run ends."""
    state = run(tmp_path / "few", poisoned=(2, 3))
    told = [line for line in capsys.readouterr().err.splitlines() if "refused" in line]
    assert [line.split()[1] for line in told] == ["3", "4"] and all(
        "weights unchanged" in line for line in told
    )
    assert int(state.guard.accepted) == 8
    monkeypatch.setattr(loop, "MOST_REFUSED", 3)
    with pytest.raises(RuntimeError, match="3 steps refused in a row up to step 7"):
        run(tmp_path / "many", poisoned=(4, 5, 6, 7))


def test_summed_nats_and_bits_per_byte(config, make_mesh, make_batch):
    with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        nats, targets = summed_nats(model, [make_batch(0), make_batch(1)])
        parts = [summed_nats(model, [make_batch(seed)]) for seed in (0, 1)]
    assert nats == pytest.approx(sum(part[0] for part in parts), rel=1e-6)
    assert targets == sum(make_batch(seed)["loss_weights"].sum() for seed in (0, 1))
    assert bits_per_byte(8 * np.log(2), 4) == pytest.approx(2.0)
