"""``make zipapp``: ``dist/rsttrace.pyz``, which the node's python3 runs as it is, with its bcc.

Nothing is unpacked and nothing is left behind but the cache of compiled programs
(/var/cache/rsttrace, or none with ``RSTTRACE_CACHE=``): Python imports from the zip file itself.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path
from typing import IO

from packages import BUILD, ROOT
from packages.deliver import deliver
from packages.epoch import epoch
from packages.stage import stage

START = """\
import os
import sys

if sys.version_info < (3, 9):
    sys.exit("rsttrace: needs Python 3.9 or newer; this is " + sys.version.split()[0])

sys.path[0] = os.path.abspath(sys.path[0])  # this file, wherever we go

from rsttrace.cli import main

main()
"""


def build(where: Path = BUILD / "zipapp") -> Path:
    """Build the file in a folder of its own; returns it.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    shutil.rmtree(where, ignore_errors=True)
    tree = where / "tree"
    when = epoch()
    licences = stage(tree, when)
    (tree / "LICENSES").mkdir()
    for name, text in licences.items():
        (tree / "LICENSES" / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "LICENSE", tree / "LICENSES" / "rsttrace")
    (tree / "__main__.py").write_text(START)
    made = where / "rsttrace.pyz"
    with made.open("wb") as file:
        file.write(b"#!/usr/bin/python3\n")
        _zip(tree, file, when)
    made.chmod(0o755)
    return made


def _zip(tree: Path, file: IO[bytes], when: int) -> None:
    """As `zipapp` does it, but the same wherever it is built: in UTC, and with one mode for all."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            name = path.relative_to(tree).as_posix()
            information = zipfile.ZipInfo(name, time.gmtime(when)[:6])
            information.external_attr = 0o100644 << 16
            information.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(information, path.read_bytes())


def main() -> None:
    """Build it, and put it into dist/."""
    deliver(build())


if __name__ == "__main__":
    main()
