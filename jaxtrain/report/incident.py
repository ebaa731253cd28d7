"""A refused batch as text: why it was refused, and what stands in it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import FOLDER, Tokenizer

SHOWN = 160
"""Characters of a document's beginning."""


def text(folder: Path) -> str:
    """The numbers of `incident.json`, then every document of every row, as text where a tokenizer is near."""
    told = json.loads((folder / "incident.json").read_text())
    lines = [
        f"batch {told['batch']}, refused at step {told['step']} (number {told['refused_in_a_row']} in a row)"
    ]
    for name in ("loss", "grad_norm"):
        of = told[name]
        lines.append(
            f"  {name:<10}{_number(of['value']):>12}   limit {_number(of['limit'])}, "
            f"accepted before {_number(of['window_mean'])} ± {_number(of['window_sigma'])}"
        )
    lines.append(f"  {'targets':<10}{_number(told['targets']):>12}")
    lines += [f"  record {record}" for record in told["records"] or ()]
    tokenizer = _tokenizer(folder)
    files = sorted(folder.glob("process-*.npz"))
    if not files:
        raise UserError(f"{folder} has no process-*.npz; its batch was not kept")
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            batch = {name: arrays[name] for name in arrays.files}
        lines += _rows(file.stem, batch, tokenizer)
    return "\n".join(lines)


def why(told: dict[str, Any]) -> str:
    """What was over its limit, or no number: `gradient norm 0.771, limit 0.749`."""
    measured = {"loss": told["loss"], "gradient norm": told["grad_norm"]}
    over = {name: of for name, of in measured.items() if not float(of["value"]) <= float(of["limit"])}
    return ", ".join(
        f"{name} {_number(of['value'])}, limit {_number(of['limit'])}" for name, of in over.items()
    )


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _tokenizer(folder: Path) -> Tokenizer | None:
    """Of the run that the incident belongs to: `<artifact>/incidents/<batch>`."""
    run = folder.absolute().parents[1]
    return Tokenizer.load(run) if (run / FOLDER).is_dir() else None


def _rows(name: str, batch: dict[str, np.ndarray], tokenizer: Tokenizer | None) -> list[str]:
    lines = []
    for key, values in batch.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
            lines.append(f"{name}: {key} is not finite in rows {rows.tolist()}")
    for row, (ids, segments) in enumerate(zip(batch["tokens"], batch["segment_ids"], strict=True)):
        for segment in [segment for segment in np.unique(segments) if segment]:
            found = ids[segments == segment].tolist()
            (most, count), *_ = Counter(found).most_common(1)
            shown = tokenizer.decode(found) if tokenizer else " ".join(map(str, found))
            repeated = f", {count / len(found):.0%} one token ({most})" if count > len(found) / 3 else ""
            where = f"{name} row {row} document {segment}"
            lines.append(f"{where}, {len(found)} tokens{repeated}: {shown[:SHOWN]!r}")
    return lines
