"""Lays out rsttrace with all that it imports in one folder that any Python from 3.9 on can use.

Only the distribution's bcc and libbpf are missing. Nothing in it is compiled: MarkupSafe's wheel
has a compiled part, which is left out, for its plain twin does the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packages import ROOT, VENDORED, sbom

PIP = (
    *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
    *("--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:"),
    *("--implementation", "cp", "--python-version", "3.9", "--platform", "any"),
    *("--platform", "manylinux2014_x86_64"),
)

UNUSED = {
    "bin": (".",),
    "share": (".",),  # their manual pages
    "markupsafe": ("_speedups.c",),
    "netaddr": ("tests",),
    "pyroute2": ("decoder", "dhcp", "fixtures"),
    # Only its readers and writers of capture files are used.
    "scapy": ("asn1", "cbor", "contrib", "layers", "modules", "tools"),
    "textual": ("demo", "tree-sitter"),
}
"""Of each package, what rsttrace never imports."""

LEXERS = ("__init__.py", "_mapping.py", "python.py")
"""Of pygments' lexers (most of it), those that show where in Python an error came from."""

NO_CODE = (".so", ".pyi", ".typed", ".c")
"""What no interpreter reads, and what only one of them could load."""


class StageError(Exception):
    """It cannot be laid out; the message says why."""


def stage(target: Path, when: int) -> dict[str, str]:
    """Fill `target`; returns the licences of what it carries, by the package's name.

    It has an SBOM (`packages.sbom`) of that time, in seconds since 1970.

    Raises:
        StageError: something compiled is left.
        subprocess.CalledProcessError: pip failed.
    """
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        where = ("--target", str(target), "--report", str(report))
        subprocess.run([*PIP, *where, "-r", str(VENDORED)], check=True)
        hashes = sbom.installed_hashes(report)
    found = {}
    for information in sorted(target.glob("*.dist-info")):
        name = information.name.split("-")[0]
        found[name] = sbom.carried(information, hashes, UNUSED.get(name, ()))
        shutil.rmtree(information)
    (target / sbom.NAME).write_text(sbom.of_carried(when, found.values()), encoding="utf-8")
    for package, names in UNUSED.items():
        for name in names:
            path = target / package / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (target / "pygments" / "lexers").glob("*.py"):
        if path.name not in LEXERS:
            path.unlink()
    for path in [*target.rglob("*")]:
        if path.suffix in NO_CODE:
            path.unlink()
        elif path.suffix == ".py" and path.read_bytes()[:2] == b"#!":  # nobody runs it as a program
            path.write_bytes(path.read_bytes().partition(b"\n")[2])
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "rsttrace", target / "rsttrace", ignore=without)
    shutil.copytree(ROOT / "bpf", target / "rsttrace" / "bpf", ignore=without)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
            raise StageError(f"{path} is compiled: it would run on one kind of machine only")
    return {name: each.licence for name, each in found.items()}
