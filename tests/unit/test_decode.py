from __future__ import annotations

import random
from typing import Any

import pytest

from rsttrace.kernel import config, layout
from rsttrace.kernel.config import NO_REASON
from rsttrace.kernel.decode import Context, decode
from rsttrace.model import AcceptQueue, Endpoint, Kind, LatePacket, Reset, Scope, TtlCount
from rsttrace.tcp import address, flag_letters, options_text, packet
from tests.unit import builders as b
from tests.unit.builders import CONTEXT, PEER, PEER6, US, US6, decoded, event

LINUX_SYN = bytes.fromhex("020405b40402080a000000010000000201030307")


def peer_half(found: Any, **values: Any) -> None:
    """Five packets of the peer: the oldest of them no longer kept."""
    given = {
        "first_ts": 100,
        "last_ts": 500,
        "packets": 5,
        "ifindex": 2,
        "has_syn": 1,
        "ttl": 47,
        "ttl_min": 39,
        "ttl_max": 48,
        "df_always": 1,
        "timestamps": 1,
        "mac": bytes.fromhex("00d0f8223344"),
        "has_mac": 1,
        "syn_options": LINUX_SYN.ljust(40, b"\xff"),  # behind them, other bytes of the packet
        "syn_options_len": len(LINUX_SYN),
    }
    b.fill(found, **{**given, **values})
    b.fill(found.syn, ts=100, window=65160, ttl=39, flags=0x12)


def seen_number(target: Any, number: int) -> None:
    """One remembered packet that can be told from the others."""
    b.fill(
        target,
        ts=100 * number,
        seq=1000 + number,
        ack=2000 + number,
        payload_len=10 * number,
        ip_id=500 + number,
        window=300 + number,
        segments=1,
        flags=0x18,
        ttl=40 + number,
        df=1,
    )


# ---- kinds, ends ----


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_comes_back_with_its_ends(kind: Kind) -> None:
    found = decoded(event(kind))
    assert found.kind is kind
    here, there = Endpoint(US, b.US_PORT), Endpoint(PEER, b.PEER_PORT)
    if kind is Kind.FORWARDED:  # the RST's source, though it comes from outside
        here, there = there, here
    assert (found.local, found.remote) == (here, there)
    assert found.family == 4
    assert found.netns == 4026531840
    assert found.cause.name
    assert found.cause.text


def test_kind_numbers_are_the_ones_that_c_is_told() -> None:
    for kind, number in config.KIND_NUMBERS.items():
        found = event(kind)
        found.kind = number
        assert decoded(found).kind is kind


def test_a_sockets_addresses_win_over_the_packets() -> None:
    found = event(Kind.RECEIVED_ACCEPTED)  # behind NAT: the wire shows another address
    b.socket(found.sock, local=b.mapped("192.168.7.7"), lport=999)
    back = decoded(found)
    assert back.local == Endpoint("192.168.7.7", 999)
    assert back.rst.dst == Endpoint(US, b.US_PORT)


def test_an_unconnected_socket_has_no_ends_to_win() -> None:
    found = event(Kind.SENT_PASSIVE)
    b.socket(found.sock, state=b.STATES["LISTEN"], rport=0, remote=b.mapped("0.0.0.0"))
    back = decoded(found)
    assert back.local == Endpoint(US, b.US_PORT)
    assert back.socket is not None
    assert (back.socket.local, back.socket.remote, back.socket.rcv_nxt) == (None, None, None)


def test_a_reset_without_headers_has_what_its_socket_knows() -> None:
    found = event(Kind.RECEIVED_ACCEPTED)
    b.fill(found.rst, present=0)
    b.socket(found.sock)
    back = decoded(found)
    assert back.unread
    assert (back.local, back.remote) == (Endpoint(US, b.US_PORT), Endpoint(PEER, b.PEER_PORT))
    assert (back.rst.src, back.rst.dst) == (back.remote, back.local)
    assert back.family == 4
    assert back.frame is None
    assert back.cause.name == "connection-reset"


# ---- packets ----


def test_ipv4_packet_field_by_field() -> None:
    found = event()
    l3 = b.ipv4_bytes(ttl=63, ip_id=13052, df=True, tos=0x28, length=52)
    l4 = b.tcp_bytes(
        "RA", seq=0xDEADBEEF, ack=0xCAFEF00D, window=501, reserved=0b1011, options=b.TIMESTAMPS
    )
    b.headers(found.rst, l3, l4, payload_len=0, trailing=b"trailing bytes of the packet")
    rst = decoded(found).rst
    assert (rst.src, rst.dst) == (Endpoint(PEER, b.PEER_PORT), Endpoint(US, b.US_PORT))
    assert (rst.ttl, rst.ip_id, rst.df, rst.tos, rst.length) == (63, 13052, True, 0x28, 52)
    assert (rst.flags, rst.seq, rst.ack, rst.window) == ("RA", 0xDEADBEEF, 0xCAFEF00D, 501)
    assert (rst.reserved, rst.options) == (0b1011, "nop,nop,TS val 1 ecr 2")
    assert rst.raw == (l3 + l4).hex()  # without the trailing bytes
    assert rst.family == 4


