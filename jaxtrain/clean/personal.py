"""Personal data replaced by placeholders. Conservative: a number that may be something else stays."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtrain.clean.filter import Filter, Record
from jaxtrain.runtime.errors import UserError

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b")
# Four numbers that number a heading are no address.
_IPV4 = re.compile(r"(?im)(?<![\w.-])(?!^[\d.]+\.\s)\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
# Nor are those behind such words, nor four small numbers, unless something says that they are.
_NUMBERED = re.compile(
    r"(?i)\b(?:versions?|ver|v|releases?|kernel|firmware|driver|build|update|upgraded?|patch|clauses?"
    r"|sections?|sec|chapters?|articles?|paragraphs?|subclause|annex|appendix|rules?|steps?|items?|tables?"
    r"|figures?|oid|identifiers?)\b[^.!?\n]{0,40}\Z|§ ?\Z"
)
_ADDRESSED = re.compile(
    r"(?i)\b(?:ip|ips|ipv4|address|addresses|addr|hosts?|servers?|dns|gateway|nameserver|ping|router|proxy"
    r"|clients?|from|inet|peer|remote)\b[^.!?\n]{0,30}\Z|(?://|@)\Z"
)
_ADDRESS_GOES_ON = re.compile(r":\d{2,5}\b|/\d{1,2}\b| - ")
LARGEST_NUMBER = 63
"""Of four numbers that may be a version or a clause: of addresses one in a hundred has no larger one."""
# Global unicast is 2000::/3; shorter forms are rather slices of a list, a[::2].
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_CARD = re.compile(
    r"(?<![\w.-])(?:\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}|\d{4}[ -]\d{6}[ -]\d{5}|\d{13,16})(?![\w-]|\.\d)"
)
# +CC with separators or digits; (NNN) NNN-NNNN; NNN-NNN-NNNN and NNN.NNN.NNNN as written in North America.
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}"
    r"|(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([.-]))[2-9]\d{2}(?(1)\1|[ .-])\d{4})(?![\w-]|\.\d)"
)
# United States: social security. United Kingdom: national insurance. Spain: DNI and NIE, with a check letter.
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_NINO = re.compile(r"\b(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:\d\d ?){3}[A-D]\b")
_DNI = re.compile(r"\b(?:\d{8}|[XYZ]\d{7})-?[A-HJ-NP-TV-Z]\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
# Prefixes that issuers publish so that keys can be found; and keys, tokens and passwords that are assigned.
# Of a private key, lines of base64 have to follow: its name in a sentence is none.
_GAP = r"(?:\\[nr]|[\s\"'>#])+"
_KEY = re.compile(
    rf"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----{_GAP}"
    rf"(?:[A-Z][A-Za-z-]+: [^\n\\]*(?:\\[nr]|\n)(?:{_GAP})?){{0,9}}"
    rf"[A-Za-z0-9+/]{{20,}}(?:{_GAP}[A-Za-z0-9+/=]{{20,}})*"
    rf"(?:(?:{_GAP}[A-Za-z0-9+/=]+)?{_GAP}-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{40,}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[\w-]{35}|\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}"
    r"|\bsk_live_[A-Za-z0-9]{16,}|\bglpat-[\w-]{20,}|\bhf_[A-Za-z]{30,}|\bnpm_[A-Za-z0-9]{36}\b"
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)
_ASSIGNED = re.compile(
    r"(?i)(?<=[\s\"'_{,(])(?:api[_-]?key|secret|token|passw(?:or)?d|access[_-]?key)[\"']?\s*[:=]\s*"
    r"[\"'](?P<value>[^\s\"'$<>{}()]{12,})[\"']"
)
PHONE_DIGITS = range(8, 16)  # ITU-T E.164: at most 15 digits
DOCUMENTATION = {"example.com", "example.org", "example.net"}  # RFC 2606: nobody's


def _is_public_address(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:  # 999.1.1.1, 12:30:45
        return False
    if not address.is_global or address.version == 6:
        return address.is_global
    before = match.string[max(0, match.start() - 60) : match.start()]
    if _NUMBERED.search(before):
        return False
    small = max(address.packed) <= LARGEST_NUMBER
    behind = _ADDRESS_GOES_ON.match(match.string, match.end())
    return not small or bool(behind or _ADDRESSED.search(before))


def _is_card(match: re.Match[str]) -> bool:
    """Luhn's check digit (ISO/IEC 7812), which chance passes once in ten, and the first digit of a card."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    checked = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return checked and digits[0] in (2, 3, 4, 5, 6) and len(set(digits)) > 1


