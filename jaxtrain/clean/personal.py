"""Personal data replaced by placeholders. Conservative: a number that may be something else stays."""

import ipaddress
import re

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b")
# Four numbers behind "section" or "version" are no address, nor are those that number a heading.
_IPV4 = re.compile(
    r"(?im)(?<!section )(?<!version )(?<![\w.-])(?!^[\d.]+\.\s)\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)"
)
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
PHONE_DIGITS = range(8, 16)  # ITU-T E.164: at most 15 digits
DOCUMENTATION = {"example.com", "example.org", "example.net"}  # RFC 2606: nobody's


def _is_email(text: str) -> bool:
    return text.rsplit("@", 1)[1].lower() not in DOCUMENTATION


def _is_public_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:  # 999.1.1.1, 12:30:45
        return False


def _is_phone(text: str) -> bool:
    return sum(character.isdigit() for character in text) in PHONE_DIGITS


def _is_card(text: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812), which chance passes once in ten, and the first digit of a card."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (
        digits[0] in (2, 3, 4, 5, 6)
        and len(set(digits)) > 1
        and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    )


_KINDS = {
    "email": ((_EMAIL, _is_email),),
    "ip": ((_IPV4, _is_public_address), (_IPV6, _is_public_address)),
    "card": ((_CARD, _is_card),),
    "phone": ((_PHONE, _is_phone),),
}
KINDS = tuple(_KINDS)


def redact(text: str, kinds: tuple[str, ...] = KINDS) -> tuple[str, dict[str, int]]:
    """`text` with `<email>`, `<ip>`, `<card>` or `<phone>` in place of each, and the count of each kind."""
    counts = dict.fromkeys(kinds, 0)
    for kind in kinds:
        for pattern, is_one in _KINDS[kind]:

            def replace(match: re.Match[str], kind: str = kind, is_one=is_one) -> str:
                if not is_one(match[0]):
                    return match[0]
                counts[kind] += 1
                return f"<{kind}>"

            text = pattern.sub(replace, text)
    return text, counts
