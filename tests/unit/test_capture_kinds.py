from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rsttrace.capture.source import CaptureSource
from rsttrace.kernel import causes, drops
from rsttrace.model import Kind, Packet, Reset, Scope, Seen
from tests.unit import captures as c
from tests.unit.captures import Talk, write

ACCEPTED, REJECTED = Kind.RECEIVED_ACCEPTED, Kind.RECEIVED_REJECTED
UNMATCHED = Kind.RECEIVED_UNMATCHED
PASSIVE, ACTIVE = Kind.SENT_PASSIVE, Kind.SENT_ACTIVE


def resets(tmp_path: Path, packets: list[bytes], **options: Any) -> list[Reset]:
    name = write(tmp_path / "capture", c.pcap(packets, **options))
    with CaptureSource(name) as source:
        found = list(source.resets())
        assert source.problem is None
        return found


# ---- traffic: each gives the packets, of which the last is the RST in question ----


def refused(talk: Talk) -> list[bytes]:
    return [talk.frame(0, "S"), talk.reset("RA", seq=0)]


def refused_wrongly(talk: Talk) -> list[bytes]:
    return [talk.frame(0, "S"), talk.reset("RA", seq=0, ack=77)]


def refused_without_ack(talk: Talk) -> list[bytes]:
    return [talk.frame(0, "S"), talk.reset("R", seq=0)]


def next_expected(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.frame(1, "PA", b"hello"), talk.frame(0, "A"), talk.reset()]


def behind_data_not_acknowledged(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.frame(1, "PA", b"hello"), talk.reset()]


def where_the_receiver_was(talk: Talk) -> list[bytes]:
    seq = talk.numbers[1] + 1
    return [*talk.handshake(), talk.frame(1, "PA", b"hello"), talk.reset(seq=seq)]


def in_window(talk: Talk) -> list[bytes]:
    packets = talk.handshake()
    return [*packets, talk.reset(seq=talk.numbers[1] + 500 * 128 - 1)]


def above_the_window(talk: Talk) -> list[bytes]:
    packets = talk.handshake()
    return [*packets, talk.reset(seq=talk.numbers[1] + 500 * 128)]


def below_the_window(talk: Talk) -> list[bytes]:
    packets = talk.handshake()
    return [*packets, talk.reset(seq=talk.numbers[1] - 1)]


def in_a_window_without_scale(talk: Talk) -> list[bytes]:
    packets = [talk.frame(0, "S"), talk.frame(1, "SA"), talk.frame(0, "A")]
    return [*packets, talk.reset(seq=talk.numbers[1] + 499)]


def above_a_window_without_scale(talk: Talk) -> list[bytes]:
    packets = [talk.frame(0, "S"), talk.frame(1, "SA"), talk.frame(0, "A")]
    return [*packets, talk.reset(seq=talk.numbers[1] + 500)]


def bad_checksum(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.reset(chksum=0xBEEF)]


def bad_ip_checksum(talk: Talk) -> list[bytes]:
    rst = bytearray([*talk.handshake(), talk.reset()][-1])
    rst[24] ^= 0x55
    return [*Talk().handshake(), bytes(rst)]


def second_of_two(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.reset(), talk.reset(seq=talk.numbers[1] + 500)]


def second_but_the_first_did_not_count(talk: Talk) -> list[bytes]:
    packets = [*talk.handshake(), talk.reset(seq=talk.numbers[1] + 9), talk.frame(0, "PA", b"x")]
    return [*packets, talk.reset()]


def the_receiver_goes_on(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.reset(), talk.frame(0, "PA", b"still here"), talk.reset()]


def after_our_own_reset(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.reset("RA", side=0), talk.reset()]


def half_closed(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.frame(1, "FA"), talk.frame(0, "A"), talk.reset()]


def closing(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.frame(0, "FA"), talk.frame(1, "A"), talk.reset()]


def closed_by_us(talk: Talk) -> list[bytes]:
    packets = [*talk.handshake(), talk.frame(0, "FA"), talk.frame(1, "FA"), talk.frame(0, "A")]
    return [*packets, talk.reset()]


