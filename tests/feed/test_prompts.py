"""Questions for a model: each once, in disjoint parts that do not move."""

import json
from pathlib import Path

import pytest

from jaxtrain.document import Conversation, record_id, write_records
from jaxtrain.feed import prompts
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer


@pytest.fixture
def tokenizer(tokens: Path) -> Tokenizer:
    return Tokenizer.load(tokens / "tokenizer")


def write(folder: Path, chats: list[list[tuple[str, str]]]) -> Path:
    rows = [
        Conversation(
            id=record_id("chat", str(n)),
            source="chat",
            messages=[{"role": role, "content": content} for role, content in chat],
        )
        for n, chat in enumerate(chats)
    ]
    write_records(folder / "conversations" / "chat.parquet", Conversation, rows)
    (folder / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "by hand"}))
    return folder


def texts(found: list[prompts.Prompt]) -> list[str]:
    return [prompt.messages[0]["content"] for prompt in found]


def test_parts_are_disjoint_and_together_all_questions(tokens, tokenizer):
    clean = tokens.parent / "clean"
    whole = texts(prompts.load(clean, tokenizer, 60, part=0, parts=1))
    halves = [texts(prompts.load(clean, tokenizer, 60, part=part, parts=2)) for part in range(2)]
    assert len(set(whole)) == len(whole) > 100
    assert not set(halves[0]) & set(halves[1])
    assert set(halves[0]) | set(halves[1]) == set(whole)
    assert min(map(len, halves)) > 0.35 * len(whole)


def test_a_question_is_the_first_turn_of_the_user_and_ends_where_the_model_begins(tokenizer, tmp_path):
    chat = [("system", "Be kind."), ("user", "Who are you?"), ("assistant", "A model."), ("user", "And I?")]
    (prompt,) = prompts.load(write(tmp_path, [chat]), tokenizer, 40, part=0, parts=1)
    assert prompt.messages == [{"role": "user", "content": "Who are you?"}]
    assert prompt.ids[0] == tokenizer.bos
    assert prompt.ids[-1] == tokenizer.special["<|assistant|>"]
    assert "Who are you?" in tokenizer.decode(prompt.ids)
    assert "Be kind." not in tokenizer.decode(prompt.ids)


def test_the_same_question_twice_is_one_and_order_does_not_matter(tokenizer, tmp_path):
    chats = [[("user", f"What is {n}?"), ("assistant", "A number.")] for n in range(30)]
    again = [[("user", "What is 7?"), ("assistant", "Seven.")]]
    first = prompts.load(write(tmp_path / "a", chats), tokenizer, 40, part=0, parts=1)
    second = prompts.load(write(tmp_path / "b", again + chats[::-1]), tokenizer, 40, part=0, parts=1)
    assert len(first) == 30
    assert texts(first) == texts(second)
    assert texts(first) != [f"What is {n}?" for n in range(30)], "in the order of a hash"


def test_more_conversations_leave_a_question_in_its_part(tokenizer, tmp_path):
    chats = [[("user", f"What is {n}?"), ("assistant", "A number.")] for n in range(60)]
    few = texts(prompts.load(write(tmp_path / "few", chats[:30]), tokenizer, 40, part=0, parts=2))
    many = texts(prompts.load(write(tmp_path / "many", chats), tokenizer, 40, part=0, parts=2))
    assert set(few) == set(many) & {f"What is {n}?" for n in range(30)}


def test_long_questions_are_left_out_and_none_left_is_an_error(tokenizer, tmp_path):
    chats = [[("user", "Why?" * 50), ("assistant", "So.")], [("user", "Why?"), ("assistant", "So.")]]
    clean = write(tmp_path, chats)
    assert texts(prompts.load(clean, tokenizer, 20, part=0, parts=1)) == ["Why?"]
    exactly = len(prompts.load(clean, tokenizer, 20, part=0, parts=1)[0].ids)
    assert texts(prompts.load(clean, tokenizer, exactly, part=0, parts=1)) == ["Why?"]
    with pytest.raises(UserError, match=f"no question of at most {exactly - 1} tokens"):
        prompts.load(clean, tokenizer, exactly - 1, part=0, parts=1)
    with pytest.raises(UserError, match="no finished clean artifact"):
        prompts.load(tmp_path / "nowhere", tokenizer, 20, part=0, parts=1)