def test_no_df_and_a_payload() -> None:
    found = event()
    b.headers(found.rst, b.ipv4_bytes(df=False, ip_id=0, length=57), b.tcp_bytes(), 17)
    rst = decoded(found).rst
    assert (rst.df, rst.ip_id, rst.payload_len) == (False, 0, 17)


def test_ip_options_are_headers_too() -> None:
    found = event()
    l3 = b.ipv4_bytes(options=bytes.fromhex("94040000"), length=44)
    b.headers(found.rst, l3, b.tcp_bytes())
    assert decoded(found).rst.raw == (l3 + b.tcp_bytes()).hex()


def test_ipv6_packet_has_neither_id_nor_df() -> None:
    found = event(Kind.RECEIVED_UNMATCHED)
    l3 = b.ipv6_bytes(ttl=255, tos=0xB8, payload=32)
    l4 = b.tcp_bytes("RA", options=b.TIMESTAMPS)
    b.headers(found.rst, l3, l4, trailing=b"\xff" * 20)
    back = decoded(found)
    rst = back.rst
    assert (rst.ip_id, rst.df, rst.ttl, rst.tos, rst.length) == (None, None, 255, 0xB8, 72)
    assert (back.local.ip, back.remote.ip, back.family) == (US6, PEER6, 6)
    assert rst.raw == (l3 + l4).hex()


def test_v4_mapped_socket_is_shown_as_ipv4() -> None:
    found = event(Kind.SENT_ACTIVE)  # an AF_INET6 socket that talks IPv4
    b.socket(found.sock)
    back = decoded(found)
    assert (back.local.ip, back.remote.ip) == (US, PEER)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b.mapped("255.0.0.1"), "255.0.0.1"),
        (bytes(15) + b"\1", "::1"),
        (bytes(16), "::"),
        (bytes(10) + b"\xff\xfe\x0a\0\0\1", "::fffe:a00:1"),  # not v4-mapped
        (b.mapped("2001:db8::5"), "2001:db8::5"),
    ],
)
def test_addresses(raw: bytes, text: str) -> None:
    assert address(raw) == text


@pytest.mark.parametrize(
    ("bits", "letters"),
    [(0, ""), (0x04, "R"), (0x14, "RA"), (0x12, "SA"), (0x19, "FPA"), (0xFF, "SFRPAUEW")],
)
def test_flag_letters(bits: int, letters: str) -> None:
    assert flag_letters(bits) == letters


# ---- options ----


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", ""),
        ("020405b4", "mss 1460"),
        ("030307", "wscale 7"),
        ("0402", "sackOK"),
        ("0101080affffffff00000000", "nop,nop,TS val 4294967295 ecr 0"),
        ("050a0000000100000002", "sack 0000000100000002"),
        ("1e03ff", "mptcp ff"),
        ("fd0412345678", "option-253 1234,malformed"),
        ("0001010101", "eol"),
        ("08", "malformed"),
        ("0800", "malformed"),
        ("080101", "malformed"),
        ("080a0000", "malformed"),
        ("01ff", "nop,malformed"),
        ("080400010000", "TS 0001,eol"),  # a timestamp option of the wrong length
        (
            "020405b40402080a000000070000000901030307",
            "mss 1460,sackOK,TS val 7 ecr 9,nop,wscale 7",
        ),
        (
            "020405b40402080a000000070000000901030407",
            "mss 1460,sackOK,TS val 7 ecr 9,nop,malformed",
        ),
        (
            "020405b40402080a000000070000000901010303",
            "mss 1460,sackOK,TS val 7 ecr 9,nop,nop,malformed",
        ),
        ("020405b404020101080a0000000700000009", "mss 1460,sackOK,nop,nop,TS val 7 ecr 9"),
    ],
)
def test_options(raw: str, text: str) -> None:
    assert options_text(bytes.fromhex(raw)) == text
    assert options_text(bytes.fromhex(raw), len(raw) // 2) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("0101080affffffff00000000", "nop,nop,TS val 4294967295 ecr 0,cut"),
        (
            "020405b40402080a000000070000000901030307",
            "mss 1460,sackOK,TS val 7 ecr 9,nop,wscale 7,cut",
        ),
        ("020405b40402080a00000007", "mss 1460,sackOK,cut"),
        ("", "cut"),
    ],
)
def test_options_that_a_capture_cut_off(raw: str, text: str) -> None:
    assert options_text(bytes.fromhex(raw), 40) == text


def test_no_bytes_make_options_raise() -> None:
    random_bytes = random.Random(20241101)
    for _ in range(3000):
        raw = random_bytes.randbytes(random_bytes.randrange(41))
        text = options_text(raw)
        assert text.isascii()
        assert text.isprintable()
        assert bool(text) == bool(raw)


@pytest.mark.parametrize("first", [0x45, 0x4F, 0x41, 0x60, 0x00, 0xF3])
def test_no_header_bytes_make_parsing_raise(first: int) -> None:
    random_bytes = random.Random(first)
    for _ in range(300):
        l3 = bytes([first]) + random_bytes.randbytes(59)
        l4 = random_bytes.randbytes(60)
        found = packet(l3, l4, 0)
        assert 0 <= found.ttl <= 255
        assert len(found.raw) <= 240
        assert (found.ip_id is None) == (found.family == 6) == (first >> 4 != 4)


