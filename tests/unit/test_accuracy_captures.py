"""Where `make accuracy` takes its labelled captures from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.accuracy import captures
from tests.accuracy.__main__ import main


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(captures.VARIABLE, "/some/where")
    assert captures.given() == Path("/some/where")
    for nothing in ("", None):
        monkeypatch.delenv(captures.VARIABLE)
        if nothing is not None:
            monkeypatch.setenv(captures.VARIABLE, nothing)
        assert captures.given() is None


def test_without_a_folder_they_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(captures.VARIABLE, raising=False)
    done = CliRunner().invoke(main, ["--captures"])
    assert done.exit_code == 0
    assert "captures: skipped: no folder is named (--pcaps)" in done.output


def test_a_folder_without_labels_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--captures", "--pcaps", str(tmp_path)])
    assert done.exit_code == 1
    assert f"Error: {tmp_path} is no folder of labelled captures: it has no labels.csv" in (
        done.output
    )
