from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rsttrace.judge import facts, observe
from rsttrace.judge.authors import NAMES, ROWS, Row
from rsttrace.judge.history import PROBED_NS, History
from rsttrace.judge.questions import Question, question
from rsttrace.judge.verdict import judge, logit
from rsttrace.model import (
    Author,
    Baseline,
    Cause,
    Endpoint,
    Evidence,
    Half,
    Kind,
    MadeHere,
    NextHop,
    Origin,
    Packet,
    Probed,
    Reset,
    Scope,
    Share,
    Verdict,
)
from tests.unit import builders as b
from tests.unit.builders import (
    GATEWAY,
    MAC,
    OTHER_MAC,
    PEER,
    PEER_PORT,
    THIRD_MAC,
    TIME,
    US,
    US_PORT,
    changed,
    half,
    our_half,
    reset,
    rst,
    rst6,
    seen,
    steady,
)

SECOND = 10**9
REFUSED = Cause("connection-refused", "nobody listens there")
DIRECT = NextHop(PEER, MAC, False, 2)


def answer(*ttls: int, method: str = "echo", time_ns: int = TIME + SECOND) -> Probed:
    """The peer's answers, with these TTLs."""
    return Probed(method, ttls[0], None, time_ns, f"a reply with TTL {ttls[0]}", ttls)


SILENCE = Probed("echo", None, None, TIME + SECOND, "no answer to an echo")


def holders(*macs: str) -> Probed:
    """Those who say to have the peer's address."""
    return Probed("arp", None, macs[0], TIME + SECOND, f"{len(macs)} answer", macs=macs)


def bare(ttl: int, **values: object) -> Packet:
    """The refusal of a host without a socket, or of a REJECT rule."""
    return rst(ttl=ttl, ip_id=0, flags="RA", seq=0, ack=5001, **values)


def refused(ttl: int = 47, probed: Probed | None = None, **values: object) -> Reset:
    """First contact, refused: nothing is known of the peer but what it answered."""
    ours = our_half(packets=1, recent=(seen(ttl=64, flags="S", seq=5000, ack=0, payload_len=0),))
    given = {"cause": REFUSED, "ours": ours, "next_hop": GATEWAY, "probed": probed}
    return reset(bare(ttl), **{**given, **values})  # type: ignore[arg-type]


def of_peer(ttl: int, *ttls: int) -> Baseline:
    """What another connection of the peer has shown; its newest handshakes' TTLs."""
    return Baseline(Scope.PEER, steady(ttl, packets=1), None, (ttl, *ttls))


def handshake(ttl: int) -> Half:
    """The peer's direction: its SYN-ACK, and nothing else."""
    return steady(ttl, packets=1, syns=1, recent=(seen(ttl=ttl, flags="SA", payload_len=0),))


def lone_syn(ttl: int) -> Half:
    """The peer's direction: a SYN that nobody confirmed."""
    return steady(ttl, packets=1, syns=1, recent=(seen(ttl=ttl, flags="S", payload_len=0),))


def based(ttl: int, probed: Probed, baseline: Baseline) -> Reset:
    """First contact refused, where other connections of the peer were seen."""
    return changed(refused(ttl, probed), baseline=baseline)


def flow_of(ttl: int, theirs: Half, probed: Probed) -> Reset:
    """A reset of a connection that has shown this of the peer."""
    return reset(rst(ttl=ttl), theirs=theirs, ours=our_half(), probed=probed)


def on_link(mac: str | None, *macs: str) -> Reset:
    """First contact refused on our own link, from a MAC, where these say to have the address."""
    return refused(64, holders(*macs), mac=mac, next_hop=DIRECT)


