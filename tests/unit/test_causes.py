from __future__ import annotations

import itertools

import pytest

from rsttrace.kernel import causes, config, drops
from rsttrace.kernel.causes import received, sent_active, sent_passive
from rsttrace.model import Cause, Kind
from tests.unit.builders import STATES

NEW = "TCP_BRAND_NEW_REASON"
"""What a future kernel may say."""

PASSIVE_REASONS = (None, NEW, *causes.PASSIVE)
ACTIVE_REASONS = (None, NEW, "TCP_STATE", *causes.ACTIVE)
RECEIVED_REASONS = (None, NEW, "TCP_RESET", "NO_SOCKET", "NOT_SPECIFIED", *drops.DROPS)
ALL_STATES = (None, *config.TCP_STATES.values())
TRIGGERS = (None, "", "S", "SA", "A", "PA", "FA", "FPA", "U", "SPAUEW")
RECEIVED = tuple(kind for kind in Kind if kind.direction != "sent")


def check(cause: Cause, reason: str | None) -> None:
    """What every cause owes its reader."""
    assert cause.kernel_reason == reason
    assert cause.name
    assert cause.name == cause.name.lower()
    assert " " not in cause.name
    assert "_" not in cause.name
    assert cause.text
    assert "None" not in cause.text
    assert cause.text.isprintable()
    assert cause.text == cause.text.strip()


def test_states_are_the_kernels() -> None:
    numbers = {name: number for number, name in config.TCP_STATES.items()}
    assert {name: numbers[name] for name in STATES} == STATES
    assert len(numbers) == 12


# ---- sent-passive ----


@pytest.mark.parametrize(
    ("reason", "state", "answered", "name", "words"),
    [
        ("NO_SOCKET", None, "S", "no-listener", "no socket listens there (answer to SYN)"),
        ("NO_SOCKET", None, "SA", "no-socket", "no such connection here (answer to SYN-ACK)"),
        ("NO_SOCKET", None, "PA", "no-socket", "no such connection here (answer to data)"),
        ("NO_SOCKET", None, None, "no-socket", "no such connection here"),
        (None, None, "S", "no-listener", "no socket listens there (answer to SYN)"),
        (None, None, "A", "no-socket", "no such connection here (answer to ACK)"),
        (None, "LISTEN", "A", "listen", "only a listener there"),
        ("TCP_FLAGS", "LISTEN", "A", "listen", "only a listener there"),
        ("NO_SOCKET", "LISTEN", None, "listen", "only a listener there"),
        ("TCP_TIMEWAIT_SOCKET", None, "A", "time-wait", "TIME_WAIT"),
        (None, "TIME_WAIT", "A", "time-wait", "TIME_WAIT"),
        ("TCP_ABORT_ON_DATA", "FIN_WAIT2", "PA", "data-after-close", "data arrived after"),
        ("TCP_INVALID_ACK_SEQUENCE", "SYN_RECV", "A", "invalid-ack", "never sent"),
        ("TCP_ACK_UNSENT_DATA", "ESTABLISHED", "A", "invalid-ack", "never sent"),
        ("TCP_RFC7323_PAWS", "SYN_RECV", "A", "paws", "PAWS"),
        ("TCP_TOO_OLD_ACK", "ESTABLISHED", "A", "old-ack", "far too old"),
        ("TCP_OLD_ACK", "SYN_RECV", "A", "old-ack", "too old"),
        ("TCP_FLAGS", "SYN_SENT", "A", "unexpected-segment", "does not allow"),
        ("INVALID_SYN", "ESTABLISHED", "S", "invalid-syn", "a SYN inside"),
        (None, "ESTABLISHED", "PA", "answered", "answer to data in state ESTABLISHED"),
        (NEW, "ESTABLISHED", "A", "tcp-brand-new-reason", NEW),
        (NEW, None, None, "tcp-brand-new-reason", NEW),
        ("MPTCP_RST_EMPTCP", "LISTEN", "S", "mptcp-reset", "unknown token"),
        ("MPTCP_RST_EPROHIBIT", "ESTABLISHED", "A", "mptcp-reset", "does not allow"),
        ("MPTCP_RST_EBRANDNEW", "LISTEN", "S", "mptcp-reset", "without telling why"),
    ],
)
def test_sent_passive(
    reason: str | None, state: str | None, answered: str | None, name: str, words: str
) -> None:
    cause = sent_passive(reason, state, answered)
    check(cause, reason)
    assert cause.name == name
    assert words in cause.text


