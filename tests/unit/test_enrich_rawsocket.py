"""Raw sockets' reading, on sockets that need no privileges."""

from __future__ import annotations

import fcntl
import resource
import socket
from typing import Any

import pytest

from rsttrace.enrich.rawsocket import readable, receive
from rsttrace.errors import RsttraceError


class Counted(socket.socket):
    """A real socket that lets itself be asked a hundred times and no more."""

    asked = 0

    def recvmsg(self, *arguments: Any) -> Any:
        self.asked += 1
        assert self.asked < 100, "it is asked for ever"
        return super().recvmsg(*arguments)


def test_a_socket_that_stays_broken_is_an_error() -> None:
    sock = Counted(socket.AF_INET, socket.SOCK_DGRAM)
    sock.close()
    with pytest.raises(RsttraceError, match="cannot read answers: Bad file descriptor"):
        list(receive(sock, 4))


def test_waiting_knows_high_descriptors() -> None:
    """select(2) knows none from 1,024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        low, quiet = socket.socketpair()
        with low, quiet, socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD, 1024)) as high:
            assert readable([quiet, high], 0) == []
            quiet.send(b"x")
            assert readable([quiet, high], 20) == [high]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
