"""The way of a forged reset as a drawing, from what the entry itself knows: no packet is sent.

Hops are counted as `rsttrace.judge.placement` does: a RST that passed N routers was made by the
device that is N + 1 hops away, or on the link before it. The TTL tells that only as long as the
device began with one of the usual values; where that is in doubt no distance is drawn.
"""

from __future__ import annotations

from rsttrace import model
from rsttrace.render import neighbors
from rsttrace.render.drawing import WIDTH, Drawing
from rsttrace.render.escape import safe
from rsttrace.render.words import (
    claimed_sender,
    device_facts,
    endpoint_text,
    made_here_text,
    neighbor_name,
    netns_text,
    verdict_text,
)


def picture_lines(entry: model.Entry, *, plain: bool = False, width: int = WIDTH) -> list[str]:
    """The path from here to the peer with the device that forged; at most `width` columns.

    Empty for what is not forged, or was sent here; and where another vantage point has placed the
    device, which the comparison draws. `plain`: ASCII only.
    """
    reset, verdict = entry.reset, entry.verdict
    if verdict.origin is not model.Origin.FORGED or reset.kind.direction == "sent":
        return []
    if reset.other_end is not None and reset.other_end.where:
        return []
    drawing = Drawing(plain=plain, width=width)
    drawing.stop(_start(reset))
    if reset.made_here is not None:
        _made_here(drawing, entry, reset.made_here)
    else:
        _made_on_the_way(drawing, entry)
    return drawing.lines()


def _start(reset: model.Reset) -> str:
    where = ""
    if reset.netns_name is not None and reset.netns is not None:
        where = f", {netns_text(reset.netns, reset.netns_name)}"
    if reset.kind.direction == "forwarded":
        return f"this node{where}, on the way to {endpoint_text(reset.remote)}"
    # a capture may be another machine's
    end = "this host" if reset.file is None else "this end"
    return f"{endpoint_text(reset.local)} ({end}{where})"


def _made_here(drawing: Drawing, entry: model.Entry, made: model.MadeHere) -> None:
    """Nothing on the path had a part in it."""
    notes = ["proved: this node saw itself make it"]
    drawing.stop(made_here_text(made, entry.verdict.origin), notes, marked=True)
    drawing.stretch(entry.verdict.hops_peer)
    _peer(drawing, entry, None)


def _made_on_the_way(drawing: Drawing, entry: model.Entry) -> None:
    reset, verdict = entry.reset, entry.verdict
    number, sure, why = _place(entry)
    known = _known(reset)
    drawn = 0
    for at in sorted(known):
        if number is None or at < number:
            if at - drawn > 1:
                drawing.stretch(at - drawn - 1)
            first, *notes = known[at]
            drawing.stop(first, notes, number=str(at))
            drawn = at
    if number is None:
        drawing.stretch(None)
    elif number - drawn > 1:
        drawing.stretch(number - drawn - 1)
    notes = [f"{why} ({sure})" if number is not None else why]
    if number is not None:
        notes += [text for at, texts in known.items() if at >= number for text in texts]
        notes += _copied(reset, number)
    if verdict.device_name:
        notes.append(f"probably {safe(verdict.device_name, 100)}")
    label = "?" if number is None else str(number)
    text = f"made in the name of {claimed_sender(reset)}: {verdict_text(verdict)}"
    drawing.stop(text, notes, number=label, marked=True)
    peer = verdict.hops_peer
    if number is None or peer is None:
        drawing.stretch(None)
    else:
        drawing.stretch(peer - number)
    mac = reset.frame.mac if reset.frame else None
    _peer(drawing, entry, mac)


