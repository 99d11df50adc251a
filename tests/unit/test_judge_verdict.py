"""Verdicts: honest resets of every stack, forgers, traps, proofs, and what is true of all."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from rsttrace.judge import fingerprints
from rsttrace.judge.authors import (
    FORGED_FROM,
    PEER_FROM,
    PRIOR_OF,
    PRIORS,
    ROWS,
    TABLE,
    Model,
    factors,
    peer_share,
)
from rsttrace.judge.facts import MANY_PACKETS
from rsttrace.judge.verdict import (
    CERTAIN,
    CERTAIN_PEER,
    LOG_WEIGHT,
    PROOF_SCORE,
    decide,
    judge,
    logit,
    other_end,
    reconsider,
    summary,
)
from rsttrace.model import (
    Author,
    Baseline,
    Cause,
    Endpoint,
    Fate,
    Frame,
    Half,
    Kind,
    MadeHere,
    NextHop,
    Origin,
    Other,
    OtherEnd,
    Packet,
    Point,
    Probed,
    Reset,
    Scope,
    Seen,
    Share,
    TtlCount,
    Verdict,
)
from tests.unit import builders as b
from tests.unit.builders import (
    BACKUP,
    GATEWAY,
    LINUX_SYN,
    MAC,
    MS,
    ON_LINK,
    OTHER_MAC,
    SECOND,
    THIRD_MAC,
    changed,
    closed,
    flow,
    half,
    handshake,
    idle,
    lone_syn,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
)

STAMPS = "nop,nop,TS val 1 ecr 2"


def accusing(given: Reset) -> set[str]:
    """The observations that speak strongly against the peer: 9 to 1 and more."""
    return {found.rule for found in judge(given).evidence if found.weight > math.log(9)}


def likeliest(given: Reset) -> Author:
    """The author that the verdict names first."""
    return judge(given).authors[0].author


# ---- honest resets (what each stack really sends) ----

LINUX_BEHIND_17 = steady(
    47, timestamps=True, recent=tuple(seen(ip_id=i) for i in (23403, 23402, 23400))
)
WINDOWS_BEHIND_17 = steady(111)
IPV6_BEHIND_17 = steady(47, timestamps=True, df_always=False)
REFUSED = seen(flags="S", seq=4999, ack=0, ip_id=13051, ttl=64, payload_len=0)

LIVE: dict[str, tuple[Packet, Half]] = {
    "Linux, live": (
        rst(flags="RA", ip_id=23404, window=509, options=STAMPS, length=52),
        LINUX_BEHIND_17,
    ),
    "Linux, live, some packets later": (
        rst(flags="RA", ip_id=23410, window=509, options=STAMPS, length=52),
        LINUX_BEHIND_17,
    ),
    "Linux, live, no timestamps agreed": (rst(flags="RA", ip_id=23404, window=508), steady(47)),
    "Linux, live, another window": (rst(flags="RA", ip_id=23404, window=123), steady(47)),
    "Windows": (rst(ttl=111, ip_id=23404, ack=5000), WINDOWS_BEHIND_17),
    "Windows, live": (rst(ttl=111, flags="RA", ip_id=23404, ack=5000), WINDOWS_BEHIND_17),
    "Windows, many connections": (rst(ttl=111, ip_id=24000), WINDOWS_BEHIND_17),
    "IPv6, live": (rst6(flags="RA", window=509, options=STAMPS), IPV6_BEHIND_17),
    "no DF anywhere": (rst(df=False, ip_id=50000), steady(47, df_always=False)),
}
"""What a live socket may send at any time."""

NO_SOCKET: dict[str, tuple[Packet, Half]] = {
    "Linux, no socket": (rst(ip_id=0), LINUX_BEHIND_17),
    "Linux, answer without ACK": (rst(ip_id=0, flags="RA", seq=0, ack=5000), LINUX_BEHIND_17),
    "old Linux, a counter": (rst(ip_id=777), LINUX_BEHIND_17),
    "IPv6, no socket": (rst6(), IPV6_BEHIND_17),
    "IPv6, refused": (rst6(flags="RA", seq=0, ack=5000), steady(47, df_always=False)),
}
"""What a host sends that has no such socket: honest once the peer had closed."""

GENUINE = {**LIVE, **NO_SOCKET}


def honest(name: str) -> Reset:
    """An honest reset in the situation in which its stack sends it."""
    packet, theirs = GENUINE[name]
    given = flow(packet, theirs=theirs, mac=MAC, next_hop=GATEWAY)
    return given if name in LIVE else closed(given)


@pytest.mark.parametrize("name", GENUINE)
def test_honest_resets_are_the_peers(name: str) -> None:
    found = judge(honest(name))
    assert accusing(honest(name)) == set()
    assert found.origin is Origin.PEER
    assert found.confidence is not None
    assert found.confidence >= 0.9
    assert found.authors[0].author in (Author.PEER_SOCKET, Author.PEER_HOST)


@pytest.mark.parametrize("name", [name for name in NO_SOCKET if name.startswith("Linux")])
def test_no_socket_in_the_middle_of_a_live_connection_is_open(name: str) -> None:
    """The socket that we talked to did not say that. Its host lost it, or its firewall, another
    backend, a second host or a REJECT rule beside it answered."""
    packet, theirs = NO_SOCKET[name]
    found = judge(flow(packet, theirs=theirs, mac=MAC, next_hop=GATEWAY))
    assert found.origin is Origin.INCONCLUSIVE
    assert {Author.REJECT, Author.PEER_FIREWALL} <= {share.author for share in found.authors[:5]}


@pytest.mark.parametrize("name", NO_SOCKET)
@pytest.mark.parametrize("history", ["closed", "idle", "restarted", "refused"])
def test_no_socket_where_it_is_ordinary(name: str, history: str) -> None:
    packet, theirs = NO_SOCKET[name]
    given = flow(packet, theirs=theirs, mac=MAC, next_hop=GATEWAY)
    if history == "closed":
        given = closed(given)
    elif history == "idle":
        given = idle(given, 3600)
    elif history == "restarted":
        ours = our_half(
            recent=tuple(
                seen(ttl=64, seq=5000, ack=1000, time_ns=b.TIME - ago * MS) for ago in (1, 600, 900)
            )
        )
        given = b.with_baseline(given, ours=ours)
        theirs = dataclasses.replace(theirs, last_ns=b.TIME - 2 * SECOND)
        given = b.with_baseline(given, theirs=theirs)
    else:
        given = reset(
            packet, theirs=theirs, scope=Scope.PEER, ours=our_half(recent=(REFUSED,), packets=1)
        )
    assert judge(given).origin is not Origin.FORGED


def test_an_ack_number_without_the_flag_is_no_linux() -> None:
    """Was PEER; tcp_v4_send_reset() and nf_send_reset() leave the field 0."""
    found = judge(closed(flow(rst(ip_id=0, ack=5117), theirs=LINUX_BEHIND_17)))
    assert found.origin is not Origin.PEER


def with_rst(**values: Any) -> Callable[[Reset], Reset]:
    def change(given: Reset) -> Reset:
        return changed(given, rst=dataclasses.replace(given.rst, **values))

    return change


def with_mac(mac: str, next_hop: NextHop) -> Callable[[Reset], Reset]:
    def change(given: Reset) -> Reset:
        return changed(given, frame=Frame(1, 2, mac, given.rst.ttl), next_hop=next_hop)

    return change


def our_window(given: Reset) -> Reset:
    return with_rst(window=501)(given)


def hop(delta: int) -> Callable[[Reset], Reset]:
    def change(given: Reset) -> Reset:
        return with_rst(ttl=given.rst.ttl + delta)(given)

    return change


def hop_after_the_handshake(delta: int) -> Callable[[Reset], Reset]:
    """Rerouted, where nothing but the handshake is there to compare with."""

    def change(given: Reset) -> Reset:
        theirs = given.baseline.theirs
        assert theirs is not None
        return b.with_baseline(hop(delta)(given), theirs=dataclasses.replace(theirs, packets=2))

    return change


def no_df(given: Reset) -> Reset:
    return given if given.rst.df is None else with_rst(df=False)(given)


def poisoned(given: Reset) -> Reset:
    """No handshake seen, and the one packet that was came from somebody else, 13 hops nearer."""
    theirs = given.baseline.theirs
    assert theirs is not None
    injected = dataclasses.replace(
        theirs,
        syn_ttl=None,
        syn_window=None,
        syn_ns=None,
        ttl=60,
        ttl_min=60,
        ttl_max=60,
        packets=1,
    )
    return changed(given, baseline=Baseline(Scope.FLOW, injected, given.baseline.ours))


CLUES: dict[str, Callable[[Reset], Reset]] = {
    "rerouted, one hop more": hop(-1),
    "rerouted, three hops more": hop(-3),
    "rerouted, two hops less, few packets": hop_after_the_handshake(2),
    "another gateway": with_mac(OTHER_MAC, BACKUP),
    "an unknown gateway": with_mac(THIRD_MAC, BACKUP),
    "our window": our_window,
    "DF cleared on the way": no_df,
    "an AccECN bit": with_rst(reserved=1),
    "reserved bits": with_rst(reserved=4),
    "a wrong checksum": with_rst(tcp_checksum_ok=False),
    "only one packet seen, from elsewhere": poisoned,
}


NOT_WEAK = ("our window", "DF cleared on the way")
"""Against a Linux peer, which sends no window without ACK, and DF always (ip_output.c)."""


@pytest.mark.parametrize(
    ("name", "clue"),
    [
        (name, clue)
        for name in GENUINE
        for clue in CLUES
        if not (name.startswith(("Linux", "old Linux")) and clue in NOT_WEAK)
    ],
)
def test_one_weak_clue_accuses_nobody(name: str, clue: str) -> None:
    assert judge(CLUES[clue](honest(name))).origin is not Origin.FORGED


@pytest.mark.parametrize("name", GENUINE)
def test_a_payload_is_no_weak_clue(name: str) -> None:
    """Was a clue that accuses nobody: no stack sends the application's bytes in a RST."""
    given = changed(with_rst(payload_len=9)(honest(name)), payload=b"\x16\x03\x01" + bytes(6))
    found = judge(given)
    assert found.origin is not Origin.PEER
    assert "payload" in {evidence.rule for evidence in found.evidence}


