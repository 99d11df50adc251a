from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("pyroute2")

DEADLINE_S = 60


def run(code: str) -> str:
    """In a process of its own: what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return done.stdout


SOCKET = """
import socket, sys
from rsttrace.enrich.netlink import Netlink
Netlink(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), print).close()
loaded = [name for name in sys.modules if name.startswith("pyroute2")]
"""


def test_a_netlink_socket_loads_the_messages_and_little_else() -> None:
    loaded = run(SOCKET + "print(*loaded)").split()
    assert "pyroute2.netlink.rtnl.ndmsg" in loaded
    assert {"pyroute2.ndb", "pyroute2.iproute", "pyroute2.conntrack"}.isdisjoint(loaded)


def test_whoever_wants_more_of_the_package_finds_it() -> None:
    more = SOCKET + (
        "from pyroute2 import IPRoute, netns\n"
        "import pyroute2\n"
        "print(IPRoute.__name__, pyroute2.NetNS.__name__, netns.setns.__name__)\n"
        "print(pyroute2.netlink.rtnl.ndmsg.ndmsg.__name__, hasattr(pyroute2, 'no_such_name'))\n"
    )
    assert run(more) == "IPRoute NetNS setns\nndmsg False\n"


def test_who_has_loaded_it_already_keeps_it() -> None:
    assert (
        run("import pyroute2; whole = pyroute2" + SOCKET + "print(whole is pyroute2)") == "True\n"
    )
