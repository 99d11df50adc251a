"""Who and where: neighbours, namespaces, processes, containers, vendors.

`Enricher` fills the second block of a `rsttrace.model.Reset`. What cannot be found out stays
``None``: enrichment never makes tracing fail.
"""

from __future__ import annotations

from collections import deque

from rsttrace.enrich.neighbors import Neighbors
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.owner import Owners
from rsttrace.enrich.owner import owners as make_owners
from rsttrace.enrich.proxied import answered_here
from rsttrace.enrich.question import REFUSED
from rsttrace.enrich.service import Services
from rsttrace.model import Frame, Kind, Neighbor, Process, Reset
from rsttrace.model.record import changed

_PUT_OFF = 256
"""Resets that wait for the next look at the node's processes."""

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
        self._owners = make_owners() if owners is True else owners or None
        self._close_owners = owners is True
        self._unready: deque[Reset] = deque(maxlen=_PUT_OFF)
        self._services = Services(self.directory, self._owners) if self._owners else None

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
        if self._owners is not None and self._close_owners:
            self._owners.close()

    def warm_up(self) -> None:
        """Load what the first look-up needs (pyroute2, our own namespace's tables, lldpd) now.

        It takes a few tenths of a second: time that the first reset of a storm has not.
        """
        if self._neighbors is not None:
            self._neighbors.warm_up()

    def turn(self) -> None:
        """What is enriched from here on to the next turn came before this.

        So it is enough to look once meanwhile whether a namespace is still there, and what has
        changed in it. Without turns that is looked at for each reset.
        """
        self.directory.turn()
        if self._neighbors is not None:
            self._neighbors.turn()

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
            reset.made_here = changed(made_here, netns_name=self.directory.name(made_here.netns))
        self._add_network(reset)
        if self._neighbors is not None and reset.made_here is not None:
            note = answered_here(reset, self._neighbors.has_mac)
            reset.notes += () if note is None else (note,)
        if self._owners is not None:
            self._owners.put_off = False
            self._add_owner(reset, self._owners)
            if self._owners.put_off and (reset.process is None or reset.process.pid is None):
                self._unready.append(reset)

    def again(self) -> None:
        """Look once more for processes that could not be looked for at once: walks have a pace."""
        if self._owners is None or not self._unready or not self._owners.ready():
            return
        resets, self._unready = list(self._unready), deque(maxlen=_PUT_OFF)
        for reset in resets:
            self._add_owner(reset, self._owners)

    def _add_network(self, reset: Reset) -> None:
        neighbors = self._neighbors
        if neighbors is None:
            return
        made = reset.made_here
        if made is not None and made.source is not None:
            owns = neighbors.owns(made.netns, made.source)
            reset.made_here = changed(made, owns_source=owns)
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

    def _add_owner(self, reset: Reset, owners: Owners) -> None:
        socket = reset.socket
        reset.process = process = self._process(reset, owners)
        # A socket knows its cgroup; what is left of a closed one does not, but its process did.
        cgroup = socket.cgroup if socket is not None else None
        cgroup = cgroup or (process.cgroup if process is not None else None)
        if cgroup:
            reset.container, reset.pod = owners.container(cgroup)
            reset.unit = owners.unit(cgroup)
        if process is None or not process.pid:
            return
        # where containers live in v1 hierarchies the socket's v2 cgroup is the root
        if reset.container is None and reset.pod is None:
            reset.container, reset.pod = owners.container_of_process(process.pid)
        if reset.unit is None:
            reset.unit = owners.unit_of_process(process.pid)

    def _process(self, reset: Reset, owners: Owners) -> Process | None:
        """Whose it was, by what the kernel side saw, else who holds the socket, else the listener.

        The kernel side saw who connected, accepted or read last. If that one is gone, and the
        socket is not, another one has it.
        """
        process, socket = reset.process, reset.socket
        uid = process.uid if process is not None else None
        if socket is not None and socket.uid is not None:
            uid = socket.uid
        listening = socket is not None and socket.state in _LISTENERS_OWN
        if process is None or process.pid is None or _has_left(reset, owners):
            inode = socket.inode if socket is not None else None
            found = owners.process(inode, reset.netns) if inode else None
            if found is not None:
                return Process(*found, uid, listener=listening)
        if process is None or process.pid is None:
            service = self._service(reset)
            if service is not None:
                return changed(service, uid=uid if uid is not None else service.uid)
        if process is None:
            return None if uid is None else Process(None, None, uid)
        return process if process.uid is not None else changed(process, uid=uid)

    def _service(self, reset: Reset) -> Process | None:
        """The listener's process, of a connection that may have come by one."""
        if self._services is None or reset.netns is None or not _may_have_listener(reset):
            return None
        return self._services.process(reset.netns, reset.netns_identity, reset.local)


_LISTENERS_OWN = ("LISTEN", "SYN_RECV")
"""States in which a connection's socket is its listener's, or still waits there."""

_OF_CONNECTIONS = (
    Kind.SENT_PASSIVE,
    Kind.SENT_ACTIVE,
    Kind.RECEIVED_ACCEPTED,
    Kind.RECEIVED_REJECTED,
    Kind.RECEIVED_UNMATCHED,
)
"""Kinds of resets that are about a connection of this namespace, perhaps one that is over."""


def _may_have_listener(reset: Reset) -> bool:
    opened = reset.socket is not None and reset.socket.state == "SYN_SENT"
    return (
        reset.kind in _OF_CONNECTIONS
        and reset.counted is None
        and not opened
        and reset.cause.name not in REFUSED
    )


def _has_left(reset: Reset, owners: Owners) -> bool:
    """Whether the process that used the socket before has ended, with the socket still open."""
    process, socket = reset.process, reset.socket
    if process is None or process.pid is None or socket is None or not socket.inode:
        return False
    if process.exit_signal is not None or process.exit_status is not None:
        return False
    by_itself = reset.kind is Kind.SENT_ACTIVE
    return not by_itself and not owners.runs(process.pid)
