"""What XLA compiled is kept on disk, so that a restart does not compile again."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def keep_compiled() -> None:
    """Turn on JAX's persistent cache under `~/.cache/jaxtrain` (XDG_CACHE_HOME), unless one is set.

    `JAX_COMPILATION_CACHE_DIR` names another folder. Programs for a CPU are kept by its features: a home
    folder may be shared by machines that differ.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxtrain" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(base / _machine()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    features = ""
    if info.is_file():
        lines = info.read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
