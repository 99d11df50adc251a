"""Words for the parts of an entry, as the lines of text and the drawings say them."""

from __future__ import annotations

from rsttrace import model
from rsttrace.render.escape import safe

_LLDP = 100
"""Characters that are shown of what a switch says of itself."""


def endpoint_text(endpoint: model.Endpoint) -> str:
    """``10.0.0.5:80`` or ``[2001:db8::5]:80``."""
    return safe(str(endpoint))


def verdict_text(verdict: model.Verdict) -> str:
    """``FORGED 99%``; 100% only where the verdict is certain, not where it rounds to that."""
    word = verdict.origin.name
    if verdict.confidence is None or verdict.origin in (
        model.Origin.LOCAL,
        model.Origin.INCONCLUSIVE,
    ):
        return word
    percent = 100 if verdict.confidence >= 1 else min(99, round(verdict.confidence * 100))
    return f"{word} {percent}%"


MOST_ROUTERS = 40
"""Nobody is farther: the longest ways across the Internet have some thirty routers."""


def distance_text(hops: int | None) -> str | None:
    """``3 hops away``: as many routers as a TTL implies."""
    if hops is None:
        return None
    if hops == 0:
        return "on our own link"
    return "1 hop away" if hops == 1 else f"{hops} hops away"


def maker_distance(reset: model.Reset, verdict: model.Verdict) -> str | None:
    """How far away a RST was made, as its TTL tells; what is said where its TTL was chosen.

    A maker that sends with several TTLs, or from farther than anybody is, chose them.
    """
    hops = verdict.hops_rst
    if hops is None:
        return None
    resets = [seen for seen in (*reset.earlier, *reset.later) if "R" in seen.flags]
    ttls = sorted({reset.rst.ttl, *(seen.ttl for seen in resets if _alike(seen, reset.rst))})
    if len({model.hops(ttl) for ttl in ttls}) > 1:
        return f"at a distance that its TTLs ({', '.join(map(str, ttls))}) do not tell"
    if hops > MOST_ROUTERS:
        return f"at a distance that its TTL {reset.rst.ttl} does not tell"
    return distance_text(hops)


def _alike(seen: model.Seen, rst: model.Packet) -> bool:
    """Whether two RSTs look made by the same: not the peer's own beside a forged one."""
    return ("A" in seen.flags) == ("A" in rst.flags)


def process_text(comm: str | None, pid: int | None) -> str:
    """``mysql[4711]``."""
    if not comm:
        return f"pid {pid}"
    return safe(comm) if pid is None else f"{safe(comm)}[{pid}]"


def owner_process_text(process: model.Process | None) -> str:
    """``mysql[4711]``, ``mysql[4711] (listener)``; empty where it is not known."""
    if process is None or not (process.comm or process.pid is not None):
        return ""
    text = process_text(process.comm, process.pid)
    return f"{text} (listener)" if process.listener else text


def netns_text(netns: int, name: str | None) -> str:
    """``netns web-0``, or by its inode."""
    return f"netns {safe(name)}" if name else f"netns:{netns}"


def made_here_summary(made: model.MadeHere) -> str:
    """Which part of this node made a RST in the peer's name, in a few words."""
    if made.kind is model.Kind.SENT_NETFILTER:
        return f"this node's own firewall rejected it, in {netns_text(made.netns, made.netns_name)}"
    if made.kind is model.Kind.SENT_RAW:
        return "a process of this node wrote it"
    return f"this node itself answered, in {netns_text(made.netns, made.netns_name)}"


def made_here_text(made: model.MadeHere, origin: model.Origin) -> str:
    """Which part of this node made a RST."""
    place = netns_text(made.netns, made.netns_name)
    # pid 0 is the idle task: the kernel worked on its own
    process = process_text(made.comm, made.pid) if made.pid or (made.comm and made.pid != 0) else ""
    hook = f"hook {safe(made.hook)}" if made.hook else ""
    verb = "forged" if origin is model.Origin.FORGED else "sent"
    if made.kind is model.Kind.SENT_NETFILTER:
        maker, more = "this node's own firewall", [place, hook, process]
    elif made.kind is model.Kind.SENT_RAW:
        maker, more = "a process of this node through a raw socket", [process, place]
    else:
        maker, more = f"this node itself, the TCP stack of {place}", [process]
    inside = ", ".join(filter(None, more))
    return f"{verb} by {maker}" + (f" ({inside})" if inside else "")


