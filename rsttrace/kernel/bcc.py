"""Finding bcc: the distribution's package, not PyPI's of the same name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rsttrace.errors import DependencyError

BCC_HINT = (
    "install it from the distribution (Debian, Ubuntu: python3-bpfcc; Fedora, Rocky: python3-bcc); "
    'PyPI\'s "bcc" is another project. In a virtual environment use --system-site-packages, '
    "or set RSTTRACE_BCC_PATH to the directory that holds the bcc package"
)

SYSTEM_PACKAGES = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib/python3.{sys.version_info[1]}/site-packages",
)


LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
"""Where its shared library is, there or one folder below."""


def files() -> list[Path]:
    """What tells one bcc from another without loading it: its library, and its package's version.

    The library's own dependencies (LLVM) come with it.
    """
    named = os.environ.get("RSTTRACE_BCC_PATH")
    places = [Path(place) for place in (*([named] if named else []), *sys.path, *SYSTEM_PACKAGES)]
    found = [place / "bcc" / "version.py" for place in dict.fromkeys(places)]
    for library in LIBRARIES:
        found += sorted(Path(library).glob("libbcc.so*"))
        found += sorted(Path(library).glob("*/libbcc.so*"))
    return [path for path in found if path.exists()]


def import_bcc() -> Any:
    """The real bcc.

    Raises:
        DependencyError: it is missing, is PyPI's impostor, or its library does not load.
    """
    # The packages of the distribution come last: they never hide what rsttrace was installed with.
    sys.path[:0] = [p for p in (os.environ.get("RSTTRACE_BCC_PATH"),) if p]
    sys.path += [p for p in SYSTEM_PACKAGES if p not in sys.path]
    whole = list(sys.path)
    impostor = None
    for _ in range(2):
        try:
            import bcc
        except ImportError as error:
            if impostor:
                break
            raise DependencyError(f"bcc cannot be imported: {error}", hint=BCC_HINT) from None
        if hasattr(bcc, "BPF"):
            sys.path[:] = whole  # the impostor's directory may hold packages that we need
            return bcc
        if bcc.__file__ is None:  # a directory without __init__.py: no package at all
            raise DependencyError(
                f"the bcc found in {', '.join(bcc.__path__)} is an empty directory", hint=BCC_HINT
            )
        impostor = Path(bcc.__file__).parent
        for name in [n for n in sys.modules if n == "bcc" or n.startswith("bcc.")]:
            del sys.modules[name]
        sys.path[:] = [p for p in sys.path if Path(p) != impostor.parent]
    raise DependencyError(
        f"the bcc in {impostor} is not the BPF Compiler Collection "
        "(it is PyPI's package of the same name)",
        hint=f"pip uninstall bcc, then {BCC_HINT}",
    )
