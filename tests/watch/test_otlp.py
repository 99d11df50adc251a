"""A real run tells a real receiver of OTLP."""

from __future__ import annotations

from typing import Any

from rsttrace.demo.lab import Lab
from rsttrace.render.otel import OURS
from tests.lab.conftest import routed_lab
from tests.lab.harness import TRACE, Tracer
from tests.unit.test_watch_otlp import Receiver, plain
from tests.watch.test_prometheus import play

NODE, CLIENT = "node", "client"


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [{one.key: plain(one.value) for one in record.attributes} for record in receiver.records]


def traced(lab: Lab, receiver: Receiver) -> Tracer:
    """A tracer where the receiver is, of the lab's client."""
    into = ["ip", "netns", "exec", lab.name(NODE)]
    options = ["--netns", str(lab.inode(CLIENT)), "--otlp", receiver.url]
    return Tracer(*options, program=[*into, *TRACE])


def run(receiver: Receiver, lab: Lab) -> Tracer:
    tracer = traced(lab, receiver)
    try:
        play(lab)
        tracer.wait_for(lambda: "forged" in {e["origin"] for e in tracer.entries}, "the forged one")
    finally:
        tracer.stop()
    return tracer


def test_the_collector_has_what_was_printed() -> None:
    with routed_lab("rstotlp") as lab:
        lab.add(NODE)
        with lab.inside(NODE):
            receiver = Receiver()
        try:
            tracer = run(receiver, lab)
            assert tracer.process.returncode == 0
            assert "missing at the collector" not in tracer.status
            attributes = told(receiver)
            assert [one[OURS + "id"] for one in attributes] == [e["id"] for e in tracer.entries]
            assert [one[OURS + "origin"] for one in attributes] == [
                entry["origin"] for entry in tracer.entries
            ]
            assert {one["network.peer.address"] for one in attributes} == {"10.71.2.2"}
            receiver.requests.clear()
            receiver.status = 400
            lab.nft("router", "flush ruleset")
            refused = run(receiver, lab)
            count = len(refused.entries)
            assert f"warning: {count} entries are missing at the collector" in refused.status
        finally:
            receiver.close()