def test_no_event_bytes_behind_valid_headers_make_decoding_raise() -> None:
    random_bytes = random.Random(7)
    for _ in range(200):
        found = layout.structures().rst_event.from_buffer_copy(
            random_bytes.randbytes(layout.event_size())
        )
        found.kind %= len(Kind)
        found.scope %= len(Scope)
        found.made.kind %= len(Kind)
        found.rst.present = 1
        assert isinstance(decoded(found), Reset)


# ---- unknown is None, never 0 ----


def test_nothing_known_is_none_everywhere() -> None:
    back = decoded(event())
    assert back.trigger is None
    assert back.socket is None
    assert back.process is None
    assert back.made_here is None
    assert back.ingress_frame is None
    assert back.baseline.scope is Scope.NONE
    assert back.baseline.theirs is None
    assert back.baseline.ours is None
    assert back.cause.kernel_reason is None
    assert back.frame is not None
    assert back.frame.mac is None


def test_unknown_socket_values_are_none() -> None:
    found = event()
    b.socket(found.sock, cookie=0, srtt_us=0, min_rtt_us=NO_REASON, inode=0, cgroup=0)
    socket = decoded(found).socket
    assert socket is not None
    assert (socket.cookie, socket.srtt_us, socket.min_rtt_us) == (None, None, None)
    assert (socket.inode, socket.cgroup) == (None, None)
    assert (socket.state, socket.uid, socket.rcv_nxt) == ("ESTABLISHED", 1000, 1000)


def test_a_minimum_round_trip_of_zero_is_a_measurement() -> None:
    found = event()
    b.socket(found.sock, min_rtt_us=0)
    socket = decoded(found).socket
    assert socket is not None
    assert socket.min_rtt_us == 0


def test_root_is_a_user() -> None:
    found = event()
    b.socket(found.sock, uid=0)
    back = decoded(found)
    assert back.socket is not None
    assert back.socket.uid == 0
    assert back.process is not None
    assert (back.process.pid, back.process.comm, back.process.uid) == (None, None, 0)


def test_known_socket_values_are_kept() -> None:
    found = event()
    b.socket(found.sock)
    socket = decoded(found).socket
    assert socket is not None
    assert (socket.cookie, socket.srtt_us, socket.min_rtt_us) == (4711, 15000, 14000)
    assert (socket.inode, socket.cgroup, socket.uid) == (99, 7, 1000)
    assert socket.local == Endpoint(US, b.US_PORT)
    assert socket.remote == Endpoint(PEER, b.PEER_PORT)


def test_a_minisock_has_no_tcp_members() -> None:
    found = event()  # TIME_WAIT: what lies behind is other memory
    b.socket(found.sock, full=0, state=6)
    socket = decoded(found).socket
    assert socket is not None
    assert socket.state == "TIME_WAIT"
    assert (socket.srtt_us, socket.min_rtt_us, socket.uid, socket.rcv_nxt) == (None,) * 4


def test_an_unknown_state_is_none() -> None:
    found = event()
    b.socket(found.sock, state=99)
    socket = decoded(found).socket
    assert socket is not None
    assert socket.state is None
    assert "None" not in decoded(found).cause.text


def test_half_without_syn_and_mac() -> None:
    found = event(scope=1)
    peer_half(found.theirs, has_syn=0, has_mac=0, ifindex=0, df_always=0, timestamps=0)
    theirs = decoded(found).baseline.theirs
    assert theirs is not None
    assert (theirs.syn_ttl, theirs.syn_window, theirs.syn_ns) == (None, None, None)
    assert theirs.syn_options is None
    assert (theirs.mac, theirs.ifindex) == (None, None)
    assert (theirs.df_always, theirs.timestamps) == (False, False)


def test_frames() -> None:
    found = event(has_ingress=1)
    b.fill(found.here, netns=2, ifindex=3, mac=bytes.fromhex("020000000001"), has_mac=1, ttl=46)
    b.fill(found.ingress, netns=1, ifindex=7, mac=bytes.fromhex("00d0f8223344"), has_mac=1, ttl=47)
    back = decoded(found)
    assert back.frame is not None
    assert (back.frame.netns, back.frame.ifindex, back.frame.ttl) == (2, 3, 46)
    assert back.frame.mac == "02:00:00:00:00:01"
    assert back.ingress_frame is not None
    assert back.ingress_frame.netns == 1
    assert back.ingress_frame.mac == "00:d0:f8:22:33:44"
    assert back.ingress_frame.ttl == 47


# ---- reasons come by the running kernel's names ----


def test_reasons_are_named_by_this_kernels_enums() -> None:
    found = event(Kind.SENT_PASSIVE, reason=1)
    assert decoded(found).cause.kernel_reason == "NO_SOCKET"
    other = Context(0, {"sk_rst_reason": {1: "TCP_TIMEWAIT_SOCKET"}, "skb_drop_reason": {}})
    assert decoded(found, other).cause.name == "time-wait"


def test_a_received_resets_reason_is_the_drop_reason() -> None:
    found = event(Kind.RECEIVED_REJECTED, reason=1, drop_reason=5)
    cause = decoded(found).cause
    assert (cause.name, cause.kernel_reason) == ("bad-checksum", "TCP_CSUM")


