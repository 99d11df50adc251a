"""The baseline exists once: bpf/flow.h and rsttrace/capture/flows.py learn the same from the same.

One table of packets goes through both. flow.h is compiled for user space and driven through ctypes;
what it learned is decoded as from a live event, and compared member by member.
"""

from __future__ import annotations

import ctypes
import dataclasses
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from rsttrace.capture.flows import Direction, Flows
from rsttrace.capture.layers import Dissector, Segment
from rsttrace.capture.preview import plain_key
from rsttrace.kernel import decode, layout
from rsttrace.kernel.decode import Context
from rsttrace.limits import IDLE_REUSE_NS, LATE_FOR_NS
from rsttrace.model import Half, LatePacket, Peer
from rsttrace.tcp import RST
from tests.unit.builders import ipv4_bytes, ipv6_bytes, tcp_bytes
from tests.unit.captures import ETHERNET, SECOND, START_NS, Talk
from tests.unit.flow_header import build, needs_compiler

pytestmark = needs_compiler

LATE, CONFIRMED, HANDSHAKE = 1, 2, 4
"""What the harness says of a packet; the first two as flow.h has them."""

HARNESS = """
#define HANDSHAKE 4
struct state {
	struct rst_flow flows[16];
	struct rst_peer peers[2]; /* of the low end, and of the high one */
	struct watched watched[2];
	int known[16];
};

static int usual_ones; /* packets that were dealt with as such */
int usual_count(void) { return usual_ones; }

size_t state_size(void) { return sizeof(struct state); }

/* Where the usual packet is read in one piece, it is read the same. */
static void read(const __u8 *window, int length, struct parsed *p)
{
	const __u8 *l3 = window + WINDOW_BEFORE;
	struct parsed quick;
	int said;

	memset(&quick, 0, sizeof(quick));
	assert(parse_whole(l3, l3 + length, length, p) == PARSED);
	said = parse_window(window, l3, l3 + length, length, &quick);
	assert(said == PARSED || (said == UNUSUAL && l3[0] != 0x45));
	assert(said == UNUSUAL || !memcmp(p, &quick, sizeof(quick)));
}

/* The payload of a packet in a buffer of so many bytes. */
__u32 payload(const __u8 *window, __u32 buffer)
{
	const __u8 *l3 = window + WINDOW_BEFORE;
	struct parsed p = {};

	assert(parse_whole(l3, l3 + 100, buffer, &p) == PARSED);
	return p.payload_len;
}

/* An IP packet comes in: what learn() and fill_baseline() of baseline.c do with it. */
int packet(struct state *s, int number, const __u8 *window, int length, const __u8 *mac,
	__u64 now, int ends)
{
	struct rst_flow_key key = {};
	struct rst_frame frame = { .ifindex = 2, .has_mac = 1 };
	struct parsed p;
	struct rst_half *h, *other;
	struct usual u;
	int high, told;

	memset(&p, 0, sizeof(p));
	read(window, length, &p);
	high = make_flow_key(&key, 1, &p.t);
	h = &s->flows[number].half[high];
	other = &s->flows[number].half[!high];
	memcpy(frame.mac, mac, 6);
	if (p.flags & TH_RST) {
		if (s->known[number]) {
			if (ends)
				h->closed = 1;
			watch(h, now, p.seq);
		}
		s->watched[high] = (struct watched){ .ts = now, .t = p.t };
		return 0;
	}
	if (!s->known[number]) { /* a place that was another flow's */
		memset(&s->flows[number], 0xa5, sizeof(s->flows[number]));
		clear_half(h);
		clear_half(other);
	}
	s->known[number] = 1;
	window += WINDOW_BEFORE;
	if (take_usual(&u, window, length) && is_usual(h, other, &u, window, 0)) {
		note_usual(h, &u, 1, now);
		usual_ones++;
		return 0;
	}
	told = learn_packet(h, other, &p, &frame, now);
	if (told & CONFIRMED) {
		learn_peer(&s->peers[high], h);
		if (s->watched[high].ts && adds_to(&s->watched[high], h, &p.t))
			told |= HANDSHAKE;
	}
	return told;
}
"""

TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
LINUX = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 7)]
MD5 = [("NOP", None), ("NOP", None), (19, b"m" * 16), *TIMESTAMPS]


class Step(NamedTuple):
    """One packet (an Ethernet frame) and when it comes; `ends`: a RST that ends the connection."""

    data: bytes
    time_ns: int
    ends: bool = True


class Script:
    """A connection being written: its packets, each a millisecond after the one before."""

    def __init__(self, **options: Any) -> None:
        self.talk = Talk(**options)
        self.now = START_NS
        self.steps: list[Step] = []
        self._left: dict[int, list[int]] = {}

    def wait(self, nanoseconds: int) -> Script:
        """Let time pass."""
        self.now += nanoseconds
        return self

    def put(
        self, side: int, flags: str, data: bytes = b"", ends: bool = True, **fields: Any
    ) -> Script:
        """The next packet of a side; `fields` change it."""
        ttl = fields.pop("ttl", None)
        if ttl is not None:
            fields["hlim" if self.talk.family == 6 else "ttl"] = ttl
        self.now += 1_000_000
        self.steps.append(Step(self.talk.frame(side, flags, data, **fields), self.now, ends))
        return self

    def throw(self, side: int, flags: str, data: bytes = b"", **fields: Any) -> Script:
        """A packet in the name of a side that this side knows nothing of."""
        kept = list(self.talk.numbers), list(self.talk.ids)
        self.put(side, flags, data, **fields)
        self.talk.numbers, self.talk.ids = kept
        return self

    def again(self, back: int = 1, ttl: int | None = None) -> Script:
        """The same packet as some steps ago once more, to the last bit but for its TTL."""
        data = bytearray(self.steps[-back].data)
        if ttl is not None:
            data[14 + (8 if self.talk.family == 4 else 7)] = ttl
        self.now += 1_000_000
        self.steps.append(Step(bytes(data), self.now))
        return self

    def shake(self, ours: Any = LINUX, theirs: Any = LINUX, **fields: Any) -> Script:
        """SYN, SYN-ACK, ACK."""
        self.put(0, "S", options=ours).put(1, "SA", options=theirs, **fields)
        stamped = any(name == "Timestamp" for name, _ in ours)
        both = stamped and any(name == "Timestamp" for name, _ in theirs)
        return self.put(0, "A", options=TIMESTAMPS if both else [])

    def data(self, side: int, count: int = 1, **fields: Any) -> Script:
        """Segments with data and timestamps."""
        for _ in range(count):
            self.put(side, "PA", b"x" * 10, **{"options": TIMESTAMPS, **fields})
        return self

    def new_ports(self, port: int) -> Script:
        """Another connection of the same ends; it begins with numbers of its own."""
        self._left[self.talk.ports[0]] = list(self.talk.numbers)
        self.talk.ports = (port, self.talk.ports[1])
        return self.new_numbers()

    def back_to(self, port: int) -> Script:
        """A connection again that was left for another one."""
        self.talk.ports = (port, self.talk.ports[1])
        self.talk.numbers = self._left[port]
        return self

    def new_numbers(self, off: int = 5_000_000) -> Script:
        """The same ports, another connection."""
        self.talk.numbers = [number + off & 0xFFFFFFFF for number in self.talk.numbers]
        return self


def plain(script: Script) -> Script:
    """Without timestamps."""
    return script.shake([("MSS", 1460)], [("MSS", 1460)])


def wrong_ttl(count: int) -> Callable[[Script], Script]:
    """So many packets with a TTL that is not the handshake's."""
    return lambda s: s.shake().data(1).data(1, count, ttl=50).data(1, 2)


