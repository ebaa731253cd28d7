"""Weights in and out: folders of config.json and safetensors, as `transformers` reads and writes them.

A tensor at a time goes from the file to the devices that hold its parts, and back: the host needs memory for
the largest tensor (as read, turned and cast), not for the model. Nothing is unpickled.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.quantized import Kind, quantized
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import publish, read_object, reading
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import config_json
from jaxtrain.weights.families import Family
from jaxtrain.weights.tensors import Part, name_of, parts, tensors, to_theirs

CONFIG, INDEX, WHOLE = "config.json", "model.safetensors.index.json", "model.safetensors"
FILE_BYTES = 2 << 30
"""Tensors of one safetensors file, bytes; also what the host holds while writing."""
BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Tensors that old folders carry and that are computed."""
BLOCKS, SCALES = "_blocks", "_scales"
HEADS = ("lm_head.weight", "embed_out.weight")


def load(folder: str | Path, dtype: str = "float32", held: Kind = "model") -> Transformer:
    """The model of a Hugging Face folder, on the mesh that is set (one device where none is).

    dtype: of weights and activations, `float32` or `bfloat16`. held: the matrices of blocks, as codes or in
    `dtype` (`model`).
    Errors: UserError naming the architecture, field or tensor that is unknown, missing, extra or misshapen.
    """
    folder = Path(folder)
    said = read_object(folder / CONFIG)
    family, config = config_json.read_config(said, str(folder / CONFIG))
    files = tensor_files(folder)
    names = _canonical(family, set(files), str(folder))
    more = said.get(family.predicted)
    names = _without_predicted(names, config.layers, more if type(more) is int else 0, str(folder))
    packed = {name.removesuffix(BLOCKS) for name in names if name.endswith(BLOCKS)}

    def read(name: str) -> np.ndarray:
        if name not in packed:
            return files[names[name]].get_tensor(names[name])
        blocks, scales = (read(name + end) for end in (BLOCKS, SCALES))
        return np.swapaxes(from_mxfp4(blocks, scales), 1, 2)

    left = {name for name in names if not name.endswith((BLOCKS, SCALES))}
    return load_tensors(family, config, left | packed, read, dtype, str(folder), held)