ASKED: tuple[tuple[str, Reset, str | None], ...] = (
    ("nobody", refused(), None),
    ("silence", refused(47, SILENCE), None),
    # the only thing known of the peer's distance
    ("as far", refused(47, answer(47)), "asked-same"),
    ("as one of several", refused(47, answer(46, 47, 46)), "asked-same"),
    ("2 hops nearer than three", refused(49, answer(47, 47, 47)), "asked-near"),
    ("2 hops nearer than one", refused(49, answer(47)), "asked-near-once"),
    ("nearer than any of three", refused(49, answer(47, 47, 48)), "asked-near-once"),
    ("between two ways", refused(48, answer(47, 47, 49)), None),
    ("4 hops nearer than three", refused(51, answer(47, 47, 47)), "asked-nearer"),
    ("4 hops nearer than one", refused(51, answer(47)), "asked-nearer"),
    ("farther", refused(45, answer(47, 47, 47)), "asked-farther"),
    ("as far, other initial TTL", refused(111, answer(47, 47, 47)), "asked-other-initial"),
    ("nearer, other initial TTL", refused(250, answer(47, 47, 47)), "asked-nearer"),
    ("the gateway's, the peer is behind", refused(64, answer(47), mac=MAC), "asked-beyond"),
    ("the gateway's, and so is the answer", refused(64, answer(64), mac=MAC), "asked-same"),
    # another connection's handshake: the answer is newer, unless the RST agrees with that
    ("as far, others not", based(47, answer(47), of_peer(50)), "asked-same"),
    ("nearer, as others", based(49, answer(47, 47, 47), of_peer(47)), "asked-near"),
    ("not as far, but as others", based(50, answer(47), of_peer(50)), None),
    ("not as far, but as one of the others", based(51, answer(47), of_peer(50, 51)), None),
    # a SYN that nobody confirmed is no reference once there is an answer
    ("as far, not as a lone SYN", flow_of(47, lone_syn(240), answer(47)), "asked-same"),
    ("nearer, as a lone SYN", flow_of(52, lone_syn(52), answer(47)), "asked-nearer"),
    # its own packets tell its distance: an answer from there adds nothing
    ("as its packets, all alike", b.flow(rst(ttl=47), probed=answer(47)), None),
    ("nearer than both", b.flow(rst(ttl=50), probed=answer(47, 47, 47)), None),
    ("as its packets, the answer not", b.flow(rst(ttl=47), probed=answer(50)), None),
    ("all three differ", b.flow(rst(ttl=40), probed=answer(50)), None),
    # but one from where the RST came from, and they did not: the way has changed
    ("as far, its packets not", b.flow(rst(ttl=50), probed=answer(50)), "asked-same"),
    ("as far, its handshake not", flow_of(50, handshake(47), answer(50)), "asked-same"),
    # the link was asked
    ("the only one", on_link(MAC, MAC), "asked-holder"),
    ("one of two", on_link(MAC, OTHER_MAC, MAC), "asked-two-holders"),
    ("none of two", on_link(THIRD_MAC, OTHER_MAC, MAC), "asked-no-holder"),
    ("no Ethernet", on_link(None, MAC), None),
)
"""Why, what was seen, and the row of the table for what was answered."""

ANSWERED = [pytest.param(found, name, id=why) for why, found, name in ASKED if found.probed]


@pytest.mark.parametrize(("found", "name"), ANSWERED)
def test_the_row_of_an_answer(found: Reset, name: str | None) -> None:
    told = observe.asked(found)
    assert told is not None
    assert told.name == name
    assert found.probed is not None
    assert found.probed.text in told.text


@pytest.mark.parametrize(("found", "name"), ANSWERED)
def test_one_distance_counts_once(found: Reset, name: str | None) -> None:
    """Where the answer takes the place of what was seen, the group of distances is silent."""
    if name in (None, "asked-same", "asked-beyond") or (found.probed and found.probed.macs):
        return
    assert observe.distance_(found).name is None


def test_a_routers_ttl_on_our_own_link_counts_once() -> None:
    found = refused(60, answer(64), next_hop=DIRECT)
    assert observe.distance_(found).name == "ttl-routed"
    told = observe.asked(found)
    assert told is not None
    assert told.name is None


