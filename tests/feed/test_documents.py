"""The rows of batches that grow: counted by hand, and read from the same stream as batches that do not."""

from pathlib import Path

import numpy as np
import pytest

from jaxtrain.feed.documents import BatchSizes, Documents, Phase
from jaxtrain.feed.loader import document_batches
from jaxtrain.runtime.errors import UserError

RAMP = ((3, 2), (5, 4))


def test_rows_of_a_ramp():
    sizes = BatchSizes(8, RAMP)
    rows = [sizes.rows(step) for step in range(8)]
    assert rows == [2, 2, 2, 4, 4, 8, 8, 8]
    assert [sizes.first(step) for step in range(9)] == [0, *np.cumsum(rows).tolist()]
    assert BatchSizes(8).first(10**9) == 8 * 10**9


@pytest.mark.parametrize("smaller", [((0, 2),), ((3, 4), (5, 4)), ((5, 2), (3, 4)), ((3, 8),)])
def test_what_is_no_ramp_is_refused(smaller):
    with pytest.raises(UserError, match="batch ramp"):
        BatchSizes(8, smaller)


def test_a_ramp_reads_the_stream_row_after_row(tokens: Path):
    """Of each batch the first rows are the next of the stream, for two processes too; the rest are empty."""
    settings = {"length": 64, "seed": 0}
    single = document_batches(Documents.open(tokens, batch_size=1, **settings))
    documents = Documents.open(tokens, batch_size=8, smaller=RAMP, **settings)
    whole = document_batches(documents)
    halves = [document_batches(documents, (process, 2)) for process in range(2)]
    row = 0
    for step in range(7):
        batch, count = whole[step], BatchSizes(8, RAMP).rows(step)
        for name, values in batch.items():
            wanted = np.concatenate([single[row + i][name] for i in range(count)])
            np.testing.assert_array_equal(values[:count], wanted)
            if name != "tokens" and name != "targets":  # those are padding's id
                assert not values[count:].any()
            np.testing.assert_array_equal(values, np.concatenate([half[step][name] for half in halves]))
        row += count


def test_a_curriculum_counts_the_steps_of_a_ramp(tokens: Path):
    """Code alone from step 4 on; the records and needs of the steps follow."""
    phases = (Phase(step=4, weights={"code": 1.0}),)
    documents = Documents.open(tokens, batch_size=8, length=64, seed=0, curriculum=phases, smaller=RAMP)
    rows = [documents.records(step) for step in range(6)]
    assert [len({piece["row"] for piece in found}) for found in rows] == [2, 2, 2, 4, 4, 8]
    assert {piece["source"] for found in rows[:4] for piece in found} == {"books", "code"}
    assert {piece["source"] for found in rows[4:] for piece in found} == {"code"}
    drawn = documents._drawn(6)
    assert drawn.sum() == 2 * 3 + 4 * 2 + 8 and drawn[documents.sources.index("code")] >= 12