@pytest.mark.parametrize("name", GENUINE)
def test_honest_shapes_without_a_baseline_are_left_open(name: str) -> None:
    packet, _ = GENUINE[name]
    found = judge(reset(packet, mac=MAC, next_hop=GATEWAY))
    assert found.origin is Origin.INCONCLUSIVE
    assert found.confidence is None


@pytest.mark.parametrize("name", GENUINE)
def test_honest_shapes_against_the_peers_last_handshake(name: str) -> None:
    packet, theirs = GENUINE[name]
    given = reset(packet, theirs=theirs, scope=Scope.PEER, mac=MAC, next_hop=GATEWAY)
    assert accusing(given) == set()
    assert judge(given).origin in (Origin.PEER, Origin.INCONCLUSIVE)


def test_window_id_and_timestamps_that_are_missing_do_not_accuse() -> None:
    """What others take for forgery: window 0, IP ID 0, no timestamps, seq 0."""
    for flags, seq, ack in (("R", 1000, 0), ("RA", 0, 5000)):
        packet = rst(ip_id=0, window=0, flags=flags, seq=seq, ack=ack)
        for theirs in (LINUX_BEHIND_17, steady(47), None):
            given = reset(packet, theirs=theirs, ours=our_half())
            given = closed(given) if theirs is not None else given
            assert accusing(given) == set()


# ---- forged resets ----

INCIDENT = rst(ttl=63, ip_id=13052)


def test_the_classic_incident() -> None:
    found = judge(flow(INCIDENT))
    assert found.origin is Origin.FORGED
    assert found.confidence is not None
    assert found.confidence >= 0.95
    assert {evidence.rule for evidence in found.evidence[:2]} == {"ip-id-ours", "ttl-nearer"}
    assert (found.hops_rst, found.hops_peer) == (1, 17)
    assert found.authors[0].author is Author.MIRROR


def test_the_incident_behind_the_same_gateway() -> None:
    found = judge(flow(INCIDENT, mac=MAC, next_hop=GATEWAY))
    assert found.origin is Origin.FORGED


def test_the_incident_by_its_hops_alone() -> None:
    assert judge(flow(rst(ttl=63))).origin is Origin.FORGED


def test_the_incident_by_its_ip_id_alone() -> None:
    """One of 8,000 honest IDs is ours by chance."""
    given = flow(rst(ip_id=13052), theirs=half(ttl=None, syn_ttl=None))
    assert judge(given).origin is Origin.FORGED


def test_the_server_s_side_of_the_mirrored_reset() -> None:
    """Our ID in a RST that came from as far away as the peer: never the peer."""
    assert judge(flow(rst(ip_id=13052))).origin is not Origin.PEER
    assert judge(flow(rst(ip_id=13052, window=501))).origin is Origin.FORGED


def test_the_duplicate_address_over_a_line() -> None:
    """RST TTL 62 where every packet came with 61 (173 of them), in a busy connection."""
    given = flow(rst(ttl=62, ip_id=0), theirs=steady(61, packets=173))
    found = judge(given)
    assert found.origin is Origin.FORGED
    assert (found.hops_rst, found.hops_peer) == (2, 3)


def test_reject_before_nat() -> None:
    """173 packets with TTL 62, then R with ID 0 and TTL 64, 80 µs after our data: not the peer."""
    data = dataclasses.replace(b.OUR_DATA, time_ns=b.TIME - 80_000)
    given = flow(
        rst(ttl=64, ip_id=0), theirs=steady(62, packets=173), ours=our_half(recent=(data,))
    )
    found = judge(given)
    assert found.origin is Origin.FORGED
    assert {share.author for share in found.authors[:2]} == {Author.REJECT, Author.BALANCER}