def closed_by_us_and_unexpected(talk: Talk) -> list[bytes]:
    packets = [*talk.handshake(), talk.frame(0, "FA"), talk.frame(1, "FA"), talk.frame(0, "A")]
    return [*packets, talk.reset(seq=talk.numbers[1] + 5)]


def closed_by_them(talk: Talk) -> list[bytes]:
    packets = [*talk.handshake(), talk.frame(1, "FA"), talk.frame(0, "FA"), talk.frame(1, "A")]
    return [*packets, talk.reset()]


def no_flow(talk: Talk) -> list[bytes]:
    return [talk.reset()]


def they_only(talk: Talk) -> list[bytes]:
    return [talk.frame(1, "A", b"x"), talk.reset()]


def mid_flow(talk: Talk) -> list[bytes]:
    return [talk.frame(0, "PA", b"x"), talk.reset()]


def mid_flow_in_window(talk: Talk) -> list[bytes]:
    return [talk.frame(0, "PA", b"x"), talk.reset(seq=talk.numbers[1] + 60_000)]


def in_handshake(talk: Talk) -> list[bytes]:
    """The peer connects to us, and resets before it acknowledges our SYN-ACK."""
    return [talk.frame(1, "S"), talk.frame(0, "SA"), talk.reset()]


def we_refuse(talk: Talk) -> list[bytes]:
    return [talk.frame(1, "S"), talk.reset("RA", side=0, seq=0)]


def we_know_nothing_of_it(talk: Talk) -> list[bytes]:
    packets = [*talk.handshake(), talk.frame(0, "FA"), talk.frame(1, "FA"), talk.frame(0, "A")]
    return [*packets, talk.frame(1, "PA", b"late"), talk.reset(side=0)]


def we_abort(talk: Talk) -> list[bytes]:
    packets = [*talk.handshake(), talk.frame(1, "PA", b"unread")]
    return [*packets, talk.reset("RA", side=0, window=501, id=103)]


def we_close_with_mptcp(talk: Talk) -> list[bytes]:
    key = (30, bytes.fromhex("7000a2adb079233e4ad0"))
    return [*talk.handshake(), talk.reset("RA", side=0, window=501, options=[key])]


def we_reset_a_subflow(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.reset("RA", side=0, window=501, options=[TRANSIENT])]


def we_refuse_to_join(talk: Talk) -> list[bytes]:
    return [talk.frame(1, "S"), talk.reset("RA", side=0, seq=0, options=[TRANSIENT])]


def we_send_something_odd(talk: Talk) -> list[bytes]:
    return [*talk.handshake(), talk.reset("R", side=0, seq=5)]


TRANSIENT = (30, bytes.fromhex("8102"))
"""MP_TCPRST (RFC 8684 §3.6): T, and code 2, lack of resources."""


class Row(NamedTuple):
    traffic: Callable[[Talk], list[bytes]]
    kind: Kind
    cause: str
    trigger: str | None = "A"


