from __future__ import annotations

import dataclasses
import re

import pytest

from rsttrace.model import (
    BridgePort,
    Endpoint,
    Entry,
    Fate,
    Frame,
    Kind,
    MadeHere,
    Origin,
    OtherEnd,
    Point,
    Scope,
    Seen,
    SwitchPort,
    hops,
)
from rsttrace.render.drawing import WIDTH
from rsttrace.render.picture import picture_lines
from rsttrace.render.text import entry_lines
from tests.unit.test_render_samples import (
    FORGED,
    FORGED_HERE,
    FORGED_UNKNOWN,
    FORWARDED,
    FOUND,
    GATEWAY,
    GOLDEN,
    LOCAL_RAW,
    NODE,
    PEER,
    POD,
    SAMPLES,
    THEIRS,
    TIME,
    UNSURE,
    check_golden,
    with_reset,
    with_verdict,
)

HOSTILE = "evil\x1b[2J\u202etxt.example\n\x07"


def far(entry: Entry, ttl: int, peer: int | None, **changes: object) -> Entry:
    """The entry with a RST of this TTL, from a peer so many routers away."""
    rst = dataclasses.replace(entry.reset.rst, ttl=ttl)
    given = with_reset(entry, rst=rst, **changes)
    return with_verdict(given, hops_rst=hops(ttl), hops_peer=peer)


def another(ttl: int, flags: str = "R") -> Seen:
    return Seen(TIME - 10_000, ttl, 7, False, flags, 1, 0, 0, 0)


ON_LINK = far(FORGED, 64, 17)
BEHIND = far(FORGED, 60, 17)
BASELINE = FORGED.reset.baseline
NO_BASELINE = far(FORGED, 60, None, baseline=dataclasses.replace(BASELINE, theirs=None, ours=None))
VARYING = far(
    FORGED,
    60,
    17,
    baseline=dataclasses.replace(BASELINE, theirs=dataclasses.replace(THEIRS, ttl_min=44)),
)
POD_BEHIND_NODE = with_reset(
    far(FORGED, 62, 18),
    frame=Frame(POD, 3, "02:00:00:00:00:01", 62),
    neighbor=dataclasses.replace(
        GATEWAY,
        mac="02:00:00:00:00:01",
        vendor="locally administered (random or virtual)",
        ip="10.0.0.1",
        ifindex=3,
        netns=POD,
    ),
    ingress_frame=Frame(NODE, 2, "00:d0:f8:22:33:44", 63),
    ingress=dataclasses.replace(GATEWAY, ifname="ens3"),
)
OTHER_WAY = with_reset(BEHIND, frame=Frame(NODE, 2, "52:54:00:12:34:56", 60), neighbor=None)
CASES = {
    "one router away": FORGED,
    "on our link": ON_LINK,
    "four routers away, the peer unseen": NO_BASELINE,
    "the peer's TTL varies": VARYING,
    "as far as the peer": far(FORGED, 47, 17),
    "farther than the peer": far(FORGED, 40, 17),
    "its TTLs differ": with_reset(BEHIND, earlier=(another(61), another(60)), later=(another(40),)),
    "one router before the peer": far(FORGED, 48, 17),
    "both on our link": far(FORGED, 64, 0),
    "behind a bridge of ours, and a switch that says who it is": with_reset(BEHIND, neighbor=FOUND),
    "through this node into a pod": POD_BEHIND_NODE,
    "this node made it": FORGED_HERE,
    "by another neighbour": OTHER_WAY,
    "nothing known": FORGED_UNKNOWN,
    "no MAC": with_reset(BEHIND, neighbor=None, frame=Frame(NODE, 5, None, 60)),
    "a capture without link layer": with_reset(
        BEHIND, neighbor=None, frame=Frame(None, None, None, 60), file="/a/b.pcap", netns=None
    ),
    "passed on": FORWARDED,
    "from a capture": with_reset(BEHIND, file="/a/b.pcap", netns=None, netns_name=None),
    "an earlier handshake": with_reset(
        BEHIND, baseline=dataclasses.replace(BASELINE, scope=Scope.PEER, ours=None)
    ),
}


