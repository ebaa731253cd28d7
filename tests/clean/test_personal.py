import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.clean.personal import KINDS, redact


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to jane.doe+news@mail.uni-bonn.de, please.", "Write to <email>, please."),
        ("from 8.8.8.8 and 2001:4860:4860::8888.", "from <ip> and <ip>."),
        ("8.8.8.8 - - GET /", "<ip> - - GET /"),
        ("Call (415) 555-2671 or 415-555-2671 now", "Call <phone> or <phone> now"),
        ("Call +44 20 7946 0958 or +4915123456789.", "Call <phone> or <phone>."),
        ("card 4111 1111 1111 1111, 5500005555555559", "card <card>, <card>"),
        ("amex 3782 822463 10005", "amex 3782 822463 10005".replace("3782 822463 10005", "<card>")),
    ],
)
def test_what_is_personal_is_replaced_and_counted(text, clean):
    redacted, counts = redact(text)
    assert redacted == clean
    assert sum(counts.values()) == sum(clean.count(f"<{kind}>") for kind in KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1, 192.168.1.20, 10.0.0.1 and 300.1.1.1",
        "12.1.1.1. Different RAID Levels",
        "RFC 7231, section 7.1.1.1, and version 8.0.30.19",
        "a[::2], x[1::2], 12:30:45 and std::vector",
        "someone@example.com, @name, a@b",
        "card 4111 1111 1111 1112 and 1234567890123456",
        "in 1914-1918, 2024-11-23, 1,234,567.89, 3.14159265358979",
        "ISBN 978-0-306-40615-7, order 5551234",
        "555-2671 and 20 7946",
    ],
)
def test_what_only_looks_personal_stays(text):
    assert redact(text) == (text, dict.fromkeys(KINDS, 0))


def test_only_the_kinds_asked_for():
    assert redact("a@b.org +44 20 7946 0958", ("email",)) == ("<email> +44 20 7946 0958", {"email": 1})


@given(st.text(alphabet="ab1234.@+-:() \n", max_size=60))
def test_redacting_twice_changes_nothing_more_than_once_leaves_counts(text):
    once, counts = redact(text)
    assert once.count("<") == sum(counts.values())