ROWS = [
    Row(refused, ACCEPTED, "connection-refused", "S"),
    Row(refused_wrongly, REJECTED, "wrong-ack", "S"),
    Row(refused_without_ack, REJECTED, "wrong-ack", "S"),
    Row(next_expected, ACCEPTED, "connection-reset"),
    Row(behind_data_not_acknowledged, ACCEPTED, "connection-reset"),
    Row(where_the_receiver_was, ACCEPTED, "connection-reset"),
    Row(in_window, REJECTED, "challenge-ack"),
    Row(above_the_window, REJECTED, "out-of-window"),
    Row(below_the_window, REJECTED, "out-of-window"),
    Row(in_a_window_without_scale, REJECTED, "challenge-ack"),
    Row(above_a_window_without_scale, REJECTED, "out-of-window"),
    Row(bad_checksum, REJECTED, "bad-checksum"),
    Row(bad_ip_checksum, REJECTED, "bad-ip-checksum"),
    Row(second_of_two, UNMATCHED, "no-socket"),
    Row(second_but_the_first_did_not_count, ACCEPTED, "connection-reset", "PA"),
    Row(the_receiver_goes_on, ACCEPTED, "connection-reset", "PA"),
    Row(after_our_own_reset, UNMATCHED, "no-socket"),
    Row(half_closed, ACCEPTED, "reset-after-fin"),
    Row(closing, ACCEPTED, "reset-while-closing", "FA"),
    Row(closed_by_us, ACCEPTED, "time-wait-ended"),
    Row(closed_by_us_and_unexpected, REJECTED, "time-wait"),
    Row(closed_by_them, UNMATCHED, "no-socket", "FA"),
    Row(no_flow, UNMATCHED, "no-socket", None),
    Row(they_only, UNMATCHED, "no-socket", None),
    Row(mid_flow, ACCEPTED, "connection-reset", "PA"),
    Row(mid_flow_in_window, REJECTED, "challenge-ack", "PA"),
    Row(in_handshake, REJECTED, "syn-recv", "SA"),
    Row(we_refuse, PASSIVE, "no-listener", "S"),
    Row(we_know_nothing_of_it, PASSIVE, "no-connection", "PA"),
    Row(we_abort, ACTIVE, "unspecified", None),
    Row(we_close_with_mptcp, ACTIVE, "mptcp-fastclose", None),
    Row(we_reset_a_subflow, ACTIVE, "mptcp-reset", None),
    Row(we_refuse_to_join, PASSIVE, "mptcp-reset", "S"),
    Row(we_send_something_odd, ACTIVE, "unspecified", None),
]


CASES = [
    pytest.param(row, family, id=f"{row.traffic.__name__}-{family}")
    for row in ROWS
    for family in (4, 6)
    if family == 4 or row.traffic not in (bad_ip_checksum, we_abort)  # no checksum, no IP ID
]


@pytest.mark.parametrize(("row", "family"), CASES)
def test_kind_and_cause(row: Row, family: int, tmp_path: Path) -> None:
    packets = row.traffic(Talk(family=family))
    found = resets(tmp_path, packets)[-1]
    assert found.file_frame == len(packets)
    assert (found.kind, found.cause.name) == (row.kind, row.cause)
    assert (found.trigger.flags if found.trigger else None) == row.trigger
    us = (c.US, c.US6)[family == 6]
    assert (found.local.ip, found.local.port) == (us, 51234)
    assert (found.remote.port, found.family) == (443, family)


@pytest.mark.parametrize("sent", [False, True])
def test_what_an_mptcp_option_says_of_why_is_told(sent: bool, tmp_path: Path) -> None:
    talk = Talk()
    side = 0 if sent else 1
    packets = [*talk.handshake(), talk.reset("RA", side=side, window=501, options=[TRANSIENT])]
    text = resets(tmp_path, packets)[-1].cause.text
    assert "MPTCP lacked resources for it; the cause is transient" in text
    assert ("it says" in text) != sent  # of our own we know it


def names(table: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, _ in table.values()}


def test_causes_have_the_names_of_live_tracing() -> None:
    known = names(causes.PASSIVE) | names(causes.ACTIVE) | names(causes.ACCEPTED)
    known |= names(drops.DROPS) | {causes.received(ACCEPTED, None, None).name}
    known |= {causes.sent_passive(None, None, flags).name for flags in (None, "S")}
    known.add(causes.sent_passive(None, None, "A", probed=False).name)
    known.add(causes.received(ACCEPTED, None, "TIME_WAIT", minisocket=True).name)
    known |= {
        causes.sent_active(None, None, False, options=said).name
        for said in ("mptcp 8102", "mptcp 7")
    }
    states = [None, "LISTEN", "TIME_WAIT", "SYN_RECV", "SYN_SENT"]
    known |= {causes.received(REJECTED, reason, state).name for state in states
              for reason in (None, "TCP_RESET")}  # fmt: skip
    assert {row.cause for row in ROWS} <= known


