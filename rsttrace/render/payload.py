"""Says in one line what a packet's first bytes are: HTTP, TLS, MySQL, else its printable start.

Pure; takes bytes that anybody may have written, and gives printable ASCII without line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Optional

SHOWN = 80
"""Characters of a sentence's quoted part."""

_HTTP = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH) ([^ \r\n]+)(?: HTTP/[\d.]+)?"
)
_HOST = re.compile(rb"\r\nHost: *([^\r\n]+)", re.IGNORECASE)

MYSQL_COMMANDS = {
    0x01: "COM_QUIT",
    0x02: "COM_INIT_DB",
    0x03: "COM_QUERY",
    0x04: "COM_FIELD_LIST",
    0x09: "COM_STATISTICS",
    0x0E: "COM_PING",
    0x11: "COM_CHANGE_USER",
    0x16: "COM_STMT_PREPARE",
    0x17: "COM_STMT_EXECUTE",
    0x19: "COM_STMT_CLOSE",
    0x1F: "COM_RESET_CONNECTION",
}
"""Commands of the MySQL client/server protocol (enum_server_command, include/my_command.h)."""

_MYSQL_TEXT = {0x02, 0x03, 0x16}  # followed by a name or a statement

TLS_HANDSHAKE, TLS_CLIENT_HELLO, TLS_SERVER_NAME = 22, 1, 0  # RFC 8446 §5.1, §4, RFC 6066 §3

Describer = Callable[[bytes, int], Optional[str]]


def quoted(data: bytes, limit: int = SHOWN) -> str:
    """Bytes as printable ASCII: backslash escapes for the rest, cut with ``...``."""
    text = ""
    for byte in data:
        piece = chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}"
        if len(text) + len(piece) > limit:
            return text + "..."
        text += piece
    return text


def _http(payload: bytes, length: int) -> str | None:
    request = _HTTP.match(payload)
    if request is None:
        return None
    host = _HOST.search(payload)
    where = f" (Host {quoted(host[1], 60)})" if host else ""
    return f"{request[1].decode()} {quoted(request[2])}{where}"


def _mysql(payload: bytes, length: int) -> str | None:
    """A client's command: 3 bytes of length (little-endian), sequence number 0, the command."""
    if len(payload) < 5 or payload[3] != 0:
        return None
    name = MYSQL_COMMANDS.get(payload[4])
    if name is None or int.from_bytes(payload[:3], "little") != length - 4:
        return None
    return f"{name} '{quoted(payload[5:])}'" if payload[4] in _MYSQL_TEXT else name


def _tls(payload: bytes, length: int) -> str | None:
    """A ClientHello, and the server name in it as far as it was kept."""
    if len(payload) < 6 or payload[0] != TLS_HANDSHAKE or payload[1] != 3:
        return None
    if payload[5] != TLS_CLIENT_HELLO:
        return None
    name = _server_name(payload)
    return f"TLS ClientHello, SNI {quoted(name)}" if name else "TLS ClientHello"


def _server_name(hello: bytes) -> bytes | None:
    at = 5 + 4 + 2 + 32  # record and handshake headers, version, random
    try:
        at += 1 + hello[at]  # session id
        at += 2 + int.from_bytes(hello[at : at + 2], "big")  # cipher suites
        at += 1 + hello[at]  # compression methods
        at += 2
        while at + 4 <= len(hello):
            kind, length = (int.from_bytes(hello[at + i : at + i + 2], "big") for i in (0, 2))
            if kind == TLS_SERVER_NAME:  # list length, name type, name length, name
                size = int.from_bytes(hello[at + 7 : at + 9], "big")
                return hello[at + 9 : at + 9 + size] or None
            at += 4 + length
    except IndexError:
        pass
    return None


DESCRIBERS: tuple[Describer, ...] = (_http, _tls, _mysql)


def describe(payload: bytes, length: int) -> str:
    """One line about the data that a packet carried.

    `payload` is the part that was kept, `length` the packet's whole payload length in bytes.
    """
    for describer in DESCRIBERS:
        found = describer(payload, length)
        if found is not None:
            return found
    return quoted(payload)
