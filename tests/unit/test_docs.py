"""The documents name what is there: files, rooms, who may import whom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit import test_imports as imports

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "vagrant" / "README.md"])
ROOMS = "bpf|rsttrace|tests|docs|vagrant"
MADE = ("vagrant/dist/", "docs/mine.toml")
"""What is made later, or an example."""


def named(text: str) -> set[str]:
    """Every path of ours that a text names."""
    return set(re.findall(rf"(?<![\w./-])(?:{ROOMS})/(?:[\w.-]+/)*(?:[\w.-]+\.\w+)?", text))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    found = named(path.read_text(encoding="utf-8"))
    assert {name for name in found if not (ROOT / name).exists()} <= set(MADE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    assert [
        link for link in links if "://" not in link and not (path.parent / link).resolve().exists()
    ] == []


def test_the_architecture_names_every_room() -> None:
    rooms = {path.parent for path in imports.PACKAGE.glob("*/__init__.py")}
    modules = {
        path
        for path in imports.PACKAGE.glob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    sources = set((ROOT / "bpf").iterdir())
    assert len(rooms) > 8
    assert len(modules) > 4
    wanted = {f"{path.relative_to(ROOT)}/" for path in rooms}
    wanted |= {str(path.relative_to(ROOT)) for path in modules | sources}
    assert wanted - named(ARCHITECTURE) == set()


def test_the_architecture_says_who_may_import_whom() -> None:
    rows = re.findall(r"^\| ((?:`\w+` ?)+) \|", ARCHITECTURE, re.MULTILINE)
    groups = [set(re.findall(r"\w+", row)) for row in rows if "/" not in row]
    top = {imports.part(imports.dotted(path)) for path in imports.MODULES} - {"", "__main__"}
    below = {*imports.LEAVES, *imports.SHARED, *imports.LAYERS}
    expected = [set(imports.LEAVES), set(imports.SHARED), set(imports.LAYERS), top - below]
    assert [group for group in groups if len(group) > 1] == expected
