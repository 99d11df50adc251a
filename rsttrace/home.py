"""Where this rsttrace is: a folder (a checkout, an installation) or one file (``rsttrace.pyz``).

Whatever is read beside the code, and every Python process that we start, goes through here: in a
zip file there are no paths, and an installation in a folder of its own is on nobody's module path.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

ROOT = Path(__file__).resolve().parent.parent
"""What is on the module path for us: the folder that holds the package, or the zip file."""

_START = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


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


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a program, in a Python of its own.

    Isolated: neither the current directory nor PYTHON* variables can slip code into a process that
    may run as root.
    """
    return [sys.executable, "-I", "-c", _START, str(ROOT), module, *arguments]
