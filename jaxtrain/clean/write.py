"""What clean writes of one source: kept, held out, dropped; and what it counts."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jaxtrain.clean import contamination, personal
from jaxtrain.clean.census import Census
from jaxtrain.clean.shards import Facts, Shard
from jaxtrain.conversation import transcript
from jaxtrain.document import Conversation, Document, TableWriter, schema

DROPPED = pa.schema([(name, pa.string()) for name in ("id", "source", "url", "reason", "detail", "text")])


def write_source(
    folder: Path,
    facts: Facts,
    source: str,
    heldout_R: np.ndarray,
    signals: tuple[str, ...],
    census: Census,
) -> tuple[dict[str, Any], dict[str, int], Counter[str]]:
    """Write the files of one source; (its line of the funnel, personal data by kind, quotes by benchmark).

    signals: names of the signal columns. census: counts the records.
    """
    kind = facts.shards[0].kind
    record = Document if kind == "documents" else Conversation
    columns = schema(record, dict.fromkeys(signals, pa.float32()))
    redacted: Counter[str] = Counter()
    quoted: Counter[str] = Counter()
    licenses_in: Counter[str] = Counter()
    kept_of: dict[str, Counter[str]] = {"license": Counter(), "language": Counter()}
    name = f"{source}.parquet"
    own = facts.rows_of(source)
    kept_R, dropped_R = facts.alive_R & ~heldout_R, ~facts.alive_R
    sizes_R2 = np.stack([facts.bytes_in_R, facts.bytes_R], axis=1)
    held_path = folder / "heldout" / name
    held_path.unlink(missing_ok=True)  # of a killed run
    with (
        TableWriter(folder / kind / name, columns) as kept,
        TableWriter(folder / "dropped" / name, DROPPED) as dropped,
    ):
        held = TableWriter(held_path, columns) if heldout_R[own].any() else None
        for shard, rows in facts.each_shard(source):
            collected, examined = shard.collected(), shard.examined()
            cleaned = _cleaned(collected, examined)
            staying = cleaned.filter(pa.array(kept_R[rows]))
            kept.write(staying)
            census.count(source, examined, sizes_R2[rows], kept_R[rows])
            licenses_in.update(collected["license"].to_pylist())
            for column, counter in kept_of.items():
                counter.update(staying[column].to_pylist() if column in staying.column_names else [])
            if held is not None:
                held.write(cleaned.filter(pa.array(heldout_R[rows])))
            dropped.write(_dropped(shard, rows, facts, collected, examined).filter(pa.array(dropped_R[rows])))
            for found in personal.KINDS:
                of_kept = examined[f"personal_{found}"].filter(pa.array(~dropped_R[rows]))
                redacted[found] += pc.sum(of_kept).as_py() or 0
            is_quote = pc.equal(examined["reason"], contamination.REASON)
            quoted.update(examined["detail"].filter(is_quote).to_pylist())
        if held is not None:
            held.close()
    funnel = {
        "in": own.stop - own.start,
        "kept": kept.rows,
        "heldout": int(heldout_R[own].sum()),
        "dropped": dict(sorted(Counter(facts.reason_R[own][dropped_R[own]].tolist()).items())),
        "licenses": {
            found: [count, kept_of["license"][found]] for found, count in sorted(licenses_in.items())
        },
        "languages": dict(sorted(kept_of["language"].items())),
        "bytes_in": int(facts.bytes_in_R[own].sum()),
        "bytes_kept": int(facts.bytes_R[own][kept_R[own]].sum()),
        "bytes_heldout": int(facts.bytes_R[own][heldout_R[own]].sum()),
    }
    assert funnel["in"] == kept.rows + funnel["heldout"] + dropped.rows, source
    return funnel, {found: redacted[found] for found in personal.KINDS}, quoted


def _cleaned(collected: pa.Table, examined: pa.Table) -> pa.Table:
    """The collected columns, with those that examining changed or added."""
    for name in examined.column_names:
        if name in collected.column_names:
            place = collected.column_names.index(name)
            collected = collected.set_column(place, examined.schema.field(name), examined[name])
        else:
            collected = collected.append_column(examined.schema.field(name), examined[name])
    return collected


def _dropped(shard: Shard, rows: slice, facts: Facts, collected: pa.Table, examined: pa.Table) -> pa.Table:
    """Every record with its text as collected; `detail` names the kept copy, or what a filter noted."""
    copies = facts.copy_of_R[rows]
    kept = [f"{facts.id_R[row]:016x}" if row >= 0 else "" for row in copies.tolist()]
    details = [copy or noted for copy, noted in zip(kept, examined["detail"].to_pylist(), strict=True)]
    if "text" in collected.column_names:
        texts, urls = collected["text"], collected["url"]
    else:
        texts = pa.array(map(transcript, collected["messages"].to_pylist()), pa.string())
        urls = pa.array([""] * len(copies))
    values = (
        collected["id"],
        collected["source"],
        urls,
        pa.array(facts.reason_R[rows].tolist(), pa.string()),
        pa.array(details, pa.string()),
        texts,
    )
    return pa.Table.from_arrays(list(values), schema=DROPPED)
