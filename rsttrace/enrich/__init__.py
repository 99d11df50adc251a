"""Who and where: neighbours, namespaces, processes, containers, vendors.

`Enricher` fills the second block of a `rsttrace.model.Reset`. What cannot be found out stays
``None``: enrichment never makes tracing fail.
"""

from __future__ import annotations

from dataclasses import replace

from rsttrace.enrich.neighbors import Neighbors
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.proxied import answered_here
from rsttrace.model import Frame, Neighbor, Process, Reset

__all__ = ["Enricher", "Neighbors", "NetnsDirectory", "Owners"]


class Enricher:
    """Adds to a reset what this node's tables know. Close it, or use it as a context manager.

    `viewpoint_netns` leaves out what only the node knows (`Reset.ingress`, and `Reset.made_here`
    where another namespace made it), as if each namespace were a machine of its own. What a
    namespace's own firewall or raw socket made, such a machine would know, too. `neighbors` and
    `owners` switch off the network and the process part; an object given instead of ``True`` is
    used, and is its giver's to close.
    """

    def __init__(
        self,
        *,
        viewpoint_netns: bool = False,
        directory: NetnsDirectory | None = None,
        neighbors: Neighbors | bool = True,
        owners: Owners | bool = True,
    ) -> None:
        """Opens nothing yet."""
        self._viewpoint_netns = viewpoint_netns
        self.directory = directory or NetnsDirectory()
        self._neighbors = Neighbors(self.directory) if neighbors is True else neighbors or None
        self._close_neighbors = neighbors is True
        self._owners = Owners() if owners is True else owners or None

    def __enter__(self) -> Enricher:
        """Opens nothing yet."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close everything."""
        self.close()

    def close(self) -> None:
        """Close the sockets in other namespaces. The enricher can be used again."""
        if self._neighbors is not None and self._close_neighbors:
            self._neighbors.close()

    def warm_up(self) -> None:
        """Load what the first look-up needs (pyroute2, our own namespace's tables, lldpd) now.

        It takes a few tenths of a second: time that the first reset of a storm has not.
        """
        if self._neighbors is not None:
            self._neighbors.warm_up()

    def tidy(self) -> None:
        """Let go of namespaces that are gone: call it about once a second, resets or not.

        Without it a quiet tracer keeps the last namespaces it looked at, and their interfaces,
        alive after their container is gone. Costs a clock reading if called more often.
        """
        if self._neighbors is not None:
            self._neighbors.tidy()

    def ifname(self, netns: int, ifindex: int) -> str | None:
        """An interface's name in its namespace."""
        return None if self._neighbors is None else self._neighbors.ifname(netns, ifindex)

    def enrich(self, reset: Reset) -> None:
        """Fill in names, neighbours, next hop, process, container and pod, in place.

        Nothing that the source already knew is replaced by something unknown.
        """
        if self._viewpoint_netns:
            reset.ingress_frame = None
            if reset.made_here is not None and reset.made_here.netns != reset.netns:
                reset.made_here = None
        if reset.netns is not None and reset.netns_identity is not None:
            another = self.directory.met(reset.netns, reset.netns_identity)
            if another and self._neighbors is not None:
                self._neighbors.forget(reset.netns)
        if reset.netns is not None:
            reset.netns_name = self.directory.name(reset.netns)
        made_here = reset.made_here
        if made_here is not None and made_here.netns_name is None:
            reset.made_here = replace(made_here, netns_name=self.directory.name(made_here.netns))
        self._add_network(reset)
        if self._neighbors is not None and reset.made_here is not None:
            note = answered_here(reset, self._neighbors.has_mac)
            reset.notes += () if note is None else (note,)
        self._add_owner(reset)

    def _add_network(self, reset: Reset) -> None:
        neighbors = self._neighbors
        if neighbors is None:
            return
        made = reset.made_here
        if made is not None and made.source is not None:
            owns = neighbors.owns(made.netns, made.source)
            reset.made_here = replace(made, owns_source=owns)
        if reset.kind.direction in ("received", "forwarded"):
            # the packet's source, not `remote`: for a forwarded RST that is its destination
            source = reset.rst.src.ip
            reset.neighbor = self._neighbor(reset.frame, source)
            reset.ingress = self._neighbor(reset.ingress_frame, source)
        if reset.netns is not None:
            sent = reset.kind.direction == "sent"
            peer = reset.remote.ip if sent else reset.rst.src.ip
            reset.next_hop = neighbors.next_hop(reset.netns, peer)

    def _neighbor(self, frame: Frame | None, source: str) -> Neighbor | None:
        if frame is None or self._neighbors is None:
            return None
        if frame.netns is None or frame.ifindex is None:
            return None
        return self._neighbors.neighbor(frame.netns, frame.ifindex, frame.mac, source)

    def _add_owner(self, reset: Reset) -> None:
        owners, socket = self._owners, reset.socket
        if owners is None or socket is None:
            return
        process = reset.process
        if process is None or process.pid is None:
            found = owners.process(socket.inode, reset.netns) if socket.inode else None
            uid = socket.uid if socket.uid is not None else process.uid if process else None
            if found is not None:
                process = Process(found[0], found[1], uid)
            elif process is None and uid is not None:
                process = Process(None, None, uid)
        elif process.uid is None and socket.uid is not None:
            process = replace(process, uid=socket.uid)
        reset.process = process
        if socket.cgroup:
            reset.container, reset.pod = owners.container(socket.cgroup)
        if reset.container is None and reset.pod is None and process and process.pid:
            # where containers live in v1 hierarchies the socket's v2 cgroup is the root
            reset.container, reset.pod = owners.container_of_process(process.pid)
