"""Each lock has what pyproject.toml asks for, within its ranges, with hashes, for every Python."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import packages.lock
from packages import VENDORED
from packages.lock import COMPILED, FOLDER, GUESTS, HASHED, LOCKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
LOCKED = {**LOCKS, "vendored": ("top",)}


def lock(name: str) -> str:
    return (FOLDER / f"{name}.lock").read_text(encoding="utf-8")


def pins(text: str, python: str) -> dict[str, str]:
    """The version of each package there for a Python."""
    found = packages.lock.pins(text, python)
    versions = {pin.name: pin.version for pin in found}
    assert len(versions) == len(found), f"a package twice for Python {python}"
    return versions


def asked_for(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras; rsttrace[…] is our own."""
    project = PROJECT["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            own = Requirement(line)
            if own.name == "rsttrace":
                for more in own.extras:
                    lines += project["optional-dependencies"][more]
            else:
                lines.append(line)
    return [Requirement(line) for line in lines]


def lacking(text: str, wanted: list[Requirement], python: str) -> list[str]:
    """What a lock has not, or not in its range, for a Python."""
    pinned = pins(text, python)
    return [
        str(each)
        for each in wanted
        if each.marker is None or each.marker.evaluate({"python_version": python, "extra": ""})
        if not each.specifier.contains(pinned.get(canonicalize_name(each.name), "0"))
    ]


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_fits_the_ranges(name: str) -> None:
    left_out = COMPILED if name == "vendored" else ()
    wanted = [each for each in asked_for(LOCKED[name]) if each.name not in left_out]
    assert len(wanted) > 7
    for python in PYTHONS if name != "vendored" else PYTHONS[:1]:
        assert lacking(lock(name), wanted, python) == []


@pytest.mark.parametrize("name", sorted({*LOCKS} - {GUESTS}))
def test_a_lock_has_what_builds_ours(name: str) -> None:
    builds = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    text = (FOLDER / "hatch.in").read_text(encoding="utf-8")
    assert {str(each) for each in builds} <= {
        str(Requirement(line)) for line in text.splitlines() if line[:1] != "#"
    }
    for python in PYTHONS:
        assert lacking(lock(name), builds, python) == []


@pytest.mark.parametrize("name", LOCKED)
def test_every_line_is_a_version_with_its_hashes(name: str) -> None:
    text = lock(name)
    rest = re.sub(r"^ *#.*\n", "", HASHED.sub("", text), flags=re.MULTILINE)
    assert rest.strip() == "", "no registry, no file, no option"


def test_other_machines_find_their_files() -> None:
    """A compiled package has wheels for several machines and Pythons: the hashes of all."""
    counts = {f"{name} {version}": hashes.count("--hash=")
              for name, version, _, hashes in HASHED.findall(lock("dev"))}  # fmt: skip
    for name in ("ruff", "mypy", "rpds-py", "uv"):
        assert all(count > 10 for key, count in counts.items() if key.split()[0] == name), name


@pytest.mark.parametrize("name", LOCKS)
def test_locks_agree(name: str) -> None:
    first = next(iter(LOCKS))
    for python in PYTHONS:
        ours, theirs = pins(lock(name), python), pins(lock(first), python)
        assert {key: ours[key] for key in ours.keys() & theirs.keys()} == {
            key: theirs[key] for key in ours.keys() & theirs.keys()
        }


def test_what_does_not_fit_is_noticed() -> None:
    wanted = asked_for(())
    text = lock("run")
    other = re.sub(r"^click==8", "click==9", text, flags=re.MULTILINE)
    assert [line.partition("<")[0] for line in lacking(other, wanted, "3.11")] == ["click"]
    assert lacking(text.replace("jinja2", "jinja3"), wanted, "3.11") == ["jinja2<4,>=3.1"]
    assert HASHED.fullmatch("a==1 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    assert not HASHED.search("a==1\nb @ https://example.org/b.whl\n--index-url https://x\n")


def test_every_make_target_installs_from_a_lock() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = re.findall(r"\$\(call locked,(\w+)\)", makefile)
    assert {*names} == {*LOCKS} - {GUESTS}  # tests/kernels/run.py
    installs = re.findall(r"pip install.*", makefile)
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert VENDORED == FOLDER / "vendored.lock"