def test_a_live_socket_after_a_reroute() -> None:
    """RA, ID and timestamps go on, one hop farther than before: the peer."""
    packet = rst(ttl=46, flags="RA", ip_id=23404, window=509, options=STAMPS)
    assert judge(flow(packet, theirs=LINUX_BEHIND_17)).origin is Origin.PEER


def test_the_gateway_answers_for_a_routed_peer() -> None:
    """An undiminished TTL decides also on first contact, and where the peer's packets come to us
    directly (asymmetric routing)."""
    refusal = rst(ttl=64, ip_id=0, flags="RA", seq=0, ack=5000)
    first = reset(refusal, mac=MAC, next_hop=GATEWAY)
    direct = flow(rst(ttl=64, ip_id=0), theirs=half(mac=OTHER_MAC), mac=MAC, next_hop=GATEWAY)
    for given in (first, direct):
        assert judge(given).origin is Origin.FORGED


FORGERS: dict[str, Packet] = {
    "mirrors our ID and window": rst(ttl=57, ip_id=13052, window=501),
    "mirrors our ID + 1": rst(ttl=57, ip_id=13053),
    "tcpkill": rst(ttl=60, ip_id=31000, df=False),
    "tcpkill, random ID 0": rst(ttl=60, ip_id=0, df=False),
    "Suricata": rst(ttl=62, ip_id=0, df=False, window=501, flags="RA", seq=1000, ack=5117),
    "Suricata, random ID": rst(ttl=62, ip_id=777, df=False, window=501, flags="RA"),
    "GFW": rst(ttl=100, ip_id=4660, df=False, flags="RA"),
    "Sandvine": rst(ttl=60, ip_id=0x3412, df=False, window=32120, flags="RA"),
    "nft REJECT": rst(ttl=63, ip_id=0),
    "nft REJECT of a SYN-ACK": rst(ttl=63, ip_id=0, flags="RA", seq=0, ack=5117),
    "nft REJECT, 1 hop before the peer": rst(ttl=48, ip_id=0),
    "DPVS": rst(ttl=62, ip_id=0),
    "an IPv6 firewall": rst6(ttl=63),
    "IPv6, our window": rst6(ttl=63, window=501, flags="RA"),
}


@pytest.mark.parametrize("name", FORGERS)
def test_forgers_at_another_distance(name: str) -> None:
    packet = FORGERS[name]
    found = judge(flow(packet, theirs=half(timestamps=True, df_always=packet.family == 4)))
    assert found.origin is Origin.FORGED
    assert found.confidence is not None
    assert found.confidence >= 0.95
    assert not found.authors[0].author.is_peer


@pytest.mark.parametrize("name", FORGERS)
def test_the_same_without_a_baseline_is_not_decided(name: str) -> None:
    found = judge(reset(FORGERS[name]))
    assert found.origin is Origin.INCONCLUSIVE
    assert found.confidence is None
    assert found.hops_peer is None


@pytest.mark.parametrize("name", [name for name in FORGERS if "nft" in name or name == "DPVS"])
@pytest.mark.parametrize("nearer", [2, 3, 16])
def test_nearer_than_another_handshake_of_the_peer_is_forged(name: str, nearer: int) -> None:
    packet = dataclasses.replace(FORGERS[name], ttl=47 + nearer)
    found = judge(reset(packet, theirs=half(packets=1), scope=Scope.PEER))
    assert found.origin is Origin.FORGED


@pytest.mark.parametrize("name", [name for name in FORGERS if "nft" in name or name == "DPVS"])
@pytest.mark.parametrize("nearer", [-2, -1, 1])
def test_a_hop_from_another_handshake_of_the_peer_is_not_enough(name: str, nearer: int) -> None:
    """The ways of two connections may differ by a router; what is farther is no firewall."""
    packet = dataclasses.replace(FORGERS[name], ttl=47 + nearer)
    found = judge(reset(packet, theirs=half(packets=1), scope=Scope.PEER))
    assert found.origin is Origin.INCONCLUSIVE


def test_an_id_of_ours_with_the_peers_last_handshake_is_enough() -> None:
    found = judge(flow(INCIDENT, theirs=half(packets=1), scope=Scope.PEER))
    assert found.origin is Origin.FORGED


@pytest.mark.parametrize(
    "packet",
    [
        rst(ip_id=23404, df=False, window=509, payload_len=100, flags="R"),
        rst(ip_id=23404, window=509, payload_len=100, flags="RA", options=STAMPS),
        rst(ip_id=23404, window=509, flags="RA", reserved=4, options=STAMPS),
    ],
)
def test_an_in_place_swap_is_not_called_honest(packet: Packet) -> None:
    """The replaced packet's own ID, TTL and window: what else it left behind speaks against it."""
    assert judge(flow(packet, theirs=LINUX_BEHIND_17)).origin is not Origin.PEER


def test_a_swapped_answer_that_kept_its_payload_is_found() -> None:
    packet = rst(ip_id=23404, window=509, payload_len=100, flags="RA", options=STAMPS)
    found = judge(flow(packet, theirs=LINUX_BEHIND_17, payload=bytes(100)))
    assert found.origin is Origin.FORGED
    assert found.authors[0].author is Author.SWAP


def test_what_was_cut_off_may_be_a_reason_in_words() -> None:
    """A capture of headers alone does not show it: then it is no proof of a swapped answer."""
    packet = rst(ip_id=23404, window=509, payload_len=100, flags="RA", options=STAMPS)
    found = judge(flow(packet, theirs=LINUX_BEHIND_17))
    assert found.origin is not Origin.PEER
    assert "payload-unseen" in {item.rule for item in found.evidence}


def test_a_swapped_retransmission_is_found() -> None:
    """The same sequence number after 0.2 s and 0.4 s, with the IP ID counting on."""
    packet = rst(ip_id=23404, window=509, flags="RA", options=STAMPS)
    again = tuple(
        b.earlier_rst(
            flags="RA", ip_id=23405 + n, window=509, options=STAMPS, time_ns=b.TIME + ms * MS
        )
        for n, ms in enumerate((210, 620))
    )
    found = judge(b.among(flow(packet, theirs=LINUX_BEHIND_17), later=again))
    assert found.origin is Origin.FORGED
    assert found.authors[0].author is Author.SWAP


def test_an_arp_spoofer_on_the_link() -> None:
    """tcpkill beside us, in front of a peer on our link: no hops tell, the MAC does."""
    known = steady(64, recent=(seen(ttl=64),))
    packet = rst(ttl=64, ip_id=31000, df=False, window=501)
    found = judge(flow(packet, theirs=known, mac=OTHER_MAC, next_hop=ON_LINK))
    assert found.origin is not Origin.PEER
    assert accusing(flow(packet, theirs=known, mac=OTHER_MAC)) >= {"mac-another", "df-lost"}


def test_a_stack_that_cannot_have_made_it_is_not_saved_by_an_equal_ttl() -> None:
    """Was cancelled by "TTL as the peer's"; that only says that the maker copies TTLs."""
    packet = rst(flags="RA", ip_id=9000, df=False, window=9)
    for theirs in (LINUX_BEHIND_17, steady(47, syn_options=LINUX_SYN, timestamps=True)):
        assert judge(flow(packet, theirs=theirs)).origin is Origin.FORGED


