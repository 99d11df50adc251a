from __future__ import annotations

import os
from pathlib import Path

import pytest

from packages import deb as deb_builder


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("trees of other Debians need root")


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, built now."""
    return deb_builder.build(tmp_path_factory.mktemp("deb") / "build")
