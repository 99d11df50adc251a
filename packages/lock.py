"""``make lock``: requirements/*.lock, versions and their hashes, from the ranges of pyproject.toml.

A lock is for every Python that rsttrace runs on and every machine: markers say whom a line is for,
and the hashes are those of all files that the registry has of a version. It names no registry. A
version stays as it is while it fits its range; ``make lock UPGRADE=1`` takes the newest ones.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import NamedTuple

from packaging.markers import Marker

from packages import ROOT, VENDORED

FOLDER = ROOT / "requirements"
OLDEST = "3.9"

GUESTS = "guests"
"""Of `make kernels`: there the wheel is installed, and nothing is built."""

LOCKS = {
    "dev": ("dev",),
    "run": (),
    "audit": ("dev", "audit"),
    "bench": ("dev", "bench"),
    "build": ("build",),
    "fleet": ("dev", "fleet", "packages"),
    "fuzz": ("dev", "fuzz"),
    GUESTS: ("lab",),
    "packages": ("dev", "packages"),
}
"""Of each lock, the extras of pyproject.toml; the first one decides the versions of all."""


COMPILED = ("orjson",)
"""What packages recommend and do not carry: they are the same for every machine."""

HASHED = re.compile(
    r"([^\s;]+)==([^\s;]+)(?: ; ([^\\]+?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)
"""A line of a lock."""


class Pin(NamedTuple):
    """One version of a package, and its files' hashes, as pip takes them."""

    name: str
    version: str
    hashes: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}{self.hashes}\n"


def pins(text: str, python: str) -> list[Pin]:
    """What a lock's text has for a Python (``3.11``) on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.2",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": "x86_64",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "extra": "",
    }
    return [
        Pin(name, version, hashes)
        for name, version, marker, hashes in HASHED.findall(text)
        if not marker or Marker(marker).evaluate(environment)
    ]


def compile_lock(target: str, extras: tuple[str, ...], *options: str) -> None:
    """Write a lock: a path in the checkout.

    Raises:
        subprocess.CalledProcessError: uv failed; its words are on our stderr.
    """
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"),
        *("--generate-hashes", "--no-config", "--custom-compile-command", "make lock"),
        *("--output-file", target, *(word for extra in extras for word in ("--extra", extra))),
    ]
    subprocess.run([*command, *options], cwd=ROOT, check=True)


def main() -> None:
    """Write all of them."""
    options = sys.argv[1:]
    first = next(iter(LOCKS))
    for name, extras in LOCKS.items():
        same = () if name == first else ("--constraints", f"requirements/{first}.lock")
        compile_lock(
            f"requirements/{name}.lock",
            extras,
            *(() if name == GUESTS else ("requirements/hatch.in",)),
            *("--universal", "--python-version", OLDEST, *same, *options),
        )
    # what packages carry: for the oldest Python alone, which newer ones take as well
    compile_lock(
        str(VENDORED.relative_to(ROOT)),
        ("top",),
        *("--python-version", OLDEST, "--python-platform", "x86_64-manylinux2014", *options),
        *(word for name in COMPILED for word in ("--no-emit-package", name)),
    )


if __name__ == "__main__":
    main()
