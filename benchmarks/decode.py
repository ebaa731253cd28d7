"""Tokens a second of decoding: beside transformers.generate, batched continuously, and of memory bandwidth.

python benchmarks/decode.py --peer .venv-peers/bin/python     writes benchmarks/results/decode.json

Both sides decode greedily behind prompts of 16 tokens with the same weights in float32, in turns, several
times; a result is the median. The peer runs in its own process (benchmarks/peers/decode_transformers.py).
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from record import record

from jaxtrain.decode.generate import generate
from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh
from jaxtrain.weights import save_pretrained

SHAPES = {
    "quickstart": ModelConfig(qk_norm=False),
    "smollm2-135m": ModelConfig(
        vocab_size=49152,
        layers=30,
        d_model=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        d_hidden=1536,
        tied=True,
        qk_norm=False,
        rope_theta=100_000.0,
        max_length=2048,
    ),
}
PROMPT, PEER = 16, Path(__file__).parent / "peers" / "decode_transformers.py"


def ours(model: Transformer, rows: int, new: int) -> float:
    """Seconds of one call, compiled before."""
    prompt = jnp.asarray(
        np.random.default_rng(0).integers(1, model.config.vocab_size, (rows, PROMPT)), jnp.int32
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(rows))
    call = lambda: generate(  # noqa: E731
        model, prompt, jnp.ones_like(prompt), keys, max_new=new, temperature=0.0, stop=-1, pad=0
    )
    jax.block_until_ready(call())
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begun


def continuous(model: Transformer, rows: int) -> dict[str, float]:
    """Lengths of 4 to 64 tokens in the same number of rows: batches that wait for their longest, or not."""
    lengths = [4 * n for n in np.random.default_rng(0).integers(1, 17, 6 * rows).tolist()]

    def request(n: int, seed: int) -> Request:
        return Request(prompt=[5] * PROMPT, max_new=n, settings=Settings(temperature=0), seed=seed)

    scheduler = Scheduler(model, rows=rows, max_length=256)
    scheduler.complete([request(2, 0)] * rows)
    begun = time.perf_counter()
    scheduler.complete([request(n, i) for i, n in enumerate(lengths)])
    refilled = time.perf_counter() - begun
    begun = time.perf_counter()
    for first in range(0, len(lengths), rows):
        scheduler.complete([request(n, i) for i, n in enumerate(lengths[first : first + rows])])
    static = time.perf_counter() - begun
    return {"static_seconds": static, "continuous_seconds": refilled, "ratio": static / refilled}


def bandwidth() -> float:
    """Bytes a second that a copy of 256 MB reads and writes."""
    source = np.ones(1 << 26, np.float32)
    target = np.empty_like(source)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begun)
    return 2 * source.nbytes / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=".venv-peers/bin/python")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="decode", help="of the file in benchmarks/results")
    options = parser.parse_args()
    mesh.ensure()
    copied = bandwidth()
    found: dict[str, object] = {"command": "python benchmarks/decode.py", "copy_bytes_per_second": copied}
    for name in options.shapes:
        model = jax.jit(lambda config=SHAPES[name]: Transformer(config, jax.random.key(0)))()
        size = sum(weight.nbytes for weight in jax.tree.leaves(model))
        with tempfile.TemporaryDirectory() as folder:
            save_pretrained(model, folder)
            arguments = [options.peer, str(PEER), folder, str(PROMPT), str(options.new)]
            with subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as peer:
                assert peer.stdin is not None and peer.stdout is not None
                results = {}
                for rows in options.rows:
                    times: dict[str, list[float]] = {"ours": [], "transformers": []}
                    for _ in range(options.rounds):
                        times["ours"].append(ours(model, rows, options.new))
                        print(rows, file=peer.stdin, flush=True)
                        times["transformers"].append(json.loads(peer.stdout.readline()))
                    mine, theirs = (float(np.median(times[side])) for side in times)
                    results[f"batch {rows}"] = {
                        "tokens_per_second": rows * options.new / mine,
                        "transformers_tokens_per_second": rows * options.new / theirs,
                        "ratio": theirs / mine,
                        "share_of_copy_bandwidth": size * options.new / mine / copied,
                    }
                peer.stdin.close()
        found[name] = results
    found["continuous batching, quickstart, 8 rows"] = continuous(
        jax.jit(lambda: Transformer(SHAPES["quickstart"], jax.random.key(0)))(), 8
    )
    record(options.name, ["jax", "jaxlib"], found)


if __name__ == "__main__":
    main()
