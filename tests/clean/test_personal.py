import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.clean.personal import KINDS, redact

BODY = "\n".join(
    ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"] * 3 + ["MzEfYyjiWA4R4/M2bS1G"]
)
PRIVATE = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to jane.doe+news@mail.uni-bonn.de, please.", "Write to <email>, please."),
        ("from 8.8.8.8 and 2001:4860:4860::8888.", "from <ip> and <ip>."),
        ("8.8.8.8 - - GET /", "<ip> - - GET /"),
        ("Call (415) 555-2671 or 415-555-2671 now", "Call <phone> or <phone> now"),
        ("Call +44 20 7946 0958 or +4915123456789.", "Call <phone> or <phone>."),
        ("card 4111 1111 1111 1111, 5500005555555559", "card <card>, <card>"),
        ("login from 5.9.3.7, then ping 23.8.6.1.", "login from <ip>, then ping <ip>."),
        ("http://62.4.12.9:8080/x and 5.1.2.9/24", "http://<ip>:8080/x and <ip>/24"),
        ("the server at 185.199.108.153 answered", "the server at <ip> answered"),
        ('my token = "a8f3k2m9x7q4" # set it', 'my token = "<secret>" # set it'),
        (f"begin\n{PRIVATE}\nend", "begin\n<secret>\nend"),
        (PRIVATE.split("-----END")[0] + "It was cut.", "<secret>\nIt was cut."),
        (PRIVATE.replace("KEY-", "KEY BLOCK-").replace("\n", "\n> ") + "\nend", "<secret>\nend"),
        ('KEY = "' + PRIVATE.replace("\n", "\\n") + '"', 'KEY = "<secret>"'),
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
        "Linux kernel 2.6.32.9, clause 4.2.1.3 of the standard, Oracle 11.2.0.4, the identifier 1.3.6.1",
        "upgraded from 2.6.32.9 to 3.2.1.0; firmware 1.20.3.114, release v5.10.2.200; see § 8.2.1.130",
        'VERSION = "1.2.3.4"',
        "A key file begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----.",
        "-----BEGIN RSA PRIVATE KEY-----\n(your key)\n-----END RSA PRIVATE KEY-----",
        "The packages sk-learn-based-classification-of-things and hf_transformers_of_every_kind_and_size",
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
