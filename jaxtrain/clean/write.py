"""What clean writes of one source: kept, held out, dropped; and what it counts."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jaxtrain.clean import personal
from jaxtrain.clean.census import Census
from jaxtrain.clean.lists import QUOTED
from jaxtrain.clean.shards import Facts, Shard, signal_names
from jaxtrain.conversation import transcript
from jaxtrain.document import Conversation, Document, TableWriter, schema

DROPPED = pa.schema([(name, pa.string()) for name in ("id", "source", "url", "reason", "detail", "text")])


def write_source(
    folder: Path, facts: Facts, source: str, census: Census
) -> tuple[dict[str, Any], dict[str, int], Counter[str]]:
    """Write the files of one source; (its line of the funnel, personal data by kind, quotes by benchmark).

    census: counts the records.
    """
    kind, file = facts.shards[0].kind, f"{source}.parquet"
    record = Document if kind == "documents" else Conversation
    columns = schema(record, dict.fromkeys(signal_names(facts.filters), pa.float32()))
    redacted: Counter[str] = Counter(dict.fromkeys(personal.KINDS, 0))
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    own = facts.rows_of(source)
    heldout_R, kept_R, dropped_R = facts.heldout_R, facts.alive_R & ~facts.heldout_R, ~facts.alive_R
    sizes_R2 = np.stack([facts.bytes_in_R, facts.bytes_R], axis=1)
    held_path = folder / "heldout" / file
    with (
        TableWriter(folder / kind / file, columns) as kept,
        TableWriter(held_path, columns) as held,
        TableWriter(folder / "dropped" / file, DROPPED) as dropped,
    ):
        for shard, rows in facts.each_shard(source):
            collected, examined = shard.collected(), shard.examined()
            # What examining changed or added stands for what was collected.
            tables = [dict(zip(of.column_names, of.columns, strict=True)) for of in (collected, examined)]
            cleaned = pa.table(tables[0] | tables[1])
            staying = cleaned.filter(pa.array(kept_R[rows]))
            kept.write(staying)
            held.write(cleaned.filter(pa.array(heldout_R[rows])))
            dropped.write(_dropped(shard, rows, facts, collected, examined).filter(pa.array(dropped_R[rows])))
            census.count(source, examined, sizes_R2[rows], kept_R[rows])
            counts["collected"].update(collected["license"].to_pylist())
            for name in ("license", "language"):
                counts[name].update(staying[name].to_pylist())
            remaining = examined.filter(pa.array(~dropped_R[rows]))
            redacted.update({name: pc.sum(remaining[f"personal_{name}"]).as_py() or 0 for name in redacted})
            quotes = examined["detail"].filter(pc.equal(examined["reason"], QUOTED))
            counts["quoted"].update(quotes.to_pylist())
    if not held.rows:
        held_path.unlink()
    funnel = {
        "in": own.stop - own.start,
        "kept": kept.rows,
        "heldout": held.rows,
        "dropped": dict(sorted(Counter(facts.reason_R[own][dropped_R[own]].tolist()).items())),
        "licenses": {of: [n, counts["license"][of]] for of, n in sorted(counts["collected"].items())},
        "languages": dict(sorted(counts["language"].items())),
        "bytes_in": int(facts.bytes_in_R[own].sum()),
        "bytes_kept": int(facts.bytes_R[own][kept_R[own]].sum()),
        "bytes_heldout": int(facts.bytes_R[own][heldout_R[own]].sum()),
    }
    assert funnel["in"] == kept.rows + held.rows + dropped.rows, source
    return funnel, dict(redacted), counts["quoted"]


def _dropped(shard: Shard, rows: slice, facts: Facts, collected: pa.Table, examined: pa.Table) -> pa.Table:
    """Every record with its text as collected; `detail` names the kept copy, or what a filter noted."""
    copies = [f"{facts.id_R[row]:016x}" if row >= 0 else "" for row in facts.copy_of_R[rows].tolist()]
    noted = examined["detail"].to_pylist()
    is_text = shard.kind == "documents"
    turns = [] if is_text else collected["messages"].to_pylist()
    values = {
        "id": collected["id"],
        "source": collected["source"],
        "url": collected["url"] if is_text else [""] * len(copies),
        "reason": facts.reason_R[rows].tolist(),
        "detail": [copy or note for copy, note in zip(copies, noted, strict=True)],
        "text": collected["text"] if is_text else list(map(transcript, turns)),
    }
    return pa.table(values, schema=DROPPED)
