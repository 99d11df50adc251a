"""``rsttrace --version``: ours, and of all that decides what a trace here can say."""

from __future__ import annotations

import json
import platform
import subprocess

from rsttrace import __version__, home, programs

LONGEST_S = 30.0
"""A library that takes longer to load is not waited for."""

NAMES = {"LLVM": "llvm", "libbpf": "libbpf"}


def lines() -> list[str]:
    """Rsttrace, the libraries, the kernel with the plan that runs unless told else; the SBOM."""
    kernel = f"Linux {platform.release()} {platform.machine()}"
    python = f"Python {platform.python_version()}"
    found = _found()
    if found is None:
        libraries = "bcc cannot be loaded (rsttrace doctor says why)"
    else:
        bcc = found["bcc"]
        libraries = f"bcc {bcc}" if bcc else "no bcc (rsttrace doctor says what to do)"
        for name, key in NAMES.items():
            libraries += f", {name} {found[key]}" if found[key] else ""
        kernel += f", plan: {found['plan']}"
    made_of = home.sbom()
    return [
        f"rsttrace {__version__}",
        f"{libraries}, {python}",
        kernel,
        *([f"SBOM: {made_of}"] if made_of else []),
    ]


def _found() -> dict[str, str | None] | None:
    """What `rsttrace.kernel.versions` says; `None` if a library ended it."""
    try:
        done = programs.run(
            home.python("rsttrace.kernel.versions"),
            programs.own_environment(),
            timeout=LONGEST_S,
        )
        done.check_returncode()
        found: dict[str, str | None] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found
