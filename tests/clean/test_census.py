"""Counts of a shard worked out by hand."""

import numpy as np
import pyarrow as pa

from jaxtrain.classify import linear
from jaxtrain.clean import C4, Classifier, FineWeb, Gibberish, GopherQuality, Language, ListedWords
from jaxtrain.clean.census import Census, limits
from jaxtrain.clean.shards import Facts

SIZES_R2 = np.array([[10, 8], [20, 15], [30, 0], [40, 40]])
KEPT_R = np.array([True, True, False, True])


def test_topics_languages_and_signals_of_two_shards(tmp_path):
    topic = linear.Classifier(("art", "law", "sea"), np.zeros((4, 3), np.float32), np.zeros(3, np.float32))
    linear.save(topic, tmp_path, linear.Training())
    table = pa.table(
        {
            "language": ["en", "", "fr", "en"],
            "words": pa.array([0, 49, 3_000_000, None], pa.float32()),
            "short_lines": pa.array([0, 0.5, 1, 1], pa.float32()),
            "score_topic_art": pa.array([0.1, 0.6, 0.2, 0.5], pa.float32()),
            "score_topic_law": pa.array([0.2, 0.3, 0.7, 0.4], pa.float32()),
            "score_topic_sea": pa.array([0.7, 0.1, 0.1, 0.1], pa.float32()),
        }
    )
    census = Census({"web": (GopherQuality(), FineWeb(), Classifier("topic", str(tmp_path)))})
    for shard in (table, table):
        census.count("web", shard, SIZES_R2, KEPT_R)
    census.count("chat", pa.table({"language": ["en"]}), np.array([[5, 5]]), np.array([True]))
    found = census.found(Facts([], {}), Facts([], {}))
    assert found["topics"] == {
        "topic": {"web": {"sea": [2, 20, 2, 16], "art": [4, 120, 4, 110], "law": [2, 60, 0, 0]}}
    }
    assert found["languages"] == {
        "web": {"en": [4, 100, 4, 96], "": [2, 40, 2, 30], "fr": [2, 60, 0, 0]},
        "chat": {"en": [1, 5, 1, 5]},
    }
    words, lines = found["signals"]["web"]["words"], found["signals"]["web"]["short_lines"]
    assert found["bins"]["words"][:8] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert words["before"] == [2, 0, 0, 0, 0, 0, 2, *[0] * 13, 2]  # one was not measured; the last has no end
    assert words["after"] == [2, 0, 0, 0, 0, 0, 2, *[0] * 14]
    assert [lines["before"][place] for place in (0, 20, 39)] == [2, 2, 4] and sum(lines["before"]) == 8
    assert list(found["signals"]) == ["web"] and found["copies"] == []


def test_limits_are_those_of_the_filters_of_a_source():
    found = limits(
        (
            Language("en"),
            C4(sentences=(3, None)),
            ListedWords((), (None, 0.1)),
            Gibberish((), (None, 50)),
            Classifier("topic", "nowhere", {"topic_law": (0.2, 1.0)}),
        )
    )
    assert found == {
        "lorem_ipsum": [None, 0],
        "curly_brackets": [None, 0],
        "sentences": [3, None],
        "language_score": [0.65, None],
        "listed_words": [None, 0.1],
        "character_perplexity": [None, 50],
        "score_topic_law": [0.2, 1.0],
    }
    assert limits((GopherQuality(),))["words"] == [50, 100_000]
    assert limits((Gibberish(()),)) == {}