def test_a_reason_that_no_table_knows() -> None:
    cause = decoded(event(Kind.SENT_PASSIVE, reason=77)).cause
    assert cause.kernel_reason == "BRAND_NEW"
    assert "BRAND_NEW" in cause.text


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("value", [NO_REASON, 12345])
def test_no_reason_and_numbers_without_name(kind: Kind, value: int) -> None:
    back = decoded(event(kind, reason=value, drop_reason=value))
    assert back.cause.kernel_reason is None
    assert "None" not in back.cause.text
    empty = decoded(event(kind, reason=value, drop_reason=value), Context(0, {}))
    assert empty.cause == back.cause


def test_active_state_comes_from_before_the_reset() -> None:
    found = event(Kind.SENT_ACTIVE, reason=7)
    b.socket(found.sock, owned=1, state_now=b.STATES["CLOSE"])
    back = decoded(found)
    assert back.cause.name == "linger"
    assert back.socket is not None
    assert back.socket.state == "ESTABLISHED"
    found.sock.state_now = b.STATES["ESTABLISHED"]
    assert decoded(found).cause.name == "aborted"


# ---- what a socket tells of why (struct rst_detail) ----


def detailed(kind: Kind, detail: dict[str, int], rst: Any = None, **members: int) -> Reset:
    found = event(kind)
    b.socket(found.sock, **members)
    b.fill(found.detail, **detail)
    if rst is not None:
        b.headers(found.rst, b.ipv4_bytes(), rst)
    return decoded(found)


MINI = {"state": b.STATES["TIME_WAIT"], "full": 0}


@pytest.mark.parametrize("substate", ["TIME_WAIT", "FIN_WAIT2"])
def test_a_minisocket_has_the_state_of_its_connection(substate: str) -> None:
    detail = {"substate": b.STATES[substate], "rcv_nxt": 4711}
    for kind, name in (
        (Kind.RECEIVED_ACCEPTED, "time-wait-ended"),
        (Kind.RECEIVED_REJECTED, "time-wait"),
    ):
        back = detailed(kind, detail, **MINI)
        assert back.cause.name == name
        assert back.socket is not None
        assert (back.socket.state, back.socket.rcv_nxt) == (substate, 4711)
        assert back.socket.minisocket


def test_a_minisocket_without_its_detail_is_in_time_wait() -> None:
    back = detailed(Kind.RECEIVED_ACCEPTED, {}, **MINI)
    assert back.socket is not None
    assert (back.cause.name, back.socket.state) == ("time-wait-ended", "TIME_WAIT")
    assert back.socket.rcv_nxt is None


@pytest.mark.parametrize("seq", [4711, 4712])
@pytest.mark.parametrize("rfc1337", [0, 1])
def test_rfc1337_is_named_where_nothing_else_kept_time_wait(seq: int, rfc1337: int) -> None:
    detail = {"substate": b.STATES["TIME_WAIT"], "rcv_nxt": 4711, "rfc1337": rfc1337}
    back = detailed(Kind.RECEIVED_REJECTED, detail, b.tcp_bytes(seq=seq), **MINI)
    assert ("tcp_rfc1337" in back.cause.text) == (seq == 4711 and rfc1337 == 1)
    assert (back.cause.name == "paws") == (seq == 4711 and rfc1337 == 0)


def test_timers_and_queue_are_told_where_they_are_known() -> None:
    numbers = {"silent_ms": 90_500, "unanswered": 3, "keepalive_idle_ms": 60_000}
    back = detailed(Kind.SENT_ACTIVE, {"has_timers": 1, **numbers})
    assert back.socket is not None
    assert back.socket.timers is not None
    assert (back.socket.timers.silent_ms, back.socket.timers.unanswered) == (90_500, 3)
    assert back.socket.timers.user_timeout_ms is None  # 0: not set
    assert back.socket.accept_queue is None
    back = detailed(Kind.SENT_ACTIVE, numbers)
    assert back.socket is not None
    assert back.socket.timers is None
    queue = {"has_queue": 1, "queued": 129, "queue_max": 128, "aborts_on_overflow": 1}
    back = detailed(Kind.SENT_PASSIVE, queue, state=b.STATES["LISTEN"], rport=0)
    assert back.socket is not None
    assert back.socket.accept_queue == AcceptQueue(129, 128, aborts=True)
    assert back.socket.accept_queue.full


@pytest.mark.parametrize(
    ("exiting", "code", "signal", "status"),
    [
        (0, 0, None, None),
        (0, 9, None, None),
        (1, 9, 9, None),
        (1, 0x8B, 11, None),
        (1, 0, None, 0),
        (1, 0x0300, None, 3),
    ],
)
def test_how_a_process_ended(
    exiting: int, code: int, signal: int | None, status: int | None
) -> None:
    """wait(2): the signal in 7 bits, that a core was dumped in the 8th, the status above."""
    found = event(Kind.SENT_ACTIVE, has_owner=1)
    b.socket(found.sock, owned=1, state_now=b.STATES["CLOSE"])
    b.fill(found.owner, pid=99, exiting=exiting, exit_code=code)
    back = decoded(found)
    assert back.process is not None
    assert (back.process.pid, back.process.uid) == (99, 1000)
    assert (back.process.exit_signal, back.process.exit_status) == (signal, status)
    assert ("its process" in back.cause.text) == bool(exiting)


