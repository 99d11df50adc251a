"""``rsttrace doctor``: what this kernel offers, and what is missing."""

from __future__ import annotations

from dataclasses import replace

from rsttrace.commands.about import about_run
from rsttrace.commands.run import machine_form, to_stderr
from rsttrace.kernel.doctor import diagnose
from rsttrace.kernel.rights import effective
from rsttrace.model import Check, Result
from rsttrace.privileges import capabilities
from rsttrace.privileges.account import account
from rsttrace.render.doctor import doctor_lines, doctor_object


def run_command(output: str, *, verbose: bool, plan: str) -> int:
    """The command; the exit code: 0 if tracing works here, 1 if not."""
    diagnosis = diagnose(plan)
    diagnosis = replace(diagnosis, checks=(*diagnosis.checks, after_the_start()))
    if output != "text":
        lines = [machine_form(output)(doctor_object(diagnosis), about_run())]
    else:
        lines = doctor_lines(diagnosis)
    print("\n".join(lines), flush=True)
    if verbose and diagnosis.log:
        to_stderr(diagnosis.log)
    return 0 if diagnosis.works else 1


def after_the_start() -> Check:
    """Which of its rights a trace keeps."""
    become = account(None)
    if become is None:
        text = "not started by root: a trace keeps the rights that it has"
        return Check("after the start", Result.OK, text)
    needed = capabilities.mask([capabilities.SETUID, capabilities.SETGID])
    if effective() & needed != needed:
        return Check(
            "after the start",
            Result.WARNING,
            f"a trace keeps no capability, but stays root: it cannot become {become.name}",
            "give it CAP_SETUID and CAP_SETGID, too",
        )
    text = f"a trace becomes {become.name}, without capabilities; a helper keeps what features take"
    return Check("after the start", Result.OK, text)
