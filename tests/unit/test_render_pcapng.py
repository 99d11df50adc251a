"""The pcapng file that -w writes, read back by scapy: packets, times, directions, comments."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapNgReader

from rsttrace.judge.verdict import judge
from rsttrace.model import Baseline, Cause, Entry, Half, Kind, Reset, Scope, Seen, SentData
from rsttrace.render.pcapng import INBOUND, OUTBOUND, Frames
from rsttrace.render.words import verdict_text
from rsttrace.tcp import packet

TIME_NS = 1574589003_412345000

SEEN = Seen(TIME_NS - 1_000_000, 64, 13052, True, "PA", 1000, 2000, 501, 38)


def reset_of(raw: bytes, l4: int, trigger: object) -> Reset:
    rst = packet(raw[:l4], raw[l4:], 0)
    half = Half(1, 64, 64, 64, 64, 501, True, False, None, None, 0, 0, None, (SEEN,))
    return Reset(
        time_ns=TIME_NS,
        kind=Kind.RECEIVED_ACCEPTED,
        cause=Cause("connection-reset", "ended an established connection"),
        local=rst.dst,
        remote=rst.src,
        rst=rst,
        netns=1,
        trigger=trigger,  # type: ignore[arg-type]
        baseline=Baseline(Scope.FLOW, half, half),
    )


V4 = bytes(
    IP(src="10.9.8.7", dst="10.0.0.5", ttl=63, id=13052, flags="DF")
    / TCP(sport=3306, dport=51234, flags="R", seq=2000, window=0)
)
V6 = bytes(
    IPv6(src="fd00::7", dst="fd00::5", hlim=63)
    / TCP(sport=3306, dport=51234, flags="R", seq=2000, window=0)
)


def written(path: Path, *entries: Entry) -> list[object]:
    frames = Frames()
    blocks = [frame.block for entry in entries for frame in frames.of(entry)]
    path.write_bytes(frames.head + b"".join(blocks))
    with PcapNgReader(str(path)) as reader:
        return list(reader)


@pytest.mark.parametrize(("raw", "l4", "layer"), [(V4, 20, IP), (V6, 40, IPv6)], ids=["v4", "v6"])
def test_a_reset_and_the_packet_rebuilt_from_what_was_kept(
    raw: bytes, l4: int, layer: type, tmp_path: Path
) -> None:
    reset = reset_of(raw, l4, SEEN)
    entry = Entry(7, reset, judge(reset))
    trigger, rst = written(tmp_path / "out.pcapng", entry)
    assert bytes(rst) == raw  # type: ignore[call-overload]
    assert rst.time == Decimal(TIME_NS) / 10**9  # type: ignore[attr-defined]
    assert rst.direction == INBOUND  # type: ignore[attr-defined]
    head, *lines = rst.comments[0].decode().splitlines()  # type: ignore[attr-defined]
    assert head.startswith(f"rsttrace #7: {verdict_text(entry.verdict)}")
    assert head.endswith("ended an established connection")
    for item in entry.verdict.evidence:  # why, each on a line of its own
        assert any(item.text in line for line in lines)
    assert any(line.strip().startswith("cause: connection-reset") for line in lines)
    assert entry.verdict.origin.name.encode() in rst.comments[0]  # type: ignore[attr-defined]
    assert trigger.direction == OUTBOUND  # type: ignore[attr-defined]
    assert b"rebuilt" in trigger.comments[0]  # type: ignore[attr-defined]
    assert trigger.time == Decimal(SEEN.time_ns) / 10**9  # type: ignore[attr-defined]
    assert trigger.wirelen == l4 + 20 + SEEN.payload_len  # type: ignore[attr-defined]
    again = layer(bytes(trigger))  # type: ignore[call-overload]
    assert (again.src, again.dst) == (reset.rst.dst.ip, reset.rst.src.ip)
    tcp = again[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags)) == (51234, 3306, "PA")
    assert (tcp.seq, tcp.ack, tcp.window) == (SEEN.seq, SEEN.ack, SEEN.window)
    if layer is IP:
        assert (again.id, again.ttl, str(again.flags)) == (13052, 64, "DF")
        head = bytearray(bytes(again)[:20])
        fresh = IP(bytes(head))
        del fresh.chksum
        assert IP(bytes(fresh)).chksum == again.chksum


def test_what_was_sent_last_is_written_with_its_data(tmp_path: Path) -> None:
    sent = packet(V4[:20], V4[20:], 300)
    reset = replace(
        reset_of(V4, 20, SEEN), sent_data=SentData(TIME_NS - 5000, sent, b"GET /use HTTP/1.1")
    )
    data, _ = written(tmp_path / "out.pcapng", Entry(1, reset, judge(reset)))
    assert bytes(data).endswith(b"GET /use HTTP/1.1")  # type: ignore[call-overload]
    assert b"what was sent last" in data.comments[0]  # type: ignore[attr-defined]


def test_an_amendment_repeats_the_reset_alone(tmp_path: Path) -> None:
    reset = reset_of(V4, 20, SEEN)
    verdict = judge(reset)
    packets = written(tmp_path / "o", Entry(1, reset, verdict), Entry(2, reset, verdict, amends=1))
    assert len(packets) == 3
    assert b"amends #1" in packets[2].comments[0]  # type: ignore[attr-defined]


def test_a_packet_that_both_ends_know_is_written_once(tmp_path: Path) -> None:
    """The end that made the RST has the packet itself, the other one what it kept of it."""
    received = reset_of(V4, 20, SEEN)
    answered, _ = written(tmp_path / "one", Entry(1, received, judge(received)))
    raw = bytes(answered)  # type: ignore[call-overload]
    far = bytearray(raw[:20] + raw[20:32] + b"\x80" + raw[33:] + bytes(12))  # its options, too
    far[8] -= 3  # three routers on the way
    known = replace(packet(bytes(far[:20]), bytes(far[20:]), SEEN.payload_len))
    sent = replace(received, kind=Kind.SENT_ACTIVE, local=received.remote, remote=received.local)
    sent.trigger = known
    entries = [Entry(1, sent, judge(sent)), Entry(2, received, judge(received))]
    assert len(written(tmp_path / "both", *entries)) == 3
    assert len(written(tmp_path / "turned", *reversed(entries))) == 3
    later = replace(received, time_ns=TIME_NS + 10**9)
    later.trigger = replace(SEEN, time_ns=SEEN.time_ns + 10**9)  # sent again: another packet
    entries[1] = Entry(2, later, judge(later))
    assert len(written(tmp_path / "again", *entries)) == 4