SCRIPTS: dict[str, Callable[[Script], Script]] = {
    "a handshake and data": lambda s: s.shake().data(1, 6).data(0, 2).data(1),
    "a SYN alone": lambda s: s.put(0, "S", options=LINUX),
    "a retransmitted SYN": lambda s: s.put(0, "S", options=LINUX).wait(SECOND).again().again(2),
    "a SYN seen on three devices": lambda s: (
        s.put(0, "S", options=LINUX).again().again().wait(SECOND).again()
    ),
    "a retransmitted SYN from elsewhere": lambda s: (
        s.put(0, "S", options=LINUX).again(ttl=60).again(ttl=60).again(ttl=60).again(ttl=60)
    ),
    "a retransmitted SYN-ACK": lambda s: (
        s.shake().again(2).data(1, 2).again(4).wait(SECOND).again()
    ),
    "SYN options without timestamps": lambda s: plain(s).put(1, "PA", b"x").put(0, "A"),
    "one end without timestamps": lambda s: s.shake(LINUX, [("MSS", 1460)]).put(1, "PA", b"x"),
    "a MSS alone, cut short": lambda s: plain(s).put(1, "PA", b"x", options=[("EOL", None)]),
    "timestamps missing": lambda s: s.shake().data(1).throw(1, "PA", b"evil").data(1),
    "timestamps too many": lambda s: plain(s).data(1).put(1, "A").data(0),
    "timestamps beside a signature": lambda s: s.shake().data(1, 2, options=MD5),
    "timestamps nowhere in many options": lambda s: s.shake().data(1, options=[("NOP", None)] * 24),
    "options that lead nowhere": lambda s: s.shake().data(1, options=[(8, b"1234"), (1, b"")]),
    "a timestamp option of a wrong length": lambda s: (
        s.shake().data(1, options=[(8, b"1234"), *TIMESTAMPS])
    ),
    "a SYN-ACK that acknowledges 1": lambda s: s.shake().throw(1, "SA", seq=5, ack=1).data(1),
    "simultaneous open": lambda s: (
        s.put(0, "S", options=LINUX).put(1, "S", options=LINUX).again(1).data(0).data(1)
    ),
    "data with SYN, fast open": lambda s: (
        s.put(0, "S", b"GET /", options=LINUX).put(1, "SA", options=LINUX).data(1).data(0)
    ),
    "a second SYN into a live flow": lambda s: (
        s.shake().data(1).throw(1, "S", seq=77, ttl=50, options=LINUX).data(1).data(0)
    ),
    "two new SYNs, the newest is kept": lambda s: (
        s.shake().throw(0, "S", seq=77, ttl=50).throw(0, "S", seq=78, ttl=51, options=LINUX).data(1)
    ),
    "a new SYN that the other end takes": lambda s: (
        s.shake().data(1).new_numbers().put(0, "S", options=LINUX, ttl=63)
        .put(1, "SA", options=LINUX).put(0, "A", options=TIMESTAMPS, ttl=63).data(1, 2)
    ),
    "a new SYN and a SYN-ACK for another": lambda s: (
        s.shake().data(1).throw(0, "S", seq=77, options=LINUX).throw(1, "SA", seq=5, ack=99).data(1)
    ),
    "a new SYN after quiet": lambda s: (
        s.shake().data(1).wait(IDLE_REUSE_NS + SECOND).new_numbers().put(0, "S").data(1)
    ),
    "a new SYN just before quiet": lambda s: (
        s.shake().data(1).wait(IDLE_REUSE_NS - 2_000_000).new_numbers().put(0, "S").data(1)
    ),
    "a new SYN after a FIN": lambda s: (
        s.shake().put(1, "FA", options=TIMESTAMPS).data(0).new_numbers().shake().data(1)
    ),
    "a FIN that does not fit": lambda s: (
        s.shake().throw(1, "FA", seq=77, options=TIMESTAMPS).throw(0, "S", seq=7).data(1)
    ),
    "two FINs": lambda s: s.shake().put(1, "FA", options=TIMESTAMPS).again().put(
        0, "FA", options=TIMESTAMPS
    ),
    "a SYN-ACK that acknowledges nothing": lambda s: (
        s.put(0, "S", options=LINUX).throw(1, "SA", seq=5, ack=999, ttl=60).put(
            1, "SA", options=LINUX).put(0, "A", options=TIMESTAMPS).data(1)
    ),
    "a second SYN-ACK": lambda s: s.shake().throw(1, "SA", seq=5, options=LINUX).data(1),
    "a SYN-ACK alone": lambda s: s.put(1, "SA", options=LINUX).data(0).data(1),
    "blind data": lambda s: (
        s.shake().data(1).throw(1, "PA", b"evil", seq=99, ack=99, options=TIMESTAMPS).data(1)
    ),
    "blind data with a number that fits": lambda s: (
        s.shake().data(1).throw(1, "PA", b"evil", ack=99, options=TIMESTAMPS).data(1)
    ),
    "data first, a blind SYN later": lambda s: (
        s.data(0).data(1).throw(1, "S", seq=1 << 31, ttl=50).throw(1, "S", seq=5, ttl=50).data(1)
    ),
    "data first, a SYN-ACK that was overtaken": lambda s: (
        s.put(0, "S", options=LINUX).data(1).throw(
            1, "SA", seq=4_294_967_000 - 1, ack=1_000_001, options=LINUX).data(1).data(0)
    ),
    "data alone": lambda s: s.data(1, 3),
    **{f"data with a wrong TTL, {count} times": wrong_ttl(count) for count in range(1, 7)},
    "TTLs of two ways": lambda s: s.shake().data(1, 4, ttl=50).data(1).data(1, 2, ttl=50).data(1),
    "five TTLs": lambda s: (
        s.shake().data(1, 2, ttl=50).data(1, ttl=51).data(1, 3, ttl=52).data(1, ttl=53)
        .data(1, ttl=54).data(1).data(1, ttl=51)
    ),
    "five TTLs of strangers": lambda s: [
        s.shake(),
        *(s.throw(1, "PA", b"evil", seq=99, ttl=60 + n, options=TIMESTAMPS) for n in range(6)),
        s.data(1, ttl=65),
    ][-1],
    "a connection whose middle was not seen": lambda s: (
        s.shake().data(1).new_numbers(1 << 26).data(1).data(0).data(1).data(0)
    ),
    "a gap of one direction": lambda s: (
        s.shake().throw(0, "A", ack=1 << 25, options=TIMESTAMPS).data(1).data(0)
    ),
    "more in flight than is near": lambda s: [
        s.shake(),
        *(s.data(1, seq=4_294_967_001 + n * (1 << 23)) for n in range(8)),
        s.put(0, "A", ack=4_294_967_001 + (1 << 25) & 0xFFFFFFFF, options=TIMESTAMPS),
        s.put(1, "PA", b"y", seq=4_294_967_001 + (1 << 25), options=TIMESTAMPS),
    ][-1],
    "numbers that wrap": lambda s: s.shake().data(1, 40).data(0).data(1, 3).again(2),
    "late packets": lambda s: s.shake().data(1).put(1, "R").data(1).put(1, "A").data(1, 6),
    "late packets that do not fit": lambda s: (
        s.shake().data(1).put(1, "R").throw(1, "PA", b"evil", seq=99).data(1)
    ),
    "a late SYN-ACK seen before": lambda s: s.shake().put(1, "R", ends=False).again(3).data(1),
    "a late SYN-ACK not seen before": lambda s: (
        s.shake().put(1, "R", ends=False).throw(1, "SA", seq=5, options=LINUX).data(1)
    ),
    "a SYN refused, then accepted": lambda s: (
        s.put(0, "S", options=LINUX).put(1, "RA", seq=0).again(2).put(1, "SA", options=LINUX)
    ),
    "a SYN refused, then another": lambda s: (
        s.put(0, "S", options=LINUX).put(1, "RA", seq=0).new_numbers().shake().data(1)
    ),
    "two RSTs, the second soon": lambda s: (
        s.shake().put(1, "R").data(1).wait(SECOND).put(1, "R").data(1).data(1)
    ),
    "two RSTs, the second late": lambda s: (
        s.shake().put(1, "R", ends=False).data(1).wait(LATE_FOR_NS).put(1, "R", ends=False).data(1)
    ),
    "a packet too late": lambda s: (
        s.shake().put(1, "R", ends=False).wait(LATE_FOR_NS).data(1)
    ),
    "packets out of order of time": lambda s: (
        s.shake().data(1).wait(-3_000_000).data(1).put(1, "R", ends=False).wait(-2_000_000).data(1)
    ),
    "TOS and no DF": lambda s: (
        s.shake().data(1, tos=0x10, flags_ip=0) if s.talk.family == 4 else s.shake().data(1)
    ),
    "another connection": lambda s: s.shake().data(1).new_ports(1000).shake().data(1),
    "more TTLs of a peer than are kept": lambda s: [
        s.new_ports(1000 + number).shake(ttl=40 + number * 3 % 10) for number in range(12)
    ][-1],
    "a peer whose TTL goes there and back": lambda s: [
        s.new_ports(1000 + number).shake(ttl=ttl) for number, ttl in enumerate((47, 47, 50, 47))
    ][-1],
    "later handshakes of a reset peer": lambda s: [
        s.shake().put(1, "R"),
        *(s.new_ports(1000 + n).shake(ttl=ttl) for n, ttl in enumerate((47, 47, 50, 51))),
    ][-1],
    "a handshake begun before the reset": lambda s: (
        s.put(1, "S", options=LINUX, ttl=50).new_ports(1000).shake().put(1, "R").back_to(51234)
        .put(0, "SA", options=LINUX).put(1, "A", options=TIMESTAMPS, ttl=50)
    ),
    "a client's later handshake": lambda s: (
        s.shake().put(1, "R").new_ports(1000).put(1, "S", options=LINUX)
        .put(0, "SA", options=LINUX).put(1, "A", options=TIMESTAMPS)
    ),
    "a later handshake on the same ports": lambda s: s.shake().put(1, "R").new_numbers().shake(),
    "a later SYN that nobody confirms": lambda s: (
        s.shake().put(1, "R").new_ports(1000).put(1, "S", options=LINUX)
    ),
}  # fmt: skip
"""By what they are about; each for IPv4 and IPv6."""