def test_injected_packets_do_not_poison_the_baseline() -> None:
    """A forged RST is as forged after a spoofed packet of each kind; a genuine one as genuine."""
    clean = half()
    strange = half(ttls=b.counted((47, 12), (63, 0), (30, 1)))
    for theirs in (clean, strange):
        assert judge(flow(rst(ttl=63, ip_id=0), theirs=theirs)).origin is Origin.FORGED
        genuine = flow(rst(flags="RA", ip_id=23404, window=509), theirs=theirs)
        assert judge(genuine).origin is Origin.PEER


# ---- traps: what must not be called forged ----


def split(packets: int) -> Half:
    """A SYN proxy or load balancer answers the handshake (39), the server does the rest (231)."""
    return half(
        packets=packets,
        syn_ttl=39,
        ttl=231,
        ttl_min=39,
        ttl_max=231,
        ttls=b.counted((231, packets - 1), (39, 1)),
        recent=(seen(ttl=231),),
    )


@pytest.mark.parametrize("packets", [2, 3, 40])
def test_split_identity_is_not_forged(packets: int) -> None:
    for packet in (
        rst(ttl=231, ip_id=0),
        rst(ttl=231, ip_id=23404, flags="RA", window=509),
        rst(ttl=231),
    ):
        assert judge(flow(packet, theirs=split(packets))).origin is not Origin.FORGED


def test_split_identity_far_apart_is_not_forged() -> None:
    theirs = half(syn_ttl=60, ttl=47, ttl_min=47, ttl_max=60)
    assert judge(flow(rst(ttl=47, ip_id=0), theirs=theirs)).origin is not Origin.FORGED


BEGUN = our_half(packets=2, recent=(dataclasses.replace(b.OUR_DATA, flags="A", payload_len=0),))
"""Our direction right after the handshake."""


@pytest.mark.parametrize(
    ("proxy", "packet"),
    [
        *((ttl, rst(ttl=47, ip_id=0)) for ttl in (50, 53, 56, 60)),
        *((ttl, rst(ttl=47, flags="RA")) for ttl in (50, 53, 56, 60)),
        *((ttl, rst(ttl=47, df=False)) for ttl in (50, 53)),
    ],
)
def test_split_identity_before_any_data_is_not_forged(proxy: int, packet: Packet) -> None:
    """A SYN proxy answered, and its server, 3 to 13 hops behind, resets."""
    given = flow(packet, theirs=handshake(proxy), ours=BEGUN)
    assert judge(given).origin is not Origin.FORGED


@pytest.mark.parametrize("delta", [-2, -1, 1, 2])
@pytest.mark.parametrize("packets", [1, 3, 1000])
def test_a_live_socket_behind_a_new_route_is_not_forged(delta: int, packets: int) -> None:
    packet = rst(ttl=47 + delta, flags="RA", ip_id=23404, window=509, options=STAMPS)
    theirs = dataclasses.replace(LINUX_BEHIND_17, packets=packets)
    assert judge(flow(packet, theirs=theirs)).origin is not Origin.FORGED


@pytest.mark.parametrize("delta", [-2, -1])
@pytest.mark.parametrize("packets", [1, 3, 7, 1000])
def test_a_longer_way_back_is_not_forged(delta: int, packets: int) -> None:
    """What is on the path is never farther than its end: a reroute, a proxy's server, another."""
    theirs = half(packets=packets)
    bare, plain = rst(ttl=47 + delta, ip_id=0), rst(ttl=47 + delta)
    given = [flow(plain, theirs=theirs), closed(flow(bare, theirs=theirs))]
    if packets < MANY_PACKETS:
        given.append(flow(bare, theirs=theirs))
    for each in given:
        assert judge(each).origin is not Origin.FORGED


@pytest.mark.parametrize("delta", [-2, -1])
@pytest.mark.parametrize("packets", [MANY_PACKETS, 1000])
def test_no_socket_farther_than_many_packets_of_a_live_connection_is_forged(
    delta: int, packets: int
) -> None:
    """That a route changes in the very moment in which a host loses a live socket is rarer."""
    found = judge(flow(rst(ttl=47 + delta, ip_id=0), theirs=half(packets=packets)))
    assert found.origin is Origin.FORGED
    assert found.authors[0].author is Author.SECOND_HOST


@pytest.mark.parametrize("delta", [1, 2, 3])
def test_a_shorter_way_is_not_forged_where_the_handshake_alone_is_known(delta: int) -> None:
    for packet in (rst(ttl=47 + delta, flags="RA"), rst(ttl=47 + delta)):
        assert judge(flow(packet, theirs=handshake())).origin is not Origin.FORGED


@pytest.mark.parametrize("delta", [1, 2, 3])
def test_no_socket_nearer_than_many_packets_is_forged(delta: int) -> None:
    """Was left open as a reroute: which machine it was is open, not whether it was the peer."""
    found = judge(flow(rst(ttl=47 + delta, ip_id=0), theirs=half(packets=1000)))
    assert found.origin is Origin.FORGED
    assert found.authors[0].author in (Author.REJECT, Author.BALANCER)


def test_another_stack_at_the_same_distance_is_not_forged() -> None:
    """A NAT box or load balancer that lost its state beside the server."""
    for ttl in (15, 111, 238):
        assert judge(flow(rst(ttl=ttl, ip_id=0))).origin is not Origin.FORGED


def test_a_gateway_failover_is_not_forged() -> None:
    for given in (flow(rst(ip_id=0)), closed(flow(rst(ip_id=0))), flow(*LIVE["Linux, live"][:1])):
        assert judge(with_mac(OTHER_MAC, BACKUP)(given)).origin is not Origin.FORGED


def test_a_peer_that_mirrors_our_ids_is_not_forged() -> None:
    """Peers that echo our IP IDs in everything they send: the RST does it too."""
    theirs = half(recent=(seen(ip_id=13051), seen(ip_id=13050)))
    assert judge(flow(rst(ip_id=13052), theirs=theirs)).origin is not Origin.FORGED


def test_our_own_segmentation_offload_repeats_no_id_by_chance() -> None:
    ours = our_half(recent=(seen(ip_id=13000, segments=44, ttl=64),))
    assert judge(flow(rst(ttl=63, ip_id=13043), ours=ours)).origin is Origin.FORGED
    assert judge(flow(rst(ip_id=13045), ours=ours)).origin is Origin.PEER


def test_loopback_without_macs() -> None:
    theirs = steady(64, mac=None, recent=(seen(ttl=64),))
    for mac in (None, "00:00:00:00:00:00"):
        given = closed(flow(rst(ttl=64, ip_id=0), theirs=theirs, mac=mac))
        assert judge(given).origin is Origin.PEER
        assert accusing(given) == set()


def test_no_frame_at_all() -> None:
    assert judge(changed(closed(flow(rst(ip_id=0))), frame=None)).origin is Origin.PEER


