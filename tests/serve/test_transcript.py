"""Streamed text: together the same as decoded at once, never half a character or half a stop text."""

from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.model.scheduler import ends_with
from jaxtrain.serve.transcript import Transcript

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


def test_what_may_become_a_stop_text_is_held_back() -> None:
    transcript = Transcript(decode, (END,), ("###",))
    ids = list(b"ab##c##")
    assert [transcript.read(ids[:n], False) for n in range(1, 8)] == ["a", "b", "", "", "##c", "", ""]
    assert transcript.read(ids, True) == "##", "an answer that ends there keeps it"


def test_half_a_character_is_held_back() -> None:
    transcript = Transcript(decode, (END,))
    ids = list("ü🌷".encode())
    assert [transcript.read(ids[:n], False) for n in range(1, 7)] == ["", "ü", "", "", "", "🌷"]
