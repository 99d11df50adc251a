from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rsttrace"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = ("kernel", "capture", "compare", "judge", "enrich", "render", "watch")
"""They know the vocabulary, and nothing of each other."""
LEAVES = ("model", "errors", "limits", "home", "programs", "files")
"""They know nothing of ours."""
SHARED = ("tcp", "stacks", "jsonl")
"""They know the vocabulary only, and every layer may use them."""
HEAVY = ("bcc", "pyroute2", "netaddr", "prometheus_client", "logging_journald", "opentelemetry")
"""Imported where they are used, never at the top of a module."""


def dotted(path: Path) -> str:
    """A file's module name: ``rsttrace.kernel.btf``."""
    parts = [*path.relative_to(PACKAGE.parent).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Module names that one statement imports; ``from a import b`` gives both a and a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            up = node.level - 1 if is_package else node.level
            base = ".".join([*parts[: len(parts) - up], *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    """Everything that a file imports, at its top or later."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.name == "__init__.py"
    return {name for node in ast.walk(tree) for name in imported(node, dotted(path), package)}


def part(name: str) -> str:
    """The part of rsttrace that a module belongs to: ``kernel``, ``cli``; empty for none."""
    root, _, rest = name.partition(".")
    return rest.partition(".")[0] if root == "rsttrace" else ""


def our_parts(path: Path) -> set[str]:
    parts = {part(name) for name in imports_of(path)}
    return {
        name for name in parts if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
    }


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 20
    assert {"kernel", "commands", "enrich", "model"} <= our_parts(PACKAGE / "commands" / "trace.py")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_one_way(path: Path) -> None:
    where, used = part(dotted(path)), our_parts(path) - {""}
    if where in LEAVES or dotted(path) == "rsttrace":
        assert used <= {where}
    elif where in SHARED:
        assert used <= {*LEAVES}
    elif where in LAYERS:
        # what is compared are two captures
        assert used <= {where, *LEAVES, *SHARED, *(("capture",) if where == "compare" else ())}
    else:  # cli, commands, demo, top: the roof; only __main__ may start the command line
        assert "cli" not in used or where in ("__main__", "cli")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_click_is_the_command_lines_alone(path: Path) -> None:
    assert part(dotted(path)) == "cli" or "click" not in imports_of(path)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_nothing_heavy_is_imported_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(function, ast.If) and ast.unparse(function.test) == "TYPE_CHECKING")
        for node in ast.walk(function)
    }
    top = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if id(node) not in inside
        for name in imported(node, dotted(path), path.name == "__init__.py")
    }
    assert top.isdisjoint(HEAVY)


def test_bcc_is_the_childs_alone_and_pyroute2_stays_with_networks() -> None:
    users: dict[str, set[str]] = {name: set() for name in HEAVY}
    for path in MODULES:
        for name in {name.partition(".")[0] for name in imports_of(path)} & set(HEAVY):
            users[name].add(dotted(path))
    assert users["bcc"] == {"rsttrace.kernel.bcc"}
    assert {part(name) for name in users["netaddr"]} == {"enrich"}
    assert {part(name) for name in users["prometheus_client"]} == {"watch"}
    assert users["logging_journald"] == {"rsttrace.watch.journal"}
    assert users["opentelemetry"] == {"rsttrace.watch.otlp"}
    assert {part(name) for name in users["pyroute2"]} <= {"enrich", "demo"}


def test_textual_is_the_screen_s_alone() -> None:
    users = {dotted(path) for path in MODULES if {"textual", "rich"} & imports_of(path)}
    assert users <= {"rsttrace.top.app"}
    with_it = {dotted(path) for path in MODULES if "rsttrace.top.app" in imports_of(path)}
    assert with_it == {"rsttrace.commands.top"}


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted(Path(__file__).parents[1].rglob("*.py"))], ids=str
)
def test_nobody_waits_with_select(path: Path) -> None:
    """It knows no descriptors from 1,024 on (FD_SETSIZE, select(2))."""
    calls = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute)}  # fmt: skip
    assert "select.select" not in calls


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running some code."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "code",
    [
        "import sys, json, rsttrace.cli",
        "import sys, json, rsttrace.commands.trace",
        "import sys, json, rsttrace.kernel.child, rsttrace.enrich, rsttrace.judge.verdict",
    ],
)
def test_importing_needs_no_heavy_library(code: str) -> None:
    loaded = modules_after(code + "\nprint(json.dumps(sorted(sys.modules)))")
    assert "rsttrace" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["trace", "--help"], ["--version"], ["schema"]])
def test_running_a_harmless_command_needs_none_either(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from rsttrace.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as done:\n"
        "    assert not done.code, done.code\n"
        "print()\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    loaded = modules_after(code)
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint({"dissect", "ctypes"} if arguments != ["schema"] else {"dissect"})
