"""What this kernel and this machine offer for tracing, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from rsttrace import programs
from rsttrace.errors import RsttraceError
from rsttrace.kernel import hooks, knowledge, kprobe, loader, lockdown, rights
from rsttrace.kernel.btf import VMLINUX
from rsttrace.kernel.protocol import Report, Request
from rsttrace.model import Check, Diagnosis, HookCheck, Kind, Loading, Result

TOOLS = (
    ("ip", "iproute2", "only `rsttrace demo` needs ip"),
    (
        "nft",
        "nftables",
        "rules of nftables that reject are not named; `rsttrace demo` needs it, too",
    ),
    ("iptables-save", "iptables", "rules of iptables that reject are not named, if there are any"),
)
"""Programs that some part needs, their package, and what is missing without them."""


def diagnose(plan: str = "auto") -> Diagnosis:
    """Look at everything, then really load and attach, and take it off again."""
    checks = [_python(), *_privileges(), _btf(), _kprobes(), _lockdown(), *_tools()]
    loading, log = None, ""
    try:
        loaded = loader.load(
            Request(kinds=tuple(kind.value for kind in Kind), plan=plan, kept=False)
        )
    except RsttraceError as error:
        checks.append(Check("load", Result.FAILED, error.what, error.hint))
        log = error.log
    else:
        log = loaded.log
        loaded.close()
        loading = _loading(loaded.report)
        checks += _of_loading(loading)
    return Diagnosis(
        platform.release(),
        platform.machine(),
        platform.python_version(),
        tuple(checks),
        loading,
        log,
    )


def _loading(report: Report) -> Loading:
    return Loading(
        plan=report.plan,
        source=report.source,
        bcc=report.bcc_version,
        missing_fields=tuple(report.missing_fields),
        knows=report.knows,
        unknown=tuple(knowledge.unknown(hooks.Plan(report.plan), report.knows)),
        hooks=tuple(
            HookCheck(
                hook.target,
                "kprobe" if hook.kprobe else "raw tracepoint",
                hook.attached,
                hook.error,
                hook.unseen,
            )
            for hook in report.hooks
        ),
    )


def _of_loading(loading: Loading) -> list[Check]:
    source = "this kernel's BTF" if loading.source == "btf" else "installed kernel headers"
    text = f"compiled with bcc {loading.bcc} against {source}, loaded and attached"
    checks = [Check("load", Result.OK, text)]
    if loading.missing_fields:
        text = f"this kernel does not have: {', '.join(loading.missing_fields)}"
        checks.append(Check("fields", Result.WARNING, text))
    if loading.unknown:
        text = f"not known on this kernel with this plan: {'; '.join(loading.unknown)}"
        checks.append(Check("knowledge", Result.WARNING, text))
    blind = knowledge.BLIND_SPOTS[hooks.Plan(loading.plan)]
    checks.append(Check("plan", Result.OK, f"unseen with this plan on any kernel: {blind}"))
    return checks


def _python() -> Check:
    return Check("python", Result.OK, f"{platform.python_version()} ({sys.executable})")


def _privileges() -> list[Check]:
    try:
        loader.check_privileges()
    except RsttraceError as error:
        return [Check("privileges", Result.FAILED, error.what, error.hint)]
    text = "root" if os.geteuid() == 0 else "enough capabilities to trace"
    return [
        Check("privileges", Result.OK, text),
        *map(_right, rights.RIGHTS),
    ]


def _right(right: rights.Right) -> Check:
    if rights.has(rights.effective(), right.number):
        return Check("privileges", Result.OK, f"{right.name}: {right.gives}")
    return Check("privileges", Result.WARNING, f"without {right.name}: {right.without}")


def _btf() -> Check:
    if Path(VMLINUX).exists():
        return Check("BTF", Result.OK, VMLINUX)
    return Check(
        "BTF",
        Result.WARNING,
        f"no {VMLINUX}",
        "kernel headers will be used instead; a kernel with CONFIG_DEBUG_INFO_BTF=y is better",
    )


def _kprobes() -> Check:
    if kprobe.available():
        return Check("kprobes", Result.OK, "available: the full plan")
    return Check("kprobes", Result.WARNING, "this kernel has none: the tracepoint plan serves")


def _lockdown() -> Check:
    state = lockdown.state()
    if state is None:
        return Check("lockdown", Result.OK, "not active")
    if lockdown.is_confidential():
        return Check(
            "lockdown", Result.FAILED, state, "boot with lockdown=integrity, or without lockdown"
        )
    return Check("lockdown", Result.OK, state)


def _tools() -> list[Check]:
    checks = []
    for program, package, needed_by in TOOLS:
        found = programs.look(program)
        if found.path is not None:
            checks.append(Check(program, Result.OK, found.path))
        else:
            text = f"{found.problem}: {needed_by}"
            checks.append(Check(program, Result.WARNING, text, f"install the package {package}"))
    return checks
