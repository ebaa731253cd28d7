"""Our train step beside PyTorch's, in turn in one run, and beside the best matmul of either.

PEER=.venv-peers/bin/python; JAX_NUM_CPU_DEVICES=2 and --devices 2 give each core a device
python benchmarks/train_step.py --torch $PEER                              the peer's default shape, on CPUs
python benchmarks/train_step.py --torch $PEER --length 1024 --batch 4
python benchmarks/train_step.py --torch $PEER --bf16 --preset 1b           on a GPU: 124m, 350m, 1b

The same decoder (Llama's shape, without qk-norm), float32 unless --bf16, AdamW, clipped gradients, one
document a row; ours is the step of the training stages with its guard. Figures are medians over rounds, the
ratio that of pairs.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from record import record

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import cost
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.train.step import make_step

SHAPE = {"layers": 6, "width": 384, "heads": 6, "hidden": 1024, "vocab": 4096, "length": 256, "batch": 16}
PRESETS = {
    "cpu": SHAPE,
    "124m": {
        **SHAPE,
        "layers": 12,
        "width": 768,
        "heads": 12,
        "hidden": 2048,
        "vocab": 50304,
        "length": 1024,
        "batch": 64,
    },
    "350m": {
        **SHAPE,
        "layers": 24,
        "width": 1024,
        "heads": 16,
        "hidden": 2736,
        "vocab": 50304,
        "length": 1024,
        "batch": 32,
    },
    "1b": {
        **SHAPE,
        "layers": 20,
        "width": 2048,
        "heads": 16,
        "hidden": 5632,
        "vocab": 32768,
        "length": 2048,
        "batch": 8,
    },
}


class Ours:
    """Our step on random tokens."""

    def __init__(self, shape: dict[str, int], bf16: bool, float8: bool, remat: str, scan: bool, packed: bool):
        heads = shape["heads"]
        self.model = ModelConfig(
            vocab_size=shape["vocab"],
            layers=shape["layers"],
            d_model=shape["width"],
            heads=heads,
            kv_heads=heads,
            head_dim=shape["width"] // heads,
            d_hidden=shape["hidden"],
            max_length=shape["length"],
            qk_norm=False,
            dtype="bfloat16" if bf16 else "float32",
            float8=float8,
            remat=remat,
            scan=scan,
        )
        rule = optimizers.make(OptimizerConfig(lr=1e-3), 1000)
        size = (shape["batch"], shape["length"])
        rows = np.random.default_rng(0).integers(0, shape["vocab"], (size[0], size[1] + 1)).astype(np.int32)
        batch = {
            "tokens": rows[:, :-1],
            "targets": rows[:, 1:],
            "positions": np.tile(np.arange(size[1], dtype=np.int32), (size[0], 1)),
            "loss_weights": np.ones(size, np.float32),
            "segment_ids": np.ones(size, np.int32),
        }
        self.batch = meshes.put_batch(batch, jax.sharding.get_mesh())
        if not packed:  # one document a row: more kernels can do that
            self.batch["segment_ids"] = None
        self.state = jax.jit(initializer(partial(Transformer, self.model), rule, 0))()
        step = make_step(partial(token_loss, z_loss=0.0), rule)
        begun = time.perf_counter()
        self.compiled = step.lower(self.state, self.batch).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.steps(3)

    def steps(self, count: int) -> float:
        """Seconds a step."""
        begun = time.perf_counter()
        for _ in range(count):
            self.state, metrics = self.compiled(self.state, self.batch)
        self.loss = float(metrics["loss"])
        return (time.perf_counter() - begun) / count

    def matmul(self) -> float:
        """FLOP/s of [B·T, D] by [D, 2F], the best of several."""
        rows, width, hidden = self.batch["tokens"].size, self.model.d_model, 2 * self.model.d_hidden
        left, right = (jnp.ones(size, self.model.dtype) for size in ((rows, width), (width, hidden)))
        product = jax.jit(jnp.matmul)
        best = float("inf")
        for _ in range(8):
            begun = time.perf_counter()
            product(left, right).block_until_ready()
            best = min(best, time.perf_counter() - begun)
        return 2 * rows * width * hidden / best


class Peer:
    """PyTorch in a process of its own, which waits while ours works."""

    def __init__(self, python: str, shape: dict[str, int], bf16: bool):
        script = str(record.__globals__["RESULTS"].parent / "peers" / "torch_gpt.py")
        flags = [f"--{name}={value}" for name, value in shape.items()] + ["--bf16"] * bf16
        self.process = subprocess.Popen(
            [python, script, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def steps(self, count: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--torch", default="", help="a Python with torch; without it ours alone is measured")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    for name in SHAPE:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="a round")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--float8", action="store_true", help="the blocks' matmuls take 8-bit numbers")
    parser.add_argument(
        "--packed", action="store_true", help="rows with segment ids, as the stages make them"
    )
    parser.add_argument("--unroll", action="store_true")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--devices", type=int, default=1, help="on a CPU with JAX_NUM_CPU_DEVICES set")
    parser.add_argument("--name", default="", help="of the file in benchmarks/results")
    asked = parser.parse_args()
    given = {name: getattr(asked, name) for name in SHAPE if getattr(asked, name) is not None}
    shape = {**PRESETS[asked.preset], **given}
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[: asked.devices])):
        peer = Peer(asked.torch, shape, asked.bf16) if asked.torch else None
        ours = Ours(shape, asked.bf16, asked.float8, asked.remat, not asked.unroll, asked.packed)
        pairs = []
        for _ in range(asked.rounds):
            theirs = peer.steps(asked.steps) if peer else float("nan")
            pairs.append((ours.steps(asked.steps), theirs))
        ceiling = max(ours.matmul(), peer.about["matmul"] if peer else 0)
        if peer:
            peer.close()
    found = summary(ours, shape, pairs, ceiling)
    if peer:
        found["torch"] = {name: peer.about[name] for name in ("torch", "parameters", "matmul")}
    found = {"shape": shape, "devices": asked.devices, "bf16": asked.bf16, "packed": asked.packed, **found}
    name = asked.name or f"train_step_{asked.preset}_{shape['length']}"
    record(name, ["jax", "jaxlib"], found)


def summary(
    ours: Ours, shape: dict[str, int], pairs: list[tuple[float, float]], ceiling: float
) -> dict[str, Any]:
    tokens = shape["batch"] * shape["length"]
    seconds = statistics.median(mine for mine, _ in pairs)
    theirs = statistics.median(peer for _, peer in pairs)
    model = ours.model
    flops = model.flops_per_token()
    peak = cost.device(jax.devices()[0].device_kind)[0]
    rate = tokens * flops / seconds
    return {
        "device": jax.devices()[0].device_kind,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(ours.state.model)),
        "tokens_per_second": round(tokens / seconds),
        "peer_tokens_per_second": None if theirs != theirs else round(tokens / theirs),
        "ratio": None if theirs != theirs else round(statistics.median(b / a for a, b in pairs), 3),
        "ratio_lowest_highest": [round(f(b / a for a, b in pairs), 3) for f in (min, max)],
        "matmul_ceiling_gflops": round(ceiling / 1e9),
        "share_of_ceiling": round(rate / ceiling, 3),
        "mfu": None if peak is None else round(rate / peak, 3),
        "compile_seconds": round(ours.compile_seconds, 1),
        "settings": {
            name: dataclasses.asdict(model)[name]
            for name in ("remat", "scan", "attention", "dtype", "float8")
        },
    }


if __name__ == "__main__":
    main()
