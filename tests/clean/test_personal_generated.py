"""2,100 generated items of personal data in real sentences, and as many look-alikes that are none."""

import json
import lzma
import random
import string
from collections import Counter
from pathlib import Path

from jaxtrain.clean.personal import KINDS, redact

BOOKS = Path(__file__).parents[2] / "data/quickstart/books.jsonl.xz"
A_KIND = 300
LETTERS, DIGITS = string.ascii_letters, string.digits


def luhn(digits: str) -> str:
    """`digits` and its check digit, by the definition: double every second from the right."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if i % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def iban(country: str, account: str) -> str:
    value = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    return f"{country}{98 - int(value) % 97:02d}{account}"


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(DIGITS, k=count))


def item(kind: str, rng: random.Random) -> str:
    """One item of a kind, in one of the ways in which people write it."""
    name = rng.choice(["jane", "omar", "li.wei", "anna_k", "j.smith", "petra"])
    match kind:
        case "email":
            host = rng.choice(["uni-bonn.de", "mail.co.uk", "post.fi", "a-b.org", "firma.com"])
            return f"{name}{rng.choice(['', '+news', str(rng.randrange(99))])}@{host}"
        case "ip":
            first = rng.choice([5, 23, 46, 62, 81, 93, 130, 151, 185, 212])
            four = f"{first}.{rng.randrange(1, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
            six = "2a02:{:x}:{:x}::{:x}".format(*(rng.randrange(16, 0xFFFF) for _ in range(3)))
            return rng.choice([four, six])
        case "phone":
            area, rest = f"{rng.randrange(201, 990)}", f"{rng.randrange(200, 999)}"
            line = digits(rng, 4)
            return rng.choice(
                [
                    f"({area}) {rest}-{line}",
                    f"{area}-{rest}-{line}",
                    f"+1 {area} {rest} {line}",
                    f"+44 20 7{digits(rng, 3)} {line}",
                    f"+49 30 {digits(rng, 7)}",
                ]
            )
        case "card":
            number = luhn(rng.choice(["4", "51", "52", "55"]).ljust(2, "9") + digits(rng, 13))
            groups = [number[i : i + 4] for i in range(0, 16, 4)]
            return rng.choice([number, " ".join(groups), "-".join(groups)])
        case "account":
            plain = rng.choice(
                [
                    iban("DE", digits(rng, 18)),
                    iban("NL", "ABNA" + digits(rng, 10)),
                    iban("FR", digits(rng, 23)),
                    iban("GB", "NWBK" + digits(rng, 14)),
                ]
            )
            spaced = " ".join(plain[i : i + 4] for i in range(0, len(plain), 4))
            return rng.choice([plain, spaced])
        case "national_id":
            number = rng.randrange(10**7, 10**8)
            area, group, serial = rng.randrange(1, 666), rng.randrange(1, 100), rng.randrange(1, 10000)
            return rng.choice(
                [
                    f"{area:03d}-{group:02d}-{serial:04d}",
                    f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}",
                    f"AB {digits(rng, 2)} {digits(rng, 2)} {digits(rng, 2)} C",
                    f"JG{digits(rng, 6)}A",
                ]
            )
        case _:
            random_part = "".join(rng.choices(LETTERS + DIGITS, k=36))
            upper = "".join(rng.choices(string.ascii_uppercase + DIGITS, k=16))
            return rng.choice(
                [
                    f"ghp_{random_part}",
                    f"AKIA{upper}",
                    f"AIza{random_part[:35]}",
                    f'api_key = "{random_part[:24]}7b"',
                    f"sk-{random_part}",
                ]
            )


def look_alike(rng: random.Random) -> str:
    """What has the form of personal data and is none."""
    wrong = luhn("4" + digits(rng, 14))
    wrong = wrong[:-1] + str((int(wrong[-1]) + rng.randrange(1, 10)) % 10)
    return rng.choice(
        [
            f"192.168.{rng.randrange(256)}.{rng.randrange(256)}",
            f"version {rng.randrange(9)}.{rng.randrange(30)}.{rng.randrange(90)}",
            f"{rng.randrange(1000, 2030)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}",
            f"page {rng.randrange(99999)}",
            wrong,
            f"name@example.com, @{rng.choice(['jane', 'omar'])}",
            f"{rng.randrange(1, 999)},{digits(rng, 3)},{digits(rng, 3)}",
            f"DE{digits(rng, 2)} is a road",
            f"{rng.randrange(1, 24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}",
            f"ISBN 978-0-{digits(rng, 3)}-{digits(rng, 5)}-{digits(rng, 1)}",
            f"commit {rng.randrange(16**39, 16**40):x}",
            'password = "your-password-here"',
            f"{rng.random():.12f}",
            f"{digits(rng, 8)}U",
        ]
    )


def measure(seed: int = 0) -> dict[str, tuple[float, float]]:
    """Kind → (precision, recall)."""
    rng = random.Random(seed)
    with lzma.open(BOOKS, "rt") as lines:
        words = json.loads(next(lines))["text"].split()
    planted, right, masked = Counter(), Counter(), Counter()
    cases = [(kind, item(kind, rng)) for kind in KINDS for _ in range(A_KIND)]
    cases += [("", look_alike(rng)) for _ in cases]
    for kind, text in cases:
        place = rng.randrange(len(words) - 40)
        sentence = f"{' '.join(words[place : place + 12])} {text} {' '.join(words[place + 12 : place + 20])}"
        redacted, counts = redact(sentence)
        masked.update({found: count for found, count in counts.items() if count})
        if kind:
            planted[kind] += 1
            right[kind] += counts[kind] == 1 and redacted.count("<") == 1 and text not in redacted
    return {kind: (right[kind] / max(masked[kind], 1), right[kind] / planted[kind]) for kind in KINDS}


def test_precision_and_recall_on_2100_items_and_as_many_look_alikes():
    assert len(KINDS) * A_KIND >= 2000
    table = measure()
    for kind, (precision, recall) in table.items():
        assert precision >= 0.97 and recall >= 0.97, (kind, table)
