"""The requests of data/refusals: both kinds, taught and asked apart, and refusals that are told as such."""

import json
from pathlib import Path

import pytest

from jaxtrain.evaluate.bias import REFUSALS
from jaxtrain.tasks import refusals

FOLDER = Path(__file__).parents[2] / "data" / "refusals"
WRITTEN = json.loads((FOLDER / "written.json").read_text(encoding="utf-8"))


def test_the_files_are_made_from_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "written.json").write_bytes((FOLDER / "written.json").read_bytes())
    refusals.write(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        assert file.read_bytes() == (FOLDER / file.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_half_is_declined_with_a_reason_and_an_offer() -> None:
    rows = refusals.taught(WRITTEN)
    declined = [row for row in rows if REFUSALS.search(row["completion"][:200])]
    assert len(rows) == 480 and len(declined) == 240 and len({row["prompt"] for row in rows}) == 480
    harmful = {request for topic in WRITTEN["topics"] for request in topic["harmful"]["taught"]}
    for row in declined:
        (topic,) = [t for t in WRITTEN["topics"] if t["reason"] in row["completion"]]
        assert topic["offer"] in row["completion"]
        assert any(request in row["prompt"] for request in harmful)


@pytest.mark.parametrize("kind", ["harmful", "harmless"])
def test_what_is_asked_was_not_taught(kind: str) -> None:
    frames = WRITTEN["frames"]
    assert not set(frames["taught"]) & set(frames["asked"])
    taught = [row["prompt"] for row in refusals.taught(WRITTEN)]
    asked = [request for topic in WRITTEN["topics"] for request in topic[kind]["asked"]]
    prompts = [row["prompt"] for row in refusals.asked(WRITTEN, kind)]
    assert len(set(asked)) == 48 and len(set(prompts)) == 96
    for request in asked:
        assert not any(request in prompt for prompt in taught)
        assert sum(request in prompt for prompt in prompts) >= len(frames["asked"])


def test_harmless_requests_share_their_words_with_harmful_ones() -> None:
    """Each asked one has a word of three letters or more, beyond the commonest, with a harmful one."""
    common = {"the", "and", "for", "from", "with", "that", "not", "without", "into", "out", "how"}
    for topic in WRITTEN["topics"]:
        harmful = " ".join([*topic["harmful"]["taught"], *topic["harmful"]["asked"]])
        words = {word.strip(",'s") for word in harmful.split()} - common
        for request in topic["harmless"]["asked"]:
            shared = {word.strip(",'s") for word in request.split() if len(word) > 2} & words
            assert shared, request
