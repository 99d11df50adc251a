"""What a RST says of its own reason."""

from __future__ import annotations

import pytest

from rsttrace.judge import reasons
from rsttrace.judge.reasons import BIG_IP, CODES, NETSCALER, written
from rsttrace.judge.verdict import judge
from rsttrace.model import Entry, Kind, Origin, Packet, Reset
from rsttrace.render.text import entry_lines
from tests.unit.builders import flow, half, our_half, rst, rst6, seen

SENTENCE = b"BIG-IP: [0x2a3b4c5:1234] No server selected"


def saying(payload: bytes, **values: object) -> Reset:
    packet = rst(flags="RA", ip_id=23404, payload_len=len(payload))
    return flow(packet, **{"payload": payload[:120], **values})


@pytest.mark.parametrize(
    ("payload", "device"),
    [
        (SENTENCE, BIG_IP),
        (b"connection closed by policy 17\r\n", None),
        (b"Go away, cookie.\0", None),  # RFC 1122's own example is as good
    ],
)
def test_a_sentence_is_the_reason(payload: bytes, device: str | None) -> None:
    found = written(saying(payload))
    assert found is not None
    assert (found.device, found.reason) == (device, payload.decode().strip("\0\r\n "))


def test_a_long_sentence_is_cut() -> None:
    found = written(saying(b"x" * 200))
    assert found is not None
    assert len(found.reason) == reasons.SHOWN


@pytest.mark.parametrize(
    "payload",
    [
        b"HTTP/1.1 403 Forbidden\r\n",
        b"\x16\x03\x01 hello hello",
        b"plain \xff\xfe bytes",
        b"\x1b[31mred letters",
        b"abc",
        b"",
        b"\0\0\0\0\0\0\0\0\0\0",
    ],
)
def test_what_is_no_sentence_is_no_reason(payload: bytes) -> None:
    assert written(saying(payload)) is None


@pytest.mark.parametrize("packet", [rst(window=9811, ip_id=0), rst6(window=9811)])
def test_a_code_in_the_window(packet: Packet) -> None:
    found = written(flow(packet))
    assert found is not None
    assert found.device == NETSCALER
    assert found.reason == f"{CODES[9811]} (code 9811 in the window)"


@pytest.mark.parametrize(
    "given",
    [
        flow(rst(window=9811), theirs=half(recent=(seen(window=9820),))),
        flow(rst(window=9811), ours=our_half(recent=(seen(window=9000, ttl=64),))),
        flow(rst(window=9811, options="nop,nop,TS val 1 ecr 2")),
        flow(rst(window=9999)),
        flow(rst(window=0)),
        flow(rst(window=None)),
        flow(rst(window=9811), kind=Kind.SENT_ACTIVE),
    ],
    ids=["the-peers", "ours", "options", "unknown", "zero", "cut", "sent"],
)
def test_a_window_that_is_none_of_its_codes(given: Reset) -> None:
    assert written(given) is None


def test_every_code_has_words_of_its_own() -> None:
    for code, text in CODES.items():
        assert 8192 < code < 10000
        assert text == text.strip()
        assert not text.endswith(".")
        assert len(text) <= 100


def test_an_honest_peer_that_says_why() -> None:
    found = judge(saying(SENTENCE, theirs=half(recent=(seen(ip_id=23403),))))
    assert found.device_name == BIG_IP
    assert found.device_reason == SENTENCE.decode()
    assert found.origin is not Origin.FORGED


def test_the_verdict_says_it_once() -> None:
    given = flow(rst(window=9830, ip_id=4711, df=False, ttl=63))
    found = judge(given)
    assert found.origin is Origin.FORGED
    assert (found.device_name, "ACL" in (found.device_reason or "")) == (NETSCALER, True)
    lines = "\n".join(entry_lines(Entry(1, given, found)))
    assert lines.count("code 9830 in the window") == 1
