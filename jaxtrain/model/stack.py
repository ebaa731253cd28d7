"""How a stack of layers is run: a loop over the pattern's repetitions, what each keeps, the pipeline.

Blocks are stacked: every weight has a leading axis L, cut over `stage`. B batch, M microbatches, S stages
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import MATMUL
from jaxtrain.runtime.mesh import BATCH

Carry = Any
Step = Callable[[Carry, Any, bool, jax.Array | int], Carry]
"""(carry, block, is the layer local?, its index) to the carry after it."""

Stacks = dict[bool | None, Any]
"""Layers whose weights are alike, stacked: by their kind (is it local?), or None for all."""

STREAM = "stream"
"""Name of the residual stream for the policy that keeps it on the host."""


def fold(step: Step, carry: Carry, stacks: Stacks, config: ModelConfig) -> Carry:
    """`carry` through all layers in order: a compiled loop over the pattern, what is left over unrolled."""
    pattern = config.is_local
    layers, period = _in_order(stacks, pattern), len(pattern)
    repeats = len(layers) // period if config.scan else 0

    def body(carry: Carry, inputs: tuple[Stacks, jax.Array]) -> tuple[Carry, None]:
        groups, repeat = inputs
        for place, (kind, at) in enumerate(layers[:period]):
            block = groups[kind] if period == 1 else jax.tree.map(lambda w, at=at: w[at], groups[kind])
            carry = step(carry, block, pattern[place], repeat * period + place)
        return carry, None

    if repeats:
        # a weight as it stands is read where it lies; one with another shape XLA copies before the loop
        counts = Counter(kind for kind, _ in layers[:period])
        grouped = lambda kind: lambda weight: _grouped(weight, repeats, counts[kind])  # noqa: E731
        groups = {kind: jax.tree.map(grouped(kind), stack) for kind, stack in stacks.items()}
        carry, _ = jax.lax.scan(body, carry, (stacks if period == 1 else groups, jnp.arange(repeats)))
    for layer in range(repeats * period, len(layers)):
        kind, at = layers[layer]
        block = jax.tree.map(lambda weight, at=at: weight[at], stacks[kind])
        carry = step(carry, block, pattern[layer % period], layer)
    return carry


def _in_order(stacks: Stacks, pattern: tuple[bool, ...]) -> list[tuple[bool | None, int]]:
    """Of each layer: its stack, and its place there."""
    count = sum(jax.tree.leaves(stack)[0].shape[0] for stack in stacks.values())
    kinds = [is_local if is_local in stacks else None for is_local in pattern * count][:count]
    return [(kind, kinds[:layer].count(kind)) for layer, kind in enumerate(kinds)]


def _grouped(weight: jax.Array, repeats: int, period: int) -> jax.Array:
    """[L, …] to [repeats, period, …] without the layers left over."""
    whole = weight if weight.shape[0] == repeats * period else weight[: repeats * period]
    rest = jax.typeof(weight).sharding.spec[1:]
    return jnp.reshape(whole, (repeats, period, *weight.shape[1:]), out_sharding=P(None, None, *rest))


def remembered(apply: Callable, remat: str) -> Callable:
    """`apply(x, …)` with the policy of what its backward pass finds and what it computes again."""
    if remat == "none":
        return apply
    policies = jax.checkpoint_policies
    names = {"names_which_can_be_saved": [], "names_which_can_be_offloaded": [STREAM]}
    to_host = {"offload_src": "device", "offload_dst": "pinned_host"}
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.save_only_these_names(MATMUL),
        "offload": policies.save_and_offload_only_these_names(**names, **to_host),
    }[remat]
    return jax.checkpoint(lambda x, *rest: apply(checkpoint_name(x, STREAM), *rest), policy=policy)


def pipeline(
    run: Callable[[Any, jax.Array, Any], tuple[jax.Array, jax.Array]],
    blocks: Any,
    x: jax.Array,
    rows: Any,
    microbatches: int,
) -> tuple[jax.Array, jax.Array]:
    """`run(blocks, x, rows)` → x, penalty, with the layers of `blocks` cut over the `stage` axis.

    rows: a tree of arrays whose first axis is the batch. The batch is cut into M microbatches that follow
    each other from stage to stage (Huang et al. 2019); of its M + S − 1 turns a stage works M: the bubble is
    (S − 1) / (M + S − 1). The penalty is the mean over microbatches.
    """
    stages = jax.sharding.get_abstract_mesh().shape["stage"]
    if stages == 1:
        return run(gathered(blocks), x, rows)
    M = microbatches
    x_M, rows_M = _cut(x, M), jax.tree.map(lambda leaf: _cut(leaf, M), rows)

    def of_stage(blocks: Any, x_M: jax.Array, rows_M: Any) -> tuple[jax.Array, jax.Array]:
        stage = jax.lax.axis_index("stage")
        onward = [(one, (one + 1) % stages) for one in range(stages)]

        def turn(carry, now: jax.Array):
            came, done_M, penalty = carry
            mine = now - stage  # the microbatch that is here at this turn; outside 0 … M − 1 there is none
            at = jnp.clip(mine, 0, M - 1)
            pick = lambda leaf_M: jax.lax.dynamic_index_in_dim(leaf_M, at, 0, keepdims=False)  # noqa: E731
            start = jnp.where(stage == 0, pick(x_M), came)
            after, added = run(blocks, start, jax.tree.map(pick, rows_M))
            is_real = (mine >= 0) & (mine < M)
            kept = jnp.where(is_real & (stage == stages - 1), after, pick(done_M))
            done_M = jax.lax.dynamic_update_index_in_dim(done_M, kept, at, 0)
            penalty = penalty + jnp.where(is_real, added, 0) / M
            return (jax.lax.ppermute(after, "stage", onward), done_M, penalty), None

        start = (jnp.zeros_like(x_M[0]), jnp.zeros_like(x_M), jnp.float32(0))
        (_, done_M, penalty), _ = jax.lax.scan(turn, start, jnp.arange(M + stages - 1))
        last = stage == stages - 1
        return jax.lax.psum(jnp.where(last, done_M, 0), "stage"), jax.lax.psum(penalty, "stage")

    specs = (jax.tree.map(lambda _: P("stage"), blocks), P(), jax.tree.map(lambda _: P(), rows_M))
    along = {"axis_names": {"stage"}, "check_vma": False}
    through = jax.shard_map(of_stage, in_specs=specs, out_specs=(P(), P()), **along)
    done_M, penalty = through(blocks, x_M, rows_M)
    spec = jax.typeof(x).sharding.spec
    return jnp.reshape(done_M, x.shape, out_sharding=P(*spec)), penalty


def gathered(blocks: Any) -> Any:
    """Blocks with all layers on every stage; nothing moves where there is one."""
    return jax.tree.map(
        lambda weight: jax.sharding.reshard(weight, P(None, *jax.typeof(weight).sharding.spec[1:])), blocks
    )


def _cut(leaf: jax.Array, parts: int) -> jax.Array:
    """[B, …] to [M, B / M, …], each part's rows still over the batch axes."""
    rest = jax.typeof(leaf).sharding.spec[1:]
    shape = (parts, leaf.shape[0] // parts, *leaf.shape[1:])
    return jnp.reshape(leaf, shape, out_sharding=P(None, BATCH, *rest))