class Known(NamedTuple):
    """What is known of a flow and of its two ends."""

    halves: list[Half | None]
    peers: list[tuple[Peer | None, Half | None]]
    closed: list[bool]


class Kernel:
    """flow.h, and the state that its maps would hold."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._state = ctypes.create_string_buffer(library.state_size())
        self._flows: list[frozenset[bytes]] = []
        self._number = 0

    def packet(self, step: Step) -> int:
        """What it says of a packet."""
        ports = segment(step).key[-4:]
        flow = frozenset((ports[:2], ports[2:]))
        if flow not in self._flows:
            self._flows.append(flow)
        self._number = self._flows.index(flow)
        window = (b"\0\0" + step.data).ljust(256, b"\0")  # WINDOW_BEFORE: two more than Ethernet
        return int(
            self._library.packet(
                self._state,
                self._number,
                window,
                len(step.data) - 14,
                step.data[6:12],
                ctypes.c_uint64(step.time_ns),
                int(step.ends),
            )
        )

    def known(self, family: int) -> Known:
        """What it knows of the newest packet's flow and of its ends, the low end's first."""
        context = Context(0, {})
        size = ctypes.sizeof(layout.structures().rst_flow)
        halves = list(self._raw("rst_flow", self._number * size, 1)[0].half)
        peers = []
        for raw in self._raw("rst_peer", 16 * size, 2):
            peer = decode.peer(raw, family, context)
            peers.append((peer, decode.peer_half(raw, family, context) if peer else None))
        return Known(
            [decode.half(half, family, context, 1 << 63) for half in halves],
            peers,
            [bool(half.closed) for half in halves],
        )

    def _raw(self, name: str, at: int, count: int) -> list[Any]:
        structure = getattr(layout.structures(), name)
        return [
            structure.from_buffer_copy(self._state.raw, start)
            for start in range(at, at + count * ctypes.sizeof(structure), ctypes.sizeof(structure))
        ]


class Noting(Flows):
    """Tells whether the newest packet confirmed a handshake."""

    confirmed = False

    def _learn_peer(self, segment: Segment, direction: Direction) -> None:
        self.confirmed = True
        super()._learn_peer(segment, direction)


class Captured:
    """rsttrace/capture/flows.py, as the source drives it."""

    def __init__(self) -> None:
        self._flows = Noting(16)
        self.told: list[LatePacket] = []
        self.usual = 0
        """Packets that were dealt with as such."""

    def packet(self, step: Step) -> int:
        """What it says of a packet, in the kernel's words."""
        flows, found = self._flows, segment(step)
        if found.flags & RST:
            direction = flows.find(found)
            if direction is not None and step.ends:
                direction.closed = True
            flows.watch(found)
            return 0
        flows.confirmed = False
        key = plain_key(ETHERNET, step.data)
        if key is not None and flows.take_usual(key, step.data, found.interface, step.time_ns):
            self.usual += 1
        else:
            flows.learn(found)
        if flows.met is not None:
            self.told.append(flows.met)
        return LATE * flows.late | CONFIRMED * flows.confirmed | HANDSHAKE * (flows.met is not None)

    def known(self, step: Step) -> Known:
        """As `Kernel.known`."""
        flows, found = self._flows, segment(step)
        direction = flows.find(found)
        low_first = found.source + found.key[-4:-2] <= found.destination + found.key[-2:]
        senders = [found.source, found.destination]
        peers = [flows._peers.get(sender) for sender in (senders if low_first else senders[::-1])]
        ends: list[Direction | None] = [None, None]
        if direction is not None:
            ends = [direction, direction.other] if low_first else [direction.other, direction]
        return Known(
            [live(end.half()) if end is not None else None for end in ends],
            [(known.peer, known.half) if known else (None, None) for known in peers],
            [end is not None and end.closed for end in ends],
        )


