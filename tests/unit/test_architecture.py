"""Documents and comments name what is there: files, modules, rooms, who may import whom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit import test_imports as imports

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "vagrant" / "README.md"])
ROOMS = "bpf|rsttrace|tests|docs|vagrant"
SOURCES = sorted(
    path
    for room in ROOMS.split("|")
    for path in (ROOT / room).rglob("*")
    if path.suffix in (".py", ".c", ".h", ".sh", ".toml") and "dist" not in path.parts
)
MADE = (
    *("vagrant/dist/", "rsttrace/bpf/", "rsttrace/bpf/event.h", "rsttrace.pyz"),
    *("docs/performance.md", "docs/performance.json"),
    *("rsttrace.cgroup", "rsttrace.service", "rsttrace.default", "rsttrace.json"),
)
"""What is made later, a word of a guest's kernel command line, files of systemd, an attribute."""


def named(text: str) -> set[str]:
    """Every path of ours that a text names."""
    return set(re.findall(rf"(?<![\w./-])(?:{ROOMS})/(?:[\w.-]+/)*(?:[\w.-]+\.\w+)?", text))


def modules(text: str) -> set[str]:
    """Every module that a text names, with what it names there (``rsttrace.tcp.distance``)."""
    return set(re.findall(r"(?<![\w./-])(?:rsttrace|tests)(?:\.[A-Za-z_]\w*)+", text))


def is_there(name: str) -> bool:
    """Whether a module, and what is named in it, exists."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.is_dir():
            path /= "__init__.py"
        else:
            path = path.with_suffix(".py")
        if path.is_file():
            rest = parts[length : length + 1]
            return not rest or re.search(rf"\b{rest[0]}\b", path.read_text()) is not None
    return False


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES], ids=lambda path: path.name)
def test_every_file_and_module_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert {name for name in named(text) if not (ROOT / name).exists()} <= set(MADE)
    assert {name for name in modules(text) if not is_there(name)} <= set(MADE)


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
