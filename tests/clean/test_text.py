from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.clean import text

MOJIBAKE = st.sampled_from(
    ["Ã©", "â€™", "&amp;", "&lt;", "<", "\u00ad", "\u0301", "e", "\r", "\n", "\t", "\x85", "ﬁ"]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(MOJIBAKE, st.text(max_size=3)), max_size=12).map("".join))


def test_encoding_whitespace_and_invisible_characters():
    spoiled = "  The cafÃ©\u00a0was\t open\u200b.\r\n\r\n\r\n\r\nIt isnâ€™t   &amp; wasn\u2019t. \n"
    assert text.normalize_prose(spoiled) == "The café was open.\n\nIt isn’t & wasn’t."


def test_letters_and_their_accents_are_composed():
    assert text.normalize_prose("cafe\u0301") == "caf\u00e9"


def test_code_keeps_all_but_line_ends():
    assert text.normalize_code("\ufeffif x:\r\n\ty = 'Ã©'  \r\n\r\n\r\n") == "if x:\n\ty = 'Ã©'"


@given(TEXTS)
def test_normal_forms_are_idempotent(value):
    for normalize in (
        text.normalize_prose,
        text.normalize_code,
        text.normalize_turn,
        text.remove_boilerplate,
    ):
        once = normalize(value)
        assert normalize(once) == once
