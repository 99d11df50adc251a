"""bpf/flow.h as the compiler sees it, in user space."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from rsttrace.kernel.flows import flow_key, sum_of
from rsttrace.kernel.layout import structures
from rsttrace.model import Endpoint
from rsttrace.tcp import packed_address
from tests.unit.flow_header import build, needs_compiler

pytestmark = needs_compiler


def run(directory: Path, statements: str) -> None:
    """Run statements against flow.h; an assertion that fails there fails here."""
    program = build(directory, f"int main(void)\n{{\n{statements}\nreturn 0;\n}}\n")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_syn_wipes_no_flow_that_is_open_however_long_it_was_quiet(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        struct rst_flow flow = {.half = {{.packets = 1, .last_ts = 5000}, {.last_ts = 4000}}};
        struct parsed syn = {.flags = TH_SYN, .seq = 7};
        assert(!begins_anew(&flow.half[0], &flow.half[1], &syn, 0));
        flow.half[1].closed = 1;
        assert(begins_anew(&flow.half[0], &flow.half[1], &syn, 0));
        """,
    )


def test_a_packet_is_late_though_another_cpu_noted_the_rst_with_a_later_time(
    tmp_path: Path,
) -> None:
    run(
        tmp_path,
        """
        struct parsed data = {.flags = TH_ACK, .payload_len = 10, .seq = 100};
        struct rst_half half = {.reset_ts = 5000, .reset_seq = 100};
        assert(is_late(&half, &data, 4999));
        assert(is_late(&half, &data, 5000 + LATE_FOR_NS));
        assert(!is_late(&half, &data, 5001 + LATE_FOR_NS));
        """,
    )


def test_our_own_packets_always_fit(tmp_path: Path) -> None:
    """Also where they are far from all that was seen: our stack knows better."""
    run(
        tmp_path,
        """
        __u8 header[80] = {};
        struct rst_flow flow = {};
        struct rst_half *ours = &flow.half[0], *theirs = &flow.half[1];
        struct rst_frame frame = {};
        struct parsed data = {.l4 = header, .flags = TH_ACK, .payload_len = 10, .seq = 100};
        learn_packet(ours, theirs, &data, 0, 5000);
        data.seq = 1 << 30;
        data.ttl = 3;
        learn_packet(ours, theirs, &data, 0, 5001);
        assert(ours->packets == 2 && !ours->strange && ours->end == (1 << 30) + 10);
        data.seq = 0;
        data.ack = (1 << 30) + 10;
        learn_packet(theirs, ours, &data, &frame, 5002);
        data.seq = 1 << 30;
        learn_packet(theirs, ours, &data, &frame, 5003);
        assert(theirs->packets == 1 && theirs->strange == 1);
        """,
    )


def test_our_own_new_syn_begins_anew_at_once(tmp_path: Path) -> None:
    """Our stack connects only where it has no connection any more, however it ended."""
    run(
        tmp_path,
        """
        __u8 header[80] = {};
        struct rst_flow flow = {};
        struct rst_half *ours = &flow.half[0], *theirs = &flow.half[1];
        struct rst_frame frame = {};
        struct parsed syn = {.l4 = header, .flags = TH_SYN, .seq = 7};
        struct parsed answer = {.l4 = header, .flags = TH_SYN | TH_ACK, .seq = 70, .ack = 8};
        learn_packet(ours, theirs, &syn, 0, 5000);
        assert(learn_packet(theirs, ours, &answer, &frame, 5001) == CONFIRMED);
        syn.seq = 1 << 20;
        learn_packet(ours, theirs, &syn, 0, 5002);
        assert(ours->packets == 1 && ours->syn.seq == 1 << 20 && !theirs->packets);
        answer.seq = 71;
        answer.ack = (1 << 20) + 1;
        assert(learn_packet(theirs, ours, &answer, &frame, 5003) == CONFIRMED);
        assert(theirs->packets == 1 && theirs->confirmed && !theirs->strange);
        """,
    )


def test_our_own_second_syn_ack_is_the_handshake(tmp_path: Path) -> None:
    """A server whose queue was full has forgotten its first answer; the next has a new number."""
    run(
        tmp_path,
        """
        __u8 header[80] = {};
        struct rst_flow flow = {};
        struct rst_half *ours = &flow.half[0], *theirs = &flow.half[1];
        struct rst_frame frame = {};
        struct parsed syn = {.l4 = header, .flags = TH_SYN, .seq = 7};
        struct parsed answer = {.l4 = header, .flags = TH_SYN | TH_ACK, .seq = 1 << 30, .ack = 8};
        struct parsed data = {.l4 = header, .flags = TH_ACK, .seq = 8, .ack = 6, .payload_len = 1};
        learn_packet(theirs, ours, &syn, &frame, 5000);
        learn_packet(ours, theirs, &answer, 0, 5001);
        answer.seq = 5;
        learn_packet(ours, theirs, &answer, 0, 5002);
        assert(learn_packet(theirs, ours, &data, &frame, 5003) == CONFIRMED);
        assert(theirs->packets == 2 && !theirs->strange);
        assert(ours->packets == 1 && ours->syn.seq == 5 && ours->end == 6);
        """,
    )


SEED = 0xFEDC_BA98_7654_3210


@pytest.mark.parametrize(
    ("local", "remote"),
    [
        (Endpoint("10.0.0.5", 40000), Endpoint("10.9.8.7", 80)),
        (Endpoint("10.9.8.7", 80), Endpoint("10.0.0.5", 40000)),
        (Endpoint("10.0.0.5", 80), Endpoint("10.0.0.5", 79)),
        (Endpoint("2001:db8::1", 1), Endpoint("2001:db8::100", 65535)),
        (Endpoint("fd00::1", 1), Endpoint("2001:db8::1", 1)),
    ],
)
def test_python_makes_the_same_key(tmp_path: Path, local: Endpoint, remote: Endpoint) -> None:
    key, high = flow_key(0x1122334455667788, local, remote)
    source, target = (", ".join(map(str, packed_address(end.ip))) for end in (local, remote))
    run(
        tmp_path,
        f"""
        struct tuple t = {{.saddr = {{{source}}}, .daddr = {{{target}}},
                          .sport = {local.port}, .dport = {remote.port}}};
        __u8 wanted[] = {{{", ".join(map(str, key))}}};
        struct rst_flow_key k = {{}};
        assert(make_flow_key(&k, 0x1122334455667788ULL, &t) == {int(high)});
        assert(sizeof(k) == sizeof(wanted));
        assert(!memcmp(&k, wanted, sizeof(k)));
        assert(sum_of(&k, {SEED}ULL) == {sum_of(key, SEED)}ULL);
        assert(sizeof(struct rst_flow) == {ctypes.sizeof(structures().rst_flow)});
        """,
    )


def test_who_chooses_addresses_does_not_choose_the_shelf() -> None:
    """Flows that share a shelf by one seed are all over the place by another one."""

    def shelf(number: int, seed: int) -> int:
        source = Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 40000)
        key, _ = flow_key(1, source, Endpoint("10.9.8.7", 80))
        return (sum_of(key, seed) & 0xFFFF_FFFF) * 256 >> 32

    together = [number for number in range(20_000) if shelf(number, SEED) == 7]
    assert len(together) > 40
    assert len({shelf(number, SEED + 1) for number in together}) > 20
    assert len({shelf(number, SEED ^ 1 << 63) for number in together}) > 20
