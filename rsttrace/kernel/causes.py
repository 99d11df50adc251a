"""Causes: the kernel's reasons in plain sentences, told apart by kind and state.

Kernel reasons arrive by name (the numbers are the running kernel's own; values were inserted
mid-enum over time). Sources: ``include/net/rstreason.h``, ``include/net/dropreason-core.h`` and the
callers named beside each entry.
"""

from __future__ import annotations

from rsttrace.model import Cause, Kind

PASSIVE = {
    "NO_SOCKET": ("no-socket", "no such connection here"),
    "TCP_INVALID_ACK_SEQUENCE": ("invalid-ack", "it acknowledged data that was never sent"),
    "TCP_RFC7323_PAWS": ("paws", "its timestamp was too old (PAWS)"),
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
    "TCP_KEEPALIVE_TIMEOUT": ("keepalive", "the peer did not answer keepalive probes"),
    "TCP_DISCONNECT_WITH_DATA": ("disconnect", "disconnected with data unsent"),
    "NOT_SPECIFIED": ("unspecified", "the kernel gives no reason"),
    "ERROR": ("protocol-error", "a protocol error"),
}
"""sk_rst_reason of tcp_send_active_reset(); TCP_STATE is told apart in `sent_active`."""

MPTCP = {
    "EUNSPEC": "MPTCP reset it without telling why",
    "EMPTCP": "it fits no MPTCP connection (an unknown token, or another MPTCP error)",
    "ERESOURCE": "MPTCP lacked resources for it",
    "EPROHIBIT": "MPTCP does not allow it here",
    "EWQ2BIG": "MPTCP had too much data outstanding on it",
    "EBADPERF": "MPTCP found it too slow",
    "EMIDDLEBOX": "MPTCP's options were tampered with on the way",
}
"""By sk_rst_reason without MPTCP_RST_; in the order of the codes that MP_TCPRST carries (RFC 8684
§3.6; include/uapi/linux/mptcp.h)."""

MP_FASTCLOSE, MP_TCPRST = "mptcp 7", "mptcp 8"
"""How a RST's MPTCP option begins in the words of `tcp.options_text`: kind, subtype (RFC 8684
§3.5, §3.6)."""

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

REJECTED = {
    "TCP_CSUM": ("bad-checksum", "ignored: its TCP checksum is wrong"),
    "TCP_INVALID_SEQUENCE": ("out-of-window", "ignored: its sequence number is out of window"),
    "TCP_INVALID_END_SEQUENCE": ("out-of-window", "ignored: its sequence number is out of window"),
    "TCP_OVERWINDOW": ("out-of-window", "ignored: its sequence number is out of window"),
    "TCP_OLD_SEQUENCE": ("out-of-window", "ignored: its sequence number is out of window"),
    "TCP_OLD_DATA": ("out-of-window", "ignored: its sequence number is out of window"),
    "TCP_CLOSE": ("closed", "ignored: the connection was over already (CLOSE)"),
    "TCP_RFC7323_PAWS": ("paws", "ignored: its timestamp is too old (PAWS)"),
    "TCP_RFC7323_PAWS_ACK": ("paws", "ignored: its timestamp is too old (PAWS)"),
    "IP_CSUM": ("bad-ip-checksum", "ignored: its IP header checksum is wrong"),
    "NETFILTER_DROP": ("firewall-drop", "dropped by this host's firewall before any socket"),
    "IP_RPFILTER": ("rp-filter", "dropped: its source address fails the reverse path check"),
    "SOCKET_FILTER": ("socket-filter", "dropped by the socket's own filter"),
    "SOCKET_BACKLOG": ("backlog", "dropped: the socket's backlog was full"),
    "TC_INGRESS": ("traffic-control", "dropped by traffic control before any socket"),
    "XDP": ("xdp", "dropped by XDP before any socket"),
    "XFRM_POLICY": ("ipsec-policy", "dropped by an IPsec policy"),
}
"""skb_drop_reason of a RST that reset nothing."""