def _known(reset: model.Reset) -> dict[int, list[str]]:
    """What is known of the hops that handed it over, by their distance: lines each."""
    known: dict[int, list[str]] = {}
    neighbor = neighbors.neighbor(reset)
    if neighbor is None or neighbor.mac is None:
        # without a MAC it is an interface at most
        where = neighbor_name(neighbor, reset) if neighbor else ""
        known[1] = [f"the neighbour{f' {where}' if where else ''} that handed it to us: unknown"]
    else:
        known[1] = [neighbor_name(neighbor, reset), "handed it to us", *device_facts(neighbor)]
    ingress, frame = neighbors.ingress(reset), reset.ingress_frame
    if ingress is None or frame is None:
        return known
    if neighbor and (ingress.netns, ingress.ifindex) == (neighbor.netns, neighbor.ifindex):
        return known
    # this node's own routers are part of the way, as seen from the namespace
    routers = max(0, frame.ttl - reset.rst.ttl)
    came = f"handed it to this node, with TTL {frame.ttl}"
    if ingress.mac is not None:
        known.setdefault(routers + 1, []).extend(
            [neighbor_name(ingress, reset), came, *device_facts(ingress)]
        )
    return known


def _place(entry: model.Entry) -> tuple[int | None, str, str]:
    """The number of the hop that made it, how sure that is, and the sentence that says why.

    Without a number the sentence says why there is none.
    """
    reset, verdict = entry.reset, entry.verdict
    count, peer = verdict.hops_rst, verdict.hops_peer
    if count is None:
        return None, "", "how far away: not known"
    others = [seen for seen in (*reset.earlier, *reset.later) if "R" in seen.flags]
    ttls = {reset.rst.ttl, *(seen.ttl for seen in others)}
    if len({model.hops(ttl) for ttl in ttls}) > 1:
        listed = ", ".join(map(str, sorted(ttls)))
        return None, "", f"how far away: not known; its resets come with different TTLs ({listed})"
    passed = "passed no router" if not count else f"passed {_routers(count)} on its way to us"
    text = f"it {passed}, as its TTL {reset.rst.ttl} implies: "
    if not count:
        sure = "possible" if peer is None else "likely"
        return 1, sure, text + "this neighbour, or something on the link before it"
    if peer is not None and count == peer:
        return (
            None,
            "",
            (
                f"how far away: not known; its TTL {reset.rst.ttl} implies as many routers as the "
                f"peer's packets pass, {count}, and may be copied or chosen"
            ),
        )
    if peer is not None and count > peer:
        return (
            None,
            "",
            f"how far away: not known; its TTL {reset.rst.ttl} implies more routers ({count}) than "
            f"the peer's packets pass ({peer}): it is chosen, or the device is elsewhere",
        )
    where = f"hop {count + 1}, or something on the link before it"
    steady = _settled(reset.baseline.theirs)
    return count + 1, "likely" if peer is not None and steady else "possible", text + where


def _settled(half: model.Half | None) -> bool:
    """Whether all packets came over as many routers."""
    if half is None or half.ttl_min is None or half.ttl_max is None:
        return True
    return model.hops(half.ttl_min) == model.hops(half.ttl_max)


def _copied(reset: model.Reset, number: int) -> list[str]:
    """What a device that answers with the TTL of what it answers would look like."""
    copied = (number - 1) // 2 + 1
    if copied == number:
        return []
    return [f"hop {copied} instead, if the device copies the TTL of our packets"]


def _peer(drawing: Drawing, entry: model.Entry, mac: str | None) -> None:
    """The end that is impersonated. `mac`: who handed the RST over."""
    reset, peer = entry.reset, entry.verdict.hops_peer
    end = reset.local if reset.kind.direction == "forwarded" else reset.remote
    text = endpoint_text(end)
    if reset.kind.direction != "forwarded":
        text += f", {claimed_sender(reset)}"
    theirs = reset.baseline.theirs
    if peer is None:
        notes = ["how far away: not known, none of its packets was seen"]
        drawing.stop(text, notes, number="?", last=True)
        return
    passed = "no router" if not peer else _routers(peer)
    earlier = reset.baseline.scope is model.Scope.PEER
    which = "an earlier handshake" if earlier else "the packets"
    note = f"{which} from there passed {passed}, as the TTL implies"
    if theirs is not None and not _settled(theirs):
        note += f"; it varies from {theirs.ttl_min} to {theirs.ttl_max}"
    notes = [note]
    if mac and theirs is not None and theirs.mac and theirs.mac != mac:
        notes.append(f"handed to us by {safe(theirs.mac)}, not by {safe(mac)}")
    drawing.stop(text, notes, number=str(peer + 1), last=True)


def _routers(count: int) -> str:
    return "1 router" if count == 1 else f"{count} routers"