def _is_iban(match: re.Match[str]) -> bool:
    """Remainder 1 of the number with its first four characters behind (ISO 13616)."""
    compact = match[0].replace(" ", "")
    digits = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return 15 <= len(compact) <= 34 and int(digits) % 97 == 1


def _is_national_id(match: re.Match[str]) -> bool:
    """Of a Spanish one, the only with a letter at the end alone, that is the number's remainder by 23."""
    compact = match[0].replace("-", "")
    if match.re is not _DNI:
        return True
    number = compact[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == compact[-1]


def _is_secret(match: re.Match[str]) -> bool:
    """Of a value letters and digits mixed: a word or a placeholder is none. Of a key a digit or a change of
    case: `sk-learn-based-classification` has neither."""
    value = match.groupdict().get("value")
    if value is None:
        return any(map(str.isdigit, match[0])) or not (match[0].islower() or match[0].isupper())
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and len(set(value)) > 6


class Kind(NamedTuple):
    """How one kind of personal data is found."""

    patterns: tuple[re.Pattern[str], ...]
    is_one: Callable[[re.Match[str]], bool]
    """Whether a match is such data, and not only looks like it."""
    needs: str = ""
    """What a text must have for a search to be worth it: most have not."""


_KINDS = {
    "secret": Kind((_KEY, _ASSIGNED), _is_secret),
    "email": Kind((_EMAIL,), lambda match: match[0].rpartition("@")[2].lower() not in DOCUMENTATION, "@"),
    "ip": Kind((_IPV4, _IPV6), _is_public_address, r"\d\.\d{1,3}\.\d|[0-9A-Fa-f]:[0-9A-Fa-f:]"),
    "account": Kind((_IBAN,), _is_iban, r"[A-Z]{2}\d\d"),
    "card": Kind((_CARD,), _is_card, r"\d{4}[ -]?\d{4}"),
    "national_id": Kind((_SSN, _NINO, _DNI), _is_national_id, r"\d\d[- ]?\d\d"),
    "phone": Kind((_PHONE,), lambda m: sum(map(str.isdigit, m[0])) in PHONE_DIGITS, r"\d[\d ().+-]{6}"),
}
KINDS = tuple(_KINDS)


def redact(text: str, kinds: tuple[str, ...] = KINDS) -> tuple[str, dict[str, int]]:
    """`text` with `<email>`, `<ip>`, … in place of each, and the count of each kind."""
    counts = dict.fromkeys(kinds, 0)
    for name in [name for name in KINDS if name in kinds and re.search(_KINDS[name].needs, text)]:
        kind = _KINDS[name]

        def replace(match: re.Match[str], name: str = name, kind: Kind = kind) -> str:
            if not kind.is_one(match):
                return match[0]
            counts[name] += 1
            found = match.groupdict().get("value")
            return match[0].replace(found, f"<{name}>") if found else f"<{name}>"

        for pattern in kind.patterns:
            text = pattern.sub(replace, text)
    return text, counts


@dataclass(frozen=True)
class Personal(Filter):
    """Replaces personal data by placeholders such as `<email>`."""

    kinds: tuple[str, ...] = KINDS
    """Which of them."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise UserError(f"Personal: no kind {unknown[0]!r}; choose of {', '.join(KINDS)}")

    def change(self, record: Record) -> None:
        def redacted(text: str) -> str:
            text, found = redact(text, self.kinds)
            record.replaced.update(found)
            return text

        record.edit(redacted, arguments=True)
