"""The linear classifier: gradients against numpy, real labelled tweets, and what a user gets wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxtrain.classify import linear
from jaxtrain.classify.linear import Training
from jaxtrain.classify.run import ClassifyConfig, Examples, run
from jaxtrain.report.runs import PagesConfig, report
from jaxtrain.runtime.errors import UserError

TWEETS = Path(__file__).parents[3] / "shared/material/bias/davidson-hate-offensive-tweets.csv.gz"
SMALL = Training(table_bits=12, epochs=3, batch=16, lr=0.05)


def examples(count: int) -> tuple[list[str], list[int]]:
    kinds = ("The river ran past the quiet village number {}.", "def f{0}(x): return x + {0}")
    return [kinds[i % 2].format(i) for i in range(count)], [i % 2 for i in range(count)]


def test_features_are_of_length_one_and_see_order_and_spelling():
    rows, values = linear.features("The cat sat on the cat", 1 << 16)
    assert (np.diff(rows) > 0).all() and np.square(values).sum() == pytest.approx(1, abs=1e-5)
    other = linear.features("cat the on sat cat The", 1 << 16)[0]
    near = linear.features("The cta sat on the cat", 1 << 16)[0]
    assert set(rows) != set(other) and 0.5 < len(set(rows) & set(near)) / len(rows) < 1
    assert [len(part) for part in linear.features("", 1 << 16)] == [0, 0]


def test_one_step_is_adams_on_the_gradient_worked_out_in_numpy():
    texts, labels = examples(8)
    training = Training(table_bits=8, epochs=1, batch=8, lr=0.1, weight_decay=0.0)
    found = linear.train(texts, labels, ("prose", "code"), training)
    gradient = np.zeros((256, 2))
    for text, label in zip(texts, labels, strict=True):  # weights are 0: both classes have probability .5
        rows, values = linear.features(text, 256)
        gradient[rows] += np.outer(values, np.array([0.5, 0.5]) - np.eye(2)[label]) / len(texts)
    expected = -0.1 * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(found.weights_FC, expected, atol=2e-3)


def test_it_learns_saves_loads_and_repeats(tmp_path):
    texts, labels = examples(200)
    first = linear.train(texts[:150], labels[:150], ("prose", "code"), SMALL)
    assert [first.label(text) for text in texts[150:]] == [("prose", "code")[i] for i in labels[150:]]
    linear.save(first, tmp_path, SMALL)
    again = linear.load(tmp_path)
    assert again.score(texts[0]) == first.score(texts[0]) < 0.5 < again.score(texts[1])
    second = linear.train(texts[:150], labels[:150], ("prose", "code"), SMALL)
    assert (second.weights_FC == first.weights_FC).all()


def test_f1_is_that_counted_by_hand():
    true, guess = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 0], bool)
    assert linear.f1(true, guess) == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert linear.f1(true, ~true)["f1"] == 0


def test_the_stage_reads_tables_and_tells_what_is_wrong(tmp_path):
    texts, labels = examples(100)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "\n".join(json.dumps({"text": t, "kind": str(k)}) for t, k in zip(texts, labels, strict=True))
    )
    prose = Examples(label="prose", paths=(str(rows),), only={"kind": ("0",)})
    code = Examples(label="code", paths=(str(rows),), only={"kind": ("1",)})
    folder = run(ClassifyConfig(examples=(prose, code), training=SMALL, out=str(tmp_path / "out")))
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["documents"] == {"code": 50, "prose": 50} and counts["heldout_documents"] > 5
    assert counts["heldout"]["code"]["f1"] > 0.9
    page = report(PagesConfig(runs=(str(folder),), out=str(tmp_path / "page"))).read_text()
    assert "A classifier of text" in page and "held-out documents rightly" in page
    out = str(tmp_path / "bad")
    with pytest.raises(UserError, match="two different labels"):
        run(ClassifyConfig(examples=(prose,), out=out))
    with pytest.raises(UserError, match="no column 'kin'"):
        wrong = Examples(label="code", paths=(str(rows),), only={"kin": ("1",)})
        run(ClassifyConfig(examples=(prose, wrong), out=out))
    with pytest.raises(UserError, match="no document of label 'x'"):
        none = Examples(label="x", paths=(str(rows),), only={"kind": ("7",)})
        run(ClassifyConfig(examples=(prose, none), out=out))
    with pytest.raises(UserError, match="no classifier at"):
        linear.load(out)


@pytest.mark.slow
@pytest.mark.skipif(not TWEETS.exists(), reason="needs the labelled tweets of ../shared/material")
def test_toxic_tweets_of_the_fifth_that_was_held_out(tmp_path):
    """Davidson et al. 2017: class 0 hate speech, 1 offensive, 2 neither."""
    of = {label: Examples(label=label, paths=(str(TWEETS),), text="tweet", only={"class": classes})
          for label, classes in (("harmless", ("2",)), ("toxic", ("0", "1")))}  # fmt: skip
    folder = run(ClassifyConfig(examples=(of["harmless"], of["toxic"]), out=str(tmp_path / "toxic")))
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["heldout_documents"] > 4000
    assert counts["heldout"]["toxic"]["f1"] > 0.95 and counts["heldout"]["harmless"]["f1"] > 0.8
