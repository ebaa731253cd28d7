"""Options of XLA for the training step, by what it is compiled for.

They go with the program and not into the environment, so a run does not depend on the shell that starts it.
An option that the installed XLA does not know is an error that names it.
"""

from typing import Any

SEVERAL_GPUS = {
    "xla_gpu_enable_latency_hiding_scheduler": True,
    "xla_gpu_enable_while_loop_double_buffering": True,
}
"""Collectives behind arithmetic, across turns of the loop over layers. Of what JAX-Toolbox and MaxText
train Llama with on H100, what jaxlib 0.10 and 0.12 both know. Not measured by us."""


def compiler_options(platform: str, devices: int) -> dict[str, Any]:
    """Of `jax.stages.Lowered.compile`. On one GPU, on CPUs and on TPUs the compiler's defaults."""
    return dict(SEVERAL_GPUS) if platform == "gpu" and devices > 1 else {}
