"""Puts a forged reset on a path: from its hop distance, or from a replay. Pure functions.

Counting: a packet that router *k* makes arrives here over *k* - 1 routers, and so does one made on
the link before it (a bridge, a tap). So a reset from N hops away was made by hop N + 1, or on the
link between hop N and hop N + 1. Routers' own answers are counted the same way: where they come
back over another number of routers than they are away, the path is not symmetric, and it is the way
back that the reset's TTL counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsttrace.model import FULL_TTL, Attempt, Hop, Path, Placement, hops


def place(
    path: Path,
    rst_hops: int,
    *,
    peer_hops: int | None = None,
    mac: str | None = None,
) -> Placement:
    """Where on the path a reset from `rst_hops` hops away was made.

    `peer_hops` is how far the peer was then, by its baseline; `mac` who handed us the reset.
    """
    notes = _changes(path, peer_hops)
    doubtful = bool(notes)
    if rst_hops == 0 and mac and path.next_hop and path.next_hop.mac not in (None, mac):
        gateway = path.next_hop
        return Placement(
            None,
            "likely",
            f"on our own link: {mac} handed it to us, and not our next hop {gateway.ip} "
            f"({gateway.mac})",
            tuple(notes),
            rst_hops,
        )
    number, why_not = _by_way_back(path, rst_hops)
    if number is None:
        return Placement(None, "unknown", why_not, (*notes, _ASK_REPLAY), rst_hops)
    text = _where(path, number)
    hop = path.hop(number)
    if hop is None:
        return Placement(None, "unknown", text, (*notes, _ASK_REPLAY), rst_hops)
    if len(hop.ips) > 1:
        doubtful = True
        notes.append(
            f"hop {number} has {len(hop.ips)} addresses: the path divides, by connection or by "
            "packet, and the reset's may have taken either way"
        )
    elif any(len(other.ips) > 1 for other in path.hops[: number - 1]):
        notes.append("the path divides before this hop and joins again")
    if not hop.answers:
        notes.append(f"hop {number} answers no probe: its place is known, its address is not")
    copied = rst_hops // 2 + 1
    if rst_hops and copied != number:
        notes.append(
            f"if the device copies the TTL of our packets, it is hop {copied}{_name(path, copied)}"
            " instead: --replay tells"
        )
    return Placement(number, "possible" if doubtful else "likely", text, tuple(notes), rst_hops)


_ASK_REPLAY = "--replay finds the place without the reset's TTL"


def place_replay(path: Path, attempts: Sequence[Attempt]) -> Placement:
    """Where the device is that answered a replay's bytes with a reset."""
    resets = [attempt for attempt in attempts if attempt.reset_ttl is not None]
    if not resets:
        return _nothing_provoked(attempts)
    lowest = min(attempt.ttl for attempt in resets)
    notes = [_repeated(attempts, lowest)]
    steady = _is_steady(attempts, lowest)
    copier = _copier_hops(resets, lowest)
    if copier is not None:
        notes.append(
            f"it copies the TTL of our packets: sent with {FULL_TTL}, the reset arrives with "
            f"{_full_reset_ttl(resets)}, and half of the difference is the way there"
        )
        return _proved(path, copier + 1, steady, notes, copier)
    if lowest == FULL_TTL:
        return Placement(
            None,
            "unknown",
            f"a reset came only for bytes sent with TTL {FULL_TTL}, which reach the peer",
            (*notes, "the peer itself may have sent it"),
        )
    return _by_lowest(path, resets, lowest, steady, notes)


def _nothing_provoked(attempts: Sequence[Attempt]) -> Placement:
    reached = any(attempt.reply for attempt in attempts)
    return Placement(
        None,
        "unknown",
        "the bytes provoked no reset"
        + (" though they reached the peer" if reached else " (and the peer gave no sign)"),
        ("the device may want other bytes, or more than one packet, or be idle by now",),
    )


def _by_lowest(
    path: Path, resets: Sequence[Attempt], lowest: int, steady: bool, notes: list[str]
) -> Placement:
    """By the least TTL that provoked a reset, and by the TTL of the resets themselves."""
    found = {hops(attempt.reset_ttl) for attempt in resets if attempt.reset_ttl is not None}
    rst_hops = min(found) if len(found) == 1 else None
    if path.distance is not None and lowest >= path.distance and rst_hops != path.distance - 2:
        return Placement(
            None,
            "unknown",
            "the reset came only for bytes that reach the peer",
            (*notes, "the peer itself, or a device right beside it, sent it"),
            rst_hops,
        )
    if rst_hops is not None and rst_hops + 2 == lowest:
        notes.append("it acts on what it forwards: bytes that end there provoke nothing")
        return _proved(path, lowest - 1, steady, notes, rst_hops)
    if rst_hops is not None and rst_hops + 1 == lowest:
        notes.append(f"the reset's own TTL says the same: {_routers(rst_hops)} on its way to us")
        return _proved(path, lowest, steady, notes, rst_hops)
    notes.append(
        "the reset's own TTL does not fit: it varies"
        if rst_hops is None
        else f"the reset's own TTL implies {_routers(rst_hops)} on its way to us"
    )
    if lowest > 1:
        notes.append(f"a device that acts only on what it forwards would be hop {lowest - 1}")
    return Placement(lowest, "likely", _where(path, lowest), tuple(notes), rst_hops)


