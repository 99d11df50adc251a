"""Who has an address, after everybody on the link was asked: as text and as JSON."""

from __future__ import annotations

from typing import Any

from rsttrace.jsonl import SCHEMA
from rsttrace.model import AddressCheck, Holder
from rsttrace.render.drawing import WIDTH, plain_lines, wrapped
from rsttrace.render.escape import safe
from rsttrace.render.json import bridge_object
from rsttrace.render.words import bridge_text

_ASKED = {"arp": "ARP request", "nd": "neighbour solicitation"}
_PROXY = {"arp": "proxy ARP", "nd": "a neighbour proxy"}


def address_lines(check: AddressCheck, *, plain: bool = False, indent: str = "") -> list[str]:
    """The verdict, and below it everybody who answered: at most `WIDTH` columns."""
    width = WIDTH - len(indent)
    where = safe(check.ifname) if check.ifname is not None else f"interface {check.ifindex}"
    asked = f"{check.sent} {_ASKED[check.method]}{'s' if check.sent != 1 else ''}"
    lines = wrapped(f"{safe(check.ip)} on {where}: {_said(check, asked)}", width)
    for holder in check.holders:
        lines += wrapped(_holder(holder), width, first="  ")
    silent = [mac for mac in check.seen if mac not in {holder.mac for holder in check.holders}]
    for mac in silent:
        lines += wrapped(f"{safe(mac)}: seen in packets, did not answer", width, first="  ")
    if check.confirmed:
        lines += wrapped(
            "- one host with two interfaces in this network, or a router with "
            f"{_PROXY[check.method]}, answers like this too",
            width,
            first="  ",
        )
    return [indent + line for line in plain_lines(lines, plain)]


def _said(check: AddressCheck, asked: str) -> str:
    if check.confirmed:
        return f"confirmed: {len(check.holders)} MACs answer to {asked}"
    if check.holders:
        return f"not confirmed: one MAC answers to {asked}"
    return f"not confirmed: nobody answers to {asked}"


def _holder(holder: Holder) -> str:
    vendor = f" ({safe(holder.vendor, 100)})" if holder.vendor else ""
    count = "1 answer" if holder.answers == 1 else f"{holder.answers} answers"
    text = f"{safe(holder.mac)}{vendor}: {count}"
    return text if holder.bridge is None else f"{text}, {bridge_text(holder.bridge)}"


def address_object(check: AddressCheck, *, entry: int | None = None) -> dict[str, Any]:
    """``{"schema": 1, "address": {…}}``. `entry` is the id of the entry that it belongs to."""
    return {
        "schema": SCHEMA,
        "address": {
            "entry": entry,
            "ip": check.ip,
            "confirmed": check.confirmed,
            "macs": [
                {
                    "mac": holder.mac,
                    "vendor": holder.vendor,
                    "answers": holder.answers,
                    "bridge": bridge_object(holder.bridge),
                }
                for holder in check.holders
            ],
            "seen": list(check.seen),
            "method": check.method,
            "sent": check.sent,
            "ifindex": check.ifindex,
            "ifname": check.ifname,
            "netns": check.netns,
            "duration_ms": check.duration_ns / 1e6,
        },
    }
