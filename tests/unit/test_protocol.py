from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from rsttrace.errors import KernelError, PrivilegeError, RsttraceError
from rsttrace.kernel.protocol import (
    LENGTH,
    HookStatus,
    Report,
    Request,
    receive_answer,
    receive_request,
    send_answer,
    send_request,
)

Channel = tuple[socket.socket, socket.socket]


@pytest.fixture
def channel() -> Iterator[Channel]:
    """The tracer's end and the child's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_request_arrives_whole(channel: Channel) -> None:
    ours, theirs = channel
    request = Request(
        kinds=("sent-raw",), nets=(("00" * 16, 64),), ports=(80, 443), netns=(7,), payload=64
    )
    send_request(ours, request)
    found = receive_request(theirs)
    assert found is not None
    assert found.nets[0][1] == 64
    assert (tuple(found.ports), tuple(found.netns)) == ((80, 443), (7,))
    assert (found.kinds[0], found.payload, found.plan) == ("sent-raw", 64, "auto")


@pytest.mark.parametrize("part", [b"", b'{"kinds": ["sent-r'])
def test_a_request_of_a_tracer_that_was_killed(channel: Channel, part: bytes) -> None:
    ours, theirs = channel
    ours.sendall(part)
    ours.close()
    assert receive_request(theirs) is None


def test_a_report_comes_back_with_its_descriptors(channel: Channel) -> None:
    ours, theirs = channel
    hook = HookStatus("tcp_reset", True, False, "resets", error="refused")
    report = Report("kprobes", "btf", [hook], {"sk_rst_reason": {3: "NO_SOCKET"}}, {"a": True})
    read, write = os.pipe()
    send_answer(theirs, report, [write])
    os.close(write)
    answer, (arrived,) = receive_answer(ours)
    assert answer == report
    os.write(arrived, b"the same pipe")
    assert os.read(read, 99) == b"the same pipe"
    os.close(arrived)
    os.close(read)


def test_an_error_comes_back_as_what_it_is(channel: Channel) -> None:
    ours, theirs = channel
    send_answer(theirs, PrivilegeError("needs root", hint="use sudo"), [])
    answer, descriptors = receive_answer(ours)
    assert type(answer) is PrivilegeError
    assert (answer.what, answer.hint, descriptors) == ("needs root", "use sudo", [])


def test_an_error_that_the_tracer_does_not_know(channel: Channel) -> None:
    class NewError(RsttraceError):
        """Of another version's child."""

    ours, theirs = channel
    send_answer(theirs, NewError("new"), [])
    answer, _ = receive_answer(ours)
    assert type(answer) is KernelError
    assert answer.what == "new"


@pytest.mark.parametrize("part", [b"", b"\1", LENGTH.pack(100), LENGTH.pack(100) + b'{"plan"'])
def test_a_child_that_dies_leaves_no_descriptor(channel: Channel, part: bytes) -> None:
    ours, theirs = channel
    before = set(os.listdir("/proc/self/fd"))
    if part:
        read, write = os.pipe()
        socket.send_fds(theirs, [part], [write])
        os.close(write)
    theirs.close()
    assert receive_answer(ours) == (None, [])
    if part:
        assert os.read(read, 1) == b""  # nobody holds the other end
        os.close(read)
    assert set(os.listdir("/proc/self/fd")) < before
