"""Clocks that read differently (time namespaces), and a date that is set while a run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from rsttrace.demo.lab import Lab
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    Json,
    Tracer,
    expect_reset,
    pair,
    refuse,
)
from tests.lab.test_late import forge, next_expected, rules_of, wait_received

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


HOUR_S = 3600.0


@contextmanager
def date_set(by_s: float) -> Iterator[None]:
    """The machine's date is off by so much; only in a guest, which is nobody's."""
    if "RSTTRACE_KERNELS_REPORT" not in os.environ:
        pytest.skip("sets the date of the machine: in a guest (make kernels T=…) alone")
    time.clock_settime(time.CLOCK_REALTIME, time.time() + by_s)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - by_s)


def told_s(entry: Json) -> float:
    """An entry's time, in seconds since 1970."""
    text = entry["time"]
    return datetime.fromisoformat(text[:26] + text[29:]).timestamp()


def spans(value: object) -> Iterator[float]:
    """Every age and span of time in an entry."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key.endswith(("_ms", "_us", "_s")) and isinstance(item, (int, float)):
                yield item
            yield from spans(item)
    elif isinstance(value, list):
        for item in value:
            yield from spans(item)


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S], ids=["back", "forward"])
def test_a_date_that_is_set_meanwhile_changes_no_verdict(routed: Lab, by_s: float) -> None:
    """Before it a forged reset that nothing betrays, after it what the peer goes on to send."""
    netns = routed.inode("client")
    tracer = Tracer("--viewpoint", "netns", "--netns", str(netns), "--hold", "0")
    try:
        with pair(routed, "client", "server") as (client, accepted):
            client.send(b"request")
            assert accepted.recv(100) == b"request"
            forge(routed, client, next_expected(routed, "client", client))
            expect_reset(client)
            (first,) = wait_received(tracer, netns, 1)
            with date_set(by_s):
                tracer.wait_for(lambda: "the date was set" in tracer.status, "word of that")
                began = time.time()
                accepted.send(b"response")
                _, amended = wait_received(tracer, netns, 2)
                refuse(routed, ADDRESSES["server"][0])
                tracer.wait_for(
                    lambda: any(e["remote"]["port"] == 7999 for e in tracer.of(netns)), "the next"
                )
                assert time.time() - began < DEADLINE_S, "nothing waited for the old time"
        assert tracer.stop() == 0
    finally:
        tracer.stop(signal.SIGKILL)
    (last,) = [entry for entry in tracer.entries if entry["remote"]["port"] == 7999]
    assert first["origin"] in ("peer", "inconclusive")
    assert (amended["origin"], amended["amends"]) == ("forged", first["id"])
    assert "went-on" in rules_of(amended)
    assert last["origin"] == "peer"
    assert began - 1 <= told_s(last) <= began + DEADLINE_S
    assert abs(told_s(amended) - told_s(first) - by_s) < 1, "the same reset, by the new date"
    assert min(span for entry in tracer.entries for span in spans(entry)) >= 0