@pytest.mark.parametrize("reason", [NO_REASON, 2])
def test_a_handshake_is_judged_by_its_request_not_its_listener(reason: int) -> None:
    """tcp_check_req() gives no reason, and the socket that is told is the listener."""
    found = event(Kind.RECEIVED_REJECTED, drop_reason=reason)
    b.socket(found.sock, state=b.STATES["LISTEN"], rport=0)
    back = decoded(found)
    assert back.cause.name == "syn-recv"
    assert back.socket is not None
    assert back.socket.state == "SYN_RECV"


@pytest.mark.parametrize("reason", [21, 22])
def test_a_stray_reset_to_a_listener_ends_no_handshake(reason: int) -> None:
    """tcp_rcv_state_process() in LISTEN: TCP_RESET for R, but TCP_FLAGS for RA."""
    found = event(Kind.RECEIVED_REJECTED, drop_reason=reason)
    b.socket(found.sock, state=b.STATES["LISTEN"], rport=0)
    back = decoded(found)
    assert back.cause.name == "listen"
    assert back.socket is not None
    assert back.socket.state == "LISTEN"


@pytest.mark.parametrize(
    ("hook", "text"),
    [(0, None), (2, "(input)"), (3, "(forward)"), (4, "(output)"), (6, None), (255, None)],
)
def test_netfilter_chain(hook: int, text: str | None) -> None:
    cause = decoded(event(Kind.SENT_NETFILTER, hook=hook)).cause
    assert cause.name == "firewall-reject"
    assert ("(" in cause.text) == (text is not None)
    assert (text or "") in cause.text


# ---- the baseline ----


def test_recent_packets_come_newest_first_out_of_the_ring() -> None:
    found = event(scope=1)
    peer_half(found.theirs)
    for number in range(5):  # the fifth packet overwrites the first
        seen_number(found.theirs.recent[number % 4], number)
    theirs = decoded(found).baseline.theirs
    assert theirs is not None
    assert [seen.seq for seen in theirs.recent] == [1004, 1003, 1002, 1001]
    newest = theirs.recent[0]
    assert newest.time_ns == 400 + CONTEXT.clock_offset_ns
    assert (newest.ttl, newest.ip_id, newest.df, newest.flags) == (44, 504, True, "PA")
    assert (newest.ack, newest.window, newest.payload_len) == (2004, 304, 40)


@pytest.mark.parametrize("packets", [1, 2, 3, 4])
def test_a_ring_that_is_not_full_yet(packets: int) -> None:
    found = event(scope=1)
    peer_half(found.theirs, packets=packets)
    for number in range(packets):
        seen_number(found.theirs.recent[number], number)
    theirs = decoded(found).baseline.theirs
    assert theirs is not None
    assert [seen.seq for seen in theirs.recent] == [1000 + n for n in reversed(range(packets))]


def test_offloaded_buffers_keep_their_segments() -> None:
    found = event(scope=1)
    peer_half(found.ours, packets=2)
    for number, segments in enumerate((0, 44)):
        seen_number(found.ours.recent[number], number)
        found.ours.recent[number].segments = segments
    ours = decoded(found).baseline.ours
    assert ours is not None
    assert [seen.segments for seen in ours.recent] == [44, 1]  # 0: not offloaded, one packet


def test_half_field_by_field() -> None:
    found = event(scope=1)
    peer_half(
        found.theirs, fin_ts=450, strange=3, strange_ts=440, syns=2, confirmed=1, acked=5,
        has_acked=1, has_new_syn=1, new_options=LINUX_SYN, new_options_len=4,
    )  # fmt: skip
    b.fill(found.theirs.new_syn, ts=430, flags=0x02, seq=9, ttl=50, stamped=1, tsval=7, tsecr=8)
    b.fill(found.theirs.clock[0], ts=100, tsval=1)
    b.fill(found.theirs.ttls[1], ttl=48, packets=1, strange=3, first_ts=110, last_ts=440)
    b.fill(found.theirs.ttls[3], ttl=47, packets=5, first_ts=120, last_ts=500)
    baseline = decoded(found).baseline
    assert baseline.scope is Scope.FLOW
    assert (baseline.ours, baseline.peer, baseline.peer_ttls) == (None, None, ())
    theirs = baseline.theirs
    assert theirs is not None
    assert (theirs.packets, theirs.ttl, theirs.ttl_min, theirs.ttl_max) == (5, 47, 39, 48)
    assert (theirs.syn_ttl, theirs.syn_window) == (39, 65160)
    assert theirs.syn_options == "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7"
    assert (theirs.df_always, theirs.timestamps) == (True, True)
    assert (theirs.mac, theirs.ifindex) == ("00:d0:f8:22:33:44", 2)
    wall = CONTEXT.clock_offset_ns
    assert (theirs.fin_ns, theirs.strange, theirs.strange_ns) == (450 + wall, 3, 440 + wall)
    assert (theirs.syns, theirs.confirmed, theirs.acked) == (2, True, 5)
    assert theirs.clock == ((1, 100 + wall),)
    assert theirs.ttls == (
        TtlCount(47, 5, 120 + wall, 500 + wall),
        TtlCount(48, 1, 110 + wall, 440 + wall, strange=3),
    )
    new = theirs.new_syn
    assert new is not None
    assert (new.flags, new.seq, new.ttl, new.time_ns) == ("S", 9, 50, 430 + wall)
    assert (new.tsval, new.tsecr, new.options) == (7, 8, "mss 1460")
    assert theirs.checksums_wrong is None  # the card's affair


