"""The step on 1 to 8 emulated devices at fixed work a device: what sharding costs beside the work itself.

python benchmarks/scaling.py

Emulated devices share the cores, so wall time must grow with their number; processor seconds of a step over
the number of devices would stay the same if sharding were free. Mesh: fsdp.
"""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "8"

import time

import jax
from record import record
from train_step import SHAPE, Ours

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig

ROWS = 2  # of each device
STEPS = 2


def main() -> None:
    found = {}
    for n in (1, 2, 4, 8):
        with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:n])):
            ours = Ours({**SHAPE, "layers": 2, "batch": ROWS * n}, False, "none", True, False)
            cpu, wall = time.process_time(), time.perf_counter()
            ours.steps(STEPS)
            cpu, wall = (
                (now - then) / STEPS
                for now, then in ((time.process_time(), cpu), (time.perf_counter(), wall))
            )
        found[str(n)] = {"cpu_seconds": cpu, "wall_seconds": wall, "cpu_seconds_a_device": cpu / n}
    overhead = found["8"]["cpu_seconds_a_device"] / found["1"]["cpu_seconds_a_device"]
    shape = {**SHAPE, "layers": 2, "rows_a_device": ROWS}
    record("scaling", ["jax", "jaxlib"], {"shape": shape, "devices": found, "overhead_at_8": overhead})


if __name__ == "__main__":
    main()