def claimed_sender(reset: model.Reset) -> str:
    """The end that the RST says it comes from: server or client where the handshake was seen."""
    if reset.kind.direction == "forwarded":
        return safe(reset.local.ip)
    state = reset.socket.state if reset.socket else None
    theirs, ours = reset.baseline.theirs, reset.baseline.ours
    syns = {item.flags for item in (theirs.recent if theirs else ()) if "S" in item.flags}
    ours_ns, theirs_ns = (half.syn_ns if half else None for half in (ours, theirs))
    if state == "SYN_SENT" or any("A" in flags for flags in syns):
        return "the server"
    if state in ("SYN_RECV", "NEW_SYN_RECV") or syns:
        return "the client"
    if ours_ns is None or theirs_ns is None or ours_ns == theirs_ns:
        return "the peer"
    return "the server" if ours_ns < theirs_ns else "the client"


def neighbor_text(neighbor: model.Neighbor, reset: model.Reset) -> str:
    """``by 00:d0:f8:22:33:44 (Ruijie Networks) = 192.168.1.1, our gateway, on eth0``."""
    text = neighbor_name(neighbor, reset)
    named = neighbor.mac is not None or neighbor.ip is not None
    return f"by {text}" if named else text


def neighbor_name(neighbor: model.Neighbor, reset: model.Reset) -> str:
    """The same without ``by``; only the interface where no more is known."""
    forwarded = reset.kind.direction == "forwarded"
    claimed = reset.local if forwarded else reset.remote
    vendor = f" ({safe(neighbor.vendor, 100)})" if neighbor.vendor else ""
    mac = f"{safe(neighbor.mac)}{vendor}" if neighbor.mac else ""
    name = " = ".join(filter(None, [mac, safe(neighbor.ip or "")]))
    clauses = [name] if name else []
    hop = reset.next_hop
    if name and neighbor.is_gateway:
        clauses.append("our gateway")
    elif name and neighbor.ip == claimed.ip:
        sender = "the claimed sender" if forwarded else claimed_sender(reset)
        clauses.append(f"{sender}'s own address")
    elif name and neighbor.is_gateway is False:
        other = hop and hop.is_gateway and hop.ip != neighbor.ip
        clauses.append(f"not our gateway {safe(hop.ip)}" if hop and other else "not our gateway")
    if neighbor.ifname:
        clauses.append(f"on {safe(neighbor.ifname)}")
    elif neighbor.ifindex:
        clauses.append(f"on interface {neighbor.ifindex}")
    return ", ".join(clauses)


def device_facts(neighbor: model.Neighbor | None) -> list[str]:
    """Where to walk to: the port of this node's bridge, the switch that a cable leads to."""
    facts = []
    if neighbor is not None and (port := neighbor.bridge) is not None:
        facts.append(bridge_text(port))
    if neighbor is not None and (switch := neighbor.switch) is not None:
        name = safe(switch.name or switch.id or "", _LLDP)
        if switch.name and switch.id:
            name += f" ({safe(switch.id, _LLDP)})"
        fact = f"{safe(switch.ifname)} is plugged into {name}"
        if switch.port:
            fact += f", port {safe(switch.port, _LLDP)}"
        if switch.port_text and switch.port_text != switch.port:
            fact += f" ({safe(switch.port_text, _LLDP)})"
        facts.append(f"{fact}, says LLDP")
    return facts


def bridge_text(port: model.BridgePort) -> str:
    """``behind port p1 of this node's bridge br0``."""
    name = safe(port.port) if port.port is not None else f"interface {port.ifindex}"
    bridge = safe(port.bridge) if port.bridge is not None else f"{port.bridge_ifindex}"
    return f"behind port {name} of this node's bridge {bridge}"
