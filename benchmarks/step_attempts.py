"""What was tried to make the train step on CPUs faster, and gave nothing: each beside the step that stands.

python benchmarks/step_attempts.py gate-up qkv turned            other ways to write the same step
python benchmarks/step_attempts.py xla_cpu_use_onednn=True …     XLA's options
python benchmarks/step_attempts.py pieces                        weights' gradients together, a flat optimizer

The shape is that of `train_step.py`. A ratio above 1 is faster than what stands; medians of turns, in one
process. benchmarks/notes.md has the table.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import train_step
from jax.sharding import PartitionSpec as P

from jaxtrain.model import layers
from jaxtrain.model.attention import Attention
from jaxtrain.model.layers import MLP, Layout, contract, gated, project, recomputed
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH, MeshConfig

ROUNDS, STEPS = 6, 2
stands = layers._contract_backward


def gate_up(self: MLP, x_BTD: jax.Array, layout: Layout) -> jax.Array:
    """Gate and up by one matmul of [D, 2F]."""
    assert self.gate_DF is not None
    F = self.gate_DF[...].shape[1]
    both_DX = jnp.concatenate([self.gate_DF[...], self.up_DF[...]], axis=1)
    both_BTX = contract("btd,df->btf", P(BATCH, layout.time, "tensor"), x_BTD, both_DX)
    hidden_BTF = recomputed(lambda x: gated(self.config, x[..., :F], x[..., F:]))(both_BTX)
    return project("btf,fd->btd", hidden_BTF, self.down_FD, layout.between)


def qkv(self: Attention, x_BTD: jax.Array, positions_BT: jax.Array, layout: Layout, is_local: bool):
    """Queries, keys and values by one matmul."""
    N, K = self.config.heads, self.config.kv_heads
    all_DXH = jnp.concatenate([self.q_DNH[...], self.k_DKH[...], self.v_DKH[...]], axis=1)
    all_BTXH = contract("btd,dnz->btnz", layout.heads, x_BTD, all_DXH)
    q_BTNH, k_BTKH, v_BTKH = jnp.split(all_BTXH, [N, N + K], axis=2)
    q_BTNH, k_BTKH = (
        self._turned(x, norm, positions_BT, is_local)
        for x, norm in ((q_BTNH, self.q_norm), (k_BTKH, self.k_norm))
    )
    return q_BTNH, k_BTKH, v_BTKH


def turned(equation: str, sharding: P, saved: tuple[jax.Array, Any], gradient: jax.Array):
    """Weights' gradients made transposed, so that the gradient and not the activation is turned."""
    x, w = saved
    x_bar, _ = stands(equation, sharding, saved, gradient)
    terms, out = equation.split("->")
    x_term, w_term = terms.split(",")
    inputs = "".join(letter for letter in w_term if letter in x_term)
    outputs = "".join(letter for letter in w_term if letter not in x_term)
    if out == "btd":
        x_spec = jax.typeof(x).sharding.spec
        gradient = jax.sharding.reshard(gradient, P(x_spec[0], x_spec[1], None))
    spec, n = tuple(jax.typeof(w).sharding.spec), len(inputs)
    equation = f"{out},{x_term}->{outputs}{inputs}"
    other = jnp.einsum(equation, gradient, x, out_sharding=P(*spec[n:], *spec[:n]))
    return x_bar, jnp.einsum(f"{outputs}{inputs}->{w_term}", other)


def step(options: dict[str, Any]) -> train_step.Ours:
    """The step as the patched classes write it, compiled with XLA's options."""
    jax.clear_caches()
    compile_ = jax.stages.Lowered.compile
    jax.stages.Lowered.compile = lambda self: compile_(self, compiler_options=options)
    try:
        return train_step.Ours(dict(train_step.SHAPE), False, "none", True, False)
    finally:
        jax.stages.Lowered.compile = compile_


def variant(name: str) -> train_step.Ours:
    if "=" in name:
        option, _, value = name.partition("=")
        return step({option: {"True": True, "False": False}.get(value, value)})
    call, turn = MLP.__call__, Attention.turned
    if name == "gate-up":
        MLP.__call__ = gate_up
    elif name == "qkv":
        Attention.turned = qkv
    elif name == "turned":
        contract.defvjp(layers._contract_forward, turned)
    else:
        raise SystemExit(f"{name!r} is no attempt: gate-up, qkv, turned, pieces or OPTION=VALUE")
    try:
        return step({})
    finally:
        MLP.__call__, Attention.turned = call, turn
        contract.defvjp(layers._contract_forward, stands)


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begun


def pieces() -> None:
    """Milliseconds of the parts alone: weights' gradients of six layers of one kind, and AdamW's pass."""
    L, B, T, D, F = 6, 16, 256, 384, 1024
    x_LBTD, g_LBTF = jnp.ones((L, B, T, D)), jnp.ones((L, B, T, F))
    gradient = lambda x, g: jnp.einsum("btd,btf->df", x, g)  # noqa: E731
    ways = {
        "in a loop": jax.jit(lambda x, g: jax.lax.map(lambda pair: gradient(*pair), (x, g))),
        "together": jax.jit(jax.vmap(gradient)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(10):
        for name, way in ways.items():
            times[name].append(seconds(lambda way=way: way(x_LBTD, g_LBTF)))
    rule = optax.adamw(1e-3)
    update = jax.jit(lambda g, s, p: rule.update(g, s, p))
    for parts in (8, 1):
        weights = [jnp.ones(13_767_552 // parts)] * parts
        state = rule.init(weights)
        call = lambda weights=weights, state=state: update(weights, state, weights)  # noqa: E731
        times[f"AdamW, {parts} arrays"] = [seconds(call) for _ in range(10)]
    for name, of in times.items():
        print(f"{name}: {1e3 * statistics.median(of[1:]):.0f} ms")


def main() -> None:
    names = sys.argv[1:]
    if not names:
        raise SystemExit(__doc__)
    if names == ["pieces"]:
        return pieces()
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        base = step({})
        for name in names:
            other = variant(name)
            pairs = [(base.steps(STEPS), other.steps(STEPS)) for _ in range(ROUNDS)]
            print(f"{name}: {statistics.median(a / b for a, b in pairs):.3f} ×", flush=True)


if __name__ == "__main__":
    main()
