from __future__ import annotations

import json
from dataclasses import replace

from rsttrace.model import Check, Diagnosis, HookCheck, Loading, Result
from rsttrace.render.doctor import doctor_lines, doctor_object

LOADING = Loading(
    plan="kprobes",
    source="btf",
    bcc="0.26.0",
    missing_fields=("sk_cgroup",),
    knows={"drop_reason": True},
    unknown=("the kernel's reason for a reset that it sends",),
    hooks=(
        HookCheck("kfree_skb", "raw tracepoint", True, None, "rejected resets"),
        HookCheck("tcp_reset", "kprobe", False, "the kernel refuses", "accepted resets"),
    ),
)
DIAGNOSIS = Diagnosis(
    kernel="6.1.0",
    machine="x86_64",
    python="3.11.2",
    checks=(
        Check("BTF", Result.OK, "/sys/kernel/btf/vmlinux"),
        Check("nft", Result.WARNING, "not found", "install nftables"),
    ),
    loading=LOADING,
    log="1 warning generated.",
)
BROKEN = replace(
    DIAGNOSIS, checks=(Check("load", Result.FAILED, "no bcc", "install it"),), loading=None
)


def test_text() -> None:
    assert doctor_lines(DIAGNOSIS) == [
        "rsttrace on Linux 6.1.0 (x86_64)",
        "  ok      BTF  /sys/kernel/btf/vmlinux",
        "  warning nft  not found",
        "               what to do: install nftables",
        "  ok      raw tracepoint kfree_skb: attached",
        "  warning kprobe tcp_reset: not attached: the kernel refuses",
        "          unseen: accepted resets",
        "tracing works here (plan: kprobes; hooks: 1 of 2)",
    ]


def test_text_where_nothing_works() -> None:
    assert doctor_lines(BROKEN)[1:] == [
        "  failed  load  no bcc",
        "                what to do: install it",
        "tracing does not work here: see above",
    ]


def test_json() -> None:
    found = json.loads(json.dumps(doctor_object(DIAGNOSIS)))
    assert found["schema"] == 1
    assert found["doctor"] == {
        "works": True,
        "kernel": "6.1.0",
        "machine": "x86_64",
        "python": "3.11.2",
        "plan": "kprobes",
        "source": "btf",
        "bcc": "0.26.0",
        "missing_fields": ["sk_cgroup"],
        "knows": {"drop_reason": True},
        "unknown": ["the kernel's reason for a reset that it sends"],
        "hooks": [
            {
                "target": "kfree_skb",
                "type": "raw tracepoint",
                "attached": True,
                "error": None,
                "unseen": None,
            },
            {
                "target": "tcp_reset",
                "type": "kprobe",
                "attached": False,
                "error": "the kernel refuses",
                "unseen": "accepted resets",
            },
        ],
        "checks": [
            {
                "name": "BTF",
                "result": "ok",
                "text": "/sys/kernel/btf/vmlinux",
                "hint": None,
            },
            {"name": "nft", "result": "warning", "text": "not found", "hint": "install nftables"},
        ],
    }


def test_json_where_nothing_works_has_the_same_fields() -> None:
    found = doctor_object(BROKEN)["doctor"]
    assert list(found) == list(doctor_object(DIAGNOSIS)["doctor"])
    assert found["works"] is False
    unknown = ("plan", "source", "bcc", "missing_fields", "knows", "unknown")
    assert [found[name] for name in unknown] == [None] * len(unknown)
    assert found["hooks"] == []
