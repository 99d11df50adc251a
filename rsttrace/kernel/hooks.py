"""Every place in the kernel where rsttrace may hook in: the one list.

Hooks are chosen by what the running kernel has, never by its version number.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Plan(enum.Enum):
    """Where causes are learned: at the functions themselves, or at tracepoints only."""

    KPROBES = "kprobes"
    TRACEPOINTS = "tracepoints"


@dataclass(frozen=True)
class Hook:
    """One probe.

    `program` is the function in bpf/, `target` the tracepoint or kernel function it hooks (some
    are hooked twice: bpf/events.c says why, at `looked()`), `plan` the plan it belongs to (None:
    both), `unseen` what the user misses without it, `module` the module whose loading may bring
    the target later (None: it is there or never), `unless` what a kernel must not know to need it
    (a name of `knowledge.KNOWLEDGE`; None: every kernel needs it), `given` what it must
    know to have it. `cgroup`: attached to the root
    of the cgroup tree (v2), and only where payload is to be kept.
    """

    program: str
    target: str
    kprobe: bool = False
    plan: Plan | None = None
    unseen: str = ""
    module: str | None = None
    unless: str | None = None
    given: str | None = None
    cgroup: bool = False


HOOKS = (
    Hook("rt_netif_receive_skb", "netif_receive_skb", unseen="received resets"),
    Hook("rt_net_dev_queue", "net_dev_queue", unseen="sent and forwarded resets"),
    Hook(
        "rt_kfree_skb",
        "kfree_skb",
        unseen="received resets that no socket accepted (rejected, unmatched)",
    ),
    Hook(
        "rt_kfree_skb",
        "kfree_skb",
        unseen="some of those, where one drop interrupts another",
    ),
    Hook(
        "rt_inet_sock_set_state",
        "inet_sock_set_state",
        unseen="the socket's state before close, and who connected",
    ),
    Hook(
        "rt_inet_sock_set_state",
        "inet_sock_set_state",
        unseen="some of those, where one change of state interrupts another",
    ),
    Hook(
        "rt_sock_recv_length",
        "sock_recv_length",
        unseen="the process of some connections that were closed before one could look",
        given="reader",
    ),
    Hook(
        "rt_tcp_rcv_space_adjust",
        "tcp_rcv_space_adjust",
        unseen="the process of some connections that were closed before one could look",
        unless="reader",
    ),
    Hook(
        "kp_sock_graft",
        "security_sock_graft",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="who accepted a connection, where it was closed unread before one could look",
    ),
    Hook(
        "rt_neigh_update",
        "neigh_update",
        unseen="whether a raw packet's writer is who runs (its process may then be a wrong one)",
    ),
    Hook(
        "rt_neigh_update_done",
        "neigh_update_done",
        unseen="the process that wrote a packet by hand",
    ),
    Hook(
        "rt_tcp_send_reset",
        "tcp_send_reset",
        plan=Plan.TRACEPOINTS,
        unseen="why this host sent a reset, and what it answered",
    ),
    Hook(
        "rt_tcp_receive_reset",
        "tcp_receive_reset",
        plan=Plan.TRACEPOINTS,
        unseen="resets that killed a socket",
    ),
    Hook(
        "rt_tcp_receive_reset_again",
        "tcp_receive_reset",
        unseen="some of those, where one reset interrupts another",
    ),
    Hook(
        "rt_tcp_send_reset_again",
        "tcp_send_reset",
        unseen="why some resets were sent, where one interrupts another",
    ),
    Hook(
        "kp_tcp_reset",
        "tcp_reset",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="resets that killed a socket",
    ),
    Hook(
        "kp_tcp_send_reset",
        "tcp_v4_send_reset",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="why this host answered with a reset (IPv4), and what it answered",
    ),
    Hook(
        "kp_tcp_send_reset",
        "tcp_v6_send_reset",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="why this host answered with a reset (IPv6), and what it answered",
    ),
    Hook(
        "kp_tcp_send_active_reset",
        "tcp_send_active_reset",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="why a socket of this host was reset",
    ),
    Hook(
        "kp_nf_send_reset",
        "nf_send_reset",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="which firewall chain of this host rejected (IPv4)",
        module="nf_reject_ipv4",
    ),
    Hook(
        "kp_nf_send_reset",
        "nf_send_reset6",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="which firewall chain of this host rejected (IPv6)",
        module="nf_reject_ipv6",
    ),
    Hook(
        "kp_tcp_judge",
        "tcp_validate_incoming",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="the socket of a rejected reset (connected)",
        unless="drop_socket",
    ),
    Hook(
        "kp_tcp_judge",
        "tcp_rcv_state_process",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="the socket of a rejected reset (connecting, closing or listening)",
        unless="drop_socket",
    ),
    Hook(
        "kp_tcp_judge",
        "tcp_timewait_state_process",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="the socket of a rejected reset (TIME_WAIT)",
        unless="drop_socket",
    ),
    Hook(
        "kp_tcp_check_req",
        "tcp_check_req",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="the socket of a rejected reset (SYN_RECV)",
        unless="drop_socket",
    ),
    Hook(
        "kp_kfree_skb",
        "__kfree_skb",
        kprobe=True,
        plan=Plan.KPROBES,
        unseen="resets that a socket rejected",
        unless="drop_reason",
    ),
)

EGRESS = Hook(
    "cg_egress",
    "cgroup egress",
    unseen="what we sent before a reset (--payload)",
    cgroup=True,
)
"""Keeps what a socket sent last."""

PACKET_LAYER = ("netif_receive_skb", "net_dev_queue")
"""Without these two nothing can be traced at all."""


def for_plan(plan: Plan, knows: Mapping[str, bool], *, payload: bool = False) -> tuple[Hook, ...]:
    """The hooks that a plan uses on a kernel that knows so much (`knowledge.KNOWLEDGE`).

    `payload`: what sockets send is to be kept.
    """
    return (EGRESS,) * payload + tuple(
        hook
        for hook in HOOKS
        if hook.plan in (None, plan)
        and not (hook.unless is not None and knows.get(hook.unless))
        and (hook.given is None or knows.get(hook.given))
    )