def from_mxfp4(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 [..., outputs, inputs] of MXFP4 (OCP Microscaling Formats 1.0): 32 E2M1 numbers to a scale.

    blocks: uint8 [..., outputs, groups, 16], two numbers a byte, the lower half first. scales: uint8
    [..., outputs, groups], exponents of two above −127.
    """
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    table = np.concatenate([values, -values])
    pairs = np.stack([table[blocks & 15], table[blocks >> 4]], axis=-1)
    scale = np.ldexp(np.float32(1), scales.astype(np.int32) - 127)[..., None, None]
    return (pairs * scale).reshape(*blocks.shape[:-2], -1)


def knows(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def read_config(folder: str | Path) -> ModelConfig:
    """The ModelConfig of a Hugging Face folder; UserError where it is of no known architecture.

    Its dtype is the folder's; a folder in float16 runs in float32, which holds its numbers.
    """
    path = Path(folder) / CONFIG
    said = read_object(path)
    config = config_json.read_config(said, str(path))[1]
    with reading(path):
        said |= said.get("text_config") or {}
    half = (said.get("dtype") or said.get("torch_dtype")) == "bfloat16"
    return dataclasses.replace(config, dtype="bfloat16" if half else "float32")


def read_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def load_tensors(
    family: Family,
    config: ModelConfig,
    names: set[str],
    read: Callable[[str], np.ndarray],
    dtype: str,
    where: str,
    held: Kind = "model",
) -> Transformer:
    """The model whose tensors are `names`, given by `read(name)`; each goes to its devices at once."""
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype {dtype!r} is not float32 or bfloat16")
    meshes.ensure()
    wanted, config = parts(family, config), dataclasses.replace(config, dtype=dtype)
    _check_names(config, wanted, names, where)
    mesh = jax.sharding.get_mesh()
    abstract = meshes.abstract(lambda: Transformer(config, jax.random.key(0)), mesh)
    leaves, tree = jax.tree_util.tree_flatten_with_path(abstract)
    by_ours = {part.ours: part for part in wanted}
    filled = []
    for path, leaf in leaves:
        part = by_ours[name_of(path)]
        weight = None
        for index, tensor_name in tensors(part, config):
            piece = part.to_ours(read(tensor_name), leaf.shape[len(index) :], f"{where}: {tensor_name}")
            weight = _place(weight, piece, index, leaf, dtype, partial(quantized, path, kind=held))
            jax.block_until_ready(weight)  # else the host reads ahead, and holds what it has read
        filled.append(weight)
    return jax.tree.unflatten(tree, filled)


def halves(tensor: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of queries or keys, from rotary pairs that are neighbours (2i, 2i + 1) to ours (i, i + H/2)."""
    pairs = tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return np.swapaxes(pairs, 1, 2).reshape(tensor.shape)


def save(model: Transformer, folder: str | Path, tokenizer: HuggingFaceTokenizer | None = None) -> None:
    """Write a folder that `transformers` loads; UserError where no architecture there can hold the model.

    tokenizer: written beside the weights, with the chat template and every token that ends an answer.
    """
    folder = Path(folder)
    family, hf = config_json.write_config(model.config)
    weights = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(model)}
    dtype = str(model.embedding_VD[...].dtype)
    folder.mkdir(parents=True, exist_ok=True)
    # Some of their families take a padding of their own, beyond a small vocabulary, where none is named.
    hf |= {"torch_dtype": dtype, "pad_token_id": None}
    if tokenizer is not None:
        tokenizer.save(folder)
        hf |= tokenizer.role_ids
    (folder / CONFIG).write_text(json.dumps(hf, indent=2) + "\n")
    holders: dict[str, list[tuple[Part, tuple[int, ...]]]] = {}
    for part in parts(family, model.config):
        for index, name in tensors(part, model.config):
            holders.setdefault(name, []).append((part, index))
    groups, filled, total = list[list[str]](), FILE_BYTES, 0
    for name, held in holders.items():
        leaves = [(weights[part.ours], index) for part, index in held]
        size = sum(leaf.nbytes // math.prod(leaf.shape[: len(index)]) for leaf, index in leaves)
        if filled + size > FILE_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled, total = filled + size, total + size
    count = len(groups)
    files = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    files = files if count > 1 else [WHOLE]

    def tensor(name: str) -> np.ndarray:
        pieces = [
            (part, np.asarray(_take(weights[part.ours], jnp.asarray(index, jnp.int32))))
            for part, index in holders[name]
        ]
        return np.ascontiguousarray(to_theirs(pieces))

    for file, names in zip(files, groups, strict=True):
        save_file({name: tensor(name) for name in names}, folder / f"{file}.partial", {"format": "pt"})
        publish(folder / f"{file}.partial", folder / file)
    for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
        if old.name not in files:
            old.unlink(missing_ok=True)  # of an earlier save
    if count > 1:
        place = {name: file for file, names in zip(files, groups, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": place}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def tensor_files(folder: Path) -> dict[str, Any]:
    """Name of each tensor of a folder → the safetensors file, opened, that has it."""
    is_cut = (folder / INDEX).is_file() and not (folder / WHOLE).is_file()
    files = _files_of(folder / INDEX) if is_cut else [WHOLE]
    present = {path.name for path in folder.iterdir() if path.is_file()}
    found: dict[str, Any] = {}
    for file in files:
        if Path(file).name != file:
            raise UserError(f"{folder / INDEX}: {file!r} is outside of the folder")
        if file not in present:
            raise UserError(f"{folder / file} is absent; its weights have to be there as safetensors")
        try:
            opened = safe_open(folder / file, framework="numpy")
        except SafetensorError as error:
            raise UserError(f"{folder / file}: {error}") from None
        if twice := sorted(found.keys() & opened.keys()):
            raise UserError(f"{folder / file}: {twice[0]} is in another of its files too; restore them")
        found |= dict.fromkeys(opened.keys(), opened)
    return found


def _files_of(index: Path) -> list[str]:
    """The files that an index names."""
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise UserError(f"{index} has no weight_map of tensors and their files; restore it")
    return sorted(set(named.values()))


def _canonical(family: Family, names: set[str], where: str) -> dict[str, str]:
    """Name of a tensor in the family's whole model → in this folder; what is no language model's is told."""
    found, others = {}, set[str]()
    for name in sorted(names):
        prefixes = (family.prefix, *family.other_prefixes)
        begin = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if name.endswith(HEADS):
            found[name.removeprefix("language_model.")] = name
        elif begin is not None:
            if (twin := found.setdefault(family.prefix + name[len(begin) :], name)) != name:
                raise UserError(f"{where} has {twin} and {name}, which are one tensor; leave one out")
        else:
            others.add(name.removeprefix("model.").partition(".")[0])
    if others:
        say(f"{where}: the text model alone is read, not {', '.join(sorted(others))}")
    return found


def _without_predicted(names: dict[str, str], layers: int, more: int, where: str) -> dict[str, str]:
    """Names without those of the `more` layers behind the model's own, which is told."""
    layer_of = {name: re.search(r"\blayers\.(\d+)\.", name) for name in names} if more else {}
    beyond = {name for name, at in layer_of.items() if at and layers <= int(at[1]) < layers + more}
    if beyond:
        say(f"{where}: layers from {layers} on predict further tokens and are unread: {len(beyond)} tensors")
    return {name: file for name, file in names.items() if name not in beyond}


def _check_names(config: ModelConfig, wanted: list[Part], names: set[str], where: str) -> None:
    if config.layers > len(names):
        raise UserError(f"{where}: config.json has {config.layers} layers, the weights {len(names)} tensors")
    expected = {name for part in wanted for _, name in tensors(part, config)}
    if missing := sorted(expected - names):
        raise UserError(f"{where}: tensor {missing[0]} is missing ({len(missing)} in all)")
    extra = sorted(name for name in names - expected if not name.endswith(BUFFERS))
    if config.tied and extra == ["lm_head.weight"]:
        return  # the same numbers again
    if extra:
        raise UserError(f"{where}: tensor {extra[0]} is not of this architecture ({len(extra)} in all)")


def _place(
    weight: Any,
    piece: np.ndarray,
    index: tuple[int, ...],
    leaf: jax.ShapeDtypeStruct,
    dtype: str,
    hold: Callable[[jax.Array], Any],
) -> Any:
    """The weight like `leaf` with `piece` at `index`; only the parts that a device holds are sent to it.

    hold: gives arrays in the place of an array, of all of the weight as of a piece.
    """
    mesh, spec = leaf.sharding.mesh, leaf.sharding.spec
    rest = P(*(*spec, *[None] * leaf.ndim)[len(index) : leaf.ndim])
    cast = lambda of: np.asarray(piece[of], jnp.dtype(dtype))  # noqa: E731
    held = hold(jax.make_array_from_callback(piece.shape, NamedSharding(mesh, rest), cast))
    if not index:
        return held

    def inserted(part: jax.Array, whole: jax.Array | None = None) -> jax.Array:
        cut = P(*spec[: len(index)], *jax.typeof(part).sharding.spec)
        if whole is None:
            shape = (*leaf.shape[: len(index)], *part.shape)
            whole = jax.jit(lambda: jnp.zeros(shape, part.dtype, out_sharding=cut))()
        return _insert(cut, whole, part, jnp.asarray(index))

    return jax.tree.map(inserted, held, *[] if weight is None else [weight])


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _insert(spec: P, weight: jax.Array, part: jax.Array, index: jax.Array) -> jax.Array:
    def insert(weight: jax.Array, part: jax.Array, index: jax.Array) -> jax.Array:
        start = [*index, *[0] * part.ndim]
        return jax.lax.dynamic_update_slice(weight, part[(None,) * len(index)], start)

    return jax.sharding.auto_axes(insert, out_sharding=spec)(weight, part, index)


@jax.jit
def _take(weight: jax.Array, index: jax.Array) -> jax.Array:
    """One layer's (and expert's) weight, whole."""
    return jax.sharding.auto_axes(lambda weight, at: weight[tuple(at)], out_sharding=P())(weight, index)
