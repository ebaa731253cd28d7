"""What evaluate writes of context, memory and bias, in little: rows by hand for the report's tests."""

from typing import Any

COPA = {"task": "copa", "shots": 0, "chance": 0.5, "items": 100, "value": 0.61, "standard_error": 0.049}
CORE = {
    "name": "CORE of 2 of 22 tasks, at most 100 items a task",
    "standard_error": 0.04,
    "tasks": [COPA, COPA | {"task": "squad", "chance": 0.0, "value": 0.1}],
    "absent": ["coqa"],
}


def looked_into(limit: str) -> dict[str, Any]:
    """Lists of results.json beside `tasks` and `heldout`; limit: a word that stands in the text of one."""
    model = {"model": "pretrained"}
    share = {"low": 0.02, "high": 0.62, "items": 24}
    extraction = [
        {
            **model,
            "text": text,
            "count": count,
            "prefix": 32,
            "sequences": 24,
            "rate": rate,
            "nats_per_token": 2.0,
        }
        | {"low": max(0.0, rate - 0.1), "high": min(1.0, rate + 0.1)}
        for text, count, rate in (
            ("training", None, 0.04),
            ("held-out", None, 0.0),
            ("planted", 0, 0.0),
            ("planted", 4, 0.125),
            ("planted", 64, 0.75),
        )
    ]
    return {
        "aggregate": [{**model, "value": 0.012, "standard_error": 0.02, "tasks": ["arc_easy", "piqa"]}],
        "core": [
            {"model": name, **CORE, "value": value} for name, value in (("pretrained", 0.05), ("PPO", 0.02))
        ],
        "languages": [{**model, "language": "en", "bits_per_byte": 1.92, "bytes": 438_734, "documents": 60}],
        "positions": [
            {**model, "from": first, "to": last, "perplexity": 900 / (first + 2) + 60, "tokens": 1000}
            for first, last in ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63))
        ],
        "extraction": extraction,
        "exposure": [
            {**model, "count": count, "canaries": 4, "exposure": bits, "standard_error": 0.3, "most": 10.0}
            for count, bits in ((0, 1.2), (4, 3.5), (64, 9.8))
        ],
        "bias": [
            {**model, "measure": "crows_pairs", "group": group, "value": value, "fair": 0.5, **share}
            | {"limit": f"What {limit} is."}
            for group, value in (("all", 0.32), ("age", 0.4))
        ],
        "representation": [
            {"kind": "language", "name": "en", "documents": 711},
            {"kind": "gender", "name": "woman", "count": 512, "per_million_words": 240.5},
        ],
        "harness": [],
    }
