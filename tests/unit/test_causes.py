from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from rsttrace.kernel import causes, config, drops
from rsttrace.kernel.causes import received, sent_active, sent_passive
from rsttrace.model import AcceptQueue, Cause, Kind, Process, Socket, Timers
from tests.unit.builders import STATES

SOCKET = Socket(1, "ESTABLISHED", None, None, 99, 0, None)

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
    for flags, words in (("SAE", "SYN-ACK"), ("AW", "ACK"), ("PAEW", "data"), ("FAE", "FIN")):
        assert f"(answer to {words})" in sent_passive("NO_SOCKET", None, flags).text


QUEUE = AcceptQueue(3, 2, aborts=True)


@pytest.mark.parametrize(
    ("reason", "answered", "queue", "name", "words"),
    [
        ("INVALID_SYN", "A", QUEUE, "listen-overflow", "(3 wait, its limit is 2)"),
        ("INVALID_SYN", "PA", None, "listen-overflow", "accept queue was full"),
        ("INVALID_SYN", "S", QUEUE, "invalid-syn", "a SYN inside"),
        (None, "S", None, "invalid-syn", "a SYN inside"),
        (None, "A", QUEUE, "listen-overflow", "(3 wait, its limit is 2)"),
        (None, "A", AcceptQueue(2, 2, aborts=True), "listen", "only a listener"),
        (None, "A", AcceptQueue(3, 2, aborts=False), "listen", "only a listener"),
        (None, None, QUEUE, "listen", "only a listener"),
        ("TCP_FLAGS", "A", QUEUE, "listen", "only a listener"),
    ],
)
def test_what_a_listener_is_answered_for(
    reason: str | None, answered: str | None, queue: AcceptQueue | None, name: str, words: str
) -> None:
    listener = replace(SOCKET, state="LISTEN", accept_queue=queue)
    cause = sent_passive(reason, "LISTEN", answered, socket=listener)
    check(cause, reason)
    assert cause.name == name
    assert words in cause.text


@pytest.mark.parametrize("reason", [None, "TCP_TIMEWAIT_SOCKET"])
@pytest.mark.parametrize(
    ("state", "answered", "data", "name"),
    [
        ("FIN_WAIT2", "PA", True, "data-after-close"),
        ("FIN_WAIT2", "FPA", True, "data-after-close"),
        ("FIN_WAIT2", "S", False, "invalid-syn"),
        ("FIN_WAIT2", "A", False, "time-wait"),
        ("TIME_WAIT", "PA", True, "time-wait"),
    ],
)
def test_a_minisocket_in_fin_wait2_is_not_in_time_wait(
    reason: str | None, state: str, answered: str, data: bool, name: str
) -> None:
    mini = replace(SOCKET, state=state, minisocket=True)
    cause = sent_passive(reason, state, answered, data=data, socket=mini)
    check(cause, reason)
    assert cause.name == name


def test_the_ack_of_a_fin_ends_what_has_tcp_linger2() -> None:
    assert sent_passive("TCP_ABORT_ON_DATA", "FIN_WAIT2", "A").name == "linger2"
    assert sent_passive(None, "FIN_WAIT2", "A").name == "linger2"
    late = sent_passive("TCP_ABORT_ON_DATA", "FIN_WAIT2", "PA", data=True)
    assert late.name == "data-after-close"


# ---- sent-active ----

TIMERS = Timers(
    silent_ms=90_500,
    unanswered=3,
    retransmits=0,
    user_timeout_ms=None,
    keepalive_idle_ms=7_200_000,
    keepalive_interval_ms=75_000,
    keepalive_probes=3,
)


@pytest.mark.parametrize("reason", [None, "TCP_KEEPALIVE_TIMEOUT"])
def test_keepalive_says_how_long(reason: str | None) -> None:
    cause = sent_active(reason, "ESTABLISHED", by_task=False, socket=timed(TIMERS))
    check(cause, reason)
    assert cause.name == "keepalive"
    assert cause.text == (
        "the peer did not answer 3 keepalive probes: it was last heard 90.5 s before (the first "
        "after 2.0 h, then one every 75.0 s)"
    )


@pytest.mark.parametrize("reason", [None, "TCP_KEEPALIVE_TIMEOUT"])
def test_tcp_user_timeout_says_how_long(reason: str | None) -> None:
    timers = replace(TIMERS, user_timeout_ms=350, unanswered=1)
    cause = sent_active(reason, "ESTABLISHED", by_task=False, socket=timed(timers))
    check(cause, reason)
    assert cause.name == "user-timeout"
    assert "for 90.5 s (TCP_USER_TIMEOUT is 350 ms; 1 keepalive probe unanswered)" in cause.text


def timed(timers: Timers, **members: Any) -> Socket:
    return replace(SOCKET, timers=timers, **members)


