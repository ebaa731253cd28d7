"""How XLA compiles: what it compiled is kept on disk, and its options for the training step.

The options go with the program and not into the environment, so a run does not depend on the shell that
starts it. One that the installed XLA does not know is an error that names it.
"""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

SEVERAL_GPUS = {
    "xla_gpu_enable_latency_hiding_scheduler": True,
    "xla_gpu_enable_while_loop_double_buffering": True,
}
"""Collectives behind arithmetic, across turns of the loop over layers. Of what JAX-Toolbox and MaxText
train Llama with on H100, what jaxlib 0.10 and 0.12 both know. Not measured by us."""


def keep_compiled() -> None:
    """Turn on JAX's persistent cache under `~/.cache/jaxtrain` (XDG_CACHE_HOME), unless one is set.

    `JAX_COMPILATION_CACHE_DIR` names another folder. Programs for a CPU are kept by its features: a home
    folder may be shared by machines that differ.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxtrain" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(base / machine()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def machine() -> str:
    """Architecture and features of this CPU."""
    info = Path("/proc/cpuinfo")
    features = ""
    if info.is_file():
        lines = info.read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def compiler_options(platform: str, devices: int) -> dict[str, Any]:
    """Of `jax.stages.Lowered.compile`. On one GPU, on CPUs and on TPUs the compiler's defaults."""
    return dict(SEVERAL_GPUS) if platform == "gpu" and devices > 1 else {}