def test_what_was_not_seen_is_none() -> None:
    found = event(scope=1)
    peer_half(found.theirs)
    theirs = decoded(found).baseline.theirs
    assert theirs is not None
    assert (theirs.fin_ns, theirs.strange_ns, theirs.new_syn, theirs.acked) == (None,) * 4
    assert (theirs.ttls, theirs.clock, theirs.confirmed) == ((), (), False)


@pytest.mark.parametrize(("family", "ip_id", "df"), [(4, 501, True), (6, None, None)])
def test_ipv6_packets_have_no_ip_id(family: int, ip_id: int | None, df: bool | None) -> None:
    found = event(scope=1)
    if family == 6:
        b.headers(found.rst, b.ipv6_bytes(), b.tcp_bytes())
    peer_half(found.theirs, packets=1)
    seen_number(found.theirs.recent[0], 1)
    b.fill(found.theirs.recent[0], tos=0x10)
    theirs = decoded(found).baseline.theirs
    assert theirs is not None
    (seen,) = theirs.recent
    assert (seen.ip_id, seen.df, seen.tos, seen.tsval) == (ip_id, df, 0x10, None)


def known_peer(found: Any) -> None:
    """A confirmed handshake of the peer."""
    b.fill(
        found.peer, known=1, has_mac=1, mac=bytes.fromhex("00d0f8223344"), ifindex=2,
        options=LINUX_SYN.ljust(40, b"\xff"), options_len=len(LINUX_SYN),
        ttls=bytes([47, 63]),
    )  # fmt: skip
    b.fill(
        found.peer.syn, ts=100, flags=0x12, seq=8, ack=5, window=65160, ttl=47, df=1, ip_id=9,
        stamped=1, tsval=1, tsecr=2,
    )  # fmt: skip


@pytest.mark.parametrize("scope", [Scope.NONE, Scope.FLOW, Scope.PEER])
def test_a_known_peer_is_told_whatever_the_scope(scope: Scope) -> None:
    found = event(scope=config.SCOPES.index(scope))
    known_peer(found)
    if scope is Scope.FLOW:
        peer_half(found.theirs)
    baseline = decoded(found).baseline
    peer, theirs = baseline.peer, baseline.theirs
    assert peer is not None
    assert (peer.ttls, peer.syn_ttl, peer.syn_window, peer.df) == ((47, 63), 47, 65160, True)
    assert peer.syn_options == "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7"
    assert (peer.mac, peer.time_ns) == ("00:d0:f8:22:33:44", 100 + CONTEXT.clock_offset_ns)
    assert baseline.peer_ttls == peer.ttls
    assert (theirs is None) == (scope is Scope.NONE)
    if scope is Scope.PEER:
        assert theirs is not None
        assert (theirs.packets, theirs.ttl, theirs.syn_ttl, theirs.end) == (1, 47, 47, 9)
        assert (theirs.timestamps, theirs.recent[0].flags, theirs.acked) == (True, "SA", 5)


def test_all_times_are_wall_clock() -> None:
    found = event(scope=1)
    peer_half(found.theirs)
    wall = CONTEXT.clock_offset_ns
    back = decoded(found)
    theirs = back.baseline.theirs
    assert theirs is not None
    assert back.time_ns == 5_000_000_000 + wall
    assert (theirs.first_ns, theirs.last_ns, theirs.syn_ns) == (100 + wall, 500 + wall, 100 + wall)


@pytest.mark.parametrize("end", [0, 1, 0xFFFFFFFF])
def test_the_end_of_what_was_sent_is_any_number(end: int) -> None:
    found = event(scope=1)
    peer_half(found.theirs, end=end)
    theirs = decoded(found).baseline.theirs
    assert theirs is not None
    assert theirs.end == end


@pytest.mark.parametrize(
    ("raw", "ttls"),
    [
        ("0000000000000000", ()),
        ("2f00000000000000", (47,)),
        ("2f3f2f7501ff0203", (47, 63, 47, 117, 1, 255, 2, 3)),
    ],
)
def test_ttls_of_the_peers_handshakes(raw: str, ttls: tuple[int, ...]) -> None:
    found = event()
    b.fill(found.peer, known=1, ttls=bytes.fromhex(raw))
    baseline = decoded(found).baseline
    assert baseline.peer_ttls == ttls
    assert baseline.peer is not None
    assert baseline.peer.ttls == ttls


def late(found: Any) -> LatePacket:
    made = decode(bytes(found), CONTEXT)
    assert isinstance(made, LatePacket)
    return made


def test_a_late_packet_keeps_its_mac() -> None:
    found = event()
    found.kind = config.LATE
    b.fill(found.here, mac=bytes.fromhex("00d0f8223344"), has_mac=1)
    packet = late(found)
    assert (packet.mac, packet.handshake) == ("00:d0:f8:22:33:44", False)


