"""A mixture of experts: a router sends each token to a few MLPs. No token is ever dropped.

Experts are spread over the `expert` axis, and so are the rows of a batch: tokens travel to their experts and
back by all-to-all. Each device then multiplies its tokens, sorted by expert (`grouped.matmul`).

B batch, T time, D model, F hidden, E experts, C choices of a token, G groups, M = B·T·C rows of this device,
X devices of the `expert` axis, R = X·M rows that may come
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from jaxtrain.model import grouped
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.layers import MATMUL, MLP, Layout, add, gated, is_made, named_key, normal, project, zeros
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH

INTO, OUT = P("expert", "fsdp", "tensor"), P("expert", "tensor", "fsdp")
"""How an expert's matrices lie, into its hidden units and out of them."""
BIASES = (P("expert", "tensor"), P("expert", "tensor"), P("expert", None))
"""Of gate, up and down."""


class Experts(nnx.Module):
    """Sparsely gated MLPs (Shazeer et al. 2017) as in Mixtral (Jiang et al. 2024) or DeepSeek-V3 (2024)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        E, D, F = config.experts, config.d_model, config.d_hidden
        self.config = config
        self.router_DE = normal(key, "router", (D, E), P("fsdp", None), D**-0.5)
        self.gate_EDF = normal(key, "gate", (E, D, F), INTO, D**-0.5)
        self.up_EDF = normal(key, "up", (E, D, F), INTO, D**-0.5)
        self.down_EFD = normal(key, "down", (E, F, D), OUT, (2 * config.layers * F) ** -0.5)
        bias = lambda shape, spec: zeros(shape, spec) if config.mlp_bias else None  # noqa: E731
        self.router_bias_E = bias((E,), P(None))
        self.gate_bias_EF, self.up_bias_EF = bias((E, F), BIASES[0]), bias((E, F), BIASES[1])
        self.down_bias_ED = bias((E, D), BIASES[2])
        # of choosing alone, so no gradient reaches it
        self.choice_bias_E = zeros((E,), P(None)) if config.router == "sigmoid" else None
        wide = replace(config, d_hidden=F * config.shared_experts)
        self.shared = MLP(wide, named_key(key, "shared")) if config.shared_experts else None
        gate = normal(key, "shared_gate", (D, 1), P("fsdp", None), D**-0.5) if config.output_gates else None
        self.shared_gate_DX = gate if config.shared_experts else None

    def __call__(self, x_BTD: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x after its experts, and of every token the router's probabilities and choices [B, T, E]."""
        rows, config = P(BATCH, layout.time, None), self.config
        routed_BTD = x_BTD if self.choice_bias_E is None else x_BTD.astype(jnp.float32)  # as published
        logits_BTE = add(project("btd,de->bte", routed_BTD, self.router_DE, rows), self.router_bias_E)
        logits_BTE = logits_BTE.astype(jnp.float32)
        if config.router == "softmax":
            probability_BTE = jax.nn.softmax(logits_BTE, axis=-1)
            weight_BTC, choice_BTC = jax.lax.top_k(probability_BTE, config.experts_per_token)
        else:
            score_BTE = jax.nn.sigmoid(logits_BTE)
            choose = meshes.per_device(partial(_choose, config), (rows, P(None)), (rows, rows))
            bias_E = jnp.zeros(config.experts) if self.choice_bias_E is None else self.choice_bias_E[...]
            weight_BTC, choice_BTC = choose(score_BTE, bias_E)
            probability_BTE = score_BTE / jnp.sum(score_BTE, axis=-1, keepdims=True)
        if config.normalize_experts:
            weight_BTC = weight_BTC / jnp.sum(weight_BTC, axis=-1, keepdims=True)
        if config.experts_scale != 1.0:
            weight_BTC = weight_BTC * config.experts_scale
        weights = [self.gate_EDF, self.up_EDF, self.down_EFD]
        biases = [self.gate_bias_EF, self.up_bias_EF, self.down_bias_ED] if config.mlp_bias else []

        def of_device(x_BTD, weight_BTC, choice_BTC, gate_EDF, up_EDF, down_EFD, *biases):
            gate_bias_EF, up_bias_EF, down_bias_ED = biases or (None, None, None)
            B, T, D = x_BTD.shape
            C = choice_BTC.shape[-1]
            begun = jax.lax.stop_gradient(x_BTD[0, 0, 0])
            usual = B * T * C * 5 // 4  # of even use, and a quarter

            @partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(MATMUL))
            def experts(x_RD: jax.Array, counts_E: jax.Array) -> jax.Array:
                # What depends on weights alone JAX would gather before a pipeline's turns, for all layers.
                cut = jax.lax.optimization_barrier((gate_EDF, up_EDF, down_EFD, begun))[:3]
                whole = [
                    jax.lax.all_gather(w, "fsdp", axis=axis, tiled=True)
                    for w, axis in zip(cut, (1, 1, 2), strict=True)
                ]

                def matmul(x_R: jax.Array, weight: jax.Array, bias: jax.Array | None) -> jax.Array:
                    out_R = checkpoint_name(grouped.matmul(x_R, weight, counts_E, usual), MATMUL)
                    if bias is None:
                        return out_R
                    return out_R + jnp.repeat(bias, counts_E, axis=0, total_repeat_length=len(x_R))

                gate_RF, up_RF = map(partial(matmul, x_RD), whole[:2], (gate_bias_EF, up_bias_EF))
                # each device of `tensor` has a part of the sum, and so of the bias
                part_ED = None if down_bias_ED is None else down_bias_ED / jax.lax.axis_size("tensor")
                return matmul(gated(config, gate_RF, up_RF), whole[2], part_ED)

            x_MD = jnp.repeat(x_BTD.reshape(B * T, D), C, axis=0)
            if config.router == "sigmoid_in":
                x_MD = x_MD * weight_BTC.reshape(-1, 1).astype(x_MD.dtype)
                weight_BTC = jnp.ones_like(weight_BTC)
            out_MD = _dispatch(x_MD, choice_BTC.reshape(-1), config.experts, experts)
            out_BTD = jnp.einsum("btcd,btc->btd", out_MD.reshape(B, T, C, D), weight_BTC.astype(x_BTD.dtype))
            if layout.stream is not None and "tensor" in layout.stream:
                return jax.lax.psum_scatter(out_BTD, "tensor", scatter_dimension=1, tiled=True)
            return jax.lax.psum(out_BTD, "tensor")

        specs = (rows, rows, rows, INTO, INTO, OUT, *BIASES[: len(biases)])
        # the types of Pallas calls do not say what varies over the mesh
        check = meshes.platform() not in ("gpu", "cuda")
        run = meshes.per_device(of_device, specs, layout.between, check=check)

        def mixed(inputs: tuple[jax.Array, ...], weights: list[Any]) -> jax.Array:
            return run(*inputs, *(weight[...].astype(x_BTD.dtype) for weight in weights))

        if any(is_made(weight) for weight in weights):
            # numbers made of adapters or codes are made again on the way back, not kept
            mixed = jax.checkpoint(mixed, policy=jax.checkpoint_policies.save_only_these_names(MATMUL))
        out_BTD = mixed((x_BTD, weight_BTC, choice_BTC), weights + biases)
        if self.shared is not None:
            shared_BTD = self.shared(x_BTD, layout)
            if self.shared_gate_DX is not None:
                gate_BTX = jax.nn.sigmoid(project("btd,dx->btx", x_BTD, self.shared_gate_DX, rows))
                shared_BTD = shared_BTD * jax.sharding.reshard(gate_BTX, layout.between)
            out_BTD = out_BTD + shared_BTD
        chosen_BTE = jnp.sum(jax.nn.one_hot(choice_BTC, config.experts, dtype=jnp.float32), axis=-2)
        return out_BTD, probability_BTE, chosen_BTE


