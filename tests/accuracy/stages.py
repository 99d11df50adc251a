"""Stages that differ from the plain chain of routers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from rsttrace.demo.lab import NAMES
from tests.accuracy.stage import CLIENTS, SERVERS, V6, Play, Stage
from tests.lab.harness import no_offload


def forgers(stage: Stage, boxes: Sequence[str]) -> None:
    """One program that forges in each of these namespaces."""
    places = [f"{box}={NAMES / stage.lab.name(box)}" for box in boxes]
    stage.lab.spawn(boxes[0], stage.python("tests.accuracy.forge", *places), ready="forging")


class ForgersStage(Stage):
    """The chain, with a forger of ours in r1, r3 and r5."""

    prefix = "rstaccf"

    def build(self) -> None:
        super().build()
        forgers(self, ("r1", "r3", "r5"))


class JitterStage(Stage):
    """The chain, with 20 to 32 ms each way before the server, and forgers in r1 and r4."""

    prefix = "rstaccj"

    def build(self) -> None:
        self.lab.add("tap")
        super().build()
        command = self.python("tests.accuracy.tap", "left", "right", "20", "12")
        self.lab.spawn("tap", command, ready="bridging")
        for role, interface in (("r5", "out"), ("server", "eth0")):
            no_offload(self.lab, role, interface)
        forgers(self, ("r1", "r4"))

    def cable(self, near: str, near_if: str, far: str, far_if: str, number: int) -> None:
        if far != "server":
            super().cable(near, near_if, far, far_if, number)
            return
        self.lab.link(near, near_if, "tap", "left")
        self.lab.link(far, far_if, "tap", "right")
        self.lab.addresses(near, near_if, f"10.80.{number}.1/30", f"fd80:{number}::1/64")
        self.lab.addresses(far, far_if, f"10.80.{number}.2/30", f"fd80:{number}::2/64")


class SwapStage(Stage):
    """client - r1 - (tap) - r2 - server: the tap is a bridge that turns answers into resets."""

    prefix = "rstaccs"
    hops = 2

    def build(self) -> None:
        self.lab.add("client", "r1", "tap", "r2", "server")
        self.cable("client", "eth0", "r1", "in", 0)
        self.cable("r2", "out", "server", "eth0", 2)
        self.lab.link("r1", "out", "tap", "left")
        self.lab.link("r2", "in", "tap", "right")
        self.lab.addresses("r1", "out", "10.80.1.1/30", "fd80:1::1/64")
        self.lab.addresses("r2", "in", "10.80.1.2/30", "fd80:1::2/64")
        for number, role in enumerate(("client", "r1", "r2", "server")):
            if number < 3:
                self.toward(role, SERVERS, number, far=True)
            if number:
                self.toward(role, CLIENTS, number - 1, far=False)
        for role in ("r1", "r2"):
            self.lab.router(role)
        self.own("client", CLIENTS)
        self.own("server", SERVERS)
        for role, interface in (
            ("client", "eth0"),
            ("server", "eth0"),
            ("r1", "out"),
            ("r2", "in"),
        ):
            no_offload(self.lab, role, interface)
        self.lab.spawn("tap", self.python("tests.accuracy.tap", "left", "right"), ready="bridging")


class LanStage(Stage):
    """A hub with client, attacker, neighbour, a NAT box and two gateways; behind these the server.

    client 10.82.0.1, gateway address 10.82.0.254 (held by gwa, later perhaps by gwb), then r3 and
    r4. `inner` is behind the NAT box: its packets have the box's address.
    """

    prefix = "rstaccl"
    hops = 3
    NEIGHBOUR = 5
    ATTACKER = 6
    NATBOX = 7
    INNER = "10.80.35.2"
    GATEWAY = "10.82.0.254"
    watched = (
        ("client", "eth0"),
        ("server", "eth0"),
        ("neighbour", "eth0"),
        ("neighbour", "eth1"),
        ("inner", "eth0"),
    )

    def build(self) -> None:
        self.lab.add("hub", "client", "attacker", "neighbour", "natbox", "inner")
        self.lab.add("gwa", "gwb", "r3", "r4", "server")
        # ageing_time 0: it learns nothing and sends everything everywhere, as a hub does.
        self.lab.ip("hub", "link add br0 type bridge ageing_time 0", "link set br0 up")
        hosts = {
            "client": 1,
            "attacker": self.ATTACKER,
            "neighbour": self.NEIGHBOUR,
            "natbox": self.NATBOX,
        }
        for role in (*hosts, "gwa", "gwb"):
            port = f"p{role}"
            self.lab.link(role, "eth0", "hub", port)
            self.lab.ip("hub", f"link set {port} master br0")
        self.lab.link("neighbour", "eth1", "hub", "psecond")
        self.lab.ip("hub", "link set psecond master br0")
        for role, number in hosts.items():
            self.lab.addresses(role, "eth0", f"10.82.0.{number}/24")
            if role != "client":
                self.lab.route(role, f"{CLIENTS[0]} via 10.82.0.1")
            self.lab.route(role, f"{SERVERS[0]} via {self.GATEWAY}")
        for number, role in enumerate(("gwa", "gwb")):
            self.lab.addresses(role, "eth0", f"10.82.0.{252 + number}/24")
            self.lab.route(role, f"{CLIENTS[0]} via 10.82.0.1")
            self.cable(role, "out", "r3", f"in{role}", 30 + number)
            self.lab.route(role, f"{SERVERS[0]} via 10.80.{30 + number}.2")
            self.lab.router(role)
        self.lab.addresses("gwa", "eth0", f"{self.GATEWAY}/24")
        self.cable("r3", "out", "r4", "in", 32)
        self.cable("r4", "out", "server", "eth0", 33)
        for role, number in (("r3", 32), ("r4", 33)):
            self.lab.router(role)
            self.lab.route(role, f"{SERVERS[0]} via 10.80.{number}.2")
        self.lab.route("r3", f"{CLIENTS[0]} via 10.80.30.1")
        self.lab.route("r4", f"{CLIENTS[0]} via 10.80.32.1")
        self.lab.route("server", f"{CLIENTS[0]} via 10.80.33.1")
        self.lab.ip("client", f"route add local {CLIENTS[0]} dev lo")
        self.lab.ip("server", f"route add local {SERVERS[0]} dev lo")
        self.lab.router("natbox")
        self.cable("natbox", "in", "inner", "eth0", 35)
        self.lab.route("inner", "default via 10.80.35.1")


class RebootStage(Stage):
    """client - r1 - r2 - r3 - server, whose server can be torn down and made anew."""

    prefix = "rstaccb"
    hops = 3

    def build(self) -> None:
        path = ["client", "r1", "r2", "r3", "server"]
        self.lab.add(*path)
        self.chain(path)
        self.own("client", CLIENTS)
        self.own("server", SERVERS)

    def reboot(self) -> None:
        """The server's machine starts anew, with its addresses and nothing else."""
        self.lab.run(["ip", "netns", "delete", self.lab.name("server")])
        self.lab.run(["ip", "netns", "add", self.lab.name("server")])
        self.lab.ip("server", "link set lo up")
        self.lab.ip("r3", "link delete out") if self._has("r3", "out") else None
        self.cable("r3", "out", "server", "eth0", 3)
        self.toward("r3", SERVERS, 3, far=True)
        self.toward("server", CLIENTS, 3, far=False)
        self.own("server", SERVERS)

    def _has(self, role: str, interface: str) -> bool:
        return f" {interface}@" in self.lab.exec(role, ["ip", "-o", "link"])