@pytest.mark.parametrize(
    ("ttls", "steadiness"),
    [((47,), "few"), ((47, 47), "many"), ((47, 47, 47), "many"), ((46,), "one")],
)
def test_answers_make_a_handshake_steadier(ttls: tuple[int, ...], steadiness: str) -> None:
    found = reset(rst(ttl=49), theirs=handshake(47), ours=our_half(), probed=answer(*ttls))
    known = facts.reference(found)
    assert known is not None
    assert (known.ttl, known.steady) == (47, steadiness)


def test_an_answer_tells_the_peers_distance() -> None:
    found = judge(refused(49, answer(47, 47, 47)))
    assert (found.hops_rst, found.hops_peer) == (15, 17)


def test_without_and_with_an_answer() -> None:
    """First contact refused: open, until the peer says how far away it is."""
    assert judge(refused(49)).origin is Origin.INCONCLUSIVE
    assert judge(refused(49, SILENCE)).origin is Origin.INCONCLUSIVE
    assert judge(refused(49, answer(49))).origin is Origin.PEER
    forged = judge(refused(49, answer(47, 47, 47)))
    assert forged.origin is Origin.FORGED
    assert forged.authors[0].author is Author.REJECT
    # ways differ by flow: one answer from a little farther away accuses nobody
    assert judge(refused(49, answer(47))).origin is Origin.INCONCLUSIVE
    # a router that passes on ports answers an echo itself
    assert judge(refused(45, answer(47, 47, 47))).origin is Origin.INCONCLUSIVE


@pytest.mark.parametrize("probed", [answer(47), answer(50, 50, 50), SILENCE])
def test_an_answer_is_shown_whatever_it_weighs(probed: Probed) -> None:
    for found in (refused(47, probed), b.flow(rst(ttl=47), probed=probed)):
        lines = [item for item in judge(found).evidence if item.group == "asked"]
        assert len(lines) == 1
        assert lines[0].text.startswith(f"asked: {probed.text}")


def test_no_advice_to_ask_again() -> None:
    before, after = judge(refused(49)), judge(refused(49, SILENCE))
    assert before.advice is not None
    assert after.advice is not None
    assert "--probe " in before.advice
    assert "--probe " not in after.advice


ASKED_ROWS = [row for row in ROWS.values() if row.group == "asked"]


def test_the_table_has_rows() -> None:
    assert len(ASKED_ROWS) == 10
    assert {row.name for row in ASKED_ROWS} >= {"asked-same", "asked-nearer", "asked-farther"}


@pytest.mark.parametrize("on_link", [False, True])
def test_answers_exclude_each_other(on_link: bool) -> None:
    """Of one question no story makes more than all answers; one alone may be told in two ways."""
    rows = [row for row in ASKED_ROWS if row.name.endswith(("holder", "holders")) == on_link]
    rows = [row for row in rows if row.name not in ("asked-near-once", "asked-beyond")]
    for index, name in enumerate(NAMES):
        assert sum(row.likelihoods[index] for row in rows) <= 1.01, name


@pytest.mark.parametrize("row", ASKED_ROWS, ids=lambda row: row.name)
def test_no_row_decides_alone(row: Row) -> None:
    """Each story stays possible, and no answer is a proof."""
    spread = math.log(max(row.likelihoods) / min(row.likelihoods))
    assert spread < math.log(1000)


# ---- what is asked ----

OPEN = Verdict(Origin.INCONCLUSIVE, None, 0.0)


def verdict(origin: Origin, confidence: float | None, *authors: Author) -> Verdict:
    shares = tuple(Share(author, 0.5, author.value) for author in authors)
    score = 0.0 if confidence is None else logit(confidence)
    return Verdict(origin, confidence, -score if origin is Origin.PEER else score, authors=shares)


@pytest.mark.parametrize(
    ("given", "is_asked"),
    [
        (OPEN, True),
        (verdict(Origin.PEER, 0.97), True),
        (verdict(Origin.FORGED, 0.97), True),
        (verdict(Origin.PEER, 0.99), False),
        (verdict(Origin.FORGED, 1.0), False),
        (verdict(Origin.LOCAL, 1.0), False),
    ],
)
def test_only_doubtful_verdicts_are_asked_about(given: Verdict, is_asked: bool) -> None:
    assert (question(refused(), given) is not None) == is_asked


