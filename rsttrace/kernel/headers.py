"""What a kernel without BTF still tells: prototypes from its headers, reason names from tracefs.

Only the loading child uses this, and only where there is no BTF. Offsets are no business of this
file: the compiler takes them from the same headers.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
"""Where tracefs is mounted (Documentation/trace/ftrace.rst)."""

PROTOTYPES = {
    "tcp_reset": ("include/net/tcp.h", r"\btcp_reset\(([^)]*)\)\s*;"),
    "tcp_send_active_reset": ("include/net/tcp.h", r"\btcp_send_active_reset\(([^)]*)\)\s*;"),
    # static functions; struct request_sock_ops has a pointer to them
    "tcp_v4_send_reset": ("include/net/request_sock.h", r"\(\*send_reset\)\s*\(([^)]*)\)\s*;"),
    "btf_trace_kfree_skb": (
        "include/trace/events/skb.h",
        r"EVENT\w*\((?:\w+,\s*)?kfree_skb,\s*TP_PROTO\(([^)]*)\)",
    ),
    "btf_trace_tcp_send_reset": (
        "include/trace/events/tcp.h",
        r"EVENT\w*\((?:\w+,\s*)?tcp_send_reset,\s*TP_PROTO\(([^)]*)\)",
    ),
    "btf_trace_sock_recv_length": (
        "include/trace/events/sock.h",
        r"EVENT\w*\((?:\w+,\s*)?sock_recv_length,\s*TP_PROTO\(([^)]*)\)",
    ),
}
"""Where the prototypes are that differ between kernels, by the names `Btf.parameters` takes."""

SYMBOLS = {"skb_drop_reason": "skb/kfree_skb", "sk_rst_reason": "tcp/tcp_send_reset"}
"""The events whose ``print fmt`` names an enum's values, for their field ``reason``."""


def directory() -> Path | None:
    """The running kernel's headers, where bcc looks for them; None if they are not installed."""
    base = Path("/lib/modules") / platform.release()
    for name in ("source", "build"):
        if (base / name / "include/linux/kconfig.h").is_file():
            return base / name
    return None


def parameters(name: str, tree: Path | None = None) -> list[str] | None:
    """Argument names of one of `PROTOTYPES`, from the headers in `tree` (default: the kernel's).

    None where the headers do not have it, or it is none of those.
    """
    tree = tree or directory()
    if tree is None or name not in PROTOTYPES:
        return None
    path, pattern = PROTOTYPES[name]
    try:
        text = (tree / path).read_text(errors="replace")
    except OSError:
        return None
    found = re.search(pattern, text)
    if found is None:
        return None
    # C11 6.7.6: the parameter's name is the declarator's last word.
    words = (re.findall(r"\w+", argument) for argument in found[1].split(","))
    return [argument[-1] for argument in words if argument]


def symbols(text: str, field: str) -> dict[str, int]:
    """Names and values that an event's ``print fmt`` gives a field (``__print_symbolic``).

    Args:
        text: the event's ``format`` file (Documentation/trace/events.rst, section 3).
        field: the field's name.

    Values that the kernel has left as names (no TRACE_DEFINE_ENUM) are left out.
    """
    start = re.search(rf"__print_symbolic\(REC->{field},", text)
    if start is None:
        return {}
    # {value, "name"} pairs follow each other; what comes behind the last one is something else.
    pairs = re.match(r'(?:\s*\{[^{}"]*"[^"]*"\s*\}\s*,?)*', text[start.end() :])
    assert pairs is not None  # it matches nothing, too
    return {
        name: int(value, 0)
        for value, name in re.findall(
            r'\{\s*(0x[0-9a-fA-F]+|\d+)[uUlL]*\s*,\s*"(\w+)"\s*\}', pairs[0]
        )
    }


def enum(name: str) -> dict[str, int]:
    """An enum's names (without their prefix) and values, from the event that prints it.

    Empty where tracefs is not mounted, or the kernel's event has no reason.
    """
    for mounted in TRACEFS:
        try:
            text = (mounted / "events" / SYMBOLS[name] / "format").read_text(errors="replace")
        except OSError:
            continue
        return symbols(text, "reason")
    return {}
