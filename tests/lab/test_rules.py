"""Which rule of this node's own firewall rejected: by its counter, and by what it asks for."""

from __future__ import annotations

import pytest

from rsttrace.demo.lab import Lab
from rsttrace.errors import LabError
from tests.lab.harness import (
    ADDRESSES,
    FAMILIES,
    V6,
    Fence,
    Json,
    Tracer,
    forward,
    poll_until,
    refuse,
    server_address,
    skip_without,
)

PORT = 7999


def rules(entry: Json) -> Json:
    """The values of the note about rules."""
    found: Json
    (found,) = (item for item in entry["evidence"] if item["rule"] == "rejecting-rule")
    values: Json = found["values"]
    return values


def named(tracer: Tracer, netns: int, kind: str) -> Json:
    """The first entry of a kind in a namespace whose rule is known."""

    def wanted() -> list[Json]:
        return [
            entry
            for entry in tracer.of(netns)
            if entry["kind"] == kind and "rejecting-rule" in entry["findings"]
        ]

    tracer.wait_for(lambda: bool(wanted()), "the rule")
    return wanted()[0]


@FAMILIES
def test_the_rule_that_rejected_forwarded_traffic(
    routed: Lab, tracer: Tracer, fence: Fence, family: int
) -> None:
    """Of many rules the one that fits, at the node that made it and at the end that got it."""
    skip_without("nft")
    word = "ip6" if family == V6 else "ip"
    server = server_address("server", family)
    lines = [
        "jump sub",
        "tcp dport 7000 counter reject with tcp reset",
        f"{word} daddr != {server} counter reject with tcp reset",
        f"meta nfproto {'ipv4' if family == V6 else 'ipv6'} counter reject with tcp reset",
        "udp dport 7999 reject",
        f"{word} daddr {server} tcp dport {{ 7990-8000, 9000 }} counter reject with tcp reset",
    ]
    more = "chain sub {\ntcp sport 1 counter reject with tcp reset\n}\n"
    more += "chain dead {\nmeta l4proto tcp reject with tcp reset\n}\n"
    routed.nft("router", forward("\n".join(lines)).replace("chain f", more + "chain f"))
    fence.cross(tracer)
    tracer.forget()
    refuse(routed, server, PORT)
    router = routed.inode("router")
    for entry in (
        named(tracer, router, "sent-netfilter"),
        named(tracer, routed.inode("client"), "received-accepted"),
    ):
        values = rules(entry)
        assert (values["exact"], values["candidates"]) == (True, 1)
        (rule,) = values["rules"]
        assert (rule["tool"], rule["family"], rule["table"]) == ("nft", "inet", "t")
        assert (rule["chain"], rule["packets"]) == ("f", 1)
        assert "7990-8000" in rule["rule"]
        assert values["netns"] == router
        listed = routed.exec("router", ["nft", "-a", "list", "chain", "inet", "t", "f"])
        (line,) = [line for line in listed.splitlines() if "7990-8000" in line]
        assert line.endswith(f"# handle {rule['number']}")
        assert "nft -a list ruleset" in entry["advice"]


def test_rules_that_nothing_tells_apart_are_all_named(
    routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    skip_without("nft")
    two = "tcp dport 7999 tcp sport > 1 reject with tcp reset"
    routed.nft("router", forward(f"tcp sport 2 tcp dport 7999 reject with tcp reset\n{two}\n{two}"))
    fence.cross(tracer)
    tracer.forget()
    refuse(routed, ADDRESSES["server"][0], PORT)
    values = rules(named(tracer, routed.inode("router"), "sent-netfilter"))
    assert (values["exact"], values["candidates"]) == (False, 2)
    assert len({rule["number"] for rule in values["rules"]}) == 2


def test_a_counter_that_moves_tells_two_rules_apart(
    routed: Lab, tracer: Tracer, fence: Fence
) -> None:
    """Both have rejected before; what is said of the next reset is which one did so now."""
    skip_without("nft")
    both = (
        "tcp dport 7999 tcp option maxseg size != 4 counter reject with tcp reset",
        "tcp dport { 7998, 7999 } tcp option maxseg size != 5 counter reject with tcp reset",
    )
    routed.nft("router", forward("\n".join(both)))
    handles = [
        line.rpartition(" ")[2]
        for line in routed.exec("router", ["nft", "-a", "list", "ruleset"]).splitlines()
        if "reject" in line
    ]
    server, router = ADDRESSES["server"][0], routed.inode("router")
    refuse(routed, server, 7998)  # the second rule has counted, too
    tracer.wait_for(lambda: bool(tracer.of(router)), "the second rule's reset")
    refuse(routed, server, PORT)
    named(tracer, router, "sent-netfilter")
    fence.cross(tracer)
    tracer.forget()
    found: list[Json] = []

    def exact() -> bool:
        """Rules are listed again after a second at the soonest: until then, more resets come."""
        refuse(routed, server, PORT)
        tracer.collect(router, 1)
        found[:] = [
            rules(entry) for entry in tracer.of(router) if "rejecting-rule" in entry["findings"]
        ]
        return any(values["exact"] for values in found)

    poll_until(exact, "the rule whose counter moved")
    (rule,) = next(values["rules"] for values in found if values["exact"])
    assert str(rule["number"]) == handles[0]


@FAMILIES
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_iptables_own_words(
    routed: Lab, tracer: Tracer, fence: Fence, family: int, backend: str
) -> None:
    """By chain and number, as `iptables -L --line-numbers` counts, whatever the backend."""
    program = f"{'ip6tables' if family == V6 else 'iptables'}-{backend}"
    skip_without(program)
    for rule in (
        "-A INPUT -p udp -j ACCEPT",
        "-A INPUT -p tcp --dport 22 -j REJECT --reject-with tcp-reset",
        "-N WEB",
        "-A INPUT ! -i lo -p tcp -j WEB",
        "-A WEB -p tcp -m multiport ! --dports 7999 -j REJECT --reject-with tcp-reset",
        "-A WEB -p tcp -m tcp --dport 7000:8000 -j REJECT --reject-with tcp-reset",
    ):
        try:
            routed.exec("server", [program, *rule.split()])
        except LabError as error:
            pytest.skip(f"this kernel has no such rules: {error}")
    fence.cross(tracer)
    tracer.forget()
    refuse(routed, server_address("server", family), PORT)
    for role, kind in (("server", "sent-netfilter"), ("client", "received-accepted")):
        values = rules(named(tracer, routed.inode(role), kind))
        assert values["exact"] is True
        (rule_found,) = values["rules"]
        name = program.partition("-")[0]
        assert rule_found["tool"] == (name if backend == "nft" else program)
        assert (rule_found["table"], rule_found["chain"]) == ("filter", "WEB")
        assert (rule_found["number"], rule_found["packets"]) == (2, 1)
        assert "--dport 7000:8000" in rule_found["rule"]
