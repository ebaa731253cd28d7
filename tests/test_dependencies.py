"""No version that a known hole was found in may be installed: neither by pyproject.toml nor by the lock."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ADVISORIES = json.loads((ROOT / "tests" / "advisories.json").read_text())["advisories"]
"""Of what is run on strangers' input; `fixed_in` is the first version without the fault."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for part in (project["dependencies"], *extras) for text in part]


def floor(requirement: Requirement) -> Version:
    return max(
        (Version(one.version) for one in requirement.specifier if one.operator == ">="), default=Version("0")
    )


def locked() -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)(?:\[.*?\])?==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda one: one["id"])
def test_no_known_bad_version_may_be_installed(advisory: dict[str, str]):
    package, fixed = advisory["package"], Version(advisory["fixed_in"])
    asked = [one for one in requirements() if canonicalize_name(one.name) == package]
    assert asked, f"{package} is not asked for: leave the advisory out"
    assert [str(one) for one in asked if floor(one) < fixed] == []
    assert locked()[package] and all(version >= fixed for version in locked()[package])


def test_each_advisory_is_named_and_dated():
    for one in ADVISORIES:
        assert re.fullmatch(r"(PYSEC|GHSA|CVE)-[\w-]+", one["id"]) and re.fullmatch(
            r"CVE-\d{4}-\d+", one["cve"]
        )
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", one["published"])
