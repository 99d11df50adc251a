"""Questions to the helper and its answers: JSON behind its length, with open descriptors.

One question at a time, and one answer to each; each is bounded.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

QUESTION_MOST, ANSWER_MOST = 1 << 16, 4 << 20
"""Bytes of a question and of an answer."""

DESCRIPTORS_MOST = 16

LENGTH = struct.Struct("=I")


class Gone(Exception):
    """The other end is gone, or does not speak as it should."""


class TooLong(Exception):
    """A message that the other end would not take."""


def send(
    channel: socket.socket, message: Any, descriptors: list[int] | None = None, most: int = 1 << 32
) -> None:
    """Send a message.

    Raises:
        TooLong: it has more than `most` bytes; nothing was sent.
        OSError: the other end is gone, or does not read in time.
    """
    payload = json.dumps(message).encode("ascii")
    if len(payload) > most:
        raise TooLong
    socket.send_fds(channel, [LENGTH.pack(len(payload))], descriptors or [])
    channel.sendall(payload)


def receive(channel: socket.socket, most: int) -> tuple[Any, list[int]]:
    """The next message and its descriptors (close-on-exec), which are the caller's.

    Raises:
        Gone: the other end is gone, or sends what is no message, or is longer than `most` bytes.
        OSError: it does not send in time.
    """
    head, descriptors = _head(channel)
    try:
        if len(head) < LENGTH.size:
            raise Gone
        (length,) = LENGTH.unpack(head)
        if length > most:
            raise Gone
        payload = bytearray()
        while len(payload) < length:
            part = channel.recv(length - len(payload))
            if not part:
                raise Gone
            payload += part
        return json.loads(payload), descriptors
    except (Gone, OSError, ValueError, RecursionError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, OSError):
            raise
        raise Gone from None


def _head(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The first bytes of a message, and its descriptors; socket.recv_fds() has them inherited."""
    room = socket.CMSG_SPACE(DESCRIPTORS_MOST * 4)
    head, ancillary, _, _ = channel.recvmsg(LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    while 0 < len(head) < LENGTH.size:
        part = channel.recv(LENGTH.size - len(head))
        if not part:
            break
        head += part
    return head, found.tolist()
