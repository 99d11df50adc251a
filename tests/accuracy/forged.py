"""Cases in which something on the path resets connections in an end's name."""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator

from rsttrace.errors import LabError
from tests.accuracy.case import Case
from tests.accuracy.forge import SHAPES
from tests.accuracy.stage import V4, V6, Conn, Play, Stage, both_reset, numbers
from tests.accuracy.stages import ForgersStage, LanStage, SwapStage
from tests.lab.harness import expect_reset, mac_of, provoke

BOXES = ("r1", "r3", "r5")
COUNT = {"gfw": 3, "moving": 3, "bad_checksum": 2, "behind": 2}
CONTRADICTORY = {"gfw", "moving", "payload", "reserved", "slb"}
"""What no stack does, wherever it comes from (slb: from 24 hops away where the peer is 5 away)."""

COPIED_TTL = {"snort", "copier"}
FAR = 2
"""Up to so many, a reroute might explain the difference, were it not for all else."""

DROP_WORD = """
chain forward {{
    type filter hook forward priority 0; policy accept;
    tcp dport {port} @th,256,40 0x464f524745 drop comment "FORGE, behind timestamps"
}}
"""


def difference(box: str, victim: str) -> int:
    """By how many hops a box is nearer to a victim than the victim's peer is."""
    place = int(box[1:])
    return Stage.hops + 1 - place if victim == "client" else place


def by_distance(nearer: int) -> str:
    """`TRUST` of a reset in mid-connection, by how many hops its maker is nearer than the peer."""
    return "proven" if nearer > FAR else "decidable"


def tell(play: Play, shape: str, box: str, victim: str, short: bool) -> None:
    """How sure it is who made a shape that a box sends to a victim; `short`: no data before."""
    if (shape in CONTRADICTORY and not (short and shape == "slb")) or (
        play.family == V4 and shape in ("mirror", "mirror_next")
    ):
        play.tell(victim, "proven")
    elif shape == "copier":
        whose = "" if victim == "client" else "client's "
        when = "at once" if short else "mid, requests"
        play.tell(victim, "undecidable", f"{whose}socket vanished, {when}")
    elif shape in COPIED_TTL or short:
        # No kernel of the peer's kind makes it, or it is the gateway's own (TTL undiminished), or
        # the peer's host would have changed its distance and lost a socket at the same time.
        play.tell(victim, "decidable")
    else:
        play.tell(victim, by_distance(difference(box, victim)))


def shaped(stage: ForgersStage, shape: str, box: str, mode: str, rounds: int) -> None:
    """A forger of ours resets both ends when a request names it."""
    play = stage.play
    for victim in ("client", "server"):
        tell(play, shape, box, victim, rounds == 0)
    with stage.connection() as conn:
        conn.talk(rounds)
        if mode == "drop":
            with stage.rules(box, DROP_WORD.format(port=play.port)):
                _trigger(stage, conn, shape, box, mode)
        else:
            _trigger(stage, conn, shape, box, mode)


def _trigger(stage: Stage, conn: Conn, shape: str, box: str, mode: str) -> None:
    conn.client.sendall(f"FORGE {box} {shape} both {mode}\n".encode())
    both_reset(conn)
    for victim in ("client", "server"):
        stage.arrived(victim, COUNT.get(shape, 1))


def goes_on(stage: ForgersStage, shape: str, box: str) -> None:
    """Only the client is reset; the server knows nothing of it and answers.

    So it is where the peer's own firewall rejects: the rest of the shape must tell.
    """
    if shape == "copier":
        stage.play.tell("client", "undecidable", "own firewall goes on")
    else:
        stage.play.tell("client", "decidable")
    with stage.connection() as conn:
        conn.talk()
        request = f"FORGE {box} {shape} client pass\n".encode()
        provoke(conn.client, request)
        assert conn.server.recv(len(request)) == request
        provoke(conn.server, b"the answer")
        stage.arrived("server", 1)


REJECT = """
chain forward {{
    type filter hook forward priority 0; policy accept;
    tcp dport {port} @th,256,40 0x464f524745 reject with tcp reset
    tcp sport {port} @th,256,40 0x464f524745 reject with tcp reset
}}
"""


def nft_reject(stage: Stage, box: str, rounds: int) -> None:
    """An nftables firewall rejects what each end says."""
    for victim in ("client", "server"):
        tell(stage.play, "dpvs", box, victim, rounds == 0)
    with stage.connection() as conn, stage.rules(box, REJECT.format(port=stage.play.port)):
        conn.talk(rounds)
        provoke(conn.client, b"FORGE")
        provoke(conn.server, b"FORGE")
        stage.arrived("client", 1)
        stage.arrived("server", 1)


