"""`jaxtrain convert FROM TO`: a model as another kind of folder, with its tokenizer, bit for bit.

A Hugging Face folder becomes an artifact, as a finished stage writes it; an artifact, a GGUF or a llama2.c
file becomes a Hugging Face folder, an artifact with adapters a PEFT folder. What was written is read again
and compared before it gets its name.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.publish import published
from jaxtrain.weights import folder as store
from jaxtrain.weights import huggingface, peft
from jaxtrain.weights.folder import Foreign, Source, Trained

PROBE = "Two words, 12 345 numbers;\n\n    naïve \N{SNOWMAN} <|end|></s>"


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """A Hugging Face folder becomes model.json, checkpoint/ and tokenizer/, as a finished stage has them; a
    finished stage, a GGUF file or a llama2.c .bin a Hugging Face folder; a fine-tuning with adapters a PEFT
    folder, with --merge a Hugging Face folder. What was written is read again and compared bit for bit."""

    source: str
    """Folder or file of any kind of model."""
    out: str
    """Folder to write; it must not exist."""
    merge: bool = False
    """Adapters become part of whole weights; else an artifact with adapters becomes a PEFT folder."""
    dtype: Literal["", "float32", "bfloat16"] = ""
    """Of the weights that are written; empty: the one that the source runs in."""


def convert(config: ConvertConfig) -> str:
    """Convert and say what was checked; UserError where the source is no model, or `out` exists."""
    out = Path(config.out)
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    source = store.open(config.source)
    meshes.ensure()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        said = _write(config, source, partial)
    except BaseException:
        shutil.rmtree(partial)
        raise
    partial.rename(out)
    return f"{out}: {said}"


def _write(config: ConvertConfig, source: Source, out: Path) -> str:
    """Write the folder `out` and read it again; what it is and what was compared."""
    tokenizer, words = _tokenizer(source)
    if isinstance(source, Trained) and source.has_adapters and not config.merge:
        lost = peft.without_module(store.load_adapters(source.folder), source.config)
        if not lost:
            return f"PEFT folder; {_write_adapters(config, source, tokenizer, out)}, {words}"
        words = f"{words}; PEFT has no module for one of {lost}"
    if isinstance(source, Trained) and source.has_adapters:
        words = f"{words}; adapters are merged into {_base(source)}"
    dtype = config.dtype or source.config.dtype
    model = source.load(dataclasses.replace(source.config, dtype=dtype), dtype)
    if _is_hugging_face(source):
        kind = "artifact"
        store.write_artifact(model, tokenizer, out)
    else:
        kind = "Hugging Face folder"
        huggingface.save(model, out, tokenizer)
    again = store.open(out)
    count = same_bits(model, again.load(model.config, dtype))
    if tokenizer is not None:
        theirs = published(again.tokenizer)
        if theirs.encode(PROBE) != tokenizer.encode(PROBE) or theirs.template != tokenizer.template:
            raise UserError("the tokenizer is not what was read; the copy is not to be used")
    return f"{kind}; read back, {count:,} weights in {dtype} are the same bit for bit, {words}"


def _is_hugging_face(source: Source) -> bool:
    return isinstance(source, Foreign) and source.format is huggingface


def _base(source: Trained) -> str:
    """What adapters learnt beside, and are merged into."""
    about = store.read_adapter(source.folder)
    kind = about["lora"].base_weights
    return f"{about['base']}" if kind == "model" else f"the {kind} numbers of {about['base']}"


def _tokenizer(source: Source) -> tuple[HuggingFaceTokenizer | None, str]:
    """The source's, as others read it; and what is said of it."""
    try:
        return published(source.tokenizer), "its tokenizer gives the same ids"
    except UserError as error:
        return None, f"without a tokenizer: {error}"


def _write_adapters(
    config: ConvertConfig, source: Trained, tokenizer: HuggingFaceTokenizer | None, out: Path
) -> str:
    """A PEFT folder on the base's Hugging Face folder, which is written into it where there is none yet."""
    adapters, about = store.load_adapters(source.folder), store.read_adapter(source.folder)
    base = store.open(about["base"])
    place = Path(config.out).absolute() / "base"
    if _is_hugging_face(base):
        place = base.folder.absolute()
    else:
        huggingface.save(base.load(weights=base.config.dtype), out / "base", _tokenizer(base)[0])
    peft.save(adapters, about["lora"], source.config, out, place)
    if tokenizer is not None:
        tokenizer.save(out)
    _, again = peft.load(out, base.load())
    return f"on {place}; read back, {same_bits(adapters, again):,} weights are the same bit for bit"


def same_bits(one: Any, other: Any) -> int:
    """How many weights two models have; UserError, naming the first, where any bit of them differs."""
    theirs = jax.tree.leaves(other)
    for (path, leaf), again in zip(jax.tree_util.tree_leaves_with_path(one), theirs, strict=True):
        if np.asarray(leaf).tobytes() != np.asarray(again).tobytes():
            raise UserError(f"{jax.tree_util.keystr(path)} is not what was read; the copy is not to be used")
    return sum(leaf.size for leaf in theirs)
