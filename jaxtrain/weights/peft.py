"""Adapters in and out: folders of adapter_config.json and adapter_model.safetensors, as PEFT has them.

There A is [rank, inputs] and B [outputs, rank], a tensor each for every layer.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import Adapters, LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import read_object, reading
from jaxtrain.weights.config_json import write_config
from jaxtrain.weights.tensors import Part, parts, tensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def knows(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def base_of(folder: str | Path) -> Path:
    """The folder of the weights that an adapter stands on; UserError where it is not on this machine."""
    name = str(read_object(Path(folder) / CONFIG).get("base_model_name_or_path") or "")
    for base in (Path(folder) / name, Path(name)):
        if name and base.is_dir() and not base.samefile(folder):
            return base
    raise UserError(f"{folder}/{CONFIG} stands on {name!r}, which is no folder here; name one there")


def save(
    adapters: Adapters, config: LoRAConfig, model: ModelConfig, folder: str | Path, base: str | Path
) -> None:
    """Write a folder that PEFT loads onto `base`; each adapter needs a module (`without_module`)."""
    folder = Path(folder)
    names = sorted({name.rpartition(".")[0] for name in adapters})
    found, modules = {}, set()
    by_ours, fan_in_fan_out = _places(model)
    for name in names:
        part = by_ours[name]
        modules.add(part.name.split(".")[-2])
        for layer, module in enumerate(_modules(part, model)):
            a, b = (np.asarray(adapters[f"{name}.{side}"][layer], np.float32) for side in ("a", "b"))
            found[f"{module}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, config.rank).T)
            found[f"{module}.lora_B.weight"] = np.ascontiguousarray(b.reshape(config.rank, -1).T)
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilized,
        "target_modules": sorted(modules),
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found, folder / TENSORS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")


def load(folder: str | Path, model: Transformer) -> tuple[Transformer, Adapters]:
    """The model with places for a folder's adapters, and these. UserError for what is not plain LoRA."""
    folder = Path(folder)
    about = read_object(folder / CONFIG)
    plain = {
        "peft_type": "LORA",
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_parameters": None,
        "layers_to_transform": None,
    }
    for key, value in plain.items():
        if about.get(key) not in (None, [], value):
            raise UserError(f"{folder}/{CONFIG}: {key} {about[key]!r} is not supported, only {value!r}")
    try:
        left = load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / TENSORS} cannot be read: {error}") from None
    by_ours, _ = _places(model.config)
    found = {
        name: part
        for name, part in by_ours.items()
        if _has_module(part) and f"{_modules(part, model.config)[0]}.lora_A.weight" in left
    }
    with reading(folder / CONFIG):
        if int(about["r"]) < 1:
            raise UserError(f"{folder / CONFIG}: r is {about['r']}; it is at least 1")
        config = LoRAConfig(
            rank=int(about["r"]),
            alpha=float(about["lora_alpha"]),
            rank_stabilized=about.get("use_rslora", False),
            targets="|".join(map(re.escape, found)) or "nothing",
        )
    adapted = jax.jit(lora.adapt, static_argnums=1)(model, config, jax.random.key(0))
    adapters = {}
    for name, like in lora.take(adapted).items():
        ours, _, side = name.rpartition(".")
        layers = []
        for module in _modules(found[ours], model.config):
            key = f"{module}.lora_{side.upper()}.weight"
            if key not in left:
                raise UserError(f"{folder / TENSORS} lacks {key}")
            layers.append(_ours(left.pop(key), like.shape[1:], f"{folder / TENSORS}: {key}"))
        adapters[name] = jax.device_put(np.stack(layers), like.sharding)
    if left:
        raise UserError(f"{folder / TENSORS}: {sorted(left)[0]} has no place in this model")
    return adapted, adapters


def _ours(tensor: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    if tensor.ndim != 2 or tensor.size != np.prod(shape):
        raise UserError(f"{where} has shape {list(tensor.shape)}, which does not fit {list(shape)}")
    return tensor.T.reshape(shape).astype(np.float32)


def without_module(adapters: Iterable[str], config: ModelConfig) -> str:
    """The first adapted weight without a module of its own in Hugging Face's model; empty: all have one."""
    by_ours, _ = _places(config)
    names = (name.rpartition(".")[0] for name in adapters)
    return next((name for name in sorted(names) if not _has_module(by_ours[name])), "")


def _has_module(part: Part) -> bool:
    return not (part.is_shared or part.is_stack or "{expert}" in part.name)


def _places(config: ModelConfig) -> tuple[dict[str, Part], bool]:
    """Our weights of the blocks by name; and whether Hugging Face's modules are Conv1D."""
    family, _ = write_config(config)
    every = parts(family, config)
    own = [part for part in every if "blocks." in part.ours and part.inputs]
    return {part.ours.removeprefix("blocks."): part for part in own}, family.names == "gpt2"


def _modules(part: Part, config: ModelConfig) -> list[str]:
    """PEFT's name of the module of each layer."""
    return [PREFIX + name.removesuffix(".weight") for _, name in tensors(part, config)]
