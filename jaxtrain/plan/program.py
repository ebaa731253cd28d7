"""The real programs of a training stage: their shapes on a mesh, and each compiled ahead of time.

Nothing is computed and no weight is drawn, so a host without accelerators does it.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.align.distill import Taught
from jaxtrain.decode.generate import generate, row_keys
from jaxtrain.model.config import ModelConfig
from jaxtrain.plan.work import AnyMesh, Work, drawn, work_of
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.cost import Range
from jaxtrain.runtime.mesh import AXES, BATCH
from jaxtrain.train import losses
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.learner import Learner
from jaxtrain.train.state import TrainState, initializer
from jaxtrain.train.step import make_step

ONCE = Range(1, 1, 1)
NO_MESH = AbstractMesh((), ())


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device. All but the last two are exact; what XLA makes of those only a compiler knows."""

    weights: int
    """That learn, and that the loss reads."""
    optimizer: int
    batch: int
    """Rows of a step, the guard and the counters too."""
    beside: int = 0
    """What stands in memory while the program runs and is none of its arguments."""
    kept: int = 0
    """What the backward pass of a micro-batch finds of the forward pass, weights in compute precision too; of
    sampling, keys and values."""
    working: int = 0
    """Estimate of the rest: gradients, the vocabulary loss, a layer at work."""
    arguments: int | None = None
    """By the compiler: weights, optimizer and batch as they lie in memory."""
    peak: int | None = None
    """By the compiler: what is in use at the fullest moment, arguments included. (Its sum of temporaries
    counts some twice: a step with 16.7 GiB of them compiles for a chip of 15.75.)"""
    code: int = 0

    @property
    def state(self) -> int:
        return self.weights + self.optimizer + self.batch

    @property
    def total(self) -> int:
        """By the compiler where it was asked, else the estimate."""
        if self.peak is not None:
            return self.peak + self.code + self.beside
        return self.state + self.beside + self.kept + self.working


@dataclass(frozen=True, kw_only=True)
class Program:
    """A function that a stage calls on its devices, by shapes."""

    name: Literal["step", "log-probabilities", "sampling"]
    function: Any
    """Jitted."""
    arguments: tuple[Any, ...]
    memory: Memory
    rows: int
    """Of a call."""
    calls: Range = ONCE
    """For each step of the optimizer."""


def check(work: Work) -> None:
    """UserError where the mesh that is set cannot cut rows or tokens."""
    name = "batch_size" if hasattr(work.config, "batch_size") else "the number of rows of a step"
    meshes.check_rows(work.rows, work.length, work.train.microbatches, work.model.stage_microbatches, name)


def whole_state(config: Any, shape: ModelConfig) -> int:
    """Bytes of weights and optimizer on all devices together, were nothing held twice."""
    one = AbstractMesh((1,) * len(AXES), AXES, axis_types=(jax.sharding.AxisType.Explicit,) * len(AXES))
    with jax.sharding.use_abstract_mesh(NO_MESH), jax.sharding.use_abstract_mesh(one):
        work = work_of(config, shape)
        state = _state(work, work.learner(one), one)
    return _bytes((state.model, state.optimizer))


def programs(work: Work, mesh: AnyMesh) -> list[Program]:
    """What a step of the optimizer takes, on the mesh, which is set: rows sampled and read, and the step.

    Memory is by shapes and shardings alone; nothing is compiled.
    """
    learner = work.learner(mesh)
    state = _state(work, learner, mesh)
    others = sum(_bytes(drawn(make, mesh, dtype)) for make, dtype in work.others)
    found = [_step(work, learner, state, mesh, others)]
    if work.rollouts is not None:
        weights = _bytes((state.model, learner.frozen))
        memory = Memory(weights=weights, optimizer=0, batch=0, beside=others + _bytes(state.optimizer))
        found = [
            _sampling(work, learner, state, mesh, memory),
            _reading(work, learner, state, mesh, memory),
        ] + found
    return found


def _state(work: Work, learner: Learner, mesh: AnyMesh) -> TrainState:
    rule = optimizers.make(work.train.optimizer, work.train.steps)
    return meshes.abstract(initializer(learner.init, rule, work.train.seed), mesh)