def test_what_a_reset_carries(tmp_path: Path) -> None:
    found = resets(tmp_path, c.incident(), start_ns=c.START_NS)[0]
    assert found.time_ns == c.START_NS + 4_000_000
    assert (found.file, found.file_frame) == (str(tmp_path / "capture"), 5)
    assert (found.netns, found.socket, found.process, found.made_here) == (None,) * 4
    assert (found.rst.ttl, found.rst.ip_id, found.rst.flags, found.rst.window) == (
        63,
        102,
        "R",
        500,
    )
    assert (found.rst.ip_checksum_ok, found.rst.tcp_checksum_ok) == (True, True)
    assert (found.rst.length, found.rst.payload_len, len(found.rst.raw)) == (40, 0, 80)
    assert found.frame is not None
    assert (found.frame.mac, found.frame.ttl) == (c.GATEWAY, 63)
    baseline = found.baseline
    assert baseline.scope is Scope.FLOW
    assert baseline.ours is not None
    assert baseline.theirs is not None
    assert [seen.ip_id for seen in baseline.ours.recent] == [102, 101, 100]
    assert (baseline.theirs.packets, baseline.theirs.syn_ttl) == (1, 47)
    assert isinstance(found.trigger, Seen)
    assert found.trigger.payload_len == 16


def test_every_rst_of_a_burst_is_an_entry(tmp_path: Path) -> None:
    """tcpkill's three: the numbers move; the baseline is that of honest packets."""
    talk = Talk()
    packets = talk.handshake()
    burst = [talk.reset(seq=(talk.numbers[1] + n * 500), id=77 + n, ttl=60) for n in range(3)]  # fmt: skip  # noqa: E501
    found = resets(tmp_path, [*packets, *burst])
    assert [entry.rst.ip_id for entry in found] == [77, 78, 79]
    assert [entry.kind for entry in found] == [ACCEPTED, UNMATCHED, UNMATCHED]
    for entry in found:
        assert entry.baseline.theirs is not None
        assert (entry.baseline.theirs.packets, entry.baseline.theirs.ttl) == (1, 47)


@pytest.mark.parametrize(("cut", "window", "options"), [(0, 500, ""), (4, 500, ""), (5, None, "")])
def test_a_cut_rst(cut: int, window: int | None, options: str, tmp_path: Path) -> None:
    packets = [data[: len(data) - cut] for data in c.incident()]
    packets[:3] = Talk().handshake()
    found = resets(tmp_path, packets)[0].rst
    assert (found.window, found.options, found.flags) == (window, options, "R")
    assert found.tcp_checksum_ok is (None if cut else True)


def test_cut_options_are_said_to_be_cut(tmp_path: Path) -> None:
    talk = Talk()
    stamp = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
    rst = talk.frame(1, "RA", options=stamp)
    name = write(tmp_path / "x", c.pcap([*talk.handshake(), rst], snaplen=14 + 20 + 20 + 4))
    with CaptureSource(name) as source:
        found: Packet = next(source.resets()).rst
    assert (found.options, found.window, found.payload_len) == ("nop,nop,cut", 500, 0)


def test_file_positions_count_every_packet(tmp_path: Path) -> None:
    talk = Talk()
    packets = [*talk.handshake(), b"\xff" * 60, b"", talk.reset()]
    assert resets(tmp_path, packets)[0].file_frame == 6


def test_what_was_not_read_is_not_said_to_be_missing(tmp_path: Path) -> None:
    """The receiver's packets may be among those that could not be read, or were forgotten."""
    talk = Talk()
    theirs = talk.handshake()[1]
    rst = talk.reset()
    unread = bytes(theirs[:12] + b"\x88\xe5\x2c" + theirs[14:])  # MACsec, encrypted
    for packets, words in (
        ([theirs, rst], "the capture shows no packet of its receiver"),
        ([theirs, unread, rst], "no packet of its receiver could be read"),
        ([theirs, rst, unread], "no packet of its receiver could be read"),
        ([theirs, Talk(port=1).frame(0, "S"), rst], "no packet of its receiver is remembered"),
    ):
        with CaptureSource(write(tmp_path / "x", c.pcap(packets)), flows=1) as source:
            (found,) = source.resets()
        assert found.cause.name == "no-socket"
        assert found.cause.text.startswith(words)
