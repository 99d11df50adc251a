from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from rsttrace.capture.source import CaptureSource
from rsttrace.errors import CaptureError
from tests.unit import captures as c
from tests.unit.captures import write


def test_the_file_is_closed_where_looking_ahead_fails(tmp_path: Path) -> None:
    name = write(tmp_path / "x", c.pcap(c.incident()))
    with CaptureSource(name):  # what is loaded with the first capture stays open
        pass
    before = os.listdir("/proc/self/fd")
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # room for the first open file, and for no second one to look ahead in
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(CaptureError, match="Too many open files") as kept:
            CaptureSource(name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # the error keeps the frames alive in which it was raised, and with them what they hold
    assert kept.tb is not None
    assert os.listdir("/proc/self/fd") == before