def segment(step: Step) -> Segment:
    """As the reader gives it, on an interface with a number."""
    found = Dissector().segment(ETHERNET, step.data, len(step.data))
    assert found is not None
    found.time_ns, found.interface = step.time_ns, 2
    return found


def live(half: Half | None) -> Half | None:
    """Without what only a capture can tell."""
    return (
        None if half is None else dataclasses.replace(half, checksums_wrong=None, confirmed_ns=None)
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = build(tmp_path_factory.mktemp("flow"), HARNESS, "-shared", "-fPIC", "-O1")
    loaded = ctypes.CDLL(str(made))
    loaded.state_size.restype = ctypes.c_size_t
    return loaded


def compare(kernel: Kernel, captured: Captured, steps: list[Step], family: int) -> None:
    """Give packets to both; what each says and then knows must be the same, after every packet."""
    for number, step in enumerate(steps):
        says = kernel.packet(step)
        assert says == captured.packet(step), f"packet {number}"
        mine, theirs = kernel.known(family), captured.known(step)
        for name in Known._fields:
            assert getattr(mine, name) == getattr(theirs, name), f"packet {number}: {name}"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", SCRIPTS)
def test_both_learn_the_same(library: Any, name: str, family: int) -> None:
    script = SCRIPTS[name](Script(family=family))
    compare(Kernel(library), Captured(), script.steps, family)


@pytest.mark.parametrize("seed", range(200))
def test_both_learn_the_same_of_anything(library: Any, seed: int) -> None:
    """Packets drawn at random, many of them nearly right."""
    chance = random.Random(seed)
    script = Script(family=chance.choice((4, 6)))
    for _ in range(60):
        side = chance.randrange(2)
        numbers = script.talk.numbers
        fields: dict[str, Any] = {
            "options": chance.choice((TIMESTAMPS, TIMESTAMPS, TIMESTAMPS, [], LINUX, MD5)),
            "ttl": chance.choice((None, None, None, None, 50, 51, chance.randrange(1, 256))),
        }
        if not chance.randrange(4):
            off = chance.choice((1, -1, 1 << 24, 1 << 25, -(1 << 24), -(1 << 25), 1 << 31))
            fields["seq"] = numbers[side] + off
        if not chance.randrange(4):
            off = chance.choice((1, -1, 1 << 24, 1 << 25, -(1 << 24), -(1 << 25), 1 << 31))
            fields["ack"] = numbers[1 - side] + off & 0xFFFFFFFF
        flags = chance.choice(("PA", "PA", "A", "A", "A", "S", "SA", "SA", "FA", "R", "RA"))
        data = chance.choice((b"", b"x", b"x" * 100)) if "P" in flags else b""
        put = chance.choice((script.put, script.put, script.throw))
        put(side, flags, data, ends=bool(chance.randrange(2)), **fields)
        if not chance.randrange(10):
            script.again(chance.randrange(1, min(9, len(script.steps)) + 1))
        if not chance.randrange(25):
            script.wait(chance.choice((SECOND, LATE_FOR_NS, IDLE_REUSE_NS + SECOND)))
        if not chance.randrange(25):
            script.new_numbers(chance.choice((1 << 20, 1 << 26, 1 << 31)))
        if not chance.randrange(25):
            script.new_ports(chance.choice((1000, 2000, 51234)))
    compare(Kernel(library), Captured(), script.steps, script.talk.family)


@pytest.mark.parametrize("seed", range(20))
def test_both_learn_the_same_of_the_usual_packet(library: Any, seed: int) -> None:
    """Connections of which nearly every packet is as the one before it."""
    chance = random.Random(seed)
    script = Script(family=chance.choice((4, 6)))
    stamped = bool(chance.randrange(3))
    script = script.shake() if stamped else plain(script)
    usual, off = TIMESTAMPS if stamped else [], (-100, 1 << 20, 1 << 25)
    for number in range(80):
        side = chance.randrange(2)
        flags, fields = chance.choice(("PA", "A")), dict[str, Any](options=usual)
        if not chance.randrange(12):
            numbers, ipv4 = script.talk.numbers, script.talk.family == 4
            changes: list[dict[str, Any]] = [
                {"ttl": 50},
                {"options": [] if stamped else TIMESTAMPS},
                {"options": LINUX[2:4] if stamped else [("NOP", None)] * 4},
                {"seq": numbers[side] + chance.choice(off) & 0xFFFFFFFF},
                {"ack": numbers[1 - side] + chance.choice(off) & 0xFFFFFFFF},
                {"window": number},
                {"flags_ip": 0} if ipv4 else {},
                {"tos": number} if ipv4 else {},
            ]
            fields.update(chance.choice(changes))
        if not chance.randrange(50):
            flags = chance.choice(("FA", "S", "SA", "PAU", "PAE", "R"))
        script.put(side, flags, b"x" * chance.choice((0, 1, 600)), ends=False, **fields)
        if not chance.randrange(20):  # another neighbour hands it over
            last = script.steps.pop()
            script.steps.append(last._replace(data=last.data[:11] + b"\x77" + last.data[12:]))
        if not chance.randrange(20):
            script.wait(chance.choice((-3_000_000, SECOND)))
    before = library.usual_count()
    compare(Kernel(library), Captured(), script.steps, script.talk.family)
    assert library.usual_count() > before


def test_the_usual_packet_is_among_them(library: Any) -> None:
    """Else what is compared above is the long way only."""
    for family in (4, 6):
        before, captured = library.usual_count(), Captured()
        script = Script(family=family).shake().data(1, 3).data(0, 2)
        compare(Kernel(library), captured, script.steps, family)
        assert library.usual_count() - before == 5  # all after the handshake
        assert captured.usual == (5 if family == 4 else 0)


@pytest.mark.parametrize(
    ("says", "buffer", "payload"),
    [
        (1, 60, 1),
        (1, 100_000, 1),
        (0, 100_000, 100_000),
        (0, 60, 0),
        (0, 0xFFFF - 40, 0),
    ],
    ids=["said", "said of a long buffer", "too long to be said", "wrong", "as long as can be said"],
)
@pytest.mark.parametrize("family", [4, 6])
def test_how_much_a_packet_holds(
    family: int, says: int, buffer: int, payload: int, library: Any
) -> None:
    """`says`: bytes of payload by the IP header, 0 where that has no length at all."""
    headers = 40 if family == 4 else 60
    if family == 4:
        ip = ipv4_bytes(length=says and says + headers)
    else:
        ip = ipv6_bytes(payload=says and says + 20)
    window = bytes(16) + ip + tcp_bytes("A") + bytes(64)  # WINDOW_BEFORE
    assert library.payload(window, buffer + headers) == payload
