"""What this kernel and this machine offer for tracing, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsttrace.errors import RsttraceError
from rsttrace.kernel import hooks, kprobe, loader, lockdown
from rsttrace.kernel.btf import VMLINUX
from rsttrace.kernel.protocol import Report, Request
from rsttrace.model import Kind

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Check:
    """One thing looked at: `result` is ok, warning or failed; `hint` says what to do."""

    name: str
    result: str
    text: str
    hint: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The whole picture; `works` decides the exit code."""

    kernel: str
    machine: str
    checks: tuple[Check, ...]
    report: Report | None
    log: str

    @property
    def works(self) -> bool:
        """Whether tracing works here."""
        return self.report is not None

    def object(self) -> dict[str, Any]:
        """The same as a JSON object (schema 1)."""
        report = self.report
        return {
            "schema": 1,
            "doctor": {
                "works": self.works,
                "kernel": self.kernel,
                "machine": self.machine,
                "python": platform.python_version(),
                "plan": report.plan if report else None,
                "source": report.source if report else None,
                "bcc": report.bcc_version if report else None,
                "missing_fields": report.missing_fields if report else None,
                "knows": report.knows if report else None,
                "unknown": hooks.unknown(hooks.Plan(report.plan), report.knows) if report else None,
                "hooks": [
                    {
                        "target": hook.target,
                        "type": "kprobe" if hook.kprobe else "raw tracepoint",
                        "attached": hook.attached,
                        "error": hook.error,
                        "unseen": None if hook.attached else hook.unseen,
                    }
                    for hook in (report.hooks if report else ())
                ],
                "checks": [
                    {
                        "name": check.name,
                        "result": check.result,
                        "text": check.text,
                        "hint": check.hint,
                    }
                    for check in self.checks
                ],
            },
        }

    def text_lines(self) -> list[str]:
        """The same for people."""
        lines = [f"rsttrace on Linux {self.kernel} ({self.machine})"]
        width = max(len(check.name) for check in self.checks)
        for check in self.checks:
            lines.append(f"  {check.result:<8}{check.name:<{width}}  {check.text}")
            if check.hint:
                lines.append(f"  {'':8}{'':<{width}}  what to do: {check.hint}")
        for hook in self.report.hooks if self.report else ():
            state = "attached" if hook.attached else f"not attached: {hook.error}"
            kind = "kprobe" if hook.kprobe else "raw tracepoint"
            lines.append(f"  {OK if hook.attached else WARNING:<8}{kind} {hook.target}: {state}")
            if not hook.attached:
                lines.append(f"  {'':8}unseen: {hook.unseen}")
        if self.report:
            lines.append(
                f"tracing works here (plan: {self.report.plan}; "
                f"hooks: {self.report.attached} of {len(self.report.hooks)})"
            )
        else:
            lines.append("tracing does not work here: see above")
        return lines


def diagnose(plan: str = "auto") -> Diagnosis:
    """Look at everything, then really load and attach, and take it off again."""
    checks = [_python(), _privileges(), _btf(), _kprobes(), _lockdown(), *_tools()]
    report, log = None, ""
    request = Request(kinds=tuple(kind.value for kind in Kind), plan=plan)
    try:
        loaded = loader.load(request)
    except RsttraceError as error:
        checks.append(Check("load", FAILED, error.what, error.hint))
        log = error.log
    else:
        report, log = loaded.report, loaded.log
        loaded.close()
        source = "this kernel's BTF" if report.source == "btf" else "installed kernel headers"
        text = f"compiled with bcc {report.bcc_version} against {source}, loaded and attached"
        checks.append(Check("load", OK, text))
        if report.missing_fields:
            text = f"this kernel does not have: {', '.join(report.missing_fields)}"
            checks.append(Check("fields", WARNING, text))
        unknown = hooks.unknown(hooks.Plan(report.plan), report.knows)
        if unknown:
            text = f"not known on this kernel with this plan: {'; '.join(unknown)}"
            checks.append(Check("knowledge", WARNING, text))
    return Diagnosis(platform.release(), platform.machine(), tuple(checks), report, log)


def _python() -> Check:
    return Check("python", OK, f"{platform.python_version()} ({sys.executable})")


def _privileges() -> Check:
    try:
        loader.check_privileges()
    except RsttraceError as error:
        return Check("privileges", FAILED, error.what, error.hint)
    return Check("privileges", OK, "root" if os.geteuid() == 0 else "enough capabilities")


def _btf() -> Check:
    if Path(VMLINUX).exists():
        return Check("BTF", OK, VMLINUX)
    return Check(
        "BTF",
        WARNING,
        f"no {VMLINUX}",
        "kernel headers will be used instead; a kernel with CONFIG_DEBUG_INFO_BTF=y is better",
    )


def _kprobes() -> Check:
    if kprobe.available():
        return Check("kprobes", OK, "available: the full plan")
    return Check("kprobes", WARNING, "this kernel has none: the tracepoint plan serves")


def _lockdown() -> Check:
    state = lockdown.state()
    if state is None:
        return Check("lockdown", OK, "not active")
    if lockdown.is_confidential():
        return Check("lockdown", FAILED, state, "boot with lockdown=integrity, or without lockdown")
    return Check("lockdown", OK, state)


def _tools() -> list[Check]:
    checks = []
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        path = shutil.which(program)
        if path:
            checks.append(Check(program, OK, path))
        else:
            text = f"not found: only `rsttrace demo` needs {program}"
            checks.append(Check(program, WARNING, text, f"install the package {package}"))
    return checks
