"""Preferences as their publishers write them."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrain.formats.preferences import read_comparisons

ASKED = [{"role": "user", "content": "Hi?"}]
YES, NO = ({"role": "assistant", "content": text} for text in ("Yes", "No"))
SYSTEM = [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"prompt": "Hi?", "chosen": "Yes", "rejected": "No"}, ASKED),
        ({"prompt": ASKED, "chosen": [YES], "rejected": [NO]}, ASKED),
        ({"prompt": "Hi?", "chosen": [*ASKED, YES], "rejected": [*ASKED, NO]}, ASKED),
        ({"chosen": [*ASKED, YES], "rejected": [*ASKED, NO]}, ASKED),
        ({"question": "Hi?", "response_j": "Yes", "response_k": "No"}, ASKED),
        ({"system": "Be brief.", "question": "Hi?", "chosen": "Yes", "rejected": "No"}, SYSTEM + ASKED),
        ({f"{side}": f"\n\nHuman: Hi?\n\nAssistant: {text}" for side, text in
          (("chosen", "Yes"), ("rejected", "No"))}, ASKED),
        ({"conversations": [{"from": "human", "value": "Hi?"}], "chosen": {"from": "gpt", "value": "Yes"},
          "rejected": {"from": "gpt", "value": "No"}}, ASKED),
        ({"prompt": ASKED, "completions": ["Yes", "No"], "ranks": [1, 2]}, ASKED),
    ],
)  # fmt: skip
def test_a_prompt_with_a_better_and_a_worse_answer(tmp_path, record, prompt):
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    for path in (tmp_path / "a.jsonl", tmp_path / "a.parquet"):
        unread = Counter()
        (row,) = read_comparisons(path, unread)
        assert (row["prompt"], row["completions"], row["ranks"]) == (prompt, ["Yes", "No"], [1, 2])
        assert not unread


def test_what_says_nothing_has_a_reason(tmp_path):
    records = [
        {"prompt": "Hi?", "chosen": "Yes", "rejected": "Yes"},
        {"chosen": [*ASKED, YES], "rejected": [{"role": "user", "content": "Ho?"}, NO]},
        {"prompt": "Hi?", "completions": ["Yes"], "ranks": [1]},
        {"text": "Hi"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    unread = Counter()
    assert list(read_comparisons(tmp_path / "a.jsonl", unread)) == []
    assert unread == {
        "both answers are the same": 1,
        "the two conversations part before the last answer": 1,
        "ranks [1] do not order 1 completions": 1,
        "neither ranks nor a chosen and a rejected answer": 1,
    }
