"""Live tracing and `rsttrace read` of tcpdump's capture of the same packets say the same."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from rsttrace.demo.lab import Lab
from tests.lab import test_kinds as kinds
from tests.lab.harness import Fence, Json, Tracer, knows, occupied, poll_until

V4, V6 = socket.AF_INET, socket.AF_INET6
CLIENT, SERVER = "client", "server"


class Row(NamedTuple):
    """One case: `where` is the namespace whose interface is captured and whose entries count.

    `cause` is what a capture says where it cannot know what the kernel knows; `kind` likewise.
    `differs` is what need not be the same.
    """

    traffic: Callable[[Lab, int], None]
    where: str
    kind: str | None = None
    cause: str | None = None
    setup: Callable[[Lab], None] = kinds.nothing
    differs: tuple[str, ...] = ()


ROWS = [
    Row(kinds.refused, CLIENT),
    Row(kinds.refused, SERVER),
    Row(kinds.unread_data, CLIENT),
    Row(kinds.unread_data, SERVER, cause="unspecified"),
    Row(kinds.linger, SERVER),
    Row(kinds.linger, CLIENT, cause="unspecified"),
    Row(kinds.linger_after_fin, CLIENT),
    Row(kinds.unread_data_after_fin, CLIENT),
    Row(kinds.data_after_close, CLIENT),
    Row(kinds.data_after_close, SERVER),
    Row(kinds.stray_ack, SERVER, cause="no-connection"),
    # Live, our challenge ACK has left already when the RST is found to have been dropped: the
    # verdict stands on other packets, and one of the two may leave it open.
    Row(kinds.challenge_ack, CLIENT, differs=("trigger", "baseline", "origin")),
    Row(kinds.out_of_window, CLIENT),
    Row(kinds.bad_checksum, CLIENT),
    # Live, our route tells that the gateway itself made it; of the SYN nothing came back.
    Row(kinds.wrong_ack, CLIENT, setup=kinds.drop_syn, differs=("origin",)),
    Row(kinds.rst_in_syn_recv, SERVER, setup=kinds.drop_syn_ack),
    # The tracer has met this peer before the capture began.
    Row(kinds.rst_to_nobody, SERVER, differs=("hops", "baseline")),
    Row(kinds.refused, SERVER, "sent-passive", "no-listener", kinds.reject_input),
]

SAME = ("direction", "local", "remote", "rst", "hops", "baseline", "origin", "trigger")


@contextmanager
def tcpdump(
    lab: Lab, role: str, path: Path, interface: str = "eth0", only: str = "tcp"
) -> Iterator[subprocess.Popen[str]]:
    """A capture of a role's interface, running."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", lab.name(role), "tcpdump", "-Z", "root", "-i", interface, "-n",
         "-B", "16384", "--immediate-mode", "-U", "-w", str(path), only],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening on" in line:
                break
        yield process
    finally:
        process.terminate()
        process.stderr.read()
        process.wait()
        process.stderr.close()


def read(path: Path) -> list[Json]:
    import json

    done = subprocess.run(
        [sys.executable, "-m", "rsttrace", "read", "-o", "json", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def own_view() -> Iterator[tuple[Tracer, Fence]]:
    """A tracer that judges as if each namespace were a machine of its own: as a capture does."""
    with Lab("rstview") as lab:
        tracer = Tracer("--viewpoint", "netns")
        try:
            yield tracer, Fence(lab)
        finally:
            tracer.stop()


def whole(row: Row) -> tuple[kinds.Row, kinds.Seen]:
    """The same case in test_kinds.py, and what its kernel tells there where it tells everything."""
    found = next(r for r in kinds.ROWS if (r.traffic, r.setup) == (row.traffic, row.setup))
    (seen,) = found.client if row.where == CLIENT else found.server
    return found, seen


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.traffic.__name__}-{row.where}")
def test_the_same_from_a_capture(
    row: Row, family: int, routed: Lab, own_view: tuple[Tracer, Fence], tmp_path: Path
) -> None:
    tracer, fence = own_view
    case, seen = whole(row)
    known = kinds.can_know(case, seen, tracer.plan, knows())
    if known is None:
        pytest.skip("live, this kernel does not show it with this plan")
    row.setup(routed)
    fence.cross(tracer)
    tracer.forget()
    path = tmp_path / "capture.pcap"
    with tcpdump(routed, row.where, path):
        with occupied():
            row.traffic(routed, family)
        (live,) = tracer.collect(routed.inode(row.where), 1)
        poll_until(lambda: bool(read(path)), "tcpdump's RST")
    (found,) = read(path)
    assert (live["kind"], live["cause"]["name"]) == (known.kind, known.cause)
    # A capture knows it all of what came, however little the kernel tells of it.
    assert found["kind"] == (row.kind or seen.kind)
    assert found["cause"]["name"] == (row.cause or seen.cause)
    for part in (live, found):
        for name in ("ip_checksum_ok", "tcp_checksum_ok"):  # live, the kernel looks at them
            part["rst"].pop(name)
        if part["trigger"]:
            part["trigger"] = {n: part["trigger"][n] for n in ("seq", "ack", "flags", "ip_id")}
        if part["direction"] == "sent":  # live, what is sent has no source MAC yet
            part["baseline"].pop("mac")
    differs = {*row.differs, *(("trigger",) if live["direction"] == "sent" else ())}
    if not knows()["reset_skb"] and live["baseline"]["scope"] == "peer":
        # Such kernels (5.12 has both) number no namespace: this one is taken for an earlier one.
        differs.update(("baseline", "hops"))
    same = [name for name in SAME if name not in differs]
    assert {name: found[name] for name in same} == {name: live[name] for name in same}
