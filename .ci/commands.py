"""The commands of a page, as a shell script: `.ci/commands.py PAGE HEADING [LANGUAGE]`.

Those of the blocks below the heading, without blocks that are marked `<!-- not run: why -->`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PARTS = re.compile(
    r"^#+ (?P<heading>.+?)$|(?P<mark>^<!-- not run: [^\n]+ -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Heading, language and text of each block that is to be run."""
    heading = ""
    for part in PARTS.finditer(page.read_text(encoding="utf-8")):
        heading = part["heading"] or heading
        if not part["heading"] and not part["mark"]:
            yield heading, part["language"], part["code"]


if __name__ == "__main__":
    page, wanted, language = [*sys.argv[1:], ""][:3]
    found = [code for of, kind, code in blocks(Path(page)) if (of, kind) == (wanted, language)]
    sys.stdout.write("".join(found) or sys.exit(f"{page} has no block below {wanted!r}"))