def with_source(ip: str) -> Packet:
    packet = rst6() if ":" in ip else rst()
    return changed_packet(packet, src=Endpoint(ip, PEER_PORT))


def changed_packet(packet: Packet, **values: object) -> Packet:
    return replace(packet, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "found",
    [
        refused(probed=SILENCE),
        refused(kind=Kind.SENT_PASSIVE),
        refused(kind=Kind.FORWARDED),
        refused(netns=None),
        refused(made_here=MadeHere(1, Kind.SENT_NETFILTER)),
        refused(next_hop=NextHop(PEER, None, False, 1, is_local=True)),
        reset(with_source("127.0.0.1")),
        reset(with_source("::1")),
        reset(with_source(US)),
        reset(with_source("224.0.0.1")),
    ],
)
def test_who_is_never_asked(found: Reset) -> None:
    assert question(found, OPEN) is None


@pytest.mark.parametrize(
    ("found", "port"),
    [
        (refused(), None),
        (b.flow(ours=our_half(syn_ns=TIME - 8_999_000_000)), PEER_PORT),
        # the peer opened it: its port listens to nobody
        (b.flow(ours=our_half(syn_ns=TIME - 8_000_000_000)), None),
        (reset(theirs=lone_syn(47), ours=our_half()), None),
        # the handshake was not seen: the lower port is the server's
        (b.flow(theirs=half(syn_ns=None, syn_ttl=None), ours=our_half(syn_ns=None)), PEER_PORT),
        (
            b.flow(
                rst(src=Endpoint(PEER, 60000), dst=Endpoint(US, 443)),
                theirs=half(syn_ns=None, syn_ttl=None),
            ),
            None,
        ),
    ],
)
def test_a_syn_goes_to_a_port_that_has_answered(found: Reset, port: int | None) -> None:
    asked = question(found, OPEN)
    assert asked is not None
    assert (asked.ip, asked.port, asked.ttl) == (PEER, port, found.rst.ttl)


SECOND_FIRST = (Author.PEER_HOST, Author.SECOND_HOST, Author.REJECT)
SECOND_LAST = (Author.PEER_HOST, Author.REJECT, Author.SECOND_HOST)


@pytest.mark.parametrize(
    ("authors", "ttl", "hop", "mac", "on_link"),
    [
        (SECOND_FIRST, 47, DIRECT, MAC, True),
        (SECOND_LAST, 47, DIRECT, MAC, False),
        # all are on our own link: no distance tells them apart
        (SECOND_LAST, 64, DIRECT, MAC, True),
        # no Ethernet, a router in between, no route known
        (SECOND_FIRST, 64, DIRECT, None, False),
        (SECOND_FIRST, 64, GATEWAY, MAC, False),
        (SECOND_FIRST, 64, None, MAC, False),
    ],
)
def test_the_link_is_asked_where_the_distance_tells_nothing(
    authors: tuple[Author, ...], ttl: int, hop: NextHop | None, mac: str | None, on_link: bool
) -> None:
    found = refused(ttl, next_hop=hop, mac=mac)
    asked = question(found, verdict(Origin.INCONCLUSIVE, None, *authors))
    assert asked == Question(PEER, None, ttl, on_link, 2 if hop else None)


# ---- the history ----


def shown(history: History, now_ns: int | None = None) -> list[tuple[Reset, Origin]]:
    return [(case.reset, case.verdict.origin) for case in history.due(now_ns) if case.verdict]


def at(found: Reset, time_ns: int, port: int, ip: str = PEER) -> Reset:
    packet = changed_packet(
        found.rst, src=Endpoint(ip, PEER_PORT), dst=Endpoint(US, US_PORT + port)
    )
    return changed(found, rst=packet, time_ns=time_ns)


