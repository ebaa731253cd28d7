"""`jaxtrain doctor`: what is installed, which devices there are, and what to do about what is missing."""

import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax
from rich.console import Console

import jaxtrain
from jaxtrain import config as configs
from jaxtrain.model import kernels
from jaxtrain.model.config import ModelConfig
from jaxtrain.runtime import mesh as meshes

DRIVERS = {"cuda": "/dev/nvidiactl", "tpu": "/dev/accel0"}
"""Extra by the device file of what it is for."""
FOR_DEVELOPERS = ("dev", "test")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Looks at this machine; changes nothing."""

    length: int = 1024
    """Tokens of a row, for the choice of the attention kernel."""


def show(config: DoctorConfig) -> None:
    """Print what there is, a line a thing."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    packages = ("jax", "jaxlib", "flax", "optax")
    rows = {
        "jaxtrain": jaxtrain.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in packages),
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GB of memory, {free:.0f} GB free on this disk",
        "devices": _devices(),
        **_training(config.length),
        **{f"extra {extra}": state for extra, state in _extras().items()},
    }
    for name, said in rows.items():
        console.print(f"{name:<18}{said}")


def _devices() -> str:
    devices = jax.devices()
    said = f"{len(devices)} × {devices[0].device_kind} ({jax.default_backend()})"
    if limit := (devices[0].memory_stats() or {}).get("bytes_limit"):
        said += f", {limit / 2**30:.0f} GiB each"
    for extra, file in DRIVERS.items():
        if jax.default_backend() == "cpu" and Path(file).exists():
            said += f"; {file} is there, but JAX does not use it: `pip install 'jaxtrain[{extra}]'`"
    return said


def _training(length: int) -> dict[str, str]:
    on_cpu = jax.default_backend() == "cpu"
    dtype = "float32" if on_cpu else "bfloat16"
    model = ModelConfig(dtype=dtype)
    meshes.ensure()
    kernel = kernels.choose(model, 0, length, packed=True)
    advice = "the default" if on_cpu else "set train.dtype; models are float32 unless they say otherwise"
    return {"dtype": f"{dtype} ({advice})", "attention": f"{kernel}, for packed rows of {length} tokens"}


def _extras() -> dict[str, str]:
    """What each extra lacks, and how to install it."""
    missing: dict[str, list[str]] = {}
    for package, inner, extra in configs.extras():
        missing.setdefault(extra, []).extend(_lacking(package, inner))
    return {
        extra: f"`pip install 'jaxtrain[{extra}]'` for {', '.join(packages)}" if packages else "installed"
        for extra, packages in missing.items()
        if extra not in FOR_DEVELOPERS
    }


def _lacking(package: str, inner: str) -> list[str]:
    """What is not installed of a package and of what its own extra asks for."""
    try:
        lines = metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return [package]
    asked = [line for line in lines if inner and re.search(rf"extra == .{inner}\W", line)]
    names = (re.split(r"[^\w.-]", line)[0] for line in asked)
    return [lacking for name in dict.fromkeys(names) for lacking in _lacking(name, "")]
