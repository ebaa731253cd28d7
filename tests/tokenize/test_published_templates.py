"""Chat templates as they are published (TRL's copies, in the peers' environment) beside `transformers`."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.chat import render, renderings
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer

FOUND = importlib.util.find_spec("trl")
FOLDER = Path(FOUND.submodule_search_locations[0]) / "chat_templates" if FOUND else Path("absent")
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
MARKS = re.compile(
    r"<[|｜][^<>\n'\"{}|｜]+[|｜]>|<\|?(?:turn|channel)\|?>|</?(?:s|start_of_turn|end_of_turn|bos|eos)>|\[/?[A-Z_]+\]"
)
TALK = [
    {"role": "user", "content": "Who wrote Emma?"},
    {"role": "assistant", "content": "Jane Austen wrote it."},
    {"role": "user", "content": "And when, please?"},
    {"role": "assistant", "content": "In 1815, in London."},
]
IMAGES = ("idefics3", "llava_next")
"""Templates that take content in parts only."""
ENDLESS = ("glm4moe",)
"""An answer ends where the next question begins; nothing there is the answer's own."""
pytestmark = pytest.mark.peers


def tokenizer_of(folder: Path, name: str, bare: Path) -> HuggingFaceTokenizer:
    """A small tokenizer with every mark of the template as a special token."""
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    model = json.loads((bare / "tokenizer.json").read_text())
    known = {token["content"] for token in model["added_tokens"]}
    first = max(token["id"] for token in model["added_tokens"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    names = [mark for mark in sorted({*MARKS.findall(template), "<BOS>", "<EOS>"}) if mark not in known]
    model["added_tokens"] += [{"id": first + 1 + n, "content": mark, **flags} for n, mark in enumerate(names)]
    (folder / "tokenizer.json").write_text(json.dumps(model))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<BOS>", "eos_token": "<EOS>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return HuggingFaceTokenizer.load(folder)


def learnt(tokenizer, ids, mask):
    return tokenizer.decode([index for index, is_learnt in zip(ids, mask, strict=True) if is_learnt])


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_transformers_and_each_answer_is_learnt(name, bare, tmp_path):
    from transformers import AutoTokenizer  # pyrefly: ignore[missing-import]

    tokenizer = tokenizer_of(tmp_path, name, bare)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    for talk, asked in ((TALK[:2], False), (TALK, False), (TALK[:1], True), (TALK[:3], True)):
        if name.startswith(IMAGES):
            # Nothing is learnt from a prompt, so only the talks with answers have to be refused.
            if not asked:
                with pytest.raises(UserError, match="leaves out|refuses"):
                    render(talk, tokenizer)
            continue
        theirs = peer.apply_chat_template(talk, add_generation_prompt=asked, return_dict=True)["input_ids"]
        if "strftime_now" not in tokenizer.template:
            assert render(talk, tokenizer, generation_prompt=asked)[0] == theirs
    if name.startswith(IMAGES):
        return
    answers = [learnt(tokenizer, *one) for one in renderings(TALK, tokenizer)]
    said = "".join(answers)
    assert said.count(TALK[1]["content"]) == said.count(TALK[3]["content"]) == 1, answers
    assert TALK[0]["content"] not in said and TALK[2]["content"] not in said, answers
    end = tokenizer.decode([tokenizer.end])
    assert name in ENDLESS or all(end in answer.split(TALK[1]["content"])[-1] for answer in answers), (
        end,
        answers,
    )
