"""Where this rsttrace is: a folder (a checkout, an installation) or one file (``rsttrace.pyz``).

Whatever is read beside the code, and every Python process that we start, goes through here: in a
zip file there are no paths, and an installation in a folder of its own is on nobody's module path.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

ROOT = Path(__file__).resolve().parent.parent
"""What is on the module path for us: the folder that holds the package, or the zip file."""

_FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Where the user's folders are (XDG Base Directory Specification)."""

SBOMS = ("image.cdx.json", "sbom.cdx.json")
"""As packages/sbom.py calls them: of the image, of the package in it."""

_START = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """While scapy is imported: it makes folders in the user's home, and keeps what it reads there.

    Where they cannot be made, it does without (_probe_xdg_folder(), scapy/main.py).
    """
    before = {name: os.environ.get(name) for name in _FOLDERS}
    os.environ.update(dict.fromkeys(_FOLDERS, "/dev/null/none"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def extra(name: str) -> str:
    """How to get an optional part's libraries, for an error's hint: its name in pyproject.toml."""
    return (
        "the Debian package, rsttrace.pyz and the image do not carry it: in a clone of rsttrace, "
        f"pip install '.[{name}]' into an environment with --system-site-packages (docs/install.md)"
    )


def resource(name: str, root: Path = ROOT) -> Traversable:
    """A file or folder of ours by its path below `root`: a `Path` if it can be had as one."""
    if root.is_file():
        return zipfile.Path(str(root), name)
    return root / name


def sbom(root: Path = ROOT) -> str | None:
    """Where it is said what this package or image is made of (CycloneDX); ``None``: nowhere."""
    for name in SBOMS:
        if resource(name, root).is_file():
            return f"{name} in {root}" if root.is_file() else str(root / name)
    return None


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a program, in a Python of its own.

    Isolated: neither the current directory nor PYTHON* variables can slip code into a process that
    may run as root.
    """
    return [sys.executable, "-I", "-c", _START, str(ROOT), module, *arguments]
