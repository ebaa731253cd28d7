"""A recipe of chats alone, as one who fine-tunes a model of others has it: no documents are needed.

collect  chats.jsonl -> conversations
clean    without a mixture
tokenize with the tokenizer of the model that is to be trained
"""

import json

from jaxtrain.clean import Language
from jaxtrain.clean.run import CleanConfig
from jaxtrain.clean.run import run as clean
from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.run import run as collect
from jaxtrain.feed.sources import TokenData
from jaxtrain.tokenize.run import TokenizeConfig
from jaxtrain.tokenize.run import run as tokenize
from jaxtrain.tokenize.tokenizer import train


def test_chats_alone_become_training_rows(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"What comes after the number {n} when people count?"},
                      {"role": "assistant", "content": "Let me see, it may well be a hundred.", "weight": 0},
                      {"role": "user", "content": "No, please count once more."},
                      {"role": "assistant", "content": f"After {n} comes {n + 1}, as everybody knows."}]}
        for n in range(20)
    ]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train([json.dumps(rows)], 300).save(tmp_path / "model/tokenizer")
    source = ChatSource(name="chats", paths=(str(tmp_path / "chats.jsonl"),))
    collected = collect(CollectConfig(sources=(source,), out=str(tmp_path / "1_collect")))
    cleaned = clean(
        CleanConfig(
            documents=str(collected),
            filters={"chats": (Language("en", least=0.2),)},
            similarity=1.0,
            workers=1,
            out=str(tmp_path / "2_clean"),
        )
    )
    out = tokenize(
        TokenizeConfig(
            documents=str(cleaned), tokenizer=str(tmp_path / "model/tokenizer"), out=str(tmp_path / "3")
        )
    )
    data = TokenData.open(out)
    found = data.conversations("chats")
    learned = {
        data.tokenizer.decode(ids[mask > 0].tolist()) for ids, mask in map(found.__getitem__, range(20))
    }
    assert learned == {f"After {n} comes {n + 1}, as everybody knows.<|end|>" for n in range(20)}