def test_golden() -> None:
    lines: list[str] = []
    for number, (name, entry) in enumerate(CASES.items()):
        lines += [f"# {name}", *picture_lines(entry, plain=number > 0)]
    check_golden(GOLDEN / "render_picture.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_one_device_is_marked(name: str, plain: bool) -> None:
    lines = picture_lines(CASES[name], plain=plain)
    (marked,) = [line for line in lines if (">" if plain else "\u25b6") in line[:6]]
    assert "forged" in marked.lower()


@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_adds_up(name: str) -> None:
    """Numbers rise, and between two of them as many hops are drawn as are missing."""
    at: int | None = 0
    for line in picture_lines(CASES[name], plain=True):
        if found := re.match(r"    \|  (\d+) hops?$", line):
            at = None if at is None else at + int(found[1])
        elif line == "    :  some way" or re.match(r"[> ]   \?", line):
            at = None
        elif found := re.match(r"[> ] *(\d+)  ", line[:7]):
            number = int(found[1])
            assert at is None or number == at + 1 or number == at
            at = number


@pytest.mark.parametrize(
    "name", ["as far as the peer", "farther than the peer", "its TTLs differ", "nothing known"]
)
def test_an_unknown_distance_is_not_drawn(name: str) -> None:
    lines = picture_lines(CASES[name], plain=True)
    device = next(at for at, line in enumerate(lines) if line.startswith(">"))
    assert lines[device].startswith(">   ?  ")
    assert lines[device - 1] == "    :  some way"
    assert "how far away: not known" in lines[device + 1]


def test_how_sure() -> None:
    def said(entry: Entry) -> str:
        text = " ".join(line.strip(" |") for line in picture_lines(entry, plain=True))
        found = re.search(r"\((likely|possible)\)", text)
        return found[1] if found else "unknown"

    assert said(BEHIND) == said(ON_LINK) == "likely"
    assert said(NO_BASELINE) == said(VARYING) == "possible"
    assert said(far(FORGED, 47, 17)) == "unknown"


@pytest.mark.parametrize("entry", [PEER, LOCAL_RAW, UNSURE])
def test_only_forged_ones_are_drawn(entry: Entry) -> None:
    assert picture_lines(entry) == []
    assert entry.verdict.origin is not Origin.FORGED


def test_a_comparison_draws_its_own() -> None:
    other = OtherEnd(Fate.NEVER_SENT, Point.B, "b.pcap", where="3 hops from A")
    assert picture_lines(with_reset(BEHIND, other_end=other)) == []
    nowhere = dataclasses.replace(other, where="")
    assert picture_lines(with_reset(BEHIND, other_end=nowhere)) != []


def test_only_with_explain() -> None:
    for sample, entry in SAMPLES.items():
        picture = ["    " + line for line in picture_lines(entry, plain=True, width=WIDTH - 4)]
        text = "\n".join(entry_lines(entry, explain=True, plain=True))
        assert "\n".join(picture) in text, sample
        assert "    o  " not in "\n".join(entry_lines(entry, verbose=True, plain=True))


LONG6 = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_no_line_is_too_long_and_none_acts_on_a_terminal(name: str, plain: bool) -> None:
    entry = CASES[name]
    neighbor = dataclasses.replace(GATEWAY, mac="\x1b]0;x\x07", vendor=HOSTILE, ifname=HOSTILE)
    port = BridgePort(HOSTILE, 4, HOSTILE, 2)
    switch = SwitchPort(HOSTILE, HOSTILE * 9, HOSTILE, HOSTILE, HOSTILE)
    neighbor = dataclasses.replace(neighbor, bridge=port, switch=switch)
    ends = {"local": Endpoint(LONG6, 65535), "remote": Endpoint(LONG6[:-1] + "e", 65535)}
    entry = with_reset(entry, neighbor=neighbor, ingress=neighbor, netns_name=HOSTILE, **ends)
    entry = with_verdict(entry, device_name=HOSTILE * 3)
    if entry.reset.made_here:
        made = MadeHere(NODE, Kind.SENT_RAW, 7, HOSTILE, "forward\u00e9", HOSTILE)
        entry = with_reset(entry, made_here=made)
    for line in picture_lines(entry, plain=plain):
        assert len(line) <= WIDTH
        assert line.isprintable()
        assert line.isascii() or not plain
