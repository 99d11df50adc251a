"""Raw sockets' reading, on sockets that need no privileges."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from rsttrace.enrich.path import receive
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
