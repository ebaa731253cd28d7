"""Streamed text: together the same as decoded at once, never half a character or half a stop text."""

from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.decode.request import ends_with
from jaxtrain.serve.transcript import Transcript
from jaxtrain.tokenize.tool_text import Form

END = 256


def decode(ids) -> str:
    return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("abc", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=2),
)
def test_pieces_are_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    """An answer ends at the token that completes a stop text, or at its last one."""
    ids = [*text.encode(), END]
    is_over = ends_with(decode, stops)
    count = next((n for n in range(1, len(ids)) if stops and is_over(ids[:n])), len(ids))
    transcript = Transcript(decode, (END,), tuple(stops))
    pieces = [transcript.read(ids[:n], n == count) for n in range(count + 1)]
    said = decode(ids[:count])
    wanted = said[: min((at for stop in stops if (at := said.find(stop)) >= 0), default=len(said))]
    assert "".join(pieces) == wanted == transcript.text


def test_a_token_costs_the_same_wherever_it_stands() -> None:
    """Counted, not timed: what is decoded for the last tokens of a long answer."""
    decoded = 0

    def counting(ids) -> str:
        nonlocal decoded
        decoded += len(ids)
        return decode(ids)

    transcript, ids = Transcript(counting, (END,), ("###",)), list("ü🌷 und so weiter " * 100)
    ids = list("".join(ids).encode())
    text = "".join(transcript.read(ids[:n], False) for n in range(1, len(ids) + 1))
    assert text == decode(ids) and decoded < 64 * len(ids)


@given(st.lists(st.integers(0, 255), max_size=60), st.integers(1, 5))
def test_bytes_that_are_no_text_come_as_they_are_decoded(ids: list[int], step: int) -> None:
    transcript = Transcript(decode, (END,))
    pieces = [transcript.read(ids[:n], False) for n in range(step, len(ids), step)]
    assert "".join([*pieces, transcript.read(ids, True)]) == decode(ids)


def test_what_may_become_a_stop_text_is_held_back() -> None:
    transcript = Transcript(decode, (END,), ("###",))
    ids = list(b"ab##c##")
    assert [transcript.read(ids[:n], False) for n in range(1, 8)] == ["a", "b", "", "", "##c", "", ""]
    assert transcript.read(ids, True) == "##", "an answer that ends there keeps it"


def test_half_a_character_is_held_back() -> None:
    transcript = Transcript(decode, (END,))
    ids = list("ü🌷".encode())
    assert [transcript.read(ids[:n], False) for n in range(1, 7)] == ["", "ü", "", "", "", "🌷"]


def pieces_of(text: str, form: Form) -> tuple[list[str], Transcript]:
    """What is given out after each byte of an answer, and at its end."""
    transcript, ids = Transcript(decode, (END,), calls=form), [*text.encode(), END]
    return [transcript.read(ids[:n], n == len(ids)) for n in range(1, len(ids) + 1)], transcript


def test_a_call_is_kept_back_and_read_at_the_end() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>'
    pieces, transcript = pieces_of(f"a\n<b>\n{call}\n{call}", "tags")
    assert "".join(pieces) == "a\n<b>" and transcript.calls == [("f", {"x": "é"})] * 2
    assert [piece for piece in pieces if piece] == ["a", "\n<b", ">"], "what may open a call waits"
    pieces, transcript = pieces_of('{"name": "f", "parameters": {}}', "bare")
    assert "".join(pieces) == "" and transcript.calls == [("f", {})]


def test_what_is_no_call_comes_whole() -> None:
    for text, form in (("a\n<tool_call>{", "tags"), ('{"name": 1}', "bare"), ("<tool_call>", "")):
        pieces, transcript = pieces_of(text, form)
        assert "".join(pieces) == text and transcript.calls == []
    assert pieces_of("<tool_call>", "")[0][0] == "<", "nothing waits where no calls are looked for"
