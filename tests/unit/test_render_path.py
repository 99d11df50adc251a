from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from rsttrace.judge.placement import place, place_replay
from rsttrace.model import BridgePort, Hop, NextHop, Placement, ProbeAnswer, SwitchPort
from rsttrace.render.drawing import WIDTH
from rsttrace.render.escape import ascii_only
from rsttrace.render.json import object_line
from rsttrace.render.path import path_lines, path_object
from tests.unit.path_samples import DIVIDED, SILENT, STRAIGHT, answer, attempts, hop, path
from tests.unit.test_render_json import VALIDATOR
from tests.unit.test_render_samples import FOUND, GOLDEN, check_golden

HOSTILE = "evil\x1b[2J\u202etxt.example\n\x07"


def test_golden() -> None:
    pictures = [
        path_lines(STRAIGHT, place(STRAIGHT, 2, peer_hops=5)),
        path_lines(SILENT, place(SILENT, 2), plain=True),
        path_lines(replace(STRAIGHT, neighbor=FOUND), plain=True),
        path_lines(DIVIDED, place(DIVIDED, 2, peer_hops=7), plain=True, indent="    "),
        path_lines(
            STRAIGHT,
            place(STRAIGHT, 4),
            replayed=place_replay(STRAIGHT, attempts(5, None, 2)),
            plain=True,
        ),
    ]
    made = "\n\n".join("\n".join(lines) for lines in pictures)
    check_golden(GOLDEN / "render_path.txt", made + "\n")


LONG6 = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"


@pytest.mark.parametrize("indent", ["", "    "])
@pytest.mark.parametrize("plain", [False, True])
def test_no_line_is_too_long_and_none_acts_on_a_terminal(plain: bool, indent: str) -> None:
    wide = path(
        replace(hop(1, LONG6, LONG6[:-1] + "e"), names=(HOSTILE, "n" * 253)),
        replace(hop(2, LONG6, back=4), names=("a-" * 126,)),
        back=9,
    )
    wide = replace(
        wide,
        next_hop=replace(wide.next_hop, mac="\x1b]0;x\x07") if wide.next_hop else None,
        neighbor=replace(
            wide.neighbor,
            vendor=HOSTILE,
            ifname=HOSTILE,
            bridge=BridgePort(HOSTILE, 4, HOSTILE, 2),
            switch=SwitchPort(HOSTILE, HOSTILE, HOSTILE * 9, None, HOSTILE),
        )
        if wide.neighbor
        else None,
    )
    placement = Placement(1, "likely", HOSTILE * 20, (HOSTILE * 9,), 0)
    for line in path_lines(wide, placement, plain=plain, indent=indent):
        assert len(line) <= WIDTH
        assert line.isprintable()
        assert line.isascii() or not plain


def test_one_hop_is_marked() -> None:
    """The replay's, where both speak."""
    by_ttl = place(STRAIGHT, 4)
    proved = place_replay(STRAIGHT, attempts(5, None, 2))
    assert (by_ttl.hop, proved.hop) == (5, 3)
    lines = path_lines(STRAIGHT, by_ttl, replayed=proved, plain=True)
    (marked,) = [line for line in lines if line.startswith(">")]
    assert marked.split()[1:3] == ["3", "10.20.0.1"]
    assert not [line for line in path_lines(STRAIGHT, plain=True) if line.startswith(">")]


def test_loss_is_said() -> None:
    lossy = replace(STRAIGHT.hops[1], answers=STRAIGHT.hops[1].answers[:1])
    lines = path_lines(replace(STRAIGHT, hops=(STRAIGHT.hops[0], lossy)), plain=True)
    assert any(line.endswith("1.50 ms  2 of 3 lost") for line in lines)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (STRAIGHT, "5 hops away (19 probes in 0.1 s)"),
        (path(), "on our own link"),
        (path(hop(1, "10.0.0.1")), "1 hop away"),
        (replace(path(hop(1, "10.0.0.1"), back=3)), "1 hop away, but 3 by its TTL"),
        (replace(STRAIGHT, distance=None), "5 hops away by its TTL"),
        (replace(STRAIGHT, distance=None, peer_hop=None), "it does not answer"),
        (replace(STRAIGHT, stopped=True), "stopped early"),
        (
            replace(path(), next_hop=NextHop("10.0.0.5", None, False, 1, is_local=True)),
            "this host itself",
        ),
        (
            replace(
                path(), distance=None, peer_hop=None, next_hop=NextHop("10.9.8.7", None, False, 1)
            ),
            "it does not answer, not even on our link",
        ),
        (
            replace(
                STRAIGHT,
                distance=None,
                peer_hop=None,
                refused=ProbeAnswer("unreachable", "10.0.0.1", 64, 1, 0, "tcp", "no route"),
            ),
            "no route, says 10.0.0.1",
        ),
    ],
)
def test_the_title(given: object, words: str) -> None:
    assert words in path_lines(given)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["syn-ack", "rst", "echo", "unreachable-port"])
def test_what_the_peer_does(kind: str) -> None:
    given = replace(STRAIGHT, peer_hop=Hop(6, 3, (answer("10.9.8.7", 59, kind),)))
    (line,) = [line for line in path_lines(given) if "the peer; " in line]
    assert line.split("; ")[1]


def test_the_json_fits_the_schema() -> None:
    for given in (STRAIGHT, SILENT, DIVIDED, path(), replace(STRAIGHT, next_hop=None)):
        replayed = place_replay(given, attempts(1, 64, 0))
        for made in (
            path_object(given),
            path_object(given, place(given, 1), entry=3, netns=5),
            path_object(given, None, replayed=replayed, attempts=attempts(1, 64, 0)),
        ):
            VALIDATOR.validate(made)
    dark = replace(STRAIGHT, distance=None, peer_hop=None, refused=answer("10.0.0.1", 64))
    VALIDATOR.validate(path_object(dark))


def test_hostile_names_in_the_json() -> None:
    named = replace(STRAIGHT, hops=(replace(STRAIGHT.hops[0], names=(HOSTILE,)),))
    line = object_line(path_object(named))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"]["hops"][0]["names"] == [HOSTILE]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_that_is_no_utf8_gets_ascii(encoding: str) -> None:
    assert ascii_only(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