def test_an_answer_amends_all_of_the_last_minute() -> None:
    history = History()
    given = [
        at(refused(), TIME - 61 * SECOND, 0),
        at(refused(), TIME - 50 * SECOND, 1),
        at(refused(), TIME, 2),
        at(refused(), TIME, 3, ip="10.9.8.8"),
        changed(at(refused(), TIME, 4), netns_identity=5),
    ]
    for item in given:
        history.add(item, 0)
    assert [origin for _, origin in shown(history)] == [Origin.INCONCLUSIVE] * 5
    history.answered(given[2], answer(47, time_ns=TIME + 1))
    assert shown(history, 0) == [(given[1], Origin.PEER), (given[2], Origin.PEER)]
    assert shown(history) == []


def test_an_answer_holds_for_the_next_minute() -> None:
    history = History()
    first = refused()
    history.add(first, 0)
    shown(history)
    history.answered(first, answer(47, time_ns=TIME))
    shown(history)
    for index, (after_ns, origin) in enumerate(
        [(PROBED_NS, Origin.PEER), (PROBED_NS + 1, Origin.INCONCLUSIVE)]
    ):
        later = at(refused(), TIME + after_ns, index + 1)
        history.add(later, 0)
        assert shown(history) == [(later, origin)]


def test_silence_and_what_changes_nothing_is_not_told_again() -> None:
    history = History()
    silent, sure = refused(), at(b.flow(), TIME, 1, ip="10.9.8.8")
    for found in (silent, sure):
        history.add(found, 0)
    shown(history)
    history.answered(silent, SILENCE)
    history.answered(sure, answer(47))
    assert shown(history) == []


def test_an_open_verdict_is_told_again_with_what_the_peer_said() -> None:
    """The authors that are left are others now, though none of them is sure."""
    history = History()
    found = refused(45)
    history.add(found, 0)
    shown(history)
    history.answered(found, answer(47, 47, 47))
    assert shown(history) == [(found, Origin.INCONCLUSIVE)]


@pytest.mark.parametrize(
    ("author", "weight", "is_told"),
    [
        (Author.SECOND_HOST, 3.0, True),
        (Author.INJECTOR, 3.0, False),
        (Author.SECOND_HOST, 0.0, False),
    ],
)
def test_who_is_likeliest_now_is_told(author: Author, weight: float, is_told: bool) -> None:
    """The verdict is as sure as before that it was not the peer, and names another."""

    def decide(found: Reset) -> Verdict:
        if found.probed is None:
            return verdict(Origin.FORGED, 0.97, Author.INJECTOR)
        line = Evidence("asked-two-holders", weight, "asked", group="asked")
        return replace(verdict(Origin.FORGED, 0.98, author), evidence=(line,))

    history = History(decide=decide)
    found = refused()
    history.add(found, 0)
    shown(history)
    history.answered(found, holders(MAC, OTHER_MAC))
    assert bool(shown(history)) == is_told


def test_an_answer_before_the_first_verdict_is_in_it() -> None:
    history = History(hold_ns=SECOND)
    found = refused()
    history.add(found, 0)
    history.answered(found, answer(47))
    assert shown(history, 0) == []
    assert shown(history) == [(found, Origin.PEER)]


def test_answers_are_kept_for_so_many_peers() -> None:
    history = History(size=3)
    given = [at(refused(), TIME, 1, ip=f"10.9.8.{number}") for number in range(5)]
    for found in given:
        history.answered(found, answer(47))
    for found in given:
        history.add(found, 0)
    assert [origin for _, origin in shown(history)] == [Origin.INCONCLUSIVE] * 2 + [Origin.PEER] * 3


def test_evidence_has_its_numbers() -> None:
    (line,) = [item for item in judge(refused(49, answer(47, 47, 47))).evidence
               if isinstance(item, Evidence) and item.rule == "asked-near"]  # fmt: skip
    assert line.values == {
        "method": "echo", "ttl": 47, "ttls": [47, 47, 47], "hops": 17, "rst_ttl": 49
    }  # fmt: skip
    assert line.weight > 0
    assert line.text.endswith("; the RST with 49")
