"""What can be said about a captured reset without asking this machine: it may be another's."""

from __future__ import annotations

from functools import lru_cache

from rsttrace.enrich.vendor import vendor
from rsttrace.model import Neighbor, Reset


def enrich_captured(reset: Reset) -> None:
    """Name the vendor behind the MAC that handed a received RST over, in place.

    This machine's neighbours, routes and processes are not looked at: they say nothing about the
    place where the capture was made.
    """
    frame = reset.frame
    if frame is None or frame.mac is None or reset.kind.direction == "sent":
        return
    reset.neighbor = _neighbor(frame.mac, frame.ifindex, frame.netns)


@lru_cache(maxsize=1024)
def _neighbor(mac: str, ifindex: int | None, netns: int | None) -> Neighbor:
    """Few neighbours hand over all resets of a capture."""
    return Neighbor(
        mac=mac,
        vendor=vendor(mac),
        ip=None,
        is_gateway=None,
        ifindex=ifindex,
        ifname=None,
        netns=netns,
    )