def denied(ttl: int, **values: Any) -> Reset:
    """The reset of our SYN-ACK by the owner of an address in whose name a SYN came."""
    syn_ack = seen(flags="SA", ttl=64, seq=4999, ack=1000, payload_len=0, time_ns=b.TIME - MS)
    return flow(
        rst(ttl=ttl, ip_id=0),
        theirs=lone_syn(**values),
        ours=our_half(packets=1, recent=(syn_ack,)),
    )


@pytest.mark.parametrize("ttl", [30, 44, 47, 50, 63, 111, 240])
def test_victims_of_a_spoofed_syn_flood_are_not_accused(ttl: int) -> None:
    """A RST that says "I never sent that" makes the SYN as doubtful as itself."""
    assert judge(denied(ttl)).origin is not Origin.FORGED


@pytest.mark.parametrize("ttl", [47, 63])
def test_a_scanner_s_own_kernel_is_not_accused(ttl: int) -> None:
    """A raw SYN (no option but MSS, an odd TTL) and its kernel's ordinary RST to our SYN-ACK."""
    assert judge(denied(ttl, syn_options="mss 1460")).origin is not Origin.FORGED


def test_a_peer_behind_nat_on_our_link_is_not_accused() -> None:
    """All its packets passed the same router, though our route says on-link."""
    theirs = steady(63, recent=tuple(seen(ttl=63, ip_id=i) for i in (23403, 23402, 23400)))
    given = flow(
        rst(ttl=63, flags="RA", ip_id=23404, window=9), theirs=theirs, mac=MAC, next_hop=ON_LINK
    )
    assert judge(given).origin is Origin.PEER
    assert judge(closed(changed(given, rst=rst(ttl=63, ip_id=0)))).origin is Origin.PEER


@pytest.mark.parametrize(("ttl", "reference"), [(32, 33), (33, 32), (31, 34)])
def test_one_hop_across_the_boundary_at_32_is_one_hop(ttl: int, reference: int) -> None:
    """Initial TTL 32 won over what is near; then one hop of reroute was 31."""
    packet = rst(ttl=ttl, flags="RA", ip_id=23404, window=9)
    found = judge(flow(packet, theirs=steady(reference)))
    assert found.origin is not Origin.FORGED
    assert found.hops_rst is not None
    assert found.hops_peer is not None
    assert abs(found.hops_rst - found.hops_peer) <= 3


def test_checksums_that_are_wrong_everywhere_count_for_nothing() -> None:
    packet = rst(flags="RA", ip_id=23404, window=9, tcp_checksum_ok=False)
    assert judge(flow(packet, theirs=half(checksums_wrong=True))).origin is Origin.PEER


# ---- proofs ----


@pytest.mark.parametrize(
    ("kind", "origin"),
    [
        (Kind.SENT_NETFILTER, Origin.FORGED),
        (Kind.SENT_RAW, Origin.FORGED),
        (Kind.SENT_PASSIVE, Origin.PEER),
        (Kind.SENT_ACTIVE, Origin.PEER),
    ],
)
@pytest.mark.parametrize("packet", [rst(ip_id=0), INCIDENT])
def test_what_this_node_made_is_proof(kind: Kind, origin: Origin, packet: Packet) -> None:
    found = judge(flow(packet, made_here=MadeHere(7, kind, 42, "someone")))
    assert found.origin is origin
    assert found.confidence == 1.0
    assert found.evidence[0].rule == "made-here"
    assert found.evidence[0].proof
    assert len(found.evidence) > 1  # the rest is still told


@pytest.mark.parametrize("kind", Kind)
def test_kinds(kind: Kind) -> None:
    found = judge(flow(INCIDENT, kind=kind))
    if kind.direction == "sent":
        assert (found.origin, found.confidence, found.score) == (Origin.LOCAL, 1.0, 0.0)
        assert (found.hops_rst, found.hops_peer) == (None, None)
    else:
        assert found.origin is Origin.FORGED


# ---- thresholds, weights ----


def test_thresholds() -> None:
    assert (FORGED_FROM, PEER_FROM) == (0.95, 0.90)
    assert logit(0.5) == 0
    assert math.isfinite(logit(0))
    assert math.isfinite(logit(1))


@pytest.mark.parametrize(
    ("score", "origin", "confidence"),
    [
        (2.94, Origin.INCONCLUSIVE, None),
        (2.95, Origin.FORGED, 0.95),
        (9.0, Origin.FORGED, CERTAIN),
        (-2.19, Origin.INCONCLUSIVE, None),
        (-2.2, Origin.PEER, 0.9),
        (-3.0, Origin.PEER, 0.953),
        (-9.0, Origin.PEER, CERTAIN_PEER),
        (0.0, Origin.INCONCLUSIVE, None),
    ],
)
def test_scores_become_origins(score: float, origin: Origin, confidence: float | None) -> None:
    found = decide(score)
    assert found[0] is origin
    assert found[1] == (None if confidence is None else pytest.approx(confidence, abs=0.001))


def test_the_prior_alone_is_inconclusive() -> None:
    """Nothing to be seen in it: nothing is said, and the authors are as common as ever."""
    nothing = Model(rows={name: tuple(1.0 for _ in row.likelihoods) for name, row in ROWS.items()})
    found = judge(reset(), table=nothing)
    assert found.origin is Origin.INCONCLUSIVE
    assert found.confidence is None
    assert {share.author: share.probability for share in found.authors} == pytest.approx(
        dict(PRIOR_OF), abs=1e-4
    )
    assert all(evidence.weight == 0 for evidence in found.considered)


def test_a_weight_is_the_verdict_with_it_less_the_one_without_it() -> None:
    found = judge(flow(INCIDENT, mac=MAC, next_hop=GATEWAY))
    names = tuple(evidence.rule for evidence in found.considered if evidence.rule in ROWS)
    assert found.score == pytest.approx(logit(1 - peer_share(TABLE.weigh(names))), abs=0.006)
    for evidence in found.considered:
        if evidence.rule not in ROWS:
            assert evidence.weight == 0
            assert evidence.factors is None
            continue
        rest = tuple(name for name in names if name != evidence.rule)
        without = logit(1 - peer_share(TABLE.weigh(rest)))
        assert evidence.weight == pytest.approx(found.score - without, abs=0.011)
        assert evidence.group == ROWS[evidence.rule].group
        assert evidence.factors == factors(evidence.rule)


def test_an_observation_against_the_peer_never_lowers_the_score() -> None:
    """It is impossible for its stack, whatever else agrees: no second clue excuses it."""
    alone = judge(flow(rst(ttl=63, ip_id=0)))
    with_mac_same = judge(flow(rst(ttl=63, ip_id=0), mac=MAC, next_hop=GATEWAY))
    assert with_mac_same.origin is alone.origin is Origin.FORGED