def test_a_syn_ack_is_no_connection_attempt() -> None:
    assert sent_passive("NO_SOCKET", None, "SA").name == "no-socket"
    assert sent_passive("NO_SOCKET", None, "SEW").name == "no-listener"


# ---- sent-active ----


@pytest.mark.parametrize(
    ("reason", "state_now", "by_task", "name", "words"),
    [
        # TCP_STATE: tcp_disconnect() has set CLOSE, tcp_abort() has not, a timer is no task
        ("TCP_STATE", "CLOSE", True, "linger", "SO_LINGER 0"),
        ("TCP_STATE", "ESTABLISHED", True, "aborted", "ss -K"),
        ("TCP_STATE", "FIN_WAIT2", False, "orphan-timeout", "closed it"),
        (None, "CLOSE", True, "linger", "SO_LINGER 0"),
        (None, "ESTABLISHED", True, "aborted", "ss -K"),
        (None, "ESTABLISHED", False, "timer", "timer"),
        (None, None, False, "timer", "timer"),
        ("TCP_ABORT_ON_CLOSE", "CLOSE", True, "unread-data", "data unread"),
        ("TCP_ABORT_ON_LINGER", "CLOSE", True, "linger2", "TCP_LINGER2"),
        ("TCP_ABORT_ON_MEMORY", "CLOSE", True, "memory", "memory"),
        ("TCP_ABORT_ON_MEMORY", "FIN_WAIT1", False, "memory", "memory"),
        ("TCP_KEEPALIVE_TIMEOUT", "ESTABLISHED", False, "keepalive", "keepalive"),
        ("TCP_DISCONNECT_WITH_DATA", "CLOSE", True, "disconnect", "unsent"),
        ("NOT_SPECIFIED", "ESTABLISHED", False, "unspecified", "no reason"),
        ("ERROR", "ESTABLISHED", False, "protocol-error", "protocol error"),
        (NEW, "CLOSE", True, "tcp-brand-new-reason", NEW),
        (NEW, None, False, "tcp-brand-new-reason", NEW),
    ],
)
def test_sent_active(
    reason: str | None, state_now: str | None, by_task: bool, name: str, words: str
) -> None:
    cause = sent_active(reason, state_now, by_task)
    check(cause, reason)
    assert cause.name == name
    assert words in cause.text


# ---- received ----


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("ESTABLISHED", "connection-reset"),
        ("SYN_SENT", "connection-refused"),
        ("CLOSE_WAIT", "reset-after-fin"),
        ("FIN_WAIT1", "reset-while-closing"),
        ("FIN_WAIT2", "reset-while-closing"),
        ("CLOSING", "reset-while-closing"),
        ("LAST_ACK", "reset-while-closing"),
        ("SYN_RECV", "reset-handshake"),
        (None, "connection-reset"),
    ],
)
def test_received_accepted(state: str | None, name: str) -> None:
    cause = received(Kind.RECEIVED_ACCEPTED, None, state)
    check(cause, None)
    assert cause.name == name
    assert ("established" in cause.text) == (state == "ESTABLISHED")  # unknown is not guessed


