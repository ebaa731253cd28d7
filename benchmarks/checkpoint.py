"""How long a save keeps the training loop waiting, and how fast it writes.

python benchmarks/checkpoint.py            writes benchmarks/results/checkpoint.json

A state of a given size is saved in the background, saved while waiting, and its bytes are written to a plain
file, in turn, several times; medians. "Blocked" is the time until `Checkpoints.save` returns.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.runtime import mesh
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.mesh import MeshConfig

RESULTS = Path(__file__).parent / "results" / "checkpoint.json"


def timed(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(folder: Path, megabytes: int, rounds: int) -> dict:
    """Seconds of each way, a list a round."""
    leaves = 24
    size = megabytes * 1_000_000 // 4 // leaves // 1024
    state = {f"w{i}": jax.random.normal(jax.random.key(i), (1024, size)) for i in range(leaves)}
    jax.block_until_ready(state)
    checkpoints = Checkpoints(folder / "checkpoint")

    def save(step: int) -> float:
        return timed(lambda: checkpoints.save(step, state, {"step": jnp.int32(step)}))

    found: dict[str, list[float]] = {"blocked": [], "background": [], "waiting": [], "plain": []}
    for step in range(1, 2 * rounds + 1, 2):
        found["blocked"].append(save(step))
        found["background"].append(timed(checkpoints.wait))
        found["waiting"].append(save(step + 1) + timed(checkpoints.wait))
        found["plain"].append(timed(lambda: plain_write(folder / "plain.bin", state)))
    checkpoints.close()
    return found


def plain_write(path: Path, state: dict[str, jax.Array]) -> None:
    with path.open("wb") as file:
        for leaf in state.values():
            file.write(np.asarray(leaf).data)
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="disk to measure; a temporary folder by default")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        jax.set_mesh(mesh.make(MeshConfig())),
    ):
        seconds = measure(Path(folder), options.megabytes, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "command": f"benchmarks/checkpoint.py --megabytes {options.megabytes} --rounds {options.rounds}",
        "machine": f"{len(os.sched_getaffinity(0))} CPU cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("jax", "orbax-checkpoint")},
        "megabytes": options.megabytes,
        "seconds": seconds,
        "median_seconds": median,
        "blocked_share_of_waiting": median["blocked"] / median["waiting"],
        "megabytes_per_second": {
            "checkpoint, checksums included": options.megabytes / median["waiting"],
            "plain write and fsync": options.megabytes / median["plain"],
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name] for name in result if name != "seconds"}, indent=2))


if __name__ == "__main__":
    main()