def test_proof_comes_first_then_the_heaviest() -> None:
    found = judge(
        flow(
            rst(ttl=63, ip_id=13052, window=501, df=False),
            made_here=MadeHere(1, Kind.SENT_RAW),
            mac=OTHER_MAC,
            next_hop=BACKUP,
        )
    )
    assert found.evidence[0].proof
    weights = [abs(evidence.weight) for evidence in found.evidence[1:]]
    assert weights == sorted(weights, reverse=True)
    assert len(weights) == 4  # the MAC and the hop distance: one change of path explains both


def test_considered_holds_what_said_nothing_too() -> None:
    found = judge(flow())
    assert {evidence.rule for evidence in found.considered} > {e.rule for e in found.evidence}
    assert all(evidence.weight or evidence.proof for evidence in found.evidence)


# ---- summaries ----


@pytest.mark.parametrize(
    ("given", "summary"),
    [
        (
            closed(flow(rst(ip_id=0))),
            "the peer had closed (FIN 10.0 ms before); our packet came too late",
        ),
        (
            closed(flow(rst(ip_id=0, seq=5))),
            "the peer had closed (FIN 10.0 ms before): it no longer has such a connection",
        ),
        (
            reset(
                rst(ip_id=0, flags="RA", seq=0, ack=5000),
                theirs=half(),
                scope=Scope.PEER,
                trigger=REFUSED,
            ),
            "the peer refused: no socket listens there",
        ),
        (
            flow(rst(flags="RA", ip_id=23404)),
            "the peer aborted a live connection (closed with unread data, SO_LINGER 0, or killed)",
        ),
        (flow(rst()), "the peer reset it"),
        (
            flow(rst(), made_here=MadeHere(1, Kind.SENT_ACTIVE)),
            "the peer closed or aborted its live socket",
        ),
        (flow(INCIDENT), "ended an established connection"),
        (
            reset(cause=Cause("connection-refused", "the connection was refused")),
            "connection refused",
        ),
        (
            closed(
                flow(
                    rst(ip_id=0),
                    kind=Kind.RECEIVED_UNMATCHED,
                    cause=Cause("no-socket", "no socket for it here"),
                )
            ),
            "the peer had closed (FIN 10.0 ms before); our packet came too late; "
            "no socket for it here",
        ),
        (flow(kind=Kind.SENT_ACTIVE, cause=Cause("linger", "closed")), "closed"),
    ],
)
def test_summary(given: Reset, summary: str) -> None:
    assert judge(given).summary == summary


# ---- properties ----


def random_seen(draw: random.Random) -> Seen:
    return seen(
        time_ns=b.TIME + draw.randrange(-(10**10), 10**9),
        ttl=draw.randrange(256),
        ip_id=draw.choice((0, 1, 13052, 65535, draw.randrange(65536))),
        df=draw.random() < 0.5,
        flags=draw.choice(("S", "SA", "A", "PA", "FA", "")),
        seq=draw.randrange(2**32),
        ack=draw.randrange(2**32),
        window=draw.choice((0, 501, 65535)),
        payload_len=draw.choice((0, 1, 1448, 65000)),
        segments=draw.choice((1, 1, 2, 44)),
    )


def random_half(draw: random.Random) -> Half | None:
    if draw.random() < 0.2:
        return None
    ttls = sorted(draw.randrange(256) for _ in range(2))
    syn = draw.random() < 0.6
    return half(
        packets=draw.choice((1, 2, 3, 100)),
        ttl=draw.choice((None, *ttls)),
        ttl_min=ttls[0],
        ttl_max=ttls[1],
        syn_ttl=draw.choice(ttls) if syn else None,
        syn_window=draw.choice((0, 501)) if syn else None,
        syn_ns=b.TIME - draw.randrange(10**9) if syn else None,
        end=draw.choice((None, 1000, 1100, draw.randrange(2**32))),
        df_always=draw.random() < 0.5,
        timestamps=draw.random() < 0.5,
        mac=draw.choice((None, MAC, OTHER_MAC)),
        ifindex=draw.choice((None, 2)),
        recent=tuple(random_seen(draw) for _ in range(draw.randrange(5))),
        ttls=tuple(TtlCount(ttl, draw.choice((1, 2, 50)), b.TIME - 1, b.TIME) for ttl in ttls),
    )


def random_packet(draw: random.Random) -> Packet:
    v4 = draw.random() < 0.7
    make = rst if v4 else rst6
    values: dict[str, Any] = {
        "ttl": draw.randrange(256),
        "flags": draw.choice(("R", "RA", "RPA", "SR")),
        "seq": draw.choice((0, 1000, draw.randrange(2**32))),
        "ack": draw.choice((0, draw.randrange(2**32))),
        "window": draw.choice((0, 501, 65535)),
        "payload_len": draw.choice((0, 0, 1, 1400)),
        "reserved": draw.randrange(16),
        "options": draw.choice(("", STAMPS, "malformed")),
    }
    if v4:
        values["ip_id"] = draw.choice((0, 1, 13052, 65535, draw.randrange(65536)))
        values["df"] = draw.random() < 0.5
    return make(**values)


def random_later(draw: random.Random) -> tuple[Seen, ...]:
    packets = [random_seen(draw) for _ in range(draw.randrange(4))]
    return tuple(
        dataclasses.replace(
            packet,
            flags=draw.choice((packet.flags, "R", "RA")),
            seq=draw.choice((packet.seq, 1000, 1001, 2000)),
            ack=draw.choice((packet.ack, 5117)),
        )
        for packet in packets
    )


def random_reset(draw: random.Random) -> Reset:
    made = None
    if draw.random() < 0.1:
        kind = draw.choice([kind for kind in Kind if kind.direction == "sent"])
        made = MadeHere(1, kind, *draw.choice(((None, None), (42, "x\x1b[2J"))))
    found = reset(
        random_packet(draw),
        theirs=random_half(draw),
        ours=random_half(draw),
        scope=draw.choice(list(Scope)),
        kind=draw.choice(list(Kind)),
        mac=draw.choice((None, MAC, OTHER_MAC, "00:00:00:00:00:00")),
        next_hop=draw.choice((None, GATEWAY, BACKUP, ON_LINK, NextHop("10.0.0.1", None, True, 2))),
        made_here=made,
        trigger=draw.choice((None, random_seen(draw))),
        earlier=random_later(draw),
        later=random_later(draw),
        our_acks=frozenset(draw.choice((1000, draw.randrange(2**32))) for _ in range(3)),
        others=(Other("192.0.2.1", b.TIME, draw.randrange(65536), draw.randrange(256)),),
        period_s=draw.choice((None, 2.0)),
        socket=draw.choice((None, b.measured(0), b.measured(15_000))),
    )
    ttls = tuple(draw.randrange(1, 256) for _ in range(draw.randrange(3)))
    found = b.with_baseline(found, peer_ttls=ttls)
    if draw.random() < 0.1:
        found.frame = None
    return found