@pytest.mark.parametrize(
    ("reason", "state", "name"),
    [
        ("TCP_RESET", "ESTABLISHED", "challenge-ack"),
        ("TCP_RESET", "LISTEN", "listen"),
        ("TCP_CSUM", "ESTABLISHED", "bad-checksum"),
        ("TCP_CSUM", "LISTEN", "bad-checksum"),
        ("TCP_CSUM", None, "bad-checksum"),
        ("NETFILTER_DROP", None, "firewall-drop"),
        ("NETFILTER_DROP", "LISTEN", "firewall-drop"),
        ("TCP_INVALID_SEQUENCE", "ESTABLISHED", "out-of-window"),
        ("TCP_OVERWINDOW", "ESTABLISHED", "out-of-window"),
        ("TCP_OLD_SEQUENCE", "ESTABLISHED", "out-of-window"),
        ("TCP_RFC7323_PAWS", "ESTABLISHED", "paws"),
        ("IP_RPFILTER", None, "rp-filter"),
        ("SOCKET_FILTER", "ESTABLISHED", "socket-filter"),
        ("SOCKET_BACKLOG", "ESTABLISHED", "backlog"),
        ("TC_INGRESS", None, "traffic-control"),
        ("XDP", None, "xdp"),
        ("XFRM_POLICY", "ESTABLISHED", "ipsec-policy"),
        ("NOT_SPECIFIED", "TIME_WAIT", "time-wait"),
        (None, "TIME_WAIT", "time-wait"),
        ("TCP_CLOSE", "CLOSE", "closed"),
        ("TCP_CLOSE", None, "closed"),
        ("NOT_SPECIFIED", "CLOSE", "closed"),
        ("SOCKET_FILTER", "CLOSE", "socket-filter"),
        (None, "CLOSE", "closed"),
        (None, "NEW_SYN_RECV", "syn-recv"),
        (None, "SYN_RECV", "syn-recv"),
        (None, "SYN_SENT", "wrong-ack"),
        (None, "ESTABLISHED", "ignored"),
        (None, None, "ignored"),
        (NEW, "ESTABLISHED", "dropped"),
        (NEW, None, "dropped"),
    ],
)
def test_received_rejected(reason: str | None, state: str | None, name: str) -> None:
    cause = received(Kind.RECEIVED_REJECTED, reason, state)
    check(cause, reason)
    assert cause.name == name
    if reason == NEW:
        assert NEW in cause.text


def test_received_unmatched() -> None:
    cause = received(Kind.RECEIVED_UNMATCHED, "NO_SOCKET", None)
    check(cause, "NO_SOCKET")
    assert cause.name == "no-socket"


@pytest.mark.parametrize(
    ("reason", "name"),
    [(None, "forwarded"), ("NETFILTER_DROP", "firewall-drop"), (NEW, "dropped")],
)
def test_forwarded(reason: str | None, name: str) -> None:
    cause = received(Kind.FORWARDED, reason, None)
    check(cause, reason)
    assert cause.name == name
    if reason == NEW:
        assert NEW in cause.text


# ---- everything with everything ----


def test_no_combination_says_none_or_loses_the_kernels_word() -> None:
    for reason, state, flags in itertools.product(PASSIVE_REASONS, ALL_STATES, TRIGGERS):
        check(sent_passive(reason, state, flags), reason)
    for reason, state, by_task in itertools.product(ACTIVE_REASONS, ALL_STATES, (True, False)):
        check(sent_active(reason, state, by_task), reason)
    for kind, reason, state in itertools.product(RECEIVED, RECEIVED_REASONS, ALL_STATES):
        check(received(kind, reason, state), reason)


def test_a_name_means_one_thing() -> None:
    """A cause's name in one table says the same in each of its reasons: at most one sentence."""
    for table in (causes.ACTIVE, drops.DROPS):
        sentences: dict[str, set[str]] = {}
        for name, text in table.values():
            sentences.setdefault(name, set()).add(text)
        assert all(len(texts) == 1 for texts in sentences.values())


# ---- MPTCP ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("mptcp 8000", "without telling why"),
        ("mptcp 8001", "unknown token"),
        ("nop,nop,TS val 1 ecr 2,mptcp 8106", "tampered"),  # flags: T (transient)
        ("mptcp 80ff", "without telling why"),
    ],
)
def test_mptcp_tells_in_the_packet_what_an_older_kernel_does_not(options: str, words: str) -> None:
    for cause in (
        sent_passive(None, "LISTEN", "S", options=options),
        sent_active(None, "CLOSE", by_task=False, options=options),
    ):
        check(cause, None)
        assert cause.name == "mptcp-reset"
        assert words in cause.text
    # The kernel's own reason, or a program's close(), comes before what the option says.
    assert sent_passive("NO_SOCKET", None, "S", options=options).name == "no-listener"
    assert sent_active(None, "CLOSE", by_task=True, options=options).name == "linger"


@pytest.mark.parametrize("reason", [None, "TCP_ABORT_ON_CLOSE", "NOT_SPECIFIED"])
def test_mptcp_fastclose(reason: str | None) -> None:
    cause = sent_active(
        reason, "ESTABLISHED", by_task=True, options="nop,mptcp 7000a2adb079233e4ad,mptcp 8000"
    )
    check(cause, reason)
    assert cause.name == "mptcp-fastclose"
