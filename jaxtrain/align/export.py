"""`jaxtrain align export`: a reward model as a Hugging Face folder, for others to score with.

`AutoModelForSequenceClassification.from_pretrained` reads it. It scores at the last token that is not
padding, as `RewardModel` does; give it conversations rendered by the model's template, `<|end|>` last.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from jaxtrain import weights
from jaxtrain.align import reward_model as rewards
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.weights import save_pretrained

HEADS = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures with a language model's head."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """`align export`: write a reward model as a Hugging Face folder."""

    model: str
    """Folder of the reward model's artifact."""
    out: str
    """Folder to write; it must not exist."""


def export(config: ExportConfig) -> Path:
    """The folder written: config.json, safetensors, and the tokenizer's files."""
    out = Path(config.out)
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    meshes.ensure()
    model = rewards.load(config.model)
    tokenizer = weights.open(config.model).tokenizer
    save_pretrained(model.transformer, out)
    _write_head(out, np.asarray(model.score_D[...])[None])
    described = json.loads((out / "config.json").read_text())
    (architecture,) = described["architectures"]
    base = next(architecture.removesuffix(head) for head in HEADS if architecture.endswith(head))
    described |= {
        "architectures": [f"{base}ForSequenceClassification"],
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "problem_type": "regression",
        "pad_token_id": tokenizer.pad,
    }
    (out / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save(out)
    return out


def _write_head(folder: Path, score_1D: np.ndarray) -> None:
    """Put `score.weight` where the language model's head was, or into the last file."""
    files = sorted(folder.glob("model*.safetensors"))
    tensors = {file: load_file(file) for file in files}
    for part in tensors.values():
        part.pop("lm_head.weight", None)
    tensors[files[-1]]["score.weight"] = score_1D.astype(np.float32)
    for file, part in tensors.items():
        save_file(part, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        described: dict[str, Any] = json.loads(index.read_text())
        described["weight_map"] = {name: file.name for file, part in tensors.items() for name in part}
        sizes = (tensor.nbytes for part in tensors.values() for tensor in part.values())
        described["metadata"]["total_size"] = sum(sizes)
        index.write_text(json.dumps(described, indent=2) + "\n")
