"""The documents: every link leads somewhere, and every command that they name is one that is understood."""

import ast
import re
import runpy
from pathlib import Path

import pytest

from jaxtrain import cli, recipe
from jaxtrain import config as configs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
blocks = runpy.run_path(str(ROOT / ".ci" / "commands.py"))["blocks"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_flags_exist(page: Path) -> None:
    text = page.read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    for block in [*blocks, *(code for row in rows for code in re.findall(r"`(jaxtrain [^`]+)`", row))]:
        for line in re.findall(r"\bjaxtrain ((?:[\w./-]+ ?|&& jaxtrain )+.*)", block):
            for command in line.partition(" #")[0].split("&& jaxtrain "):
                check(command.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_commands_is_run_or_says_why_not(page: Path) -> None:
    followed = re.findall(r'^ *follow (\S+) "(.+?)"$', (ROOT / ".ci" / "wheel").read_text(), re.MULTILINE)
    known = {heading for name, heading in followed if name == str(page.relative_to(ROOT))}
    assert {heading for heading, language, _ in blocks(page) if not language} == known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_finds_what_it_imports(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), str(page), "exec"), {})


def check(words: list[str]) -> None:
    name = " ".join(words[:2]) if " ".join(words[:2]) in cli.COMMANDS else words[0]
    if name.startswith("-"):
        return
    command = cli.COMMANDS[name]
    flags = {word for word in words if word.startswith("--")} - {"--help", cli.RESTART}
    kinds = cli._resolved(command.files) if command.files else []
    known = {}
    for kind in kinds + (cli._resolved(command.flags)[:1] if command.flags else []):
        known |= configs._known(kind)
    assert [flag for flag in flags if configs._whole_name(flag, known)[2:] not in known] == []
    if "--from" in flags:
        assert (recipe.SHIPPED / "configs" / words[words.index("--from") + 1]).is_dir()
