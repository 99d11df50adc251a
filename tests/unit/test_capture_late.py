"""What a capture tells of the time after a RST, and of the RST's own bytes and checksums."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rsttrace.capture.flows import Flows
from rsttrace.capture.source import CaptureSource
from rsttrace.limits import LATE_FOR_NS
from rsttrace.model import Half, LatePacket, Reset
from tests.unit import captures as c
from tests.unit.captures import SECOND, START_NS, Talk, write
from tests.unit.test_capture_flows import segment


def items(
    path: Path, packets: list[bytes], step_ns: int = 1_000_000, gaps: dict[int, int] | None = None
) -> list[Reset | LatePacket]:
    """What a capture gives; `gaps`: nanoseconds more before a packet (by its index)."""
    made, now = c.pcap([], nano=True), START_NS
    for number, data in enumerate(packets):
        now += step_ns + (gaps or {}).get(number, 0)
        head = struct.pack("<IIII", *divmod(now, SECOND), len(data), len(data))
        made += head + data
    with CaptureSource(write(path / "capture.pcap", made)) as source:
        return [item for item in source.items() if not isinstance(item, int)]


def late(found: list[Reset | LatePacket]) -> list[LatePacket]:
    return [item for item in found if isinstance(item, LatePacket)]


def test_a_refused_syn_that_is_repeated_and_answered_accuses_nobody(tmp_path: Path) -> None:
    """The server came up meanwhile: its SYN-ACK is no word on the honest refusal."""
    talk = Talk()
    syn = talk.frame(0, "S")
    packets = [syn, talk.reset("RA", seq=0), syn, talk.frame(1, "SA"), talk.frame(0, "A")]
    assert late(items(tmp_path, packets)) == []


def test_a_second_rst_is_watched_however_long_after_the_first(tmp_path: Path) -> None:
    talk = Talk()
    packets = [*talk.handshake(), talk.reset(seq=7), talk.reset(seq=8), talk.frame(1, "PA", b"x")]
    (told,) = late(items(tmp_path, packets, gaps={4: LATE_FOR_NS}))
    assert told.packet.payload_len == 1


@pytest.mark.parametrize(("gap_ns", "told"), [(LATE_FOR_NS - SECOND, 1), (LATE_FOR_NS, 0)])
def test_a_sender_is_watched_for_a_while(tmp_path: Path, gap_ns: int, told: int) -> None:
    talk = Talk()
    packets = [*talk.handshake(), talk.reset(seq=7), talk.frame(1, "PA", b"x")]
    found = late(items(tmp_path, packets, gaps={4: gap_ns}))
    assert len(found) == told
    assert not found or (found[0].mac, found[0].handshake) == (c.GATEWAY, False)


@pytest.mark.parametrize("family", [4, 6])
def test_later_handshakes_of_the_same_address_are_told(tmp_path: Path, family: int) -> None:
    """Anywhere later in the file, two at most, and those that tell something new."""
    talk = Talk(family=family)
    packets = [*talk.handshake(), talk.reset()]
    for port, hops in ((50001, 17), (50002, 17), (50003, 12), (50004, 13)):
        packets += Talk(family=family, port=port, hops=hops).handshake()
    first, second = late(items(tmp_path, packets, gaps={4: 3600 * SECOND}))
    assert (first.packet.flags, first.packet.ttl, second.packet.ttl) == ("SA", 47, 52)
    assert (first.packet.src.port, first.packet.dst.port) == (443, 50001)
    assert first.packet.dst.ip == (c.US if family == 4 else c.US6)
    assert first.handshake
    assert first.mac == c.GATEWAY
    assert first.packet.options == "mss 1460,nop,nop,sackOK,nop,wscale 7"
    assert first.packet.length == (20 if family == 4 else 40) + 32
    assert first.packet.family == family
    assert first.file == str(tmp_path / "capture.pcap")
    assert first.time_ns > START_NS + 3600 * SECOND


def test_a_lone_syn_is_no_later_handshake(tmp_path: Path) -> None:
    talk, other = Talk(), Talk(port=50001)
    packets = [*talk.handshake(), talk.reset(), other.frame(1, "S"), other.frame(1, "A")]
    assert late(items(tmp_path, packets)) == []


def test_the_rst_we_sent_has_nobody_watched(tmp_path: Path) -> None:
    talk, other = Talk(), Talk(port=50001)
    packets = [*talk.handshake(), talk.reset(side=0), *other.handshake(), talk.frame(0, "PA", b"x")]
    assert late(items(tmp_path, packets)) == []


@pytest.mark.parametrize(
    ("text", "kept"), [(b"", None), (b"bye", b"bye"), (b"0123456789" * 20, b"0123456789" * 12)]
)
def test_the_rsts_own_payload_is_kept(tmp_path: Path, text: bytes, kept: bytes | None) -> None:
    talk = Talk()
    rst = talk.frame(1, "R", text, window=0)
    (found,) = items(tmp_path, [*talk.handshake(), rst])
    assert isinstance(found, Reset)
    assert found.payload == kept


def test_a_payload_that_was_not_captured_is_unknown(tmp_path: Path) -> None:
    talk = Talk()
    packets = [*talk.handshake(), talk.frame(1, "R", b"x" * 100, window=0)]
    made = c.pcap(packets, snaplen=14 + 20 + 32)  # as long as the handshake's headers
    with CaptureSource(write(tmp_path / "cut.pcap", made)) as source:
        (found,) = source.resets()
    assert found.rst.payload_len == 100
    assert found.payload == b"x" * 12
    with CaptureSource(write(tmp_path / "cut.pcap", c.pcap(packets, snaplen=54))) as source:
        (found,) = source.resets()
    assert found.payload is None


# ---- checksums ----


def learned(talk: Talk, packets: list[bytes]) -> Half:
    flows = Flows(16)
    for number, data in enumerate(packets):
        flows.learn(segment(data, START_NS + number * 1_000_000))
    half = flows.baseline(segment(talk.reset())).theirs
    assert half is not None
    return half


def test_a_wrong_checksum_where_others_are_right_does_not_fit() -> None:
    talk = Talk()
    half = learned(talk, [*talk.handshake(), talk.frame(1, "A", chksum=0xBEEF)])
    assert (half.packets, half.strange, half.checksums_wrong) == (1, 1, False)


def test_a_direction_all_of_whose_checksums_are_wrong_fits() -> None:
    """As where something on the way rewrites packets carelessly."""
    talk = Talk()
    packets = [talk.frame(0, "S"), talk.frame(1, "SA", chksum=0xBEEF), talk.frame(0, "A")]
    half = learned(talk, [*packets, *(talk.frame(1, "A", chksum=0xBEEF) for _ in range(5))])
    assert (half.packets, half.strange, half.checksums_wrong) == (6, 0, True)


def test_checksums_that_cannot_be_told_are_unknown() -> None:
    talk = Talk()
    packets = [talk.frame(0, "S"), talk.frame(1, "SA", chksum=0), talk.frame(0, "A")]
    assert learned(talk, packets).checksums_wrong is None


def test_only_the_first_packets_checksums_are_looked_at() -> None:
    talk = Talk()
    right = [talk.frame(1, "A") for _ in range(3)]
    wrong = talk.frame(1, "A", chksum=0xBEEF)
    assert learned(talk, [*talk.handshake(), *right, wrong]).strange == 0
    assert learned(talk, [*talk.handshake(), *right[:2], wrong]).strange == 1


def test_what_comes_after_a_rst_is_looked_at_too() -> None:
    talk, flows = Talk(), Flows(16)
    for data in [*talk.handshake(), *(talk.frame(1, "A") for _ in range(5))]:
        flows.learn(segment(data))
    flows.watch(segment(talk.reset()))
    flows.learn(segment(talk.frame(1, "A", chksum=0xBEEF)))
    half = flows.baseline(segment(talk.reset())).theirs
    assert half is not None
    assert half.strange == 1


# ---- what a capture cut off ----


def test_timestamps_that_were_cut_off_are_neither_there_nor_missing() -> None:
    """The handshake is whole, of later packets only 20 bytes of TCP are captured."""
    stamp = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
    talk = Talk()
    packets = [talk.frame(side, flags, options=stamp) for side, flags in ((0, "S"), (1, "SA"))]
    flows = Flows(16)
    for data in packets:
        flows.learn(segment(data))
    flows.learn(segment(talk.frame(1, "A", options=stamp)[:54]))
    half = flows.baseline(segment(talk.reset())).theirs
    assert half is not None
    assert (half.packets, half.strange) == (2, 0)
    flows.learn(segment(talk.frame(1, "A", options=stamp)))
    flows.learn(segment(talk.frame(1, "A")))
    half = flows.baseline(segment(talk.reset())).theirs
    assert half is not None
    assert (half.packets, half.strange) == (3, 1)


def test_timestamps_that_a_box_takes_off_are_not_missed() -> None:
    """Both SYNs had them, and no packet after the handshake: something on the way removes them."""
    stamp = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
    talk = Talk()
    flows = Flows(16)
    for side, flags in ((0, "S"), (1, "SA")):
        flows.learn(segment(talk.frame(side, flags, options=stamp)))
    flows.learn(segment(talk.frame(1, "A")))
    half = flows.baseline(segment(talk.reset())).theirs
    assert half is not None
    assert (half.packets, half.strange) == (2, 0)


def test_addresses_in_whose_name_resets_came_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsttrace.capture.flows.PEERS", 5)
    flows = Flows(16)
    for number in range(20):
        rst = bytearray(Talk().reset())
        rst[29] = number  # the source address's last byte
        flows.watch(segment(bytes(rst)))
    assert len(flows._watched) == 5
