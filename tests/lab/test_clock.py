"""In a time namespace the machine's clocks read differently: the times of entries do not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S

DAY_S = 86_400


def test_times_are_right_in_a_time_namespace(routed: Lab) -> None:
    inside = ["unshare", "--time", "--fork", "--monotonic", str(DAY_S), "--boottime", str(DAY_S)]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs time namespaces (5.6) and unshare(1) of util-linux 2.36")
    tracer = [sys.executable, "-m", "rsttrace", "-o", "json", "--count", "1"]
    with subprocess.Popen(
        [*inside, *tracer, "--netns", routed.name("server")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "tracing resets" in process.stderr.readline()
        began = time.time()
        routed.run(
            ["ip", "netns", "exec", routed.name("client"), sys.executable, "-c",
             "import socket; socket.socket().connect_ex(('10.71.2.2', 7555))"]
        )  # fmt: skip
        out, _ = process.communicate(timeout=DEADLINE_S)
    text = json.loads(out.splitlines()[0])["time"]
    told = datetime.fromisoformat(text[:26] + text[29:]).timestamp()
    assert began - 1 <= told <= time.time() + 1
