"""Capabilities: which a trace needs, and what it lacks without each of the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsttrace.errors import KernelError

CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39  # include/uapi/linux/capability.h


@dataclass(frozen=True)
class Right:
    """A capability that is not needed to trace.

    `without` says what is not there without it, `gives` what is there with it.
    """

    name: str
    number: int
    without: str
    gives: str


RIGHTS = (
    Right(
        "CAP_SYS_ADMIN",
        CAP_SYS_ADMIN,
        "no neighbours, next hops, listeners and rules of other network namespaces (setns(2))",
        "neighbours, next hops, listeners and rules of other network namespaces",
    ),
    Right(
        "CAP_SYS_PTRACE",
        19,
        "no processes of connections older than the trace, and no namespaces that only a process "
        "of another user leads to (/proc/PID/fd and ns, ptrace_may_access())",
        "processes of connections older than the trace, namespaces that only a process of another "
        "user leads to (for both CAP_DAC_READ_SEARCH as well)",
    ),
    Right(
        "CAP_NET_ADMIN",
        12,
        "no firewall rules (nfnetlink_rcv()), no --payload (cgroup_bpf_prog_attach())",
        "firewall rules, --payload",
    ),
    Right(
        "CAP_NET_RAW",
        13,
        "no --locate, --probe, --probe-arp (raw(7), packet(7))",
        "--locate, --probe, --probe-arp",
    ),
)
"""As nobody, with CAP_BPF, CAP_PERFMON and no_new_privs alone, there are resets, verdicts and the
processes of new connections (measured: tests/lab/test_hardening.py)."""


def effective() -> int:
    """This process's effective capabilities, a bit for each (proc_pid_status(5), CapEff).

    Raises:
        KernelError: /proc is not mounted.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        raise KernelError(
            f"/proc/self/status cannot be read: {error.strerror}",
            hint="mount -t proc proc /proc; in a container give it the node's /proc",
        ) from None
    return int(status.split("CapEff:")[1].split()[0], 16)


def has(capabilities: int, number: int) -> bool:
    """Whether a capability is one of these."""
    return bool(capabilities >> number & 1)


def missing(capabilities: int) -> list[Right]:
    """What is not needed and not there."""
    return [right for right in RIGHTS if not has(capabilities, right.number)]
