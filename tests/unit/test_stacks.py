from __future__ import annotations

import pytest

from rsttrace.stacks import may_be_linux, order, stack
from tests.unit.builders import half

LINUX = "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7"
WINDOWS = "mss 1460,nop,wscale 8,nop,nop,sackOK"
MACOS = "mss 1460,nop,wscale 6,nop,nop,TS val 1 ecr 0,sackOK,eol"


def test_order() -> None:
    assert order(LINUX) == "mss,sackOK,TS,nop,wscale"
    assert order("") == ""


@pytest.mark.parametrize(
    ("options", "ttl", "name"),
    [
        (LINUX, 47, "Linux"),
        ("mss 1460,sackOK,TS val 1 ecr 0", 64, "Linux"),
        ("mss 1400,nop,nop,TS val 1 ecr 0,nop,wscale 7", 64, "Linux"),  # without SACK
        (f"{LINUX},tfo,nop,nop", 64, "Linux"),
        (f"{LINUX},mptcp 0001", 64, "Linux"),
        (WINDOWS, 111, "Windows"),
        ("mss 1460,nop,wscale 8,sackOK,TS val 1 ecr 0", 128, "Windows"),
        ("mss 1460,nop,nop,sackOK", 128, "Windows"),
        (MACOS, 50, "macOS or iOS"),
        ("mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 0", 60, "FreeBSD"),
        ("mss 1460,nop,nop,sackOK,nop,wscale 6,nop,nop,TS val 1 ecr 0", 60, "OpenBSD"),
        ("mss 1460,nop,nop,sackOK,nop,wscale 7", 64, None),  # Linux, OpenBSD: without timestamps
        ("mss 1460", 64, None),
        ("", 64, None),
        (LINUX, 128, None),
        ("mss 1460,nop,wscale 0", 128, None),  # OpenVMS, or anything that was offered no more
        ("mss 1460,nop,wscale 6,nop,nop,TS val 1 ecr 0", 64, None),  # macOS, OpenBSD: without SACK
        (LINUX, 250, None),
        ("mss 1460,sackOK,cut", 64, None),
        (None, 64, None),
    ],
)
def test_stack(options: str | None, ttl: int, name: str | None) -> None:
    assert stack(half(syn_options=options, syn_ttl=ttl)) == name


def test_no_syn_no_stack() -> None:
    assert stack(half(syn_options=None, syn_ttl=None)) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LINUX, True),
        ("mss 1460", True),
        ("mss 1460,nop,wscale 7", True),
        ("mss 1460,nop,nop,sackOK,nop,wscale 7", True),
        (f"{LINUX},option-254 e2d4c3d9,nop,nop", True),
        (None, True),
        ("mss 1460,nop,wscale 7,cut", True),
        (WINDOWS, False),
        (MACOS, False),
        ("mss 1460,wscale 7,eol", False),
        ("sackOK,TS val 1 ecr 0,mss 1460,nop,wscale 7", False),
        ("", False),
        ("malformed", False),
    ],
)
def test_may_be_linux(options: str | None, expected: bool) -> None:
    assert may_be_linux(half(syn_options=options)) == expected