def nft_reject_goes_on(stage: Stage, box: str) -> None:
    """The firewall rejects a request while the server is still sending."""
    stage.play.tell("client", by_distance(difference(box, "client")))
    with stage.connection() as conn, stage.rules(box, REJECT.format(port=stage.play.port)):
        conn.talk()
        provoke(conn.client, b"FORGE")
        provoke(conn.server, b"more of the page")
        stage.arrived("server", 1)


def iptables_reject(stage: Stage, box: str) -> None:
    """iptables -j REJECT --reject-with tcp-reset, set while the connection lives."""
    play = stage.play
    tool = "ip6tables" if play.family == V6 else "iptables"
    rules = [
        ["FORWARD", "-p", "tcp", way, str(play.port), "-j", "REJECT", "--reject-with", "tcp-reset"]
        for way in ("--dport", "--sport")
    ]
    for victim in ("client", "server"):
        play.tell(victim, by_distance(difference(box, victim)))
    with stage.connection() as conn:
        conn.talk()
        for rule in rules:
            stage.lab.exec(box, [tool, "-w", "-A", *rule])
        try:
            provoke(conn.client, b"a request")
            provoke(conn.server, b"an answer")
            stage.arrived("client", 1)
            stage.arrived("server", 1)
        finally:
            for rule in rules:
                stage.lab.exec(box, [tool, "-w", "-D", *rule])


def tcpkill(stage: Stage, box: str) -> None:
    """dsniff's tcpkill: three resets up the window for each packet that it sees."""
    stage.play.trust.update(client="proven", server="proven")  # they contradict each other
    with stage.connection() as conn:
        conn.talk()
        command = ["tcpkill", "-i", "in", "-3", "tcp", "port", str(stage.play.port)]
        with stage.program(box, command, ready="listening"):
            provoke(conn.client, b"a request")
            stage.arrived("client", 3)
            # It watches the honest RSTs and answers too; the server's turn comes by its own words.
            with_server_alive(conn)
            stage.arrived("server", 1)


def with_server_alive(conn: Conn) -> None:
    """Let the server speak, unless it has been reset already."""
    try:
        conn.server.sendall(b"an answer")
    except ConnectionError:
        return
    expect_reset(conn.server)


def hping3(stage: Stage, box: str) -> None:
    """hping3 -R with the right numbers: random ID, no DF, window 512, TTL 64, to the client."""
    stage.play.tell("client", by_distance(difference(box, "client")))
    with stage.connection() as conn:
        conn.talk()
        reset_by_hping3(stage, box, conn.client)


def reset_by_hping3(stage: Stage, box: str, client: socket.socket) -> None:
    """hping3 resets the client, spoofing the server's address and with the right number."""
    with stage.lab.inside("client"):
        _, expected = numbers(client)
    (source, port), (target, target_port) = client.getpeername(), client.getsockname()
    told = f"-M {expected} -s {port} -k -p {target_port} -a {source}"
    try:
        stage.lab.exec(box, f"timeout 5 hping3 -q -c 1 -i u1 -R {told} {target}".split())
    except LabError as error:  # it calls it a failure if nobody has answered it
        if "1 packets transmitted" not in str(error):
            raise
    expect_reset(client)
    stage.arrived("client", 1)


def swapped(stage: SwapStage, how: str) -> None:
    """A bridge turns the server's answer into a reset and keeps its IP ID."""
    # "perfect" keeps all of the answer's header: a live socket's reset looks just so. Over IPv6,
    # which has no ID, "bare" is what a host without a socket sends.
    if how == "perfect":
        stage.play.tell("client", "undecidable", "lingers")
    elif how == "bare" and stage.play.family == V6:
        stage.play.tell("client", "undecidable", "socket vanished, near, requests")
    else:
        stage.play.tell("client", "proven" if how == "payload" else "decidable")
    with stage.connection() as conn:
        conn.talk()
        conn.server.sendall(b"SWAP " + how.encode())
        if how != "checksum":  # the client's stack drops that one
            expect_reset(conn.client)
        stage.arrived("client", 1)


def lan_hping3(stage: LanStage) -> None:
    """A host on the client's network spoofs the server: a stranger's MAC, four hops too near."""
    play = stage.play
    play.trust["client"] = "proven"
    with stage.connection() as conn:
        conn.talk()
        reset_by_hping3(stage, "attacker", conn.client)


def lan_tcpkill(stage: LanStage) -> None:
    """tcpkill on a host of the client's network, which is a hub: it sees all packets."""
    # Its TTL is the client's at the server, and how many of its resets get there is a matter of
    # luck: there only the shape tells.
    stage.play.trust.update(client="proven", server="decidable")
    with stage.connection() as conn:
        conn.talk()
        command = ["tcpkill", "-i", "eth0", "-3", "tcp", "port", str(stage.play.port)]
        with stage.program("attacker", command, ready="listening"):
            provoke(conn.client, b"a request")
            stage.arrived("client", 3)
            with_server_alive(conn)
            stage.arrived("server", 1)