def check_authors(found: Verdict) -> None:
    """They are all there and add up, the likeliest first; a proof leaves one."""
    if found.origin is Origin.LOCAL:
        assert found.authors == ()
        return
    shares = [share.probability for share in found.authors]
    assert sum(shares) == pytest.approx(1, abs=0.001)
    assert shares == sorted(shares, reverse=True)
    proved = any(evidence.proof for evidence in found.evidence)
    assert len(shares) == (1 if proved else len(Author))
    names = tuple(evidence.rule for evidence in found.considered if evidence.rule in ROWS)
    groups = [ROWS[name].group for name in names]
    assert len(groups) == len(set(groups))
    if not proved:
        assert found.score == pytest.approx(logit(1 - peer_share(TABLE.weigh(names))), abs=0.006)
        peer = sum(share.probability for share in found.authors if share.author.is_peer)
        assert logit(1 - peer) == pytest.approx(found.score, abs=0.3) or not 0.01 < peer < 0.99


def test_anything_can_be_judged() -> None:
    draw = random.Random(20191124)
    origins = set()
    for _ in range(4000):
        given = random_reset(draw)
        before = copy.deepcopy(given)
        found = judge(given)
        assert given == before  # judging changes nothing
        assert found == judge(copy.deepcopy(given))  # and depends on nothing else
        origins.add(found.origin)
        check_authors(found)
        assert math.isfinite(found.score)
        for evidence in found.evidence:
            if evidence not in found.considered:  # a finding: said beside, never counted
                assert evidence.rule in found.findings
                assert evidence.weight == 0
                assert not evidence.proof
        assert len(set(found.findings)) == len(found.findings)
        if found.origin is Origin.INCONCLUSIVE:
            assert found.confidence is None
        else:
            assert found.confidence is not None
            assert 0.9 <= found.confidence <= 1.0
        if found.origin is Origin.FORGED:
            assert found.confidence is not None
            assert found.confidence >= 0.95
            assert any(evidence.weight > 0 for evidence in found.evidence)
            assert (
                not found.authors[0].author.is_peer
                or sum(share.probability for share in found.authors if share.author.is_peer) < 0.06
            )
        assert (found.origin is Origin.LOCAL) == (given.kind.direction == "sent")
        assert found.summary
        for evidence in found.considered:
            assert "None" not in evidence.text
            assert evidence.text
    assert origins == set(Origin)


def test_names_and_places_are_no_evidence() -> None:
    """Nothing that only enrichment knows about this end may sway the verdict."""
    given = flow(INCIDENT)
    other = changed(given, netns=1, netns_name="x", local=Endpoint("192.0.2.1", 1), seen=5)
    assert judge(other) == judge(given)


# ---- honest cases whose clues have one cause ----


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            closed(flow(rst(ttl=46, ip_id=0), mac=OTHER_MAC, next_hop=BACKUP)),
            id="rerouted-through-the-second-router",
        ),
        pytest.param(
            flow(rst(ttl=46, window=501, flags="RA", ip_id=23404)),
            id="two-linux-ends-with-near-windows-and-a-reroute",
        ),
        pytest.param(
            flow(rst(ttl=42, df=False), theirs=handshake(), ours=BEGUN),
            id="syn-proxy-answered-then-a-reset-without-df",
        ),
        pytest.param(
            flow(
                rst(ttl=42, ip_id=0),
                theirs=handshake(),
                ours=BEGUN,
                mac=OTHER_MAC,
                next_hop=BACKUP,
            ),
            id="syn-proxy-on-another-router",
        ),
        pytest.param(
            closed(flow(rst(ttl=61, ip_id=0), theirs=steady(37))), id="the-program-set-its-own-ttl"
        ),
        pytest.param(
            flow(rst(ttl=61, ip_id=0), theirs=steady(37)),
            id="its-host-s-firewall-does-not-know-the-program-s-ttl",
        ),
        pytest.param(
            flow(rst(ttl=50, ip_id=0), theirs=half(ttl_min=44, ttl_max=52)), id="two-paths"
        ),
    ],
)
def test_one_honest_cause_does_not_accuse_twice(given: Reset) -> None:
    assert judge(given).origin is not Origin.FORGED


# ---- what is told beside the verdict ----


def test_findings_are_said_and_not_counted() -> None:
    given = changed(
        flow(rst(flags="RA", seq=0, ack=5000)), cause=Cause("connection-refused", "refused")
    )
    found = judge(given)
    bare = judge(changed(given, cause=Cause("connection-reset", "ended a connection")))
    assert found.findings == ("connection-refused",)
    assert found.evidence[-1].rule == "connection-refused"
    assert found.score == bare.score
    assert found.evidence[:-1] == bare.evidence


@pytest.mark.parametrize(
    ("packet", "before"),
    [
        (rst(ip_id=0), Origin.INCONCLUSIVE),  # was PEER: a live connection's peer sends no such one
        (rst(flags="RA", ip_id=23404, window=509, options=STAMPS), Origin.PEER),
    ],
)
def test_the_peer_goes_on_after_a_perfect_forgery(packet: Packet, before: Origin) -> None:
    """Nothing in the packet betrays it; what the peer sends next does."""
    perfect = flow(packet, theirs=LINUX_BEHIND_17)
    assert judge(perfect).origin is before
    data = dataclasses.replace(b.LATER, tsval=3, options=STAMPS)
    after = judge(b.among(perfect, later=(data,)))
    assert after.origin is Origin.FORGED
    assert {"went-on", "ttl-same"} <= {found.rule for found in after.considered}  # both sides


def test_the_peer_accepts_what_was_refused() -> None:
    """Its SYN-ACK to the very SYN that the RST refused: it is another's refusal."""
    syn = seen(flags="S", seq=4999, ack=0, ttl=64, payload_len=0, time_ns=b.TIME - 400_000)
    syn_ack = seen(flags="SA", seq=70, ack=5000, payload_len=0, time_ns=b.TIME + MS)
    given = reset(
        rst(flags="RA", seq=0, ack=5000, ip_id=0),
        ours=our_half(recent=(syn,), packets=1),
        cause=Cause("connection-refused", "refused"),
    )
    assert judge(given).origin is Origin.INCONCLUSIVE
    assert judge(b.among(given, later=(syn_ack,))).origin is Origin.FORGED


STRAY = dataclasses.replace(b.OUR_DATA, time_ns=b.TIME - 200_000_000, ip_id=13050)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            b.among(
                flow(rst(ip_id=0), ours=our_half(recent=(b.OUR_DATA, STRAY))), later=(b.LATER,)
            ),
            id="connection-tracking-let-a-stray-escape",
        ),
        pytest.param(
            b.among(
                flow(rst(ip_id=0), theirs=LINUX_BEHIND_17),
                later=(seen(seq=1000, ack=5000, payload_len=1448),),
            ),
            id="the-answer-overtook-paced-data",
        ),
        pytest.param(
            b.among(
                flow(rst(flags="RA", seq=1500, ip_id=23404)),
                later=(b.earlier_rst(ip_id=0, time_ns=b.TIME + 1),),
            ),
            id="closed-with-data-unread",
        ),
    ],
)
def test_honest_resets_that_are_not_alone(given: Reset) -> None:
    assert judge(given).origin is not Origin.FORGED


# ---- another vantage point's word, later ----

