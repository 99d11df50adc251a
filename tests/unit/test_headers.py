"""Prototypes from headers and reason names from tracefs, where a kernel has no BTF."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsttrace.kernel import headers

# As the kernels have them (excerpts): 5.10, 6.1, 6.12.
TCP_H = {
    "5.10": "void tcp_send_active_reset(struct sock *sk, gfp_t priority);\n"
    "void tcp_reset(struct sock *sk);\n",
    "6.1": "void tcp_send_active_reset(struct sock *sk, gfp_t priority);\n"
    "void tcp_reset(struct sock *sk, struct sk_buff *skb);\n",
    "6.12": "void tcp_send_active_reset(struct sock *sk, gfp_t priority,\n"
    "\t\t\t   enum sk_rst_reason reason);\n"
    "void tcp_reset(struct sock *sk, struct sk_buff *skb);\n",
}
REQUEST_H = {
    "5.10": "\tvoid\t\t(*send_reset)(const struct sock *sk,\n\t\t\t\t      struct sk_buff *skb);\n",
    "6.12": "\tvoid\t\t(*send_reset)(const struct sock *sk,\n\t\t\t\t      struct sk_buff *skb,\n"
    "\t\t\t\t      enum sk_rst_reason reason);\n",
}
SKB_H = {
    "5.10": "TRACE_EVENT(kfree_skb,\n\n\tTP_PROTO(struct sk_buff *skb, void *location),\n",
    "6.1": "TRACE_EVENT(kfree_skb,\n\n\tTP_PROTO(struct sk_buff *skb, void *location,\n"
    "\t\t enum skb_drop_reason reason),\n",
    "6.12": "TRACE_EVENT(kfree_skb,\n\n\tTP_PROTO(struct sk_buff *skb, void *location,\n"
    "\t\t enum skb_drop_reason reason, struct sock *rx_sk),\n",
}
EVENTS_TCP_H = {
    "5.10": "DEFINE_EVENT(tcp_event_sk_skb, tcp_retransmit_skb,\n\n"
    "\tTP_PROTO(const struct sock *sk, const struct sk_buff *skb),\n\n"
    "DEFINE_EVENT(tcp_event_sk_skb, tcp_send_reset,\n\n"
    "\tTP_PROTO(const struct sock *sk, const struct sk_buff *skb),\n",
    "6.12": "TRACE_EVENT(tcp_send_reset,\n\n\tTP_PROTO(const struct sock *sk,\n"
    "\t\t const struct sk_buff *skb__nullable,\n\t\t const enum sk_rst_reason reason),\n",
}


@pytest.mark.parametrize(
    ("name", "path", "text", "expected"),
    [
        ("tcp_reset", "net/tcp.h", TCP_H["5.10"], ["sk"]),
        ("tcp_reset", "net/tcp.h", TCP_H["6.1"], ["sk", "skb"]),
        ("tcp_send_active_reset", "net/tcp.h", TCP_H["6.1"], ["sk", "priority"]),
        ("tcp_send_active_reset", "net/tcp.h", TCP_H["6.12"], ["sk", "priority", "reason"]),
        ("tcp_v4_send_reset", "net/request_sock.h", REQUEST_H["5.10"], ["sk", "skb"]),
        ("tcp_v4_send_reset", "net/request_sock.h", REQUEST_H["6.12"], ["sk", "skb", "reason"]),
        ("btf_trace_kfree_skb", "trace/events/skb.h", SKB_H["5.10"], ["skb", "location"]),
        ("btf_trace_kfree_skb", "trace/events/skb.h", SKB_H["6.1"], ["skb", "location", "reason"]),
        (
            "btf_trace_kfree_skb",
            "trace/events/skb.h",
            SKB_H["6.12"],
            ["skb", "location", "reason", "rx_sk"],
        ),
        ("btf_trace_tcp_send_reset", "trace/events/tcp.h", EVENTS_TCP_H["5.10"], ["sk", "skb"]),
        (
            "btf_trace_tcp_send_reset",
            "trace/events/tcp.h",
            EVENTS_TCP_H["6.12"],
            ["sk", "skb__nullable", "reason"],
        ),
        ("tcp_reset", "net/tcp.h", "nothing of the kind", None),
        ("tcp_v6_send_reset", "net/tcp.h", TCP_H["6.12"], None),
    ],
)
def test_prototypes(
    name: str, path: str, text: str, expected: list[str] | None, tmp_path: Path
) -> None:
    file = tmp_path / "include" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert headers.parameters(name, tmp_path) == expected


def test_headers_that_are_not_there(tmp_path: Path) -> None:
    assert headers.parameters("tcp_reset", tmp_path) is None


FORMAT = """\
name: tcp_send_reset
format:
	field:enum sk_rst_reason reason;	offset:28;	size:4;	signed:0;

print fmt: "state=%s reason=%s", REC->state ? __print_symbolic(REC->state, { 1, "NOT_OURS" }, \
{ TCP_SYN_SENT, "TCP_SYN_SENT" }) : "UNKNOWN", __print_symbolic(REC->reason, \
{ 0, "NOT_SPECIFIED" }, { 1, "NO_SOCKET" }, { SK_RST_REASON_X, "LEFT_AS_A_NAME" }, \
{ 0x20000, "MAX" }), __print_symbolic(REC->other, { 3, "NOT_OURS_EITHER" })
"""


def test_symbols_are_the_fields_own() -> None:
    assert headers.symbols(FORMAT, "reason") == {
        "NOT_SPECIFIED": 0,
        "NO_SOCKET": 1,
        "MAX": 0x20000,
    }


def test_an_event_without_the_field_has_no_symbols() -> None:
    assert headers.symbols(FORMAT, "unknown") == {}
    assert headers.symbols('print fmt: "skbaddr=%p", REC->skbaddr\n', "reason") == {}


def test_enum_reads_the_mounted_tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "TRACEFS", (tmp_path / "absent", tmp_path / "mounted"))
    assert headers.enum("sk_rst_reason") == {}
    event = tmp_path / "mounted/events/tcp/tcp_send_reset"
    event.mkdir(parents=True)
    (event / "format").write_text(FORMAT)
    assert headers.enum("sk_rst_reason")["NO_SOCKET"] == 1
    assert headers.enum("skb_drop_reason") == {}