def lan_neighbour(stage: LanStage) -> None:
    """Client and server share a link; a third host spoofs the server with hping3."""
    play = stage.play
    play.hops = 0
    play.trust["client"] = "proven"
    address = f"10.82.0.{stage.NEIGHBOUR}"
    with stage.listen_at("neighbour", address) as listener, stage.caller() as client:
        client.connect((address, play.port))
        server, _ = listener.accept()
        conn = Conn(client, server)
        conn.talk()
        reset_by_hping3(stage, "attacker", client)
        server.close()


def lan_neighbour_spoofed_mac(stage: LanStage) -> None:
    """The same, with the neighbour's MAC and the shape of a host without a socket: no clue left."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    from tests.lab.harness import send_frame

    play = stage.play
    play.hops = 0
    play.tell("client", "undecidable", "socket of a neighbour vanished")
    address = f"10.82.0.{stage.NEIGHBOUR}"
    with stage.listen_at("neighbour", address) as listener, stage.caller() as client:
        client.connect((address, play.port))
        server, _ = listener.accept()
        Conn(client, server).talk()
        with stage.lab.inside("client"):
            _, expected = numbers(client)
        frame = (
            Ether(
                src=mac_of(stage.lab, "neighbour", "eth0"), dst=mac_of(stage.lab, "client", "eth0")
            )
            / IP(src=address, dst=play.client, id=0, flags="DF")
            / TCP(sport=play.port, dport=client.getsockname()[1], flags="R", seq=expected, window=0)
        )
        send_frame(stage.lab, "attacker", "eth0", frame)
        expect_reset(client)
        server.close()
        stage.arrived("client", 1)


def cases() -> Iterator[Case]:
    """All of them."""
    for family, version in ((V4, "v4"), (V6, "v6")):
        for box in BOXES:
            for shape in SHAPES:
                fast = box == "r1" or (box == "r5" and family == V4)
                yield Case(
                    f"{shape} at {box} {version}",
                    f"scapy: {shape}",
                    False,
                    functools.partial(shaped, shape=shape, box=box, mode="drop", rounds=3),
                    ForgersStage,
                    family,
                    fast,
                )
            reject = functools.partial(nft_reject, box=box, rounds=3)
            yield Case(
                f"nft reject at {box} {version}", "nft reject", False, reject, Stage, family, True
            )
            yield Case(
                f"iptables reject at {box} {version}",
                "iptables REJECT",
                False,
                functools.partial(iptables_reject, box=box),
                Stage,
                family,
                programs=("iptables",),
            )
        for shape in SHAPES:
            yield Case(
                f"{shape} at r3 on path {version}",
                f"scapy: {shape}",
                False,
                functools.partial(shaped, shape=shape, box="r3", mode="pass", rounds=3),
                ForgersStage,
                family,
            )
            yield Case(
                f"{shape} at r1, first request {version}",
                f"scapy: {shape}",
                False,
                functools.partial(shaped, shape=shape, box="r1", mode="drop", rounds=0),
                ForgersStage,
                family,
            )
        for shape in ("copier", "dpvs", "snort"):
            yield Case(
                f"{shape} at r5, the server goes on {version}",
                f"scapy: {shape}",
                False,
                functools.partial(goes_on, shape=shape, box="r5"),
                ForgersStage,
                family,
                True,
            )
        yield Case(
            f"nft reject at r1, first request {version}",
            "nft reject",
            False,
            functools.partial(nft_reject, box="r1", rounds=0),
            Stage,
            family,
        )
        yield Case(
            f"nft reject at r5, the server goes on {version}",
            "nft reject",
            False,
            functools.partial(nft_reject_goes_on, box="r5"),
            Stage,
            family,
            True,
        )
        for how in ("bare", "window", "payload", "checksum", "perfect"):
            yield Case(
                f"answer swapped in place: {how} {version}",
                "bridge: swap",
                False,
                functools.partial(swapped, how=how),
                SwapStage,
                family,
                True,
            )
    for box in BOXES:
        kill, ping = functools.partial(tcpkill, box=box), functools.partial(hping3, box=box)
        yield Case(f"tcpkill at {box}", "tcpkill", False, kill, Stage, programs=("tcpkill",))
        yield Case(f"hping3 at {box}", "hping3", False, ping, Stage, programs=("hping3",))
    yield Case("hping3 on the LAN", "hping3", False, lan_hping3, LanStage, programs=("hping3",))
    yield Case("tcpkill on the LAN", "tcpkill", False, lan_tcpkill, LanStage, programs=("tcpkill",))
    yield Case(
        "hping3 between neighbours", "hping3", False, lan_neighbour, LanStage, programs=("hping3",)
    )
    yield Case(
        "neighbour's MAC spoofed", "scapy: frame", False, lan_neighbour_spoofed_mac, LanStage
    )