@pytest.mark.parametrize("family", [4, 6])
def test_a_later_handshake_is_told_as_it_was(family: int) -> None:
    found = event(scope=2)
    found.kind = config.LATE
    l3 = b.ipv4_bytes() if family == 4 else b.ipv6_bytes()
    b.headers(found.rst, l3, b.tcp_bytes("A", sport=80, dport=4000))  # what confirmed it
    known_peer(found)
    told = late(found)
    assert told.handshake
    assert (told.time_ns, told.mac) == (100 + CONTEXT.clock_offset_ns, "00:d0:f8:22:33:44")
    packet = told.packet
    assert packet.family == family
    assert (packet.src.port, packet.dst.port, packet.flags) == (80, 4000, "SA")
    assert (packet.seq, packet.ack, packet.ttl, packet.window) == (8, 5, 47, 65160)
    assert packet.options == "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7"
    assert packet.length == (60 if family == 4 else 80)
    assert packet.raw == ""


@pytest.mark.parametrize(
    ("kept", "payload_len", "payload"),
    [
        (60, 0, None),
        (20, 100, None),  # in a fragment of the buffer
        (60, 100, b"0123456789" * 4),
        (30, 100, b"0123456789"),
        (60, 3, b"012"),
    ],
)
def test_a_rsts_own_payload(kept: int, payload_len: int, payload: bytes | None) -> None:
    found = event()
    b.headers(found.rst, b.ipv4_bytes(), b.tcp_bytes(), payload_len, b"0123456789" * 4)
    b.fill(found.rst, kept=kept)
    assert decoded(found).payload == payload


# ---- what came after a reset ----


def late_event(**values: Any) -> Any:
    """Data of the peer that came after a RST in its name."""
    found = event(kind=Kind.RECEIVED_ACCEPTED, **{"net": 99, **values})
    found.kind = config.LATE
    b.headers(
        found.rst,
        b.ipv4_bytes(ttl=46, ip_id=7, length=57),
        b.tcp_bytes("PA", seq=1000, ack=5117, window=509),
        17,
    )
    return found


def test_a_late_packet_is_no_reset() -> None:
    back = decode(bytes(late_event()), CONTEXT)
    assert isinstance(back, LatePacket)
    assert back.time_ns == 5_000_000_000 + CONTEXT.clock_offset_ns
    assert back.netns_identity == 99
    assert back.file is None
    assert (back.packet.src, back.packet.dst) == (
        Endpoint(PEER, b.PEER_PORT),
        Endpoint(US, b.US_PORT),
    )
    assert (back.packet.flags, back.packet.seq, back.packet.ack) == ("PA", 1000, 5117)
    assert (back.packet.payload_len, back.packet.ttl, back.packet.ip_id) == (17, 46, 7)


def test_a_late_packet_of_ipv6() -> None:
    found = late_event(net=0)
    b.headers(found.rst, b.ipv6_bytes(), b.tcp_bytes("SA", seq=1, ack=2))
    back = decode(bytes(found), CONTEXT)
    assert isinstance(back, LatePacket)
    assert back.netns_identity is None  # 0: unknown
    assert (back.packet.src.ip, back.packet.family, back.packet.flags) == (PEER6, 6, "SA")


def test_the_late_kind_is_behind_all_others() -> None:
    assert config.LATE not in config.KIND_NUMBERS.values()
    assert max(config.KIND_NUMBERS.values()) + 1 == config.LATE  # KIND_COUNT, as C counts


def test_no_bytes_of_a_late_packet_make_decoding_raise() -> None:
    random_bytes = random.Random(8)
    for _ in range(200):
        found = layout.structures().rst_event.from_buffer_copy(
            random_bytes.randbytes(layout.event_size())
        )
        found.kind = config.LATE
        found.rst.present = 1
        assert isinstance(decode(bytes(found), CONTEXT), LatePacket)


# ---- triggers ----


def test_the_kernels_own_trigger() -> None:
    found = event(Kind.SENT_PASSIVE, reason=1)
    b.headers(found.trigger, b.ipv4_bytes(), b.tcp_bytes("S", seq=77))
    back = decoded(found)
    assert back.trigger is not None
    assert (back.trigger.flags, back.trigger.seq) == ("S", 77)
    assert back.cause.name == "no-listener"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.RECEIVED_ACCEPTED, 1001),
        (Kind.RECEIVED_REJECTED, 1001),
        (Kind.RECEIVED_UNMATCHED, 1001),
        (Kind.SENT_PASSIVE, None),
        (Kind.SENT_ACTIVE, None),
        (Kind.SENT_RAW, None),
        (Kind.FORWARDED, None),
    ],
)
def test_a_received_resets_trigger_is_our_last_packet(kind: Kind, expected: int | None) -> None:
    found = event(kind, scope=1)
    peer_half(found.ours, packets=2)
    for number in range(2):
        seen_number(found.ours.recent[number], number)
    trigger = decoded(found).trigger
    assert (trigger.seq if trigger else None) == expected


def test_a_received_resets_trigger_is_no_packet_sent_after_it_came() -> None:
    """The challenge ACK that it drew, or one of another CPU while the RST waited."""
    found = event(Kind.RECEIVED_REJECTED, scope=1)
    peer_half(found.ours, packets=3)
    for number in range(3):
        seen_number(found.ours.recent[number], number)
    found.ts = 150
    back = decoded(found)
    assert back.trigger is not None
    assert back.trigger.seq == 1001
    found.ts = 0  # the very first packet's time
    back = decoded(found)
    assert back.trigger is not None
    assert back.trigger.seq == 1000


