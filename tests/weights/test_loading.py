"""What the host needs to load a model: memory for its largest tensor, not for a second model.

On a CPU the weights themselves lie in the host's memory, so what counts is the peak beyond them.
"""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.weights import save_pretrained

LARGE = ModelConfig(
    **{"vocab_size": 16_384, "layers": 9, "d_model": 1024, "heads": 16, "kv_heads": 16, "head_dim": 64},
    d_hidden=4096,
    tied=False,
)
LARGEST = 16_384 * 1024 * 4
"""Bytes of its largest tensor, the embedding, in float32."""

LOAD = """
import json, sys
import jax
from jaxtrain.weights import load_pretrained
from jaxtrain.runtime import mesh as meshes

folder, small, fsdp = sys.argv[1], sys.argv[2], int(sys.argv[3])
with jax.set_mesh(meshes.make(meshes.MeshConfig(fsdp=fsdp), jax.devices()[:fsdp])):
    load_pretrained(small)  # what is compiled, imported and set up once
    before = int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) * 1024
    model = jax.block_until_ready(load_pretrained(folder))
print(json.dumps({"before": before, "weights": sum(leaf.nbytes for leaf in jax.tree.leaves(model))}))
"""


def peak_of(process):
    """Bytes of a process's own pages at their most; those of mapped files the kernel takes back at will."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+)", status.read_text())
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.002)
    return peak


def write(config, dtype, folder):
    """A folder of several files, all weights the same number."""
    with jax.set_mesh(meshes.make(meshes.MeshConfig(), jax.devices()[:1])):
        shapes = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
        model = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5, dtype), shapes)
        save_pretrained(model, folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "fsdp"), [("float32", 1), ("bfloat16", 1), ("float32", 8)])
def test_loading_needs_the_largest_tensors_beside_the_model(
    dtype, fsdp, tmp_path, monkeypatch, record_property
):
    monkeypatch.setattr("jaxtrain.weights.huggingface.FILE_BYTES", 100_000_000)
    write(LARGE, dtype, tmp_path / "large")
    write(dataclasses.replace(LARGE, vocab_size=64, d_model=64, d_hidden=64), dtype, tmp_path / "small")
    assert len(list((tmp_path / "large").glob("*.safetensors"))) >= 4
    command = [sys.executable, "-c", LOAD, tmp_path / "large", tmp_path / "small", str(fsdp)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = peak_of(process)
        found = json.loads(process.stdout.read().splitlines()[-1])
    assert found["weights"] > 700e6
    beyond = peak - found["before"] - found["weights"]
    assert beyond < 3 * LARGEST, (found, peak)  # as read, turned, and cast
