"""Built by somebody else, elsewhere and at another time, a package is the same to the byte.

The wheel: tests/unit/test_wheel.py; the image: tests/packages/test_image.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packages.clones import built, clone


@pytest.mark.parametrize("module", ["packages.deb", "packages.onefile"])
def test_somebody_else_builds_the_same(module: str, tmp_path: Path) -> None:
    here = built(module, clone(tmp_path / "here"), 0o022, odd=False)
    other = clone(tmp_path / "deep" / "er", umask=0o077, when=1_000_000_000)
    there = built(module, other, 0o077, odd=True)
    assert here.name == there.name
    assert here.read_bytes() == there.read_bytes()
