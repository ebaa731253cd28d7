"""The one file that imports Daft: embedded by default, the same code on a Ray cluster.

`DAFT_RUNNER=ray` in the environment runs every function here on the cluster that Ray finds. Results do
not depend on the runner: nothing is read from the order in which rows come back. Native Daft keeps all
in memory, so the bands of MinHash are joined one at a time.
"""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "true")  # before the import: Daft sends usage data otherwise
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import daft
import numpy as np
import pyarrow as pa
from daft import DataType, Series, col
from daft.functions import minhash

BATCH_ROWS = 64  # Daft would hand 131,072 whole texts to one call
Row = dict[str, Any]


def map_rows(table: pa.Table, function: Callable[[Row], Row], returns: pa.Schema) -> pa.Table:
    """`function` of every row of `table`, in its order, as a table of the columns `returns`."""
    names = table.column_names
    result = pa.struct(list(returns))

    @daft.func.batch(return_dtype=DataType.from_arrow_type(result), batch_size=BATCH_ROWS)
    def apply(*columns: Series) -> pa.Array:
        values = zip(*(column.to_pylist() for column in columns), strict=True)
        return pa.array([function(dict(zip(names, row, strict=True))) for row in values], type=result)

    if not table.num_rows:
        return returns.empty_table()
    frame = daft.from_arrow(table.append_column("row__", pa.array(range(table.num_rows))))
    done = frame.select("row__", apply(*map(col, names)).alias("result")).to_arrow().sort_by("row__")
    rows = done["result"].combine_chunks().cast(result)
    return pa.Table.from_arrays(rows.flatten(), schema=returns)


def minhash_signatures(texts: list[str], hashes: int, ngram: int) -> np.ndarray:
    """MinHash signatures [text, hash] (uint32) of word n-grams; one space stands between words."""
    if not texts:
        return np.zeros((0, hashes), np.uint32)
    frame = daft.from_pydict({"row": list(range(len(texts))), "text": texts})
    signature = minhash(col("text"), num_hashes=hashes, ngram_size=ngram, seed=1, hash_function="xxhash")
    done = frame.select("row", signature.alias("signature")).to_arrow().sort_by("row")
    flat = done["signature"].combine_chunks().flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(len(texts), hashes)


def same_bucket(keys: np.ndarray, buckets: list[str]) -> list[tuple[int, int]]:
    """(smallest key of the bucket, key) for every other key of each bucket; sorted.

    Buckets are strings because Daft 0.7.26 joins every row with every row on binary columns.
    """
    if not buckets:
        return []
    frame = daft.from_pydict({"key": keys.tolist(), "bucket": buckets})
    first = frame.groupby("bucket").agg(col("key").min().alias("first"))
    pairs = (
        frame.join(first, on="bucket").where(col("key") != col("first")).select("first", "key").to_pydict()
    )
    return sorted(zip(pairs["first"], pairs["key"], strict=True))
