"""What a packet's first bytes are said to be. The TLS hello is a real one, by the ssl module."""

from __future__ import annotations

import random
import ssl

import pytest

from rsttrace.render.payload import describe, quoted


def client_hello(name: str | None) -> bytes:
    """What this Python's TLS library sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def mysql(command: int, text: bytes = b"") -> bytes:
    body = bytes([command]) + text
    return len(body).to_bytes(3, "little") + b"\0" + body


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n", "GET /x (Host shop.example)"),
        (b"POST /form HTTP/1.0\r\n\r\n", "POST /form"),
        (b"GET /caf\xc3\xa9\x1b[31m HTTP/1.1\r\n", "GET /caf\\xc3\\xa9\\x1b[31m"),
        (b"GETAWAY now", "GETAWAY now"),
        (mysql(0x02, b"shop"), "COM_INIT_DB 'shop'"),
        (mysql(0x03, b"select 1\n"), "COM_QUERY 'select 1\\x0a'"),
        (mysql(0x0E), "COM_PING"),
        (mysql(0x7F, b"what"), "\\x05\\x00\\x00\\x00\\x7fwhat"),
        (b"\x16\x03\x01\x00\x05\x01", "TLS ClientHello"),
        (b"\x17\x03\x03\x00\x05", "\\x17\\x03\\x03\\x00\\x05"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2\\x0d\\x0a"),
        (b"back\\slash", "back\\x5cslash"),
    ],
)
def test_describe(payload: bytes, said: str) -> None:
    assert describe(payload, len(payload)) == said


def test_a_servers_name_in_a_real_hello() -> None:
    hello = client_hello("db.example.org")
    assert describe(hello, len(hello)) == "TLS ClientHello, SNI db.example.org"
    nameless = client_hello(None)
    assert describe(nameless, len(nameless)) == "TLS ClientHello"


def test_a_cut_hello_never_fails() -> None:
    hello = client_hello("db.example.org")
    for kept in range(1, len(hello)):
        said = describe(hello[:kept], len(hello))
        assert "db.example.org".startswith(said.partition("SNI ")[2]) or kept < 6


def test_a_mysql_command_must_fill_its_packet() -> None:
    packet = mysql(0x03, b"select 1")
    assert describe(packet[:9], len(packet)) == "COM_QUERY 'sele'"
    assert "COM_QUERY" not in describe(packet, len(packet) + 1)


def test_a_long_text_is_cut() -> None:
    assert quoted(b"x" * 100, 10) == "x" * 10 + "..."


def test_any_bytes_give_one_printable_line() -> None:
    draw = random.Random(3306)
    for _ in range(3000):
        payload = draw.randbytes(draw.randrange(1, 257))
        if draw.random() < 0.5:
            payload = draw.choice([b"GET /", b"\x16\x03\x01\x02\x00\x01", mysql(3)]) + payload
        said = describe(payload, draw.randrange(1, 70000))
        assert said.isascii()
        assert said.isprintable()