RAW_SOCKET = Cause("raw-socket", "a process wrote it through a raw socket")

HALF_OPEN = (None, "NOT_SPECIFIED")
"""Drop reasons of a RST that ends a half-open connection (tcp_check_req() gives none)."""


def _reason(name: str) -> str:
    return f"the kernel's reason is {name}"


def mptcp(reason: str | None, options: str) -> Cause | None:
    """Why MPTCP reset a subflow: the kernel's reason, else the code in the RST's own MP_TCPRST.

    `options` is the RST's, as text. None: MPTCP did not reset it.
    """
    code = None
    if reason is not None and reason.startswith("MPTCP_RST_"):
        code = reason[len("MPTCP_RST_") :]
    elif reason is None:
        found = next((word for word in options.split(",") if word.startswith(MP_TCPRST)), None)
        if found is not None:  # subtype, flags, reason: "mptcp 8001"
            code = dict(enumerate(MPTCP)).get(int(found[-2:], 16), "EUNSPEC")
    return Cause("mptcp-reset", MPTCP.get(code, MPTCP["EUNSPEC"]), reason) if code else None


def sent_passive(
    reason: str | None,
    state: str | None,
    answered: str | None,
    *,
    data: bool = False,
    probed: bool = True,
    options: str = "",
) -> Cause:
    """Why tcp_v4_send_reset() answered.

    `answered` is the trigger's flags, `data` whether it had any, `options` the RST's own;
    `probed`: a probe told of it.
    Without (the tracepoint is silent before 6.10), it was either no socket or a TIME_WAIT one.
    """
    subflow = mptcp(reason, options)
    if subflow is not None:  # a SYN for a listener that wants to join an unknown connection
        return subflow
    syn = answered is not None and "S" in answered and "A" not in answered
    if state == "LISTEN":
        return Cause(
            "listen",
            f"only a listener there, no such connection (answer to {_segment(answered)})",
            reason,
        )
    if reason == "TCP_TIMEWAIT_SOCKET" or state == "TIME_WAIT":
        return Cause("time-wait", PASSIVE["TCP_TIMEWAIT_SOCKET"][1], reason)
    if reason is None and answered is None:
        return Cause("unknown", "the TCP stack answered a segment; why was not seen", None)
    if reason == "NO_SOCKET" or (reason is None and state is None):
        if syn:
            return Cause("no-listener", "no socket listens there (answer to SYN)", reason)
        if reason is None and not probed:
            return Cause(
                "no-connection",
                f"no such connection here, or one in TIME_WAIT (answer to {_segment(answered)})",
                None,
            )
        suffix = f" (answer to {_segment(answered)})" if answered else ""
        return Cause("no-socket", PASSIVE["NO_SOCKET"][1] + suffix, reason)
    if reason in PASSIVE:
        name, text = PASSIVE[reason]
        return Cause(name, text, reason)
    if reason is None and data and state in ("FIN_WAIT1", "FIN_WAIT2"):
        # tcp_rcv_state_process(): data is the one thing that these states answer with a RST.
        return Cause(*PASSIVE["TCP_ABORT_ON_DATA"], None)
    if reason is None:
        return Cause("answered", f"answer to {_segment(answered)} in state {state}", None)
    return Cause(reason.lower().replace("_", "-"), _reason(reason), reason)


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
) -> Cause:
    """Why tcp_send_active_reset() ran; `unread`: with received data that the program had not read.

    `options` is the RST's, as text.

    TCP_STATE has two callers: tcp_disconnect() (close with SO_LINGER 0, connect(AF_UNSPEC)) sets
    CLOSE first, tcp_abort() (``ss -K``, BPF iterators) does not.
    """
    if MP_FASTCLOSE in options:  # mptcp_do_fastclose() says TCP_ABORT_ON_CLOSE to both
        return Cause(
            "mptcp-fastclose", "closed at once with MPTCP (data unread, or SO_LINGER 0)", reason
        )
    subflow = None if reason is None and by_task else mptcp(reason, options)
    if subflow is not None:
        return subflow
    if reason in ("TCP_STATE", None) and by_task:
        if state_now != "CLOSE":
            return Cause("aborted", "killed from outside its program (ss -K)", reason)
        if reason is not None:
            return Cause("linger", "closed with SO_LINGER 0, or disconnected", reason)
        # __tcp_close() resets where data is unread, and else leaves it to tcp_disconnect().
        if unread:
            return Cause(*ACTIVE["TCP_ABORT_ON_CLOSE"], None)
        return Cause("linger", "closed with SO_LINGER 0, or disconnected", None)
    if reason is None:
        return Cause("timer", "a timer gave up on the connection", None)
    if reason == "TCP_STATE" and state_now == "CLOSE":  # inet_csk_listen_stop()
        return Cause(
            "not-accepted", "the listener closed before it accepted the connection", reason
        )
    if reason == "TCP_STATE":  # tcp_keepalive_timer(): an orphan in FIN_WAIT2
        return Cause(
            "orphan-timeout", "the kernel gave up on a socket whose program had closed it", reason
        )
    if reason in ACTIVE:
        name, text = ACTIVE[reason]
        return Cause(name, text, reason)
    return Cause(reason.lower().replace("_", "-"), _reason(reason), reason)


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


