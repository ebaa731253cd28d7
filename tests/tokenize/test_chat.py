import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer, train

TINY = train(["the cat sat on the mat"] * 3, 270)
TALK = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye"), ("assistant", "")]


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def said(ids: list[int], mask: list[int], tokenizer: Tokenizer = TINY) -> str:
    return tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])


def test_layout_and_mask() -> None:
    ids, mask = render(messages(*TALK), TINY)
    assert TINY.decode(ids) == (
        "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>"
        "<|user|>Bye<|end|><|assistant|><|end|>"
    )
    assert said(ids, mask) == "Hello!<|end|><|end|>"


def test_generation_prompt_is_the_conversation_up_to_the_answer() -> None:
    prompt, mask = render(messages(*TALK[:2]), TINY, generation_prompt=True)
    whole, _ = render(messages(*TALK[:3]), TINY)
    assert prompt == whole[: len(prompt)] and TINY.decode(prompt).endswith("<|assistant|>")
    assert not any(mask)


TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["<|end|>", "<|assistant|>"])


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_no_content_can_forge_a_turn(pairs: list[tuple[str, str]]) -> None:
    turns = [turn for ask, answer in pairs for turn in (("user", ask), ("assistant", answer))]
    ids, mask = render(messages(*turns), TINY)
    assert ids.count(TINY.special["<|end|>"]) == len(turns)
    assert ids.count(TINY.special["<|assistant|>"]) == len(pairs)
    assert said(ids, mask) == "".join(answer + "<|end|>" for _, answer in pairs)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([("user", "a"), ("robot", "b")], "unknown role 'robot'"),
        ([("user", "a"), ("tool", "b")], "a tool's answer without its call"),
        ([("assistant", "a")], "wrong order"),
        ([("user", "a"), ("user", "b"), ("assistant", "c")], "wrong order"),
        ([("user", "a"), ("assistant", "b"), ("system", "c")], "wrong order"),
        ([("user", "a")], "nothing to learn"),
        ([], "nothing to learn"),
    ],
)
def test_bad_conversations_are_refused(turns: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render(messages(*turns), TINY)


def test_a_generation_prompt_needs_a_question() -> None:
    with pytest.raises(UserError, match="end with a user message"):
        render(messages(*TALK[:3]), TINY, generation_prompt=True)
