"""Text of strangers on a terminal: what would steer the terminal is shown, not sent."""

_STEERING = [*range(0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Control characters of ASCII and Latin-1, and those that turn the direction of what follows."""
_SHOWN = {code: ascii(chr(code))[1:-1] for code in _STEERING if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    r"""The text with `\x1b` for an escape, and so on; lines and tabs stay. Half of a surrogate pair, too."""
    return text.translate(_SHOWN).encode(errors="backslashreplace").decode()