def _choose(config: ModelConfig, score_BTE: jax.Array, bias_E: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores and numbers of each token's experts [B, T, C]; the bias takes part in the choice alone."""
    biased_BTE = score_BTE + bias_E
    if config.expert_groups > 1:
        biased_BTGE = biased_BTE.reshape(*biased_BTE.shape[:2], config.expert_groups, -1)
        group_BTG = jnp.sum(jax.lax.top_k(biased_BTGE, 2)[0], axis=-1)
        best_BTX = jax.lax.top_k(group_BTG, config.groups_per_token)[1]
        is_open_BTG1 = jnp.any(jax.nn.one_hot(best_BTX, config.expert_groups, dtype=bool), axis=-2)[..., None]
        biased_BTE = jnp.where(is_open_BTG1, biased_BTGE, -jnp.inf).reshape(biased_BTE.shape)
    choice_BTC = jax.lax.top_k(biased_BTE, config.experts_per_token)[1]
    return jnp.take_along_axis(score_BTE, choice_BTC, axis=-1), choice_BTC


def imbalance(probability_BTE: jax.Array, chosen_BTE: jax.Array, real_BT: jax.Array) -> jax.Array:
    """E Σ_e f_e p_e over real tokens: 1 where the load is even (Fedus et al. 2021, eq. 4).

    f_e: share of the choices that fell on expert e; p_e: its mean probability.
    """
    weight_BT1 = real_BT.astype(jnp.float32)[..., None]
    share_E = jnp.sum(chosen_BTE * weight_BT1, axis=(0, 1))
    mean_E = jnp.sum(probability_BTE * weight_BT1, axis=(0, 1)) / jnp.maximum(jnp.sum(weight_BT1), 1)
    share_E = share_E / jnp.maximum(jnp.sum(share_E), 1)
    return share_E.shape[0] * jnp.sum(jax.lax.stop_gradient(share_E) * mean_E)


def places(counts_XE: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where each device's rows for each expert begin: there, and on the expert's device, both [X, E].

    counts_XE: their number. Both devices have rows sorted by expert, the second then by device.
    """
    before = lambda counts, axis: jnp.cumsum(counts, axis) - counts  # noqa: E731
    of_owners = counts_XE.sum(axis=0).reshape(counts_XE.shape[0], -1)
    return before(counts_XE, 1), before(of_owners, 1).reshape(-1) + before(counts_XE, 0)


def _dispatch(x_MD: jax.Array, expert_M: jax.Array, E: int, experts) -> jax.Array:
    """`experts(rows sorted by this device's experts, rows of each)` of every row, wherever its expert is.

    On accelerators each row is sent alone. XLA for CPUs exchanges parts of one size, M rows to each device.
    """
    X, M = jax.lax.axis_size("expert"), x_MD.shape[0]
    order_M = jnp.argsort(expert_M, stable=True)
    counts_E = jnp.zeros((E,), jnp.int32).at[expert_M].add(1)
    if X == 1:
        return jnp.zeros_like(x_MD).at[order_M].set(experts(x_MD[order_M], counts_E))
    here, own = jax.lax.axis_index("expert"), E // X
    counts_XE = jax.lax.all_gather(counts_E, "expert")
    begins_XE, lands_XE = places(counts_XE)
    of_own = lambda x_XE: jax.lax.dynamic_slice_in_dim(x_XE, here * own, own, axis=1)  # noqa: E731
    counts_own = of_own(counts_XE).sum(axis=0)
    empty_RD = jnp.zeros_like(x_MD, shape=(X * M, x_MD.shape[1]))
    if meshes.platform() != "cpu":
        send = partial(jax.lax.ragged_all_to_all, axis_name="expert")
        begins_E, lands_E = begins_XE[here], lands_XE[here]
        own_begins, own_lands, own_counts = (of_own(x).ravel() for x in (begins_XE, lands_XE, counts_XE))
        came_RD = send(x_MD[order_M], empty_RD, begins_E, counts_E, lands_E, own_counts)
        done_RD = experts(came_RD, counts_own)
        back_MD = send(done_RD, jnp.zeros_like(x_MD), own_lands, own_counts, own_begins, counts_E)
        return jnp.zeros_like(x_MD).at[order_M].set(back_MD)
    expert_M = expert_M[order_M]
    owner_M, behind_M = expert_M // own, jnp.arange(M) - begins_XE[here, expert_M]
    place_M = jnp.arange(M) - begins_XE[here, owner_M * own]
    exchange = lambda x: jax.lax.all_to_all(x, "expert", 0, 0, tiled=True)  # noqa: E731
    sent_XMD = jnp.zeros((X, *x_MD.shape), x_MD.dtype).at[owner_M, place_M].set(x_MD[order_M])
    lands_XM = jnp.full((X, M), X * M).at[owner_M, place_M].set(lands_XE[here, expert_M] + behind_M)
    lands_R = exchange(lands_XM).ravel()  # empty rows behind the last, where nothing is
    done_RD = experts(
        empty_RD.at[lands_R].set(exchange(sent_XMD).reshape(X * M, -1), mode="drop"), counts_own
    )
    back_XMD = exchange(done_RD.at[lands_R].get(mode="fill", fill_value=0).reshape(X, M, -1))
    return jnp.zeros_like(x_MD).at[order_M].set(back_XMD[owner_M, place_M])