OTHERS_LOG = OtherEnd(Fate.NEVER_SENT, Point.B, "far/b.jsonl", logged=True, why="not there")
OTHERS_CAPTURE = OtherEnd(Fate.NEVER_SENT, Point.B, "far/b.pcap", why="not there")
AT_SENDER = OtherEnd(Fate.LEFT, Point.B, "far/b.pcap", 7, at_sender=True)


def told(other: OtherEnd, given: Reset) -> tuple[Verdict, Verdict]:
    """The verdict that another point's word amends, and the one given with it from the start."""
    alone, both = judge(given), changed(given, other_end=other)
    found = other_end(both)
    assert found is not None
    return reconsider(alone, found), judge(both)


@pytest.mark.parametrize("other", [OTHERS_LOG, OTHERS_CAPTURE, AT_SENDER])
@pytest.mark.parametrize(
    "given",
    [flow(rst(ip_id=0)), flow(INCIDENT), flow(rst(flags="RA", ip_id=23404)), reset()],
    ids=["no socket", "incident", "live", "nothing known"],
)
def test_reconsidered_is_as_judged_at_once(other: OtherEnd, given: Reset) -> None:
    later, at_once = told(other, given)
    assert later.origin is at_once.origin
    assert later.score == pytest.approx(at_once.score, abs=0.5)
    assert {e.rule for e in later.evidence} == {e.rule for e in at_once.evidence}


def test_a_log_weighs_what_the_table_says() -> None:
    row = ROWS["other-end-log"].likelihoods
    assert pytest.approx(math.log(max(row) / min(row)), abs=0.05) == LOG_WEIGHT


def test_a_proof_from_there_is_not_shaken_by_a_log() -> None:
    proved = judge(changed(flow(), other_end=AT_SENDER))
    found = other_end(changed(flow(), other_end=OTHERS_LOG))
    assert found is not None
    after = reconsider(proved, found)
    assert (after.origin, after.confidence, after.score) == (Origin.PEER, 1.0, -PROOF_SCORE)


def test_a_proof_leaves_only_authors_that_agree_with_it() -> None:
    found = other_end(changed(flow(), other_end=OTHERS_CAPTURE))
    assert found is not None
    after = reconsider(judge(flow()), found)
    assert after.origin is Origin.FORGED
    assert after.authors
    assert not any(share.author.is_peer for share in after.authors)


# ---- who, and what is told of it ----


@pytest.mark.parametrize(
    ("given", "author"),
    [
        pytest.param(flow(rst(flags="RA", ip_id=23404)), Author.PEER_SOCKET, id="live"),
        pytest.param(closed(flow(rst(ip_id=0))), Author.PEER_HOST, id="after-its-FIN"),
        pytest.param(flow(rst(ip_id=0, ttl=50)), Author.REJECT, id="nearer-and-bare"),
        pytest.param(idle(flow(rst(ip_id=0, ttl=50))), Author.BALANCER, id="nearer-after-idling"),
        pytest.param(flow(INCIDENT), Author.MIRROR, id="our-ID"),
        pytest.param(
            flow(rst(df=False, window=9, flags="RA"), theirs=LINUX_BEHIND_17),
            Author.INJECTOR,
            id="no-Linux",
        ),
        pytest.param(
            flow(rst(flags="RA", ip_id=23404, payload_len=10)), Author.SWAP, id="with-its-payload"
        ),
    ],
)
def test_who(given: Reset, author: Author) -> None:
    assert likeliest(given) is author


def test_what_a_proof_says_is_the_author() -> None:
    found = judge(flow(INCIDENT, made_here=MadeHere(7, Kind.SENT_NETFILTER)))
    assert [(share.author, share.probability) for share in found.authors] == [(Author.REJECT, 1.0)]


def test_a_proof_without_an_author_leaves_those_that_agree() -> None:
    given = changed(flow(rst(flags="RA", ip_id=23404)), other_end=OTHERS_CAPTURE)
    shares = judge(given).authors
    assert not any(share.author.is_peer for share in shares)
    assert sum(share.probability for share in shares) == pytest.approx(1.0, abs=0.001)


def test_the_peer_s_distance_as_it_answered_settles_first_contact() -> None:
    """Undecidable passively: refused from an unknown distance. One question tells it."""
    refusal = reset(
        rst(ttl=60, flags="RA", seq=0, ack=5000, ip_id=0),
        cause=Cause("connection-refused", "refused"),
        ours=our_half(packets=1, recent=(REFUSED,)),
    )
    assert judge(refusal).origin is Origin.INCONCLUSIVE
    same, farther = (
        judge(changed(refusal, probed=Probed("echo", ttl, None, b.TIME, "an echo")))
        for ttl in (60, 50)
    )
    assert same.origin is Origin.PEER
    assert farther.score > 0
    assert not farther.authors[0].author.is_peer


def test_what_is_not_explained_is_judged_alike() -> None:
    draw, known = random.Random(14), fingerprints.load(())
    named = 0
    for _ in range(1000):
        given = random_reset(draw)
        whole, brief = judge(given, known), judge(given, known, explain=False)
        assert brief == dataclasses.replace(whole, considered=brief.considered)
        assert brief.considered == (whole.considered if brief.origin is Origin.LOCAL else ())
        named += brief.device_name is not None
    assert named


def test_what_observations_say_together_is_each_table_s_own() -> None:
    given, moved = reset(theirs=b.half()), Model(priors=(1.0,) * len(PRIORS))
    score = judge(given).score
    assert judge(given, table=moved).score != score
    assert judge(given).score == score


# ---- one reset, told alike at both ends ----

FIREWALL_SAYS = OtherEnd(Fate.LEFT, Point.B, "b.jsonl", at_sender=True, logged=True, firewall=True)


def test_the_peers_firewall_is_named_where_its_own_log_says_so() -> None:
    both = changed(flow(rst(ip_id=0)), other_end=FIREWALL_SAYS)
    found = judge(both)
    assert (found.origin, found.confidence) == (Origin.PEER, 1.0)
    assert found.summary == "the peer's own firewall rejected it"
    assert [share.author for share in found.authors] == [Author.PEER_FIREWALL]
    said = other_end(both)
    assert said is not None
    after = reconsider(judge(flow(rst(ip_id=0))), said, firewall=True)
    assert (after.origin, after.summary, after.authors) == (
        found.origin,
        found.summary,
        found.authors,
    )


@pytest.mark.parametrize(
    ("firewall", "host", "words"),
    [
        (0.5, 0.4, "the peer's own firewall rejected it, or the peer has no such connection"),
        (0.3, 0.6, "the peer has no such connection, or its own firewall rejected it"),
        (0.1, 0.8, "the peer has no such connection"),
    ],
)
def test_the_peers_firewall_is_named_as_far_as_it_may_be(
    firewall: float, host: float, words: str
) -> None:
    authors = (
        Share(Author.PEER_FIREWALL, firewall, ""),
        Share(Author.PEER_HOST, host, ""),
    )
    assert summary(flow(rst(ip_id=0)), Origin.PEER, authors) == words
