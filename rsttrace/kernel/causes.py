"""Causes: the kernel's reasons in plain sentences, told apart by kind and state.

Kernel reasons arrive by name (the numbers are the running kernel's own; values were inserted
mid-enum over time). Sources: ``include/net/rstreason.h`` and the callers named beside each entry;
for what was dropped, `rsttrace.kernel.drops`.
"""

from __future__ import annotations

from rsttrace import tcp
from rsttrace.kernel import drops
from rsttrace.model import AcceptQueue, Cause, Kind, Process, Socket, Timers

PASSIVE = {
    "NO_SOCKET": ("no-socket", "no such connection here"),
    "TCP_INVALID_ACK_SEQUENCE": ("invalid-ack", "it acknowledged data that was never sent"),
    # tcp_rcv_synsent_state_process(): the one place where PAWS answers with a RST
    "TCP_RFC7323_PAWS": ("paws", "the SYN-ACK echoed a timestamp that was never sent (PAWS)"),
    "TCP_TOO_OLD_ACK": ("old-ack", "its acknowledgement was far too old"),
    "TCP_ACK_UNSENT_DATA": ("invalid-ack", "it acknowledged data that was never sent"),
    "TCP_FLAGS": ("unexpected-segment", "a segment that this state does not allow"),
    "TCP_OLD_ACK": ("old-ack", "its acknowledgement was too old"),
    "TCP_ABORT_ON_DATA": ("data-after-close", "data arrived after the program had closed"),
    "TCP_TIMEWAIT_SOCKET": ("time-wait", "the connection is over (TIME_WAIT)"),
    "INVALID_SYN": ("invalid-syn", "a SYN inside an existing connection"),
}
"""sk_rst_reason of tcp_v4_send_reset() and tcp_v6_send_reset()."""

ACTIVE = {
    "TCP_ABORT_ON_CLOSE": ("unread-data", "the program closed with data unread"),  # __tcp_close
    "TCP_ABORT_ON_LINGER": ("linger2", "closed for good in FIN_WAIT2 (TCP_LINGER2 < 0)"),
    "TCP_ABORT_ON_MEMORY": ("memory", "too many orphaned sockets or out of TCP memory"),
    "TCP_STATE": ("aborted", "disconnected, or killed from outside its program"),
    "TCP_KEEPALIVE_TIMEOUT": ("keepalive", "the peer did not answer keepalive probes"),
    "TCP_DISCONNECT_WITH_DATA": ("disconnect", "disconnected with data unsent"),
    "NOT_SPECIFIED": ("unspecified", "the kernel gives no reason"),
    "ERROR": ("protocol-error", "a protocol error"),
}
"""sk_rst_reason of tcp_send_active_reset(); TCP_STATE is told apart in `sent_active`."""

MPTCP = (
    "EUNSPEC",
    "EMPTCP",
    "ERESOURCE",
    "EPROHIBIT",
    "EWQ2BIG",
    "EBADPERF",
    "EMIDDLEBOX",
)
"""sk_rst_reason without MPTCP_RST_, in the order of the codes that MP_TCPRST carries
(include/uapi/linux/mptcp.h)."""

SILENT = ("NOT_SPECIFIED", "ERROR", None)
"""What does not say why."""

ACCEPTED = {
    "SYN_SENT": ("connection-refused", "the connection was refused"),
    "CLOSE_WAIT": ("reset-after-fin", "ended a connection that the peer had half closed"),
    "FIN_WAIT1": ("reset-while-closing", "ended a connection that was being closed"),
    "FIN_WAIT2": ("reset-while-closing", "ended a connection that was being closed"),
    "CLOSING": ("reset-while-closing", "ended a connection that was being closed"),
    "LAST_ACK": ("reset-while-closing", "ended a connection that was being closed"),
    "SYN_RECV": ("reset-handshake", "ended a connection in its handshake"),
}
"""By the state before tcp_reset()."""

LINGER = "closed with SO_LINGER 0, or disconnected"

RAW_SOCKET = Cause("raw-socket", "a process wrote it through a raw socket")

HALF_OPEN = (None, "NOT_SPECIFIED")
"""Drop reasons of a RST that ends a half-open connection (tcp_check_req() gives none)."""


def _unknown(reason: str) -> Cause:
    """A reason that only a newer kernel has."""
    return Cause(reason.lower().replace("_", "-"), drops.UNKNOWN.format(reason), reason)


