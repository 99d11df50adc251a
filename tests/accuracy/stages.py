"""Stages that differ from the plain chain of routers."""

from __future__ import annotations

from tests.accuracy.stage import CLIENTS, SERVERS, Stage
from tests.lab.harness import no_offload


class ForgersStage(Stage):
    """The chain, with a forger of ours in r1, r3 and r5."""

    prefix = "rstaccf"

    def build(self) -> None:
        super().build()
        for box in ("r1", "r3", "r5"):
            self.lab.spawn(box, self.python("tests.accuracy.forge", box), ready="forging")


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
    """A hub with client, attacker, neighbour and two gateways; behind them r3, r4 and the server.

    client 10.82.0.1, gateway address 10.82.0.254 (held by gwa, later perhaps by gwb).
    """

    prefix = "rstaccl"
    hops = 3
    NEIGHBOUR = 5
    ATTACKER = 6
    GATEWAY = "10.82.0.254"
    watched = (("client", "eth0"), ("server", "eth0"), ("neighbour", "eth0"))

    def build(self) -> None:
        self.lab.add("hub", "client", "attacker", "neighbour", "gwa", "gwb", "r3", "r4", "server")
        # ageing_time 0: it learns nothing and sends everything everywhere, as a hub does.
        self.lab.ip("hub", "link add br0 type bridge ageing_time 0", "link set br0 up")
        hosts = {"client": 1, "attacker": self.ATTACKER, "neighbour": self.NEIGHBOUR}
        for role in (*hosts, "gwa", "gwb"):
            port = f"p{role}"
            self.lab.link(role, "eth0", "hub", port)
            self.lab.ip("hub", f"link set {port} master br0")
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
