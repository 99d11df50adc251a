"""The machine's CLOCK_MONOTONIC, from inside a time namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsttrace.kernel import clock


@pytest.mark.parametrize(
    ("text", "offset_ns"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic       86400 500000000\nboottime            7         0\n", 86_400_500_000_000),
        ("monotonic      -86401 500000000\n", -86_400_500_000_000),
        ("1 5 0\n7 6 0\n", 5_000_000_000),
        ("", 0),
    ],
)
def test_what_a_time_namespace_adds_is_taken_off(
    text: str, offset_ns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "timens_offsets"
    path.write_text(text)
    monkeypatch.setattr(clock, "OFFSETS", path)
    clock.offset_ns.cache_clear()
    try:
        assert clock.offset_ns() == offset_ns
        monkeypatch.setattr(clock, "OFFSETS", tmp_path / "none")
        clock.offset_ns.cache_clear()
        assert clock.offset_ns() == 0
    finally:
        clock.offset_ns.cache_clear()