def span(milliseconds: int) -> str:
    """A length of time in words: ``350 ms``, ``4.0 s``, ``35 min``, ``2.0 h``."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def mptcp(reason: str | None, options: str) -> Cause | None:
    """Why MPTCP reset a subflow: the kernel's reason, else the code in the RST's own MP_TCPRST.

    `options` is the RST's, as text. None: MPTCP did not reset it.
    """
    code, transient = tcp.subflow_reset(options) or (None, None)
    if reason is not None and reason.startswith("MPTCP_RST_"):
        name = reason[len("MPTCP_RST_") :]
        code = MPTCP.index(name) if name in MPTCP else 0
    elif reason is not None or code is None:
        return None
    return Cause("mptcp-reset", tcp.subflow_words(code, transient), reason)


def sent_passive(
    reason: str | None,
    state: str | None,
    answered: str | None,
    *,
    data: bool = False,
    probed: bool = True,
    options: str = "",
    socket: Socket | None = None,
) -> Cause:
    """Why tcp_v4_send_reset() answered.

    `answered` is the trigger's flags, `data` whether it had any, `options` the RST's own;
    `socket` is what it was answered for; `probed`: a probe told of it.
    Without (the tracepoint is silent before 6.10), it was either no socket or a TIME_WAIT one.
    """
    answered = None if answered is None else tcp.without_ecn(answered)
    subflow = mptcp(reason, options)
    if subflow is not None:  # a SYN for a listener that wants to join an unknown connection
        return subflow
    if state == "LISTEN":
        return _listener(reason, answered, socket.accept_queue if socket else None)
    if reason == "TCP_TIMEWAIT_SOCKET" or state == "TIME_WAIT" or (socket and socket.minisocket):
        return _minisocket(reason, state, answered, data)
    if reason is None and answered is None:
        return Cause("unknown", "the TCP stack answered a segment; why was not seen", None)
    if reason == "NO_SOCKET" or (reason is None and state is None):
        return _no_socket(reason, answered, probed)
    if not data and answered == "A" and state in CLOSED and reason in ("TCP_ABORT_ON_DATA", None):
        # tcp_rcv_state_process(), FIN_WAIT1: its FIN was acknowledged
        return Cause("linger2", ACTIVE["TCP_ABORT_ON_LINGER"][1], reason)
    if reason in SILENT and data and state in CLOSED:
        # tcp_rcv_state_process(): data is the one other thing that these states answer with a RST.
        return Cause(*PASSIVE["TCP_ABORT_ON_DATA"], reason)
    if reason in SILENT:
        return Cause("answered", f"answer to {_segment(answered)} in state {state}", reason)
    if reason in PASSIVE:
        return Cause(*PASSIVE[reason], reason)
    return Cause(*ACTIVE[reason], reason) if reason in ACTIVE else _unknown(reason)


CLOSED = ("FIN_WAIT1", "FIN_WAIT2")
"""States in which the program has closed, and the peer has not."""


def _is_syn(flags: str | None) -> bool:
    return flags is not None and "S" in flags and "A" not in flags


def _no_socket(reason: str | None, answered: str | None, probed: bool) -> Cause:
    if _is_syn(answered):
        return Cause("no-listener", "no socket listens there (answer to SYN)", reason)
    if reason is None and not probed:
        return Cause(
            "no-connection",
            f"no such connection here, or one in TIME_WAIT (answer to {_segment(answered)})",
            None,
        )
    suffix = f" (answer to {_segment(answered)})" if answered else ""
    return Cause("no-socket", PASSIVE["NO_SOCKET"][1] + suffix, reason)


def _listener(reason: str | None, answered: str | None, queue: AcceptQueue | None) -> Cause:
    """What was answered for a listener: tcp_check_req(), tcp_rcv_state_process()."""
    length = f" ({queue.length} wait, its limit is {queue.limit})" if queue else ""
    if reason in ("INVALID_SYN", None) and _is_syn(answered):  # it would answer with a SYN-ACK
        return Cause(*PASSIVE["INVALID_SYN"], reason)
    if reason == "INVALID_SYN":
        return Cause("listen-overflow", f"the listener's accept queue was full{length}", reason)
    if reason is None and answered is not None and queue and queue.full and queue.aborts:
        # An ACK of nothing would be answered too, and cannot be told from the handshake's last.
        return Cause("listen-overflow", f"the listener's accept queue is full{length}", None)
    text = f"only a listener there, no such connection (answer to {_segment(answered)})"
    return Cause("listen", text, reason)


def _minisocket(reason: str | None, state: str | None, answered: str | None, data: bool) -> Cause:
    """What was answered for what is left of a connection: tcp_timewait_state_process()."""
    if state in CLOSED and _is_syn(answered):
        return Cause(*PASSIVE["INVALID_SYN"], reason)
    if state in CLOSED and data:
        return Cause(*PASSIVE["TCP_ABORT_ON_DATA"], reason)
    return Cause("time-wait", PASSIVE["TCP_TIMEWAIT_SOCKET"][1], reason)


def _segment(flags: str | None) -> str:
    if flags is None:
        return "a segment"
    names = {"S": "SYN", "SA": "SYN-ACK", "A": "ACK", "FA": "FIN", "PA": "data", "FPA": "data+FIN"}
    return names.get(flags, flags or "no flags")


def sent_active(
    reason: str | None,
    state_now: str | None,
    by_task: bool,
    unread: bool = False,
    options: str = "",
    *,
    socket: Socket | None = None,
    process: Process | None = None,
) -> Cause:
    """Why tcp_send_active_reset() ran; `unread`: with received data that the program had not read.

    `options` is the RST's, as text. `process` is who held the socket, where it `by_task` was reset.

    TCP_STATE has two callers: tcp_disconnect() (close with SO_LINGER 0, connect(AF_UNSPEC)) sets
    CLOSE first, tcp_abort() (``ss -K``, BPF iterators) does not.
    """
    if tcp.is_fastclose(options):  # mptcp_do_fastclose() says TCP_ABORT_ON_CLOSE to both
        ended = process.end if process is not None else None
        text = f"{ended}, and MPTCP closed at once" if ended else tcp.FASTCLOSE
        return Cause("mptcp-fastclose", text, reason)
    subflow = None if reason is None and by_task else mptcp(reason, options)
    if subflow is not None:
        return subflow
    if reason in (None, "TCP_STATE"):
        if not by_task:
            return _without_task(reason, state_now, socket)
        if state_now != "CLOSE":
            return Cause("aborted", "killed from outside its program (ss -K)", reason)
        # __tcp_close() resets where data is unread, and else leaves it to tcp_disconnect().
        if reason is None and unread:
            return _closed("unread-data", process, None)
        return _closed("linger", process, reason)
    if reason == "TCP_ABORT_ON_CLOSE":
        return _closed("unread-data", process, reason)
    if reason == "TCP_KEEPALIVE_TIMEOUT":
        return _keepalive(reason, socket.timers if socket else None)
    if reason in ACTIVE:
        return Cause(*ACTIVE[reason], reason)
    return Cause(*PASSIVE[reason], reason) if reason in PASSIVE else _unknown(reason)


def _closed(name: str, process: Process | None, reason: str | None) -> Cause:
    """A close() that reset: by the program, or by the kernel for a program that ended."""
    ended = process.end if process is not None else None
    if name == "unread-data":
        text = f"{ended} with data unread" if ended else ACTIVE["TCP_ABORT_ON_CLOSE"][1]
    elif ended:
        text = f"{ended}, and its socket had SO_LINGER 0"
    elif reason is None:  # such a kernel does not tell these either
        text = f"{LINGER}; or TCP_LINGER2 < 0, too many orphans, no TCP memory"
    else:
        text = LINGER
    return Cause(name, text, reason)


def _without_task(reason: str | None, state_now: str | None, socket: Socket | None) -> Cause:
    """A reset by a timer, or by the listener: no task held this socket."""
    if state_now == "CLOSE":  # inet_csk_listen_stop() disconnects; timers reset before they close
        text = "the listener closed before it accepted the connection"
        return Cause("not-accepted", text, reason)
    if reason is not None or (socket and socket.inode is None and socket.state == "FIN_WAIT2"):
        # tcp_keepalive_timer(): an orphan in FIN_WAIT2
        text = "the kernel gave up on a socket whose program had closed it"
        return Cause("orphan-timeout", text, reason)
    if socket is None or socket.timers is None:
        return Cause("timer", "a timer gave up on the connection", None)
    if socket.inode is not None:  # tcp_out_of_resources() takes orphans only
        return _keepalive(None, socket.timers)
    return Cause(*ACTIVE["TCP_ABORT_ON_MEMORY"], None)


def _keepalive(reason: str | None, timers: Timers | None) -> Cause:
    """tcp_keepalive_timer(): TCP_USER_TIMEOUT decides where it is set, else the count of probes."""
    if timers is None:
        return Cause(*ACTIVE["TCP_KEEPALIVE_TIMEOUT"], reason)
    heard = f"it was last heard {span(timers.silent_ms)} before"
    probes = f"{timers.unanswered} keepalive probe{'s' * (timers.unanswered != 1)}"
    if timers.user_timeout_ms is not None:
        return Cause(
            "user-timeout",
            f"the peer did not answer for {span(timers.silent_ms)} (TCP_USER_TIMEOUT is "
            f"{span(timers.user_timeout_ms)}; {probes} unanswered)",
            reason,
        )
    return Cause(
        "keepalive",
        f"the peer did not answer {probes}: {heard} (the first after "
        f"{span(timers.keepalive_idle_ms)}, then one every {span(timers.keepalive_interval_ms)})",
        reason,
    )


def firewall(chain: str | None) -> Cause:
    """Why nf_send_reset() answered, in one of the firewall's chains (None: it is not known)."""
    where = f" ({chain})" if chain else ""
    return Cause("firewall-reject", f"this host's firewall rejected it{where}")


