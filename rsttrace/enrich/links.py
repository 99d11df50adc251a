"""How the interfaces of a namespace hang together: bridges and ports, bonds, VLANs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rsttrace.model import BridgePort

BUILT_ON_ANOTHER = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
"""Interfaces whose IFLA_LINK is the device below them (for veth it is the other end)."""

_BUNDLES = frozenset({"bond", "team"})


@dataclass(frozen=True)
class Link:
    """An interface: its name, the bridge, bond or VRF above it, the device that it is built on.

    `vlan` is the tag of a VLAN interface, `mac` its own address.
    """

    name: str | None
    master: int | None
    lower: int | None
    kind: str | None
    vlan: int | None = None
    mac: str | None = None


class Links(dict[int, Link]):
    """The interfaces of one namespace by their index."""

    def name(self, ifindex: int) -> str | None:
        """An interface's name, if there is such an interface."""
        link = self.get(ifindex)
        return link.name if link else None

    def with_uppers(self, ifindex: int) -> list[int]:
        """The interface and those above it, nearest first: its bridge, bond, VLANs on it…"""
        found = [ifindex]
        for lower in found:
            link = self.get(lower)
            if link and link.master and link.master not in found:
                found.append(link.master)
            found.extend(
                index
                for index, upper in self.items()
                if upper.lower == lower and index not in found
            )
        return found

    def entry_port(self, ifindex: int) -> BridgePort | None:
        """The bridge port that an interface is, or is a part of (a bond's): frames enter by it."""
        seen = set()
        while ifindex not in seen:
            seen.add(ifindex)
            link = self.get(ifindex)
            master = self.get(link.master) if link and link.master else None
            if link is None or link.master is None or master is None:
                return None
            if master.kind == "bridge":
                return BridgePort(master.name, link.master, link.name, ifindex)
            ifindex = link.master
        return None

    def bridge_of(self, ifindex: int) -> tuple[int, list[int]] | None:
        """The bridge that an interface is, or is a VLAN or port of, and the tags of these VLANs."""
        tags = []
        link = self.get(ifindex)
        for _ in self:
            if link is None or link.kind == "bridge" or not link.lower:
                break
            if link.vlan is not None:
                tags.append(link.vlan)
            ifindex, link = link.lower, self.get(link.lower)
        if link is None:
            return None
        if link.kind != "bridge":
            port = self.entry_port(ifindex)
            if port is None:
                return None
            ifindex = port.bridge_ifindex
        return ifindex, tags

    def cables(self, ifindex: int) -> list[str]:
        """The names of the interfaces below one that cables may be plugged into."""
        link = self.get(ifindex)
        for _ in self:
            if link is None or not link.lower:
                break
            ifindex, link = link.lower, self.get(link.lower)
        if link is None:
            return []
        parts = [link]
        if link.kind in _BUNDLES:
            parts = [part for part in self.values() if part.master == ifindex]
        return [part.name for part in parts if part.name is not None]

    def vrf_of(self, ifindex: int) -> int | None:
        """The VRF's device that an interface belongs to."""
        for index in self.with_uppers(ifindex):
            link = self.get(index)
            if link and link.kind == "vrf":
                return index
        return None