class WayStage(Stage):
    """client - w1 - … - w12 - far, with mid behind w4 and near behind w2; forgers in all routers.

    A second host (s1, s3, s4, s6, s11), with a stack of its own, stands beside w1, w3, w4, w6, w11:
    it gets an end's address, too, and what a route sends to it.
    """

    prefix = "rstaccw"
    hops = 12
    ENDS: ClassVar[dict[str, tuple[int, int]]] = {"near": (2, 84), "mid": (4, 83), "far": (12, 81)}
    SECOND = (1, 3, 4, 6, 11)
    dumped = ("client", "w1")
    watched = tuple(
        (role, interface)
        for role in ("client", "near", "mid", "far")
        for interface in ("eth0", "lo")
    )

    def build(self) -> None:
        routers = [f"w{number}" for number in range(1, self.hops + 1)]
        seconds = [f"s{number}" for number in self.SECOND]
        self.lab.add("client", *routers, *self.ENDS, *seconds)
        self.chain(["client", *routers, "far"])
        self.own("client", CLIENTS)
        self.own("far", SERVERS)
        for number, (end, (hops, net)) in enumerate((e, self.ENDS[e]) for e in ("near", "mid")):
            nets = servers(net)
            self.branch(f"w{hops}", end, 30 + number)
            self.own(end, nets)
            self.toward(f"w{hops}", nets, 30 + number, far=True)
            for cable, role in enumerate(["client", *routers[: hops - 1]]):
                self.toward(role, nets, cable, far=True)
                real = 30 + number  # for NAT boxes on the way
                self.lab.route(
                    role,
                    f"10.80.{real}.0/30 via 10.80.{cable}.2",
                    f"fd80:{real}::/64 via fd80:{cable}::2",
                )
        for number in self.SECOND:
            self.branch(f"w{number}", f"s{number}", 40 + number)
        forgers(self, routers)

    def branch(self, router: str, role: str, cable: int) -> None:
        """A host on a cable of its own beside a router."""
        self.cable(router, f"to{role}", role, "eth0", cable)
        self.lab.route(role, f"default via 10.80.{cable}.1")
        self.lab.route(role, f"::/0 via fd80:{cable}::1")

    def real(self) -> str:
        """The server's own address on its cable, for what stands in front of it."""
        cable = {"near": 30, "mid": 31, "far": self.hops}[self.play.end]
        return f"fd80:{cable}::2" if self.play.family == V6 else f"10.80.{cable}.2"

    def to(self, end: str) -> Play:
        """The server of this case is `end`."""
        self.play.end = end
        self.play.hops, self.play.net = self.ENDS[end]
        return self.play

    def divert(self, number: int) -> None:
        """From now on what is for this case's server goes to the second host beside a router."""
        self._own(number, self.play.server)
        for role, route in self._diversion(number):
            self.lab.route(role, route)

    def undivert(self, number: int) -> None:
        """As it was before."""
        for role, route in self._diversion(number):
            self.lab.ip(role, f"route del {route}")

    def divert_back(self, number: int) -> None:
        """From now on what is for this case's client goes to the second host beside a router."""
        self._own(number, self.play.client)
        self.lab.route(f"w{number}", via(self.play.client, 40 + number))

    def _diversion(self, number: int) -> Iterator[tuple[str, str]]:
        server = self.play.server
        for router in range(min(self.play.hops, number), number):
            yield f"w{router}", via(server, router)
        yield f"w{number}", via(server, 40 + number)

    def _own(self, number: int, address: str) -> None:
        prefix = 128 if ":" in address else 32
        self.lab.ip(f"s{number}", f"route add local {address}/{prefix} dev lo")


def via(address: str, cable: int) -> str:
    """A route to one address, over a cable's far end."""
    if ":" in address:
        return f"{address}/128 via fd80:{cable}::2"
    return f"{address}/32 via 10.80.{cable}.2"


def servers(net: int) -> tuple[str, str]:
    """Both families' networks of an end."""
    return f"10.{net}.0.0/16", f"fd{net}::/64"
