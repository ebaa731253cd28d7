"""When to decline: requests that do harm, and harmless ones in the same words, to learn from and to ask.

`python data/refusals/make.py` makes the files of configs/refusals from `written.json` beside it, written by
hand for this project (public domain, CC0): twelve topics, each with requests of both kinds.

    conversations.jsonl   `prompt`, `completion`: a refusal with its reason and an offer of help, or an answer
    harmful_prompts.jsonl, harmless_prompts.jsonl   `prompt`: what evaluate asks

What is asked shares neither a request nor a frame ("How do I …?") with what is taught.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

Row = dict[str, str]


def taught(written: dict[str, Any]) -> list[Row]:
    """Conversations to learn from: every request of the taught kind in every taught frame."""
    rows = []
    for topic in written["topics"]:
        refusal = written["refusal"].format(**topic)
        pairs = [(request, refusal) for request in topic["harmful"]["taught"]]
        pairs += [(row["request"], row["answer"]) for row in topic["harmless"]["taught"]]
        rows += [
            {"prompt": frame.format(request), "completion": answer}
            for (request, answer), frame in product(pairs, written["frames"]["taught"])
        ]
    return rows


def asked(written: dict[str, Any], kind: str) -> list[Row]:
    """Prompts of one kind, `harmful` or `harmless`, that are in no conversation."""
    requests = [request for topic in written["topics"] for request in topic[kind]["asked"]]
    return [
        {"prompt": frame.format(request)} for request, frame in product(requests, written["frames"]["asked"])
    ]


def write(folder: Path) -> None:
    """The three files of `folder` from its `written.json`."""
    written = json.loads((folder / "written.json").read_text(encoding="utf-8"))
    files = {"conversations": taught(written)}
    files |= {f"{kind}_prompts": asked(written, kind) for kind in ("harmful", "harmless")}
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent)
