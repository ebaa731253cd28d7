"""How fast a run is against what its devices can do, and how much of their memory it takes."""

from typing import Any

import jax

from jaxtrain.runtime.errors import UserError


def speed(
    tokens_per_second: float, flops_per_token: float | None, peak: float | None
) -> dict[str, float | None]:
    """Tokens a second, FLOP/s and model FLOPs utilisation, each of one device.

    flops_per_token: (6 · N_matmul + 6 · L · T · D): forward and backward of every matmul weight, causal
    attention counted once (`cost.flops_per_token`). Work done again in the backward pass to save memory does
    not count. peak: FLOP/s of one device; MFU is None where it is unknown.
    """
    each = tokens_per_second / jax.device_count()
    found: dict[str, float | None] = {"tokens_per_second_per_device": each}
    if flops_per_token is not None:
        found["tflops_per_device"] = each * flops_per_token / 1e12
        found["mfu"] = None if peak is None else each * flops_per_token / peak
    return found


def peak_memory() -> int | None:
    """Most bytes that were ever in use on the fullest of this process's devices; None on CPUs."""
    found = [device.memory_stats() for device in jax.local_devices()]
    return max((stats["peak_bytes_in_use"] for stats in found if stats), default=None)


def explain_out_of_memory(error: Exception, compiled: Any, microbatches: int) -> UserError:
    """What took the memory of a device, and what to change.

    compiled: the step, whose memory analysis gives the numbers; None where compiling it failed.
    """
    advice = (
        f"microbatches {microbatches} -> {2 * microbatches} halves the activations; "
        "twice mesh.fsdp halves weights, gradients and optimizer; or take a smaller batch_size or length"
    )
    sizes = compiled.memory_analysis() if compiled is not None else None
    if sizes is None:
        first = str(error).splitlines()[0][:300]
        return UserError(f"out of memory before the first step ({first}); {advice}")
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    have = "" if limit is None else f" of {_gib(limit)}"
    held, working = sizes.argument_size_in_bytes, sizes.temp_size_in_bytes
    return UserError(
        f"out of memory: the step needs {_gib(held + working)}{have} a device: {_gib(held)} for weights, "
        f"optimizer and batch, {_gib(working)} for activations and gradients; {advice}"
    )


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