def _proved(path: Path, number: int, steady: bool, notes: list[str], rst_hops: int) -> Placement:
    sure = "proved" if steady else "likely"
    return Placement(number, sure, _where(path, number), tuple(notes), rst_hops)


def _is_steady(attempts: Sequence[Attempt], lowest: int) -> bool:
    """Whether it was seen more than once, every time with this TTL and above, never below."""
    at = [attempt for attempt in attempts if attempt.ttl == lowest]
    return len(at) > 1 and all(
        (attempt.reset_ttl is not None) == (attempt.ttl >= lowest) for attempt in attempts
    )


def _repeated(attempts: Sequence[Attempt], lowest: int) -> str:
    def count(ttl: int) -> str:
        made = [attempt for attempt in attempts if attempt.ttl == ttl]
        return f"{sum(a.reset_ttl is not None for a in made)} of {len(made)}"

    text = f"a reset came for {count(lowest)} connections with TTL {lowest}"
    below = max((attempt.ttl for attempt in attempts if attempt.ttl < lowest), default=None)
    if below is not None:
        text += f", for {count(below)} with TTL {below}"
    return text


def _full_reset_ttl(resets: Sequence[Attempt]) -> int | None:
    return next((attempt.reset_ttl for attempt in resets if attempt.ttl == FULL_TTL), None)


def _copier_hops(resets: Sequence[Attempt], lowest: int) -> int | None:
    """How far a TTL copier is: (sent - received) / 2; ``None``: it is none, as far as seen."""
    full = _full_reset_ttl(resets)
    if full is None or full > FULL_TTL or lowest == FULL_TTL:
        return None
    low = next(attempt.reset_ttl for attempt in resets if attempt.ttl == lowest)
    return (FULL_TTL - full) // 2 if low is not None and full - low == FULL_TTL - lowest else None


def _changes(path: Path, peer_hops: int | None) -> list[str]:
    """What makes a place on this path doubtful."""
    notes = []
    back = path.peer_back
    if peer_hops is not None and back and peer_hops not in back:
        notes.append(
            f"the path has changed: the peer's packets came over {_routers(peer_hops)} then, over "
            f"{_listed(back)} now"
        )
    if path.distance is not None and back and path.distance - 1 not in back:
        notes.append(
            f"the path is not symmetric: {_routers(path.distance - 1)} on the way to the peer, "
            f"{_listed(back)} on the way back"
        )
    if path.echo_hops is not None and back and path.echo_hops not in back:
        notes.append(
            f"the peer answers ICMP over {_routers(path.echo_hops)}, TCP over {_listed(back)}: "
            "something else answers TCP in its name"
        )
    return notes


def _by_way_back(path: Path, rst_hops: int) -> tuple[int | None, str]:
    """The hop from which packets come back over so many routers; or why there is none."""
    what = f"the reset came over {_routers(rst_hops)}"
    distance = path.distance
    back = path.peer_back
    if rst_hops in back:
        return None, f"{what}, as the peer's own packets do: its TTL is copied or chosen"
    if back and rst_hops > max(back):
        return None, f"{what}, more than from the peer itself ({_listed(back)}): its TTL is chosen"
    matching = [hop.number for hop in path.hops if rst_hops in hop.back]
    if len(matching) == 1:
        return matching[0], ""
    if len(matching) > 1:
        return None, f"{what}, and so do the answers of hops {_numbers(matching)}"
    number = rst_hops + 1
    hop = path.hop(number)
    if hop is not None and not hop.answers and _symmetric_around(path, number):
        return number, ""
    if hop is None and distance is None:
        return None, f"{what}, and the path is known only up to hop {len(path.hops)}"
    if hop is None:
        return None, f"{what}, but the peer is hop {distance}"
    return None, f"{what}, and no router's answer does: the path is not symmetric"


def _symmetric_around(path: Path, number: int) -> bool:
    """Whether the nearest routers that answer, on both sides, do so over the way they are away."""
    before = [hop for hop in path.hops[: number - 1] if hop.answers][-1:]
    after = [hop for hop in path.hops[number:] if hop.answers][:1]
    if path.peer_hop is not None and path.distance is not None and not after:
        after = [path.peer_hop]
    return all(hop.number - 1 in hop.back for hop in (*before, *after))


def _where(path: Path, number: int) -> str:
    """``hop 3, 10.20.0.1, between 10.20.0.5 and 10.30.0.1``."""
    before = "this host" if number == 1 else _address(path.hop(number - 1)) or f"hop {number - 1}"
    if path.distance is not None and number + 1 >= path.distance:
        after: str = path.peer.ip
    else:
        after = _address(path.hop(number + 1)) or f"hop {number + 1}"
    return f"hop {number}{_name(path, number)}, between {before} and {after}"


def _name(path: Path, number: int) -> str:
    address = _address(path.hop(number))
    return f", {address}" if address else ""


def _address(hop: Hop | None) -> str:
    return " or ".join(hop.ips) if hop is not None else ""


def _routers(count: int) -> str:
    return "1 router" if count == 1 else f"{count} routers"


def _listed(counts: Sequence[int]) -> str:
    return " or ".join(map(str, counts))


def _numbers(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