def received(kind: Kind, reason: str | None, state: str | None) -> Cause:
    """What a received RST did, or why it did nothing."""
    if kind is Kind.RECEIVED_ACCEPTED:
        name, text = ACCEPTED.get(
            state or "", ("connection-reset", "ended an established connection")
        )
        if state is None:
            text = "ended a connection"
        return Cause(name, text, reason)
    if kind is Kind.RECEIVED_UNMATCHED:
        return Cause("no-socket", "no socket for it here", reason)
    if kind is Kind.FORWARDED:
        if reason is None:
            return Cause("forwarded", "passed through", None)
        name, text = REJECTED.get(reason, ("dropped", f"dropped on its way: {_reason(reason)}"))
        return Cause(name, text, reason)
    if reason in REJECTED and reason in ("TCP_CSUM", "NETFILTER_DROP"):
        return Cause(*REJECTED[reason], reason)
    if state == "LISTEN":
        return Cause("listen", "ignored: only a listener there, no such connection", reason)
    if reason == "TCP_RESET" and state is None:  # before 6.11 the socket is not told
        return Cause(
            "ignored",
            "ignored: not the expected sequence number (challenge ACK), or only a listener there",
            reason,
        )
    if reason == "TCP_RESET":  # tcp_validate_incoming(): in window, but not exactly the next one
        return Cause(
            "challenge-ack",
            "ignored: not the expected sequence number (answered with a challenge ACK, RFC 5961)",
            reason,
        )
    if state == "TIME_WAIT":
        return Cause("time-wait", "ignored: the connection is over (TIME_WAIT)", reason)
    if state == "CLOSE" and reason in (None, "NOT_SPECIFIED"):  # tcp_rcv_state_process()
        return Cause(*REJECTED["TCP_CLOSE"], reason)
    if state in ("NEW_SYN_RECV", "SYN_RECV"):
        return Cause("syn-recv", "ended a handshake that had not finished (SYN_RECV)", reason)
    if state == "SYN_SENT":
        return Cause("wrong-ack", "ignored: it does not acknowledge our SYN", reason)
    if reason in REJECTED:
        name, text = REJECTED[reason]
        return Cause(name, text, reason)
    if reason is None:
        text = "ignored; this kernel does not say why"
        return Cause("ignored", text if state else f"{text}, nor whether it had a socket", None)
    return Cause("dropped", f"ignored: {_reason(reason)}", reason)