def test_an_orphans_timer_is_told_where_the_kernel_gives_no_reason() -> None:
    closing = timed(TIMERS, inode=None, state="FIN_WAIT2")
    assert sent_active(None, "FIN_WAIT2", False, socket=closing).name == "orphan-timeout"
    unsent = timed(TIMERS, inode=None, state="FIN_WAIT1")
    assert sent_active(None, "FIN_WAIT1", False, socket=unsent).name == "memory"


def test_no_task_and_closed_is_the_listeners_close() -> None:
    for reason in (None, "TCP_STATE"):
        cause = sent_active(reason, "CLOSE", by_task=False)
        check(cause, reason)
        assert cause.name == "not-accepted"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"exit_signal": 9}, "its process was killed (SIGKILL)"),
        ({"exit_signal": 35}, "its process was killed (signal 35)"),
        ({"exit_status": 0}, "its process exited (status 0)"),
        ({"exit_status": 3}, "its process exited (status 3)"),
    ],
)
def test_a_process_that_ends_is_no_program_that_closes(ended: dict[str, int], words: str) -> None:
    for reason, unread, options, name in (
        ("TCP_ABORT_ON_CLOSE", False, "", "unread-data"),
        (None, True, "", "unread-data"),
        ("TCP_STATE", False, "", "linger"),
        (None, False, "", "linger"),
        ("TCP_ABORT_ON_CLOSE", False, "mptcp 7000a2adb079233e4ad0", "mptcp-fastclose"),
    ):
        signal, status = ended.get("exit_signal"), ended.get("exit_status")
        process = Process(4711, "shop", 1000, exit_signal=signal, exit_status=status)
        cause = sent_active(reason, "CLOSE", True, unread, options, process=process)
        check(cause, reason)
        assert cause.name == name
        assert cause.text.startswith(words)
        assert "the program closed" not in cause.text


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (119_000, "119.0 s"), (120_000, "2 min")],
)
def test_a_length_of_time(milliseconds: int, words: str) -> None:
    assert causes.span(milliseconds) == words


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
        ("TCP_MD5NOTFOUND", "ESTABLISHED", "md5-missing"),
        ("TCP_AOFAILURE", "ESTABLISHED", "ao-wrong"),
        ("TCP_MINTTL", "ESTABLISHED", "min-ttl"),
        ("NOT_SPECIFIED", "ESTABLISHED", "dropped"),
        ("NOT_SPECIFIED", None, "dropped"),
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


@pytest.mark.parametrize("reason", [None, "NOT_SPECIFIED"])
@pytest.mark.parametrize(
    ("kind", "state", "expected", "rfc1337", "name", "words"),
    [
        (Kind.RECEIVED_ACCEPTED, "TIME_WAIT", True, False, "time-wait-ended", "(TIME_WAIT)"),
        (Kind.RECEIVED_ACCEPTED, "FIN_WAIT2", True, True, "time-wait-ended", "(FIN_WAIT2, whose"),
        (Kind.RECEIVED_REJECTED, "TIME_WAIT", True, True, "time-wait", "tcp_rfc1337 keeps"),
        (Kind.RECEIVED_REJECTED, "TIME_WAIT", False, True, "time-wait", "not the one expected"),
        (Kind.RECEIVED_REJECTED, "TIME_WAIT", False, False, "time-wait", "not the one expected"),
        (Kind.RECEIVED_REJECTED, "FIN_WAIT2", False, False, "time-wait", "out of window"),
        (Kind.RECEIVED_REJECTED, "TIME_WAIT", True, False, "paws", "too old (PAWS)"),
        (Kind.RECEIVED_REJECTED, "FIN_WAIT2", True, True, "paws", "too old (PAWS)"),
    ],
)
def test_received_by_a_minisocket(
    *,
    kind: Kind,
    state: str,
    expected: bool,
    rfc1337: bool,
    name: str,
    words: str,
    reason: str | None,
) -> None:
    cause = received(kind, reason, state, minisocket=True, expected=expected, rfc1337=rfc1337)
    check(cause, reason)
    assert cause.name == name
    assert words in cause.text


def test_a_kernel_that_says_it_was_the_timestamp_is_believed() -> None:
    for expected in (False, True):
        found = received(
            *(Kind.RECEIVED_REJECTED, "TCP_RFC7323_TW_PAWS", "TIME_WAIT"),
            minisocket=True,
            expected=expected,
            rfc1337=True,
        )
        assert found.name == "paws"


@pytest.mark.parametrize("kind", RECEIVED)
def test_what_a_received_reset_says_of_why_is_told(kind: Kind) -> None:
    silent = received(kind, None, None).text
    assert received(kind, None, None, options="nop,nop,TS val 1 ecr 2").text == silent
    told = received(kind, None, None, options="mptcp 8006").text
    assert told == f"{silent}; it says: MPTCP's options were tampered with on the way"
    told = received(kind, None, None, options="nop,mptcp 8102").text
    assert told.endswith("MPTCP lacked resources for it; the cause is transient: it may be tried "
                         "again")  # fmt: skip
    told = received(kind, None, None, options="mptcp 7000a2adb079233e4ad0").text
    assert told.endswith("closed at once with MPTCP (MP_FASTCLOSE)")


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