def test_a_packet_that_followed_the_reset_is_no_trigger_of_it() -> None:
    """As a challenge ACK, which leaves before the RST that provoked it is seen to be dropped."""
    found = event(Kind.RECEIVED_REJECTED, scope=1, ts=150)
    peer_half(found.ours, packets=3)
    peer_half(found.theirs, packets=3)
    for number in range(3):
        seen_number(found.ours.recent[number], number)
        seen_number(found.theirs.recent[number], number)
    reset = decoded(found)
    assert reset.trigger is not None
    assert reset.trigger.seq == 1001
    for half in (reset.baseline.ours, reset.baseline.theirs):
        assert half is not None
        assert [seen.seq for seen in half.recent] == [1001, 1000]


def test_a_firewalls_trigger_is_the_segment_that_it_answers() -> None:
    found = event(Kind.SENT_NETFILTER, scope=1)
    peer_half(found.ours, packets=3)
    for number in range(3):
        seen_number(found.ours.recent[number], number)
    l3 = b.ipv4_bytes(src=US, dst=PEER)
    b.headers(found.rst, l3, b.tcp_bytes("R", seq=2001))  # the ack of packet 1
    trigger = decoded(found).trigger
    assert trigger is not None
    assert trigger.seq == 1001
    b.headers(found.rst, l3, b.tcp_bytes("RA", seq=0, ack=1002 + 20))  # the end of packet 2
    trigger = decoded(found).trigger
    assert trigger is not None
    assert trigger.seq == 1002
    b.headers(found.rst, l3, b.tcp_bytes("RA", seq=0, ack=31337))
    assert decoded(found).trigger is None


def test_a_firewalls_trigger_ends_behind_its_syn_and_wraps() -> None:
    found = event(Kind.SENT_NETFILTER, scope=1)
    peer_half(found.ours, packets=1)
    seen_number(found.ours.recent[0], 0)
    b.fill(found.ours.recent[0], flags=0x02, seq=0xFFFFFFFF, ack=5, payload_len=0)
    b.headers(found.rst, b.ipv4_bytes(src=US, dst=PEER), b.tcp_bytes("RA", seq=0, ack=0))
    trigger = decoded(found).trigger
    assert trigger is not None
    assert trigger.flags == "S"


# ---- made here, owners ----


@pytest.mark.parametrize(
    ("kind", "hook", "name"),
    [
        (Kind.SENT_NETFILTER, 3, "forward"),
        (Kind.SENT_NETFILTER, 0, None),
        (Kind.SENT_RAW, 0, None),
        (Kind.SENT_PASSIVE, 0, None),
    ],
)
def test_made_here(kind: Kind, hook: int, name: str | None) -> None:
    found = event()
    b.fill(found.made, present=1, netns=55, kind=config.KIND_NUMBERS[kind], hook=hook)
    made = decoded(found).made_here
    assert made is not None
    assert (made.netns, made.kind, made.hook) == (55, kind, name)
    assert (made.pid, made.comm) == (None, None)  # has_task is not set: nobody, not process 0


def test_made_here_by_a_process() -> None:
    found = event()
    b.fill(found.made, present=1, kind=config.KIND_NUMBERS[Kind.SENT_RAW], has_task=1)
    b.fill(found.made.task, pid=321, comm=b"hping3\0left over")
    made = decoded(found).made_here
    assert made is not None
    assert (made.pid, made.comm) == (321, "hping3")


def test_a_sent_reset_is_not_made_here_twice() -> None:
    found = event(Kind.SENT_RAW)
    b.fill(found.made, present=1, kind=config.KIND_NUMBERS[Kind.SENT_RAW])
    assert decoded(found).made_here is None


def test_a_raw_writer_has_a_user_but_no_tcp_socket() -> None:
    found = event(Kind.SENT_RAW, has_owner=1)
    b.fill(found.sock, present=1, uid=1001, netns=4026531840)
    b.fill(found.owner, pid=42, uid=0, comm=b"scapy")
    back = decoded(found)
    assert back.socket is not None
    assert (back.socket.state, back.socket.local, back.socket.inode) == (None, None, None)
    assert back.process is not None
    assert (back.process.pid, back.process.comm, back.process.uid) == (42, "scapy", 1001)


@pytest.mark.parametrize(
    "comm",
    [b"\xff\xfe\x80", b"\x1b[2J", b"two\nlines", "naïve".encode(), b"sixteen bytes!!!", b"", b" "],
)
def test_hostile_process_names_survive(comm: bytes) -> None:
    found = event(has_owner=1)
    b.fill(found.owner, pid=42, comm=comm)
    process = decoded(found).process
    assert process is not None
    assert process.comm is not None
    try:
        assert process.comm == comm.decode()
    except UnicodeDecodeError:
        assert process.comm == "\\xff\\xfe\\x80"


def test_decoding_does_not_change_the_bytes() -> None:
    found = event()
    b.socket(found.sock)
    raw = bytes(found)
    kept = bytes(raw)
    assert decode(raw, CONTEXT) == decode(raw, CONTEXT)
    assert raw == kept
