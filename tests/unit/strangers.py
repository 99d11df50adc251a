"""Entries in which everything that strangers decide is anything: texts, bytes, numbers."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from rsttrace.model import (
    BridgePort,
    Cause,
    Container,
    Entry,
    Evidence,
    Kind,
    MadeHere,
    Neighbor,
    Note,
    Pod,
    Probed,
    Process,
    SentData,
    Sighting,
    SwitchPort,
)
from tests.unit.test_render_samples import FORGED, LOCAL, PEER, REMOTE, RST, SAMPLES, TIME

PROPERTY = settings(
    max_examples=int(os.environ.get("RSTTRACE_EXAMPLES", "50")),
    deadline=None,
    derandomize=True,  # the same each time: RSTTRACE_EXAMPLES=5000 looks further
    database=None,
)

PIECES = (
    *("\x1b[2J", "\x1b]0;x\x07", "\x9b31m", "\x7f", "\0", "\n", "\r\n", "\t", "\x85"),
    *("\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\u0301", "\u05d0", "\u0627", "\u3164"),
    *("\ud800", "\udcff", "\udfff\ud800", "\U0001f600", "\U0010ffff", "é", "漢"),
    *("<script>alert(1)</script>", "</td>", "</style>", "'\"><img src=x onerror=y>", "&lt;", "-->"),
    *("]]>", "{{7*7}}", "{% for %}", "<!--", "javascript:x", "\\", "\\x1b", '"', "'", "`", "$(x)"),
    *("=1+1", "%s", "{}", "#", ",", " ", "\u00a0", "x"),
)
HUGE = st.sampled_from(["x", "\u202e", "é", "\0"]).map(lambda char: char * 40_000)
TEXT = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.text(st.characters(exclude_categories=()), max_size=12),
        st.integers(0, 40).flatmap(lambda n: HUGE if n == 40 else st.just("")),
    ),
    max_size=5,
).map("".join)
MAYBE = st.one_of(st.none(), TEXT)
U8, U16, U32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(TEXT, inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=5,
)
"""What evidence and notes have as values."""

PROCESS = st.builds(
    Process,
    pid=st.one_of(st.none(), st.integers(1, 1 << 22)),
    comm=MAYBE,
    uid=st.one_of(st.none(), U32),
    exit_signal=st.one_of(st.none(), st.integers(1, 64)),
)
MAC = st.one_of(
    st.none(), st.binary(min_size=6, max_size=6).map(lambda b: ":".join(f"{x:02x}" for x in b))
)
INDEX = st.integers(1, (1 << 31) - 1)
INODE = st.integers(1, (1 << 32) - 1)
BRIDGE = st.builds(BridgePort, bridge=MAYBE, bridge_ifindex=INDEX, port=MAYBE, ifindex=INDEX)
SWITCH = st.builds(SwitchPort, ifname=TEXT, name=MAYBE, id=MAYBE, port=MAYBE, port_text=MAYBE)
NEIGHBOR = st.builds(
    Neighbor,
    mac=MAC,
    vendor=MAYBE,
    ip=st.sampled_from([None, "192.0.2.1", "2001:db8::1"]),
    is_gateway=st.one_of(st.none(), st.booleans()),
    ifindex=st.one_of(st.none(), INDEX),
    ifname=MAYBE,
    netns=st.one_of(st.none(), INODE),
    bridge=st.one_of(st.none(), BRIDGE),
    switch=st.one_of(st.none(), SWITCH),
)
SIGHTING = st.builds(
    Sighting,
    frame=st.integers(1, 1 << 40),
    time_ns=st.integers(0, 1 << 61),
    interface=st.one_of(st.none(), U16),
    ifname=MAYBE,
    ttl=U8,
    mac=MAC,
)
MADE_HERE = st.builds(
    MadeHere,
    netns=INODE,
    kind=st.sampled_from([Kind.SENT_NETFILTER, Kind.SENT_RAW]),
    pid=st.one_of(st.none(), st.integers(0, 1 << 22)),
    comm=MAYBE,
    hook=MAYBE,
    netns_name=MAYBE,
)
PROBED = st.builds(
    Probed,
    method=st.sampled_from(["echo", "syn", "arp"]),
    ttl=st.one_of(st.none(), U8),
    mac=MAC,
    time_ns=st.just(TIME),
    text=TEXT,
)
EVIDENCE = st.builds(
    Evidence,
    rule=st.sampled_from(["ip-id-ours", "ttl-nearer", "bare"]),
    weight=st.floats(-50, 50),
    text=TEXT,
    values=st.dictionaries(TEXT, PLAIN, max_size=3),
    group=st.just("copied"),
)
NOTE = st.builds(
    Note,
    name=st.sampled_from(["rejecting-rule", "listener"]),
    text=TEXT,
    values=st.dictionaries(TEXT, PLAIN, max_size=3),
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry of any kind and origin, as strangers would like it to be."""
    base = draw(st.sampled_from([FORGED, PEER, *SAMPLES.values()]))
    reset, verdict = base.reset, base.verdict
    received = reset.kind.direction == "received"

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.one_of(st.none(), strategy))

    numbers: dict[str, Any] = {name: draw(U32) for name in ("seq", "ack")}
    numbers.update(window=draw(U16), ttl=draw(U8), length=draw(U16), payload_len=draw(U16))
    if reset.family == 4:
        numbers.update(ip_id=draw(U16), df=draw(st.booleans()))
    packet = dataclasses.replace(reset.rst, options=draw(TEXT), **numbers)
    data = draw(st.binary(min_size=1, max_size=300))
    carrier = dataclasses.replace(RST, src=LOCAL, dst=REMOTE, payload_len=len(data))
    sent = SentData(TIME - 1000, carrier, data)
    reset = dataclasses.replace(
        reset,
        rst=packet,
        cause=Cause(reset.cause.name, draw(TEXT), draw(MAYBE)),
        process=maybe(PROCESS),
        actor=maybe(PROCESS),
        made_here=maybe(MADE_HERE) if received else None,
        file=draw(MAYBE),
        netns_name=draw(MAYBE),
        neighbor=maybe(NEIGHBOR) if received else None,
        container=maybe(st.builds(Container, id=TEXT, name=MAYBE)),
        pod=maybe(st.builds(Pod, namespace=MAYBE, name=MAYBE, uid=MAYBE)),
        unit=draw(MAYBE),
        sightings=tuple(draw(st.lists(SIGHTING, max_size=3))),
        sent_data=draw(st.sampled_from([None, sent])),
        payload=maybe(st.binary(min_size=1, max_size=120)),
        notes=tuple(draw(st.lists(NOTE, max_size=2))),
        probed=maybe(PROBED),
        hook=draw(MAYBE),
    )
    evidence = tuple(draw(st.lists(EVIDENCE, max_size=3)))
    verdict = dataclasses.replace(
        verdict,
        evidence=evidence,
        considered=evidence,
        score=draw(st.floats(-100, 100)),
        summary=draw(TEXT),
        advice=draw(MAYBE),
        device_name=draw(MAYBE),
        device_reason=draw(MAYBE),
    )
    return Entry(draw(st.integers(1, 1 << 53)), reset, verdict, base.amends)
