"""`jaxtrain convert FROM TO`: weights between artifacts, Hugging Face folders and llama2.c, bit for bit.

A Hugging Face folder becomes `model.json` and `checkpoint/`, as a finished stage has them; an artifact or a
llama2.c file becomes a Hugging Face folder, an artifact with adapters a PEFT folder. What was written is read
again and compared.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights import folder as store
from jaxtrain.weights import peft
from jaxtrain.weights.huggingface import load_pretrained, save_pretrained
from jaxtrain.weights.llama2c import load_llama2c


def convert(source: str | Path, out: str | Path) -> str:
    """Convert and say what was checked; UserError where the source is no model, or `out` exists."""
    source, out = Path(source), Path(out)
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    if not source.exists():
        raise UserError(f"{source} does not exist")
    meshes.ensure()
    if (source / store.ADAPTER).is_file():
        about = store.read_adapter(source)
        adapters = store.load_adapters(source)
        peft.save(adapters, about["lora"], store.read_config(source), out, about["base"])
        _, again = peft.load(out, store.load(about["base"]))
        count = same_bits(adapters, again)
        return f"{out}: PEFT folder on {about['base']}; read back, {count:,} weights are the same bit for bit"
    if (source / "config.json").is_file():
        model = load_pretrained(source)
        _write_artifact(model, out)
        again, kind = store.load(out), "artifact"
    else:
        model = load_llama2c(source) if source.is_file() else store.load(source)
        save_pretrained(model, out)
        again, kind = load_pretrained(out), "Hugging Face folder"
    count = same_bits(model, again)
    return f"{out}: {kind}; read back, {count:,} weights are the same bit for bit"


def same_bits(one: Any, other: Any) -> int:
    """How many weights two models have; UserError, naming the first, where any bit of them differs."""
    theirs = jax.tree.leaves(other)
    for (path, leaf), again in zip(jax.tree_util.tree_leaves_with_path(one), theirs, strict=True):
        if np.asarray(leaf).tobytes() != np.asarray(again).tobytes():
            raise UserError(f"{jax.tree_util.keystr(path)} is not what was read; the copy is not to be used")
    return sum(leaf.size for leaf in theirs)


def _write_artifact(model: Transformer, out: Path) -> None:
    out.mkdir(parents=True)
    store.write_config(out, model.config)
    checkpoints = Checkpoints(out.absolute() / "checkpoint")
    checkpoints.save(0, model, {"step": jax.numpy.int32(0)})
    checkpoints.close()
