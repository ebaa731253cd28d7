"""A census of clean, as docs/formats.md has it, that agrees with a funnel."""

from typing import Any

BINS = {
    "words": [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0],
    "short_lines": [0.0, 0.25, 0.5, 0.75, 1.0],
}


def census_found(funnel: dict[str, Any], documents: tuple[str, ...], hostile: str) -> dict[str, Any]:
    """Of a funnel: every record in one bin of each signal, in English, of two topics; a cluster of three."""
    whole = {source: [of["in"], of["bytes_in"]] for source, of in funnel.items()}
    kept = {source: [of["kept"], of["bytes_kept"]] for source, of in funnel.items()}
    languages = {source: {"en": whole[source] + kept[source]} for source in funnel}
    languages["web"] |= {f"{hostile} {number}": [1, 20 - number, 0, 0] for number in range(20)}

    def histogram(source: str, bins: int, place: int) -> dict[str, list[int]]:
        before, after = [0] * bins, [0] * bins
        before[0], before[place] = whole[source][0] - kept[source][0], kept[source][0]
        after[place] = kept[source][0]
        return {"before": before, "after": after}

    return {
        "steps": [{"step": "collected", "left": whole}, {"step": "kept", "left": kept}],
        "languages": languages,
        "topics": {"subject": {source: {"news": whole[source] + kept[source]} for source in documents}},
        "signals": {
            source: {"words": histogram(source, 8, 6), "short_lines": histogram(source, 4, 1)}
            for source in documents
        },
        "bins": BINS,
        "limits": {source: {"words": [32, None], "short_lines": [None, 0.67]} for source in documents},
        "copies": [
            {
                "kind": "documents",
                "reason": "near duplicate",
                "copies": 2,
                "sizes": {"3": 1},
                "largest": [
                    {
                        "size": 3,
                        "id": "00000000000000aa",
                        "source": "books",
                        "sources": {"books": 2, "web": 1},
                        "excerpt": hostile,
                    }
                ],
            }
        ],
    }