def judged_state(kind: Kind, reason: str | None, state: str | None, judged: bool) -> str | None:
    """The state of what a received RST was for.

    `state` is that of the socket we were given, `judged` says that it was by the function that
    judged the RST. tcp_check_req() judges a request socket, and what we are given is its listener.
    """
    request = kind is Kind.RECEIVED_REJECTED and reason in HALF_OPEN and not judged
    return "SYN_RECV" if request and state == "LISTEN" else state


def received(
    kind: Kind,
    reason: str | None,
    state: str | None,
    *,
    minisocket: bool = False,
    expected: bool = False,
    rfc1337: bool = False,
    options: str = "",
) -> Cause:
    """What a received RST did, or why it did nothing; and what its `options` (as text) say.

    `minisocket`: it was for what is left of a closed connection (struct inet_timewait_sock), and
    `expected`: its number is the next one there; `rfc1337`: net.ipv4.tcp_rfc1337 is set there.
    """
    if kind is Kind.RECEIVED_ACCEPTED:
        name, text = _accepted(state, minisocket)
    elif kind is Kind.RECEIVED_UNMATCHED:
        name, text = "no-socket", "no socket for it here"
    elif kind is Kind.FORWARDED:
        name, text = _passed(reason)
    elif minisocket:
        name, text = _kept(reason, state, expected, rfc1337)
    else:
        name, text = _rejected(reason, state)
    return Cause(name, text + tcp.said(options), reason)


