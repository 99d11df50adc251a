"""How far the running kernel is locked down (kernel_lockdown(7))."""

from __future__ import annotations

from pathlib import Path

STATE = Path("/sys/kernel/security/lockdown")


def state() -> str | None:
    """The modes that there are, the active one in brackets; None where there is no lockdown."""
    try:
        return STATE.read_text().strip()
    except OSError:
        return None


def is_confidential() -> bool:
    """Whether the kernel is locked down so far that BPF may not read its memory.

    LOCKDOWN_BPF_READ_KERNEL, LOCKDOWN_KPROBES and LOCKDOWN_PERF belong to that mode
    (include/linux/security.h); to the milder one only writing does.
    """
    return "[confidentiality]" in (state() or "")
