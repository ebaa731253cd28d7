"""The reward model for others: over HTTP, and as a Hugging Face folder."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from starlette.testclient import TestClient

from jaxtrain import cli
from jaxtrain.align import reward_model as rewards
from jaxtrain.align.comparisons import read_comparisons
from jaxtrain.align.scorer import LONGEST_BODY, ExportConfig, Scorer, application, export
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(tiny):
    app = application(Scorer(str(tiny / "runs" / "tiny" / "7_reward")), hosts=("testserver",))
    with TestClient(app) as client:
        yield client


def test_scores_over_http_are_the_models_own(client, in_tiny, one):
    path = Path(in_tiny("6_rate")) / "heldout.parquet"
    row = pq.read_table(path).to_pylist()[0]
    tokenizer = Tokenizer.load(Path(in_tiny("7_reward")) / "tokenizer")
    comparisons = read_comparisons(path, tokenizer, 61)
    wanted = rewards.score(rewards.load(in_tiny("7_reward")), comparisons.rows)[:4]
    # text is encoded anew; where that gives the ids that were sampled, the score is the same
    again = [
        tokenizer.encode(text) == [i for i in ids if i != tokenizer.end]
        for text, ids in zip(row["completions"], row["completion_ids"], strict=True)
    ]
    assert any(again)
    found = client.post("/score", json={"prompt": row["prompt"], "completions": row["completions"]}).json()
    np.testing.assert_allclose(np.array(found["scores"])[again], wanted[again], atol=1e-4)
    text = client.post(
        "/score", json={"prompt": row["prompt"][0]["content"], "completions": row["completions"]}
    ).json()
    assert text == found, "text is one message of the user"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is no JSON"),
        (b"[" * 200_000, "the body is no JSON"),
        (b"[]", "an object with `prompt` and `completions`"),
        (b'{"prompt": "a", "completions": []}', "a list of 1 to 64"),
        (b'{"prompt": "a", "completions": [1]}', "every one of `completions` is a text"),
        (b'{"prompt": [{"role": "user"}], "completions": ["b"]}', "a list of messages"),
        (b'{"prompt": [{"role": "god", "content": "a"}], "completions": ["b"]}', "unknown role 'god'"),
    ],
)
def test_requests_that_are_none_get_one_sentence(client, body, words):
    answer = client.post("/score", content=body, headers=JSON)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_long_bodies_and_other_methods_are_refused(client):
    assert client.post("/score", content=b" " * (LONGEST_BODY + 1), headers=JSON).status_code == 413
    assert client.get("/score").status_code == 405


def test_a_page_of_another_site_cannot_ask(client):
    asked = json.dumps({"prompt": "a", "completions": ["b"]})
    assert client.post("/score", content=asked, headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/score", content=asked, headers=JSON | {"Host": "evil.example"}).status_code == 400
    kind = {"Content-Type": "APPLICATION/JSON; charset=utf-8"}
    assert client.post("/score", content=asked, headers=kind).status_code == 200


def test_the_export_holds_the_weights_and_says_where_it_scores(in_tiny, tmp_path, one):
    out = export(ExportConfig(model=in_tiny("7_reward"), out=str(tmp_path / "hf")))
    described = json.loads((out / "config.json").read_text())
    tokenizer = Tokenizer.load(Path(in_tiny("7_reward")) / "tokenizer")
    assert described["architectures"] == ["Qwen3ForSequenceClassification"]
    assert (described["num_labels"], described["pad_token_id"]) == (1, tokenizer.pad)
    tensors = load_file(out / "model.safetensors")
    assert "lm_head.weight" not in tensors
    head = np.asarray(rewards.load(in_tiny("7_reward")).score_D[...])
    np.testing.assert_array_equal(tensors["score.weight"], head[None])
    with pytest.raises(UserError, match="exists; name a new folder"):
        export(ExportConfig(model=in_tiny("7_reward"), out=str(out)))


@pytest.mark.peers
def test_transformers_gives_the_same_scores(in_tiny, tmp_path, one):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    out = tmp_path / "hf"
    cli.main(["align", "export", "--model", in_tiny("7_reward"), "--out", str(out)])
    tokenizer = Tokenizer.load(Path(in_tiny("7_reward")) / "tokenizer")
    comparisons = read_comparisons(Path(in_tiny("6_rate")) / "heldout.parquet", tokenizer, 61)
    rows = {name: values[:16] for name, values in comparisons.rows.items()}
    wanted = rewards.score(rewards.load(in_tiny("7_reward")), rows)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    with torch.no_grad():
        ids, mask = (torch.tensor(rows[name]).long() for name in ("tokens", "segment_ids"))
        found = model(input_ids=ids, attention_mask=mask).logits[:, 0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
