"""Who has an address, after everybody on the link was asked: as text and as JSON."""

from __future__ import annotations

from typing import Any

from rsttrace.jsonl import SCHEMA
from rsttrace.model import AddressHolders, Holder
from rsttrace.render.drawing import WIDTH, plain_lines, wrapped
from rsttrace.render.escape import safe
from rsttrace.render.json import bridge_object
from rsttrace.render.words import bridge_text

_ASKED = {"arp": "ARP request", "nd": "neighbour solicitation"}
_PROXY = {"arp": "proxy ARP", "nd": "a neighbour proxy"}


def holders_lines(found: AddressHolders, *, plain: bool = False, indent: str = "") -> list[str]:
    """The verdict, and below it everybody who answered: at most `WIDTH` columns."""
    width = WIDTH - len(indent)
    where = safe(found.ifname) if found.ifname is not None else f"interface {found.ifindex}"
    asked = f"{found.sent} {_ASKED[found.method]}{'s' if found.sent != 1 else ''}"
    lines = wrapped(f"{safe(found.ip)} on {where}: {_said(found, asked)}", width)
    for holder in found.holders:
        lines += wrapped(_holder(holder), width, first="  ")
    silent = [mac for mac in found.seen if mac not in {holder.mac for holder in found.holders}]
    for mac in silent:
        lines += wrapped(f"{safe(mac)}: seen in packets, did not answer", width, first="  ")
    if found.confirmed:
        lines += wrapped(
            "- one host with two interfaces in this network, or a router with "
            f"{_PROXY[found.method]}, answers like this too",
            width,
            first="  ",
        )
    return [indent + line for line in plain_lines(lines, plain)]


def _said(found: AddressHolders, asked: str) -> str:
    if found.confirmed:
        return f"confirmed: {len(found.holders)} MACs answer to {asked}"
    if found.holders:
        return f"not confirmed: one MAC answers to {asked}"
    return f"not confirmed: nobody answers to {asked}"


def _holder(holder: Holder) -> str:
    vendor = f" ({safe(holder.vendor, 100)})" if holder.vendor else ""
    count = "1 answer" if holder.answers == 1 else f"{holder.answers} answers"
    text = f"{safe(holder.mac)}{vendor}: {count}"
    return text if holder.bridge is None else f"{text}, {bridge_text(holder.bridge)}"


def holders_object(found: AddressHolders, *, entry: int | None = None) -> dict[str, Any]:
    """``{"schema": 1, "address": {…}}``. `entry` is the id of the entry that it belongs to."""
    return {
        "schema": SCHEMA,
        "address": {
            "entry": entry,
            "ip": found.ip,
            "confirmed": found.confirmed,
            "macs": [
                {
                    "mac": holder.mac,
                    "vendor": holder.vendor,
                    "answers": holder.answers,
                    "bridge": bridge_object(holder.bridge),
                }
                for holder in found.holders
            ],
            "seen": list(found.seen),
            "method": found.method,
            "sent": found.sent,
            "ifindex": found.ifindex,
            "ifname": found.ifname,
            "netns": found.netns,
            "duration_ms": found.duration_ns / 1e6,
        },
    }
