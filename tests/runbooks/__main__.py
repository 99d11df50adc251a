"""Writes the sample output of the runbooks anew, from a run in the lab.

sudo .venv/bin/python -m tests.runbooks [NAME...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.runbooks.runner import Stage, documents, written_anew


def main() -> None:
    """All runbooks, or those named."""
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        for path in documents():
            if not sys.argv[1:] or path.stem in sys.argv[1:]:
                path.write_text(written_anew(path, stage), encoding="utf-8")
                print(path)


if __name__ == "__main__":
    main()
