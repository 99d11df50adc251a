"""Where a reset came in: the neighbours as looked up, else what the bare frames tell."""

from __future__ import annotations

from rsttrace import model


def neighbor(reset: model.Reset) -> model.Neighbor | None:
    """Who handed the RST to the receiving namespace."""
    return reset.neighbor or _bare(reset.frame)


def ingress(reset: model.Reset) -> model.Neighbor | None:
    """Who handed the RST to this node."""
    return reset.ingress or _bare(reset.ingress_frame)


def _bare(frame: model.Frame | None) -> model.Neighbor | None:
    if frame is None:
        return None
    return model.Neighbor(
        mac=frame.mac,
        vendor=None,
        ip=None,
        is_gateway=None,
        ifindex=frame.ifindex,
        ifname=None,
        netns=frame.netns,
    )
