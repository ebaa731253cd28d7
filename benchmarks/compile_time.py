"""Compile time of the train step against layers, and how soon a second start of the quickstart trains.

python benchmarks/compile_time.py              runs/quickstart/3_tokenize must stand for the second part

Layers are a scanned stack, so their number should not matter. The second part runs the pretraining config in
two processes, one after the other, with an empty compilation cache before the first: seconds from the end of
the imports to the end of step 1, and what the cache had.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from record import record

from jaxtrain import config as configs
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH, MeshConfig
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer
from jaxtrain.train.step import CompiledStep, make_step

ROOT = Path(__file__).parents[1]


def compiled_in(layers: int, scan: bool) -> dict[str, float]:
    """Seconds to trace and lower, and to compile, the step of a model of quickstart's width."""
    model = ModelConfig(layers=layers, scan=scan)
    rule = optimizers.make(OptimizerConfig(), 100)
    mesh = meshes.make(MeshConfig(), jax.devices()[:1])
    cut = NamedSharding(mesh, P(BATCH, "context"))
    names = ("tokens", "targets", "positions", "segment_ids", "loss_weights")
    batch = {
        name: jax.ShapeDtypeStruct(
            (16, 256), jnp.float32 if name == "loss_weights" else jnp.int32, sharding=cut
        )
        for name in names
    }
    with jax.set_mesh(mesh):
        begun = time.perf_counter()
        state = meshes.abstract(initializer(partial(Transformer, model), rule, 0), mesh)
        lowered = make_step(partial(token_loss, z_loss=1e-4), rule).lower(state, batch)
        lowering = time.perf_counter() - begun
        cpu, begun = time.process_time(), time.perf_counter()
        lowered.compile()
        seconds = time.perf_counter() - begun
    return {"lower": lowering, "compile": seconds, "compile_cpu_seconds": time.process_time() - cpu}


def start(data: str) -> None:
    """In a process of its own: the quickstart's pretraining up to step 1."""
    from jaxtrain.pretrain import run

    seen: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda name, **_: seen.update([name]))
    config = configs.load(ROOT / "configs" / "quickstart" / "4_pretrain.py")
    begun = time.perf_counter()
    call = CompiledStep.__call__

    def first(self, state, batch):
        jax.block_until_ready(call(self, state, batch))
        found = {name: seen[f"/jax/compilation_cache/cache_{name}"] for name in ("hits", "misses")}
        print(json.dumps({"seconds": time.perf_counter() - begun, **found}), flush=True)
        os._exit(0)

    CompiledStep.__call__ = first
    with tempfile.TemporaryDirectory() as folder:
        run.run(configs.override(config, ["--data", data, "--out", f"{folder}/out"]))


def starts(data: str) -> list[dict[str, float]]:
    """The first and the second start with the same cache."""
    found = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, __file__, "--start", data],
                env={**os.environ, "XDG_CACHE_HOME": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--data", default=str(ROOT / "runs" / "quickstart" / "3_tokenize"))
    parser.add_argument("--start", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.start:
        start(asked.start)
        return
    compiled_in(2, True)  # JAX's own first-time work
    layers = {f"{n} layers, scanned": compiled_in(n, True) for n in (4, 16, 64)}
    layers["4 layers, unrolled"] = compiled_in(4, False)
    few, many = (layers[f"{n} layers, scanned"] for n in (4, 64))
    found = {
        "layers": layers,
        "more_for_16_times_the_layers": (many["lower"] + many["compile"]) / (few["lower"] + few["compile"])
        - 1,
        "starts": starts(asked.data),
    }
    record("compile_time", ["jax", "jaxlib"], found)


if __name__ == "__main__":
    main()