def _batch(work: Work, mesh: AnyMesh, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    kinds = dict.fromkeys(work.whole, jnp.int32) | dict.fromkeys(work.real, jnp.float32)
    return {name: _rows(mesh, (rows, work.length), kind) for name, kind in kinds.items()}


def _rows(mesh: AnyMesh, shape: tuple[int, int], kind: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, kind, sharding=NamedSharding(mesh, P(BATCH, "context")))


def _step(work: Work, learner: Learner, state: TrainState, mesh: AnyMesh, others: int) -> Program:
    """The optimizer's step, as the training loop makes it."""
    config, frozen = work.train, learner.frozen
    loss, batch = learner.loss(work.loss), _batch(work, mesh, work.rows)
    step = make_step(
        loss,
        optimizers.make(config.optimizer, config.steps),
        config.microbatches,
        watch_loss=work.rollouts is None,
        learning_rate=optimizers.learning_rate(config.optimizer, config.steps),
    )

    def backward(learned: Any, batch: Any, frozen: Any) -> Any:
        more = () if frozen is None else (frozen, jax.random.key(0))
        return jax.vjp(lambda learned: loss(learned, batch, *more)[0], learned)[1]

    residuals = jax.eval_shape(backward, state.model, _batch(work, mesh, work.micro), frozen)
    learned, weights = _bytes(state.model), _bytes((state.model, frozen))
    gradients = learned * (2 if config.microbatches > 1 else 1)
    rest = dataclasses.replace(state, model=None, optimizer=None)
    memory = Memory(
        weights=weights,
        optimizer=_bytes(state.optimizer),
        batch=_bytes(batch) + _bytes(rest),
        beside=others,
        kept=max(0, _bytes(residuals) - weights),  # the weights themselves are among them
        working=gradients + _at_work(work, mesh),
    )
    arguments = (state, batch) if frozen is None else (state, batch, frozen)
    return Program(name="step", function=step, arguments=arguments, memory=memory, rows=work.rows)


def _reading(work: Work, learner: Learner, state: TrainState, mesh: AnyMesh, memory: Memory) -> Program:
    """Log-probabilities (and values) of a micro-batch, under the policy; the others' take as much."""
    assert work.rollouts is not None
    batch = _batch(work, mesh, work.micro)

    def read(learned: Any, frozen: Any, batch: Any) -> Any:
        return _policy(learner, learned, frozen)(batch)

    models = max(2, 1 + len(work.others))
    calls = models * work.rollouts.answers / work.micro / work.rollouts.steps
    return Program(
        name="log-probabilities",
        function=jax.jit(read),
        arguments=(state.model, learner.frozen, batch),
        memory=dataclasses.replace(memory, batch=_bytes(batch), working=_at_work(work, mesh)),
        rows=work.micro,
        calls=ONCE * calls,
    )


def _sampling(work: Work, learner: Learner, state: TrainState, mesh: AnyMesh, memory: Memory) -> Program:
    """Answers that are drawn side by side."""
    asking, model = work.rollouts, work.model
    assert asking is not None
    rows = -(-asking.at_once // meshes.batch_rows()) * meshes.batch_rows()
    asked = _rows(mesh, (rows, asking.prompt), jnp.int32)
    keys = drawn(lambda key: row_keys(key, jnp.arange(rows)), mesh)

    def sample(learned: Any, frozen: Any, tokens: jax.Array, segments: jax.Array, keys: jax.Array) -> Any:
        model = _policy(learner, learned, frozen).transformer
        return generate(model, tokens, segments, keys, max_new=asking.new, temperature=1.0, stop=0, pad=0)

    own, tensor, width = rows // meshes.batch_rows(), mesh.shape["tensor"], work.width
    slots, (heads, *widths) = asking.prompt + asking.new, model.cached
    cached = model.layers - model.delta_layers
    decoder = weights_of(model) * width // tensor
    scores = 2 * 4 * own * model.heads // tensor * asking.prompt * slots
    hidden = own * asking.prompt * (4 * model.d_hidden // tensor + 4 * model.d_model) * width
    logits = 3 * 4 * own * model.vocab_size
    pieces = -(-asking.answers // rows)
    return Program(
        name="sampling",
        function=jax.jit(sample),
        arguments=(state.model, learner.frozen, asked, asked, keys),
        memory=dataclasses.replace(
            memory,
            batch=2 * _bytes(asked),
            kept=own * slots * cached * max(1, heads // tensor) * sum(widths) * width,
            working=decoder + max(scores + hidden, logits),
        ),
        rows=rows,
        calls=Range(1, (1 + asking.rounds) / 2, asking.rounds) * (pieces / asking.steps),
    )


def _policy(learner: Learner, learned: Any, frozen: Any) -> Any:
    whole = learner.assemble(learned, frozen, None)
    return whole.policy if isinstance(whole, Taught) else whole


def weights_of(model: ModelConfig) -> int:
    """Their number, all experts included."""
    idle = max(0, model.experts - model.experts_per_token)
    experts = 3 * (model.layers - model.dense_layers) * model.d_model * model.d_hidden * idle
    embedding = 0 if model.tied else model.d_model * model.vocab_size
    return model.matmul_parameters + embedding + experts


def _bytes(tree: Any) -> int:
    """Of one device."""

    def of(leaf: Any) -> int:
        whole = leaf.sharding is None or isinstance(leaf.sharding, jax.sharding.SingleDeviceSharding)
        shape = leaf.shape if whole else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(of(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape"))


def _at_work(work: Work, mesh: AnyMesh) -> int:
    """Of a micro-batch. The loss: the head's gradient whole over fsdp in float32, the head in compute
    precision, and a chunk of logits three times. A layer: its weights, gathered, with its hidden units."""
    model, shape = work.model, mesh.shape
    vocab = model.vocab_size // shape["tensor"]
    tokens = max(1, work.micro // meshes.batch_rows()) * work.length // shape["context"]
    chunk = min(tokens, max(losses.TOKENS, losses.LOGITS // vocab))
    loss = model.d_model * vocab * (4 + work.width) + 3 * 4 * chunk * vocab
    hidden = model.d_hidden * (model.experts_per_token * shape["expert"] if model.experts else 1)
    mlps = max(1, model.experts // shape["expert"]) * (3 if model.gated else 2)
    gathered = (model.attention_parameters + mlps * model.d_model * model.d_hidden) // shape["tensor"]
    layer = 2 * gathered + tokens * (4 * hidden + 4 * model.d_model) // shape["tensor"]
    return loss + layer * work.width