def _accepted(state: str | None, minisocket: bool) -> tuple[str, str]:
    if minisocket:
        what = "TIME_WAIT" if state != "FIN_WAIT2" else "FIN_WAIT2, whose program had closed it"
        return "time-wait-ended", f"ended what was left of a closed connection ({what})"
    if state is None:
        return "connection-reset", "ended a connection"
    return ACCEPTED.get(state, ("connection-reset", "ended an established connection"))


def _kept(reason: str | None, state: str | None, expected: bool, rfc1337: bool) -> tuple[str, str]:
    """Why tcp_timewait_state_process() ignored a RST.

    It looks at the timestamp first; older kernels have no reason for that (TCP_RFC7323_TW_PAWS).
    """
    if reason == "TCP_RFC7323_TW_PAWS" or (expected and not (rfc1337 and state == "TIME_WAIT")):
        return drops.PAWS
    if state == "FIN_WAIT2":
        text = "ignored: its number is out of window (FIN_WAIT2, whose program had closed it)"
    elif expected:
        text = "ignored: net.ipv4.tcp_rfc1337 keeps TIME_WAIT"
    else:
        text = "ignored: the connection is over (TIME_WAIT), and its number is not the one expected"
    return "time-wait", text


def _passed(reason: str | None) -> tuple[str, str]:
    if reason is None:
        return "forwarded", "passed through"
    if reason in SILENT:
        return "dropped", "dropped on its way; the kernel gives no reason"
    return drops.cause(reason)


def _rejected(reason: str | None, state: str | None) -> tuple[str, str]:
    if reason in ("TCP_CSUM", "NETFILTER_DROP"):
        return drops.DROPS[reason]
    if reason == "TCP_RESET" and state is None:  # before 6.11 the socket is not told
        return (
            "ignored",
            "ignored: not the expected sequence number (challenge ACK), or only a listener there",
        )
    if state == "LISTEN":
        return "listen", "ignored: only a listener there, no such connection"
    if reason == "TCP_RESET":  # tcp_validate_incoming(): in window, but not exactly the next one
        return (
            "challenge-ack",
            "ignored: not the expected sequence number (answered with a challenge ACK, RFC 5961)",
        )
    if state == "TIME_WAIT":
        return "time-wait", "ignored: the connection is over (TIME_WAIT)"
    if state == "CLOSE" and reason in SILENT:  # tcp_rcv_state_process()
        return drops.DROPS["TCP_CLOSE"]
    if state in ("NEW_SYN_RECV", "SYN_RECV"):
        return "syn-recv", "ended a handshake that had not finished (SYN_RECV)"
    if state == "SYN_SENT":
        return "wrong-ack", "ignored: it does not acknowledge our SYN"
    if reason is None:
        text = "ignored; this kernel does not say why"
        return "ignored", text if state else f"{text}, nor whether it had a socket"
    if reason in SILENT and state is None:
        # Half-open and TIME_WAIT ones are ended so, too; the socket is not told before 6.11.
        return "dropped", "the kernel does not say why it was dropped, nor what it may have ended"
    if reason in SILENT:
        return "dropped", "ignored: the kernel gives no reason"
    return drops.cause(reason)
