"""Network namespaces to try rsttrace in: real kernels' stacks, real packets, nothing outside.

Used by ``rsttrace demo`` and by the lab tests. Needs root and iproute2 (``ip``); nftables (``nft``)
where a firewall is asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from rsttrace import programs
from rsttrace.errors import DependencyError, LabError, PrivilegeError, RsttraceError

PREFIX = "rsttrace"
NAMES = Path("/run/netns")
PACKAGES = {"ip": "iproute2", "nft": "nftables"}


def stale(family: str = PREFIX) -> list[str]:
    """The names of the namespaces that labs have left whose process was killed."""
    pattern = re.compile(rf"{re.escape(family)}-(\d+)-\w+")
    if not NAMES.is_dir():
        return []
    found = [(path.name, pattern.fullmatch(path.name)) for path in NAMES.iterdir()]
    return sorted(name for name, match in found if match and not Path("/proc", match[1]).exists())


def remove(names: Sequence[str]) -> None:
    """Delete namespaces, as far as that is possible."""
    for name in names:
        with contextlib.suppress(RsttraceError, OSError, subprocess.SubprocessError):
            _run(["ip", "netns", "delete", name])


class Lab:
    """A set of namespaces with links between them; leaving it removes all of them.

    Namespaces are called ``rsttrace-<pid>-<role>``, so that two labs never meet and a later one can
    remove what a killed one left.

    Raises (on entering):
        PrivilegeError: not root.
        DependencyError: iproute2 is missing, or others than root may write to it.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        self._prefix = f"{prefix}-{os.getpid()}"
        self._family = prefix
        self._roles: list[str] = []
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise PrivilegeError("the lab needs root", hint="run it with sudo")
        _program("ip")
        self._remove_stale()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything started here and delete the namespaces."""
        for child in self._children:
            _kill(child)
        self._children.clear()
        while self._roles:
            remove([self.name(self._roles.pop())])

    def _remove_stale(self) -> None:
        """Delete the namespaces of labs whose process is gone."""
        remove(stale(self._family))

    def name(self, role: str) -> str:
        """A namespace's name under /run/netns."""
        return f"{self._prefix}-{role}"

    def inode(self, role: str) -> int:
        """A namespace's inode: what rsttrace calls netns."""
        return (NAMES / self.name(role)).stat().st_ino

    def add(self, *roles: str) -> None:
        """Create namespaces, with their loopback up."""
        for role in roles:
            self.run(["ip", "netns", "add", self.name(role)])
            self._roles.append(role)
            self.ip(role, "link set lo up")
            # Link-local addresses are usable at once, too: duplicate address detection (RFC 4862,
            # section 5.4) takes up to two seconds, in which a router can ask for no neighbour.
            self.sysctl(
                role, net__ipv6__conf__all__accept_dad=0, net__ipv6__conf__default__accept_dad=0
            )

    def ip(self, role: str, *commands: str) -> None:
        """Run ``ip`` commands (without the word ``ip``) in a namespace."""
        batch = "\n".join(commands) + "\n"
        self.run(["ip", "-n", self.name(role), "-batch", "-"], text=batch)

    def link(self, a: str, a_if: str, b: str, b_if: str, **macs: str) -> None:
        """A cable (veth pair) between two namespaces, up. `macs`: a_mac, b_mac."""
        a_mac = f" address {macs['a_mac']}" if "a_mac" in macs else ""
        b_mac = f" address {macs['b_mac']}" if "b_mac" in macs else ""
        self.ip(
            a,
            f"link add {a_if}{a_mac} type veth peer name {b_if}{b_mac} netns {self.name(b)}",
            f"link set {a_if} up",
        )
        self.ip(b, f"link set {b_if} up")

    def addresses(self, role: str, interface: str, *addresses: str) -> None:
        """Give an interface addresses (with prefix lengths); IPv6 ones are usable at once."""
        self.ip(
            role,
            *(f"address add {a} dev {interface}{' nodad' if ':' in a else ''}" for a in addresses),
        )

    def route(self, role: str, *routes: str) -> None:
        """Add routes."""
        self.ip(role, *(f"route add {r}" for r in routes))

    def sysctl(self, role: str, **values: object) -> None:
        """Set sysctls; ``net__ipv4__ip_forward=1`` sets net.ipv4.ip_forward."""
        with self.inside(role):
            for key, value in values.items():
                Path("/proc/sys", key.replace("__", "/")).write_text(str(value))

    def router(self, role: str) -> None:
        """Make a namespace forward packets."""
        self.sysctl(role, net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)

    def nft(self, role: str, rules: str) -> None:
        """Load an nftables ruleset.

        Raises:
            DependencyError: nft is missing.
            LabError: nft or the kernel refuses the rules.
        """
        self.exec(role, ["nft", "-f", "-"], text=rules)

    def exec(self, role: str, command: Sequence[str], text: str | None = None) -> str:
        """Run a command in a namespace to its end; returns what it printed."""
        return self.run(["ip", "netns", "exec", self.name(role), *_absolute(command)], text=text)

    def spawn(self, role: str, command: Sequence[str], ready: str | None = None) -> int:
        """Start a command in a namespace; it is killed when the lab closes. Returns its pid.

        With `ready`, waits until it prints a line that contains this text.

        Raises:
            LabError: it ended without being ready.
        """
        # it must not outlive us, however we end (PR_SET_PDEATHSIG)
        setpriv = programs.find("setpriv")
        tied = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        child = programs.start(
            [*tied, _program("ip"), "netns", "exec", self.name(role), *_absolute(command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._children.append(child)
        if ready is not None:
            assert child.stdout is not None
            heard = []
            for line in child.stdout:
                if ready in line:
                    return child.pid
                heard.append(line)
            raise LabError(f"{command[0]} in {role} did not start: {''.join(heard).strip()}")
        return child.pid

    @contextlib.contextmanager
    def inside(self, role: str) -> Iterator[None]:
        """This thread is in the namespace while inside: sockets made here stay there."""
        from pyroute2.netns import setns

        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            setns(str(NAMES / self.name(role)), flags=0)
            yield
        finally:
            setns(home)
            os.close(home)

    def run(self, command: Sequence[str], text: str | None = None) -> str:
        """Run a command to its end.

        Raises:
            LabError: it failed; the message has its words.
        """
        return _run(command, text)


def _program(name: str) -> str:
    """The absolute path of a program that the lab needs."""
    found = programs.look(name)
    if found.path is None:
        package = PACKAGES.get(name, name)
        raise DependencyError(
            f"the lab needs {name}, which {found.problem}", hint=f"install the package {package}"
        )
    return found.path


def _absolute(command: Sequence[str]) -> list[str]:
    name, *arguments = command
    return [name if os.path.isabs(name) else _program(name), *arguments]


def _run(command: Sequence[str], text: str | None = None) -> str:
    done = programs.run(_absolute(command), text=text, timeout=60)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)} failed: {words}")
    return done.stdout


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
