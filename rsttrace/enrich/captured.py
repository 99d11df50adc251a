"""What can be said about a captured reset without asking this machine: it may be another's."""

from __future__ import annotations

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
    reset.neighbor = Neighbor(
        mac=frame.mac,
        vendor=vendor(frame.mac),
        ip=None,
        is_gateway=None,
        ifindex=frame.ifindex,
        ifname=None,
        netns=frame.netns,
    )
